"""InstaNAS as a Gymnasium environment: see an image, choose its network.

>>> import gymnasium as gym, instanas_env
>>> env = gym.make("InstaNAS-v1")
>>> envs = gym.make_vec("InstaNAS-v1", num_envs=256)
"""

import gymnasium as gym

from instanas_env.bandit import Contexts, InstanceBandit, Outcome, Rules
from instanas_env.callbacks import MetaGraphUpdate
from instanas_env.env import InstaNASEnv
from instanas_env.forking import survive_forks
from instanas_env.hooks import EnvCallback
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.reward import BoundsSchedule, RewardBounds
from instanas_env.search_space import SearchSpace
from instanas_env.vector_env import InstaNASVectorEnv

__all__ = [
    "BoundsSchedule",
    "Contexts",
    "EnvCallback",
    "InstaNASEnv",
    "InstaNASVectorEnv",
    "InstanceBandit",
    "LatencyTable",
    "MetaGraph",
    "MetaGraphUpdate",
    "Outcome",
    "RewardBounds",
    "Rules",
    "SearchSpace",
]

survive_forks()

gym.register(
    id="InstaNAS-v1",
    entry_point="instanas_env.env:InstaNASEnv",
    vector_entry_point="instanas_env.vector_env:InstaNASVectorEnv",
)
gym.register(
    id="InstaNASTabular-v1",
    entry_point="instanas_env.tabular:InstaNASTabularEnv",
    vector_entry_point="instanas_env.tabular:InstaNASTabularVectorEnv",
)
