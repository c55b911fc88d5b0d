"""InstaNAS-v1: see an image, choose its network. A thin Gymnasium shell over the bandit."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from instanas_env.bandit import Contexts, InstanceBandit, Outcome
from instanas_env.build import build_bandit
from instanas_env.callbacks import CallbackList, EnvCallback

_MASK_KEYS = ("mask",)


def observation_space(bandit: InstanceBandit) -> spaces.Box:
    """One image, uint8 ``(3, H, W)``."""
    side = bandit.space.resolution
    return spaces.Box(0, 255, (3, side, side), np.uint8)


def step_info(outcome: Outcome) -> dict[str, np.ndarray]:
    """The ``info`` of a step: copies of everything in the outcome but the reward."""
    return {name: value.copy() for name, value in vars(outcome).items() if name != "reward"}


def reset_info(bandit: InstanceBandit, contexts: Contexts) -> dict[str, np.ndarray]:
    """The ``info`` of a reset: which images wait, and the window their latencies will be judged by."""
    count, bounds = len(contexts), bandit.bounds
    return {
        "index": contexts.index.numpy().copy(),
        "epoch": np.full(count, bandit.epoch),
        "upper_ms": np.full(count, bounds.upper),
        "lower_ms": np.full(count, bounds.lower),
    }


def check_index(value: Any, count: int, size: int) -> torch.Tensor:
    """``options["index"]`` as int64 ``(count,)``; ``ValueError`` if it is anything else."""
    index = np.asarray(value)
    fits = index.shape == (count,) and np.issubdtype(index.dtype, np.integer)
    if not (fits and ((index >= 0) & (index < size)).all()):
        raise ValueError(f"options['index']: got {value!r}; {count} whole number(s) in 0..{size - 1} will do")
    return torch.from_numpy(index.astype(np.int64))


class InstaNASEnv(gym.Env[np.ndarray, np.ndarray]):
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
    ``Box(0, 255, (3, H, W), uint8)``, the image.

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
    ``step``: index, label, prediction, correct, is_success, latency_ms, reward_task, reward_latency,
    mask (17 x 5, after repair), upper_ms, lower_ms, epoch. ``reset``: index, epoch, upper_ms, lower_ms.

    ## Arguments
    ``dataset, data_dir, split, augment, search_space, meta_graph, latency_table, cost, correct_reward,
    wrong_reward, bounds, order, device, autocast, shard``: see :func:`instanas_env.build.build_bandit`. By
    default the benchmark: the embedded images, the shipped meta-graph, frozen, and a fixed window.

    ## Vectorized environment
    ``gym.make_vec("InstaNAS-v1", num_envs=256)``: one batched forward a step; see ``vector_env.py``.

    ## Version History
    * v1: deployed latencies (onnxruntime), a window that is best at the cheapest network, a better
      meta-graph. The number rises when weights, table, images or reward change.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(self, render_mode: str | None = None, **bandit_options: Any):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode: unknown {render_mode!r}; rgb_array will do")
        self.render_mode = render_mode
        self.bandit = build_bandit(**bandit_options)
        self.observation_space = observation_space(self.bandit)
        self.action_space = spaces.MultiBinary(self.bandit.space.num_bits)
        self._callbacks = CallbackList()
        self._contexts: Contexts | None = None
        self._outcome: Outcome | None = None
        self._waiting = False  # for an action

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Show the next image, or image ``options["index"]``; a seed starts again at epoch 0."""
        super().reset(seed=seed)
        if seed is not None or self._contexts is None:
            self.bandit.reset(self.np_random)
            self._callbacks.after_restart(self)
        if options is not None and "index" in options:
            index = check_index(np.asarray(options["index"]).reshape(-1), 1, len(self.bandit.image_set))
            self._contexts = self.bandit.contexts(index)
        else:
            self._contexts = self.bandit.draw(1)
        self._outcome = None
        self._waiting = True
        return self._observation(), _first(reset_info(self.bandit, self._contexts))

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Run the image through the network that ``action`` ``(85,)`` selects; ends the episode."""
        if self._contexts is None or not self._waiting:
            raise ResetNeeded("every episode is one step long: call reset() before each step()")
        outcome, ended_epoch = self.bandit.act(self._contexts, np.asarray(action)[None])
        self._waiting = False
        self._outcome = outcome
        self._callbacks.after_step(self, outcome, ended_epoch)
        return self._observation(), float(outcome.reward[0]), True, False, _first(step_info(outcome))

    def score(self, actions: Any) -> Outcome:
        """What ``(85,)`` or ``(K, 85)`` actions would earn on the present image; changes nothing.

        Returns:
            An outcome whose arrays have the shape () or ``(K,)``.
        """
        if self._contexts is None:
            raise ResetNeeded("there is no image yet: call reset() before score()")
        masks = self.bandit.space.masks_from_actions(actions)
        outcome = self.bandit.score(self._contexts, masks.flatten(-2).unsqueeze(-2))
        axis = masks.ndim - 2
        return Outcome(**{name: np.take(value, 0, axis) for name, value in vars(outcome).items()})

    def add_callback(self, callback: EnvCallback) -> None:
        """Run ``callback`` after every step and every pass over the split."""
        self._callbacks.callbacks.append(callback)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The image, the mask of the last step and its latency as an RGB picture ``(H, W, 3)``."""
        if self.render_mode is None:
            return None
        if self._contexts is None:
            raise ResetNeeded("there is no image yet: call reset() before render()")
        from instanas_env.render import frames

        return frames(self.bandit, self._contexts, self._outcome)[0]

    def _observation(self) -> np.ndarray:
        assert self._contexts is not None
        return np.ascontiguousarray(self._contexts.images[0].numpy()).copy()


def _first(info: dict[str, np.ndarray]) -> dict[str, Any]:
    """The info of the only image: Python numbers, and the mask as an array."""
    return {name: value[0] if name in _MASK_KEYS else value[0].item() for name, value in info.items()}
