"""LinUCB: its equations by hand, a linear problem with a known optimum, the twin, and its files."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import TransformReward

import instanas_env  # noqa: F401  (registers InstaNASTabular-v1)
from agents.linucb import LinUCB
from instanas_env.storage import load_weights, save_weights
from tests.tools.tables import table_of, validation_images


class Linear(VectorEnv):
    """Arm a earns theta_a . x + noise of 0.1; x is uniform in the unit cube."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
    theta = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.4, 0.4, 0.4]])

    def __init__(self, num_envs: int = 16):
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(0, 1, (3,), np.float64)
        self.single_action_space = spaces.Discrete(4)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.random((self.num_envs, 3))
        return self.x, {}

    def step(self, actions):
        reward = (self.theta[actions] * self.x).sum(1) + 0.1 * self.np_random.standard_normal(self.num_envs)
        self.x = self.np_random.random((self.num_envs, 3))
        ended = np.ones(self.num_envs, bool)
        return self.x, reward, ended, ~ended, {}


def test_one_update_by_hand():
    """x = (2, 1), r = 3, ridge 1: A = I + x x^T = [[5, 2], [2, 2]], A^-1 = [[2, -2], [-2, 5]] / 6,
    theta = A^-1 (6, 3) = (1, 1/2); at x: theta . x = 5/2, x^T A^-1 x = 5/6. The other arm: 0 and x . x = 5.
    """
    agent = LinUCB(None, alpha=2.0, shape=(1, 2))
    x = np.array([[2.0]])
    agent.update(x, np.array([1]), np.array([3.0]))
    assert agent.covariance[1].tolist() == [[5, 2], [2, 2]] and agent.target[1].tolist() == [6, 3]
    assert agent.expected(x)[0] == pytest.approx([0, 2.5])
    assert agent.bound(x)[0] == pytest.approx([2 * 5**0.5, 2.5 + 2 * (5 / 6) ** 0.5])
    assert agent.predict(x)[0].tolist() == [1] and agent.num_timesteps == 1
    assert agent.predict(x, deterministic=False)[0].tolist() == [0]  # 4.47 against 4.33


def test_repeated_arms_of_a_batch_add_up():
    together, alone = LinUCB(None, shape=(2, 3)), LinUCB(None, shape=(2, 3))
    x, arms, reward = np.random.default_rng(0).random((6, 2)), np.array([0, 1, 0, 0, 1, 2]), np.arange(6.0)
    together.update(x, arms, reward)
    for i in range(6):
        alone.update(x[i : i + 1], arms[i : i + 1], reward[i : i + 1])
    assert np.allclose(together.covariance, alone.covariance) and np.allclose(together.target, alone.target)
    assert np.allclose(together.expected(x), alone.expected(x))


def test_it_finds_the_optimum_of_a_linear_problem():
    """The optimum earns E max(x1, x2, x3, 0.4 (x1 + x2 + x3)), about 0.76; the best arm for all 0.6."""
    x = np.random.default_rng(1).random((2000, 3))
    worth = x @ Linear.theta.T
    agent = LinUCB(Linear(), seed=0)
    before = worth.max(1).mean() - worth[np.arange(2000), agent.predict(x)[0]].mean()
    agent.learn(16_000)
    after = worth.max(1).mean() - worth[np.arange(2000), agent.predict(x)[0]].mean()
    assert agent.num_timesteps == 16_000
    assert after < 0.001 < 0.1 < before


def test_it_learns_on_the_twin(tmp_path):
    """The first of two masks is right on dark images, the second on bright ones; each on half of all."""
    images = validation_images()
    brightness = images.images.float().mean((1, 2, 3))
    bright = brightness > brightness.median()
    latency_ms = torch.tensor([1.0, 1.1], dtype=torch.float64)
    table_of(torch.stack([~bright, bright], 1), images, latency_ms).save(tmp_path / "table.safetensors")
    options = {"table": str(tmp_path / "table.safetensors"), "split": "val", "observation": "features"}
    envs = gym.make_vec("InstaNASTabular-v1", num_envs=50, **options)
    agent = LinUCB(envs, seed=0).learn(2000)
    observation, _ = envs.reset(seed=1)
    regrets = []
    for _ in range(20):
        observation, _, _, _, info = envs.step(agent.predict(observation)[0])
        regrets.append([info["final_info"][name].mean() for name in ("regret_image", "regret_fixed")])
    image, fixed = np.mean(regrets, 0)
    assert fixed < -0.7  # the best mask for all earns about 0, the best for each image about 1
    assert image < 0.25


