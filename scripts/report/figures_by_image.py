"""Figure 7: for each class, images from easy to hard by the controller's own judgement, its latency.

From the rows of results.json and the record of images beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scripts.comparison.image_record import Choices, ImageRecord
from scripts.comparison.policy_table import difference
from scripts.report.figures import arrays, pyplot, save

MAX_CLASSES = 10
IMAGES_PER_CLASS = 8
LINE = 1.22
"""Height of a line, in widths of an image: the image and its number."""


def choices_of(row: dict[str, Any], record: ImageRecord) -> Choices | None:
    """What the policy of ``row`` did with each image; None if the record is of another comparison."""
    choices = record.policies.get(row["name"])
    if choices is None:
        return None
    images = [network["images"] for network in row["networks"]]
    counts = np.bincount(choices.network.numpy(), minlength=len(images)).tolist()
    return choices if counts == images else None


def widest_of_each_group(learned: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each search, the policy with most networks; none of a search that gives all images the same."""
    groups: dict[str, dict[str, Any]] = {}
    for row in learned:
        best = groups.get(row["group"])
        if len(row["networks"]) > (len(best["networks"]) if best else 1):
            groups[row["group"]] = row
    return list(groups.values())


def from_easy_to_hard(
    latency_ms: np.ndarray, label: np.ndarray, sample: np.ndarray
) -> dict[int, list[tuple[int, float]]]:
    """For each class, positions in ``sample`` evenly spread over its order by latency.

    Beside each position stands the image's latency relative to the mean of *all* images of its class:
    0.25 takes a quarter longer.

    Args:
        latency_ms, label: of all images, ``(N,)``.
        sample: images to choose from, ``(S,)``.
    """
    chosen = {}
    for name in np.unique(label[sample])[:MAX_CLASSES].tolist():
        mean = latency_ms[label == name].mean()
        members = (label[sample] == name).nonzero()[0]
        members = members[np.argsort(latency_ms[sample[members]], kind="stable")]
        spread = np.linspace(0, len(members) - 1, min(IMAGES_PER_CLASS, len(members))).round().astype(int)
        chosen[name] = [(int(m), float(latency_ms[sample[m]] / mean - 1)) for m in members[spread]]
    return chosen


def draw_by_image(row: dict[str, Any], choices: Choices, record: ImageRecord, path: Path) -> None:
    """Draw Figure 7 of one policy; a wrong answer's number is red."""
    latency_ms = arrays(row)[2][choices.network.numpy()]
    sample = record.sample.numpy()
    lines = from_easy_to_hard(latency_ms, record.label.numpy(), sample)
    columns = max(map(len, lines.values()))
    width, height = columns + 1.5, LINE * len(lines) + 0.5
    figure = pyplot().figure(figsize=(0.85 * width, 0.85 * height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-1.5, columns), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()
    axes.text(columns / 2, -0.2, f"{row['name']}: easy to hard", ha="center", va="center", fontsize=11)
    for number, (label, line) in enumerate(lines.items()):
        top = LINE * number
        for left, (position, relative) in enumerate(line):
            picture = record.thumbnails[position].permute(1, 2, 0).expand(-1, -1, 3).numpy()
            extent = (left + 0.05, left + 0.95, top + 0.9, top)
            axes.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")
            colour = "0.15" if choices.correct[sample[position]] else "#c0202b"
            text = difference(1 + relative)
            axes.text(left + 0.5, top + 0.94, text, ha="center", va="top", fontsize=9, color=colour)
        axes.text(-0.1, top + 0.45, record.classes[label], ha="right", va="center", fontsize=10)
    save(figure, path)
