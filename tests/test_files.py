"""Agents whose class only their file knows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import agents.agent as agent_module
import agents.files as files_module
from agents.files import AGENTS, load_agent
from agents.learning import LearningAgent
from agents.reward_regression import RewardRegression
from instanas_env.data import load_images
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.seeding import generator_for
from instanas_env.storage import load_weights, save_weights


def trained(name: str, space) -> LearningAgent:
    """An agent whose controller tells images apart, with a hyperparameter that is not the default."""
    if name == "RewardRegression":
        agent = RewardRegression(None, trade_off=0.25, space=space, seed=4)
        output = agent.controller.network.output
    else:
        changed = {
            "SelfCriticalReinforce": {"samples_per_image": 2},
            "BlockDrop": {"gamma": 2.0},
            "ConvNetAIG": {"target": (0.1,) * 17},
        }
        agent = AGENTS[name](None, space=space, seed=4, **changed[name])
        output = agent.controller.output
    nn.init.normal_(output.weight, generator=generator_for(0))
    return agent


# Those without weights come back in tests/test_baselines.py.
LEARNING = [name for name, agent in AGENTS.items() if issubclass(agent, LearningAgent)]


@pytest.mark.parametrize("name", LEARNING)
def test_an_agent_comes_back_in_its_class_with_its_policy(name, lite_space, tmp_path):
    agent = trained(name, lite_space)
    agent.save(tmp_path / "a.safetensors", {"note": "kept"})
    loaded = load_agent(tmp_path / "a.safetensors")
    assert type(loaded) is AGENTS[name] and loaded.space == lite_space
    for hyperparameter in agent.hyperparameters:
        assert getattr(loaded, hyperparameter) == getattr(agent, hyperparameter), hyperparameter
    images = load_images("embedded", "val").images[torch.arange(20)]
    masks = agent.masks(images)
    assert len(masks.flatten(1).unique(dim=0)) > 1
    assert torch.equal(loaded.masks(images), masks)
    assert load_weights(tmp_path / "a.safetensors")[1]["record"] == {"note": "kept"}


def test_the_papers_agents_and_ours_are_known():
    assert set(LEARNING) == {"SelfCriticalReinforce", "RewardRegression", "BlockDrop", "ConvNetAIG"}
    assert set(AGENTS) == {*LEARNING, "EarlyExit", "StaticAgent", "RandomAgent"}


def test_a_meta_graph_is_no_agent(tiny_space, tmp_path):
    path = tmp_path / "meta_graph.safetensors"
    MetaGraph(tiny_space, 10).save(path)
    with pytest.raises(
        ValueError, match=r"^path: .*meta_graph\.safetensors holds None; known agents are Self"
    ):
        load_agent(path)


def test_an_unknown_class_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(path, {"weight": torch.ones(1)}, {"agent": "Clairvoyant"})
    with pytest.raises(ValueError, match="holds 'Clairvoyant'; known agents are .*RewardRegression"):
        load_agent(path)


def test_only_a_file_that_nobody_changed_is_called_unknown(lite_space, tmp_path):
    """A flipped bit in the class's name: the checksum tells."""
    path = tmp_path / "a.safetensors"
    trained("BlockDrop", lite_space).save(path)
    path.write_bytes(path.read_bytes().replace(b"BlockDrop", b"BlockDrnp", 1))
    with pytest.raises(ValueError, match="changed since it was written"):
        load_agent(path)


def test_the_tensors_are_read_once(lite_space, tmp_path, monkeypatch):
    path, read = tmp_path / "a.safetensors", []
    trained("BlockDrop", lite_space).save(path)
    for module in (agent_module, files_module):
        monkeypatch.setattr(module, "load_weights", lambda path: read.append(path) or load_weights(path))
    load_agent(path)
    assert read == [path]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors"):
        load_agent(tmp_path / "a.safetensors")
