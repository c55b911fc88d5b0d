"""The benchmark over seeds: it goes on after the last finished seed, and its intervals are Student's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pipeline_fixtures import image_folder, read_strictly

from agents.agent import native
from agents.evaluation import choose_masks, score_masks
from agents.reward_regression import RewardRegression
from instanas_env.latency import LatencyTable
from instanas_env.meta_graph import MetaGraph
from instanas_env.seeding import generator_for
from instanas_env.storage import load_json
from scripts.benchmark import Options, known_masks, main, make_envs, summarise_seeds
from scripts.run_directory import RunDirectory

FIGURES = {
    "latency_ms", "accuracy", "architectures", "gain_over_fixed", "gain_over_fixed_with_controller",
    "loss_when_shuffled",
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A call for one seed, then one for two in the same directory; what each left in benchmark.json."""
    out = tmp_path_factory.mktemp("benchmark")
    chosen = {
        "total_timesteps": 64,
        "menu": 5,
        "one_shot_masks": 20,
        "one_shot_images": 20,
        "num_envs": 32,
    }
    options = [Options(out, "folder", image_folder(), seeds=seeds, threads=1, **chosen) for seeds in (1, 2)]
    contents, controllers = [], []
    for each in options:
        main(each)
        contents.append((out / "benchmark.json").read_bytes())
        controllers.append((out / "controller_0.safetensors").stat().st_mtime_ns)
        (out / f"after_{each.seeds}.json").write_bytes(contents[-1])
    assert controllers[0] == controllers[1], "the first seed's controller is not written again"
    return options[1]


def test_a_second_call_adds_the_seeds_that_are_missing(runs):
    first, second = (load_json(runs.out / f"after_{seeds}.json") for seeds in (1, 2))
    assert [row["seed"] for row in first["seeds"]] == [0]
    assert [row["seed"] for row in second["seeds"]] == [0, 1]
    assert second["seeds"][0] == first["seeds"][0]
    assert second["seeds"][1]["rows"] != first["seeds"][0]["rows"]
    assert (runs.out / "controller_1.safetensors").is_file()


def test_the_file_holds_what_was_run_and_its_summary(runs):
    results = read_strictly(runs.out / "after_2.json")
    assert results.keys() == {"options", "machine", "summary", "seeds"}
    assert results["options"]["total_timesteps"] == 64
    expected = summarise_seeds(results["seeds"])
    assert results["summary"] == [{name: listed(value) for name, value in row.items()} for row in expected]
    for seed in results["seeds"]:
        for row in seed["rows"]:
            assert row.keys() >= FIGURES
            assert 0 <= row["accuracy"] <= 1 and 1 <= row["architectures"] <= 40
            differences = (row[name] for name in FIGURES if name.startswith(("gain", "loss")))
            assert all(-1 <= difference <= 1 for difference in differences)


def listed(value):
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def test_one_seed_is_standard_json_too(runs):
    """An interval of one seed is unbounded; ``Infinity`` is no JSON, and other readers stop there."""
    assert read_strictly(runs.out / "after_1.json")["seeds"][0]["seed"] == 0


def test_the_controller_chooses_from_masks_that_the_seed_found(runs):
    """Five masks no slower than MobileNetV2, others for another seed; each seed plays only its own."""
    val = native(make_envs(runs, "val", 1)).bandit
    menus = []
    for seed in (0, 1):
        agent = RewardRegression.load(runs.out / f"controller_{seed}.safetensors")
        assert agent.menu is not None and len(agent.menu) == 5
        mobilenet_v2 = val.latency_table.reference("mobilenet_v2")
        played = choose_masks(agent, val.image_set).flatten(1).int().tolist()
        assert all(mask in agent.menu for mask in played)
        latencies = val.latency_table.lookup(val.space.masks_from_actions(agent.menu))
        assert 0.3 * mobilenet_v2 <= latencies.min() and latencies.max() <= mobilenet_v2
        menus.append(agent.menu)
    assert menus[0] != menus[1]


def test_without_a_menu_every_module_is_switched(runs, tmp_path):
    main(Options(**{**vars(runs), "out": tmp_path, "menu": 0, "seeds": 1}))
    assert RewardRegression.load(tmp_path / "controller_0.safetensors").menu is None


