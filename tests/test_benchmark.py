"""The comparison on the frozen meta-graph: whole, resumed, and what its figures mean."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.agent import Agent
from agents.evaluation.awareness import measure_awareness
from agents.one_shot import Candidate
from agents.predicting import Predicting
from agents.reward_regression import RewardRegression
from agents.static import StaticAgent
from instanas_env.build import build_bandit
from instanas_env.storage import load_json, load_weights, save_json, save_weights
from scripts import benchmark
from scripts.comparison.contest import Budget, Contest, fastest_trade_off, worth
from tests.tools.pipeline_fixtures import ROOT

TINY = {"masks": 6, "menu": 3, "steps": 512, "gradient_steps": 2, "seeds": 1}
PLUGGED = """
import numpy as np


class Brightness:
    \"\"\"MobileNetV2's path for bright images, all modules for dark ones: a user's, in ten lines.\"\"\"

    def __init__(self, envs, seed):
        self.space, self.threshold = envs.unwrapped.bandit.space, 0.0

    def learn(self, steps):
        self.threshold = steps / 7.0

    def predict(self, images, deterministic=True):
        bright = images.mean((1, 2, 3)) > self.threshold
        path = self.space.mobilenet_v2_mask().numpy().ravel()
        return np.where(bright[:, None], path, np.ones_like(path)).astype(np.int8), None
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with a user's policy and one of Stable-Baselines3."""
    out = tmp_path_factory.mktemp("benchmark")
    (out / "plugged.py").write_text(PLUGGED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        benchmark.main(benchmark.Options(out=out, policies=POLICIES, **TINY))
    return out


POLICIES = ("fixed", "regression", "reinforce", "plugged:Brightness", "a2c")


def test_every_policy_is_ranked(finished):
    record = load_json(finished / "benchmark.json")
    rows = {row["policy"]: row["test"] for row in record["rows"]}
    assert tuple(rows) == POLICIES
    fixed, plugged = rows["fixed"], rows["plugged:Brightness"]
    assert fixed["networks"] == 1 and fixed["shuffled_accuracy"] == fixed["accuracy"]
    assert plugged["networks"] == 2, "learn(512) was called: a threshold of 0 would give one"
    rewards = [row["reward"][0] for row in record["ranked"]]
    assert rewards == sorted(rewards, reverse=True) and len(rewards) == len(POLICIES)
    ranked = {row["policy"]: row for row in record["ranked"]}
    lost, test = ranked["reinforce"]["lost_shuffled_reward"][0], rows["reinforce"]
    assert lost == pytest.approx(test["reward"] - test["shuffled_reward"])
    bounds = record["bounds"]
    assert bounds["fixed"] == pytest.approx(fixed["reward"])
    assert bounds["for_image"] >= bounds["for_class"]
    assert ranked["fixed"]["regret_fixed"][0] == pytest.approx(0)
    assert ranked["a2c"]["regret_for_image"][0] == pytest.approx(bounds["for_image"] - rows["a2c"]["reward"])


def test_the_leaderboard_is_a_table_of_all(finished):
    text = (finished / "leaderboard.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(POLICIES) and len({line.count("|") for line in lines}) == 1
    assert "instanas benchmark --policies fixed regression" in text


def test_a_run_that_lost_a_row_ends_the_same(finished):
    """What is there is not made again, what is missing is, to the bit."""
    before = load_json(finished / "benchmark.json")
    (finished / "policies" / "reinforce_0.json").unlink()
    kept = (finished / "policies" / "regression_0.json").stat().st_mtime_ns
    options = benchmark.Options(out=finished, policies=("regression", "reinforce"), **TINY)
    benchmark.main(options)
    again = {row["policy"]: row["test"] for row in load_json(finished / "benchmark.json")["rows"]}
    assert again == {row["policy"]: row["test"] for row in before["rows"] if row["policy"] in again}
    assert (finished / "policies" / "regression_0.json").stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="^out: .* other menu"):
        benchmark.main(benchmark.Options(out=finished, **{**TINY, "menu": 2}))


# --- replays -----------------------------------------------------------------------------------------


def test_a_record_verifies_in_another_process(finished):
    """On another instruction set, too: some answers may differ there by rounding."""
    command = [sys.executable, "-m", "scripts", "benchmark", "--verify", str(finished / "benchmark.json")]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout


@pytest.mark.parametrize("what", ["correct", "reward", "masks"])
def test_a_changed_replay_is_found(finished, tmp_path, what):
    """Answers, rewards or masks other than those that were scored."""
    copy = shutil.copytree(finished, tmp_path / "copy")
    replay = copy / "policies" / "reinforce_0.replay.safetensors"
    tensors, config = load_weights(replay)
    tensors[what] = tensors[what].clone()
    tensors[what][:400] = 1 - tensors[what][:400] if what != "masks" else 255
    save_weights(replay, tensors, config)
    with pytest.raises(ValueError, match="^verify: "):
        benchmark.check(copy / "benchmark.json")


def test_a_record_of_other_weights_is_refused(finished, tmp_path):
    content = load_json(finished / "benchmark.json")
    content["fingerprints"]["meta_graph"] = "0" * 64
    content.pop("sha256", None)
    save_json(tmp_path / "benchmark.json", content)
    with pytest.raises(ValueError, match="^verify: .* was made with another meta_graph$"):
        benchmark.check(tmp_path / "benchmark.json")


# --- policies ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    return Contest(tmp_path_factory.mktemp("contest"), {"dataset": "embedded"}, Budget(256, 4, 2, 1))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("best", "unknown 'best'; choose from random, fixed"),
        ("no_such_module:Class", "no_such_module:Class cannot be imported"),
        ("math:Policy", "math:Policy cannot be imported"),
        ("runs/ppo.zip", "--trust reads it nevertheless"),
    ],
)
def test_a_policy_that_is_none_is_refused(contest, name, told):
    with pytest.raises(ValueError, match=f"^policies: .*{told}"):
        contest.make(name, 0)


