"""Stable-Baselines3 on the native environment, and our agents in its evaluation."""

from __future__ import annotations

import importlib
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.agent import native
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.sb3 import ControllerFeatures, NativeVecEnv
from agents.static import RandomAgent, StaticAgent
from instanas_env.wrappers import VectorActionFormWrapper
from tests.tools.scratch import SCRATCH

pytestmark = pytest.mark.usefixtures("one_meta_graph")
N = 4
POLICY = {"features_extractor_class": ControllerFeatures, "normalize_images": False}


def make(num_envs: int = N, **options) -> NativeVecEnv:
    return NativeVecEnv(gym.make_vec("InstaNAS-v1", num_envs=num_envs, **SCRATCH, **options))


def learn(env) -> PPO:
    """Two rollouts of two steps, one update each."""
    model = PPO(
        "CnnPolicy", env, n_steps=2, batch_size=4, n_epochs=1, policy_kwargs=POLICY, seed=0, device="cpu"
    )
    return model.learn(2 * 2 * env.num_envs)


def test_ppo_learns_on_the_native_environment():
    """Its success rate is our accuracy; every episode is one step long."""
    env = VecMonitor(make())
    model = learn(env)
    assert model.num_timesteps == 4 * N
    assert len(model.ep_info_buffer) == 4 * N and {e["l"] for e in model.ep_info_buffer} == {1}
    assert len(model.ep_success_buffer) == 4 * N
    assert isinstance(model.policy.features_extractor, ControllerFeatures)
    actions, _ = model.predict(env.reset(), deterministic=True)
    assert actions.shape == (N, 85) and set(np.unique(actions)) <= {0, 1}


def test_ppo_learns_on_scalar_environments():
    env = DummyVecEnv([lambda: gym.make("InstaNAS-v1", **SCRATCH)] * 2)
    assert learn(VecMonitor(env)).num_timesteps == 4 * 2


def test_features_scale_images_themselves_and_carry_gradients():
    space = gym.spaces.Box(0, 255, (3, 32, 32), np.uint8)
    features = ControllerFeatures(space, features_dim=7)
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    out = features(images)
    assert out.shape == (5, 7) and (out >= 0).all() and (out.std(0) > 0).any()
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in features.parameters())
    twin = ControllerFeatures(space, features_dim=7)
    assert all(torch.equal(a, b) for a, b in zip(features.parameters(), twin.parameters(), strict=True))


def test_the_adapter_steps_as_the_native_environment():
    """Infos are a list of dicts: what came of the action, and the image it was for."""
    adapter, envs = make(), gym.make_vec("InstaNAS-v1", num_envs=N, **SCRATCH)
    adapter.seed(3)
    observation, (expected, _) = adapter.reset(), envs.reset(seed=3)
    assert np.array_equal(observation, expected)
    for _ in range(2):
        actions = np.random.default_rng(0).integers(0, 2, (N, 85))
        before = observation
        observation, reward, done, infos = adapter.step(actions.astype(np.float32))
        expected, exact, _, _, info = envs.step(actions)
        assert np.array_equal(observation, expected) and done.all()
        assert reward.dtype == np.float32 and np.array_equal(reward, exact.astype(np.float32))
        for i, row in enumerate(infos):
            assert np.array_equal(row["terminal_observation"], before[i])
            assert row["TimeLimit.truncated"] is False
            final = {name: v for name, v in info["final_info"].items() if not name.startswith("_")}
            assert row.keys() == final.keys() | {"terminal_observation", "TimeLimit.truncated"}
            assert all(np.array_equal(row[name], value[i]) for name, value in final.items())
            assert type(row["is_success"]) is bool


def test_the_adapter_answers_for_each_image():
    """Without a seed a reset goes on; ``reset_infos`` and attributes come as lists of four."""
    adapter = make(render_mode="rgb_array")
    adapter.seed(0)
    first = adapter.reset()
    assert [info["index"] for info in adapter.reset_infos] == adapter.envs.score(
        np.zeros((N, 85))
    ).index.tolist()
    assert not np.array_equal(adapter.reset(), first)
    assert adapter.get_attr("num_envs") == [N] * N and adapter.get_attr("num_envs", [0, 2]) == [N] * 2
    assert len(adapter.get_images()) == N and adapter.env_is_wrapped(VecMonitor) == [False] * N
    scores = adapter.env_method("score", np.zeros((N, 85)), indices=1)
    assert len(scores) == 1 and scores[0].reward.shape == (N,)
    adapter.close()


def test_other_modes_and_environments_are_refused():
    with pytest.raises(
        ValueError, match="^envs: got autoreset_mode AutoresetMode.NEXT_STEP; SAME_STEP will do"
    ):
        make(autoreset_mode="NextStep")
    with pytest.raises(ValueError, match="^env: got SyncVectorEnv"):
        NativeVecEnv(gym.make_vec("CartPole-v1", num_envs=1, vectorization_mode="sync"))


