"""The whole experiment, end to end, on the tiny world; what a second call leaves alone; the dry run."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from agents.classifier import InstaNASClassifier
from agents.files import load_agent
from agents.static import StaticAgent
from instanas_env.data import Augmentation, load_images
from instanas_env.latency import LatencyTable
from instanas_env.storage import load_weights
from instanas_env.training.distributed import World
from scripts.comparison.fixed import load_frontier
from scripts.experiment.dry_run import told
from scripts.experiment.plan import STAGES, Options, Plan
from scripts.experiment.presets import PRESETS, Preset
from scripts.experiment.run import main, parse
from scripts.experiment.stage import Stage, run_together
from scripts.search_options import Numbers as Search
from scripts.search_options import Regression
from tests.tools.pipeline_fixtures import history, home, image_folder, read_strictly

# In two epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")


def tiny() -> Preset:
    """The embedded preset on a folder with 80 training images of its kind, in steps of 40 or 16."""
    preset = PRESETS["embedded"]
    training = replace(preset.pretrain, epochs=1, batch_size=40)
    return replace(
        preset,
        dataset="folder",
        images=(80, 40, 40),
        pretrain=training,
        mobilenet_v2=training,
        resnet18=replace(preset.resnet18, epochs=1, batch_size=40),
        shufflenet_v2=None,
        agents=("reinforce", "regression"),
        seeds=2,
        regression=replace(preset.regression, num_envs=16),
        reinforce=replace(preset.reinforce, num_envs=16),
        choose=replace(preset.choose, dials=4),
        finetune=replace(preset.finetune, batch_size=40),
        profile=replace(preset.profile, fitted=128, children=3, repetitions=2),
        one_shot=replace(preset.one_shot, masks=40, images=20, finalists=5),
        evaluate=replace(preset.evaluate, dial=(0.5,), control_masks=3, control_networks=2),
    )


def options(out: Path, **changes) -> Options:
    return Options(tiny(), out, image_folder(), **changes)


@functools.cache
def finished() -> Path:
    """The directory of an experiment that ran all its stages."""
    out = home() / "experiment"
    with (
        mock.patch("instanas_env.deploy.profiling.WITH_CONTROLLER", 2),  # each is a network to build
        mock.patch("instanas_env.deploy.timing.WARM_UP", 1),
        mock.patch("agents.evaluation.alone.OTHERS", 2),
    ):
        main(options(out))
    return out


def test_every_stage_leaves_its_files():
    files = {str(path.relative_to(finished())) for path in finished().rglob("*") if path.is_file()}
    assert {
        "meta_graph/meta_graph.safetensors",
        "mobilenet_v2/meta_graph.safetensors",
        "latency.json",
        "mobilenet_v2_x0.5/meta_graph.safetensors",
        "resnet18/network.safetensors",
        "regression/controller.safetensors",
        "regression_seed1/controller.safetensors",
        "reinforce/choices.json",
        "reinforce/choices/A/controller.safetensors",
        "regression/meta_graph.safetensors",
        "one_shot/one_shot.json",
        "reinforce_finetuned_balanced/controller.safetensors",
        "fixed_alone_reinforce_balanced/controller.safetensors",
        "regression_finetuned_seed1/controller.safetensors",
        "reinforce_finetuned_balanced_exit/controller.safetensors",
        "fixed_alone_reinforce_balanced_exit_seed1/controller.safetensors",
        "results.json",
        "images.safetensors",
        "report.html",
    } <= files


def test_what_one_stage_made_the_next_one_used():
    """Weights, table and pick, as the records of the runs have them."""
    out = finished()
    search = read_strictly(out / "regression" / "config.json")
    assert search["meta_graph"] == str(out / "meta_graph" / "meta_graph.safetensors")
    assert search["latency_table"] == str(out / "latency.json")
    reference = LatencyTable.load(out / "latency.json").reference("mobilenet_v2")
    assert search["agent"]["latencies"] == [0.4, 1.2], "in multiples of MobileNetV2's"
    for run in ("regression", "regression_finetuned"):
        explored = load_weights(out / run / "controller.safetensors")[1]["hyperparameters"]["latencies"]
        assert explored == pytest.approx([0.4 * reference, 1.2 * reference]), "fine-tuning keeps the dial's"
    tuned = read_strictly(out / "reinforce_finetuned_balanced" / "config.json")
    assert tuned["run"] == str(out / "reinforce") and tuned["prefer"] == "balanced"
    turning = read_strictly(out / "regression_finetuned_seed1" / "config.json")
    assert turning["run"] == str(out / "regression_seed1") and turning["prefer"] is None
    assert len(history(out / "regression")) == 2
    modules = load_weights(out / "mobilenet_v2" / "meta_graph.safetensors")[1]["search_space"]["modules"]
    assert modules == [2]


def test_the_comparison_and_the_page_show_the_searches():
    results = read_strictly(finished() / "results.json")
    seeds = {line["policy"]: line["seeds"] for line in results["policies"]}
    assert {"ResNet-18 x 0.125", "MobileNetV2 x 0.5"} <= seeds.keys()
    assert not {"reinforce", "regression, dial 0.5"} & seeds.keys(), (
        "what was trained further stands for them"
    )
    several = {
        "regression_finetuned, dial 0.5",
        "reinforce_finetuned_balanced",
        "fixed_alone_reinforce_balanced",
        "reinforce_finetuned_balanced_exit",
        "fixed_alone_reinforce_balanced_exit",
    }
    assert {policy for policy, count in seeds.items() if count == 2} == several
    both = [row["seed"] for row in results["rows"] if row["policy"] == "regression_finetuned, dial 0.5"]
    assert both == [0, 1]
    beside = {(pair["policy"], pair["over"]) for pair in results["gains"]}
    assert ("reinforce_finetuned_balanced", "fixed_alone_reinforce_balanced") in beside
    assert {over for _, over in beside} - several == {"MobileNetV2 x 1"}
    page = (finished() / "report.html").read_text()
    assert "images and 2 seeds" in page and "takes no longer and was trained in the same way" in page
    assert "reinforce_finetuned_balanced" in page and "Course of the search" in page


def test_the_rival_of_a_pick_is_the_best_fixed_mask_that_takes_no_longer():
    """Trained as the pick's meta-graph is, from the same weights, for as long."""
    out = finished()
    tuned, alone = (
        read_strictly(out / name / "config.json")
        for name in ("reinforce_finetuned_balanced", "fixed_alone_reinforce_balanced")
    )
    assert alone.pop("one_shot") == str(out / "one_shot") and tuned.pop("one_shot") is None
    for config in (alone, tuned):
        config.pop("sha256", None)  # of what the folder holds
    own, begun = alone.pop("files"), tuned.pop("files")
    assert own.keys() - begun.keys() == {"one_shot", "latency_table"}, "what chose its mask"
    assert {name: own[name] for name in begun} == begun
    assert alone == tuned
    rival = load_agent(out / "fixed_alone_reinforce_balanced" / "controller.safetensors")
    table = LatencyTable.load(out / "latency.json")
    points = read_strictly(out / "reinforce" / "choices.json")
    spent = points["points"][points["picks"][points["prefer"]["balanced"]]]["latency_ms"]
    frontier = load_frontier(
        out / "one_shot", table.space
    )  # each is more accurate, and slower, than the next
    (within,) = (table.lookup(frontier) <= spent + 1e-9).nonzero(as_tuple=True)
    assert isinstance(rival, StaticAgent) and torch.equal(rival.mask, frontier[within[0]])


