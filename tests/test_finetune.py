"""Fine-tuning under a fixed controller: only what its masks use is trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from agents.classifier import InstaNASClassifier
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from agents.static import RandomAgent, StaticAgent
from instanas_env.build import shipped
from instanas_env.data import Augmentation, load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.seeding import generator_for
from instanas_env.storage import load_weights, save_json
from scripts.finetune import Options, main
from scripts.options import DataOfRun, Weights, filled
from tests.tools.pipeline_fixtures import history, image_folder, kill_after_first_checkpoint, searched

# In three epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

UNCHANGED_IMAGES = Augmentation(crop_padding=0.0, flip=False, cutout=0.0)
both_agents = pytest.mark.parametrize("agent", ["regression", "reinforce"])


def options(out: Path, agent: str, **changes) -> Options:
    """One step on all 80 images as they are, so that a test can tell which masks were trained."""
    chosen = {"epochs": 1, "batch_size": 80, "augmentation": UNCHANGED_IMAGES, "threads": 1, **changes}
    return Options(run=searched(agent), out=out, dataset="folder", data_dir=image_folder(), **chosen)


def half_of_mobilenet_v2() -> tuple[float, float]:
    """A range of one latency: then no lambda is left to chance."""
    half = LatencyTable.load(shipped("latency/lite.json")).reference("mobilenet_v2") / 2
    return half, half


def used_modules(agent_name: str) -> Tensor:
    """Which modules, bool ``(num_cells, num_modules)``, some training image's mask contains."""
    agent = load_agent(searched(agent_name) / "controller.safetensors")
    images = load_images("folder", "train", image_folder()).images
    if isinstance(agent, RewardRegression):
        masks = agent.spread_masks(images, half_of_mobilenet_v2(), generator_for(9))
    else:
        masks = agent.masks(images)
    return agent.space.repair(masks).any(0)


def module_weights(path: Path) -> dict[tuple[int, int], Tensor]:
    """Weights and BatchNorm statistics of each module of each cell, in one vector."""
    meta_graph = MetaGraph.load(path)
    return {
        (t, m): torch.cat([tensor.flatten() for tensor in option.state_dict().values()])
        for t, cell in enumerate(meta_graph.cells)
        for m, option in enumerate(cell.options)
    }


@pytest.mark.parametrize(
    ("from_scratch", "optimizer", "epochs"), [(True, "sgd", 1), (True, "adam", 0), (False, "sgd", 0)]
)
def test_new_weights_warm_up_as_networks_alone_do(from_scratch, optimizer, epochs, tmp_path, monkeypatch):
    recipes = []
    monkeypatch.setattr("scripts.finetune.fit", lambda *given: recipes.append(given[6]))
    main(options(tmp_path, "reinforce", from_scratch=from_scratch, optimizer=optimizer))
    assert [recipe.warmup_epochs for recipe in recipes] == [epochs]


@both_agents
@pytest.mark.parametrize("from_scratch", [False, True], ids=["tuned", "from scratch"])
def test_only_modules_that_a_mask_uses_are_trained(agent, from_scratch, tmp_path):
    """The others keep their weights to the bit: those of the search, or the new ones."""
    run = tmp_path / "run"
    shutil.copytree(searched(agent), run)
    learner = load_agent(run / "controller.safetensors")
    if isinstance(learner, RewardRegression):
        learner.latencies = half_of_mobilenet_v2()
        learner.save(run / "controller.safetensors")
    chosen = replace(options(tmp_path / "out", agent, from_scratch=from_scratch), run=run)
    main(chosen)
    start = chosen.run / "meta_graph.safetensors"
    if from_scratch:
        start = tmp_path / "new.safetensors"
        MetaGraph(load_agent(chosen.run / "controller.safetensors").space, 10, generator_for(0)).save(start)
    used = used_modules(agent)
    assert used.any() and not used.all()
    before, after = module_weights(start), module_weights(chosen.out / "meta_graph.safetensors")
    for (cell, module), weights in after.items():
        same = torch.equal(weights, before[cell, module])
        assert same is not bool(used[cell, module]), f"cell {cell}, module {module}"


def trained_modules(tuned: Path, run: Path) -> set[tuple[int, int]]:
    before, after = (module_weights(folder / "meta_graph.safetensors") for folder in (run, tuned))
    return {place for place in before if not torch.equal(before[place], after[place])}


def modules_of(masks: Tensor) -> set[tuple[int, int]]:
    """Cell and module of every bit that is on in some mask ``(n, cells, modules)``."""
    return {(t, m) for t, m in masks.any(0).nonzero().tolist()}


