"""A contest of policies on a frozen meta-graph: the splits, the fixed masks, and how each policy is made.

Fixed masks are ranked on the validation split; nothing is chosen on the test split.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.progress import track
from torch import Tensor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.agent import Agent
from agents.evaluation.scores import choose_masks, score_masks
from agents.files import load_agent
from agents.one_shot import Candidate, OneShotSearch
from agents.predicting import Predicting
from agents.reinforce import PAPER_SETTINGS, SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.static import RandomAgent, StaticAgent
from instanas_env import reward
from instanas_env.bandit import InstanceBandit
from instanas_env.build import build_bandit, shipped
from instanas_env.storage import load_json, save_json

NUM_ENVS = 256
SB3_ALGORITHMS = ("ppo", "a2c")
RANDOM_KEEP = 0.2
"""One module a cell on average, as MobileNetV2's path has."""


@dataclass(frozen=True)
class Budget:
    """How much a policy may learn from, and how many fixed masks are looked at.

    Attributes:
        steps: answers (an image under a mask) that a learner asks for.
        masks: fixed masks ranked on validation, half of them mutations of the best.
        menu: so many of these regression chooses from, and regret is against.
        gradient_steps: of regression, for every 256 images.
    """

    steps: int
    masks: int
    menu: int
    gradient_steps: int


