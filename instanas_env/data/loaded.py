"""The line that says what was loaded: how many images of how many classes, and what was passed over."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import torch

from instanas_env.data.image_set import ImageSet

Size = tuple[int, int]
"""Width and height, px."""

_LOG = logging.getLogger("instanas_env")


def tell(
    name: str, loaded: ImageSet, sizes: Sequence[Size], resolution: int, passed: Counter[str] | None = None
) -> None:
    """Log one line: a warning if a class has no images, else for information.

    Args:
        name: what was loaded.
        loaded: the images.
        sizes: of some or all of them as they were found.
        resolution: what they were brought to.
        passed: what was passed over.
    """
    counts = torch.bincount(loaded.labels, minlength=len(loaded.classes)).tolist()
    empty = [name for name, count in zip(loaded.classes, counts, strict=True) if not count]
    parts = [f"{name}: {len(loaded):,} images of {len(loaded.classes) - len(empty):,} classes"]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        parts.append(f"none of {', '.join(empty[:5])}{more}")
    parts.append(_resized(sizes, resolution))
    if passed:
        parts.append(
            "passed over " + ", ".join(f"{count:,} {what}" for what, count in sorted(passed.items()))
        )
    _LOG.log(logging.WARNING if empty else logging.INFO, "; ".join(parts))


def _resized(sizes: Sequence[Size], resolution: int) -> str:
    def px(size: Size) -> str:
        return f"{size[0]} x {size[1]}"

    aim = (resolution, resolution)
    different = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    if different == [aim]:
        return f"{px(aim)} px"
    between = " to " if len(different) > 2 else " and "
    found = px(different[0]) if len(different) == 1 else f"{px(different[0])}{between}{px(different[-1])}"
    return f"resized from {found} px to {px(aim)} px"
