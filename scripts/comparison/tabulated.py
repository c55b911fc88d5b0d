"""What a tabular twin is made of: masks worth having in a table, and which images they get right."""

from __future__ import annotations

from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from agents.one_shot import OneShotSearch
from instanas_env import checks
from instanas_env.bandit import InstanceBandit
from instanas_env.data import ImageSet
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.tabulated import MOST, REFERENCES, answers, pack
from instanas_env.training.run_directory import RunDirectory
from instanas_env.wrappers.menu import load_menu
from scripts.comparison.fixed import ranked

BLOCK = 8
"""Masks between two checkpoints: a byte of every image."""


def table_masks(bandit: InstanceBandit, options: Any) -> Tensor:
    """The masks ``(K, num_cells, num_modules)`` of a table, cheap to slow, each once.

    Args:
        bandit: of validation.
        options: those of `instanas tabulate`.
    """
    space, table = bandit.space, bandit.latency_table
    if options.menu is not None:
        masks = load_menu(options.menu, space, "menu")
    else:
        count = checks.whole("masks", options.masks, len(REFERENCES), MOST)
        checks.whole("candidates", options.candidates, count)
        masks = torch.stack([table.cheapest_mask(), space.mobilenet_v2_mask(), space.full_mask()])
        search = ranked(OneShotSearch(bandit, options.seed, options.images), options.candidates)
        # As many as are wanted besides the references, which may be among them.
        masks = distinct(torch.cat([masks, search.menu(count)]))[:count]
    masks = distinct(masks)
    return masks[table.lookup(masks).argsort(stable=True)]


def distinct(masks: Tensor) -> Tensor:
    """Each mask once, in the order in which they first come."""
    first = {tuple(mask.flatten().tolist()): mask for mask in reversed(masks)}
    return torch.stack(list(first.values())[::-1])


def answered(
    folded: MetaGraph, images: ImageSet, split: str, state: dict[str, Any], run: RunDirectory
) -> Tensor:
    """Which masks get which images right, uint8 ``(N, ceil(K / 8))``.

    Args:
        folded: the meta-graph.
        images: of a split.
        split: its name.
        state: of the run: the "masks", and what was answered before, to which this adds.
        run: keeps the state after each block.
    """
    names = []
    for number, block in enumerate(track(state["masks"].split(BLOCK), f"tabulating {split}")):
        names.append(f"{split}.{number:03}")
        if names[-1] not in state:
            state[names[-1]] = pack(torch.stack(list(answers(folded, images, block)), 1))
            run.checkpoint({"answered": names[-1]}, state)
    return torch.cat([state[name] for name in names], 1)
