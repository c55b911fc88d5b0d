"""The ``rgb_array`` picture: the image, the mask as a grid of cells by modules, a latency bar, and words."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from instanas_env.contextual import Contexts, Outcome

SIDE = 160  # of the enlarged image, px
TILE = 14  # of one module in the grid, px
GAP = 10
BAR = 12
BACKGROUND = (250, 250, 248)
OFF = (225, 225, 222)
ON = (38, 84, 150)
RIGHT, WRONG = (46, 140, 84), (196, 62, 52)
WINDOW = (240, 214, 150)
TEXT, FAINT = (40, 40, 40), (120, 120, 120)
LINE = 20  # of text, px


def frames(bandit: Any, contexts: Contexts, outcome: Outcome | None) -> list[np.ndarray]:
    """One picture ``(H, W, 3)`` uint8 per image; without an outcome the grid and the bar stay empty.

    Columns of the grid are cells from stem to head, rows are modules. The frame around the image is
    green if the answer was right and red if wrong. The bar ends at the latency of the full meta-graph;
    the light stretch on it is the reward window. Below: the true class and the answer, what the network
    costs, and what it earned.
    """
    images = bandit.images(contexts).numpy()
    return [_frame(bandit, images[i], outcome, i) for i in range(len(contexts))]


def _frame(bandit: Any, pixels: np.ndarray, outcome: Outcome | None, i: int) -> np.ndarray:
    space = bandit.space
    width = GAP + SIDE + GAP + space.num_cells * TILE + GAP
    canvas = np.full((SIDE + 2 * GAP + 2 * LINE, width, 3), BACKGROUND, np.uint8)
    image = pixels.transpose(1, 2, 0)
    pick = np.arange(SIDE) * image.shape[0] // SIDE
    if outcome is not None:
        canvas[GAP - 4 : GAP + SIDE + 4, GAP - 4 : GAP + SIDE + 4] = RIGHT if outcome.correct[i] else WRONG
    canvas[GAP : GAP + SIDE, GAP : GAP + SIDE] = image[pick][:, pick]

    left = 2 * GAP + SIDE
    for cell in range(space.num_cells):
        for module in range(space.num_modules):
            top, start = GAP + module * TILE, left + cell * TILE
            on = outcome is not None and outcome.mask[i, cell, module]
            canvas[top : top + TILE - 2, start : start + TILE - 2] = ON if on else OFF

    full = bandit.latency_table.reference("full")
    length, top = space.num_cells * TILE - 2, GAP + SIDE - BAR

    def position(latency: float) -> int:
        return left + round(length * min(1.0, max(0.0, latency / full)))

    canvas[top : top + BAR, left : left + length] = OFF
    if bandit.cost_table is bandit.latency_table:
        bounds = bandit.bounds
        canvas[top : top + BAR, position(bounds.lower) : position(bounds.upper)] = WINDOW
    if outcome is not None:
        canvas[top + 3 : top + BAR - 3, left : position(outcome.latency_ms[i])] = ON
    return _with_words(canvas, bandit, outcome, i, left)


def _with_words(canvas: np.ndarray, bandit: Any, outcome: Outcome | None, i: int, left: int) -> np.ndarray:
    """The picture with a label for the grid and two lines below."""
    picture = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    space, full = bandit.space, bandit.latency_table.reference("full")
    labels = [module.label for module in space.modules]
    draw.text(
        (left, GAP + space.num_modules * TILE),
        f"cells 1 to {space.num_cells}, from the image to the answer",
        FAINT,
        font,
    )
    small, below = ImageFont.load_default(10), GAP + space.num_modules * TILE
    draw.text((left, below + 16), f"modules from the top: {', '.join(labels[:2])},", FAINT, small)
    draw.text((left, below + 29), ", ".join(labels[2:]), FAINT, small)
    if outcome is not None:
        classes = bandit.image_set.classes
        truth, right = classes[outcome.label[i]], bool(outcome.correct[i])
        known = outcome.prediction[i] >= 0  # the tabular twin does not know wrong answers
        answer = classes[outcome.prediction[i]] if known else "another"
        cost = f"{outcome.latency_ms[i]:.3f} of {full:.3f} ms, {int(outcome.mask[i].sum())} modules"
        top = SIDE + 2 * GAP
        told = f"{truth}: right" if right else f"{truth}, taken for {answer}"
        draw.text((GAP, top - 2), told, RIGHT if right else WRONG, font)
        draw.text((GAP, top + LINE - 4), f"{cost}; reward {outcome.reward[i]:+.3f}", TEXT, font)
    return np.asarray(picture).copy()
