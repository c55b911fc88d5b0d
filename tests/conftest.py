"""What several test files share: small spaces, a meta-graph with a BatchNorm worth folding, hypothesis."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from torch import nn

from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace

# No deadline: machines are shared. Derandomised: a test that fails once fails again.
settings.register_profile("instanas", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("instanas")
# One thread: with two on a busy machine of two cores the same tests took 30 times as long. `make processors`
# asks for two.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

RandomiseBatchNorm = Callable[[nn.Module, int], nn.Module]


@pytest.fixture(autouse=True)
def default_initialisation() -> None:
    """A layer built without a generator draws its weights from here: the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def lite_space() -> SearchSpace:
    """The space of the shipped meta-graph."""
    return SearchSpace.preset("lite")


@pytest.fixture(scope="session")
def tiny_space() -> SearchSpace:
    """The lite space at half its width: the same 85 bits, a quarter of the work."""
    return SearchSpace.preset("lite", width=0.5)


@pytest.fixture(scope="session")
def randomise_batch_norm() -> RandomiseBatchNorm:
    """A function ``(module, seed) -> module`` that draws BatchNorm's statistics and affine parameters.

    A fresh BatchNorm is almost the identity: folding it wrongly would go unnoticed.
    """

    def randomise(module: nn.Module, seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(layer.bias, 0.0, 0.5, generator=generator)
                nn.init.normal_(layer.running_mean, 0.0, 0.5, generator=generator)
                nn.init.uniform_(layer.running_var, 0.5, 1.5, generator=generator)
        return module.eval()

    return randomise


@pytest.fixture(scope="session")
def tiny_graph(tiny_space: SearchSpace, randomise_batch_norm: RandomiseBatchNorm) -> MetaGraph:
    """A meta-graph of the tiny space with 10 classes, in evaluation mode. Tests must leave it as it is."""
    meta_graph = MetaGraph(tiny_space, 10, torch.Generator().manual_seed(1))
    randomise_batch_norm(meta_graph, 2)
    return meta_graph