def test_a_seed_repeats_learning_and_predictions():
    one, two, other = (LinUCB(Linear(), seed=seed).learn(160) for seed in (0, 0, 1))
    assert np.array_equal(one.covariance, two.covariance) and np.array_equal(one.target, two.target)
    assert not np.array_equal(one.target, other.target)


def test_equal_arms_are_chosen_by_chance():
    """At first all bounds are equal: a batch tries all arms and not one of them."""
    arms, _ = LinUCB(None, shape=(2, 4)).predict(np.zeros((200, 2)), deterministic=False)
    assert set(arms) == {0, 1, 2, 3}


def test_files(tmp_path):
    path = tmp_path / "agent.safetensors"
    agent = LinUCB(Linear(), alpha=0.2, ridge=0.5, seed=0).learn(320)
    agent.save(path, {"note": "here"})
    again = LinUCB.load(path, Linear())
    x = np.random.default_rng(0).random((20, 3))
    assert np.array_equal(again.bound(x), agent.bound(x)) and again.num_timesteps == 320
    assert LinUCB.load(path).predict(x[0])[0] == agent.predict(x[0])[0] == agent.predict(x)[0][0]
    assert again.learn(16).num_timesteps == 336


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: c.update(agent="Other"), "holds no LinUCB .*unknown 'Other'"),
        (lambda t, c: c.update(arms=5), r"does not fit: covariance is .*\(5, 4, 4\)"),
        (lambda t, c: t.pop("target"), r"lacks \['target'\]"),
        (lambda t, c: t.update(target=t["target"] * float("nan")), "holds NaN or inf in target"),
        (lambda t, c: t.update(covariance=t["covariance"] * 0), "without an inverse"),
    ],
)
def test_wrong_files_are_refused(tmp_path, change, message):
    path = tmp_path / "agent.safetensors"
    LinUCB(None, shape=(3, 4)).save(path)
    tensors, config = load_weights(path)
    change(tensors, config)
    save_weights(path, tensors, config)
    with pytest.raises(ValueError, match=f"path: .*{message}"):
        LinUCB.load(path)


def test_another_environment_is_begun_with_the_seed():
    """And one of another shape is refused; wrappers may change rewards, as only those are learnt from."""
    agent, other = LinUCB(Linear(), seed=3).learn(16), TransformReward(Linear(8), lambda reward: reward + 9)
    small = Linear()
    small.single_observation_space, small.single_action_space = spaces.Box(0, 1, (2,)), spaces.Discrete(3)
    agent.env = other
    assert agent.learn(8).num_timesteps == 24 and other.env.np_random_seed == 3
    assert agent.expected(np.ones((1, 3))).max() > 3
    with pytest.raises(
        ValueError, match=r"^env: got \(features, arms\) \(2, 3\); those of this agent, \(3, 4\),"
    ):
        agent.env = small
    assert agent.env is other


def test_wrong_arguments_are_named(tmp_path):
    path = tmp_path / "agent.safetensors"
    LinUCB(None, shape=(3, 5)).save(path)
    with pytest.raises(ValueError, match=r"has \(features, arms\) \(3, 5\); env has \(3, 4\)"):
        LinUCB.load(path, Linear())
    with pytest.raises(ValueError, match="env: got observations .* vectors and Discrete will do"):
        LinUCB(gym.make_vec("InstaNAS-v1", num_envs=2, split="val"))
    with pytest.raises(ValueError, match="env: got None and no shape"):
        LinUCB(None)
    with pytest.raises(ValueError, match="assign agent.env to train it"):
        LinUCB(None, shape=(3, 4)).learn(1)
    with pytest.raises(ValueError, match=r"observation: got float64 \(2,\); \(3,\) or \(n, 3\)"):
        LinUCB(None, shape=(3, 4)).predict(np.zeros(2))
    with pytest.raises(ValueError, match="alpha: got -1"):
        LinUCB(None, alpha=-1, shape=(3, 4))
