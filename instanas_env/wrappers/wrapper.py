"""Wrappers that give an environment another form of action; rewards, masks and infos are the same."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from instanas_env.wrappers.forms import ActionForm, action_form, recorded


class ActionFormWrapper(gym.ActionWrapper, RecordConstructorArgs):
    """The scalar environment with another form of action.

    Args:
        env: InstaNAS with bits, in any wrappers that leave its action space alone.
        actions: see :func:`instanas_env.wrappers.forms.action_form`.
    """

    def __init__(self, env: gym.Env, actions: Any):
        form = _form(env, env.action_space.shape, actions)
        RecordConstructorArgs.__init__(self, actions=recorded(actions, form))
        gym.ActionWrapper.__init__(self, env)
        self.form = form
        self.action_space = self.form.space

    def action(self, action: Any) -> np.ndarray:
        """One action of the form as int8 ``(num_bits,)``."""
        return self.form.choices(action, ()).numpy().astype(np.int8)


class VectorActionFormWrapper(VectorWrapper):
    """The vector environment with another form of action; arguments as :class:`ActionFormWrapper`'s.

    It also wraps Gymnasium's ``SyncVectorEnv`` and ``AsyncVectorEnv`` of InstaNAS if ``space`` is given.
    """

    def __init__(self, env: VectorEnv, actions: Any, space: Any = None):
        super().__init__(env)
        self.form = _form(env, env.single_action_space.shape, actions, space)
        self.single_action_space = self.form.space
        self.action_space = batch_space(self.form.space, self.num_envs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step with actions ``(num_envs, ...)`` of the form."""
        return self.env.step(self.form.choices(actions, (self.num_envs,)).numpy().astype(np.int8))


def _form(env: Any, shape: Any, actions: Any, space: Any = None) -> ActionForm:
    bandit = getattr(env.unwrapped, "bandit", None)
    if space is None and bandit is None:
        raise ValueError(f"env: got {env}; an InstaNAS environment, or its search space as space=, will do")
    space = space if bandit is None else bandit.space
    if shape != (space.num_bits,):
        raise ValueError(f"env: got actions of shape {shape}; {(space.num_bits,)}, actions='bits', will do")
    return action_form(actions, space)
