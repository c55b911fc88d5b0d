"""LinUCB with disjoint linear models (Li et al., "A Contextual-Bandit Approach to Personalized News Article
Recommendation", 2010, algorithm 1): arm a is expected to earn theta_a . x; it is tried where that is unsure.

    envs = gym.make_vec("InstaNASTabular-v1", num_envs=64, observation="features")
    agent = LinUCB(envs, alpha=0.3, seed=0).learn(100_000)

Takes any environment whose observations are vectors and whose actions are the numbers of K arms: the tabular
twin, or InstaNAS-v1 with ``observation="features"`` and a menu. All images of a step are judged by the same
models, which then learn from all of the rewards.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from typing_extensions import Self

from agents.agent import env_to_learn_from
from instanas_env import checks
from instanas_env.storage import PathLike, check_weights, load_weights, save_weights
from instanas_env.validation import integer, json_object, number, record, text

_CONFIG = record(
    {
        "agent": text("LinUCB"),
        "alpha": number(0),
        "ridge": number(0, above=True),
        "features": integer(1, 10**5),
        "arms": integer(1, 10**6),
        "num_timesteps": integer(0, 10**18),
        "record": json_object,
    }
)


class LinUCB:
    """One ridge regression an arm, and an upper confidence bound on what each would earn.

    Args:
        env: from ``gym.make_vec``; None for an agent that only predicts.
        alpha: width of the confidence bound; 0 is greedy.
        ridge: the regressions' penalty.
        seed: of the environment's first reset and of the choice between equal arms.
        shape: (features, arms) of an agent without an environment.

    Attributes:
        covariance: float64 ``(K, d, d)``, A_a = ridge I + sum of x x^T; d counts a constant 1 too.
        target: float64 ``(K, d)``, b_a = sum of r x.
        num_timesteps: images learnt from.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv | None,
        alpha: float = 0.3,
        ridge: float = 1.0,
        seed: int = 0,
        shape: tuple[int, int] | None = None,
    ):
        self.alpha = checks.number("alpha", alpha, 0)
        self.ridge = checks.number("ridge", ridge, 0, above=True)
        self.seed = checks.whole("seed", seed)
        self.features, self.arms = shape if env is None and shape is not None else _shape(env)
        self._env, self._begun = env, False
        self.rng = np.random.default_rng(self.seed)
        size = self.features + 1
        self.covariance = np.tile(self.ridge * np.eye(size), (self.arms, 1, 1))
        self.target = np.zeros((self.arms, size))
        self._inverse, self._theta = np.empty_like(self.covariance), np.empty_like(self.target)
        self.num_timesteps = 0
        self._solve(np.arange(self.arms))

    @property
    def env(self) -> gym.vector.VectorEnv | None:
        """What it learns from; another one can be assigned, ``ValueError`` if that has another shape."""
        return self._env

    @env.setter
    def env(self, env: gym.vector.VectorEnv | None) -> None:
        shape = (self.features, self.arms)
        if env is not None and _shape(env) != shape:
            raise ValueError(
                f"env: got (features, arms) {_shape(env)}; those of this agent, {shape}, will do"
            )
        if env is not self._env:
            self._env, self._begun = env, False

    # --- the algorithm ---------------------------------------------------------------------------

    def expected(self, observation: np.ndarray) -> np.ndarray:
        """theta_a . x: what each arm is expected to earn, ``(n, d - 1)`` to ``(n, K)``."""
        return _with_one(observation) @ self._theta.T

    def bound(self, observation: np.ndarray) -> np.ndarray:
        """theta_a . x + alpha sqrt(x^T A_a^-1 x), ``(n, d - 1)`` to ``(n, K)``."""
        x = _with_one(observation)
        variance = np.stack([((x @ inverse) * x).sum(1) for inverse in self._inverse], 1)
        return x @ self._theta.T + self.alpha * np.sqrt(np.maximum(variance, 0))

    def update(self, observation: np.ndarray, arms: np.ndarray, reward: np.ndarray) -> None:
        """Learn what ``arms`` ``(n,)`` earned on ``observation`` ``(n, d - 1)``."""
        x = _with_one(observation)
        np.add.at(self.covariance, arms, x[:, :, None] * x[:, None, :])
        np.add.at(self.target, arms, reward[:, None] * x)
        self._solve(np.unique(arms))
        self.num_timesteps += len(x)

    def _solve(self, arms: np.ndarray) -> None:
        """Bring the inverses and theta of ``arms`` up to date."""
        self._inverse[arms] = np.linalg.inv(self.covariance[arms])
        self._theta[arms] = (self._inverse[arms] @ self.target[arms][:, :, None])[:, :, 0]

    # --- the surface of an agent -----------------------------------------------------------------

    def learn(self, total_timesteps: int, *, progress_bar: bool = False) -> Self:
        """Learn from ``total_timesteps`` further images (rounded up to whole steps of the environment).

        Raises:
            ValueError: no environment, or one whose autoreset is not SAME_STEP.
        """
        checks.flag("progress_bar", progress_bar)
        env = env_to_learn_from(self.env)
        total = checks.whole("total_timesteps", total_timesteps, 1)
        steps: Any = range(-(-total // env.num_envs))
        if progress_bar:
            from rich.progress import track

            steps = track(steps, "LinUCB")
        # A plain reset keeps the images that wait, so that no pass loses any between two calls.
        observation, _ = env.reset(seed=None if self._begun else self.seed)
        self._begun = True
        for _ in steps:
            arms = self._choose(self.bound(observation))
            following, reward, _, _, _ = env.step(arms)
            self.update(observation, arms, np.asarray(reward, np.float64))
            observation = following
        return self

    def predict(
        self,
        observation: Any,
        state: None = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, None]:
        """Arms for one observation ``(d - 1,)`` or a batch ``(n, d - 1)``, int64.

        Args:
            observation: of numbers.
            state, episode_start: part of SB3's surface; without meaning here.
            deterministic: the arm expected to earn most; False takes the one of the highest bound.
        """
        x = np.asarray(observation)
        if x.dtype.kind not in "fiu" or x.ndim not in (1, 2) or x.shape[-1] != self.features:
            forms = f"({self.features},) or (n, {self.features}) of numbers"
            raise ValueError(f"observation: got {x.dtype} {x.shape}; {forms} will do")
        batch = np.atleast_2d(x)
        arms = self.expected(batch).argmax(1) if deterministic else self._choose(self.bound(batch))
        return (arms if x.ndim == 2 else arms[0]), None

    def _choose(self, values: np.ndarray) -> np.ndarray:
        """An arm of the highest value for each row, by chance where several are equal."""
        best = values >= values.max(1, keepdims=True)
        return (best * self.rng.random(values.shape)).argmax(1)

    # --- files -----------------------------------------------------------------------------------

    def save(self, path: PathLike, record: dict[str, Any] | None = None) -> None:
        """Write the models as safetensors; ``record`` (JSON-able) goes with them."""
        names = ("alpha", "ridge", "features", "arms", "num_timesteps")
        config = {"agent": "LinUCB", **{name: getattr(self, name) for name in names}, "record": record or {}}
        models = {name: torch.from_numpy(getattr(self, name)) for name in ("covariance", "target")}
        save_weights(path, models, config)

    @classmethod
    def load(cls, path: PathLike, env: gym.vector.VectorEnv | None = None, seed: int = 0) -> Self:
        """Read an agent; ``ValueError`` if the file holds something else or does not fit ``env``."""
        tensors, config = load_weights(path)
        with checks.explained(f"path: {path} holds no LinUCB"):
            content = _CONFIG(config, "config")
        shape = (content["features"], content["arms"])
        if env is not None and _shape(env) != shape:
            raise ValueError(f"path: {path} has (features, arms) {shape}; env has {_shape(env)}")
        size = (shape[1], shape[0] + 1)
        shapes = {"covariance": (*size, size[1]), "target": size}
        like = {name: torch.empty(s, dtype=torch.float64, device="meta") for name, s in shapes.items()}
        check_weights(tensors, like, f"path: {path}")
        agent = cls(env, content["alpha"], content["ridge"], seed, shape)
        agent.covariance, agent.target = tensors["covariance"].numpy(), tensors["target"].numpy()
        agent.num_timesteps = content["num_timesteps"]
        with checks.explained(f"path: {path} holds a covariance without an inverse", np.linalg.LinAlgError):
            agent._solve(np.arange(agent.arms))
        return agent


def _with_one(observation: np.ndarray) -> np.ndarray:
    """x: the features and a constant 1, float64 ``(n, d)``."""
    return np.concatenate([np.asarray(observation, np.float64), np.ones((len(observation), 1))], 1)


def _shape(env: gym.vector.VectorEnv | None) -> tuple[int, int]:
    """(features, arms) of an environment; ``ValueError`` for one of another kind."""
    if env is None:
        raise ValueError("env: got None and no shape; one of the two is needed")
    seen, action = env.single_observation_space, env.single_action_space
    if not (isinstance(seen, spaces.Box) and len(seen.shape) == 1 and isinstance(action, spaces.Discrete)):
        raise ValueError(
            f"env: got observations {seen} and actions {action}; vectors and Discrete will do, such as"
            ' gym.make_vec("InstaNASTabular-v1", num_envs=64, observation="features")'
        )
    if action.start != 0:
        raise ValueError(f"env: got actions from {action.start}; from 0 will do")
    return seen.shape[0], int(action.n)
