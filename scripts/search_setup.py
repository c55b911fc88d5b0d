"""What a search is made of: the agent, the environment (or this process's shard of it), the callback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.agent import LearningAgent, native
from agents.blockdrop import BlockDrop
from agents.convnet_aig import ConvNetAIG
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from instanas_env.callbacks import MetaGraphUpdate
from instanas_env.distributed import ALONE, World
from scripts.teacher import load_teacher

if TYPE_CHECKING:
    from scripts.search import Options


def make_agent(
    options: Options, envs: gym.vector.VectorEnv, images: int, world: World = ALONE
) -> LearningAgent:
    """The agent of the options, for a search over ``images`` per epoch."""
    rate: dict[str, Any] = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    if options.agent == "reinforce":
        return SelfCriticalReinforce(
            envs,
            alpha=options.alpha,
            horizon=images * options.epochs,
            entropy_coefficient=options.entropy_coefficient,
            constant_rate=options.constant_rate,
            naming_coefficient=options.naming_coefficient,
            samples_per_image=options.samples_per_image,
            log_probability_under=options.log_probability_under,
            seed=options.seed,
            world=world,
            **rate,
        )
    if options.agent == "blockdrop":
        return BlockDrop(
            envs,
            reward=options.block_reward,
            gamma=options.gamma,
            curriculum_timesteps=images * options.curriculum_epochs or None,
            seed=options.seed,
            world=world,
            **rate,
        )
    if options.agent == "convnet-aig":
        if world.size > 1:
            raise ValueError(f"agent: convnet-aig learns in one process only; got {world.size}")
        return ConvNetAIG(envs, target=options.target_rate, seed=options.seed, **rate)
    random_epochs = options.random_epochs
    if random_epochs is None:
        random_epochs = max(1, options.frozen_epochs)
    bandit = native(envs).bandit
    unit = bandit.latency_table.reference("mobilenet_v2")
    return RewardRegression(
        envs,
        latencies=(options.latencies[0] * unit, options.latencies[1] * unit),
        random_timesteps=images * random_epochs,
        anneal_timesteps=images * options.epochs if options.anneal else None,
        num_classes=len(bandit.image_set.classes) if options.naming_coefficient else 0,
        seed=options.seed,
        world=world,
        **rate,
    )


def make_envs(options: Options, split: str, num_envs: int, **more: Any) -> gym.vector.VectorEnv:
    """The native vector environment of the options."""

    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    return gym.make_vec(
        "InstaNAS-v1",
        num_envs=num_envs,
        dataset=options.dataset,
        data_dir=text(options.data_dir),
        split=split,
        search_space=options.search_space,
        meta_graph=text(options.meta_graph),
        latency_table=text(options.latency_table),
        wrong_reward=options.wrong_reward,
        **more,
    )


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


def make_update(options: Options, world: World = ALONE) -> MetaGraphUpdate:
    """The callback that trains the meta-graph between the agent's epochs."""
    early = (options.epochs + options.frozen_epochs) // 2
    return MetaGraphUpdate(
        learning_rate=options.meta_graph_learning_rate,
        final_learning_rate=options.meta_graph_learning_rate / 10,
        epochs=options.epochs,
        frozen_epochs=options.frozen_epochs,
        shuffle={"on": True, "off": False, "early": early}[options.shuffle],
        augmentation=options.augmentation,
        teacher=load_teacher(options.teacher, world.device),
        seed=options.seed,
        world=world,
    )
