"""The same environment for many images at once: one batched forward a step, nothing per image in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from instanas_env import arrays, checks
from instanas_env.base_env import BaseEnv, Parts, live_parts, reset_options
from instanas_env.contextual import Contexts, Outcome
from instanas_env.env import InstaNASEnv
from instanas_env.infos import Info, final_info, step_info, waiting_info, with_marks


class InstaNASVectorEnv(BaseEnv, VectorEnv):
    """``num_envs`` images a step; spaces, rewards and arguments as in :class:`InstaNASEnv`.

    Image for image it gives what the scalar environment gives under the same seed, as long as
    ``num_envs`` divides the split (otherwise a batch may reach across the end of a pass).

    Every ``info`` value is an array of length ``num_envs`` with the keys of :mod:`instanas_env.infos`, and
    beside each ``key`` there is ``_key``. Top-level keys are of the images returned, as in Gymnasium's
    ``SyncVectorEnv``. The mode of autoreset decides which these are:

    * SAME_STEP (default): the next images, so the top level tells what waits. ``final_obs`` and
      ``final_info`` hold the images acted on and what became of them. A plain ``reset()`` right
      after the step, as TorchRL and RLlib call it, keeps the images that wait: a pass shows each once.
    * NEXT_STEP: the images acted on; the next step ignores its actions (it looks at their shape), draws new
      images, which a plain ``reset()`` keeps too, and rewards 0.
    * DISABLED: the images acted on, until ``reset``; ``options={"reset_mask": ...}`` resets some. It is meant
      for this mode: in NEXT_STEP, where all images are new or none, a step wants the others reset as well.

    One seed is for all images: they come from one order without replacement, so a list of seeds, as
    ``SyncVectorEnv`` takes it, would have nothing to seed and is refused.

    Args:
        num_envs: number of images; at most as many as the split holds.
        autoreset_mode: an ``AutoresetMode`` or its value: "SameStep", "NextStep", "Disabled".
        render_mode: None or "rgb_array".
        actions, layout, observation: see :class:`InstaNASEnv`.
        **bandit_options: see :func:`instanas_env.build.build_bandit`.
    """

    metadata: dict[str, Any] = {**InstaNASEnv.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        actions: Any = "bits",
        layout: str = "CHW",
        observation: str = "image",
        **bandit_options: Any,
    ):
        self._set_modes(render_mode, autoreset_mode)
        self._assemble(live_parts(actions, layout, observation, **bandit_options), num_envs)

    def _set_modes(self, render_mode: str | None, autoreset_mode: AutoresetMode | str) -> None:
        """Check and keep how pictures are made and who resets, before anything is loaded."""
        self.render_mode = checks.render_mode(render_mode)
        self.autoreset_mode = checks.autoreset_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}

    def _assemble(self, parts: Parts, num_envs: int = 1) -> None:
        super()._assemble(parts)
        most = len(self.bandit.image_set) // self.bandit.shards
        self.num_envs = checks.whole("num_envs", num_envs, 1, most)
        self.single_observation_space, self.single_action_space = self.observer.space, self.form.space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._waiting = np.zeros(self.num_envs, bool)  # for an action
        self._autodrawn = False  # by an autoreset, and neither acted on nor shown by a reset since

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:  # type: ignore[override]
        """Show the next images, or those at ``options["index"]`` ``(num_envs,)``; a seed starts anew.

        With ``options["reset_mask"]`` (bool ``(num_envs,)``) only the marked ones are replaced. Right after
        an autoreset a reset without seed and options shows the images that it drew.

        Raises:
            ValueError: a wrong seed or option; nothing has changed then.
        """
        seed, options = checks.seed(seed), reset_options(options, ("index", "reset_mask"))
        everyone, index = np.ones(self.num_envs, bool), None
        marked = everyone
        if "reset_mask" in options:
            marked = arrays.reset_mask(options["reset_mask"], self.num_envs)
        if "index" in options:
            index = arrays.index(options["index"], self.num_envs, len(self.bandit.image_set))
        restart = seed is not None or self._contexts is None
        if restart:
            super().reset(seed=seed)
            self.bandit.reset(self.np_random)
            marked = everyone if self._contexts is None else marked
        else:
            self._callbacks.settle(self)
        if restart or options or not self._autodrawn:
            self._show(marked, index)
        self._outcome, self._autodrawn = None, False
        if restart:
            self._callbacks.after_restart(self)
        return self.observation(), self._info(marked)

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Run each image through the network that its row of ``actions`` selects.

        Args:
            actions: ``(num_envs, 85)`` of 0 and 1, or another form's; any number type.

        Raises:
            ValueError: another shape or value; nothing has changed then.
            ResetNeeded: no images wait.
        """
        acted_on = self._present("step")
        everyone, count = np.ones(self.num_envs, bool), (self.num_envs,)
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and not self._waiting.any():
            self.form.check_shape(actions, count)
            self._callbacks.settle(self)
            self._show(everyone)
            self._autodrawn = True
            return self.observation(), np.zeros(self.num_envs), *self._flags(False), self._info(everyone)
        if not self._waiting.all():
            raise ResetNeeded("every episode is one step long: call reset() for the images acted on")
        choices = self.form.choices(actions, count)
        self._callbacks.settle(self)
        outcome, ended_epoch = self.bandit.act(acted_on, choices)
        # All that is ours moves on before the hooks, which may raise.
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            self._show(everyone)
            self._autodrawn = True
        else:
            self._waiting[:] = self._autodrawn = False
        self._acted_on, self._outcome = acted_on, outcome
        self._callbacks.after_step(self, outcome, ended_epoch)
        info = with_marks(step_info(outcome), everyone)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            info = {**self._info(everyone), **final_info(self.observer(acted_on), info)}
        return self.observation(), outcome.reward.copy(), *self._flags(True), info

    def score(self, actions: Any) -> Outcome:
        """What actions would earn on the present images; changes nothing.

        Args:
            actions: ``(n, 85)`` or ``(K, n, 85)`` with K of at least 1, or of the environment's other form.
        """
        contexts = self._present("score")
        return self.bandit.score(contexts, self.form.choices(actions, (self.num_envs,), several=True))

    def observation(self) -> np.ndarray:
        """The present observations ``(num_envs, ...)``; a copy."""
        return self.observer(self._present("observation"))

    def images(self) -> np.ndarray:
        """The present images, uint8 ``(num_envs, 3, H, W)``, whatever the layout; a copy."""
        return self.bandit.images(self._present("images")).numpy().copy(order="C")

    def state_dict(self) -> dict[str, Any]:
        """Where the environment stands, to resume a run; the meta-graph's weights are not included.

        Raises:
            RuntimeError: a callback failed at the end of an epoch, which is neither here nor there until it
                has been tried again.
        """
        if self._callbacks.epoch_is_due:
            raise RuntimeError(
                f"state_dict: the end of epoch {self.bandit.epoch} failed and is still due;"
                " the next step() or reset() tries it again"
            )
        return {
            "bandit": self.bandit.state_dict(),
            "contexts": None if self._contexts is None else dict(vars(self._contexts)),
            "waiting": self._waiting.tolist(),
            "autodrawn": self._autodrawn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where another environment of the same make stood; what hooks still had to do is dropped."""
        self._callbacks.drop()
        self._outcome = None
        self.bandit.load_state_dict(state["bandit"])
        self._contexts = None if state["contexts"] is None else Contexts(**state["contexts"])
        self._waiting = np.array(state["waiting"], bool)
        self._autodrawn = bool(state.get("autodrawn", False))

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture ``(H, W, 3)`` of each image: after a step those acted on, with mask and latency, in
        SAME_STEP too; otherwise those that wait.
        """
        pictures = self._frames()
        return None if pictures is None else tuple(pictures)

    # --- inside ----------------------------------------------------------------------------------

    def _flags(self, terminated: bool) -> tuple[np.ndarray, np.ndarray]:
        return np.full(self.num_envs, terminated), np.zeros(self.num_envs, bool)

    def _info(self, marked: np.ndarray) -> Info:
        """What is known of the present images, of which ``marked`` ``(num_envs,)`` are new."""
        return with_marks(waiting_info(self.bandit, self._present("info")), marked)

    def _show(self, marked: np.ndarray, index: torch.Tensor | None = None) -> None:
        """Put the next images, or those at ``index`` ``(num_envs,)``, in the marked places."""
        if index is None:
            drawn = self.bandit.draw(int(marked.sum()))
        else:
            drawn = self.bandit.contexts(index[torch.from_numpy(marked)])
        if self._contexts is not None and not marked.all():
            drawn = self._contexts.replaced(torch.from_numpy(marked), drawn)
        self._contexts = drawn
        self._outcome = None
        self._waiting |= marked
