"""Forms of the action: the same masks, written as other spaces for clients that do not take 85 bits.

| ``actions=`` | space of one action | meaning |
|---|---|---|
| "bits" | MultiBinary(85) | bit ``5 * cell + module`` switches that module on |
| "multi_discrete" | MultiDiscrete([2] * 85) | the same bits |
| "cells" | MultiDiscrete([32] * 17)| one number a cell; bit m of it (value ``2**m``) is module m |
| "blocks" | MultiBinary(17) | BlockDrop's: keep a cell's MobileNetV2 block (MBConv k3 F6) |
| a menu (path, masks) | Discrete(K) | the number of a mask of the menu |

In "blocks" a cell that changes shape cannot be dropped: its bit has no effect.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from instanas_env import arrays, checks
from instanas_env.search_space import SearchSpace
from instanas_env.wrappers.menu import load_menu, menu_masks

NAMES = ("bits", "multi_discrete", "cells", "blocks")


class ActionForm(ABC):
    """How actions of one form become what the bandit takes.

    Attributes:
        space: of one action.
        shape: of one action: ``(85,)``, ``(17,)`` or ``()``.
        highest: the largest number in an action.
    """

    space: spaces.Space
    shape: tuple[int, ...]
    highest: int = 1

    @abstractmethod
    def _choices(self, numbers: Tensor) -> Tensor:
        """What the bandit takes for whole numbers ``(..., *shape)`` in range."""

    def check_shape(self, actions: Any, leading: Sequence[int], several: bool = False) -> None:
        """``ValueError`` unless the shape is ``(*leading, *shape)`` or, with ``several``, K of that."""
        arrays.expect_shape("actions", actions, (*leading, *self.shape), several)

    def choices(self, actions: Any, leading: Sequence[int], several: bool = False) -> Tensor:
        """Checked actions as the bandit takes them: bits, or for a table the numbers of its masks.

        Args:
            actions: an array, tensor or list, ``(*leading, *shape)`` of any number type.
            leading: ``()`` for one image, ``(n,)`` for n of them.
            several: take ``(K, *leading, *shape)`` as well.

        Returns:
            Bits, bool ``(*leading, num_bits)`` or ``(K, *leading, num_bits)``, not yet repaired; or numbers,
            int64 ``leading`` or ``(K, *leading)``.

        Raises:
            ValueError: another shape, or a number out of range; nothing is changed.
        """
        self.check_shape(actions, leading, several)
        return self._choices(arrays.whole_numbers("actions", actions, self.highest))


class Bits(ActionForm):
    """MultiBinary, or MultiDiscrete of as many twos."""

    def __init__(self, space: SearchSpace, multi_discrete: bool = False):
        count = space.num_bits
        self.space = spaces.MultiDiscrete([2] * count) if multi_discrete else spaces.MultiBinary(count)
        self.shape = (count,)

    def _choices(self, numbers: Tensor) -> Tensor:
        return numbers.bool()


class Cells(ActionForm):
    """One number for each cell."""

    def __init__(self, space: SearchSpace):
        options = 2**space.num_modules
        self.space = spaces.MultiDiscrete([options] * space.num_cells)
        self.shape, self.highest = (space.num_cells,), options - 1
        self._modules = torch.arange(space.num_modules)

    def _choices(self, numbers: Tensor) -> Tensor:
        return ((numbers.unsqueeze(-1) >> self._modules) & 1).flatten(-2).bool()


class Blocks(ActionForm):
    """BlockDrop's bits: which of MobileNetV2's blocks are kept."""

    def __init__(self, space: SearchSpace):
        self.space = spaces.MultiBinary(space.num_cells)
        self.shape = (space.num_cells,)
        self._blocks = space.mobilenet_v2_mask()
        self._always = space.needs_module

    def _choices(self, numbers: Tensor) -> Tensor:
        kept = numbers.bool() | self._always
        return (kept.unsqueeze(-1) & self._blocks).flatten(-2)


class Numbers(ActionForm):
    """The numbers of ``count`` masks, as they are: a table needs no bits."""

    def __init__(self, count: int):
        self.space = spaces.Discrete(count)
        self.shape, self.highest = (), count - 1

    def _choices(self, numbers: Tensor) -> Tensor:
        return numbers


class Menu(Numbers):
    """The numbers of K masks, bool ``(K, num_cells, num_modules)``, which become their bits."""

    def __init__(self, masks: Tensor):
        super().__init__(len(masks))
        self.masks = masks
        self._rows = masks.flatten(1)

    def _choices(self, numbers: Tensor) -> Tensor:
        return self._rows[numbers]


def action_form(actions: Any, space: SearchSpace) -> ActionForm:
    """The form that the keyword ``actions`` names.

    Args:
        actions: one of :data:`NAMES`, the path of a menu file (:mod:`instanas_env.wrappers.menu`), or the
            masks of a menu themselves, ``(K, num_bits)`` or ``(K, num_cells, num_modules)`` of 0 and 1, in an
            array, tensor or list.
        space: the search space.

    Raises:
        ValueError: an unknown name, or a menu that does not fit the space.
    """
    if isinstance(actions, str) and actions in NAMES:
        if actions in ("bits", "multi_discrete"):
            return Bits(space, multi_discrete=actions == "multi_discrete")
        return Cells(space) if actions == "cells" else Blocks(space)
    if isinstance(actions, (list, tuple, np.ndarray, Tensor)):
        return Menu(menu_masks("actions", actions, space))
    if not checks.path("actions", actions).is_file():
        raise ValueError(
            f"actions: unknown {actions!r}; choose from {', '.join(NAMES)}, or the path of a menu"
        )
    return Menu(load_menu(actions, space))


def recorded(actions: Any, form: ActionForm) -> Any:
    """The keyword ``actions`` of ``form`` as specs record it: a menu's masks as lists, for JSON."""
    if isinstance(form, Menu) and not isinstance(actions, (str, os.PathLike)):
        return form.masks.flatten(1).int().tolist()
    return actions
