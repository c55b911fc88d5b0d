"""The joint search end to end: what it leaves behind, and that a kill leaves no trace."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from agents.blockdrop import BlockDrop
from agents.convnet_aig import ConvNetAIG
from agents.evaluation.awareness import validate
from agents.files import load_agent
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.static import StaticAgent
from instanas_env import paper
from instanas_env.build import build_bandit, shipped
from instanas_env.data import Augmentation, load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_weights
from instanas_env.wrappers.menu import save_menu
from scripts import search
from scripts.search_options import Regression, Reinforce, make_update
from tests.tools.pipeline_fixtures import (
    history,
    image_folder,
    kill_after_first_checkpoint,
    search_options,
    searched,
)

# In three epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

AGENTS = {"regression": RewardRegression, "reinforce": SelfCriticalReinforce}
both_agents = pytest.mark.parametrize("agent", AGENTS)


def weights(path: Path) -> dict[str, Tensor]:
    return load_weights(path)[0]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@both_agents
def test_a_search_leaves_a_controller_and_a_meta_graph(agent):
    out = searched(agent)
    loaded = load_agent(out / "controller.safetensors")
    assert type(loaded) is AGENTS[agent]
    meta_graph = MetaGraph.load(out / "meta_graph.safetensors")
    assert meta_graph.space == loaded.space and meta_graph.num_classes == 10
    for name in ("controller", "meta_graph"):
        record = load_weights(out / f"{name}.safetensors")[1]["record"]
        assert record["options"]["agent"]["name"] == agent and record["options"]["epochs"] == 3
        assert record["history"][0]["epoch"] == 3 and record["machine"]["threads"] == 1


@both_agents
def test_a_snapshot_of_the_controller_per_epoch(agent):
    """Each epoch changes it, and the last snapshot is the result."""
    snapshots = sorted((searched(agent) / "controllers").iterdir())
    assert [path.name for path in snapshots] == [f"epoch_{epoch:03d}.safetensors" for epoch in (1, 2, 3)]
    first, second, third = map(weights, snapshots)
    assert not equal(first, second) and not equal(second, third)
    assert equal(third, weights(searched(agent) / "controller.safetensors"))


@both_agents
def test_a_row_of_history_per_epoch(agent):
    rows = history(searched(agent))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        val = row["val"]
        ends = {"accuracy_low", "accuracy_high", "latency_sd_ms", "images"}
        assert val.keys() == ends | {"accuracy", "shuffled_accuracy", "latency_ms", "reward", "networks"}
        assert 0 <= val["accuracy"] <= 1 and 0 <= val["shuffled_accuracy"] <= 1
        assert -1 <= val["reward"] <= 1 and 1 <= val["networks"] <= 40, "40 validation images"
        assert 0 <= row["accuracy"] <= 1 and row["latency_ms"] > 0


@both_agents
def test_bounds_fall_from_their_first_levels_to_their_last(agent):
    """The window's end and its best latency, in multiples of reference latencies; epoch 2 is half-way."""
    table = LatencyTable.load(shipped("latency/lite.json"))
    rows = history(searched(agent))
    upper = [row["upper_ms"] for row in rows]
    best = [(row["upper_ms"] + row["lower_ms"]) / 2 for row in rows]
    for bounds, levels in ((upper, paper.SEARCH_UPPER), (best, paper.SEARCH_BEST)):
        first, last = (factor * table.reference(reference) for factor, reference in levels)
        assert bounds == pytest.approx([first, (first + last) / 2, last])
        assert bounds[0] > bounds[1] > bounds[2]


@both_agents
def test_the_meta_graph_trains_after_its_frozen_epoch(agent):
    """Two epochs of training: the rate falls from 0.02 to a tenth; all masks shuffled."""
    rows = [row["meta_graph"] for row in history(searched(agent))]
    assert rows[0] is None
    assert [(row["epoch"], row["shuffled"]) for row in rows[1:]] == [(2, 1.0), (3, 1.0)]
    assert [row["learning_rate"] for row in rows[1:]] == pytest.approx([0.02, 0.002])
    trained = weights(searched(agent) / "meta_graph.safetensors")
    assert not equal(trained, weights(shipped("meta_graph.safetensors")))


def test_frozen_epochs_leave_the_meta_graph_as_it_is_and_seeds_differ(tmp_path):
    """The masks of this epoch are random, so another seed has other ones, and another controller."""
    search.main(search_options(tmp_path, "regression", epochs=1, seed=1))
    assert equal(weights(tmp_path / "meta_graph.safetensors"), weights(shipped("meta_graph.safetensors")))
    assert history(tmp_path)[0]["meta_graph"] is None
    first = weights(searched("regression") / "controllers" / "epoch_001.safetensors")
    assert not equal(weights(tmp_path / "controller.safetensors"), first)


