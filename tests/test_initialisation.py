"""Networks are initialised from their generator alone: the global one neither gives nor loses a number."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from agents.controller import Controller
from instanas_env.networks.meta_graph import MetaGraph, initialise
from instanas_env.networks.torchvision_networks import Architecture, TorchvisionNetwork
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for

TINY = SearchSpace.preset("lite", 0.5)
BUILDS: dict[str, Callable[[], nn.Module]] = {
    "meta-graph": lambda: MetaGraph(TINY, 10, torch.Generator().manual_seed(1)),
    "default generator": lambda: MetaGraph(SearchSpace.preset("lite"), 10),
    "some modules": lambda: MetaGraph(
        SearchSpace.preset("cifar", 0.5).only(2, 0), 7, torch.Generator().manual_seed(3)
    ),
    "controller": lambda: Controller(TINY, generator=torch.Generator().manual_seed(1)),
    "resnet": lambda: TorchvisionNetwork(
        Architecture("resnet18", 0.25), 10, torch.Generator().manual_seed(1)
    ),
    "shufflenet": lambda: TorchvisionNetwork(
        Architecture("shufflenet_v2_x0_5"), 10, torch.Generator().manual_seed(1)
    ),
}
# SHA-256 of the weights as they were when the global generator was forked, first 16 digits. Normal numbers
# differ in their last bits between PyTorch's kernels with vector instructions and those without.
VECTORS = {
    "meta-graph": "24a15bbbc8cc2a06",
    "default generator": "e21c11d3585217bd",
    "some modules": "b92c815236a9249d",
    "controller": "56094810d399a6de",
    "resnet": "67157b9a05eeebf6",
    "shufflenet": "9f8cbc2a6dfeeb6c",
}
SCALARS = {
    "meta-graph": "98ee7b0330960185",
    "default generator": "b6f8d75060e62125",
    "some modules": "7189f382b6d4717f",
    "controller": "3e1c20984c7679ed",
    "resnet": "f2ee9526796e5451",
    "shufflenet": "a535401c5f1aa296",
}
KNOWN = {"AVX2": VECTORS, "AVX512": VECTORS, "DEFAULT": SCALARS}


def checksum(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("name", BUILDS)
def test_weights_are_those_of_earlier_versions(name):
    known = KNOWN.get(torch.backends.cpu.get_cpu_capability())
    if known is None:
        pytest.skip("no checksums for this processor")
    torch.manual_seed(99)
    assert checksum(BUILDS[name]()) == known[name]


def test_weights_are_those_of_layers_built_where_they_stay():
    """The same draws for a network on the CPU from the start as for one on the device "meta"."""

    def network() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))

    with torch.device("meta"):
        unmade = network()
    here = network()
    for module in (unmade, here):
        initialise(module, generator_for(4))
    assert checksum(unmade) == checksum(here)


@pytest.mark.parametrize("name", BUILDS)
def test_building_leaves_the_global_generator_alone(name):
    before = torch.get_rng_state()
    BUILDS[name]()
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_that_build_take_nothing_from_one_that_draws():
    """Forking the generator put an older state back while another thread was drawing."""
    torch.manual_seed(0)
    expected = torch.rand(300, 10)
    torch.manual_seed(0)
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(BUILDS["meta-graph"]) for _ in range(8)]
        drawn = torch.stack([torch.rand(10) for _ in range(300)])
    assert torch.equal(drawn, expected)
    assert len({checksum(one.result()) for one in made}) == 1
