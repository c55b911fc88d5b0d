"""Measuring latencies: who is called how often and under which conditions. How long it takes is not ours."""

from __future__ import annotations

import time
from collections import Counter

import pytest
import torch
from torch import nn

from agents.controller import Controller
from instanas_env.latency import LatencyTable
from instanas_env.profiling import (
    EstimateQuality,
    calibrate,
    compare_with_real,
    fold_for_timing,
    profile_modules,
    time_children,
)
from instanas_env.seeding import generator_for
from instanas_env.timing import WARM_UP, one_thread, time_interleaved


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
    elapsed = time_interleaved(calls, 6, generator_for(0), progress=lambda: rounds.append(len(log)))
    assert Counter(log) == dict.fromkeys("abcd", WARM_UP + 6)
    measured = ["".join(log[start : start + 4]) for start in range(4 * WARM_UP, len(log), 4)]
    assert all(sorted(order) == list("abcd") for order in measured)
    assert len(set(measured)) > 1
    assert rounds == [4 * WARM_UP + 4 * (k + 1) for k in range(6)]
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
    assert seen == [True] * (WARM_UP + 1)


def test_profile_modules_measures_every_part(tiny_graph, tiny_space, two_threads):
    """The controller stands for all parts: it tells how each is called."""
    seen, rounds = [], []

    def controller(image):
        seen.append((tuple(image.shape), image.dtype, torch.get_num_threads()))

    table = profile_modules(tiny_graph, controller, generator_for(0), 3, lambda: rounds.append(1))
    assert table.space == tiny_space and table.unit == "ms"
    costs = torch.cat([table.modules.flatten(), torch.tensor([table.stem, table.head, table.controller])])
    assert costs.shape == (85 + 3,) and costs.isfinite().all() and (costs > 0).all()
    assert seen == [((1, 3, 32, 32), torch.uint8, 1)] * (WARM_UP + 3)
    assert len(rounds) == 3
    assert torch.get_num_threads() == 2
    assert table.record["repetitions"] == 3 and table.record["threads"] == 1


def test_a_measured_table_can_be_kept(tiny_graph, tmp_path):
    table = profile_modules(tiny_graph, None, generator_for(0), repetitions=1)
    assert table.controller == 0.0
    table.save(tmp_path / "t.json")
    loaded = LatencyTable.load(tmp_path / "t.json")
    assert torch.equal(loaded.modules, table.modules) and loaded.record == table.record


def test_children_are_timed_with_the_controller_before_them(tiny_graph, tiny_space, two_threads):
    seen = []
    masks = tiny_space.random_masks(3, 0.2, generator_for(0))
    with_controller = time_children(
        tiny_graph, masks, generator_for(1), 2, lambda image: seen.append(image.dtype)
    )
    alone = time_children(tiny_graph, masks, generator_for(1), 2)
    for milliseconds in (with_controller, alone):
        assert milliseconds.shape == (3,) and milliseconds.isfinite().all() and (milliseconds > 0).all()
    assert seen == [torch.uint8] * (3 * (WARM_UP + 2))
    assert torch.get_num_threads() == 2


def test_estimate_quality_golden_values():
    """Deviations from the mean 2: (-1, 0, 1) and (-1, 1, 0), so r = 1 / sqrt(2 * 2); errors 0, 1/3, 1/2."""
    quality = EstimateQuality(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]))
    assert quality.correlation == pytest.approx(1 / 2)
    assert quality.median_error == pytest.approx(1 / 3)
    twice = EstimateQuality(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0]))
    assert twice.correlation == pytest.approx(1.0)
    assert twice.median_error == pytest.approx(1 / 2)
    assert (quality.scale, twice.scale) == (1.0, 2.0)


def test_a_calibrated_table_estimates_longer_by_its_factor(tiny_space):
    """85 modules of 1 ms, stem 2, head 3: 90 ms, times 1.2 = 108; the controller is as measured."""
    costs = torch.ones(17, 5, dtype=torch.float64)
    table = LatencyTable(tiny_space, costs, 2.0, 3.0, 4.0, record={"threads": 1})
    longer = calibrate(table, 1.2)
    assert longer.reference("full") == pytest.approx(108.0) and longer.controller == 4.0
    assert longer.record == {"threads": 1, "calibration": 1.2}


def test_estimates_are_compared_for_the_same_networks(tiny_graph, tiny_space):
    """Every module costs 1: the estimate counts the modules of masks of the densities drawn first."""
    table = LatencyTable(tiny_space, torch.ones(17, 5, dtype=torch.float64), fixed=0.0)
    quality = compare_with_real(table, tiny_graph, 4, generator_for(5), repetitions=1)
    generator = generator_for(5)
    masks = tiny_space.random_masks(4, torch.rand(4, generator=generator), generator)
    assert quality.estimated.tolist() == masks.sum((1, 2)).tolist()
    assert quality.real.shape == (4,) and (quality.real > 0).all()


def test_a_folded_controller_chooses_the_same(tiny_space, randomise_batch_norm):
    controller = Controller(tiny_space, generator=generator_for(0))
    nn.init.normal_(controller.output.weight, generator=generator_for(1))
    randomise_batch_norm(controller, 2)
    images = torch.randint(256, (4, 3, 32, 32), generator=generator_for(3), dtype=torch.uint8)
    folded = fold_for_timing(controller.train())
    assert not folded.training and not any(parameter.requires_grad for parameter in folded.parameters())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    with torch.no_grad():
        expected = controller.eval()(images)
        assert torch.allclose(folded(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1
