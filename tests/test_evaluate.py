"""The comparison end to end, on the tiny world: which rows there are and what holds between them."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.evaluation.alone import load_lone
from agents.evaluation.difficulty import rank_correlation
from agents.evaluation.image_record import ImageRecord
from agents.evaluation.over_seeds import over_seeds
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.static import StaticAgent
from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts.comparison.compare import PARTS, compare, menu_of, searches
from scripts.evaluate import Options
from tests.tools.pipeline_fixtures import evaluated, image_folder, read_strictly, searched

# In three epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

FIXED = [
    "MobileNetV2 trained alone", "full meta-graph", "MobileNetV2 path", "cheapest path", "random half",
]  # fmt: skip


def rows() -> dict[str, dict]:
    """The rows by policy, without those of searches that come with the package."""
    found = read_strictly(evaluated() / "results.json")["rows"]
    return {row["policy"]: row for row in found if "(shipped)" not in row["group"]}


def scores() -> dict[str, dict]:
    """Their scores on the test split."""
    return {policy: row["test"] for policy, row in rows().items()}


def table() -> LatencyTable:
    return LatencyTable.load(shipped("latency/lite.json"))


def small(out: Path, **changes) -> Options:
    """A comparison of fixed policies alone."""
    folder = {"dataset": "folder", "data_dir": image_folder()}
    few = {"one_shot_masks": 1, "control_masks": 1, "control_networks": 2}
    return Options(out, time_real=False, threads=1, **{**few, **folder, **changes})


def test_rows_and_their_groups():
    groups: dict[str, list[str]] = {}
    for name, row in rows().items():
        groups.setdefault(row["group"], []).append(name)
    dials = ["regression, dial 0.4", "regression, dial 0.8"]
    assert groups == {
        "fixed": FIXED,
        "static": ["best static <= 0.6 MobileNetV2", "best static <= 1 MobileNetV2"],
        "regression": dials,
        "reinforce": ["reinforce"],
    }
    assert {policy for policy, row in scores().items() if "names_accuracy" in row} == {*dials, "reinforce"}


def test_every_figure_is_finite_and_in_its_range():
    lone = "MobileNetV2 trained alone"
    assert rows()[lone]["parameters"] > 0 and rows()[lone]["mmacs"] > 0
    for policy, row in scores().items():
        figures = [value for value in row.values() if isinstance(value, (int, float))]
        assert all(map(math.isfinite, figures))
        controls = 4 * ("over_static_accuracy" in row) + ("names_accuracy" in row)
        controls += 4 * ("difficulty" in row)
        assert len(figures) == (8 if policy == lone else 18 + controls)
        assert row["images"] == 40
        assert 0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1
        assert -1 <= row["reward"] <= 1 and row["latency_ms"] > 0
        assert "clock_ms" not in row, "not asked for"


def test_fixed_policies_have_the_latency_of_their_mask_and_no_controller():
    latency = {name: scores()[name]["latency_ms"] for name in FIXED}
    assert latency["full meta-graph"] == pytest.approx(table().reference("full"))
    assert latency["MobileNetV2 path"] == pytest.approx(table().reference("mobilenet_v2"))
    assert latency["cheapest path"] == pytest.approx(table().reference("cheapest"))
    assert latency["MobileNetV2 trained alone"] == pytest.approx(latency["MobileNetV2 path"])
    assert latency["cheapest path"] < latency["random half"] < latency["full meta-graph"]
    networks = {name: scores()[name]["networks"] for name in FIXED}
    assert networks == {**dict.fromkeys(FIXED, 1), "random half": 40}


@pytest.mark.parametrize("factor", [0.6, 1])
def test_static_rows_keep_their_limits(factor):
    row = scores()[f"best static <= {factor} MobileNetV2"]
    assert row["networks"] == 1
    assert row["latency_ms"] <= factor * table().reference("mobilenet_v2")


def test_no_row_claims_a_limit_that_its_mask_breaks(tmp_path):
    """Nothing is as fast as a hundredth of MobileNetV2: no row, or an error, but not the fastest mask."""
    comparison = compare(small(tmp_path, one_shot_limits=(0.01,)))
    static = [row for row in comparison.rows if row["group"] == "static"]
    limit = 0.01 * table().reference("mobilenet_v2")
    assert all(row["test"]["latency_ms"] <= limit for row in static if "<= 0.01" in row["policy"])


def test_learned_rows_list_their_networks_and_pay_for_their_controller():
    """Masks as bits, latencies rounded to 1e-4; their mean over images and the controller's on top."""
    learned = [row for row in rows().values() if row["group"] in ("regression", "reinforce")]
    for row in learned:
        networks = row["masks"]
        assert len({network["mask"] for network in networks}) == row["test"]["networks"] == len(networks)
        assert sum(network["images"] for network in networks) == 40
        masks = torch.tensor([[bit == "1" for bit in network["mask"]] for network in networks])
        latencies = [network["latency_ms"] for network in networks]
        assert latencies == pytest.approx(table().lookup(masks.reshape(-1, 17, 5)).tolist(), abs=1e-4)
        mean = sum(network["images"] * network["latency_ms"] for network in networks) / 40
        assert row["test"]["latency_ms"] == pytest.approx(mean + table().controller, abs=1e-4)
    assert len(learned) == 3
    assert not any("masks" in row for row in rows().values() if row not in learned)


