"""Hooks between an agent's steps, inside the environment, and the order in which they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from instanas_env.bandit import InstanceBandit, Outcome

T = TypeVar("T")


class BanditEnv(Protocol):
    """What a callback may rely on: the scalar and the vector environment both have it."""

    bandit: InstanceBandit


class EnvCallback:
    """Hooks of an environment; override what you need and give it to ``env.unwrapped.add_callback``.

    A hook that raises ends the call of ``step`` or ``reset`` with its error; the environment stays in order:

    * The step has happened: its images are counted once, the next ones wait, other callbacks are told. Only
      the returned values are lost; ``reset()`` shows what waits. An ``on_step`` is not called again for it.
    * The end of an epoch stays due: the next ``step`` or ``reset`` first calls the ``on_epoch_end`` that
      raised and those after it. Once all have returned, the bounds move. A seeded ``reset`` and
      ``load_state_dict`` drop it.
    """

    trains = False
    """Whether it trains the meta-graph; an environment that has a table instead refuses it then."""

    def on_step(self, outcome: Outcome) -> None:
        """After every step, with what became of its actions."""

    def on_restart(self, env: BanditEnv) -> None:
        """After ``reset(seed=...)``: the bandit stands at the start of epoch 0 again."""

    def on_epoch_end(self, env: BanditEnv) -> None:
        """After every pass over the split, before the bounds move; ``env.bandit`` is at hand."""


class CallbackList:
    """The callbacks of one environment, the order of events, and what is still to happen after an error."""

    def __init__(self) -> None:
        self.callbacks: list[EnvCallback] = []
        self._untold: list[tuple[EnvCallback, Outcome]] = []
        self._due: list[EnvCallback] | None = None  # None: no end of an epoch is due

    def add(self, callback: EnvCallback, trainable: bool = True) -> None:
        """Append a callback; ``ValueError`` for what has no hooks, or trains what is not there."""
        if not isinstance(callback, EnvCallback):
            raise ValueError(f"callback: got {type(callback).__name__}; an EnvCallback will do")
        if callback.trains and not trainable:
            raise ValueError("callback: a table has no meta-graph to train; InstaNAS-v1 has")
        self.callbacks.append(callback)

    @property
    def epoch_is_due(self) -> bool:
        """Whether the end of an epoch has failed so far."""
        return self._due is not None

    def drop(self) -> None:
        """Forget what is still to happen: the bandit stands elsewhere now."""
        self._untold, self._due = [], None

    def after_restart(self, env: BanditEnv) -> None:
        """Tell all callbacks that the bandit starts again; then raise the first error, if any."""
        self.drop()
        _tell_all(list(self.callbacks), lambda callback: callback.on_restart(env))

    def after_step(self, env: BanditEnv, outcome: Outcome, ended_epoch: bool) -> None:
        """Run the hooks; on the last step of an epoch let the bandit move on after them."""
        self._untold = [(callback, outcome) for callback in self.callbacks]
        if ended_epoch:
            self._due = list(self.callbacks)
        self.settle(env)

    def settle(self, env: BanditEnv) -> None:
        """Do what is still to happen, here or after an error: tell of the step, then end the epoch."""
        _tell_all(self._untold, lambda told: told[0].on_step(told[1]))
        if self._due is None:
            return
        while self._due:
            self._due[0].on_epoch_end(env)
            self._due.pop(0)
        self._due = None
        env.bandit.next_epoch()


def _tell_all(queue: list[T], tell: Callable[[T], None]) -> None:
    """Tell everyone in a queue, which empties, though some raise whatever they like; then raise the first."""
    failed: Exception | None = None
    while queue:
        try:
            tell(queue.pop(0))
        except Exception as error:  # whatever a hook of the user raises: the others are told first
            failed = failed or error
    if failed is not None:
        raise failed
