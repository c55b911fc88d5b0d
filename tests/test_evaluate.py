"""The comparison end to end, on the tiny world: which rows there are and what holds between them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from agents.reward_regression import RewardRegression
from agents.static import StaticAgent
from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts.comparison.image_record import ImageRecord
from scripts.evaluate import Options, compare, menu_of, searches
from tests.tools.pipeline_fixtures import evaluated, image_folder, read_strictly, searched

# In three epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

FIXED = [
    "MobileNetV2 trained alone", "full meta-graph", "MobileNetV2 path", "cheapest path", "random half",
]  # fmt: skip


def rows() -> dict[str, dict]:
    """The rows by name, without those of searches that come with the package."""
    policies = read_strictly(evaluated() / "results.json")["policies"]
    return {row["name"]: row for row in policies if "(shipped)" not in row["group"]}


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
        "regression": [name for dial in dials for name in (dial, f"{dial}, shuffled")],
        "reinforce": ["reinforce", "reinforce, shuffled"],
        "controllers alone": ["regression, the controller alone"],
    }


def test_every_figure_is_finite_and_in_its_range():
    for row in rows().values():
        figures = [value for value in row.values() if isinstance(value, (int, float))]
        sizes = 2 if row["name"] == "MobileNetV2 trained alone" else 0  # parameters and MACs
        assert len(figures) == 7 + sizes and all(map(math.isfinite, figures))
        assert row["images"] == 40
        assert 0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1
        assert -1 <= row["reward"] <= 1 and row["latency_ms"] > 0
        assert row["real_latency_ms"] is None, "not asked for"


def test_fixed_policies_have_the_latency_of_their_mask_and_no_controller():
    latency = {name: rows()[name]["latency_ms"] for name in FIXED}
    assert latency["full meta-graph"] == pytest.approx(table().reference("full"))
    assert latency["MobileNetV2 path"] == pytest.approx(table().reference("mobilenet_v2"))
    assert latency["cheapest path"] == pytest.approx(table().reference("cheapest"))
    assert latency["MobileNetV2 trained alone"] == pytest.approx(latency["MobileNetV2 path"])
    assert latency["cheapest path"] < latency["random half"] < latency["full meta-graph"]
    networks = {name: rows()[name]["architectures"] for name in FIXED}
    assert networks == {**dict.fromkeys(FIXED, 1), "random half": 40}


@pytest.mark.parametrize("factor", [0.6, 1])
def test_static_rows_keep_their_limits(factor):
    row = rows()[f"best static <= {factor} MobileNetV2"]
    assert row["architectures"] == 1
    assert row["latency_ms"] <= factor * table().reference("mobilenet_v2")


def test_no_row_claims_a_limit_that_its_mask_breaks(tmp_path):
    """Nothing is as fast as a hundredth of MobileNetV2: no row, or an error, but not the fastest mask."""
    comparison = compare(small(tmp_path, one_shot_limits=(0.01,)))
    static = [row for row in comparison.rows if row["group"] == "static"]
    limit = 0.01 * table().reference("mobilenet_v2")
    assert all(row["latency_ms"] <= limit for row in static if "<= 0.01" in row["name"])


def test_shuffled_rows_have_the_networks_of_their_originals():
    """Other images, the same masks: everything but accuracy and reward stays."""
    names = [name for name in rows() if name.endswith(", shuffled")]
    assert len(names) == 3
    for name in names:
        shuffled, original = rows()[name], rows()[name.removesuffix(", shuffled")]
        assert shuffled["latency_ms"] == pytest.approx(original["latency_ms"])
        assert shuffled["architectures"] == original["architectures"]
        assert shuffled["networks"] == original["networks"]


def test_learned_rows_list_their_networks_and_pay_for_their_controller():
    """Masks as bits, latencies rounded to 1e-4; their mean over images and the controller's on top."""
    learned = [row for row in rows().values() if row["group"] in ("regression", "reinforce")]
    for row in learned:
        networks = row["networks"]
        assert len({network["mask"] for network in networks}) == row["architectures"] == len(networks)
        assert sum(network["images"] for network in networks) == 40
        masks = torch.tensor([[bit == "1" for bit in network["mask"]] for network in networks])
        latencies = [network["latency_ms"] for network in networks]
        assert latencies == pytest.approx(table().lookup(masks.reshape(-1, 17, 5)).tolist(), abs=1e-4)
        mean = sum(network["images"] * network["latency_ms"] for network in networks) / 40
        assert row["latency_ms"] == pytest.approx(mean + table().controller, abs=1e-4)
    assert len(learned) == 6
    assert all(row["networks"] is None for row in rows().values() if row not in learned)


