"""The comparison on the frozen meta-graph: whole, resumed, and what its figures mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agents.agent import Agent
from agents.evaluation.awareness import measure_awareness
from agents.one_shot import Candidate
from agents.reward_regression import RewardRegression
from instanas_env.build import build_bandit
from instanas_env.storage import load_json
from scripts import benchmark

TINY = {
    "masks": 6,
    "menu": 3,
    "regression_images": 512,
    "gradient_steps": 2,
    "reinforce_images": 512,
    "seeds": 1,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("frozen")
    benchmark.main(benchmark.Options(out=out, **TINY))
    return out


def test_it_has_a_row_for_every_policy(finished):
    record = load_json(finished / "benchmark.json")
    assert [row["policy"] for row in record["rows"]] == ["best fixed mask", "regression", "reinforce"]
    fixed = record["rows"][0]["test"]
    assert fixed["networks"] == 1 and fixed["shuffled_accuracy"] == fixed["accuracy"]
    assert record["means"]["regression"]["accuracy"][0] == record["rows"][1]["test"]["accuracy"]
    lost = record["means"]["reinforce"]["lost_shuffled_reward"][0]
    test = record["rows"][2]["test"]
    assert lost == pytest.approx(test["reward"] - test["shuffled_reward"])


def test_a_run_that_lost_its_last_row_ends_the_same(finished, tmp_path):
    """What is there is not made again, what is missing is, to the bit."""
    before = load_json(finished / "benchmark.json")
    (finished / "reinforce_0.json").unlink()
    kept = (finished / "regression_0.json").stat().st_mtime_ns
    benchmark.main(benchmark.Options(out=finished, **TINY))
    assert load_json(finished / "benchmark.json") == before
    assert (finished / "regression_0.json").stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="^out: .* other menu"):
        benchmark.main(benchmark.Options(out=finished, **{**TINY, "menu": 2}))


class ByLabel(Agent):
    """All modules for the first half of the classes, MobileNetV2's path for the others."""

    def __init__(self, space, labels):
        super().__init__(space)
        self.labels, self.at = labels, 0

    def masks(self, images, deterministic=True):
        labels = self.labels[self.at : self.at + len(images)]
        self.at = (self.at + len(images)) % len(self.labels)
        path = self.space.mobilenet_v2_mask().expand(len(images), -1, -1)
        return path | (labels < 5).view(-1, 1, 1)


def test_awareness_golden_values():
    """Half of the classes at the cost of all modules, half at MobileNetV2's; no controller to pay for."""
    bandit = build_bandit(split="val")
    table = bandit.latency_table
    figures, outcome = measure_awareness(bandit, ByLabel(bandit.space, bandit.image_set.labels))
    full, path = table.reference("full"), table.reference("mobilenet_v2")
    assert figures.latency_ms == pytest.approx((full + path) / 2)
    assert figures.latency_sd_ms == pytest.approx((full - path) / 2)
    assert figures.class_latency_ms == pytest.approx([full] * 5 + [path] * 5)
    assert figures.networks == 2 and figures.names_accuracy is None
    assert figures.accuracy == outcome.correct.mean() and figures.reward == pytest.approx(
        outcome.reward.mean()
    )
    assert figures.most_used_latency_ms in (pytest.approx(full), pytest.approx(path))


def test_the_worth_of_a_fixed_mask_is_its_mean_reward():
    bandit = build_bandit(split="val")
    mask = bandit.space.mobilenet_v2_mask()
    figures, outcome = measure_awareness(bandit, benchmark.StaticAgent(bandit.space, mask))
    candidate = Candidate(mask, float(outcome.correct.mean()), figures.latency_ms, torch.zeros(10))
    assert benchmark.worth(bandit, candidate) == pytest.approx(figures.reward)


def test_the_dial_stops_at_the_fastest_that_is_accurate_enough(lite_space):
    """A menu of the cheapest mask and of all modules: nothing else is as accurate as all modules."""
    bandit = build_bandit(split="val")
    bandit.image_set = bandit.image_set.take(torch.arange(50))
    menu = torch.stack([bandit.latency_table.cheapest_mask(), lite_space.full_mask()])
    agent = RewardRegression(None, space=lite_space, table=bandit.latency_table, menu=menu)
    with torch.no_grad():
        agent.controller.network.output.bias[2] = 1.0  # all modules are worth one logit more
    accuracies = []
    for mask in menu:
        agent_of_one = benchmark.StaticAgent(lite_space, mask)
        accuracies.append(measure_awareness(bandit, agent_of_one)[0].accuracy)
    assert accuracies[0] < accuracies[1]
    difference = bandit.latency_table.lookup(menu).diff().item()
    trade_off = benchmark.fastest_trade_off(agent, bandit, accuracies[1])
    assert trade_off < 1 / difference, "all modules are chosen"
    grid = np.geomspace(30.0, 0.03, 25)
    assert trade_off == pytest.approx(max(grid[grid < 1 / difference]))
    assert benchmark.fastest_trade_off(agent, bandit, 0.0) == pytest.approx(30.0)
