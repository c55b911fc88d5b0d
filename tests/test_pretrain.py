"""Pre-training end to end: a run that is killed and resumed ends with the weights of one that was not."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from instanas_env.data import load_images
from instanas_env.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_weights
from scripts.pretrain import Options, evaluate_densities, main
from scripts.run_directory import RunDirectory

EPOCHS = 3


def options(out: Path, data_dir: Path) -> Options:
    """The smallest run that still drops paths: three modules, 80 images a split."""
    return Options(
        out=out,
        dataset="folder",
        data_dir=data_dir,
        width=0.25,
        modules=(0, 2, 3),
        epochs=EPOCHS,
        batch_size=20,
        learning_rate=0.05,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight embedded images of every class, for training and for validation, as an image folder."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        full = load_images("embedded", split)
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
            for i in (full.labels == label).nonzero().flatten()[:8].tolist():
                image = Image.fromarray(full.images[i].permute(1, 2, 0).numpy())
                image.save(root / split / str(label) / f"{i:04}.png")
    return root


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, folder) -> Path:
    """The directory of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    main(options(out, folder))
    return out


def history(out: Path) -> list[dict]:
    """The rows of a run's history but for the time they took."""
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_weights(out / "meta_graph.safetensors")[0] for out in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_leaves_a_meta_graph_and_its_history(unbroken):
    meta_graph = MetaGraph.load(unbroken / "meta_graph.safetensors")
    assert meta_graph.space == SearchSpace.preset("lite", 0.25).only(0, 2, 3)
    rows = history(unbroken)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["val"].keys() == {"all", "half", "fifth", "mobilenet_v2_path"}
    untrained = MetaGraph(meta_graph.space, 10, generator_for(0)).state_dict()
    assert not torch.equal(meta_graph.stem.conv.weight, untrained["stem.conv.weight"])
    record = load_weights(unbroken / "meta_graph.safetensors")[1]["record"]
    assert record["options"]["modules"] == [0, 2, 3] and record["history"][0]["epoch"] == EPOCHS


def test_killed_and_resumed_equals_unbroken(unbroken, folder, tmp_path):
    """SIGKILL at an arbitrary moment after the first checkpoint, then the same call again."""
    out, root = tmp_path / "killed", Path(__file__).parent.parent
    chosen = options(out, folder)
    command = [sys.executable, "-m", "scripts.pretrain", "--modules", *map(str, chosen.modules)]
    for name in ("out", "dataset", "data_dir", "width", "epochs", "batch_size", "learning_rate"):
        command += ["--" + name.replace("_", "-"), str(getattr(chosen, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)
    try:
        while not (out / "checkpoint.pt").exists():
            assert process.poll() is None, f"ended with {process.returncode} before its first checkpoint"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "meta_graph.safetensors").exists(), "killed in the middle"
    main(chosen)
    assert_same_weights(out, unbroken)
    assert history(out) == history(unbroken)


def test_a_finished_run_is_not_trained_again(unbroken, folder):
    weights, rows = (unbroken / "meta_graph.safetensors").read_bytes(), history(unbroken)
    main(options(unbroken, folder))
    assert (unbroken / "meta_graph.safetensors").read_bytes() == weights
    assert history(unbroken) == rows


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(unbroken, folder, tmp_path):
    main(options(tmp_path / "again", folder))
    assert_same_weights(tmp_path / "again", unbroken)
    main(dataclasses.replace(options(tmp_path / "other", folder), seed=1, epochs=1))
    other = MetaGraph.load(tmp_path / "other" / "meta_graph.safetensors")
    first = MetaGraph.load(unbroken / "meta_graph.safetensors")
    assert not torch.equal(other.stem.conv.weight, first.stem.conv.weight)


def test_pretraining_on_the_embedded_images(tmp_path):
    """One module: nothing to drop, hence one number of validation accuracy; 4,000 images in seconds."""
    main(Options(tmp_path, "embedded", width=0.25, modules=(2,), epochs=1, batch_size=1000))
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


def test_a_directory_refuses_other_options(tmp_path, folder):
    """Resuming under other options would mix two runs; where the data lie does not matter."""
    chosen = options(tmp_path, folder)
    RunDirectory(tmp_path, chosen, free=("out", "data_dir"))
    RunDirectory(tmp_path, dataclasses.replace(chosen, data_dir=Path("elsewhere")), free=("out", "data_dir"))
    with pytest.raises(ValueError, match=r"^out: .* holds a run with other seed, width; choose another"):
        RunDirectory(tmp_path, dataclasses.replace(chosen, width=0.5, seed=9), free=("out", "data_dir"))
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0, "the record stays"


def test_restoring_brings_the_history_back_to_the_checkpoint(tmp_path, folder):
    """A kill between the two files must leave no epoch in the history that the weights have not seen."""
    run = RunDirectory(tmp_path, options(tmp_path, folder))
    assert run.restore() is None
    weights = torch.ones(2)
    run.checkpoint({"epoch": 1}, {"model": weights})
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2}\n')
    again = RunDirectory(tmp_path, options(tmp_path, folder))
    state = again.restore()
    assert state is not None and state.keys() == {"model"} and torch.equal(state["model"], weights)
    assert again.history == [{"epoch": 1}]
    assert (tmp_path / "history.jsonl").read_text() == '{"epoch": 1}\n'
