"""The options of a search, and what it works with: the agent, its environment, the meta-graph's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import tyro

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.agent import native
from agents.blockdrop import BlockDrop, RewardName
from agents.convnet_aig import ConvNetAIG
from agents.learning import LearningAgent
from agents.reinforce import LogProbability, SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from instanas_env import paper
from instanas_env.callbacks import MetaGraphUpdate
from instanas_env.data import LIGHT, Augmentation
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.teacher import load_teacher
from instanas_env.wrappers.menu import load_menu
from scripts.options import Compute, Data, Folder, Weights, environment

Shuffle = Literal["on", "off", "early"]


def settings(agent: Any, *left_out: str) -> dict[str, Any]:
    """The options of an agent that are arguments of its class by the same name."""
    return {name: value for name, value in vars(agent).items() if name not in ("name", *left_out)}


@dataclass(frozen=True)
class Reinforce:
    """The paper's self-critical REINFORCE (section 3.3)."""

    name: tyro.conf.Fixed[str] = "reinforce"
    learning_rate: float = 1.5e-3
    alpha: tuple[float, float] = (paper.ALPHA_START, paper.ALPHA_END)
    """Alpha of p', first and last."""
    samples_per_image: int = 4
    """1 is the paper's greedy baseline, more compare samples with each other."""
    log_probability_under: LogProbability = "p_prime"
    """The distribution of equation (1), or the one that was sampled from."""
    entropy_coefficient: tuple[float, float] = (0.003, 0.0006)
    """Weight of the entropy in the objective, first and last."""
    naming_coefficient: float = 0.3
    """Weight of a second loss, which names the images."""
    constant_rate: float = 0.5
    """The part of the search after which the learning rate falls to 0."""

    def make(self, envs: gym.vector.VectorEnv, search: Options, images: int, world: World) -> LearningAgent:
        """The agent, for ``images`` an epoch."""
        horizon = images * search.epochs
        return SelfCriticalReinforce(envs, horizon=horizon, seed=search.seed, world=world, **settings(self))