def test_a_pick_is_deployed_with_the_meta_graph_of_its_search():
    test = load_images("folder", "test", image_folder())
    table = finished() / "latency.json"
    for prefer in ("accuracy", "balanced", "latency", "A"):
        classifier = InstaNASClassifier.load(finished() / "reinforce", test, table, prefer=prefer)
        assert classifier(test.images[0]).name in test.classes


def test_a_second_call_finds_nothing_to_do(capsys):
    """But for the report, which is always drawn anew."""
    out = finished()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    before |= {out / name: (out / name).stat().st_mtime_ns for name in ("latency.json", "results.json")}
    main(options(out, stages=STAGES[:-1]))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert capsys.readouterr().out.count(": finished before") == 25


def test_a_finished_stage_with_other_options_is_refused():
    changed = replace(tiny(), profile=replace(tiny().profile, repetitions=21))
    with pytest.raises(ValueError, match="^out: profile has finished with other repetitions;"):
        main(Options(changed, finished(), image_folder(), stages=("profile",)))


def test_a_stage_that_was_stopped_is_called_again(tmp_path):
    """Without a note it has not finished, whatever files there are."""
    calls = []
    file = tmp_path / "made"
    stage = Stage(
        "choose",
        "choose a/b",
        lambda given: (calls.append(given), file.touch()),
        Options(tiny(), tmp_path),
        file,
    )
    file.touch()
    stage.run(tmp_path / "stages")
    stage.run(tmp_path / "stages")
    assert len(calls) == 1
    assert [path.name for path in (tmp_path / "stages").iterdir()] == ["choose_a_b.json"]
    file.unlink()
    stage.run(tmp_path / "stages")
    assert len(calls) == 2


