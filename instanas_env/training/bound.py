"""A run is bound to the images that it was made on: what its record says of them, and the comparison.

Classes renamed, labels exchanged, images added or changed are found by the fingerprint of the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from instanas_env.data import ImageSet
from instanas_env.storage import load_config
from instanas_env.training.matching import META_GRAPH
from instanas_env.validation import integer, items, mapping, record, text

IMAGE_SETS = "image_sets"
"""The key of a run's config under which its image sets are described, by split."""


SETS = mapping(record({"fingerprint": text(), "images": integer(0, 10**12), "classes": items(text())}))
"""What a config holds under that key."""


def described(images: ImageSet) -> dict[str, Any]:
    """An image set in a run's record."""
    return {
        "fingerprint": images.fingerprint,
        "images": len(images),
        "classes": list(images.classes),
    }


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say what tells two described image sets apart; None if they are the same."""
    if before.get("classes") != now["classes"]:
        return other_classes(before.get("classes") or [], now["classes"])
    if before.get("images") != now["images"]:
        return f"{before.get('images')} images then, {now['images']} now"
    if before.get("fingerprint") != now["fingerprint"]:
        return "labels or bytes of the images have changed"
    return None


def other_classes(before: list[str], now: list[str]) -> str:
    """How the classes of two image sets differ."""
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    if not gone and not new:
        return "the classes have another order"
    parts = [f"{word} {', '.join(names[:5])}" for word, names in (("without", gone), ("with", new)) if names]
    return f"the classes are now {' and '.join(parts)}"


def check_same_images(runs: Iterable[Path], dataset: str, split: str, images: ImageSet) -> None:
    """Refuse runs that were made on other images.

    On another data set, by name, the classes alone must be the same: a controller may be tried elsewhere.
    Runs of older versions, which say nothing of their images, pass.

    Args:
        runs: directories with a meta-graph.
        dataset: of the images, as in the options.
        split: of the images.
        images: of that split.

    Raises:
        ValueError: the images, or only the classes, are not those of a run.
    """
    now = described(images)
    for folder in runs:
        record = load_config(folder / META_GRAPH).get("record") or {}
        options = record.get("options") or {}
        before = SETS(options.get(IMAGE_SETS) or {}, f"{folder / META_GRAPH}: {IMAGE_SETS}").get(split)
        if before is None:
            continue
        same_set = options.get("dataset") == dataset
        if not same_set and before["classes"] == now["classes"]:
            continue
        changed = difference(before, now)
        if changed:
            raise ValueError(
                f"data_dir: the {split} images are not those that {folder} was made on: {changed}; bring"
                " those back, or make the run anew"
            )
