"""The one file: what PyTorch gives, from onnxruntime and NumPy alone; only what is chosen runs."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from agents.agent import Agent
from agents.blockdrop import BlockDrop
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.static import RandomAgent, StaticAgent
from instanas_env.data import DataRecord
from instanas_env.deploy.dynamic import dynamic_model, static_model
from instanas_env.deploy.export import export
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)
DATA = DataRecord(tuple("abcdefghij"), MEAN, STD)


def table_of(space: SearchSpace) -> LatencyTable:
    modules = torch.rand(space.num_cells, space.num_modules, generator=generator_for(3), dtype=torch.float64)
    return LatencyTable(space, modules, fixed=0.25, controller=0.125)


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images.float() - mean) / std


def some_images(count: int, seed: int, side: int = 32) -> torch.Tensor:
    """Noise, each image with colours of its own."""
    generator = generator_for(seed)
    noise = torch.rand(count, 3, side, side, generator=generator)
    return (255 * noise * torch.rand(count, 3, 1, 1, generator=generator)).to(torch.uint8)


def learnt(agent: Agent) -> Agent:
    """With weights that tell images apart."""
    generator = generator_for(4)
    for parameter in agent.controller.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return agent


class GivenBits:
    """A policy that reads its bits from a table with as many rows as the first pixel has values."""

    def __init__(self, masks: torch.Tensor):
        self.bits = masks.flatten(1)

    def write(self, graph: OnnxGraph, image: str) -> str:
        pixel = graph.op(
            "Gather",
            graph.op("Reshape", image, graph.constant(np.array([-1]))),
            graph.constant(np.array([0])),
        )
        return graph.op("Gather", graph.constant(self.bits), graph.op("Cast", pixel, to=TensorProto.INT64))


@pytest.fixture(scope="module")
def given_masks(tiny_graph, tiny_space):
    """256 masks of all densities, unrepaired ones and empty ones among them, and the file that takes the
    first pixel's."""
    generator = generator_for(5)
    keep = torch.rand(256, 1, 1, generator=generator) ** 2
    masks = torch.rand(256, 17, 5, generator=generator) < keep
    masks[0], masks[1] = False, True
    table = table_of(tiny_space)
    folded = tiny_graph.folded()
    model = dynamic_model(folded, GivenBits(masks).write, table, 0.125, MEAN, STD)
    return masks, OnnxNetwork(model), table, folded


@given(number=st.integers(0, 255), seed=st.integers(0, 1000))
def test_any_mask(given_masks, tiny_space, number, seed):
    masks, network, table, folded = given_masks
    image = some_images(1, seed)
    image[0, 0, 0, 0] = number
    mask = tiny_space.repair(masks[number])
    logits, ran, latency_ms = network.outputs(image.numpy())
    assert logits.dtype == np.float32 and ran.dtype == bool and latency_ms.dtype == np.float32
    assert logits.shape == (1, 10) and ran.shape == (1, 17, 5) and latency_ms.shape == (1,)
    assert np.array_equal(ran[0], mask.numpy())
    assert latency_ms[0] == pytest.approx(table.lookup(mask).item() + 0.125, rel=1e-5)
    expected = folded.child(mask)(normalised(image)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-4)
    static = OnnxNetwork(static_model(folded, mask, MEAN, STD))(image.numpy())
    np.testing.assert_allclose(static, expected, atol=1e-5, rtol=1e-4)


