"""The comparison on the frozen meta-graph: whole, resumed, in several processes, replayed and drawn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.evaluation.replay import Replay
from agents.evaluation.scores import score_masks
from instanas_env.build import build_bandit
from instanas_env.seeding import generator_for
from instanas_env.storage import load_json, save_json
from scripts import benchmark
from scripts.report import run_report
from tests.tools.pipeline_fixtures import ROOT, image_folder

TINY = {"masks": 6, "menu": 3, "steps": 1024, "passes": 2, "seeds": 1}
PLUGGED = """
import os
import torch


class Torch:
    def __init__(self, envs, seed):
        torch.manual_seed(seed)
        self.envs, space = envs, envs.unwrapped.bandit.space
        self.menu = torch.stack([space.mobilenet_v2_mask(), space.full_mask()]).flatten(1).int()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 2))
    def learn(self, steps):
        images, _ = self.envs.reset(seed=0)
        for _ in range(steps // len(images)):
            choice = torch.distributions.Categorical(logits=self.net(torch.tensor(images) / 255))
            images, reward, *_ = self.envs.step(self.menu[arm := choice.sample()].numpy())
            (-choice.log_prob(arm) * torch.tensor(reward)).mean().backward()
            torch.optim.SGD(self.net.parameters(), 0.1).step()
    def predict(self, images, deterministic=True):
        return self.menu[self.net(torch.tensor(images) / 255).argmax(1)].numpy(), None


class Dies:
    def __init__(self, envs, seed):
        os.kill(os.getpid(), 9)
"""
POLICIES = ("fixed", "regression", "reinforce", "plugged:Torch", "a2c")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with a user's policy and one of Stable-Baselines3."""
    pytest.importorskip("stable_baselines3")
    out = tmp_path_factory.mktemp("benchmark")
    (out / "plugged.py").write_text(PLUGGED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        patch.setattr("scripts.comparison.policies.TRADE_OFFS", (30.0, 3.0, 0.3))  # test_contest has them all
        benchmark.main(benchmark.Options(out=out, policies=POLICIES, **TINY))
    return out


def copied(finished: Path, to: Path, without: tuple[str, ...] = ()) -> Path:
    copy = shutil.copytree(finished, to / "copy")
    for name in without:
        (copy / "policies" / f"{name}_0.json").unlink()
    return copy


def rows_of(run: Path) -> dict[str, dict]:
    """The rows of a run by their policies, without what a clock measured."""
    rows = load_json(run / "benchmark.json")["rows"]
    return {row["policy"]: {key: value for key, value in row.items() if key != "seconds"} for row in rows}


def test_every_policy_is_ranked(finished):
    record = load_json(finished / "benchmark.json")
    rows = {row["policy"]: row["test"] for row in record["rows"]}
    assert tuple(rows) == POLICIES
    fixed = rows["fixed"]
    assert fixed["networks"] == 1 and fixed["shuffled_accuracy"] == fixed["accuracy"]
    rewards = [row["reward"][0] for row in record["policies"]]
    assert rewards == sorted(rewards, reverse=True) and len(rewards) == len(POLICIES)
    ranked, bounds = {row["policy"]: row for row in record["policies"]}, record["bounds"]
    lost, test = ranked["reinforce"]["lost_shuffled_reward"][0], rows["reinforce"]
    assert lost == pytest.approx(test["reward"] - test["shuffled_reward"])
    assert bounds["fixed"] == pytest.approx(fixed["reward"])
    assert bounds["for_image"] >= bounds["for_class"]
    assert ranked["fixed"]["regret_fixed"][0] == pytest.approx(0)
    for row in ranked.values():
        assert row["regret_for_image"][0] == pytest.approx(bounds["for_image"] - row["reward"][0])
        gain, low, high = row["over_fixed_reward"]
        assert gain == pytest.approx(-row["regret_fixed"][0], abs=1e-6) and low <= gain <= high
        assert row["hypervolume"][0] <= record["hypervolume"]


def test_learners_have_a_curve_and_the_answers_that_they_asked_for(finished):
    """REINFORCE has 4 masks of 256 images answered in its one step, regression all 3 masks in its 2 steps.

    The search of fixed masks asks for 6 masks on 1,000 validation images.
    """
    rows = rows_of(finished)
    assert (rows["fixed"]["steps"], rows["fixed"]["curve"]) == (6 * 1000, [])
    asked = {name: rows[name]["steps"] for name in POLICIES[1:]}
    assert asked == {"regression": 2 * 256 * 3, "reinforce": 1024, "plugged:Torch": 1024, "a2c": 1024}
    for name, answers in asked.items():
        at, rewards = zip(*rows[name]["curve"], strict=True)
        assert at[-1] == answers and list(at) == sorted(at)
        assert rewards[-1] == pytest.approx(rows[name]["val"]["reward"]), "all 1,000 validation images"


def test_the_leaderboard_is_a_table_of_all(finished):
    text = (finished / "leaderboard.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(POLICIES) and len({line.count("|") for line in lines}) == 1
    assert text.count("instanas benchmark ") == 1 and "--policies fixed regression" in text


def test_the_search_s_answers_are_shown_everywhere(finished, capsys):
    """In the record, in the fixed mask's line of the Markdown file, and in the terminal."""
    record, line = load_json(finished / "benchmark.json"), "and the menu took 6,000 answers."
    assert record["search"]["answers"] == load_json(finished / "fixed.json")["answers"] == 6000
    (row,) = (row for row in record["policies"] if row["policy"] == "fixed")
    assert (row["steps"], row["seconds"]) == (6000, record["search"]["seconds"]) and row["seconds"] > 0
    text = (finished / "leaderboard.md").read_text()
    (fixed,) = (line for line in text.splitlines() if line.startswith("| fixed "))
    assert fixed.split(" | ")[-2] == "6,000" and line in text
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished)
        benchmark.main(benchmark.Options(out=finished, policies=POLICIES, **TINY))
    shown = capsys.readouterr().out
    (fixed,) = (line for line in shown.splitlines() if line.split()[:2] == ["fixed", "1"])
    assert fixed.split()[-2] == "6,000" and line in shown


@pytest.mark.slow
def test_a_run_that_lost_rows_ends_the_same_in_several_processes(finished, tmp_path, monkeypatch):
    """What is there is not made again; what is missing is, elsewhere and to the bit."""
    monkeypatch.chdir(finished)
    copy = copied(finished, tmp_path, without=("reinforce", "a2c"))
    kept = (copy / "policies" / "regression_0.json").stat().st_mtime_ns
    benchmark.main(benchmark.Options(out=copy, policies=POLICIES, jobs=2, **TINY))
    assert rows_of(copy) == rows_of(finished)
    assert (copy / "policies" / "regression_0.json").stat().st_mtime_ns == kept
    for name in ("reinforce_0.npz", "a2c_0.npz"):
        assert (copy / "policies" / name).read_bytes() == (finished / "policies" / name).read_bytes()
    with pytest.raises(ValueError, match="^out: .* other menu"):
        benchmark.main(benchmark.Options(out=copy, **{**TINY, "menu": 2}))


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_nothing_with_it(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished)
    copy = copied(finished, tmp_path)
    options = benchmark.Options(out=copy, policies=("plugged:Dies", "random"), jobs=2, **TINY)
    with pytest.raises(ValueError, match="^jobs: plugged:Dies seed 0 ended with -9; what has finished"):
        benchmark.main(options)
    assert (copy / "policies" / "random_0.json").exists()


def test_five_policies_over_seeds_with_one_command(tmp_path, monkeypatch):
    """Two zips of Stable-Baselines3, a user's torch policy of 15 lines, random, the reference controller."""
    sb3 = pytest.importorskip("stable_baselines3")
    from agents.sb3 import ControllerPolicy, NativeVecEnv
    from scripts.comparison.contest import Budget, Contest
    from scripts.comparison.ranking import row_file

    monkeypatch.chdir(tmp_path)
    images = {"dataset": "folder", "data_dir": image_folder()}
    envs = Contest(tmp_path, {**images, "data_dir": str(image_folder())}, Budget(256, 4, 2, 1)).envs()
    for name in ("PPO", "A2C"):
        model = getattr(sb3, name)(ControllerPolicy, NativeVecEnv(envs), device="cpu", seed=0)
        model.save(tmp_path / f"{name.lower()}_of_mine.zip")
    (tmp_path / "plugged.py").write_text(PLUGGED)
    policies = ("ppo_of_mine.zip", "a2c_of_mine.zip", "plugged:Torch", "random", "shipped")
    given = {**TINY, "seeds": 2, "steps": 160, "trust": True, "clock": 2, **images}
    sys.modules.pop("plugged", None)
    benchmark.main(benchmark.Options(out=tmp_path / "run", policies=policies, **given))
    ranked = {row["policy"]: row for row in load_json(tmp_path / "run" / "benchmark.json")["policies"]}
    assert {name: row["seeds"] for name, row in ranked.items()} == {
        **dict.fromkeys(policies, 1), "plugged:Torch": 2, "random": 2,
    }  # fmt: skip
    mean, low, high = ranked["random"]["reward"]
    assert low < mean < high
    assert [point[0] for point in ranked["plugged:Torch"]["curve"]] == [80, 160]
    assert [name for name in policies if "clock_ms" in ranked[name]] == ["shipped"]
    command = load_json(tmp_path / "run" / "benchmark.json")["command"]
    told = f"instanas benchmark --dataset folder --data-dir {image_folder()} --steps 160"
    told += " --masks 6 --menu 3 --passes 2 --policies"
    assert command == f"{told} {' '.join(policies)} --seeds 2 --trust --clock 2"
    # A class that was edited is another policy.
    contest = Contest(tmp_path / "run", {}, Budget())
    assert row_file(contest, "plugged:Torch", 0).exists()
    (tmp_path / "plugged.py").write_text(PLUGGED + "\n")
    assert not row_file(contest, "plugged:Torch", 0).exists()
    assert "ms by the clock" in (tmp_path / "run" / "leaderboard.md").read_text()
    benchmark.main(benchmark.Options(verify=tmp_path / "run" / "benchmark.json"))


def test_the_twin_ranks_what_chooses_arms(tmp_path):
    """The rewards are those of the live environment, to the bit."""
    options = {**TINY, "env": "InstaNASTabular-v1", "policies": ("random", "fixed", "linucb")}
    benchmark.main(benchmark.Options(out=tmp_path, **options))
    record = load_json(tmp_path / "benchmark.json")
    ranked = {row["policy"]: row for row in record["policies"]}
    assert ranked["fixed"]["regret_fixed"][0] == pytest.approx(0)
    assert ranked["random"]["networks"][0] > 100 and len(ranked["linucb"]["curve"]) == 4
    live, row = build_bandit(split="test"), record["rows"][0]
    replay = Replay.load(tmp_path / row["replay"], live.space.num_bits)
    _, differ, exact = replay.verify(live)
    assert exact or differ, "a table of another processor may differ by rounding"
    benchmark.main(benchmark.Options(verify=tmp_path / "benchmark.json"))
    with pytest.raises(ValueError, match="^policies: 'reinforce' chooses any mask, .* linucb"):
        benchmark.main(benchmark.Options(out=tmp_path, **{**options, "policies": ("reinforce",)}))


def test_the_report_draws_the_frontier_and_the_curves(finished, tmp_path):
    pytest.importorskip("matplotlib")
    copy = copied(finished, tmp_path)
    before = (copy / "leaderboard.md").read_bytes()
    page = run_report.write_report(run_report.Options(copy)).read_text()
    assert page.count('class="mark"') == len(POLICIES)
    assert 'id="ranking"' in page and 'id="curves"' in page and "Left out" not in page
    assert (copy / "figure_curves.png").exists() and (copy / "leaderboard.md").read_bytes() == before


# --- replays -----------------------------------------------------------------------------------------


def test_a_record_verifies_in_another_process(finished):
    """On another instruction set, too: some answers may differ there by rounding."""
    command = [sys.executable, "-m", "scripts", "benchmark", "--verify", str(finished / "benchmark.json")]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"verified {len(POLICIES)} replays" in done.stdout


def test_a_record_made_with_other_options_verifies(capsys):
    """The twin's in the repository, whose budget still has a name that is no more."""
    record = ROOT / "results" / "twin" / "benchmark.json"
    assert "gradient_steps" in load_json(record)["budget"]
    benchmark.main(benchmark.Options(verify=record))
    assert "verified 5 replays" in capsys.readouterr().out


def changed(replay: Replay, what: str) -> Replay:
    if what == "masks":
        return replace(replay, masks=np.ones_like(replay.masks))
    values = getattr(replay, what).copy()
    values[:400] = 1 - values[:400]
    return replace(replay, **{what: values})


@pytest.mark.parametrize("what", ["correct", "reward", "masks"])
def test_a_changed_replay_is_found(finished, what):
    """Answers, rewards or masks other than those that were scored."""
    test = build_bandit(split="test")
    replay = Replay.load(finished / "policies" / "reinforce_0.npz", test.space.num_bits)
    assert replay.verify(test)[1:] == ([], True)
    with pytest.raises(ValueError, match="^verify: .*reinforce seed 0"):
        changed(replay, what).verify(test)


def test_an_answer_that_differs_by_rounding_is_named(finished):
    """One of 1,000 is the most that will do; its reward was that of its answer."""
    test = build_bandit(split="test")
    replay = Replay.load(finished / "policies" / "fixed_0.npz", test.space.num_bits)
    for image, will_do in ((7, True), (8, False)):
        other = int(np.flatnonzero(replay.correct != replay.correct[image])[0])
        correct, reward = replay.correct.copy(), replay.reward.copy()
        correct[image], reward[image] = correct[other], reward[other]
        replay = replace(replay, correct=correct, reward=reward)
        if will_do:
            assert replay.verify(test)[1:] == ([7], False)
        else:
            with pytest.raises(ValueError, match="^verify: 2 of 1,000 answers of fixed seed 0 differ"):
                replay.verify(test)


def test_replays_are_small(tmp_path):
    """A random mask for each image takes 15 bytes an image, and what is read is what was written."""
    test = build_bandit(split="test")
    count = len(test.image_set)
    masks = test.space.random_masks(count, 0.2, generator_for(0))
    replay = Replay.of(score_masks(test, masks), "random", 0, {})
    replay.save(tmp_path / "random.npz")
    assert (tmp_path / "random.npz").stat().st_size < 15 * count + 2000
    again = Replay.load(tmp_path / "random.npz", test.space.num_bits)
    for name in ("masks", "network", "correct", "reward"):
        assert (getattr(again, name) == getattr(replay, name)).all()


@pytest.mark.parametrize("name", ["meta_graph", "latency_table", "images"])
def test_a_record_of_other_files_is_refused(finished, tmp_path, name):
    content = load_json(finished / "benchmark.json")
    content["fingerprints"][name] = "0" * 64
    shutil.copytree(finished / "policies", tmp_path / "policies")
    save_json(tmp_path / "benchmark.json", content)
    with pytest.raises(ValueError, match=f"^verify: .* was made with another {name}$"):
        benchmark.check(benchmark.Options(verify=tmp_path / "benchmark.json"))


def test_a_figure_that_is_not_that_of_its_replay_is_found(finished, tmp_path):
    copy = copied(finished, tmp_path)
    content = load_json(copy / "benchmark.json")
    for name, more in (("accuracy", 0.01), ("reward", 0.01), ("latency_ms", 0.001), ("networks", 1)):
        changed = deepcopy(content)
        changed["rows"][0]["test"][name] += more
        save_json(copy / "benchmark.json", changed)
        with pytest.raises(ValueError, match=f"^verify: the {name} of fixed is not"):
            benchmark.check(benchmark.Options(verify=copy / "benchmark.json"))
    (copy / "policies" / "fixed_0.npz").write_bytes(b"no replay")
    with pytest.raises(ValueError, match="^verify: .*fixed_0.npz is not a replay"):
        benchmark.check(benchmark.Options(verify=copy / "benchmark.json"))