def test_alpha_rises_over_the_whole_search():
    """Alpha goes from 0.9 to 0.98 in 15 steps; a row holds the mean over its five: 0..4, 5..9, 10..14."""
    rows = history(searched("reinforce"))
    expected = [0.9 + 0.08 * step / 15 for step in (2, 7, 12)]
    assert [row["alpha"] for row in rows] == pytest.approx(expected)


@pytest.mark.parametrize(("shuffle", "expected"), [("early", [1.0, 0.0]), ("off", [0.0])])
def test_which_epochs_were_shuffled_is_recorded(tmp_path, shuffle, expected):
    """ "early" is the first of two epochs. The whole split is one step here, with the greedy baseline."""
    chosen = {"epochs": len(expected), "frozen_epochs": 0, "num_envs": 80}
    search.main(search_options(tmp_path, "reinforce", {"samples_per_image": 1}, shuffle=shuffle, **chosen))
    assert [row["meta_graph"]["shuffled"] for row in history(tmp_path)] == expected


def test_early_shuffling_after_frozen_epochs_is_that_of_the_first_meta_graph_epochs(tmp_path):
    """Two of four epochs are frozen: of the two in which the meta-graph trains, the first is shuffled."""
    chosen = {"epochs": 4, "frozen_epochs": 2, "num_envs": 80}
    search.main(search_options(tmp_path, "reinforce", {"samples_per_image": 1}, shuffle="early", **chosen))
    rows = [row["meta_graph"] for row in history(tmp_path)]
    assert [row["shuffled"] for row in rows if row] == [1.0, 0.0]


@pytest.mark.parametrize("agent", ["reinforce", "regression"])
def test_killed_and_resumed_equals_unbroken(agent, tmp_path):
    """SIGKILL at an arbitrary moment after the first checkpoint, then the same call again."""
    options = search_options(tmp_path / "killed", agent)
    kill_after_first_checkpoint("search", options)
    assert not (options.out / "controller.safetensors").exists(), "killed in the middle"
    search.main(options)
    names = ["controller.safetensors", "meta_graph.safetensors"]
    names += [f"controllers/epoch_{epoch:03d}.safetensors" for epoch in (1, 2, 3)]
    for name in names:
        assert equal(weights(options.out / name), weights(searched(agent) / name)), name
    assert history(options.out) == history(searched(agent))


def test_a_finished_search_is_not_searched_again(tmp_path):
    """A second call writes what the first wrote: weights, history to the second, the setting of the dial."""
    out = shutil.copytree(searched("regression"), tmp_path / "copy")
    search.main(search_options(out, "regression"))
    names = ("controller.safetensors", "meta_graph.safetensors")
    for name in names:
        assert equal(weights(out / name), weights(searched("regression") / name)), name
    again, before = ((folder / "history.jsonl").read_bytes() for folder in (out, searched("regression")))
    assert again == before
    again, before = (
        load_agent(folder / "controller.safetensors") for folder in (out, searched("regression"))
    )
    assert again.trade_off == before.trade_off


@pytest.mark.parametrize(
    "change", [{"agent": Regression(learning_rate=0.5)}, {"agent": Reinforce()}, {"epochs": 4}]
)
def test_a_directory_refuses_another_search(change):
    options = search_options(searched("regression"), "regression")
    with pytest.raises(ValueError, match=f"^out: .*/regression holds a run with other {next(iter(change))};"):
        search.main(dataclasses.replace(options, **change))


def test_the_meta_graph_s_images_are_augmented_as_asked(tmp_path):
    """Crops by 4 of 32 px and no cutout; other pixels, other weights."""
    options = search_options(tmp_path / "plain", "regression", epochs=1, frozen_epochs=0)
    wide = dataclasses.replace(
        options, out=tmp_path / "wide", augmentation=Augmentation(crop_padding=4 / 32, cutout=0.0)
    )
    assert make_update(wide, 10).augmentation == Augmentation(crop_padding=4 / 32, cutout=0.0)
    for one in (options, wide):
        search.main(one)
    plain, cropped = (weights(one.out / "meta_graph.safetensors") for one in (options, wide))
    assert not equal(plain, cropped)