def test_another_controller_can_be_given_such_as_one_mask_for_all(tmp_path):
    space = load_agent(searched("reinforce") / "controller.safetensors").space
    static = StaticAgent(space, space.random_masks(1, 0.3, generator_for(2))[0])
    static.save(tmp_path / "static.safetensors")
    main(options(tmp_path / "out", "reinforce", controller=tmp_path / "static.safetensors"))
    assert trained_modules(tmp_path / "out", searched("reinforce")) == modules_of(static.mask[None])
    copied = load_agent(tmp_path / "out" / "controller.safetensors")
    assert isinstance(copied, StaticAgent) and torch.equal(copied.mask, static.mask)


def test_a_one_shot_search_gives_the_best_mask_that_is_no_slower_than_the_controller(tmp_path):
    """Of three on its frontier: the first is slower than the policy and its controller, the last worse."""
    agent = load_agent(searched("reinforce") / "controller.safetensors")
    val, table = load_images("folder", "val", image_folder()), LatencyTable.load(shipped("latency/lite.json"))
    spent = table.lookup(agent.space.repair(agent.masks(val.images[:]))).mean().item()
    lean = agent.space.random_masks(2, 0.15, generator_for(2))
    frontier = [agent.space.full_mask(), *sorted(lean, key=lambda mask: -table.lookup(mask).item())]
    assert table.lookup(frontier[1]) < spent < table.lookup(frontier[0])
    rows = [{"mask": "".join(str(bit) for bit in mask.int().flatten().tolist())} for mask in frontier]
    save_json(tmp_path / "one_shot.json", {"search_space": agent.space.config, "frontier": rows})
    main(options(tmp_path / "out", "reinforce", one_shot=tmp_path, from_scratch=True))
    chosen = load_agent(tmp_path / "out" / "controller.safetensors")
    assert isinstance(chosen, StaticAgent) and torch.equal(chosen.mask, frontier[1])
    assert InstaNASClassifier.load(tmp_path / "out")(val.images[0]).name in val.classes

    save_json(tmp_path / "one_shot.json", {"search_space": agent.space.config, "frontier": rows[:1]})
    with pytest.raises(ValueError, match="^one_shot: no mask of .* takes at most .* ms, as the policy does"):
        main(options(tmp_path / "other", "reinforce", one_shot=tmp_path))
    with pytest.raises(ValueError, match="^masks: got 'all' with a one-shot search"):
        main(options(tmp_path / "other", "reinforce", one_shot=tmp_path, masks="all"))


def test_random_masks_are_all_those_of_the_menu(tmp_path):
    """80 images, 3 masks: that one is not drawn has a probability of 3 (2/3)^80 = 2e-14."""
    space = load_agent(searched("regression") / "controller.safetensors").space
    menu = space.random_masks(3, 0.3, generator_for(3))
    path = tmp_path / "controller.safetensors"
    RewardRegression(None, menu=menu, space=space).save(path)
    main(options(tmp_path / "out", "regression", controller=path, masks="random"))
    assert trained_modules(tmp_path / "out", searched("regression")) == modules_of(menu)


def test_a_network_trained_alone_needs_no_controller(tmp_path):
    """MobileNetV2 of the package, 17 modules, all of which are trained."""
    alone = tmp_path / "alone"
    alone.mkdir()
    weights = shipped("mobilenet_v2.safetensors").read_bytes()
    (alone / "meta_graph.safetensors").write_bytes(weights)
    main(replace(options(tmp_path / "out", "reinforce", masks="all"), run=alone))
    assert not (tmp_path / "out" / "controller.safetensors").exists()
    before, after = (MetaGraph.load(path / "meta_graph.safetensors") for path in (alone, tmp_path / "out"))
    for cell, trained in zip(before.cells, after.cells, strict=True):
        first, then = (next(each.options[0].parameters()) for each in (cell, trained))
        assert not torch.equal(first, then)
    with pytest.raises(ValueError, match="^masks: got 'all' with a controller or a pick; one or the other"):
        main(options(tmp_path / "other", "reinforce", masks="all", prefer="A"))


def test_options_that_exclude_each_other_are_refused(tmp_path):
    """Neither is passed over in silence."""
    path = tmp_path / "random.safetensors"
    space = load_agent(searched("reinforce") / "controller.safetensors").space
    RandomAgent(space).save(path)
    with pytest.raises(ValueError, match="^controller: .* draws its masks anew each time; another policy"):
        main(options(tmp_path / "out", "reinforce", controller=path))
    with pytest.raises(ValueError, match="^prefer: got 'A' with controller .*; one or the other will do"):
        main(options(tmp_path / "out", "reinforce", controller=path, prefer="A"))
    with pytest.raises(ValueError, match="^prefer: got 'A' with masks random; one or the other will do"):
        main(options(tmp_path / "out", "regression", masks="random", prefer="A"))