def test_what_was_not_chosen_does_not_run(tiny_space, randomise_batch_norm):
    """Its weights are not numbers, and the answer is one; what was chosen runs, so then it is none."""
    meta_graph = MetaGraph(tiny_space, 10)
    randomise_batch_norm(meta_graph, 1)
    mask = tiny_space.random_masks(1, 0.3, generator_for(6))[0]
    for cell, row in zip(meta_graph.cells, mask.tolist(), strict=True):
        for option, on in zip(cell.options, row, strict=True):
            if not on:
                for parameter in option.parameters():
                    torch.nn.init.constant_(parameter, torch.nan)
    image = some_images(1, 0).numpy()
    agent = StaticAgent(tiny_space, mask)
    rows = torch.stack([mask, tiny_space.full_mask()]).repeat(128, 1, 1)
    model = dynamic_model(meta_graph.folded(), GivenBits(rows).write, table_of(tiny_space), 0, MEAN, STD)
    for number, finite in ((0, True), (1, False)):
        image[0, 0, 0, 0] = number
        assert np.isfinite(OnnxNetwork(model)(image)).all() == finite
    fixed = export(agent, meta_graph, table_of(tiny_space), DATA)
    assert np.isfinite(OnnxNetwork(fixed)(image)).all()


def agents(space: SearchSpace) -> dict[str, Agent]:
    menu = space.random_masks(7, 0.4, generator_for(7)).flatten(1).int().tolist()
    table = table_of(space)
    return {
        "static": StaticAgent(space, space.path(3)),
        "reinforce": learnt(SelfCriticalReinforce(None, space=space)),
        "reinforce, naming": learnt(SelfCriticalReinforce(None, space=space, num_classes=10)),
        "blockdrop": learnt(BlockDrop(None, space=space)),
        "regression": learnt(RewardRegression(None, trade_off=0.4, space=space, table=table, num_classes=10)),
        "menu": learnt(RewardRegression(None, trade_off=0.02, space=space, table=table, menu=menu)),
    }


@pytest.mark.parametrize(
    "name", ["static", "reinforce", "reinforce, naming", "blockdrop", "regression", "menu"]
)
def test_every_policy(name, tiny_graph, tiny_space):
    agent = agents(tiny_space)[name]
    table = table_of(tiny_space)
    network = OnnxNetwork(export(agent, tiny_graph, table, DATA))
    images = some_images(12, 8)
    masks = tiny_space.repair(agent.masks(images))
    assert name == "static" or len(masks.unique(dim=0)) > 1, "a policy worth testing"
    with torch.no_grad():
        expected = tiny_graph(normalised(images), masks).numpy()
    controller_ms = 0.0 if name == "static" else 0.125
    for i, image in enumerate(images.split(1)):
        logits, mask, latency_ms = network.outputs(image.numpy())
        assert np.array_equal(mask[0], masks[i].numpy())
        np.testing.assert_allclose(logits[0], expected[i], atol=1e-5, rtol=1e-4)
        assert latency_ms[0] == pytest.approx(table.lookup(masks[i]).item() + controller_ms, rel=1e-5)


@pytest.mark.parametrize("name", ["regression", "menu"])
def test_a_dial_is_an_input(name, tiny_graph, tiny_space):
    """One file for every trade-off, whatever the agent's own is."""
    agent = agents(tiny_space)[name]
    network = OnnxNetwork(export(agent, tiny_graph, table_of(tiny_space), DATA, dial=True))
    image = some_images(1, 8)
    masks = []
    for trade_off in (0.0, agent.trade_off, 5.0):
        given = {"image": image.numpy(), "dial": np.array([trade_off], np.float32)}
        (mask,) = network.session.run(["mask"], given)
        dialled = copy.copy(agent)
        dialled.trade_off = trade_off
        expected = tiny_space.repair(dialled.masks(image))
        assert np.array_equal(mask, expected.numpy())
        masks.append(mask)
    assert masks[0].sum() > masks[2].sum()


@pytest.mark.parametrize(("preset", "width"), [("tiny_imagenet", 0.25), ("imagenet", 0.25)])
def test_larger_images_and_the_space_of_one_module(preset, width):
    space = SearchSpace.preset(preset, width).only(2)
    meta_graph = MetaGraph(space, 10).eval()
    agent = learnt(SelfCriticalReinforce(None, space=space))
    image = some_images(1, 9, space.resolution)
    logits, mask, _ = OnnxNetwork(export(agent, meta_graph, table_of(space), DATA)).outputs(image.numpy())
    masks = space.repair(agent.masks(image))
    assert np.array_equal(mask, masks.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(logits, meta_graph(normalised(image), masks).numpy(), atol=1e-5, rtol=1e-4)


WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "onnx", "instanas_env", "agents", "gymnasium"):
            raise ImportError(name + " is not installed here")

