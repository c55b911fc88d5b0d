"""What several test files share: small spaces, a meta-graph with a BatchNorm worth folding, hypothesis."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import nn

from instanas_env import build
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace

# No deadline: machines are shared. Derandomised: a test that fails once fails again.
settings.register_profile("instanas", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("instanas")
# One thread: with two on a busy machine of two cores the same tests took 30 times as long. `make processors`
# asks for two.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

LONGEST = (
    *("experiment", "benchmark", "search", "evaluate", "finetune", "report"),
    *("profiling", "forms", "clients"),
)
"""Files that take longest; the searches that four of them share are made once where one process has them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left with one at the end."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


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


@pytest.fixture(scope="module")
def one_meta_graph() -> Iterator[None]:
    """Environments with the shipped or untrained weights share them in this file, built and folded once.

    Building takes most of what a small test takes. Nothing may train or write them: the end would see it.
    """
    kept: dict[Any, MetaGraph] = {}
    folds: dict[int, MetaGraph] = {}
    build_graph, fold = build._meta_graph, MetaGraph.folded

    def shared(source: Any, *others: Any) -> MetaGraph:
        if source not in (None, "random"):
            return build_graph(source, *others)
        key = (source, *others)
        if key not in kept:
            kept[key] = build_graph(*key)
            folds[id(kept[key])] = fold(kept[key])
        return kept[key]

    def folded(graph: MetaGraph) -> MetaGraph:
        return folds.get(id(graph)) or fold(graph)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_meta_graph", shared)
        patch.setattr(MetaGraph, "folded", folded)
        yield
    for key, graph in kept.items():
        fresh = build_graph(*key)
        for one, other in ((graph, fresh), (folds[id(graph)], fold(fresh))):
            assert not one.training, "put into training mode"
            expected = other.state_dict()
            assert all(torch.equal(tensor, expected[name]) for name, tensor in one.state_dict().items())