def test_stages_at_a_time_end_as_one_after_the_other(tmp_path, capsys):
    """What they print is in their logs; the weights are those of the unbroken experiment to the bit."""
    one_width = replace(tiny(), widths=())
    main(Options(one_width, tmp_path, image_folder(), workers=2, stages=("pretrain",)))
    shown = capsys.readouterr().out
    for name in ("meta_graph", "mobilenet_v2"):
        (own, _), (expected, _) = (
            load_weights(out / name / "meta_graph.safetensors") for out in (tmp_path, finished())
        )
        assert own.keys() == expected.keys()
        assert all(torch.equal(own[key], expected[key]) for key in own)
        log = tmp_path / "stages" / f"pretrain_{name}.log"
        assert "epoch 1/1" in log.read_text()
        assert f"pretrain {name}: see {log}" in shown
    with pytest.raises(ValueError, match="^workers: got 0; at least 1 will do"):
        main(options(tmp_path, workers=0))


def test_stages_that_one_process_must_run_alone_are_refused_under_torchrun(tmp_path):
    two = World(0, 2)
    with pytest.raises(
        ValueError, match="^stages: got search, evaluate; under torchrun pretrain, baseline, sea"
    ):
        main(options(tmp_path, stages=("search", "evaluate")), two)
    with pytest.raises(ValueError, match="^workers: got 2; under torchrun 1 will do"):
        main(options(tmp_path, stages=("search",), workers=2), two)


def test_a_stage_that_fails_lets_the_others_end(tmp_path, capfd):
    """The first searches for a meta-graph that nobody made."""
    asked = replace(
        tiny(), agents=("blockdrop", "reinforce"), fine_tuned=(), rivals=(), early_exits=(), seeds=1
    )
    blockdrop, reinforce = next(
        group
        for group in Plan(Options(asked, tmp_path, image_folder())).groups()
        if group and group[0].name == "search"
    )
    there = replace(
        reinforce,
        options=replace(reinforce.options, meta_graph=None, latency_table=None, epochs=1),
    )
    with pytest.raises(
        ValueError, match="^workers: search blockdrop ended with 2; what has finished is kept"
    ):
        run_together([blockdrop, there], tmp_path / "stages", workers=2)
    told = capfd.readouterr().err
    assert told.startswith("search blockdrop: ") and "meta_graph.safetensors: no such file" in told
    assert (tmp_path / "reinforce" / "meta_graph.safetensors").exists()
    assert (tmp_path / "stages" / "search_reinforce.json").exists()
    assert not (tmp_path / "stages" / "search_blockdrop.json").exists()


@dataclass(frozen=True)
class Asked:
    """Options of a stage."""

    out: Path
    table: Path
    menu: int = 3


def test_a_finished_stage_is_known_wherever_its_folder_lies(tmp_path):
    """What it read there is told from the folder on; a free option makes it anew, another is refused."""
    made = []

    def stage(folder: Path, **changes) -> Stage:
        def work(asked: Asked) -> None:
            made.append(asked.menu)
            asked.out.mkdir(exist_ok=True)

        asked = replace(Asked(folder / "one_shot", folder / "latency.json"), **changes)
        return Stage("oneshot", "oneshot", work, asked, folder / "one_shot", free=("menu",))

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    stage(first).run(first / "stages")
    shutil.move(first, second)
    stage(second).run(second / "stages")
    assert made == [3]
    with pytest.raises(
        ValueError, match="^out: oneshot has finished with other table; choose another folder"
    ):
        stage(second, table=tmp_path / "latency.json", menu=4).run(second / "stages")
    for _ in range(2):
        stage(second, menu=4).run(second / "stages")
    assert made == [3, 4]
    (one_shot,) = (each for each in Plan(options(tmp_path)).stages() if each.name == "oneshot")
    assert one_shot.free == ("menu",)