def test_the_difficulty_is_that_of_the_record_and_is_none_of_one_network():
    record = ImageRecord.load(evaluated() / "images.safetensors")
    images = load_images("folder", "test", image_folder(), 32)
    loss = load_lone(shipped("mobilenet_v2.safetensors")).losses(images).numpy()
    found = {row["policy"]: row for row in read_strictly(evaluated() / "results.json")["rows"]}
    for policy, choices in record.policies.items():
        row = found[policy]
        latency_ms = np.array([network["latency_ms"] for network in row["masks"]])[choices.network]
        expected = rank_correlation(latency_ms, loss)[0]
        if row["test"]["networks"] > 1:
            assert row["test"]["difficulty"] == pytest.approx(expected, abs=0.01), "latencies are rounded"
    one, several = (
        [row for row in scores().values() if (row["networks"] > 1) == many] for many in (False, True)
    )
    assert several and all("difficulty" in row for row in several)
    assert one and not any("difficulty" in row for row in one)


def test_the_record_of_images_counts_what_the_results_count():
    """Per network as many images, and as many right answers in all."""
    record = ImageRecord.load(evaluated() / "images.safetensors")
    found = read_strictly(evaluated() / "results.json")["rows"]
    learned = {row["policy"]: row for row in found if "masks" in row}
    assert record.policies.keys() == learned.keys()
    for name, choices in record.policies.items():
        networks = learned[name]["masks"]
        assert choices.network.bincount().tolist() == [network["images"] for network in networks]
        assert choices.correct.sum().item() == round(40 * learned[name]["test"]["accuracy"])


def test_the_record_holds_the_split_and_its_pictures():
    """40 images, four of each class; all have thumbnails, grey ones, since Fashion-MNIST is grey."""
    record, images = (
        ImageRecord.load(evaluated() / "images.safetensors"),
        load_images("folder", "test", image_folder()),
    )
    assert torch.equal(record.label, images.labels) and record.classes == images.classes
    assert record.sample.tolist() == list(range(40))
    assert torch.equal(record.thumbnails.expand(-1, 3, -1, -1), images.images[record.sample])
    assert record.thumbnails.shape == (40, 1, 32, 32)


def test_results_name_the_machine_and_the_options():
    results = read_strictly(evaluated() / "results.json")
    assert results.keys() == {"options", "machine", "policies", "gains", "rows", "image_sets"}
    assert results["machine"].keys() == {"device", "processor", "threads", "torch", "python"}
    assert results["options"]["dataset"] == "folder"


