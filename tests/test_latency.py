"""The look-up table: a mask costs what its modules cost, and a file that is no table is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from instanas_env.latency import LatencyTable
from instanas_env.networks.counting import count_macs, count_parameters
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for

LITE = SearchSpace.preset("lite", width=4)  # where the first two cells change shape as well
CIFAR = SearchSpace.preset("cifar")
# Module m of cell t costs t + m / 10 ms.
COSTS = torch.arange(17, dtype=torch.float64).reshape(17, 1) + torch.arange(5, dtype=torch.float64) / 10
TABLE = LatencyTable(LITE, COSTS, fixed=8.0, controller=100.0, record={"threads": 1, "spread": None})


def mask_of(*bits: tuple[int, int]) -> Tensor:
    mask = torch.zeros(17, 5, dtype=torch.bool)
    for bit in bits:
        mask[bit] = True
    return mask


def test_lookup_golden_value():
    """Stem and head are in every network; the controller is not one of its parts."""
    assert TABLE.lookup(mask_of((0, 1), (0, 4), (16, 2))).item() == pytest.approx(0.1 + 0.4 + 16.2 + 3 + 5)
    assert TABLE.lookup(mask_of()).item() == 3 + 5


@given(seed=st.integers(0, 2**32 - 1), keep=st.floats(0, 1))
def test_lookup_adds_up(seed, keep):
    """The modules of two masks without a common one cost together what they cost apart."""
    on = torch.rand(17, 5, generator=generator_for(seed, 0)) < keep
    mine = torch.rand(17, 5, generator=generator_for(seed, 1)) < 0.5
    whole, one, other = TABLE.lookup(on), TABLE.lookup(on & mine), TABLE.lookup(on & ~mine)
    assert whole.item() == pytest.approx(one.item() + other.item() - (3 + 5))
    assert whole.item() == pytest.approx(3 + 5 + sum(t + m / 10 for t, m in on.nonzero().tolist()))


def test_lookup_keeps_the_leading_shape():
    masks = torch.rand(3, 4, 17, 5, generator=generator_for(0)) < 0.5
    costs = TABLE.lookup(masks)
    assert costs.shape == (3, 4) and costs.dtype == torch.float64
    assert TABLE.lookup(masks[1]).shape == (4,) and TABLE.lookup(masks[1, 2]).shape == ()
    assert torch.equal(TABLE.lookup(masks[1]), costs[1])
    assert costs[2, 3] == TABLE.lookup(masks[2, 3])


def test_the_cheapest_mask_has_one_module_where_one_is_needed():
    """Seven stages begin with a cell that changes shape. Module 3 of cell 6 is made cheap."""
    costs = COSTS.clone()
    costs[6, 3] = 0.5
    table = replace(TABLE, modules=costs)
    expected = mask_of((0, 0), (1, 0), (3, 0), (6, 3), (10, 0), (13, 0), (16, 0))
    assert torch.equal(table.cheapest_mask(), expected)
    assert torch.equal(LITE.repair(expected), expected)
    assert table.reference("cheapest") == pytest.approx(0 + 1 + 3 + 0.5 + 10 + 13 + 16 + 3 + 5)


def test_reference_golden_values():
    """0 + ... + 16 = 136 for every module; the tenths of a cell are 0 + 0.1 + 0.2 + 0.3 + 0.4 = 1."""
    assert TABLE.reference("full") == pytest.approx(5 * 136 + 17 * 1 + 3 + 5)
    assert TABLE.reference("mobilenet_v2") == pytest.approx(136 + 17 * 0.2 + 3 + 5)
    with pytest.raises(ValueError, match="'resnet'; choose from full, mobilenet_v2, cheapest"):
        TABLE.reference("resnet")


def test_save_and_load(tmp_path):
    """Every number comes back exactly; odd fractions too."""
    table = replace(TABLE, modules=COSTS / 3, fixed=0.1 + 0.2, unit="MMACs")
    table.save(tmp_path / "t.json")
    loaded = LatencyTable.load(tmp_path / "t.json")
    assert torch.equal(loaded.modules, table.modules) and loaded.modules.dtype == torch.float64
    assert replace(loaded, modules=COSTS).__dict__ == replace(table, modules=COSTS).__dict__


@pytest.mark.parametrize(
    "changes",
    [
        {"modules": COSTS - 1},
        {"modules": COSTS / 0},
        {"modules": COSTS * float("nan")},
        {"modules": COSTS.T},
        {"modules": COSTS[:16]},
        {"fixed": -1.0},
        {"fixed": float("nan")},
        {"controller": float("inf")},
    ],
)
def test_impossible_tables_are_refused(changes):
    with pytest.raises(ValueError, match="^(modules|fixed|controller): "):
        replace(TABLE, **changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [],
        lambda content: None,
        lambda content: {"accuracy": 0.5},
        lambda content: {name: value for name, value in content.items() if name != "fixed"},
        lambda content: {**content, "modules": content["modules"][:3]},
        lambda content: {**content, "modules": [[1.0], [1.0, 2.0]]},
        lambda content: {**content, "modules": [["fast"] * 5] * 17},
        lambda content: {**content, "fixed": -0.5},
        lambda content: {**content, "fixed": float("nan")},
        lambda content: {**content, "fixed": "slow"},
        lambda content: {**content, "search_space": {**content["search_space"], "preset": "cifr"}},
        lambda content: {**content, "search_space": {**content["search_space"], "modules": [0, 9]}},
    ],
    ids=lambda change: str(change.__code__.co_firstlineno),
)
def test_other_json_is_named(tmp_path, change):
    path = tmp_path / "t.json"
    TABLE.save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=r"latency_table: .*t\.json is not a latency table"):
        LatencyTable.load(path)


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_truncated_table_is_named(tmp_path, keep):
    path = tmp_path / "t.json"
    TABLE.save(path)
    path.write_text(path.read_text()[:keep])
    with pytest.raises(ValueError, match=r"t\.json"):
        LatencyTable.load(path)


def test_macs_of_the_paper_sized_space():
    """FACTS, section 1: at 32 px and width 1 all modules take 430 M MACs, the MobileNetV2 path 98 M."""
    table = count_macs(CIFAR, 10)
    assert table.unit == "MMACs"
    assert table.reference("full") == pytest.approx(430, rel=0.02)
    assert table.reference("mobilenet_v2") == pytest.approx(98, rel=0.02)


def test_macs_by_hand():
    """Cell 3 takes 24 channels of 32 x 32 to 32 channels of 16 x 16."""
    table = count_macs(CIFAR, 10)
    basic = 9 * 24 * 32 * 16**2 + 9 * 32 * 32 * 16**2
    hidden = 24 * 6
    mbconv_k5_f6 = 24 * hidden * 32**2 + 25 * hidden * 16**2 + hidden * 32 * 16**2
    assert table.modules[3, 0].item() == pytest.approx(basic / 1e6)
    assert table.modules[3, 4].item() == pytest.approx(mbconv_k5_f6 / 1e6)
    stem, head = 9 * 3 * 32 * 32**2, 320 * 1280 * 4**2 + 1280 * 10
    assert table.fixed == pytest.approx((stem + head) / 1e6)


def test_parameters_by_hand():
    """Each convolution has one bias a channel, into which BatchNorm was folded."""
    table = count_parameters(CIFAR, 10)
    hidden = 24 * 6
    assert table.unit == "parameters"
    assert table.modules[3, 0] == (9 * 24 * 32 + 32) + (9 * 32 * 32 + 32)
    assert table.modules[3, 4] == (24 * hidden + hidden) + (25 * hidden + hidden) + (hidden * 32 + 32)
    stem, head = 9 * 3 * 32 + 32, (320 * 1280 + 1280) + (1280 * 10 + 10)
    assert table.fixed == stem + head


@pytest.fixture(scope="module")
def parameters(tiny_space) -> LatencyTable:
    return count_parameters(tiny_space, 10)


@given(seed=st.integers(0, 2**32 - 1), keep=st.floats(0, 1))
def test_counted_parameters_are_those_of_the_child(tiny_graph, parameters, seed, keep):
    mask = parameters.space.random_masks(1, keep, generator_for(seed))[0]
    child = tiny_graph.child(mask)
    assert parameters.lookup(mask).item() == sum(parameter.numel() for parameter in child.parameters())


@pytest.mark.parametrize("keep", [0.0, 0.3, 1.0])
def test_counted_macs_are_those_of_the_child(tiny_graph, tiny_space, keep):
    """PyTorch's counter has two operations for each multiply-accumulate."""
    mask = tiny_space.random_masks(1, keep, generator_for(0))[0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny_graph.child(mask)(torch.zeros(1, 3, 32, 32))
    assert 2e6 * count_macs(tiny_space, 10).lookup(mask).item() == pytest.approx(counter.get_total_flops())
