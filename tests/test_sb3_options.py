"""Options and seeds of the SB3 adapter: refused by name where they enter, and kept when a reset raises."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.sb3 import NativeVecEnv
from tests.tools.scratch import SCRATCH


def make() -> NativeVecEnv:
    return NativeVecEnv(gym.make_vec("InstaNAS-v1", num_envs=4, **SCRATCH))


@pytest.mark.parametrize("options", [5, "index", [1, 2, 3, 4], [{}] * 3, [{"index": 1}, {}, {}, {}]], ids=str)
def test_options_of_no_use_are_named_when_they_are_set(options):
    """Those that were set before stay."""
    adapter = make()
    adapter.set_options({"index": 7})
    with pytest.raises(ValueError, match="^options: got .*; a dict or 4 dicts with the same keys will do"):
        adapter.set_options(options)
    adapter.reset()
    assert [info["index"] for info in adapter.reset_infos] == [7] * 4


def test_a_reset_that_raises_keeps_the_seed():
    """It counts once the cause is mended."""
    adapter, other = make(), make()
    adapter.seed(3)
    other.seed(3)
    adapter.set_options({"index": [0, 1, 2, 10**6]})
    with pytest.raises(ValueError, match=r"^options\['index'\]"):
        adapter.reset()
    adapter.set_options()
    assert np.array_equal(adapter.reset(), other.reset())
