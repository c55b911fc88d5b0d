"""Presets: the paper's numbers where the paper has them, and stages that fit together."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from agents.blockdrop import BlockDrop
from agents.convnet_aig import ConvNetAIG
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from instanas_env import paper
from instanas_env.build import parse_search_space
from instanas_env.data.sources import DATASETS
from instanas_env.storage import save_json
from scripts.experiment.plan import Options, Plan
from scripts.experiment.presets import PRESETS
from scripts.experiment.run import as_found, parse
from scripts.search_options import BlockDropOptions, ConvNetAIGOptions, Regression, Reinforce
from tests.tools.pipeline_fixtures import image_folder

PAPER = [name for name in PRESETS if name.startswith("paper-")]


def test_the_names_that_are_promised():
    assert set(PRESETS) >= {
        "paper-cifar10", "paper-cifar100", "paper-tiny-imagenet", "paper-imagenet", "laptop-cifar10",
    }  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_numbers(name):
    """Section 4.2: SGD from 0.1 in batches of 32; Adam at 0.01 from scratch; 10,000 one-shot masks."""
    preset = PRESETS[name]
    assert (preset.pretrain.learning_rate, preset.pretrain.batch_size) == (0.1, 32)
    assert preset.pretrain.schedule == "paper" and preset.pretrain.augmentation.cutout == 0.5
    assert preset.mobilenet_v2 == preset.pretrain, "the same budget"
    training = (preset.pretrain, preset.reinforce, preset.finetune)
    assert len({stage.augmentation for stage in training}) == 1, "alike wherever the meta-graph trains"
    assert (preset.finetune.optimizer, preset.finetune.learning_rate) == ("adam", 0.01)
    assert preset.finetune.from_scratch and preset.finetune.teacher is None
    assert preset.agents == ("reinforce",) and preset.reinforce.agent.samples_per_image == 1
    assert preset.reinforce.agent.log_probability_under == "p", "equation (1)"
    assert preset.reinforce.shuffle == "on" and preset.one_shot.masks == 10_000
    assert preset.fine_tuned == tuple(f"reinforce/{letter}" for letter in "ABCDE")
    space = parse_search_space(preset.search_space)
    assert (space.num_cells, space.num_modules, space.width) == (17, 5, 1.0)


def test_the_four_data_sets():
    classes = [PRESETS[name].classes for name in PAPER]
    sides = [parse_search_space(PRESETS[name].search_space).resolution for name in PAPER]
    assert classes == [10, 100, 200, 1000] and sides == [32, 32, 64, 224]
    epochs = [PRESETS[name].reinforce.epochs for name in PAPER]
    assert epochs == [paper.SEARCH_EPOCHS] * 3 + [paper.SEARCH_EPOCHS_IMAGENET] == [500, 500, 500, 50]


@pytest.mark.parametrize("name", PRESETS)
def test_the_stages_of_every_preset_fit_together(name, tmp_path):
    """Each stage reads what an earlier one makes; every stage has its own place."""
    preset = PRESETS[name]
    assert preset.dataset in DATASETS and (sum(preset.images) > 0 or name == "folder")
    stages = list(Plan(Options(preset, tmp_path, Path("data"), seed=5)).stages())
    order = ["pretrain", "baseline", "profile", "oneshot", "search", "choose", "finetune"]
    if preset.resnet18 is None:
        order.remove("baseline")
    order += ["early-exit"] * bool(preset.early_exits) + ["evaluate", "report"]
    assert list(dict.fromkeys(stage.name for stage in stages)) == order
    assert set(preset.rivals) | set(preset.early_exits) <= set(preset.fine_tuned)
    made = [stage.makes for stage in stages[:-1]]
    assert len(set(made)) == len(made) and len({stage.label for stage in stages}) == len(stages)
    for stage in stages:
        before = made[: stages.index(stage)]
        files = ("meta_graph", "latency_table", "teacher", "controller")
        needed = [getattr(stage.options, name, None) for name in files]
        folders = {file.parent for file in before}
        assert all(file is None or file in before or file.parent in folders for file in needed)
        assert getattr(stage.options, "one_shot", None) in {None, *folders}
        assert getattr(stage.options, "network", None) in {None, "resnet18", "shufflenet_v2_x0_5", *folders}
        menu = getattr(getattr(stage.options, "agent", None), "menu", None)
        assert menu is None or menu.parent in folders
        assert getattr(stage.options, "seed", 5) in range(5, 5 + preset.seeds)
        assert getattr(stage.options, "data_dir", Path("data")) == Path("data")


def test_a_folder_of_ones_own_is_looked_at():
    """80 training images of ten classes: batches of 16, and as many epochs as there may be."""
    found = as_found(PRESETS["folder"], image_folder())
    assert (found.classes, found.images) == (10, (80, 40, 40))
    assert (found.pretrain.batch_size, found.pretrain.epochs) == (16, 60)
    assert found.mobilenet_v2.epochs == found.pretrain.epochs and found.reinforce.num_envs == 16
    assert as_found(PRESETS["embedded"], None) is PRESETS["embedded"]
    by_hand = replace(PRESETS["folder"], pretrain=replace(PRESETS["folder"].pretrain, epochs=7))
    kept = as_found(by_hand, image_folder())
    assert (kept.pretrain.epochs, kept.pretrain.batch_size, kept.mobilenet_v2.epochs) == (7, 16, 60)
    assert kept.regression.num_envs == kept.blockdrop.num_envs == 16, "whoever searches"


def test_on_a_laptop_all_networks_alone_are_trained_for_as_long():
    """16 epochs from scratch; what the searches found goes on from their weights."""
    laptop = PRESETS["laptop-cifar10"]
    assert laptop.mobilenet_v2.epochs == 16 and not laptop.finetune.from_scratch
    assert laptop.finetune.augmentation == laptop.mobilenet_v2.augmentation
    assert replace(laptop.mobilenet_v2, epochs=10, learning_rate=0.05) == laptop.pretrain
    assert laptop.resnet18.epochs == laptop.shufflenet_v2.epochs == laptop.mobilenet_v2.epochs
    space = parse_search_space(laptop.search_space)
    assert (space.stem_channels, space.stem_stride, space.resolution) == (16, 1, 32), "half of 32 channels"
    assert laptop.resnet18.stem_stride == laptop.shufflenet_v2.stem_stride == 1, "all see whole images"


def test_searches_are_compared_beside_what_was_trained_anew(tmp_path):
    """Trained on from a search's weights, a run stands for the search; from new ones, both are compared."""
    for name, run in (("reinforce", None), ("reinforce_finetuned_balanced", tmp_path / "reinforce")):
        for file in ("controller.safetensors", "meta_graph.safetensors"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file).touch()
        save_json(tmp_path / name / "config.json", {} if run is None else {"run": str(run)})
    for preset, names in (
        (PRESETS["embedded"], ["reinforce_finetuned_balanced"]),
        (PRESETS["paper-cifar10"], ["reinforce", "reinforce_finetuned_balanced"]),
    ):
        plan = Plan(Options(preset, tmp_path, Path("data")))
        (stage,) = (stage for stage in plan.stages() if stage.name == "evaluate")
        assert [path.name for path in stage.options.runs] == names


