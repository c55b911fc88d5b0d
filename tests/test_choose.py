"""A to E of real searches on the tiny world: numbers that can be had again from the files."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest

from agents.evaluation.picks import choose, controller_file
from agents.evaluation.scores import choose_masks
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.training.epoch import accuracy
from scripts import evaluate, finetune
from scripts.choose import Options, main, snapshots
from scripts.comparison.compare import compare
from tests.tools.pipeline_fixtures import home, image_folder, read_strictly, searched

# In three epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")
both_agents = pytest.mark.parametrize("agent", ["regression", "reinforce"])
DIALS = 4


@cache
def chosen(agent: str) -> Path:
    """A copy of a search, with its picks."""
    run = home() / f"{agent}_chosen"
    shutil.copytree(searched(agent), run)
    main(Options(run, data_dir=image_folder(), dials=DIALS))
    return run


def content(agent: str) -> dict:
    return read_strictly(chosen(agent) / "choices.json")


@both_agents
def test_every_snapshot_is_looked_at_and_every_setting(agent):
    points = content(agent)["points"]
    assert len(points) == (3 * DIALS if agent == "regression" else 3)
    assert {point["controller"] for point in points} == {
        f"controllers/epoch_00{epoch}.safetensors" for epoch in (1, 2, 3)
    }
    assert content(agent)["split"] == "val" and content(agent)["images"] == 40


def test_settings_go_evenly_over_what_the_search_explored():
    """From 0.4 to 1.2 times MobileNetV2's latency in four settings, as the search was told."""
    reference = LatencyTable.load(shipped("latency/lite.json")).reference("mobilenet_v2")
    dialled = [point["dial_ms"] for point in content("regression")["points"][:DIALS]]
    assert dialled == pytest.approx([reference * factor for factor in (0.4, 2 / 3, 14 / 15, 1.2)])
    lambdas = [point["trade_off"] for point in content("regression")["points"][:DIALS]]
    assert lambdas == sorted(lambdas, reverse=True), "slower networks at a smaller lambda"


@both_agents
def test_the_picks_lie_on_the_frontier_and_the_preferences_among_them(agent):
    found = content(agent)
    points, picked = found["points"], found["picks"]
    assert set(picked.values()) <= set(found["frontier"])
    assert points[picked["A"]]["accuracy"] == max(point["accuracy"] for point in points)
    last = points[picked[found["prefer"]["latency"]]]
    assert last["latency_ms"] == min(point["latency_ms"] for point in points)
    assert found["prefer"]["accuracy"] == "A"
    rewards = {letter: points[i]["reward"] for letter, i in picked.items()}
    assert rewards[found["prefer"]["balanced"]] == max(rewards.values())


@both_agents
def test_a_pick_has_the_accuracy_and_latency_that_are_claimed(agent):
    """From its file and the search's meta-graph, with the controller's time; without the environment."""
    val = load_images("folder", "val", image_folder())
    table = LatencyTable.load(shipped("latency/lite.json"))
    meta_graph = MetaGraph.load(chosen(agent) / "meta_graph.safetensors")
    for letter, i in content(agent)["picks"].items():
        picked = load_agent(controller_file(chosen(agent), letter))
        masks = picked.space.repair(choose_masks(picked, val))
        point = content(agent)["points"][i]
        assert point["accuracy"] == pytest.approx(accuracy(meta_graph, val, masks))
        assert point["latency_ms"] == pytest.approx(table.lookup(masks).mean().item() + table.controller)
        if isinstance(picked, RewardRegression):
            assert picked.trade_off == point["trade_off"]


def test_choosing_again_chooses_the_same(tmp_path):
    shutil.copytree(chosen("reinforce"), tmp_path / "run")
    before = read_strictly(tmp_path / "run" / "choices.json")
    (tmp_path / "run" / "choices.json").unlink()
    main(Options(tmp_path / "run", data_dir=image_folder(), dials=DIALS))
    after = read_strictly(tmp_path / "run" / "choices.json")
    assert {**before, "options": None} == {**after, "options": None}


def test_five_of_many_by_hand():
    """Accuracy and latency rise together; rewards are such that the third from the slow end is the best."""
    points = [{"accuracy": 0.5 + 0.05 * i, "latency_ms": 1.0 + i, "reward": -abs(i - 4)} for i in range(9)]
    found = choose(points, 5)
    assert found["frontier"] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert found["picks"] == {"A": 8, "B": 6, "C": 4, "D": 2, "E": 0}
    assert found["prefer"] == {"accuracy": "A", "balanced": "C", "latency": "E"}


def test_snapshots_are_evenly_spaced_and_end_with_the_last():
    names = [path.stem for path in snapshots(searched("reinforce"), 2)]
    assert names == ["epoch_001", "epoch_003"]
    assert [path.stem for path in snapshots(searched("reinforce"), 1)] == ["epoch_003"]
    assert len(snapshots(searched("reinforce"), 20)) == 3


def test_the_last_snapshot_is_of_the_highest_epoch_however_many_digits_it_has(tmp_path):
    (tmp_path / "controllers").mkdir()
    for epoch in (101, 999, 1000):
        (tmp_path / "controllers" / f"epoch_{epoch:03}.safetensors").touch()
    assert [path.stem for path in snapshots(tmp_path, 2)] == ["epoch_101", "epoch_1000"]
    with pytest.raises(FileNotFoundError, match="^run: .*/controllers holds no controller"):
        snapshots(tmp_path / "elsewhere", 2)


def test_bad_options_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="^run: .* holds no finished search"):
        main(Options(tmp_path))
    with pytest.raises(ValueError, match="^count: got 6; 2 to 5 will do"):
        main(Options(tmp_path, count=6))
    with pytest.raises(ValueError, match="^dials: got 0; a whole number of at least 1 will do"):
        main(Options(tmp_path, dials=0))


def test_fine_tuning_a_pick_keeps_its_trade_off_and_so_does_the_comparison(tmp_path):
    """One row, though a dial is asked for; without ``prefer`` the dial turns."""
    run = chosen("regression")
    out = tmp_path / "tuned"
    folder = {"dataset": "folder", "data_dir": image_folder()}
    finetune.main(finetune.Options(run, out, prefer="latency", epochs=1, batch_size=80, **folder))
    source = controller_file(run, "latency")
    assert (out / "controller.safetensors").read_bytes() == source.read_bytes()
    small = {"dial": (0.4,), "one_shot_masks": 1, "one_shot_limits": (), "time_real": False}
    comparison = compare(evaluate.Options(tmp_path / "compared", runs=(out, run), **folder, **small))
    names = [row["policy"] for row in comparison.rows if row["group"] in ("tuned", run.name)]
    assert names == ["tuned", f"{run.name}, dial 0.4"]
    last = content("regression")["picks"][content("regression")["prefer"]["latency"]]
    assert content("regression")["points"][last]["trade_off"] == RewardRegression.load(source).trade_off
