"""ShuffleNetV2 and ResNet of torchvision for small images: sizes, files, training and their rows."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from torchvision.models import ResNet, ShuffleNetV2

from agents.evaluation.alone import LoneNetwork, load_all, load_lone
from instanas_env.data import load_images
from instanas_env.networks.counting import count_macs, count_parameters
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.networks.torchvision_networks import NETWORK, Architecture, Network, TorchvisionNetwork
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_weights, save_weights
from instanas_env.training.distributed import World
from scripts import evaluate
from scripts.baseline import Options, main
from scripts.comparison.compare import compare
from tests.tools.pipeline_fixtures import history, image_folder, kill_after_first_checkpoint

SMALL = {"shufflenet_v2_x0_5": 0.5, "resnet18": 0.125}


def lone(architecture: Architecture) -> LoneNetwork:
    """Untrained, as deployed."""
    network = TorchvisionNetwork(architecture, 10).folded()
    return LoneNetwork("", "", network, architecture.resolution, 10)


def options(out: Path, network: Network, **changes) -> Options:
    """Twelve epochs of four steps: in three, whether anything is learnt is left to chance."""
    chosen = {"width": SMALL[network], "epochs": 12, "batch_size": 20, "learning_rate": 0.05, **changes}
    return Options(out, dataset="folder", data_dir=image_folder(), network=network, **chosen)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run of each kind that nobody stopped."""
    home = tmp_path_factory.mktemp("runs")
    for network in SMALL:
        main(options(home / network, network))
    return {network: home / network for network in SMALL}


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("network", get_args(Network))
def test_32_px_leave_the_stem_whole_or_halved_and_three_stages_halve_them(network, stem_stride):
    """32 / stem stride / 2 / 2 / 2 px: 4 or 2."""
    module = TorchvisionNetwork(Architecture(network, 0.25, stem_stride), 7).eval()
    inner = module.network
    assert isinstance(inner, ResNet | ShuffleNetV2)
    last = inner.layer4 if isinstance(inner, ResNet) else inner.conv5
    sides: list[int] = []
    last.register_forward_hook(lambda layer, inputs, output: sides.append(output.shape[-1]))
    assert module(torch.zeros(3, 3, 32, 32)).shape == (3, 7)
    assert sides == [4 // stem_stride]


def test_folded_gives_the_same_logits_without_batch_norm(runs):
    """Of trained networks: their running statistics are not those of a new BatchNorm."""
    images = torch.randn(5, 3, 32, 32, generator=generator_for(0))
    for run in runs.values():
        network = TorchvisionNetwork.load(run / NETWORK)
        folded = network.folded()
        assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
        torch.testing.assert_close(folded(images), network(images).detach(), rtol=1e-3, atol=1e-4)
        World(0, 2).synchronise(network)  # as where several processes train
        assert torch.equal(network.folded()(images), folded(images))
        with pytest.raises(ValueError, match="^save: BatchNorm is folded"):
            folded.save(run / "never")


def test_width_multiplies_channels_as_counted_by_hand():
    """ResNet-18 x 0.25: the second convolution of layer 1 has 16 * 16 * 9 = 2304 weights; at 0.5,
    32 * 32 * 9 = 9216. ShuffleNetV2 0.5x: its last has 192 * 1024; at 0.5, 96 * 512. Counts are even."""
    for width, resnet, shufflenet in ((0.25, 2304, 48 * 256), (0.5, 9216, 96 * 512)):
        inner = TorchvisionNetwork(Architecture("resnet18", width), 10).network
        assert isinstance(inner, ResNet) and isinstance(inner.layer1[0].conv2, torch.nn.Conv2d)
        assert inner.layer1[0].conv2.weight.numel() == resnet
        other = TorchvisionNetwork(Architecture("shufflenet_v2_x0_5", width), 10).network
        assert isinstance(other, ShuffleNetV2) and other.conv5[0].weight.numel() == shufflenet
    odd = TorchvisionNetwork(Architecture("shufflenet_v2_x0_5", 0.7), 10)  # 48 * 0.7 = 33.6, halved 16.8
    assert odd(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_at_width_1_and_224_px_the_counts_are_torchvisions():
    """ShuffleNetV2 0.5x: 1,366,792 parameters with 1000 classes; the stem's 648 weights are the same.
    ResNet-18: 11,689,512, with a stem of 3 * 3 * 3 * 64 = 1728 weights in place of 7 * 7 * 3 * 64 = 9408."""
    for name, expected in (("shufflenet_v2_x0_5", 1_366_792), ("resnet18", 11_689_512 - 9408 + 1728)):
        network = TorchvisionNetwork(Architecture(name, resolution=224), 1000)
        assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_a_row_tells_parameters_and_macs_of_the_folded_network():
    """MobileNetV2 of "lite": as the tables of counts say. The stem alone tells ResNet-18's strides apart: all
    after it has a quarter of the pixels, so does the stem itself; only the classifier stays, 128 * 10."""
    space = SearchSpace.preset("lite", 2).only(2)
    child = MetaGraph(space, 10).child(space.full_mask())
    mobilenet = LoneNetwork("", "", child, 32, 10)
    assert (mobilenet.parameters, mobilenet.mmacs) == (584_850, pytest.approx(7.327232))
    tables = [count(space, 10).reference("full") for count in (count_parameters, count_macs)]
    assert tables == [mobilenet.parameters, pytest.approx(mobilenet.mmacs)]
    one, two = (lone(Architecture("resnet18", 0.25, stride)).mmacs - 0.00128 for stride in (1, 2))
    assert one == pytest.approx(4 * two)


def test_a_run_learns_and_its_file_is_the_network(runs):
    for name, run in runs.items():
        network = TorchvisionNetwork.load(run / NETWORK)
        assert network.architecture == Architecture(name, SMALL[name]) and not network.training
        rows = history(run)
        assert [row["epoch"] for row in rows] == list(range(1, 13))
        assert rows[-1]["loss"] < 0.8 * math.log(10), "that of a guess among ten classes is log 10"
        val = load_images("folder", "val", image_folder())
        assert load_lone(run).correct(val).float().mean().item() == pytest.approx(rows[-1]["val"]["all"])


def test_killed_and_resumed_equals_unbroken(runs, tmp_path):
    network: Network = "shufflenet_v2_x0_5"
    chosen = options(tmp_path / "killed", network)
    kill_after_first_checkpoint("baseline", chosen)
    assert not (chosen.out / NETWORK).exists(), "killed in the middle"
    main(chosen)
    (first, _), (second, _) = (load_weights(out / NETWORK) for out in (runs[network], chosen.out))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert history(chosen.out) == history(runs[network])


def test_bad_options_and_files_are_refused(runs, tmp_path):
    for changes, message in (
        ({"network": "alexnet"}, "^network: unknown 'alexnet'; choose from shufflenet_v2_x0_5"),
        ({"width": 0.0}, "^width: got 0.0"),
        ({"stem_stride": 4}, "^stem_stride: got 4; a whole number from 1 to 2 will do"),
        ({"resolution": 0}, "^resolution: got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(Architecture(), **changes)
    weights, config = load_weights(runs["resnet18"] / NETWORK)
    for name, change in (("network", "os.system"), ("width", 0.25), ("width", "wide")):
        save_weights(tmp_path / "bad", weights, {**config, name: change})
        with pytest.raises(ValueError, match="^network: .*bad holds no whole network"):
            load_lone(tmp_path / "bad")
    with pytest.raises(ValueError, match="^alone: .* is for 32 px; the search space has 64 px"):
        load_all([runs["resnet18"]], SearchSpace.preset("tiny_imagenet", 0.1), 10)


def test_evaluate_compares_them(runs, tmp_path, monkeypatch):
    """By name, in a group of their own, with the latency of a clock that also times MobileNetV2's child."""
    monkeypatch.setattr("agents.evaluation.alone.OTHERS", 2)
    comparison = compare(
        evaluate.Options(
            tmp_path,
            alone=tuple(runs.values()),
            dataset="folder",
            data_dir=image_folder(),
            one_shot_masks=1,
            one_shot_limits=(),
            time_real=False,
            meta_graph=_meta_graph(tmp_path),
        )
    )
    rows = {row["policy"]: row for row in comparison.rows}
    for run, name, family in (
        ("shufflenet_v2_x0_5", "ShuffleNetV2 0.5x x 0.5", "ShuffleNetV2 alone"),
        ("resnet18", "ResNet-18 x 0.125", "ResNet alone"),
    ):
        row, network = rows[name], load_lone(runs[run])
        assert row["group"] == family and row["latency_from"] == "clock"
        assert (
            row["measured_ms"] > 0 and row["measured_mobilenet_v2_ms"] > 0 and row["test"]["latency_ms"] > 0
        )
        assert (row["parameters"], row["mmacs"]) == (network.parameters, network.mmacs)
        right = network.correct(load_images("folder", "test", image_folder()))
        assert row["test"]["accuracy"] == pytest.approx(right.float().mean().item())


def _meta_graph(folder: Path) -> Path:
    """Untrained weights of the shipped space, so that no shipped search is compared."""
    MetaGraph(SearchSpace.preset("lite"), 10).save(folder / "meta_graph.safetensors")
    return folder / "meta_graph.safetensors"
