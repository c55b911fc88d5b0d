"""A network to imitate (distillation), from its weights."""

from __future__ import annotations

from pathlib import Path

import torch

from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.training.epoch import Teacher


def load_teacher(path: Path | None, num_classes: int, device: torch.device) -> Teacher | None:
    """The network of a weights file with all its modules on, as one trained alone has them; None for None.

    Raises:
        ValueError: it tells other than ``num_classes`` classes apart.
    """
    if path is None:
        return None
    network = MetaGraph.load(path)
    if network.num_classes != num_classes:
        raise ValueError(f"teacher: {path} has {network.num_classes} classes; {num_classes} will do")
    return network.child(network.space.full_mask()).to(device)