def test_further_seeds_go_to_other_places(tmp_path):
    """Searches, what is chosen and fine-tuned after them; the networks trained alone once."""
    preset = replace(PRESETS["embedded"], agents=("reinforce",), fine_tuned=("reinforce/balanced",), seeds=2)
    stages = list(Plan(Options(preset, tmp_path, Path("data"), seed=5)).stages())
    further = {stage.label: stage.options for stage in stages if "seed" in stage.label}
    assert list(further) == [
        "search reinforce_seed1",
        "choose reinforce_seed1",
        "finetune reinforce/balanced_seed1",
        "finetune fixed_alone_reinforce_balanced_seed1",
        "early-exit reinforce/balanced_seed1",
        "early-exit fixed_alone_reinforce_balanced_seed1",
    ]
    searched, chosen, tuned, alone, early, rival = further.values()
    assert early.run == rival.run == tuned.out and (early.network, rival.network) == (None, alone.out)
    assert searched.seed == tuned.seed == alone.seed == 6
    assert alone == replace(tuned, out=alone.out, one_shot=tmp_path / "one_shot")
    assert searched.meta_graph == tmp_path / "meta_graph" / "meta_graph.safetensors"
    assert searched.out == chosen.run == tuned.run == tmp_path / "reinforce_seed1"
    assert tuned.out == tmp_path / "reinforce_finetuned_balanced_seed1"


# --- every option of every preset --------------------------------------------------------------------