sys.meta_path.insert(0, Refuse())
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given = session.get_inputs()[0]
assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", [1, 3, 32, 32])
assert [output.name for output in session.get_outputs()] == ["logits", "mask", "latency_ms"]
image = np.arange(3 * 32 * 32, dtype=np.uint32).astype(np.uint8).reshape(1, 3, 32, 32)
logits, mask, latency_ms = session.run(None, {"image": image})
metadata = session.get_modelmeta().custom_metadata_map
try:
    import torch
except ImportError:
    print(json.dumps([logits.tolist(), mask.tolist(), latency_ms.tolist(), metadata]))
"""


def test_the_file_runs_where_torch_is_not(tiny_graph, tiny_space, tmp_path):
    agent, table = agents(tiny_space)["reinforce"], table_of(tiny_space)
    (tmp_path / "model.onnx").write_bytes(export(agent, tiny_graph, table, DATA))
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    logits, mask, latency_ms, metadata = json.loads(done.stdout)
    image = (torch.arange(3 * 32 * 32) % 256).to(torch.uint8).view(1, 3, 32, 32)
    masks = tiny_space.repair(agent.masks(image))
    assert mask == masks.tolist()
    with torch.no_grad():
        np.testing.assert_allclose(logits, tiny_graph(normalised(image), masks), atol=1e-5, rtol=1e-4)
    assert latency_ms[0] == pytest.approx(table.lookup(masks).item() + 0.125, rel=1e-5)
    assert json.loads(metadata["classes"]) == list(DATA.classes)
    assert SearchSpace.from_config(json.loads(metadata["search_space"])) == tiny_space
    assert json.loads(metadata["mean"]) == list(MEAN) and json.loads(metadata["std"]) == list(STD)
    assert metadata["policy"] == "SelfCriticalReinforce" and metadata["version"]


def test_typical_masks_change_nothing_but_the_way(tiny_graph, tiny_space):
    agent, table = agents(tiny_space)["reinforce"], table_of(tiny_space)
    images = some_images(6, 10)
    typical = tiny_space.repair(agent.masks(images))
    plain, arranged = (
        OnnxNetwork(export(agent, tiny_graph, table, replace(DATA, typical=masks)))
        for masks in (None, typical)
    )
    assert plain.model != arranged.model
    for image in images.split(1):
        for one, other in zip(plain.outputs(image.numpy()), arranged.outputs(image.numpy()), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_parts_that_do_not_belong_together_are_refused(tiny_graph, tiny_space, lite_space):
    agent, table = StaticAgent(tiny_space, tiny_space.path(0)), table_of(tiny_space)
    with pytest.raises(ValueError, match="^agent: made for .*1.0.*, not for .*0.5"):
        export(StaticAgent(lite_space, lite_space.path(0)), tiny_graph, table, DATA)
    with pytest.raises(ValueError, match="^table: made for .*1.0.*, not for .*0.5"):
        export(agent, tiny_graph, table_of(lite_space), DATA)
    with pytest.raises(ValueError, match="^classes: got 2; the meta-graph's 10 will do"):
        export(agent, tiny_graph, table, replace(DATA, classes=("cat", "dog")))
    with pytest.raises(ValueError, match="^mean: got .*; three numbers"):
        replace(DATA, mean=(0.5,))
    with pytest.raises(ValueError, match="^std: got 0.0; a number above 0"):
        replace(DATA, std=(0.2, 0.0, 0.2))
    with pytest.raises(ValueError, match="^dial: StaticAgent has none; RewardRegression will do"):
        export(agent, tiny_graph, table, DATA, dial=True)
    with pytest.raises(ValueError, match="^agent: RandomAgent has no ONNX form"):
        export(RandomAgent(tiny_space), tiny_graph, table, DATA)
