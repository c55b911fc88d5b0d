"""What the scalar and the vector environment share, live or from a table: their parts and their callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded

from instanas_env import checks
from instanas_env.bandit import InstanceBandit
from instanas_env.build import build_bandit
from instanas_env.contextual import Contexts, Outcome
from instanas_env.hooks import CallbackList, EnvCallback
from instanas_env.observations import Observer
from instanas_env.wrappers.forms import ActionForm, action_form, recorded

MINARI = "minari_autoseed"
"""An option of Minari's ``DataCollector``, which hands it on to the environment that it wraps."""


def reset_options(options: Any, known: Sequence[str]) -> dict[str, Any]:
    """The options of a reset as a dict, which may be empty; unknown ones are refused, Minari's is dropped."""
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise checks.refuse("options", options, f"a dict with {' or '.join(known)}, or None,")
    unknown = [name for name in options if name not in (*known, MINARI)]
    if unknown:
        raise ValueError(f"options: got unknown {unknown!r:.200}; {' or '.join(known)} will do")
    return {name: given for name, given in options.items() if name != MINARI}


class Parts(NamedTuple):
    """What an environment is made of. ``bandit`` is an ``InstanceBandit``, or a twin that has a table."""

    bandit: Any
    observer: Observer
    form: ActionForm


def live_parts(actions: Any, layout: str, observation: str, **bandit_options: Any) -> Parts:
    """The parts of InstaNAS-v1, from its keyword arguments."""
    bandit = build_bandit(**bandit_options)
    observer = Observer(bandit.space.resolution, layout, observation)
    return Parts(bandit, observer, action_form(actions, bandit.space))


class BaseEnv:
    """What both environments have besides ``reset`` and ``step``: a bandit, callbacks, pictures."""

    bandit: Any
    render_mode: str | None
    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """Gymnasium's record of how the environment was made; a menu's masks are lists, for JSON."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None and "actions" in spec.kwargs:
            spec.kwargs["actions"] = recorded(spec.kwargs["actions"], self.form)
        self._spec = spec

    def _assemble(self, parts: Parts) -> None:
        """The environment out of its parts."""
        self.bandit, self.observer, self.form = parts
        self._callbacks = CallbackList()
        self._contexts: Contexts | None = None
        self._acted_on: Contexts | None = None  # the images of the outcome
        self._outcome: Outcome | None = None  # of the last step, until a reset

    def add_callback(self, callback: EnvCallback) -> None:
        """Run ``callback`` after every step and every pass over the split.

        Raises:
            ValueError: no callback, or one that trains the meta-graph where there is a table instead.
        """
        self._callbacks.add(callback, trainable=isinstance(self.bandit, InstanceBandit))

    def _present(self, method: str) -> Contexts:
        """The images that are shown; ``ResetNeeded`` before the first reset."""
        if self._contexts is None:
            raise ResetNeeded(f"no image is shown yet: call reset() before {method}()")
        return self._contexts

    def _frames(self) -> list[np.ndarray] | None:
        """A picture of each image acted on, or that waits; None where nothing is to be rendered."""
        if self.render_mode is None:
            return None
        from instanas_env.render import frames

        contexts = self._acted_on if self._outcome is not None else None
        return frames(self.bandit, contexts or self._present("render"), self._outcome)
