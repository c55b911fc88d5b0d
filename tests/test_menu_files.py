"""Menu files in both formats mean the same, and arguments that were found out late are refused by name."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env import arrays
from instanas_env.callbacks import MetaGraphUpdate
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import save_weights
from instanas_env.wrappers import load_menu, save_menu
from tests.tools.scratch import SCRATCH

LITE = SearchSpace.preset("lite")
MASKS = LITE.random_masks(5, 0.2, generator_for(0))


@pytest.mark.parametrize("name", ["menu.json", "menu.safetensors"])
def test_a_menu_comes_back_as_it_was(tmp_path, name):
    """And ``actions=`` takes the path: number k is what the bits of mask k are."""
    save_menu(tmp_path / name, LITE, MASKS)
    assert torch.equal(load_menu(tmp_path / name, LITE), MASKS)
    env = gym.make("InstaNAS-v1", actions=str(tmp_path / name), **SCRATCH)
    plain = gym.make("InstaNAS-v1", **SCRATCH)
    assert env.action_space == gym.spaces.Discrete(5)
    for number in range(5):
        env.reset(seed=0)
        plain.reset(seed=0)
        reward, info = env.step(number)[1::3]
        assert reward == plain.step(MASKS[number].flatten().numpy())[1]
        assert np.array_equal(info["mask"], MASKS[number])


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        ({}, {"search_space": LITE.config}),
        ({"masks": torch.zeros(2, 84)}, {"search_space": LITE.config}),
        ({"masks": torch.full((2, 85), 2)}, {"search_space": LITE.config}),
        ({"masks": torch.full((2, 85), torch.nan)}, {"search_space": LITE.config}),
        ({"masks": torch.zeros(2, 85)}, {"search_space": SearchSpace.preset("lite", 2.0).config}),
        ({"masks": torch.zeros(2, 85)}, {}),
    ],
    ids=["none", "84 bits", "twos", "nan", "other space", "no space"],
)
def test_other_safetensors_are_no_menu(tmp_path, tensors, config):
    save_weights(tmp_path / "bad.safetensors", tensors, config)
    with pytest.raises(ValueError, match=r"^actions: .*bad\.safetensors"):
        load_menu(tmp_path / "bad.safetensors", LITE)


@pytest.mark.parametrize("keep", [0, 20, -1])
def test_a_truncated_menu_is_named(tmp_path, keep):
    path = tmp_path / "cut.safetensors"
    save_menu(path, LITE, MASKS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"^actions: .*cut\.safetensors"):
        load_menu(path, LITE)


@pytest.mark.parametrize(("name", "value"), [("world", None), ("history", None), ("history", {})])
def test_what_an_update_cannot_use_is_refused_at_once(name, value):
    with pytest.raises(ValueError, match=f"^{name}: got "):
        MetaGraphUpdate(**{name: value})


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
def test_a_nested_tensor_is_no_array():
    ragged = torch.nested.nested_tensor([torch.zeros(85), torch.zeros(85)])
    with pytest.raises(ValueError, match="^actions: got a nested tensor"):
        arrays.shape("actions", ragged)


def test_a_record_has_an_index_for_every_mask_even_if_gathering_fails():
    """A hook that fails half way must not leave images without masks in the record of the epoch."""
    envs = gym.make_vec("InstaNAS-v1", num_envs=2, **SCRATCH).unwrapped
    update = MetaGraphUpdate()
    envs.add_callback(update)
    envs.reset(seed=0)
    gather, calls = update.world.gather, []

    def fails_second(part):
        calls.append(part)
        if len(calls) == 2:
            raise RuntimeError("the other process is gone")
        return gather(part)

    update.world = type(update.world)()
    update.world.gather = fails_second  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="gone"):
        envs.step(np.zeros((2, 85)))
    assert len(update._indices) == len(update._masks) == 0