def test_every_policy_that_chooses_stands_beside_mobilenet_v2_on_the_same_images():
    """And nothing that was kept for a killed call is left."""
    found = read_strictly(evaluated() / "results.json")["gains"]
    gains = [pair for pair in found if "(shipped)" not in pair["policy"]]
    assert {(pair["policy"], pair["over"]) for pair in gains} == {
        (policy, "MobileNetV2 trained alone") for policy, row in rows().items() if "masks" in row
    }
    alone = scores()["MobileNetV2 trained alone"]
    for pair in gains:
        own, (mean, low, high) = scores()[pair["policy"]], pair["accuracy"]
        assert low <= mean <= high and mean == pytest.approx(own["accuracy"] - alone["accuracy"])
        assert pair["latency"] == pytest.approx(own["latency_ms"] / alone["latency_ms"])
    assert not (evaluated() / PARTS).exists()


def test_runs_of_the_same_name_are_both_compared(tmp_path):
    """``seed_0/search`` and ``seed_1/search`` are two runs."""
    folders = (tmp_path / "seed_0" / "search", tmp_path / "seed_1" / "search")
    found = searches(Options(tmp_path, runs=folders))
    assert set(folders) <= set(found.values())


def narrow(tmp_path: Path, space: SearchSpace, classes: int = 10) -> tuple[Path, Path]:
    """A meta-graph of another space than the shipped one, and a table: every module takes 1 ms, what all
    networks have 1 ms, the controller 0.5 ms."""
    weights, table = tmp_path / "narrow" / "meta_graph.safetensors", tmp_path / "latency.json"
    MetaGraph(space, classes).save(weights)
    LatencyTable(space, torch.ones(17, space.num_modules), fixed=1.0, controller=0.5).save(table)
    return weights, table


def test_another_space_comes_with_its_own_table_and_networks_alone(tmp_path, tiny_space):
    """MobileNetV2 takes 17 + 1 ms; nothing of the package, which is of another space, is compared."""
    weights, table = narrow(tmp_path, tiny_space)
    MetaGraph(tiny_space.only(2), 10).save(tmp_path / "alone" / "meta_graph.safetensors")
    RewardRegression(None, space=tiny_space).save(weights.parent / "controller.safetensors")
    files = {"meta_graph": weights, "latency_table": table, "alone": (tmp_path / "alone",)}
    comparison = compare(small(tmp_path, runs=(weights.parent,), dial=(0.5,), one_shot_limits=(), **files))
    assert [row["policy"] for row in comparison.rows] == [
        "MobileNetV2 x 0.5", *FIXED[1:], "narrow, dial 0.5",
    ]  # fmt: skip
    latency = {row["policy"]: row["test"]["latency_ms"] for row in comparison.rows}
    assert latency["MobileNetV2 x 0.5"] == latency["MobileNetV2 path"] == 17 + 1
    assert latency["full meta-graph"] == 17 * 5 + 1


def test_a_copy_of_the_packages_weights_brings_its_networks_too(tmp_path):
    """The MobileNetV2 that goes with them, and the shipped controller; other weights bring neither."""
    copy = tmp_path / "meta_graph.safetensors"
    shutil.copy(shipped("meta_graph.safetensors"), copy)
    found = [row["policy"] for row in compare(small(tmp_path, meta_graph=copy, one_shot_limits=())).rows]
    assert found == [*FIXED, "reference (shipped)"]
    MetaGraph(MetaGraph.load(copy).space, 10, generator_for(0)).save(copy)
    found = [row["policy"] for row in compare(small(tmp_path, meta_graph=copy, one_shot_limits=())).rows]
    assert found == FIXED[1:]


