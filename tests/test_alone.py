"""Networks trained alone: what a file holds, what it is called, and where its latency comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agents.evaluation.alone import is_of, latencies, load_all, load_lone
from instanas_env.bandit import InstanceBandit
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.training.epoch import predict_classes


def saved(folder: Path, space: SearchSpace, seed: int = 0) -> Path:
    """Untrained weights as a run of `instanas pretrain` leaves them; gives the run."""
    MetaGraph(space, 10, generator_for(seed)).save(folder / "meta_graph.safetensors")
    return folder


def counting_table(space: SearchSpace) -> LatencyTable:
    """Each module takes 1 ms and what all networks have 2: MobileNetV2 takes 19."""
    return LatencyTable(space, torch.ones(space.num_cells, space.num_modules), fixed=2.0)


def test_a_run_and_its_weights_are_the_same_network(tmp_path, tiny_space):
    run = saved(tmp_path / "run", tiny_space.only(2))
    lone, same = load_lone(run), load_lone(run / "meta_graph.safetensors")
    assert (lone.name, lone.family) == ("MobileNetV2 x 0.5", "MobileNetV2 alone") == (same.name, same.family)
    images = load_images("embedded", "val").take(torch.arange(30))
    graph = MetaGraph.load(run / "meta_graph.safetensors")
    expected = predict_classes(graph, images, graph.space.full_mask()) == images.labels
    assert torch.equal(lone.correct(images), expected)
    assert torch.equal(same.correct(images), expected)


def test_the_mobilenet_v2_of_the_space_comes_first_and_equal_names_get_their_folders(tmp_path, tiny_space):
    spaces = {"a": SearchSpace.preset("lite", 0.25), "b": tiny_space, "c": SearchSpace.preset("lite", 0.25)}
    paths = [saved(tmp_path / name, space.only(2)) for name, space in spaces.items()]
    networks = load_all(paths, tiny_space, 10)
    assert [network.name for network in networks] == [
        "MobileNetV2 x 0.5",
        "MobileNetV2 x 0.25 (a)",
        "MobileNetV2 x 0.25 (c)",
    ]
    assert [is_of(network, tiny_space) for network in networks] == [True, False, False]


def test_its_latency_is_the_tables_or_scaled_by_the_clock(tmp_path, tiny_space, monkeypatch):
    """19 ms from the table; another width takes 19 times the ratio of what was measured."""
    paths = [saved(tmp_path / str(w), SearchSpace.preset("lite", w).only(2)) for w in (0.5, 2.0)]
    networks = load_all(paths, tiny_space, 10)
    images = load_images("embedded", "val").take(torch.arange(2))
    bandit = InstanceBandit(MetaGraph(tiny_space, 10), images, counting_table(tiny_space))
    monkeypatch.setattr("agents.evaluation.alone.OTHERS", 2)
    own, other = latencies(networks, bandit, generator_for(0), repetitions=3)
    assert own == (19.0, {"latency_from": "table"})
    latency_ms, source = other
    assert source["latency_from"] == "clock"
    assert latency_ms == pytest.approx(19 * source["measured_ms"] / source["measured_mobilenet_v2_ms"])


def test_what_is_no_lone_network_is_refused(tmp_path, tiny_space):
    with pytest.raises(ValueError, match=r"^alone: .*holds .*; one of `instanas pretrain --modules 2, or of"):
        load_lone(saved(tmp_path / "all", tiny_space))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_lone(tmp_path / "nowhere")
    large = saved(tmp_path / "large", SearchSpace.preset("tiny_imagenet", 0.1).only(2))
    with pytest.raises(ValueError, match="^alone: .*large is for 64 px; the search space has 32 px"):
        load_all([large], tiny_space, 10)
    with pytest.raises(ValueError, match="^alone: .*has 10 classes; the data set has 100"):
        load_all([saved(tmp_path / "ten", tiny_space.only(2))], tiny_space, 100)
