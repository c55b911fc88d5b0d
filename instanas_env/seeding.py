"""Independent random generators from one seed, so that no stream depends on how much another drew."""

from __future__ import annotations

import numpy as np
import torch

from instanas_env import checks


def generator_for(seed: int, *keys: int) -> torch.Generator:
    """A CPU generator for the stream ``keys`` of ``seed``, such as ``(seed, epoch)``.

    An epoch with a generator of its own can be repeated after a kill without replaying those before it.
    """
    state = np.random.SeedSequence(checks.whole("seed", seed), spawn_key=keys).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))