SECTIONS = {
    "pretrain": "pretrain meta_graph",
    "mobilenet_v2": "pretrain mobilenet_v2",
    "resnet18": "baseline resnet18",
    "shufflenet_v2": "baseline shufflenet_v2",
    "reinforce": "search reinforce",
    "regression": "search regression",
    "blockdrop": "search blockdrop",
    "convnet_aig": "search convnet-aig",
    "profile": "profile",
    "one_shot": "oneshot",
    "choose": "choose ",
    "finetune": "finetune ",
    "evaluate": "evaluate",
}
"""A preset's part, and how the labels of the stages begin that it belongs to."""
SET_BY_THE_EXPERIMENT = {
    "out", "run", "runs", "seed", "dataset", "data_dir", "threads", "search_space", "meta_graph",
    "latency_table", "prefer", "num_classes", "one_shot", "one_shot_masks",
}  # fmt: skip


def another(value: Any, hint: Any) -> Any:
    """A value of the same type that differs."""
    words = [
        choice for kind in (hint, *get_args(hint)) for choice in get_args(kind) if isinstance(choice, str)
    ]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.11  # a rate stays a rate
    if isinstance(value, tuple):
        return tuple(another(entry, None) for entry in value) or (0.25,)
    if isinstance(value, str):
        return next((word for word in words if word != value), value + "x")
    return Path("other") if value is None or isinstance(value, Path) else None


def changes(options: Any) -> Iterator[tuple[str, Any]]:
    """Every option of a stage, and the options with that one changed."""
    hints = get_type_hints(type(options))
    for entry in fields(options):
        value = getattr(options, entry.name)
        if entry.name == "name":
            continue
        if is_dataclass(value):
            yield from ((f"{entry.name}.{n}", replace(options, **{entry.name: c})) for n, c in changes(value))
        else:
            yield entry.name, replace(options, **{entry.name: another(value, hints[entry.name])})


def planned(preset: Any, out: Path) -> dict[str, Any]:
    return {stage.label: stage.options for stage in Plan(Options(preset, out, Path("data"))).stages()}


@pytest.mark.parametrize("name", PRESETS)
def test_every_option_changes_its_own_stage(name, tmp_path):
    """What nobody reads has no part in the preset, nor has what the experiment sets itself."""
    preset, tried = PRESETS[name], 0
    before = planned(preset, tmp_path)
    for part, label in SECTIONS.items():
        own = {stage for stage in before if stage.startswith(label)}
        for option, changed in changes(getattr(preset, part)) if getattr(preset, part) is not None else ():
            tried += 1
            assert option not in SET_BY_THE_EXPERIMENT, part
            after = planned(replace(preset, **{part: changed}), tmp_path)
            differ = {stage for stage in before if after[stage] != before[stage]}
            assert differ == own, f"{part}.{option}"
    assert tried > 80


@pytest.mark.parametrize("part", ["blockdrop", "regression", "convnet_aig"])
def test_options_of_an_agent_that_does_not_search_are_refused(part):
    with pytest.raises(ValueError, match=f"^{part}: options are given, but the agents are reinforce"):
        parse(["paper-cifar10", f"--{part.replace('_', '-')}.epochs", "3"])
    assert parse(["paper-cifar10", "--reinforce.epochs", "3"]).preset.reinforce.epochs == 3


def test_only_controllers_that_name_images_answer():
    """The paper's settings learn no names: found before the training, not after it."""
    with pytest.raises(ValueError, match="^early_exits: got 'reinforce/A', whose controller learns no names"):
        parse(["paper-cifar10", "--early-exits", "reinforce/A"])
    assert parse(["laptop-cifar10"]).preset.early_exits


CALLED = {"random_timesteps", "latencies", "target_rate"}
"""Options that have another name, or another unit, than the argument that they become."""


@pytest.mark.parametrize(
    ("options", "agent"),
    [
        (Reinforce, SelfCriticalReinforce),
        (Regression, RewardRegression),
        (BlockDropOptions, BlockDrop),
        (ConvNetAIGOptions, ConvNetAIG),
    ],
)
def test_the_command_has_the_defaults_of_the_class(options, agent):
    """What `instanas search` does without options is what the agent does without arguments."""
    parameters = inspect.signature(agent).parameters
    shared = [each for each in fields(options) if each.name in parameters and each.name not in CALLED]
    assert len(shared) >= 1 + (options is not ConvNetAIGOptions)
    assert {each.name: each.default for each in shared} == {
        each.name: parameters[each.name].default for each in shared
    }
