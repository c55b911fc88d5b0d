"""The ``info`` of resets and steps: the same keys with the same types, so that recorders can stack them.

| key | type | of a step | of an image that waits |
|---|---|---|---|
| index | int64 | the image's position in the split | the same |
| label, prediction | int64 | class, and class that was answered | -1 (no label leaks) |
| correct, is_success | bool | whether these are equal | False |
| latency_ms | float64 | of the network, from the table | NaN |
| reward_task, reward_latency | float64 | R_T and R_A | NaN |
| mask | bool | ``(17, 5)``, after repair | all False |
| upper_ms, lower_ms | float64 | the window U_t, L_t, in the unit of ``cost`` | that of the coming step |
| epoch | int64 | the pass over the split, from 0 | that of the coming step |

In a vector environment each value is an array with one entry per image, and ``_key`` (bool) tells which
images ``key`` is of, as in Gymnasium's own vector environments. In the scalar environment numbers are NumPy
scalars. The two booleans are arrays without dimensions there: Gymnasium collects ``np.bool_`` in object
arrays, whose ``mean`` is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from instanas_env.contextual import Contexts, ContextualBandit, Outcome

Info = dict[str, Any]


def step_info(outcome: Outcome) -> Info:
    """What became of actions: copies of everything in the outcome but the reward."""
    return {name: value.copy() for name, value in vars(outcome).items() if name != "reward"}


def waiting_info(bandit: ContextualBandit, contexts: Contexts) -> Info:
    """Which images wait and the window that will judge them; placeholders for what is not known yet."""
    count, bounds = len(contexts), bandit.bounds
    numbers = ("latency_ms", "reward_task", "reward_latency", *bandit.regrets)
    return {
        "index": contexts.index.numpy().copy(),
        **{name: np.full(count, -1) for name in ("label", "prediction")},
        **{name: np.zeros(count, bool) for name in ("correct", "is_success")},
        **{name: np.full(count, np.nan) for name in numbers},
        "mask": np.zeros((count, *bandit.space.mask_shape), bool),
        "upper_ms": np.full(count, bounds.upper),
        "lower_ms": np.full(count, bounds.lower),
        "epoch": np.full(count, bandit.epoch),
    }


def with_marks(info: Info, marked: np.ndarray) -> Info:
    """Put ``_key``, bool ``(n,)``, beside every key: it tells which images the key is of."""
    both: Info = {}
    for name, value in info.items():
        both[name], both[f"_{name}"] = value, marked.copy()
    return both


def first(info: Info) -> Info:
    """The info of the only image, for the scalar environment."""
    return {
        name: value[0].copy() if value.ndim > 1 else np.array(value[0]) if value.dtype == bool else value[0]
        for name, value in info.items()
    }


def final_info(observations: np.ndarray, info: Info) -> dict[str, Any]:
    """Gymnasium's record of episodes that ended in the step that began the next ones.

    Args:
        observations: those acted on, ``(n, ...)``.
        info: what became of them, with its marks.
    """
    final_obs = np.empty(len(observations), object)
    final_obs[:] = list(observations)
    everyone = np.ones(len(observations), bool)
    marks = {"_final_obs": everyone, "_final_info": everyone.copy()}
    return {"final_obs": final_obs, "final_info": info, **marks}
