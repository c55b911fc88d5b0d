"""Policies by their names, each ready to learn: ours, Stable-Baselines3's, files, and anybody's class.

All learn from the same number of answers, an image under a mask being one. Some are given more than a bandit
gets, which is the reward of what it did:

- ``reinforce`` reads the images' labels, for its second loss, and has 4 masks an image answered at once, as
  has ``unnamed``, which is the same without labels; ``paper`` and ``blockdrop`` have 2, of which one is their
  baseline.
- ``regression`` has the whole menu answered for each of fewer images, reads the labels, and knows the table.
- ``early-exit`` is ``regression`` whose controller answers itself where it is sure, which no action of the
  environment can.
- ``blockdrop`` is told right and wrong apart from the reward: its own pays for blocks, not for ms.
- ``convnet-aig`` sees no reward: it reads the labels and differentiates the frozen meta-graph, all modules of
  which run for every image, so that one of its answers tells, and costs, far more than a bandit's.
- ``dqn`` and ``linucb`` get less, a menu in place of all masks; it was found on validation images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import Agent
from agents.blockdrop import BlockDrop
from agents.convnet_aig import ConvNetAIG
from agents.early_exit import NEVER, EarlyExit
from agents.evaluation.scores import score_agent
from agents.files import load_agent
from agents.linucb import LinUCB
from agents.reinforce import PAPER_SETTINGS, SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.static import RandomAgent, StaticAgent
from instanas_env.build import shipped, shipped_table
from instanas_env.contextual import ContextualBandit
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts.comparison.contest import TWIN, Contest
from scripts.comparison.learning import Entry
from scripts.comparison.plugged import SB3, algorithm, imported, of_sb3, of_user, predicting, unzipped

Maker = Callable[[Contest, int], Entry]
RANDOM_KEEP = 0.2
"""One module a cell on average, as MobileNetV2's path has."""
TRADE_OFFS = tuple(np.geomspace(3.0, 0.03, 11).tolist())
"""P(correct) per ms between which regression's dial is set, in "lite"; where all modules take longer, one
weighs less."""


