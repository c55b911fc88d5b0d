"""The same environment for many images at once: one batched forward a step, nothing per image in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from instanas_env.bandit import Contexts, Outcome
from instanas_env.build import build_bandit
from instanas_env.callbacks import CallbackList, EnvCallback
from instanas_env.env import InstaNASEnv, check_index, observation_space, reset_info, step_info


class InstaNASVectorEnv(VectorEnv):
    """``num_envs`` images a step; spaces, rewards and arguments as in :class:`InstaNASEnv`.

    Image for image it gives what the scalar environment gives under the same seed, as long as
    ``num_envs`` divides the split (otherwise a batch may reach across the end of a pass).

    Every ``info`` value is an array of length ``num_envs``. After a step the top level always holds
    what became of the actions. The mode of autoreset decides what follows:

    * SAME_STEP (default): the step returns the next images. ``final_obs`` and ``final_info`` hold those
      acted on (Gymnasium's convention) and ``next_index`` the positions of the new ones.
    * NEXT_STEP: the step returns the images acted on; the next step ignores its actions, draws new
      images and rewards 0.
    * DISABLED: the images acted on stay until ``reset``; ``options={"reset_mask": ...}`` resets some.

    Args:
        num_envs: number of images; at most as many as the split holds.
        autoreset_mode: an ``AutoresetMode`` or its value: "SameStep", "NextStep", "Disabled".
        render_mode: None or "rgb_array".
        **bandit_options: see :func:`instanas_env.build.build_bandit`.
    """

    metadata: dict[str, Any] = {**InstaNASEnv.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **bandit_options: Any,
    ):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode: unknown {render_mode!r}; rgb_array will do")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            modes = ", ".join(mode.value for mode in AutoresetMode)
            raise ValueError(f"autoreset_mode: unknown {autoreset_mode!r}; choose from {modes}") from error
        self.bandit = build_bandit(**bandit_options)
        size = len(self.bandit.image_set)
        most = size // self.bandit.shards
        if not 1 <= num_envs <= most:
            raise ValueError(f"num_envs: got {num_envs}; 1 to {most}, the images of the split, will do")
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = observation_space(self.bandit)
        self.single_action_space = spaces.MultiBinary(self.bandit.space.num_bits)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._callbacks = CallbackList()
        self._contexts: Contexts | None = None
        self._outcome: Outcome | None = None
        self._waiting = np.zeros(num_envs, bool)  # for an action

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:  # type: ignore[override]
        """Show the next images, or those at ``options["index"]`` ``(num_envs,)``; a seed starts anew.

        With ``options["reset_mask"]`` (bool ``(num_envs,)``) only the marked ones are replaced.
        """
        options = options or {}
        if seed is not None and not isinstance(seed, (int, np.integer)):
            raise ValueError(f"seed: got {seed!r}; one whole number for all images, or None, will do")
        super().reset(seed=seed)
        if seed is not None or self._contexts is None:
            self.bandit.reset(self.np_random)
            self._callbacks.after_restart(self)
        marked = self._reset_mask(options)
        count = int(marked.sum())
        if "index" in options:
            index = check_index(options["index"], self.num_envs, len(self.bandit.image_set))
            drawn = self.bandit.contexts(index[torch.from_numpy(marked)])
        else:
            drawn = self.bandit.draw(count)
        if count == self.num_envs:
            self._contexts = drawn
        else:
            self._replace(marked, drawn)
        self._outcome = None
        self._waiting |= marked
        assert self._contexts is not None
        return self.observation(), reset_info(self.bandit, self._contexts)

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Run each image through the network that its row of ``actions`` ``(num_envs, 85)`` selects."""
        if self._contexts is None:
            raise ResetNeeded("there are no images yet: call reset() before step()")
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and not self._waiting.any():
            observation, waiting = self.reset()
            return observation, np.zeros(self.num_envs), *self._flags(False), waiting
        if not self._waiting.all():
            raise ResetNeeded("every episode is one step long: call reset() for the images acted on")
        acted_on = self._contexts
        outcome, ended_epoch = self.bandit.act(acted_on, actions)
        self._outcome = outcome
        self._callbacks.after_step(self, outcome, ended_epoch)
        info: dict[str, Any] = step_info(outcome)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            info = self._final(acted_on, info)
            self._contexts = self.bandit.draw(self.num_envs)
            info["next_index"] = self._contexts.index.numpy().copy()
        else:
            self._waiting[:] = False
        return self.observation(), outcome.reward.copy(), *self._flags(True), info

    def score(self, actions: Any) -> Outcome:
        """What ``(n, 85)`` or ``(K, n, 85)`` actions would earn on the present images; changes nothing."""
        if self._contexts is None:
            raise ResetNeeded("there are no images yet: call reset() before score()")
        return self.bandit.score(self._contexts, actions)

    def add_callback(self, callback: EnvCallback) -> None:
        """Run ``callback`` after every step and every pass over the split."""
        self._callbacks.callbacks.append(callback)

    def observation(self) -> np.ndarray:
        """The present images, uint8 ``(num_envs, 3, H, W)``; a copy."""
        if self._contexts is None:
            raise ResetNeeded("there are no images yet: call reset() first")
        return self._contexts.images.numpy().copy(order="C")

    def state_dict(self) -> dict[str, Any]:
        """Where the environment stands, to resume a run; the meta-graph's weights are not included."""
        contexts = self._contexts
        waiting = None if contexts is None else {"index": contexts.index, "images": contexts.images}
        return {"bandit": self.bandit.state_dict(), "contexts": waiting, "waiting": self._waiting.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where another environment of the same make stood."""
        self.bandit.load_state_dict(state["bandit"])
        self._contexts = None if state["contexts"] is None else Contexts(**state["contexts"])
        self._waiting = np.array(state["waiting"], bool)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture ``(H, W, 3)`` of each image with the mask and latency of its last step, if acted on.

        In SAME_STEP the present images are new, so they are shown without a mask.
        """
        if self.render_mode is None:
            return None
        if self._contexts is None:
            raise ResetNeeded("there are no images yet: call reset() before render()")
        from instanas_env.render import frames

        new = self.autoreset_mode is AutoresetMode.SAME_STEP
        return tuple(frames(self.bandit, self._contexts, None if new else self._outcome))

    # --- inside ----------------------------------------------------------------------------------

    def _flags(self, terminated: bool) -> tuple[np.ndarray, np.ndarray]:
        return np.full(self.num_envs, terminated), np.zeros(self.num_envs, bool)

    def _final(self, contexts: Contexts, info: dict[str, Any]) -> dict[str, Any]:
        """Gymnasium's record of episodes that ended in the step that began the next ones."""
        final_obs = np.empty(self.num_envs, object)
        final_obs[:] = list(contexts.images.numpy().copy(order="C"))
        everyone = np.ones(self.num_envs, bool)
        return {
            **info,
            "final_obs": final_obs,
            "_final_obs": everyone,
            "final_info": {name: value.copy() for name, value in info.items()},
            "_final_info": everyone.copy(),
        }

    def _reset_mask(self, options: dict[str, Any]) -> np.ndarray:
        if self._contexts is None or "reset_mask" not in options:
            return np.ones(self.num_envs, bool)
        marked = np.asarray(options["reset_mask"])
        if marked.shape != (self.num_envs,) or marked.dtype != bool or not marked.any():
            raise ValueError(
                f"options['reset_mask']: got {marked.dtype} {marked.shape};"
                f" bool ({self.num_envs},) with at least one True will do"
            )
        return marked

    def _replace(self, marked: np.ndarray, drawn: Contexts) -> None:
        assert self._contexts is not None
        index, images = self._contexts.index.clone(), self._contexts.images.clone()
        rows = torch.from_numpy(marked)
        index[rows], images[rows] = drawn.index, drawn.images
        self._contexts = Contexts(index, images)
