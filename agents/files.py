"""Reading an agent whose class is known to its file only."""

from __future__ import annotations

from agents.agent import Agent
from agents.blockdrop import BlockDrop
from agents.convnet_aig import ConvNetAIG
from agents.early_exit import EarlyExit
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.static import RandomAgent, StaticAgent
from instanas_env.storage import PathLike, load_config, load_weights

CLASSES: tuple[type[Agent], ...] = (
    SelfCriticalReinforce,
    RewardRegression,
    BlockDrop,
    ConvNetAIG,
    EarlyExit,
    StaticAgent,
    RandomAgent,
)
AGENTS = {agent.__name__: agent for agent in CLASSES}


def load_agent(path: PathLike) -> Agent:
    """The agent that ``save`` wrote to ``path``; ``ValueError`` if its class is not one of :data:`AGENTS`."""
    name = load_config(path).get("agent")
    if not isinstance(name, str) or name not in AGENTS:
        load_weights(path)  # where a flipped bit made the name, its error says so
        raise ValueError(f"path: {path} holds {name!r}; known agents are {', '.join(AGENTS)}")
    return AGENTS[name].load(path)