CONFIDENCES = (NEVER, 0.99, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
"""From which one on early-exit's controller answers; the first is never."""


class RandomMenu(Agent):
    """A mask of a menu ``(K, num_cells, num_modules)``, drawn for each image."""

    def __init__(self, space: Any, menu: Tensor, seed: int):
        super().__init__(space)
        self.menu, self.generator = menu, generator_for(seed)

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        return self.menu[torch.randint(len(self.menu), (len(images),), generator=self.generator)]


def enter(contest: Contest, name: str, seed: int) -> Entry:
    """The policy of a name, before it learns.

    Args:
        contest: what it learns on.
        name: see :func:`maker`.
        seed: of the training.
    """
    return maker(contest, name)(contest, seed)


def maker(contest: Contest, name: str) -> Maker:
    """What makes the policy of a name.

    Args:
        contest: what it is to learn on.
        name: one of :data:`MAKERS`, a ``.safetensors`` file, a ``.zip`` of SB3's, or ``module:Class``.

    Raises:
        ValueError: a name that is none, or what needs a package or trust that is not there.
    """
    names = [known for known in MAKERS if not contest.twin or known in ON_THE_TWIN]
    if name in MAKERS:
        if name not in names:
            will_do = ", ".join(names)
            raise ValueError(f"policies: {name!r} chooses any mask, {TWIN} has arms; {will_do} will do")
        if name in SB3:
            algorithm(name)
        if name == "shipped":
            return _saved(contest, name, shipped("reference/controller.safetensors"))
        return MAKERS[name]
    if name.endswith(".safetensors"):
        return _saved(contest, name, Path(name))
    if name.endswith(".zip"):
        if not contest.trust:
            raise ValueError(
                f"policies: {name} may run code of whoever wrote it when Stable-Baselines3 reads it;"
                " --trust reads it nevertheless"
            )
        return lambda contest, seed: Entry(unzipped(contest, Path(name)))
    if ":" in name:
        kind = imported(name)
        return lambda contest, seed: of_user(contest, kind, seed)
    raise ValueError(
        f"policies: unknown {name!r}; choose from {', '.join(names)}, or give a .safetensors"
        " file, a .zip of Stable-Baselines3 or module:Class"
    )


def _saved(contest: Contest, name: str, file: Path) -> Maker:
    """What reads an agent from its file, which is seen to be of the contest's space now, not after hours."""
    contest.space.expect(**{f"policies: {name}": load_agent(file).space})
    return lambda contest, seed: Entry(load_agent(file))


# --- ours --------------------------------------------------------------------------------------------


def _random(contest: Contest, seed: int) -> Entry:
    if contest.twin:
        return Entry(RandomMenu(contest.space, contest.masks("menu"), seed))
    return Entry(RandomAgent(contest.space, RANDOM_KEEP, seed))


def _fixed(contest: Contest, seed: int) -> Entry:
    agent, found = StaticAgent(contest.space, contest.masks("best")[0]), contest.fixed
    return Entry(agent, spent={"steps": found["answers"], "seconds": found["seconds"]})


def _ours(contest: Contest, kind: type[Any], answers: int, seed: int, **settings: Any) -> Entry:
    """A learner that asks for so many ``answers`` about each image."""
    envs = contest.envs()
    agent, images = kind(envs, seed=seed, **settings), -(-contest.budget.steps // answers)
    return Entry(agent, envs, lambda: agent.learn(images, progress_bar=contest.progress))


def _regression(contest: Contest, seed: int) -> Entry:
    """With the dial where it earns most on the validation images."""
    menu = contest.masks("menu")
    images = -(-contest.budget.steps // len(menu))
    entry = _ours(
        contest,
        RewardRegression,
        len(menu),
        seed,
        random_timesteps=images,
        masks_per_image=len(menu),
        menu=menu,
        replay=-(-images // contest.num_envs),
        gradient_steps=1,
        passes=contest.budget.passes,
        anneal_timesteps=images,
        num_classes=len(contest.val.image_set.classes),
        augment=True,
    )
    agent: Any = entry.agent

    def dial(val: ContextualBandit) -> None:
        agent.trade_off = best_trade_off(agent, val)

    entry.tune = dial
    return entry


def _early_exit(contest: Contest, seed: int) -> Entry:
    """Regression, then with the confidence at which it earns most on the validation images."""
    entry = _regression(contest, seed)
    agent = EarlyExit(entry.agent, NEVER)  # type: ignore[arg-type]

    def tune(val: ContextualBandit) -> None:
        """The dial first, as for regression; then the confidence."""
        entry.tune(val)

        def earned(confidence: float) -> float:
            agent.confidence = confidence
            return float(score_agent(val, agent).reward.mean())

        agent.confidence = max(CONFIDENCES, key=earned)

    return Entry(agent, entry.envs, entry.learn, tune)


def trade_offs(bandit: ContextualBandit) -> list[float]:
    """:data:`TRADE_OFFS` in the latencies of a bandit's space."""
    lite = LatencyTable.load(shipped_table(SearchSpace.preset("lite"))).reference("full")
    scale = lite / bandit.cost_table.reference("full")
    return [each * scale for each in TRADE_OFFS]


def best_trade_off(agent: RewardRegression, val: ContextualBandit) -> float:
    """The lambda of :func:`trade_offs` under which the policy earns most on the validation images."""

    def earned(trade_off: float) -> float:
        agent.trade_off = trade_off
        return float(score_agent(val, agent).reward.mean())

    return max(trade_offs(val), key=earned)


def _linucb(contest: Contest, seed: int) -> Entry:
    """On live rewards of the menu, one mask an image; on the twin of all masks of its table."""
    envs = contest.envs_of_arms("features")
    learner = LinUCB(envs, seed=seed)
    agent = predicting(contest, learner, envs)
    return Entry(agent, envs, lambda: learner.learn(contest.budget.steps, progress_bar=contest.progress))


MAKERS: dict[str, Maker] = {
    "random": _random,
    "fixed": _fixed,
    "reinforce": lambda contest, seed: _ours(contest, SelfCriticalReinforce, 4, seed),
    "unnamed": lambda contest, seed: _ours(contest, SelfCriticalReinforce, 4, seed, naming_coefficient=0.0),
    "paper": lambda contest, seed: _ours(contest, SelfCriticalReinforce, 2, seed, **PAPER_SETTINGS),
    "regression": _regression,
    "early-exit": _early_exit,
    **{name: partial(of_sb3, name=name) for name in SB3},
    "linucb": _linucb,
    "convnet-aig": lambda contest, seed: _ours(contest, ConvNetAIG, 1, seed),
    "blockdrop": lambda contest, seed: _ours(contest, BlockDrop, 2, seed),
    "shipped": lambda contest, seed: Entry(load_agent(shipped("reference/controller.safetensors"))),
}
ON_THE_TWIN = ("random", "fixed", "linucb", *SB3)
