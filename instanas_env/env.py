"""InstaNAS-v1: see an image, choose its network. A thin Gymnasium shell over the bandit."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from instanas_env import arrays, checks
from instanas_env.base_env import BaseEnv, Parts, live_parts, reset_options
from instanas_env.contextual import Outcome
from instanas_env.infos import first, step_info, waiting_info


class InstaNASEnv(BaseEnv, gym.Env[np.ndarray, np.ndarray]):
    """Instance-aware architecture search as a contextual bandit.

    ## Description
    A meta-graph of 17 cells with 5 modules each shares its weights among 32^17 networks (Cheng, Lin et
    al., "InstaNAS: Instance-aware Neural Architecture Search", 2018). The agent sees one image and
    switches modules on and off; the network that remains classifies the image. Correct and fast is
    good, so easy images should run through little and hard ones through much.

    ## Action Space
    ``MultiBinary(85)``, bit ``5 * cell + module``. Modules: 0 BasicConv 3x3, 1 MBConv k3 F3, 2 MBConv
    k3 F6, 3 MBConv k5 F3, 4 MBConv k5 F6. A cell that changes shape and was left empty gets module 0.
    Any number type is taken; values other than 0 and 1 are refused.

    ## Observation Space
    ``Box(0, 255, (3, H, W), uint8)``, the image; ``(H, W, 3)`` with ``layout="HWC"``.

    ## Rewards
    Equation (2): ``R_T * R_A`` if ``R_T > 0``, else ``R_T``. R_T is ``correct_reward`` or
    ``wrong_reward``; R_A is 1 where the latency lies in the middle of [lower_ms, upper_ms] and falls
    quadratically to 0 at both ends. Latencies come from a table of measured modules.

    ## Starting State
    The next image of the split: every pass shows each image once, in an order drawn from the seed.
    ``reset(options={"index": i})`` shows image i instead.

    ## Episode End
    After one step: ``terminated`` is always True, ``truncated`` always False.

    ## Information
    index, label, prediction, correct, is_success, latency_ms, reward_task, reward_latency, mask (17 x 5,
    after repair), upper_ms, lower_ms, epoch; the same keys and types after ``reset`` and ``step``. What a
    reset cannot know has a placeholder: see :mod:`instanas_env.infos`.

    ## Arguments
    * ``actions``: the form of the action: "bits", "multi_discrete", "cells", "blocks", or a menu, its path
      or its masks; see :mod:`instanas_env.wrappers.forms`.
    * ``layout``: "CHW", or "HWC", which Gymnasium's image wrappers expect.
    * ``observation``: "image", or "features", 24 numbers for linear bandits; see
      :func:`instanas_env.observations.features`.
    * ``render_mode``: None or "rgb_array".
    * ``dataset, data_dir, split, augment, search_space, meta_graph, latency_table, cost, correct_reward,
      wrong_reward, bounds, order, device, autocast, shard``: see :func:`instanas_env.build.build_bandit`. By
      default the benchmark: the embedded images, the shipped meta-graph, frozen, and a fixed window.

    ## Vectorized environment
    ``gym.make_vec("InstaNAS-v1", num_envs=256)``: one batched forward a step; see ``vector_env.py``.

    ## Version History
    * v1: deployed latencies (onnxruntime), a window that is best at the cheapest network, a better
      meta-graph. The number rises when weights, table, images or reward change.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self,
        render_mode: str | None = None,
        actions: Any = "bits",
        layout: str = "CHW",
        observation: str = "image",
        **bandit_options: Any,
    ):
        self.render_mode = checks.render_mode(render_mode)
        self._assemble(live_parts(actions, layout, observation, **bandit_options))

    def _assemble(self, parts: Parts) -> None:
        super()._assemble(parts)
        self.observation_space = self.observer.space
        self.action_space = self.form.space
        self._waiting = False  # for an action

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Show the next image, or image ``options["index"]``; a seed starts again at epoch 0.

        Raises:
            ValueError: a wrong seed, option or index; nothing has changed then.
        """
        seed, options = checks.seed(seed), reset_options(options, ("index",))
        index = None
        if "index" in options:
            asked = options["index"]
            one = [asked] if arrays.shape("options['index']", asked) == () else asked
            index = arrays.index(one, 1, len(self.bandit.image_set))
        restart = seed is not None or self._contexts is None
        if restart:
            super().reset(seed=seed)
            self.bandit.reset(self.np_random)
        else:
            self._callbacks.settle(self)
        self._contexts = self.bandit.draw(1) if index is None else self.bandit.contexts(index)
        self._outcome = None
        self._waiting = True
        if restart:
            self._callbacks.after_restart(self)
        return self._observation(), first(waiting_info(self.bandit, self._contexts))

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Run the image through the network that ``action`` selects; ends the episode.

        Args:
            action: ``(85,)`` of 0 and 1, or another form's; any number type.

        Raises:
            ValueError: another shape or value; nothing has changed then.
            ResetNeeded: no image waits.
        """
        if self._contexts is None or not self._waiting:
            raise ResetNeeded("every episode is one step long: call reset() before each step()")
        choice = self.form.choices(action, ())
        self._callbacks.settle(self)
        outcome, ended_epoch = self.bandit.act(self._contexts, choice[None])
        self._waiting = False
        self._acted_on, self._outcome = self._contexts, outcome
        self._callbacks.after_step(self, outcome, ended_epoch)
        return self._observation(), float(outcome.reward[0]), True, False, first(step_info(outcome))

    def score(self, actions: Any) -> Outcome:
        """What actions ``(85,)`` or ``(K, 85)``, or of another form, would earn on this image; changes
        nothing.

        Returns:
            An outcome whose arrays have the shape () or ``(K,)``.
        """
        contexts = self._present("score")
        choices = self.form.choices(actions, (), several=True)
        axis = len(arrays.shape("actions", actions)) - len(self.form.shape)  # of the one image
        outcome = self.bandit.score(contexts, choices.unsqueeze(axis))
        return type(outcome)(**{name: np.take(value, 0, axis) for name, value in vars(outcome).items()})

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The image, the mask of the last step and its latency as an RGB picture ``(H, W, 3)``."""
        pictures = self._frames()
        return None if pictures is None else pictures[0]

    def _observation(self) -> np.ndarray:
        return self.observer(self._present("observation"))[0]
