"""The environment of a learner: which ones it takes, wherever they come from, and that it can be changed."""

from __future__ import annotations

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import vector

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.blockdrop import BlockDrop
from agents.convnet_aig import ConvNetAIG
from agents.learning import LearningAgent
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from instanas_env.search_space import SearchSpace
from instanas_env.storage import load_weights, save_weights
from instanas_env.wrappers import VectorActionFormWrapper
from tests.tools.scratch import SCRATCH
from tests.tools.toys import flat_weights

pytestmark = pytest.mark.usefixtures("one_meta_graph")
N = 4
LEARNERS = (SelfCriticalReinforce, RewardRegression, BlockDrop, ConvNetAIG)
LITE, NARROW = SearchSpace.preset("lite"), SearchSpace.preset("lite", width=0.5)
WRAPPERS = {
    "actions": lambda envs: vector.TransformAction(envs, lambda actions: 1 - actions, envs.action_space),
    "rewards": lambda envs: vector.TransformReward(envs, lambda reward: -reward),
    "rewards, NormalizeReward": lambda envs: vector.RecordEpisodeStatistics(vector.NormalizeReward(envs)),
}


def make(num_envs: int = N, **options) -> gym.vector.VectorEnv:
    return gym.make_vec("InstaNAS-v1", num_envs=num_envs, **SCRATCH, **options)


def made(kind: type[LearningAgent], env: gym.vector.VectorEnv | None = None, **options) -> LearningAgent:
    """An agent that could learn if it had an environment."""
    if kind in (SelfCriticalReinforce, RewardRegression):
        options = {"num_classes": 10, **options}
    return kind(env, space=LITE, **options)


def refused(kind: type[LearningAgent], env, message: str, tmp_path) -> None:
    """By the class, by ``load`` and by an agent that is assigned it; which keeps what it had."""
    agent, path = made(kind), tmp_path / "agent.safetensors"
    agent.save(path)
    for hand_over in (
        lambda: made(kind, env),
        lambda: kind.load(path, env),
        lambda: setattr(agent, "env", env),
    ):
        with pytest.raises(ValueError, match=f"^env: {message}"):
            hand_over()
    assert agent.env is None


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("kind", LEARNERS)
def test_wrappers_that_change_actions_or_rewards_are_refused(kind, name, tmp_path):
    """What ``score`` answers is of other actions than were played, or other rewards."""
    refused(kind, WRAPPERS[name](make()), f"a wrapper changes its {name}", tmp_path)


def test_other_wrappers_stay():
    envs = vector.RecordEpisodeStatistics(make())
    assert made(RewardRegression, envs).learn(N).num_timesteps == N


@pytest.mark.parametrize("kind", LEARNERS)
def test_other_actions_than_bits_are_refused(kind, tmp_path):
    for envs in (make(actions="cells"), VectorActionFormWrapper(make(), "cells")):
        refused(kind, envs, r"got actions of shape \(17,\); InstaNAS-v1 with actions='bits'", tmp_path)


def test_the_twin_is_refused_with_what_will_do():
    twin = gym.make_vec("InstaNASTabular-v1", num_envs=2, split="val")
    with pytest.raises(ValueError, match=r"^env: got actions of shape \(\); InstaNAS-v1 with actions='bits'"):
        SelfCriticalReinforce(twin)


@pytest.mark.parametrize("kind", LEARNERS)
def test_another_search_space_is_refused(kind, tmp_path):
    envs = make()
    envs.unwrapped.bandit.space = NARROW
    refused(kind, envs, "its search space is not the agent's", tmp_path)


def test_a_wrong_environment_does_not_discredit_the_file(tmp_path):
    path = tmp_path / "agent.safetensors"
    made(RewardRegression).save(path)
    with pytest.raises(ValueError) as caught:
        RewardRegression.load(path, WRAPPERS["rewards"](make()))
    assert str(path) not in str(caught.value)


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_learner_goes_on_in_another_environment(kind):
    """Which it resets, and only it; the same one assigned again goes on with the images that wait."""
    one, other = make(), make(2)
    agent = made(kind, one).learn(N)
    waiting = one.unwrapped.images()
    agent.env = one
    assert np.array_equal(agent._begin(), waiting)
    agent.env = other
    assert agent.env is other and agent.learn(2).num_timesteps == N + 2
    assert np.array_equal(one.unwrapped.images(), waiting)
    agent.env = None
    with pytest.raises(ValueError, match="^env: this agent was made without one"):
        agent.learn(1)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda agent: pickle.loads(pickle.dumps(agent))])
def test_a_copy_learns_what_the_original_learns(duplicate):
    agent = SelfCriticalReinforce(make()).learn(2 * N)
    twin = duplicate(agent)
    assert twin.env is not agent.env
    weights = [flat_weights(each.learn(2 * N)) for each in (agent, twin)]
    assert torch.equal(*weights)


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_file_keeps_how_much_was_learnt(kind, tmp_path):
    """An older file, which does not tell, counts from 0."""
    path = tmp_path / "agent.safetensors"
    agent = made(kind, make()).learn(2 * N)
    agent.save(path)
    assert kind.load(path, make()).learn(N).num_timesteps == 3 * N
    weights, config = load_weights(path)
    assert config.pop("num_timesteps") == 2 * N
    save_weights(path, weights, config)
    assert kind.load(path).num_timesteps == 0
    save_weights(path, weights, {**config, "num_timesteps": -1})
    with pytest.raises(ValueError, match="^path: .* holds no agent .config.num_timesteps: got -1"):
        kind.load(path)


def test_a_loaded_regression_does_not_begin_with_random_masks_again(tmp_path, monkeypatch):
    path = tmp_path / "agent.safetensors"
    made(RewardRegression, make(), random_timesteps=N).learn(N).save(path)
    loaded = RewardRegression.load(path, make())
    monkeypatch.setattr(loaded.arms, "random", lambda *_: pytest.fail("random masks"))
    assert loaded.learn(N).num_timesteps == 2 * N
