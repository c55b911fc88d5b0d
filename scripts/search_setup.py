"""What a search works on: the environment, or this process's shard of it, and the callback that trains."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env.callbacks import MetaGraphUpdate
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.teacher import load_teacher
from scripts.options import environment
from scripts.search_options import Options


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