class Contest:
    """Environments, fixed masks and policies of one comparison.

    Args:
        out: directory, where the fixed masks are kept.
        environment: keyword arguments of ``InstaNAS-v1``; data set, weights, table.
        budget: see :class:`Budget`.
        seed: of the search of fixed masks.
        trust: whether files that may run code are loaded: SB3's zips.
        device: where the meta-graph computes.
    """

    def __init__(
        self,
        out: Path,
        environment: dict[str, Any],
        budget: Budget,
        seed: int = 0,
        trust: bool = False,
        device: str = "cpu",
    ):
        self.out, self.environment, self.budget = out, {**environment, "device": device}, budget
        self.seed, self.trust = seed, trust
        self.val, self.test = (build_bandit(split=split, **self.environment) for split in ("val", "test"))
        self.space = self.val.space
        self.makers: dict[str, Callable[[int], Agent]] = {
            "random": lambda seed: RandomAgent(self.space, RANDOM_KEEP, seed),
            "fixed": lambda seed: StaticAgent(self.space, self.masks("best")[0]),
            "regression": self._regression,
            "reinforce": lambda seed: self._reinforce(seed, {}),
            "paper": lambda seed: self._reinforce(seed, PAPER_SETTINGS),
            "shipped": lambda seed: load_agent(shipped("reference/controller.safetensors")),
            **{name: partial(self._sb3, name) for name in SB3_ALGORITHMS},
        }

    def envs(self) -> gym.vector.VectorEnv:
        """A fresh training environment."""
        return gym.make_vec("InstaNAS-v1", num_envs=NUM_ENVS, split="train", **self.environment)

    # --- fixed masks -----------------------------------------------------------------------------

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """The best fixed mask and the menu, as they stand in fixed.json; searched for if there is none."""
        file = self.out / "fixed.json"
        if not file.exists():
            search = OneShotSearch(self.val, self.seed, images=len(self.val.image_set))
            count = self.budget.masks
            for _ in track(search.rank(count), "fixed masks", total=count):
                pass
            best = max(search.candidates, key=lambda candidate: worth(self.val, candidate))
            save_json(
                file,
                {
                    "best": [best.mask.flatten().int().tolist()],
                    "accuracy": best.accuracy,
                    "frontier": [[c.accuracy, c.latency_ms] for c in search.frontier],
                    "menu": search.menu(self.budget.menu).flatten(1).int().tolist(),
                },
            )
        return load_json(file)

    def masks(self, name: str) -> Tensor:
        """The masks "best" ``(1, ...)`` or "menu" ``(K, num_cells, num_modules)``."""
        return torch.tensor(self.fixed[name]).bool().view(-1, self.space.num_cells, self.space.num_modules)

    # --- policies --------------------------------------------------------------------------------

    def make(self, name: str, seed: int) -> Agent:
        """The policy of a name, trained where it learns.

        Args:
            name: one of :attr:`makers`, a ``.safetensors`` file, a ``.zip`` of SB3's, or ``module:Class``.
            seed: of the training.

        Raises:
            ValueError: none of these.
        """
        if name in self.makers:
            return self.makers[name](seed)
        if name.endswith(".safetensors"):
            return load_agent(name)
        if name.endswith(".zip"):
            return Predicting(self.space, self._unzipped(Path(name)))
        module, _, attribute = name.partition(":")
        if not attribute:
            raise ValueError(
                f"policies: unknown {name!r}; choose from {', '.join(self.makers)}, or give a .safetensors"
                " file, a .zip of Stable-Baselines3 or module:Class"
            )
        return self._of_user(module, attribute, seed)

    def _of_user(self, module: str, attribute: str, seed: int) -> Agent:
        """``Class(envs, seed=seed)``, which learns if it can; an :class:`Agent` or anything that predicts."""
        sys.path.insert(0, "")
        try:
            kind = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"policies: {module}:{attribute} cannot be imported ({error})") from error
        finally:
            sys.path.remove("")
        policy = kind(self.envs(), seed=seed)
        if hasattr(policy, "learn"):
            policy.learn(self.budget.steps)
        return policy if isinstance(policy, Agent) else Predicting(self.space, policy)

    def _regression(self, seed: int) -> Agent:
        """Dialled to be as accurate as the best fixed mask on the validation images."""
        menu, images = self.masks("menu"), -(-self.budget.steps // self.budget.menu)
        agent = RewardRegression(
            self.envs(),
            random_timesteps=images,
            masks_per_image=len(menu),
            menu=menu,
            replay=-(-images // NUM_ENVS),
            gradient_steps=self.budget.gradient_steps,
            anneal_timesteps=images,
            num_classes=len(self.val.image_set.classes),
            seed=seed,
        ).learn(images, progress_bar=True)
        agent.trade_off = fastest_trade_off(agent, self.val, self.fixed["accuracy"])
        return agent

    def _reinforce(self, seed: int, settings: dict[str, Any]) -> Agent:
        agent = SelfCriticalReinforce(self.envs(), seed=seed, **settings)
        return agent.learn(self.budget.steps, progress_bar=True)

    def _sb3(self, name: str, seed: int) -> Agent:
        """PPO or A2C on the controller's convolutions; one-step episodes, so no discount."""
        stable_baselines3 = _stable_baselines3()
        from agents.sb3 import ControllerPolicy, NativeVecEnv

        more = {"n_steps": 4, "batch_size": 256, "n_epochs": 4} if name == "ppo" else {"n_steps": 1}
        envs = stable_baselines3.common.vec_env.VecMonitor(NativeVecEnv(self.envs()))
        given = {"gamma": 0.0, "gae_lambda": 1.0, "seed": seed, "device": "cpu", **more}
        with kept_random_state():
            model = getattr(stable_baselines3, name.upper())(ControllerPolicy, envs, **given)
            model.learn(self.budget.steps)
        return Predicting(self.space, model)

    def _unzipped(self, path: Path) -> Any:
        """A model of SB3's; the file's name begins with its algorithm."""
        if not self.trust:
            raise ValueError(
                f"policies: {path} may run code of whoever wrote it when Stable-Baselines3 reads it;"
                " --trust reads it nevertheless"
            )
        name = path.stem.split("_")[0].split("-")[0].upper()
        kind = getattr(_stable_baselines3(), name, None)
        if kind is None:
            raise ValueError(f"policies: {path} should begin with an algorithm, as ppo.zip or dqn_1.zip do")
        return kind.load(path, device="cpu")


def _stable_baselines3() -> Any:
    try:
        return import_module("stable_baselines3")
    except ImportError as error:
        raise ValueError('policies: these need stable-baselines3: pip install "instanas-env[sb3]"') from error


@contextmanager
def kept_random_state() -> Iterator[None]:
    """SB3 seeds the global generators; they are put back as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def fastest_trade_off(agent: RewardRegression, val: InstanceBandit, target: float) -> float:
    """The largest lambda at which the policy is at least as accurate as ``target``; the best if none is."""
    accuracy = {}
    for trade_off in np.geomspace(30.0, 0.03, 25):  # logits per ms
        agent.trade_off = float(trade_off)
        accuracy[agent.trade_off] = float(score_masks(val, choose_masks(agent, val.image_set)).correct.mean())
        if accuracy[agent.trade_off] >= target:
            return agent.trade_off
    return max(accuracy, key=lambda trade_off: accuracy[trade_off])


def worth(bandit: InstanceBandit, candidate: Candidate) -> float:
    """Mean reward of a fixed mask, from its accuracy."""
    latency = torch.tensor(candidate.latency_ms, dtype=torch.float64)
    earned = bandit.correct_reward * reward.latency_reward(latency, bandit.bounds).item()
    return candidate.accuracy * earned + (1 - candidate.accuracy) * bandit.wrong_reward
