"""Measuring latencies: who is called how often and under which conditions. How long it takes is not ours."""

from __future__ import annotations

import time
from collections import Counter

import pytest
import torch
from torch import nn

from agents.controller import Controller
from instanas_env.deploy import timing
from instanas_env.deploy.profiling import (
    EstimateQuality,
    fit_table,
    profile_table,
    random_children,
    time_children,
)
from instanas_env.deploy.timing import low, one_thread, time_interleaved
from instanas_env.latency import LatencyTable
from instanas_env.networks.modules import fold_batch_norm
from instanas_env.seeding import generator_for


@pytest.fixture(autouse=True)
def few_warm_ups(monkeypatch):
    """Two calls of each network before those that count, where ten take most of a test's time."""
    monkeypatch.setattr(timing, "WARM_UP", 2)


@pytest.fixture
def two_threads():
    """Another number than the one that is measured with."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_one_thread_inside_and_the_former_number_afterwards(two_threads):
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2


def test_every_call_is_made_once_a_round_in_changing_order():
    log, rounds = [], []
    calls = [lambda name=name: log.append(name) for name in "abcd"]
    elapsed = time_interleaved(
        calls, 6, generator_for(0), progress=lambda count: rounds.append((count, len(log)))
    )
    assert Counter(log) == dict.fromkeys("abcd", timing.WARM_UP + 6)
    measured = ["".join(log[start : start + 4]) for start in range(4 * timing.WARM_UP, len(log), 4)]
    assert all(sorted(order) == list("abcd") for order in measured)
    assert len(set(measured)) > 1
    assert rounds == [(4, 4 * timing.WARM_UP + 4 * (k + 1)) for k in range(6)]
    assert elapsed.shape == (4, 6) and elapsed.dtype == torch.float64


def test_the_order_comes_from_the_generator():
    def order(seed: int) -> str:
        log = []
        time_interleaved([lambda n=n: log.append(n) for n in "abcd"], 5, generator_for(seed))
        return "".join(log)

    assert order(1) == order(1) != order(2)


def test_times_are_milliseconds_of_their_own_call():
    """A sleep is never shorter than asked for, whatever else the machine does."""
    calls = [lambda: None, lambda: time.sleep(0.02), lambda: None]
    elapsed = time_interleaved(calls, 3, generator_for(0))
    assert (elapsed[1] >= 20).all() and (elapsed >= 0).all()


def test_timing_keeps_no_gradients():
    seen = []
    time_interleaved([lambda: seen.append(torch.is_inference_mode_enabled())], 1, generator_for(0))
    assert seen == [True] * (timing.WARM_UP + 1)


def test_a_low_percentile_counts():
    """The 20th of six: one fifth of the way from the first to the last, which is the second."""
    assert low(torch.tensor([[60.0, 20, 30, 10, 50, 40]])).tolist() == [20.0]


def test_profile_table_times_children_and_the_controller(tiny_graph, tiny_space, two_threads):
    """136 children in the same rounds; 50 of them once more, in turn with the controller."""
    seen, rounds = [], []

    def controller(image):
        seen.append((tuple(image.shape), image.dtype, torch.get_num_threads()))

    table, quality = profile_table(
        tiny_graph, controller, generator_for(0), 130, 6, 2, "eager", rounds.append
    )
    assert table.space == tiny_space and table.unit == "ms"
    assert (table.modules >= 0).all() and table.fixed >= 0 and table.reference("full") > 0
    assert table.controller > 0, "a time of its own, no difference of two"
    assert seen == [((1, 3, 32, 32), torch.uint8, 1)] * (50 * (timing.WARM_UP + 2))
    assert rounds == [136, 136]
    assert quality.estimated_ms.shape == quality.measured_ms.shape == (6,)
    assert torch.get_num_threads() == 2
    record = {"batch_size": 1, "threads": 1, "children": 130, "repetitions": 2}
    assert table.record == {**record, "backend": f"torch {torch.__version__}, BatchNorm folded"}


def test_large_networks_are_timed_in_groups_that_fit_into_memory(tiny_graph, tiny_space, monkeypatch):
    """Two times the weights of all modules hold two full networks, and one more starts a group of its own."""
    full = tiny_graph.child(tiny_space.full_mask())
    size = sum(weight.nbytes for weight in full.parameters())
    monkeypatch.setattr(timing, "GROUP_BYTES", 2 * size)
    assert [len(group) for group in timing.in_groups([full] * 5)] == [2, 2, 1]
    monkeypatch.setattr(timing, "GROUP_BYTES", size - 1)
    assert [len(group) for group in timing.in_groups([full] * 3)] == [1, 1, 1]
    assert list(timing.in_groups([])) == []
    timed = []
    masks = tiny_space.full_mask().expand(3, -1, -1)
    times = time_children(tiny_graph, masks, generator_for(0), 2, progress=timed.append, backend="eager")
    assert times.shape == (3,) and (times > 0).all() and timed == [1] * 6


def test_a_machine_that_slows_between_groups_changes_no_time(tiny_graph, tiny_space, monkeypatch):
    """Each group takes half as long again as the one before; five equal networks still take 1 ms each."""
    full = tiny_graph.child(tiny_space.full_mask())
    monkeypatch.setattr(timing, "GROUP_BYTES", 2 * sum(weight.nbytes for weight in full.parameters()))
    called: list[int] = []

    def slower_and_slower(calls, repetitions, generator, device, progress):
        called.append(len(calls))
        return torch.full((len(calls), repetitions), 1.5 ** (len(called) - 1), dtype=torch.float64)

    monkeypatch.setattr(timing, "time_interleaved", slower_and_slower)
    times = timing.time_networks([full] * 5, 32, generator_for(0), 2)
    assert called == [2, 2 + 2, 2 + 1], "the first two again in every group"
    torch.testing.assert_close(times, torch.ones(5, dtype=torch.float64))


def test_too_few_children_are_refused(tiny_graph):
    with pytest.raises(ValueError, match="^fitted: got 127; at least 128 for 85 modules will do"):
        profile_table(tiny_graph, None, generator_for(0), fitted=127)


def test_a_measured_table_can_be_kept(tiny_graph, tmp_path):
    table, _ = profile_table(tiny_graph, None, generator_for(0), 128, 0, repetitions=1, backend="eager")
    assert table.controller == 0.0
    table.save(tmp_path / "t.json")
    loaded = LatencyTable.load(tmp_path / "t.json")
    assert torch.equal(loaded.modules, table.modules) and loaded.record == table.record


def test_the_fit_finds_the_costs_that_made_the_times(lite_space):
    """Times that are exactly a sum over modules and 3 ms in all networks; a module of no cost stays at 0."""
    costs = torch.rand(17, 5, dtype=torch.float64, generator=generator_for(0))
    costs[4, 2] = 0.0
    masks = random_children(lite_space, 400, generator_for(1))
    modules, fixed = fit_table(masks, (masks * costs).sum((1, 2)) + 3.0)
    assert fixed == pytest.approx(3.0, abs=1e-6)
    assert torch.allclose(modules, costs, atol=1e-6)


def test_no_module_costs_less_than_nothing(lite_space):
    """A module that makes networks faster by 1 ms counts as free."""
    costs = torch.ones(17, 5, dtype=torch.float64)
    costs[8, 3] = -1.0
    masks = random_children(lite_space, 400, generator_for(1))
    modules, fixed = fit_table(masks, (masks * costs).sum((1, 2)) + 10.0)
    assert modules[8, 3] == 0.0 and (modules >= 0).all() and fixed >= 0


def test_random_children_are_repaired_and_of_every_density(lite_space):
    """Half are of every density, up to nearly all 85 modules; the others as pre-training ends with."""
    masks = random_children(lite_space, 200, generator_for(0))
    assert masks.shape == (200, 17, 5) and torch.equal(lite_space.repair(masks), masks)
    counts = masks.sum((1, 2))
    assert counts.min() <= 12 and counts[:100].max() >= 75
    assert torch.equal(masks, random_children(lite_space, 200, generator_for(0)))


def test_children_are_timed_with_the_controller_before_them(tiny_graph, tiny_space, two_threads):
    seen = []
    masks = tiny_space.random_masks(3, 0.2, generator_for(0))
    with_controller = time_children(
        tiny_graph, masks, generator_for(1), 2, lambda image: seen.append(image.dtype), backend="eager"
    )
    alone = time_children(tiny_graph, masks, generator_for(1), 2, backend="eager")
    for milliseconds in (with_controller, alone):
        assert milliseconds.shape == (3,) and milliseconds.isfinite().all() and (milliseconds > 0).all()
    assert seen == [torch.uint8] * (3 * (timing.WARM_UP + 2))
    assert torch.get_num_threads() == 2


def test_estimate_quality_golden_values():
    """Deviations from the mean 2: (-1, 0, 1) and (-1, 1, 0), so r = 1 / sqrt(2 * 2); errors 0, 1/3, 1/2."""
    quality = EstimateQuality(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]))
    assert quality.correlation == pytest.approx(1 / 2)
    assert quality.median_error == pytest.approx(1 / 3)
    twice = EstimateQuality(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0]))
    assert twice.correlation == pytest.approx(1.0)
    assert twice.median_error == pytest.approx(1 / 2)


def test_a_folded_controller_chooses_the_same(tiny_space, randomise_batch_norm):
    controller = Controller(tiny_space, generator=generator_for(0))
    nn.init.normal_(controller.output.weight, generator=generator_for(1))
    randomise_batch_norm(controller, 2)
    images = torch.randint(256, (4, 3, 32, 32), generator=generator_for(3), dtype=torch.uint8)
    folded = fold_batch_norm(controller.train())
    assert not folded.training and not any(parameter.requires_grad for parameter in folded.parameters())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    with torch.no_grad():
        expected = controller.eval()(images)
        assert torch.allclose(folded(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1