@dataclass(frozen=True)
class Regression:
    """Our reward regression: it predicts who is right where, and has a dial for the latency."""

    name: tyro.conf.Fixed[str] = "regression"
    learning_rate: float = 2e-3
    latencies: tuple[float, float] = (0.4, 1.2)
    """Mean latencies between which it explores, in multiples of MobileNetV2's path."""
    dial: float = 0.6
    """Mean latency of the policy that is validated and saved, in the same unit."""
    random_epochs: int | None = None
    """So many epochs come first with random masks; by default the frozen ones, or one."""
    anneal: bool = True
    """The learning rate falls to 0 over the search."""
    names: bool = True
    """Its network also learns to name the images."""
    menu: Path | None = None
    """Masks to choose between, such as menu.json of `instanas oneshot`; by default every module by itself. An
    experiment looks for it in its own directory."""
    masks_per_image: int = 1
    """So many masks of an image are answered when it is shown."""
    replay: int = 64
    """Steps whose images and answers are kept, and trained on again; with passes, at least those of the
    random epochs."""
    gradient_steps: int = 2
    """Of the optimizer for each step; all but the first on what was kept."""
    passes: int = 0
    """Over all that is kept, when the random epochs are over: explore, then commit."""
    augment: bool = False
    """Each time that images are trained on they are cropped and flipped anew."""

    def make(self, envs: gym.vector.VectorEnv, search: Options, images: int, world: World) -> LearningAgent:
        """The agent, for ``images`` an epoch; ``ValueError`` for a menu of another space."""
        random_epochs = self.random_epochs
        if random_epochs is None:
            random_epochs = max(1, search.frozen_epochs)
        if self.passes:
            self._check_passes(random_epochs, search, images)
        bandit = native(envs).bandit
        unit = bandit.latency_table.reference("mobilenet_v2")
        return RewardRegression(
            envs,
            latencies=(self.latencies[0] * unit, self.latencies[1] * unit),
            random_timesteps=images * random_epochs,
            anneal_timesteps=images * search.epochs if self.anneal else None,
            num_classes=len(bandit.image_set.classes) if self.names else 0,
            menu=None if self.menu is None else load_menu(self.menu, bandit.space, "menu"),
            seed=search.seed,
            world=world,
            **settings(self, "latencies", "dial", "random_epochs", "anneal", "names", "menu"),
        )

    def _check_passes(self, random_epochs: int, search: Options, images: int) -> None:
        """``ValueError`` if they would never come, or come when a part of what was explored is forgotten."""
        if not 1 <= random_epochs <= search.epochs:
            will_do = f"with passes, 1 to {search.epochs} will do, of the epochs"
            raise ValueError(f"random_epochs: got {random_epochs}; {will_do}")
        steps = -(-images * random_epochs // search.num_envs)
        if self.replay < steps:
            will_do = f"with passes, at least {steps} will do, the steps of the random epochs"
            raise ValueError(f"replay: got {self.replay}; {will_do}")


@dataclass(frozen=True)
class BlockDropOptions:
    """BlockDrop (Wu et al., 2018): MobileNetV2's blocks on or off."""

    name: tyro.conf.Fixed[str] = "blockdrop"
    learning_rate: float = 3e-3
    reward: RewardName = "blocks"
    """Its own reward, or the environment's."""
    gamma: float = 5.0
    """Penalty of a wrong answer in its own reward."""
    curriculum_epochs: int = 0
    """So many epochs free one block after the other, the last ones first."""

    def make(self, envs: gym.vector.VectorEnv, search: Options, images: int, world: World) -> LearningAgent:
        """The agent, for ``images`` an epoch."""
        steps = images * self.curriculum_epochs or None
        own = settings(self, "curriculum_epochs")
        return BlockDrop(envs, curriculum_timesteps=steps, seed=search.seed, world=world, **own)


@dataclass(frozen=True)
class ConvNetAIGOptions:
    """ConvNet-AIG (Veit and Belongie, 2018): a gate for each module."""

    name: tyro.conf.Fixed[str] = "convnet-aig"
    learning_rate: float = 3e-3
    target_rate: float = 0.2
    """Share of each cell's modules that is to be on."""

    def make(self, envs: gym.vector.VectorEnv, search: Options, images: int, world: World) -> LearningAgent:
        """The agent; ``ValueError`` in several processes."""
        if world.size > 1:
            raise ValueError(f"agent: convnet-aig learns in one process only; got {world.size}")
        return ConvNetAIG(envs, learning_rate=self.learning_rate, target=self.target_rate, seed=search.seed)


AgentOptions = (
    Annotated[Reinforce, tyro.conf.subcommand("reinforce", prefix_name=False)]
    | Annotated[Regression, tyro.conf.subcommand("regression", prefix_name=False)]
    | Annotated[BlockDropOptions, tyro.conf.subcommand("blockdrop", prefix_name=False)]
    | Annotated[ConvNetAIGOptions, tyro.conf.subcommand("convnet-aig", prefix_name=False)]
)
AGENTS: dict[str, Any] = {
    kind.name: kind for kind in (Reinforce, Regression, BlockDropOptions, ConvNetAIGOptions)
}


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What to search with, and for how long; an experiment has these in its preset."""

    agent: AgentOptions = field(default_factory=Reinforce, kw_only=False)
    """Who searches: the paper's REINFORCE, our reward regression, or a baseline of the paper."""
    epochs: int = 10
    """Passes over the training images, each followed by a meta-graph epoch."""
    frozen_epochs: int = 0
    """So many epochs come first in which the meta-graph stays as it is."""
    num_envs: int = 256
    """Images a step, of all processes together."""
    shuffle: Shuffle = "on"
    """Policy random shuffling in the meta-graph's epochs; "early": in the first half only."""
    meta_graph_learning_rate: float = 0.02
    """Learning rate of the first meta-graph epoch; it falls to a tenth."""
    augmentation: Augmentation = LIGHT
    """How images are changed in the meta-graph's epochs; the controller sees lightly augmented ones."""
    teacher: Path | None = None
    """Weights of a network that the meta-graph imitates, such as MobileNetV2 trained alone; all its modules
    are on."""
    wrong_reward: float = paper.WRONG_REWARD
    """R_T of a wrong answer; the regression agent reports it, but learns from right and wrong alone."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Compute, Weights, Data, Folder):
    """What to search with, on what, and for how long."""

    seed: int = 0


def make_envs(options: Options, split: str, num_envs: int, **more: Any) -> gym.vector.VectorEnv:
    """The native vector environment of the options."""
    given = {**environment(options), "wrong_reward": options.wrong_reward, **more}
    return gym.make_vec("InstaNAS-v1", num_envs=num_envs, split=split, **given)


def make_shard(options: Options, world: World, **more: Any) -> gym.vector.VectorEnv:
    """This process's part of the training environment."""
    count, left = divmod(options.num_envs, world.size)
    if left:
        raise ValueError(
            f"num_envs: got {options.num_envs}; a multiple of {world.size}, the processes, will do"
        )
    with world.one_first():
        shard = (world.rank, world.size)
        return make_envs(options, "train", count, device=str(world.device), shard=shard, **more)


def make_update(options: Options, num_classes: int, world: World = ALONE) -> MetaGraphUpdate:
    """The callback that trains the meta-graph between the agent's epochs."""
    early = (options.epochs + options.frozen_epochs) // 2
    return MetaGraphUpdate(
        learning_rate=options.meta_graph_learning_rate,
        final_learning_rate=options.meta_graph_learning_rate / 10,
        epochs=options.epochs,
        frozen_epochs=options.frozen_epochs,
        shuffle={"on": True, "off": False, "early": early}[options.shuffle],
        augmentation=options.augmentation,
        teacher=load_teacher(options.teacher, num_classes, world.device),
        seed=options.seed,
        world=world,
    )