def test_validation_counts_networks_after_repair():
    """An empty mask and one with the default modules only where they are needed are one network."""
    bandit = build_bandit("folder", str(image_folder()), "val")
    space = bandit.space
    raw = torch.zeros(len(bandit.image_set), space.num_cells, space.num_modules, dtype=torch.bool)
    raw[::2] = space.repair(raw[::2])
    assert len(raw.flatten(1).unique(dim=0)) == 2
    agent = StaticAgent(space, space.full_mask())
    agent.masks = lambda images, deterministic=True: raw[: len(images)]
    assert validate(bandit, agent, seed=0).networks == 1


def test_validation_measures_the_same_masks_shuffled():
    """Random masks: shuffling keeps their latencies; every figure is that of a hand-made score."""
    bandit = build_bandit("folder", str(image_folder()), "val")
    masks = bandit.space.random_masks(len(bandit.image_set), 0.5, generator_for(3))
    agent = StaticAgent(bandit.space, bandit.space.full_mask())
    agent.masks = lambda images, deterministic=True: masks[: len(images)]
    figures = validate(bandit, agent, seed=0).known()
    outcome = bandit.score(bandit.contexts(torch.arange(len(masks))), masks.flatten(1))
    assert figures["accuracy"] == pytest.approx(outcome.correct.mean())
    assert figures["latency_ms"] == pytest.approx(bandit.latency_table.lookup(masks).mean().item())
    assert figures["reward"] == pytest.approx(outcome.reward.mean())
    assert figures["networks"] == len(masks)


@pytest.mark.parametrize("agent", [BlockDrop, ConvNetAIG], ids=["blockdrop", "convnet-aig"])
def test_the_papers_baselines_search_with_the_meta_graph(agent, request, tmp_path):
    """Two epochs, the meta-graph trained after each, which the gates' gradients then flow through."""
    name = request.node.callspec.id
    chosen = {"epochs": 2, "frozen_epochs": 0, "num_envs": 40}
    its_own = {"curriculum_epochs": 1} if agent is BlockDrop else {}
    search.main(search_options(tmp_path, name, its_own, **chosen))
    loaded = load_agent(tmp_path / "controller.safetensors")
    assert type(loaded) is agent
    rows = history(tmp_path)
    assert [row["meta_graph"]["epoch"] for row in rows] == [1, 2]
    if isinstance(loaded, BlockDrop):
        assert loaded.curriculum_timesteps == 80 and loaded.controller.free.sum() == 12
        assert [row["free_blocks"] for row in rows] == [(1 + 7) / 2, 12]


def test_regression_chooses_from_a_menu(tmp_path):
    """Two masks of every image are answered, and in the end six passes made over what was kept."""
    space = SearchSpace.preset("lite")
    menu = space.random_masks(5, 0.3, generator_for(0))
    save_menu(tmp_path / "menu.json", space, menu)
    own = {"menu": tmp_path / "menu.json", "masks_per_image": 2, "passes": 6, "augment": True}
    options = search_options(tmp_path / "run", "regression", own, epochs=1)
    search.main(options)
    agent = load_agent(options.out / "controller.safetensors")
    assert isinstance(agent, RewardRegression) and agent.augment and agent.passes == 6
    chosen = agent.masks(load_images("folder", "val", image_folder()).images[:])
    assert (chosen.unsqueeze(1) == menu).all((2, 3)).any(1).all()

    moved = shutil.copy(tmp_path / "menu.json", tmp_path / "moved.json")
    search.main(dataclasses.replace(options, agent=dataclasses.replace(options.agent, menu=Path(moved))))
    save_menu(tmp_path / "menu.json", space, menu[:4])
    with pytest.raises(ValueError, match="^out: .*read another menu"):
        search.main(options)
    for none in (Regression(**{**own, "menu": None}), Regression(**{**own, "passes": 7})):
        with pytest.raises(ValueError, match="^out: .*with other agent"):
            search.main(dataclasses.replace(options, agent=none))
    for wrong, message in (
        ({"random_epochs": 2}, "random_epochs: got 2; with passes, 1 to 1 will do"),
        ({"random_epochs": 0}, "random_epochs: got 0; with passes, 1 to 1 will do"),
        ({"replay": 4}, "replay: got 4; with passes, at least 5 will do"),  # 80 images in steps of 16
    ):
        refused = dataclasses.replace(options, out=tmp_path / "none", agent=Regression(**{**own, **wrong}))
        with pytest.raises(ValueError, match=f"^{message}"):
            search.main(refused)
    save_menu(tmp_path / "other.json", SearchSpace.preset("cifar"), menu)
    other = dataclasses.replace(
        options, out=tmp_path / "other", agent=Regression(menu=tmp_path / "other.json")
    )
    with pytest.raises(ValueError, match="^menu: .*other.json was made for the search space"):
        search.main(other)
