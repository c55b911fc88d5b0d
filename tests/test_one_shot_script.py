"""scripts.oneshot: the frontier is of all validation images, and a killed run resumes to the same one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.storage import load_checkpoint, save_checkpoint, save_json
from instanas_env.training.epoch import predict_classes
from instanas_env.wrappers.menu import load_menu
from scripts.comparison.compare import compare
from scripts.comparison.fixed import load_frontier
from scripts.evaluate import Options as Evaluate
from scripts.oneshot import Options, main
from tests.tools.pipeline_fixtures import home, image_folder, kill_after_first_checkpoint, read_strictly


def options(out: Path, **changes) -> Options:
    """Two paths and 16 masks in three chunks and 8 mutations in another, on 20 images; then twelve or a few
    more, in two chunks, on all 40.
    """
    few = {"masks": 16, "mutations": 8, "images": 20, "finalists": 12, "chunk": 8, "menu": 4}
    return Options(out, dataset="folder", data_dir=image_folder(), **{**few, **changes})


@pytest.fixture(scope="module")
def unbroken() -> Options:
    chosen = options(home() / "one_shot")
    main(chosen)
    return chosen


def test_accuracies_of_the_frontier_are_of_all_validation_images(unbroken):
    """Each slower one is more accurate."""
    content = read_strictly(unbroken.out / "one_shot.json")
    graph, val = (
        MetaGraph.load(shipped("meta_graph.safetensors")),
        load_images("folder", "val", image_folder()),
    )
    masks = load_frontier(unbroken.out, graph.space)
    latencies = LatencyTable.load(shipped("latency/lite.json")).lookup(masks).tolist()
    assert len(masks) == len(content["frontier"]) > 0
    assert torch.equal(masks[-1], LatencyTable.load(shipped("latency/lite.json")).cheapest_mask())
    for row, mask, latency_ms in zip(content["frontier"], masks, latencies, strict=True):
        right = (predict_classes(graph, val, mask) == val.labels).float().mean().item()
        assert row["accuracy"] == pytest.approx(right) and row["latency_ms"] == pytest.approx(latency_ms)
    accuracy = [row["accuracy"] for row in content["frontier"]]
    assert latencies == sorted(latencies, reverse=True) and accuracy == sorted(accuracy, reverse=True)


def test_killed_and_resumed_equals_unbroken(unbroken, tmp_path):
    killed = options(tmp_path / "killed")
    kill_after_first_checkpoint("oneshot", killed)
    main(killed)
    for name in ("history.jsonl", "one_shot.json", "menu.json"):
        assert (killed.out / name).read_bytes() == (unbroken.out / name).read_bytes(), name


def test_called_again_it_ranks_nothing(unbroken):
    before = (unbroken.out / "history.jsonl").read_bytes()
    main(unbroken)
    assert (unbroken.out / "history.jsonl").read_bytes() == before


def test_samples_then_mutations_and_what_is_slow_is_passed_over(tmp_path):
    """Two paths and 8 samples in a chunk, 8 mutations in another; all finalists, each once, are the menu."""
    chosen = options(tmp_path / "run", masks=8, mutations=8, chunk=12, slowest=1.0, finalists=100, menu=100)
    main(chosen)
    history = map(json.loads, (chosen.out / "history.jsonl").read_text().splitlines())
    rounds = [(row["round"], len(row["accuracy"])) for row in history]
    assert rounds[:2] == [("sampled", 10), ("mutations from 0", 8)]
    space = MetaGraph.load(shipped("meta_graph.safetensors")).space
    table = LatencyTable.load(shipped("latency/lite.json"))
    menu = load_menu(chosen.out / "menu.json", space)
    assert table.lookup(menu).max() <= table.reference("mobilenet_v2") + 1e-9
    frontier = load_frontier(chosen.out, space)
    assert all((menu == mask).all((1, 2)).any() for mask in frontier)
    assert len(menu) == len(menu.flatten(1).unique(dim=0)) == sum(n for name, n in rounds[2:]) <= 18

    with pytest.raises(ValueError, match="^slowest: got 0.1; more than 0.282 will do"):
        main(options(tmp_path / "none", slowest=0.1))


@pytest.mark.parametrize("kept", [3, 4, 5])
def test_a_call_goes_on_after_any_chunk(unbroken, tmp_path, kept):
    """Stopped before the mutations, after them, or among the finalists: the same files in the end."""
    stopped = options(shutil.copytree(unbroken.out, tmp_path / "stopped"))
    for name in ("one_shot.json", "menu.json"):
        (stopped.out / name).unlink()
    state = load_checkpoint(stopped.out / "checkpoint.pt")
    assert len(state["history"]) > kept
    save_checkpoint(stopped.out / "checkpoint.pt", {**state, "history": state["history"][:kept]})
    main(stopped)
    for name in ("history.jsonl", "one_shot.json", "menu.json"):
        assert (stopped.out / name).read_bytes() == (unbroken.out / name).read_bytes(), name


def test_evaluate_takes_its_masks(unbroken, tmp_path):
    """The best static mask within MobileNetV2's latency is one of the frontier."""
    folder = {"dataset": "folder", "data_dir": image_folder()}
    few = {"one_shot_limits": (1.0,), "control_masks": 1, "control_networks": 2, "dial": (0.5,)}
    rows = compare(Evaluate(tmp_path, one_shot=unbroken.out, time_real=False, **few, **folder)).rows
    known = [row["latency_ms"] for row in read_strictly(unbroken.out / "one_shot.json")["frontier"]]
    static = [row["test"]["latency_ms"] for row in rows if row["group"] == "static"]
    assert all(any(abs(ms - other) < 1e-6 for other in known) for ms in static)


def test_a_refused_call_leaves_no_folder(tmp_path):
    options = Options(out=tmp_path / "run", dataset="folder", data_dir=image_folder(), images=0)
    with pytest.raises(ValueError, match="^images: got 0"):
        main(options)
    assert not options.out.exists()


def test_files_of_other_spaces_and_kinds_are_refused(unbroken, tmp_path, tiny_space):
    with pytest.raises(ValueError, match="^one_shot: .* is of the search space"):
        load_frontier(unbroken.out, tiny_space)
    with pytest.raises(FileNotFoundError, match="^one_shot: no such file: .*`instanas oneshot` makes it"):
        load_frontier(tmp_path, tiny_space)
    save_json(tmp_path / "one_shot.json", {"frontier": []})
    with pytest.raises(ValueError, match="^one_shot: .* is not of `instanas oneshot`"):
        load_frontier(tmp_path, tiny_space)
    assert (
        load_frontier(
            unbroken.out / "one_shot.json", MetaGraph.load(shipped("meta_graph.safetensors")).space
        ).dtype
        == torch.bool
    )