def agents(adapter: NativeVecEnv) -> dict:
    """One of every class, trained or searched a little where that is what it does."""
    envs = adapter.envs
    bandit = native(envs).bandit
    return {
        "static": lambda: StaticAgent(bandit.space, bandit.space.mobilenet_v2_mask()),
        "random": lambda: RandomAgent(bandit.space, keep=0.2, seed=5),
        "reinforce": lambda: SelfCriticalReinforce(envs, learning_rate=1e-2).learn(16),
        "regression": lambda: RewardRegression(envs, random_timesteps=8).learn(16),
    }


@pytest.mark.parametrize("name", ["static", "random", "reinforce", "regression"])
def test_sb3_evaluates_every_agent(name):
    """32 episodes over 8 images a step, in order: the mean of what ``score`` gives for images 0 to 31."""
    adapter = make(8, order="sequential")
    agent = agents(adapter)[name]()
    adapter.seed(0)
    mean, deviation = evaluate_policy(agent, VecMonitor(adapter), n_eval_episodes=32)
    bandit, again = adapter.envs.bandit, agents(adapter)["random"]() if name == "random" else agent
    rewards = []
    for index in torch.arange(32).split(8):
        contexts = bandit.contexts(index)
        rewards.append(bandit.score(contexts, again.predict(contexts.images.numpy())[0]).reward)
    assert mean == pytest.approx(np.concatenate(rewards).mean(), abs=1e-5)
    assert deviation == pytest.approx(np.concatenate(rewards).std(), abs=1e-5)


def test_the_adapter_steps_through_wrappers():
    """Rewards, spaces, statistics and ``env_is_wrapped`` are those of the wrapped environment."""
    inner = gym.make_vec("InstaNAS-v1", num_envs=N, layout="HWC", **SCRATCH)
    wrappers = gym.wrappers.vector
    outer = wrappers.RecordEpisodeStatistics(wrappers.TransformReward(inner, lambda reward: reward + 100))
    adapter = NativeVecEnv(VectorActionFormWrapper(outer, "cells"))
    assert adapter.action_space == gym.spaces.MultiDiscrete([32] * 17)
    assert adapter.observation_space.shape == adapter.reset().shape[1:] == (32, 32, 3)
    _, reward, _, infos = adapter.step(np.full((N, 17), 31))
    assert (
        (reward > 90).all()
        and infos[0]["mask"].all()
        and infos[0]["terminal_observation"].shape == (32, 32, 3)
    )
    assert [info["episode"]["r"] for info in infos] == pytest.approx(reward.tolist())
    assert adapter.env_is_wrapped(wrappers.TransformReward) == [True] * N
    assert adapter.env_is_wrapped(VecMonitor) == [False] * N
    adapter.set_attr("func", lambda reward: reward - 100)
    assert (adapter.step(np.full((N, 17), 31))[1] < -90).all()
    assert (
        adapter.get_attr("num_envs") == [N] * N and adapter.env_method("images", indices=0)[0].shape[0] == N
    )


@pytest.mark.parametrize(
    "options", [{"index": np.array([5, 6, 7, 8])}, [{"index": index} for index in (5, 6, 7, 8)]], ids=type
)
def test_the_adapter_honours_options_once(options):
    adapter = make()
    adapter.set_options(options)
    adapter.reset()
    assert [info["index"] for info in adapter.reset_infos] == [5, 6, 7, 8]
    adapter.seed(0)
    expected = adapter.reset()
    adapter.seed(0)
    assert np.array_equal(adapter.reset(), expected)
    adapter.set_options({"index": 5})
    adapter.reset()
    assert [info["index"] for info in adapter.reset_infos] == [5] * N
    with pytest.raises(ValueError, match="^options: got .* 4 dicts with the same keys will do"):
        adapter.set_options([{"index": 5}])


def test_a_yaml_of_rl_zoo3_can_name_policy_and_extractor():
    """As rl_zoo3 does it: the policy by its dotted name, ``policy_kwargs`` by ``eval``."""
    settings = (Path(__file__).parent.parent / "examples" / "rl_zoo3.yml").read_text()
    name = next(line.split()[1] for line in settings.splitlines() if "policy:" in line)

    def get_class_by_name(name: str) -> type:
        module, _, cls = name.rpartition(".")
        return getattr(importlib.import_module(module), cls)

    kwargs = eval(
        "dict(features_extractor_class=get_class_by_name('agents.sb3.ControllerFeatures'))", locals()
    )
    assert kwargs == {"features_extractor_class": ControllerFeatures}
    model = PPO(
        get_class_by_name(name), VecMonitor(make()), n_steps=2, batch_size=4, n_epochs=1, device="cpu"
    )
    assert isinstance(model.policy.features_extractor, ControllerFeatures)
    assert not model.policy.normalize_images
    model.learn(2 * N)


@pytest.mark.parametrize("space", [Box(0, 1, (3, 32, 32), np.float32), Box(0, 255, (6, 32, 32), np.uint8)])
def test_features_of_other_images_are_refused(space):
    """Normalised ones, and stacked frames."""
    with pytest.raises(
        ValueError, match=r"^observation_space: got Box.*; a Box of uint8 \(3, H, W\) will do"
    ):
        ControllerFeatures(space)