def test_known_masks_are_ranked_and_chosen_from(runs, lite_space, tmp_path):
    """Nothing else is ranked here, so the menu is the known one, in another order."""
    known = tmp_path / "known.safetensors"
    menu = lite_space.random_masks(4, 0.1, generator_for(5))
    RewardRegression(None, menu=menu, space=lite_space).save(known)
    chosen = {"menu": 5, "one_shot_masks": 0, "seeds": 1, "known": known, "dial": (2.0,)}
    main(replace(runs, out=tmp_path / "out", **chosen))
    agent = RewardRegression.load(tmp_path / "out" / "controller_0.safetensors")
    assert agent.menu is not None
    assert sorted(agent.menu) == sorted(menu.flatten(1).int().tolist())


def test_known_masks_that_do_not_fit_are_named(lite_space, tiny_space, tmp_path):
    modules = RewardRegression(None, space=lite_space)
    modules.save(tmp_path / "modules.safetensors")
    with pytest.raises(ValueError, match="^known: .*modules.safetensors holds no .* controller with a menu"):
        known_masks(tmp_path / "modules.safetensors", lite_space)
    narrow = RewardRegression(None, menu=tiny_space.full_mask()[None], space=tiny_space)
    narrow.save(tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match="^known: .* is for .*0.5.*, the meta-graph for"):
        known_masks(tmp_path / "narrow.safetensors", lite_space)


def test_the_saved_controller_is_the_one_that_was_measured(runs):
    """Its dial, set again on the validation images, gives the row's figures again."""
    val, test = (native(make_envs(runs, split, 1)).bandit for split in ("val", "test"))
    agent = RewardRegression.load(runs.out / "controller_1.safetensors")
    row = load_json(runs.out / "after_2.json")["seeds"][1]["rows"][-1]
    agent.dial(val.image_set.images, row["dial"] * val.latency_table.reference("mobilenet_v2"))
    outcome = score_masks(test, choose_masks(agent, test.image_set))
    assert row["accuracy"] == pytest.approx(outcome.correct.mean())
    assert row["latency_ms"] == pytest.approx(outcome.latency_ms.mean())


def test_another_benchmark_is_refused(runs):
    with pytest.raises(ValueError, match="^out: .* holds a run with other total_timesteps;"):
        changed = {name: value for name, value in vars(runs).items() if name != "total_timesteps"}
        main(Options(**changed, total_timesteps=65))
    RunDirectory(runs.out, runs, free=("out", "data_dir", "seeds", "workers"))


def test_the_space_is_that_of_the_meta_graph(tmp_path, tiny_space):
    """Half the width of the shipped one, with a table of its own."""
    MetaGraph(tiny_space, 10).save(tmp_path / "meta_graph.safetensors")
    LatencyTable(tiny_space, torch.ones(17, 5), 1.0, 1.0).save(tmp_path / "latency.json")
    folder = {"dataset": "folder", "data_dir": image_folder()}
    narrow = Options(tmp_path, meta_graph=tmp_path / "meta_graph.safetensors", **folder)
    with pytest.raises(ValueError, match="^latency_table: .*profile_latency.py and give its path"):
        make_envs(narrow, "val", 1)
    envs = make_envs(replace(narrow, latency_table=tmp_path / "latency.json"), "val", 1)
    assert native(envs).bandit.space == tiny_space
    assert native(envs).bandit.latency_table.reference("mobilenet_v2") == 17 + 1
    with pytest.raises(ValueError, match="^latency_table: made for the search space .*0.5"):
        make_envs(replace(narrow, meta_graph=None, latency_table=tmp_path / "latency.json"), "val", 1)


def test_summary_golden_values():
    """Three seeds: t(0.975) of two degrees is 4.303; 0.5, 0.6, 0.7 have the standard deviation 0.1."""
    seeds = [
        {
            "seed": seed,
            "rows": [
                {"dial": 0.4, "accuracy": 0.5 + 0.1 * seed, "latency_ms": 2.0},
                {"dial": 1.0, "accuracy": 0.25, "latency_ms": 1.0 + seed},
            ],
        }
        for seed in range(3)
    ]
    cheap, dear = summarise_seeds(seeds)
    half = 4.303 * 0.1 / math.sqrt(3)
    assert (cheap["dial"], dear["dial"]) == (0.4, 1.0)
    assert cheap["accuracy"] == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=1e-4)
    assert cheap["latency_ms"] == (2.0, 2.0, 2.0)
    assert dear["accuracy"] == (0.25, 0.25, 0.25)
    assert dear["latency_ms"] == pytest.approx((2, 2 - 10 * half, 2 + 10 * half), abs=1e-3)