def test_files_of_different_spaces_are_refused(tmp_path, tiny_space):
    """A table of half the width would tell half the latency."""
    weights, table = narrow(tmp_path, tiny_space)
    with pytest.raises(ValueError, match="^latency_table: the package has those of lite, .*instanas profile"):
        compare(small(tmp_path, meta_graph=weights))
    with pytest.raises(ValueError, match="^latency_table: .* is of the search space"):
        compare(small(tmp_path, latency_table=table))
    with pytest.raises(FileNotFoundError, match="^latency_table: no such file: .*nowhere"):
        compare(small(tmp_path, latency_table=tmp_path / "nowhere"))
    RewardRegression(None, space=tiny_space).save(weights.parent / "controller.safetensors")
    with pytest.raises(ValueError, match="^runs: .*meta_graph.safetensors is of the search space"):
        compare(small(tmp_path, runs=(weights.parent,)))


def test_weights_for_other_classes_are_refused(tmp_path, tiny_space):
    weights, table = narrow(tmp_path, tiny_space, classes=100)
    with pytest.raises(ValueError, match="^meta_graph: .* has 100 classes; the data set has 10"):
        compare(small(tmp_path, meta_graph=weights, latency_table=table))


def test_every_controller_has_its_controls_on_the_same_images():
    """And nobody else; the static one is no slower than the policy. Its scores tell what they come to."""
    learned = [row for row in rows().values() if "masks" in row]
    assert len(learned) == 3 and sum("controls" in row for row in rows().values()) == 3
    for row in learned:
        controls, test = row["controls"], row["test"]
        for name in ("static", "static_with_controller_time"):
            gain = controls[name]["gain"]
            assert gain["difference"] == pytest.approx(test["accuracy"] - controls[name]["accuracy"])
            assert gain["low"] <= gain["difference"] <= gain["high"]
        assert test["over_static_accuracy"] == gain["difference"]
        assert (test["over_static_accuracy_low"], test["over_static_accuracy_high"]) == (
            gain["low"],
            gain["high"],
        )
        lost = test["lost_shuffled_accuracy"]
        assert lost == pytest.approx(test["accuracy"] - test["shuffled_accuracy"])
        assert test["lost_shuffled_accuracy_low"] <= lost <= test["lost_shuffled_accuracy_high"]
        oracle = controls["oracle"]
        assert oracle["networks"] <= 4 and oracle["images"] == 40
        assert oracle["any_right"] >= oracle["best_single"] and oracle["controller"] == test["accuracy"]
        assert oracle["any_right"] == test["oracle_accuracy"]


def test_further_seeds_of_a_policy_are_rows_of_their_own_and_one_line(tmp_path):
    """By the folder's name: ``search_seed1`` is made as ``search``, so both are of one policy."""
    runs = tuple(tmp_path / name for name in ("search", "search_seed1"))
    for run in runs:
        run.symlink_to(searched("reinforce"))
    comparison = compare(small(tmp_path / "out", runs=runs, one_shot_limits=()))
    found = [row for row in comparison.rows if row["group"] == "search"]
    assert [(row["policy"], row["seed"]) for row in found] == [("search", 0), ("search", 1)]
    (line,) = (line for line in over_seeds(comparison.rows) if line["policy"] == "search")
    accuracy = found[0]["test"]["accuracy"]
    assert line["seeds"] == 2 and line["accuracy"] == pytest.approx((accuracy,) * 3)