def test_a_zip_of_sb3_is_ranked_if_it_is_trusted(contest, tmp_path):
    """It chooses what the model predicts deterministically."""
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import A2C

    from agents.sb3 import ControllerPolicy, NativeVecEnv

    model = A2C(ControllerPolicy, NativeVecEnv(contest.envs()), device="cpu", seed=0)
    model.save(tmp_path / "a2c_of_mine.zip")
    trusting = Contest(contest.out, contest.environment, contest.budget, trust=True)
    agent = trusting.make(str(tmp_path / "a2c_of_mine.zip"), 0)
    images = contest.test.image_set.images[torch.arange(8)]
    predicted, _ = model.predict(images.numpy(), deterministic=True)
    assert (agent.masks(images).flatten(1).numpy() == predicted).all()


def test_training_by_sb3_leaves_the_global_generators_alone(contest):
    """PPO(seed=0) seeds them."""
    pytest.importorskip("stable_baselines3")
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    contest.make("a2c", 0)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_a_policy_that_gives_other_actions_is_refused(lite_space):
    class Wrong:
        def predict(self, images, deterministic):
            return np.zeros((len(images), 84)), None

    with pytest.raises(ValueError, match=r"^policy: Wrong.predict gave actions of shape \(2, 84\) for 2"):
        Predicting(lite_space, Wrong()).masks(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


# --- figures -----------------------------------------------------------------------------------------


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
    figures, outcome = measure_awareness(bandit, StaticAgent(bandit.space, mask))
    candidate = Candidate(mask, float(outcome.correct.mean()), figures.latency_ms, torch.zeros(10))
    assert worth(bandit, candidate) == pytest.approx(figures.reward)


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
        agent_of_one = StaticAgent(lite_space, mask)
        accuracies.append(measure_awareness(bandit, agent_of_one)[0].accuracy)
    assert accuracies[0] < accuracies[1]
    difference = bandit.latency_table.lookup(menu).diff().item()
    trade_off = fastest_trade_off(agent, bandit, accuracies[1])
    assert trade_off < 1 / difference, "all modules are chosen"
    grid = np.geomspace(30.0, 0.03, 25)
    assert trade_off == pytest.approx(max(grid[grid < 1 / difference]))
    assert fastest_trade_off(agent, bandit, 0.0) == pytest.approx(30.0)
