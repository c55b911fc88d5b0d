"""Which image got which network: Figures 7 and 8, and some images for the head of the page.

All take the row of a policy in results.json, what it did with each image, and the record of the images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.evaluation.image_record import Choices, ImageRecord
from instanas_env.search_space import ALL_MODULES
from scripts.comparison.text_table import count, difference, milliseconds
from scripts.report.pictures import WIDTH, arrays, data_uri, new_figure, png_of

MAX_CLASSES = 10
IMAGES_PER_CLASS = 8
SHOWN = 6
"""Images at the head of the page."""
PICTURES = 14
"""On a map."""
ON, OFF = (31, 111, 180), (222, 227, 234)


def picture(record: ImageRecord, position: int) -> np.ndarray:
    """A thumbnail of the sample, uint8 ``(h, w, 3)``."""
    return record.thumbnails[position].permute(1, 2, 0).expand(-1, -1, 3).numpy()


def evenly(ordered: np.ndarray, wanted: int) -> np.ndarray:
    """At most ``wanted`` entries, evenly spaced, the first and the last among them."""
    return ordered[np.linspace(0, len(ordered) - 1, min(len(ordered), wanted)).round().astype(int)]


def images_shown(row: dict[str, Any], choices: Choices, record: ImageRecord) -> list[dict[str, Any]]:
    """Some images in the order of the time that they got, with their modules."""
    masks, _, latency_ms = arrays(row)
    network = choices.network[record.sample].numpy()
    shown = []
    for position in evenly(np.argsort(latency_ms[network], kind="stable"), SHOWN).tolist():
        image, mask = int(record.sample[position]), masks[network[position]]
        shown.append(
            {
                "picture": data_uri(png_of(picture(record, position))),
                "grid": data_uri(png_of(module_grid(mask))),
                "name": record.classes[record.label[image]],
                "ms": milliseconds(float(latency_ms[network[position]])),
                "modules": f"{mask.sum():.0f} of {len(mask)}",
                "right": bool(choices.correct[image]),
            }
        )
    return shown


def module_grid(mask: np.ndarray) -> np.ndarray:
    """A network as a picture, uint8 ``(h, w, 3)``: a column for each cell, a line for each module."""
    bits = mask.reshape(-1, len(ALL_MODULES)).T
    colours = np.where(bits[..., None] > 0, ON, OFF).astype(np.uint8)
    pixels = np.pad(colours.repeat(8, 0).repeat(8, 1), ((0, 1), (0, 1), (0, 0)))
    pixels[::8] = pixels[:, ::8] = 255
    return pixels


def from_easy_to_hard(
    latency_ms: np.ndarray, label: np.ndarray, sample: np.ndarray
) -> dict[int, list[tuple[int, float]]]:
    """For each class, positions in ``sample`` evenly spread over its order by latency.

    Beside each position stands the image's latency relative to the mean of *all* images of its class:
    0.25 takes a quarter longer, -1 nothing, as where the controller answers itself.

    Args:
        latency_ms, label: of all images, ``(N,)``.
        sample: images to choose from, ``(S,)``.
    """
    chosen = {}
    for name in np.unique(label[sample])[:MAX_CLASSES].tolist():
        mean = latency_ms[label == name].mean()
        members = (label[sample] == name).nonzero()[0]
        members = evenly(members[np.argsort(latency_ms[sample[members]], kind="stable")], IMAGES_PER_CLASS)
        relative = latency_ms[sample[members]] / mean - 1 if mean else -np.ones(len(members))
        chosen[name] = list(zip(members.tolist(), relative.tolist(), strict=True))
    return chosen


def images_by_class(row: dict[str, Any], choices: Choices, record: ImageRecord) -> Any:
    """Figure 7; a wrong answer's number is red."""
    latency_ms = arrays(row)[2][choices.network.numpy()]
    sample = record.sample.numpy()
    lines = from_easy_to_hard(latency_ms, record.label.numpy(), sample)
    figure, grid = new_figure(0.62 * len(lines) + 0.3, len(lines), max(map(len, lines.values())))
    figure.suptitle(row["policy"], fontsize=9)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for line, (label, images) in zip(grid, lines.items(), strict=True):
        line[0].set_ylabel(record.classes[label][:14], rotation=0, ha="right", va="center")
        for axes, (position, relative) in zip(line, images, strict=False):
            axes.imshow(picture(record, position), interpolation="nearest")
            colour = "0.15" if choices.correct[sample[position]] else "#c0202b"
            axes.set_xlabel(difference(1 + relative), fontsize=7, labelpad=1, color=colour)
    return figure


def architecture_map(row: dict[str, Any], choices: Choices, record: ImageRecord) -> Any:
    """Networks on a plane, coloured by latency, with images that got them, far from each other (Figure 8)."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure, ((axes,),) = new_figure(WIDTH - 1.2)
    masks, images, latency_ms = arrays(row)
    places = plane(masks)
    dots = axes.scatter(
        *places.T, s=6 + 150 * images / images.sum(), c=latency_ms, cmap="coolwarm", alpha=0.8
    )
    axes.set(title=f"{row['policy']}: {count(len(masks), 'network')}", xticks=[], yticks=[])
    axes.margins(0.12)
    at = places[choices.network[record.sample].numpy()]
    distance = np.full(len(at), np.inf)
    for _ in range(PICTURES):
        position = int(distance.argmax())
        if distance[position] > 0:
            image = OffsetImage(picture(record, position), zoom=18 / record.thumbnails.shape[-1])
            axes.add_artist(AnnotationBbox(image, at[position], pad=0.1))
        distance = np.minimum(distance, np.linalg.norm(at - at[position], axis=1))
    figure.colorbar(dots, ax=axes, label="time of the network, ms", shrink=0.6)
    return figure


def plane(masks: np.ndarray) -> np.ndarray:
    """Two coordinates ``(n, 2)`` of each mask: UMAP where it is installed (extra "umap"), else PCA."""
    if len(masks) > 15:
        try:
            from umap import UMAP
        except ImportError:
            pass
        else:
            return UMAP(random_state=0, n_jobs=1, metric="hamming").fit_transform(masks)
    left, values, _ = np.linalg.svd(masks - masks.mean(0), full_matrices=False)
    coordinates = left[:, :2] * values[:2]
    return np.pad(coordinates, ((0, 0), (0, 2 - coordinates.shape[1])))