@pytest.mark.parametrize("option", ["finetune.prefer", "pretrain.out", "reinforce.meta-graph", "choose.run"])
def test_an_option_that_the_experiment_sets_is_refused_by_hand(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(["embedded", f"--{option}", "A"])
    assert f"--{option}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fine_tuned": ("blockdrop",)}, "fine_tuned: got 'blockdrop', but the agents are reinforce, regr"),
        ({"fine_tuned": ("reinforce/acuracy",)}, "fine_tuned: got 'reinforce/acuracy'; a pick will do: "),
        ({"fine_tuned": ("regression",)}, "rivals: got 'reinforce/balanced'; those that are fine-tuned will"),
        ({"early_exits": ("reinforce/A",)}, "early_exits: got 'reinforce/A'; those that are fine-tuned will"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_at_once(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        main(Options(replace(tiny(), **changes), tmp_path / "out", image_folder()))
    assert not (tmp_path / "out").exists()


def test_further_networks_are_compared_besides_the_run_s_own(tmp_path):
    more = replace(tiny(), evaluate=replace(tiny().evaluate, alone=(Path("half"),)))
    (stage,) = (s for s in Plan(Options(more, tmp_path)).stages() if s.name == "evaluate")
    own = ("mobilenet_v2", "mobilenet_v2_x0.5", "resnet18")
    assert stage.options.alone == (*(tmp_path / name for name in own), Path("half"))


def test_a_pick_that_the_search_did_not_give_is_left_out(tmp_path, capsys):
    (tmp_path / "reinforce").mkdir()
    (tmp_path / "reinforce" / "choices.json").write_text(
        '{"picks": {"A": 0, "B": 1}, "prefer": {"latency": "B"}}'
    )
    asked = replace(tiny(), fine_tuned=("reinforce/C", "reinforce/B"), rivals=(), early_exits=(), seeds=1)
    labels = [stage.label for stage in Plan(Options(asked, tmp_path)).stages() if stage.name == "finetune"]
    assert labels == ["finetune reinforce/B"]
    assert "finetune reinforce/C: left out, the search gave A, B, latency only" in capsys.readouterr().out


def test_a_preset_and_single_numbers_from_the_command_line():
    words = (
        "laptop-cifar10 --data-dir d --pretrain.epochs 7 --agents reinforce --stages search choose --seed 3"
    )
    parsed = parse(words.split())
    laptop = PRESETS["laptop-cifar10"]
    assert parsed.preset == replace(
        laptop, pretrain=replace(laptop.pretrain, epochs=7), agents=("reinforce",)
    )
    assert parsed.out == Path("runs/laptop-cifar10") and parsed.data_dir == Path("d")
    assert parsed.stages == ("search", "choose") and parsed.seed == 3 and not parsed.dry_run


def test_a_dry_run_prints_sizes_and_stages_and_writes_nothing(tmp_path, capsys):
    """MobileNetV2 of "lite" has 159,386 parameters; two epochs of ceil(80 / 16) = 5 steps in each search."""
    main(options(tmp_path / "out", dry_run=True))
    shown = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert "159,386" in shown and "80 training, 40 validation and 40 test images" in shown
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    steps = {line[0]: line[1] for line in lines if len(line) == 3 and line[0][:1].islower()}
    del steps["meta-graph, all modules"], steps["controller"]
    assert steps == {
        "pretrain meta_graph": "2",
        "pretrain mobilenet_v2": "2",
        "pretrain mobilenet_v2_x0.5": "2",
        "baseline resnet18": "2",
        "profile": "",
        "oneshot": "",
        "search reinforce": "10",
        "search reinforce_seed1": "10",
        "search regression": "10",
        "search regression_seed1": "10",
        "choose reinforce": "",
        "choose reinforce_seed1": "",
        "choose regression": "",
        "choose regression_seed1": "",
        "finetune reinforce/balanced": "2",
        "finetune fixed_alone_reinforce_balanced": "2",
        "finetune reinforce/balanced_seed1": "2",
        "finetune fixed_alone_reinforce_balanced_seed1": "2",
        "finetune regression": "2",
        "finetune regression_seed1": "2",
        "early-exit reinforce/balanced": "",
        "early-exit fixed_alone_reinforce_balanced": "",
        "early-exit reinforce/balanced_seed1": "",
        "early-exit fixed_alone_reinforce_balanced_seed1": "",
        "evaluate": "",
        "report": "",
    }


def test_a_dry_run_tells_what_is_not_the_command_s_default():
    """Of an agent, too; and an augmentation beside that of the command, which is not the class's default."""
    own = Search(
        Regression(passes=3, menu=Path("menu.json")), epochs=2, augmentation=Augmentation(cutout=0.0)
    )
    assert told(own) == "passes 3, epochs 2, crop_padding 0.125" and told(Search()) == ""


def test_the_comparison_is_of_the_run_s_own_networks():
    """No row of the package's; the MobileNetV2 that this run trained has the latency of this run's table."""
    rows = {row["policy"]: row for row in read_strictly(finished() / "results.json")["rows"]}
    assert not any("shipped" in row["group"] for row in rows.values())
    reference = LatencyTable.load(finished() / "latency.json").reference("mobilenet_v2")
    assert rows["MobileNetV2 x 1"]["test"]["latency_ms"] == pytest.approx(reference)
