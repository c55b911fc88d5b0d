"""Any object with Stable-Baselines3's ``predict`` as an agent that gives masks: what a comparison takes."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.agent import Agent
from instanas_env import arrays
from instanas_env.contextual import Contexts
from instanas_env.observations import LAYOUTS, OBSERVATIONS, Observer
from instanas_env.search_space import SearchSpace
from instanas_env.wrappers.forms import NAMES, ActionForm, Menu, action_form


class Predicting(Agent):
    """A policy of anybody's, asked through ``predict(observation, deterministic=...) -> (actions, state)``.

    Args:
        space: the search space.
        policy: gives actions for observations of B images.
        form: of its actions; None means ``(B, num_bits)`` of zeros and ones.
        observer: makes what it sees; None means the images uint8 ``(B, 3, H, W)``.
    """

    def __init__(
        self,
        space: SearchSpace,
        policy: Any,
        form: ActionForm | None = None,
        observer: Observer | None = None,
    ):
        super().__init__(space)
        self.policy = policy
        self.form = form or action_form("bits", space)
        self.observer = observer or Observer(space.resolution)
        self.controller = nn.Identity()  # it looks at the image: its time counts as the controller's does

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """What the policy predicts; ``ValueError`` if it does not give one action for each image."""
        seen = self.observer(Contexts(torch.arange(len(images)), images))
        actions, _ = self.policy.predict(seen, deterministic=deterministic)
        expected = (len(images), *self.form.shape)
        if arrays.shape("actions", actions) != expected:
            raise ValueError(
                f"policy: {type(self.policy).__name__}.predict gave actions of shape"
                f" {arrays.shape('actions', actions)} for {len(images)} images; {expected} will do"
            )
        bits = self.form.choices(actions, (len(images),))
        return bits.view(len(images), *self.space.mask_shape)


def form_of(action_space: spaces.Space, space: SearchSpace, menu: Tensor) -> ActionForm:
    """The form whose actions an ``action_space`` has; ``ValueError`` if none has.

    Args:
        action_space: of a policy.
        space: the search space.
        menu: the masks ``(K, num_cells, num_modules)`` that Discrete(K) chooses from.
    """
    forms = [*(action_form(name, space) for name in NAMES), Menu(menu)]
    for form in forms:
        if form.space == action_space:
            return form
    known = f"actions as in {', '.join(NAMES)}, or Discrete({len(menu)})"
    raise ValueError(f"policy: chooses from {action_space}; {known}, the menu, will do")


def observer_of(observation_space: spaces.Space, side: int) -> Observer:
    """What makes the observations of an ``observation_space``; ``ValueError`` if nothing does."""
    observers = [Observer(side, layout, seen) for seen in OBSERVATIONS for layout in LAYOUTS]
    for observer in observers:
        if observer.space == observation_space:
            return observer
    known = "; ".join(dict.fromkeys(str(observer.space) for observer in observers))
    raise ValueError(f"policy: sees {observation_space}; one of {known} will do")