def test_random_masks_need_a_regression_controller(tmp_path):
    with pytest.raises(ValueError, match="^masks: got 'random' with a SelfCriticalReinforce"):
        main(options(tmp_path / "out", "reinforce", masks="random"))


@both_agents
def test_stem_and_head_are_trained_and_the_controller_is_copied(agent, tmp_path):
    main(options(tmp_path, agent))
    (before, _), (after, config) = (
        load_weights(folder / "meta_graph.safetensors") for folder in (searched(agent), tmp_path)
    )
    for name in ("stem.conv.weight", "head.3.weight", "head.3.bias"):
        assert not torch.equal(before[name], after[name])
    original = (searched(agent) / "controller.safetensors").read_bytes()
    assert (tmp_path / "controller.safetensors").read_bytes() == original
    (row,) = history(tmp_path)
    assert row["epoch"] == 1 and row["loss"] > 0
    assert row["val"].keys() == {"policy"} and 0 <= row["val"]["policy"] <= 1
    assert config["record"]["options"]["run"] == str(searched(agent))


def test_a_teacher_changes_what_is_learnt(tmp_path):
    """Same images, masks and first weights: only the loss differs."""
    teacher = shipped("mobilenet_v2.safetensors")
    main(options(tmp_path / "alone", "reinforce"))
    main(options(tmp_path / "taught", "reinforce", teacher=teacher))
    alone, taught = (
        load_weights(tmp_path / name / "meta_graph.safetensors")[0]["head.3.weight"]
        for name in ("alone", "taught")
    )
    assert not torch.equal(alone, taught)
    with pytest.raises(ValueError, match="^out: .* holds a run with other teacher;"):
        main(options(tmp_path / "alone", "reinforce", teacher=teacher))


def test_adam_moves_every_weight_by_its_learning_rate_at_first(tmp_path):
    """Its first step is lr * g / (|g| + 1e-8): 0.01 for each of the ten biases of the head, up or down."""
    main(options(tmp_path, "reinforce", optimizer="adam", learning_rate=0.01))
    before, after = (
        load_weights(folder / "meta_graph.safetensors")[0]["head.3.bias"]
        for folder in (searched("reinforce"), tmp_path)
    )
    assert (after - before).abs().tolist() == pytest.approx([0.01] * 10, rel=1e-3)


def test_killed_and_resumed_equals_unbroken(tmp_path):
    """With lambdas drawn and images augmented, as by default."""
    folder = {"dataset": "folder", "data_dir": image_folder()}
    runs = [
        Options(searched("regression"), tmp_path / name, epochs=3, batch_size=40, **folder)
        for name in ("unbroken", "killed")
    ]
    main(runs[0])
    kill_after_first_checkpoint("finetune", runs[1])
    assert not (runs[1].out / "meta_graph.safetensors").exists(), "killed in the middle"
    main(runs[1])
    first, second = (load_weights(run.out / "meta_graph.safetensors")[0] for run in runs)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert history(runs[0].out) == history(runs[1].out)
    assert (runs[1].out / "controller.safetensors").exists()


def test_the_directory_of_the_search_is_refused(tmp_path):
    """It would overwrite the meta-graph it starts from."""
    before = (searched("regression") / "meta_graph.safetensors").read_bytes()
    with pytest.raises(ValueError, match="^out: .* holds a run with other .*batch_size"):
        main(options(searched("regression"), "regression"))
    assert (searched("regression") / "meta_graph.safetensors").read_bytes() == before


def test_a_directory_without_a_search_is_named(tmp_path):
    nothing = Options(run=tmp_path / "nothing", out=tmp_path / "out", threads=1)
    with pytest.raises(FileNotFoundError, match="nothing/meta_graph"):
        main(nothing)


@dataclass(frozen=True, kw_only=True)
class Asked(Weights, DataOfRun):
    """What a run is to tell."""


def test_a_run_fine_tuned_twice_knows_what_its_search_began_with(tmp_path):
    """Not the package's weights, silently."""
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    for name, config in {
        "search": {"meta_graph": str(weights)},
        "first": {"run": str(tmp_path / "search")},
        "second": {"run": str(tmp_path / "first")},
        "circle": {"run": str(tmp_path / "circle")},
    }.items():
        (tmp_path / name).mkdir()
        save_json(tmp_path / name / "config.json", config)
    assert filled(Asked(), [tmp_path / "second"]).meta_graph == weights
    assert filled(Asked(), [tmp_path / "circle"]).meta_graph is None