def test_the_record_of_images_counts_what_the_results_count():
    """Per network as many images, and as many right answers in all; shuffled controls are not recorded."""
    record = ImageRecord.load(evaluated() / "images.safetensors")
    policies = read_strictly(evaluated() / "results.json")["policies"]
    learned = {r["name"]: r for r in policies if r["networks"] and not r["name"].endswith(", shuffled")}
    assert record.policies.keys() == learned.keys()
    for name, choices in record.policies.items():
        networks = learned[name]["networks"]
        assert choices.network.bincount().tolist() == [network["images"] for network in networks]
        assert choices.correct.sum().item() == round(40 * learned[name]["accuracy"])


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
    assert results.keys() == {"options", "machine", "policies", "seeds", "image_sets"}
    assert results["machine"].keys() == {"device", "processor", "threads", "torch", "python"}
    assert results["options"]["dataset"] == "folder"


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
    assert [row["name"] for row in comparison.rows] == [
        "MobileNetV2 x 0.5", *FIXED[1:], "narrow, dial 0.5", "narrow, dial 0.5, shuffled",
    ]  # fmt: skip
    latency = {row["name"]: row["latency_ms"] for row in comparison.rows}
    assert latency["MobileNetV2 x 0.5"] == latency["MobileNetV2 path"] == 17 + 1
    assert latency["full meta-graph"] == 17 * 5 + 1


def test_files_of_different_spaces_are_refused(tmp_path, tiny_space):
    """A table of half the width would tell half the latency."""
    weights, table = narrow(tmp_path, tiny_space)
    with pytest.raises(ValueError, match="^latency_table: .* is of the search space .*instanas profile"):
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
    """And nobody else; the shuffled one is the row of that name, the static one no slower than the policy."""
    learned = [row for row in rows().values() if row["networks"] and not row["name"].endswith(", shuffled")]
    assert len(learned) == 3 and sum("controls" in row for row in rows().values()) == 3
    for row in learned:
        controls, shuffled = row["controls"], rows()[row["name"] + ", shuffled"]
        assert controls["shuffled"]["accuracy"] == shuffled["accuracy"]
        for name in ("shuffled", "static", "static_with_controller_time"):
            gain = controls[name]["gain"]
            assert gain["difference"] == pytest.approx(row["accuracy"] - controls[name]["accuracy"])
            assert gain["low"] <= gain["difference"] <= gain["high"]
        oracle = controls["oracle"]
        assert oracle["networks"] <= 4 and oracle["images"] == 40
        assert oracle["any_right"] >= oracle["best_single"] and oracle["controller"] == row["accuracy"]


@pytest.mark.parametrize("agent", ["blockdrop", "convnet-aig"])
def test_the_papers_other_controllers_are_compared(agent, tmp_path):
    """Without a dial: one row and its control. BlockDrop uses MobileNetV2's blocks alone."""
    comparison = compare(small(tmp_path, runs=(searched(agent),), one_shot_limits=()))
    row, shuffled = (row for row in comparison.rows if row["group"] == agent)
    assert (row["name"], shuffled["name"]) == (agent, f"{agent}, shuffled")
    assert row["controls"].keys() == {"shuffled", "static", "static_with_controller_time", "oracle"}
    if agent == "blockdrop":
        masks = torch.tensor([[bit == "1" for bit in network["mask"]] for network in row["networks"]])
        assert not masks.reshape(-1, 17, 5)[:, :, [0, 1, 3, 4]].any()


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
    assert row["name"] == "one" and "controls" not in row
    assert row["latency_ms"] == pytest.approx(table().reference("mobilenet_v2"))
