"""Every stage of the paper's experiment, one short epoch at 32, 64 and 224 px, on files as published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from scripts.experiment.plan import Options
from scripts.experiment.presets import PRESETS, Preset
from scripts.experiment.run import main
from tests.tools.data_sets import cifar100, imagenet, tiny_imagenet
from tests.tools.pipeline_fixtures import history, read_strictly

# In one epoch the window does not fall at all; 27 images say nothing of a policy either.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")


def short(preset: Preset, search_space: str, classes: int) -> Preset:
    """One epoch of two or three steps in every stage, the table of two rounds of as few children as do."""
    training = replace(preset.pretrain, epochs=1, batch_size=14)
    return replace(
        preset,
        search_space=search_space,
        classes=classes,
        fine_tuned=("reinforce/latency",),
        pretrain=training,
        mobilenet_v2=training,
        profile=replace(preset.profile, fitted=128, children=0, repetitions=2),
        reinforce=replace(preset.reinforce, epochs=1, num_envs=9),
        finetune=replace(preset.finetune, epochs=1, batch_size=14),
        one_shot=replace(preset.one_shot, masks=20),
        rivals=("reinforce/latency",),
        evaluate=replace(preset.evaluate, control_masks=2, time_real=False),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "search_space", "classes"),
    [
        ("paper-cifar100", "cifar@0.125", 100),
        ("paper-tiny-imagenet", "tiny_imagenet@0.125", 3),
        ("paper-imagenet", "imagenet@0.125", 3),
    ],
)
def test_every_stage_runs_at_every_resolution(tmp_path: Path, monkeypatch, name, search_space, classes):
    preset, out = PRESETS[name], tmp_path / "run"
    monkeypatch.setattr("instanas_env.deploy.profiling.WITH_CONTROLLER", 2)
    make = {
        "cifar100": lambda root: cifar100(root, monkeypatch),
        "tiny_imagenet": tiny_imagenet,
        "imagenet": imagenet,
    }
    main(Options(short(preset, search_space, classes), out, make[preset.dataset](tmp_path / "data")))

    tuned = out / "reinforce_finetuned_latency"
    for run in ("meta_graph", "mobilenet_v2", "reinforce"):
        assert len(history(out / run)) == 1, run
    graph = MetaGraph.load(tuned / "meta_graph.safetensors")
    side = {"cifar100": 32, "tiny_imagenet": 64, "imagenet": 224}[preset.dataset]
    assert (graph.space.resolution, graph.num_classes) == (side, classes)
    assert LatencyTable.load(out / "latency.json").space == graph.space
    assert all(torch.isfinite(tensor).all() for tensor in graph.state_dict().values())
    rows = read_strictly(out / "results.json")["rows"]
    assert {row["test"]["images"] for row in rows} == {6}, "the public val, or CIFAR's test images"
    assert any(row["policy"].startswith("reinforce_finetuned") for row in rows)
    assert (out / "report.html").stat().st_size > 10_000
