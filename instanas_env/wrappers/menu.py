"""Menus: K masks to choose between, as a file.

JSON holds ``{"search_space": {...}, "masks": [[0, 1, ...], ...]}``. A file that ends in ``.safetensors``
holds one tensor "masks" ``(K, num_bits)`` of 0 and 1, and the search space in the config of its header. Each
mask is its bits (85 in the paper's space) in the order of the action space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instanas_env import arrays, checks
from instanas_env.search_space import SearchSpace
from instanas_env.storage import PathLike, load_json, load_weights, save_json, save_weights

MOST = 2**16
"""Masks of a menu, so that a damaged file is refused and not allocated."""
SAFETENSORS = ".safetensors"


def menu_masks(name: str, masks: Any, space: SearchSpace) -> Tensor:
    """``masks`` ``(K, num_bits)`` or ``(K, num_cells, num_modules)`` of 0 and 1, in an array, tensor or list,
    as repaired bool ``(K, num_cells, num_modules)``.
    """
    shape = arrays.shape(name, masks)
    if shape[1:] not in ((space.num_bits,), space.mask_shape) or not 1 <= shape[0] <= MOST:
        forms = f"(K, {space.num_bits}) or (K, {space.num_cells}, {space.num_modules})"
        raise checks.refuse(name, checks.Shown(f"shape {shape}"), f"{forms} with K from 1 to {MOST}")
    return space.repair(arrays.whole_numbers(name, masks, 1).bool().view(-1, *space.mask_shape))


def save_menu(path: PathLike, space: SearchSpace, masks: Tensor) -> None:
    """Write a menu of ``masks`` ``(K, num_cells, num_modules)`` or ``(K, num_bits)``; they are repaired.

    As safetensors where ``path`` ends in that, else as JSON.
    """
    checked = menu_masks("masks", masks.flatten(1), space)
    if Path(path).suffix == SAFETENSORS:
        save_weights(path, {"masks": checked.flatten(1).to(torch.uint8)}, {"search_space": space.config})
        return
    save_json(path, {"search_space": space.config, "masks": checked.flatten(1).int().tolist()})


def load_menu(path: PathLike, space: SearchSpace, argument: str = "actions") -> Tensor:
    """Read a menu as bool ``(K, num_cells, num_modules)``; ``ValueError`` names the argument and a file that
    is none.
    """
    with checks.explained(f"{argument}: {path} is not a menu", KeyError):
        file = checks.file(argument, path)
        tensors, content = load_weights(file) if file.suffix == SAFETENSORS else ({}, load_json(file))
        masks: Any = {**content, **tensors}["masks"]
        theirs = content["search_space"]
    if theirs != space.config:
        raise ValueError(
            f"{argument}: {path} was made for the search space {theirs!r:.200}; got {space.config}"
        )
    return menu_masks(f"{argument}: {path}", masks, space)
