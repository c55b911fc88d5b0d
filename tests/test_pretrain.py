"""Pre-training end to end: a run that is killed and resumed ends with the weights of one that was not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from instanas_env.data import load_images
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_weights
from instanas_env.training.run_directory import RunDirectory
from scripts.pretrain import Options, evaluate_densities, main
from tests.tools.pipeline_fixtures import history, image_folder, kill_after_first_checkpoint

EPOCHS = 3


def options(out: Path) -> Options:
    """The smallest run that still drops paths: three modules, 80 images."""
    return Options(
        out=out,
        dataset="folder",
        data_dir=image_folder(),
        search_space="lite@0.25",
        modules=(0, 2, 3),
        epochs=EPOCHS,
        batch_size=20,
        learning_rate=0.05,
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """The directory of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    main(options(out))
    return out


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_weights(out / "meta_graph.safetensors")[0] for out in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_leaves_a_meta_graph_and_its_history(unbroken):
    meta_graph = MetaGraph.load(unbroken / "meta_graph.safetensors")
    assert meta_graph.space == SearchSpace.preset("lite", 0.25).only(0, 2, 3)
    rows = history(unbroken)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["val"].keys() == {"all", "half", "fifth", "mobilenet_v2_path", "smallest"}
    untrained = MetaGraph(meta_graph.space, 10, generator_for(0)).state_dict()
    assert not torch.equal(meta_graph.stem.conv.weight, untrained["stem.conv.weight"])
    record = load_weights(unbroken / "meta_graph.safetensors")[1]["record"]
    assert record["options"]["modules"] == [0, 2, 3] and record["history"][0]["epoch"] == EPOCHS


def test_killed_and_resumed_equals_unbroken(unbroken, tmp_path):
    """SIGKILL at an arbitrary moment after the first checkpoint, then the same call again."""
    out = tmp_path / "killed"
    chosen = options(out)
    kill_after_first_checkpoint("pretrain", chosen)
    assert not (out / "meta_graph.safetensors").exists(), "killed in the middle"
    main(chosen)
    assert_same_weights(out, unbroken)
    assert history(out) == history(unbroken)


def test_a_finished_run_is_not_trained_again(unbroken):
    weights, rows = (unbroken / "meta_graph.safetensors").read_bytes(), history(unbroken)
    main(options(unbroken))
    assert (unbroken / "meta_graph.safetensors").read_bytes() == weights
    assert history(unbroken) == rows


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(unbroken, tmp_path):
    main(options(tmp_path / "again"))
    assert_same_weights(tmp_path / "again", unbroken)
    main(dataclasses.replace(options(tmp_path / "other"), seed=1, epochs=1))
    other = MetaGraph.load(tmp_path / "other" / "meta_graph.safetensors")
    first = MetaGraph.load(unbroken / "meta_graph.safetensors")
    assert not torch.equal(other.stem.conv.weight, first.stem.conv.weight)


def test_pretraining_on_the_embedded_images(tmp_path):
    """One module: nothing to drop, hence one number of validation accuracy; 4,000 images in seconds."""
    main(Options(tmp_path, search_space="lite@0.25", modules=(2,), epochs=1, batch_size=1000))
    (row,) = history(tmp_path)
    assert row["val"].keys() == {"all"}
    assert 0 < row["loss"] < 3, "log 10 = 2.3 is chance"


@pytest.mark.parametrize("modules", [(0, 1), (4,)])
def test_sub_networks_are_judged_in_spaces_without_mobilenet_v2(modules):
    """``--modules 0 1`` must not fail at the end of its first epoch."""
    space = SearchSpace.preset("lite", 0.25).only(*modules)
    val = load_images("embedded", "val").take(torch.arange(8))
    scores = evaluate_densities(MetaGraph(space, 10), val, seed=0)
    assert "all" in scores and all(0 <= score <= 1 for score in scores.values())


def test_a_finished_call_leaves_its_weights_as_they_are(tmp_path):
    """Later runs are tied to the bytes, in which the machine stands too."""
    given = dataclasses.replace(options(tmp_path), epochs=1)
    main(given)
    weights = tmp_path / "meta_graph.safetensors"
    before, written = weights.read_bytes(), weights.stat().st_mtime_ns
    main(given)
    assert weights.stat().st_mtime_ns == written
    weights.unlink()
    main(given)
    assert weights.read_bytes() == before, "what is gone is written again"


def test_a_directory_refuses_other_options(tmp_path):
    """Resuming under other options would mix two runs; where the data lie does not matter."""
    chosen = options(tmp_path)
    RunDirectory(tmp_path, chosen, free=("out", "data_dir")).claim()
    RunDirectory(tmp_path, dataclasses.replace(chosen, data_dir=Path("elsewhere")), free=("out", "data_dir"))
    with pytest.raises(
        ValueError, match=r"^out: .* holds a run with other search_space, seed; choose another"
    ):
        RunDirectory(
            tmp_path, dataclasses.replace(chosen, search_space="lite@0.5", seed=9), free=("out", "data_dir")
        )
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0, "the record stays"


def test_restoring_brings_the_history_back_to_the_checkpoint(tmp_path):
    """A kill between the two files must leave no epoch in the history that the weights have not seen."""
    run = RunDirectory(tmp_path, options(tmp_path))
    assert run.restore() is None
    weights = torch.ones(2)
    run.checkpoint({"epoch": 1}, {"model": weights})
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2}\n')
    again = RunDirectory(tmp_path, options(tmp_path))
    state = again.restore()
    assert state is not None and state.keys() == {"model"} and torch.equal(state["model"], weights)
    assert again.history == [{"epoch": 1}]
    again.claim()
    assert (tmp_path / "history.jsonl").read_text() == '{"epoch": 1}\n'