def test_what_a_killed_comparison_has_finished_is_not_made_again(tmp_path, capsys):
    """It ends with the rows and choices of one that was never stopped. Another controller is made anew."""
    runs = tuple(tmp_path / name for name in ("first", "second"))
    for run in runs:
        shutil.copytree(searched("reinforce"), run)
    graph = searched("reinforce") / "meta_graph.safetensors"
    alone = (shipped("mobilenet_v2.safetensors"),)
    stopped = small(tmp_path / "stopped", runs=runs, one_shot_limits=(1.0,), meta_graph=graph, alone=alone)
    compare(dataclasses.replace(stopped, runs=runs[:1]))
    capsys.readouterr()
    resumed = compare(stopped)
    kept = [line for line in capsys.readouterr().out.splitlines() if "kept from an earlier call" in line]
    assert [line.split(":")[0] for line in kept] == ["frontier", "fixed", "search first"]
    whole = compare(dataclasses.replace(stopped, out=tmp_path / "whole"))
    assert resumed.rows == whole.rows and resumed.gains == whole.gains and len(whole.gains) == 2
    assert (
        resumed.choices.keys()
        == whole.choices.keys()
        == {
            "first",
            "second",
        }
    )
    for name, chosen in whole.choices.items():
        assert torch.equal(resumed.choices[name].network, chosen.network)
        assert torch.equal(resumed.choices[name].correct, chosen.correct)

    fresh = SelfCriticalReinforce(None, space=SearchSpace.preset("lite"), seed=7)
    fresh.save(runs[0] / "controller.safetensors")
    capsys.readouterr()
    assert compare(stopped).rows != whole.rows
    told = capsys.readouterr().out
    assert "search second: kept" in told and "search first" not in told


@pytest.mark.parametrize("agent", ["blockdrop", "convnet-aig"])
def test_the_papers_other_controllers_are_compared(agent, tmp_path):
    """Without a dial: one row with its controls. BlockDrop uses MobileNetV2's blocks alone."""
    comparison = compare(small(tmp_path, runs=(searched(agent),), one_shot_limits=()))
    (row,) = (row for row in comparison.rows if row["group"] == agent)
    assert row["policy"] == agent and "shuffled_accuracy" in row["test"]
    assert row["controls"].keys() == {"static", "static_with_controller_time", "oracle"}
    if agent == "blockdrop":
        masks = torch.tensor([[bit == "1" for bit in network["mask"]] for network in row["masks"]])
        assert not masks.reshape(-1, 17, 5)[:, :, [0, 1, 3, 4]].any()


def test_what_was_trained_anew_has_no_controls_on_its_own_weights(tmp_path):
    """Nobody trained a fixed mask there. What its masks lose when exchanged is told all the same."""
    shutil.copy(searched("reinforce") / "controller.safetensors", tmp_path)
    graph = MetaGraph.load(searched("reinforce") / "meta_graph.safetensors")
    graph.save(tmp_path / "meta_graph.safetensors", {"options": {"from_scratch": True}})
    rows = compare(small(tmp_path / "out", runs=(tmp_path,), one_shot_limits=())).rows
    (row,) = (row for row in rows if row["group"] == tmp_path.name)
    assert "controls" not in row and "over_static_accuracy" not in row["test"]
    assert "shuffled_accuracy" in row["test"] and len(row["masks"]) > 1


def test_the_masks_of_a_menu_are_among_the_controls(lite_space):
    menu = lite_space.random_masks(3, 0.3, generator_for(0))
    assert torch.equal(menu_of(RewardRegression(None, space=lite_space, menu=menu)), menu)
    assert menu_of(RewardRegression(None, space=lite_space)).shape == (0, 17, 5)


def test_a_fixed_mask_with_weights_of_its_own_has_one_row_and_no_controls(tmp_path, lite_space):
    """As REINFORCE's network by itself: no controller, so its latency is the network's alone."""
    run = tmp_path / "one"
    mask = lite_space.mobilenet_v2_mask()
    StaticAgent(lite_space, mask).save(run / "controller.safetensors")
    MetaGraph.load(shipped("meta_graph.safetensors")).save(run / "meta_graph.safetensors")
    graph = run / "meta_graph.safetensors"
    rows = compare(small(tmp_path / "out", runs=(run,), meta_graph=graph)).rows
    (row,) = (row for row in rows if row["group"] == "one")
    assert row["policy"] == "one" and "controls" not in row
    assert row["test"]["latency_ms"] == pytest.approx(table().reference("mobilenet_v2"))
