"""Forms of the action: masks, rewards and infos as with bits, by keyword and by wrapper."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.wrappers import (
    ActionFormWrapper,
    VectorActionFormWrapper,
    action_form,
    load_menu,
    save_menu,
)
from tests.tools.scratch import SCRATCH

pytestmark = pytest.mark.usefixtures("one_meta_graph")
N = 4
SPACE = SearchSpace.preset("lite")
MENU = SPACE.random_masks(6, 0.3, generator_for(0))
FORMS = {
    "bits": "bits",
    "multi_discrete": "multi_discrete",
    "cells": "cells",
    "blocks": "blocks",
    "menu": MENU.flatten(1).int().tolist(),
}
SPACES = {
    "bits": gym.spaces.MultiBinary(85),
    "multi_discrete": gym.spaces.MultiDiscrete([2] * 85),
    "cells": gym.spaces.MultiDiscrete([32] * 17),
    "blocks": gym.spaces.MultiBinary(17),
    "menu": gym.spaces.Discrete(6),
}


def bits_by_hand(name: str, action) -> np.ndarray:
    """The definition of each form, one image and one cell at a time."""
    mask = np.zeros((17, 5), bool)
    for cell in range(17):
        for module in range(5):
            if name in ("bits", "multi_discrete"):
                mask[cell, module] = action[5 * cell + module] == 1
            elif name == "cells":
                mask[cell, module] = action[cell] // 2**module % 2 == 1
            elif name == "blocks":
                kept = action[cell] == 1 or not SPACE.cells[cell].keeps_shape
                mask[cell, module] = kept and module == 2
            else:
                mask[cell, module] = bool(MENU[int(action), cell, module])
    return mask.reshape(85)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        same(one[k], other[k]) if isinstance(one[k], dict) else np.array_equal(np.stack(one[k]),
        np.stack(other[k])) if one[k].dtype == object
        else np.array_equal(one[k], other[k], equal_nan=one[k].dtype.kind == "f")
        for k in one
    )  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
@given(seed=st.integers(0, 2**31 - 1))
def test_a_form_means_what_its_table_says(name, seed):
    form = action_form(FORMS[name], SPACE)
    assert form.space == SPACES[name]
    form.space.seed(seed)
    actions = [form.space.sample() for _ in range(3)]
    expected = np.stack([bits_by_hand(name, action) for action in actions])
    together = form.choices(np.stack(actions).astype(np.float32), (3,))
    assert np.array_equal(together.numpy(), expected)
    assert np.array_equal(form.choices(actions[0], ()).numpy(), expected[0])
    several = form.choices(np.stack([actions, actions]), (3,), several=True)
    assert torch.equal(several, torch.stack([together, together]))


@pytest.mark.parametrize("name", FORMS)
def test_rewards_masks_and_infos_are_those_of_bits(name):
    """By keyword and by wrapper, native and scalar, two steps each; ``score`` takes the form as well."""
    form = action_form(FORMS[name], SPACE)
    form.space.seed(1)
    batches = [np.stack([form.space.sample() for _ in range(N)]) for _ in range(2)]
    plain = gym.make_vec("InstaNAS-v1", num_envs=N, **SCRATCH)
    keyword = gym.make_vec("InstaNAS-v1", num_envs=N, actions=FORMS[name], **SCRATCH)
    wrapped = VectorActionFormWrapper(gym.make_vec("InstaNAS-v1", num_envs=N, **SCRATCH), FORMS[name])
    everyone = (plain, keyword, wrapped)
    assert keyword.single_action_space == wrapped.single_action_space == SPACES[name]
    assert keyword.action_space == wrapped.action_space
    for envs in everyone:
        envs.reset(seed=2)
    for batch in batches:
        bits = np.stack([bits_by_hand(name, action) for action in batch])
        scores = [
            plain.unwrapped.score(bits[None].repeat(3, 0)),
            keyword.unwrapped.score(batch[None].repeat(3, 0)),
        ]
        assert np.array_equal(scores[0].reward, scores[1].reward) and scores[1].reward.shape == (3, N)
        steps = [envs.step(actions) for envs, actions in zip(everyone, (bits, batch, batch), strict=True)]
        for step in steps[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(steps[0][:4], step[:4], strict=True))
            assert same(steps[0][4], step[4])

    scalars = (
        gym.make("InstaNAS-v1", **SCRATCH),
        gym.make("InstaNAS-v1", actions=FORMS[name], **SCRATCH),
        ActionFormWrapper(gym.make("InstaNAS-v1", **SCRATCH), FORMS[name]),
    )
    results = []
    for env, action in zip(scalars, (bits_by_hand(name, batches[0][0]), *[batches[0][0]] * 2), strict=True):
        env.reset(seed=3)
        results.append(env.step(action))
    assert results[0][1] == results[1][1] == results[2][1]
    assert same(results[0][4], results[1][4]) and same(results[0][4], results[2][4])


LAYOUTS = {"chw": {}, "hwc": {"layout": "HWC"}, "features": {"observation": "features"}}


@pytest.mark.parametrize("look", LAYOUTS)
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.filterwarnings("ignore:.*minimal resolution for an image is 36x36.*:UserWarning")
def test_checkers_have_nothing_to_say(name, look):
    """Warnings are errors; SB3 rightly says that its own CnnPolicy does not fit 32 px."""
    env = gym.make(
        "InstaNAS-v1", actions=FORMS[name], render_mode="rgb_array", augment=True, **LAYOUTS[look], **SCRATCH
    )
    check_env(env.unwrapped)
    sb3_check_env(env.unwrapped)


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version.*:UserWarning")
def test_a_wrapped_environment_passes_and_its_spec_survives_json():
    env = ActionFormWrapper(gym.make("InstaNAS-v1", render_mode="rgb_array", **SCRATCH), "cells")
    check_env(env)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    for each in (env, again):
        each.reset(seed=0)
    action = env.action_space.sample()
    assert again.step(action)[1] == env.step(action)[1]


@pytest.mark.parametrize(
    ("actions", "wrong", "message"),
    [
        ("cells", np.full((N, 17), 32), r"^actions: got the value 32; only whole numbers in 0\.\.31 will do"),
        ("cells", np.zeros((N, 85)), r"^actions: got shape \(4, 85\); \(4, 17\) will do"),
        ("cells", np.full((N, 17), 0.5), "^actions: got the value 0.5"),
        ("blocks", np.full((N, 17), 2), "^actions: got the value 2; only 0 and 1 will do"),
        ("menu", np.full(N, 6), r"^actions: got the value 6; only whole numbers in 0\.\.5 will do"),
        ("menu", np.zeros((N, 1)), r"^actions: got shape \(4, 1\); \(4,\) will do"),
        ("menu", np.zeros((2, N)), r"^actions: got shape \(2, 4\); \(4,\) will do"),
        ("multi_discrete", np.full((N, 85), -1), "^actions: got the value -1"),
    ],
)  # fmt: skip
def test_wrong_actions_are_named_and_change_nothing(actions, wrong, message):
    envs = gym.make_vec("InstaNAS-v1", num_envs=N, actions=FORMS[actions], **SCRATCH).unwrapped
    envs.reset(seed=0)
    before = str(envs.state_dict())
    with pytest.raises(ValueError, match=message):
        envs.step(wrong)
    assert str(envs.state_dict()) == before


def test_a_menu_file(tmp_path):
    """Round trip, repaired; a path as keyword; what is no menu is named."""
    save_menu(tmp_path / "menu.json", SPACE, torch.zeros(2, 17, 5))
    empty = SPACE.repair(torch.zeros(2, 17, 5).bool())
    assert torch.equal(load_menu(tmp_path / "menu.json", SPACE), empty)
    env = gym.make("InstaNAS-v1", actions=str(tmp_path / "menu.json"), **SCRATCH)
    assert env.action_space == gym.spaces.Discrete(2)
    good = json.loads((tmp_path / "menu.json").read_text())
    bad = {
        "list": [], "none": None, "no masks": {"search_space": good["search_space"]},
        "other space": {**good, "search_space": {**good["search_space"], "width": 2.0}},
        "short": {**good, "masks": [[0] * 84]}, "ragged": {**good, "masks": [[0] * 85, [0]]},
        "empty": {**good, "masks": []}, "twos": {**good, "masks": [[2] * 85]},
        "text": {**good, "masks": [["0"] * 85]}, "nested": {**good, "masks": [[[0] * 85]]},
    }  # fmt: skip
    for name, content in bad.items():
        (tmp_path / "bad.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="^actions: "):
            load_menu(tmp_path / "bad.json", SPACE)
            raise AssertionError(name)
    for text in ("", "{", "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="^actions: .*bad.json"):
            load_menu(tmp_path / "bad.json", SPACE)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor], ids=lambda kind: kind.__name__)
def test_a_menu_comes_in_any_container_and_the_spec_survives_json(kind, flat):
    masks = kind((MENU.flatten(1) if flat else MENU).int().tolist())
    made = gym.make("InstaNAS-v1", actions=masks, **SCRATCH)
    wrapped = ActionFormWrapper(gym.make("InstaNAS-v1", **SCRATCH), masks)
    for env in (made, wrapped, gym.make_vec("InstaNAS-v1", num_envs=2, actions=masks, **SCRATCH)):
        form = env.get_wrapper_attr("form") if isinstance(env, gym.Env) else env.unwrapped.form
        assert torch.equal(form.masks, SPACE.repair(MENU))
        json.loads(env.spec.to_json())
    again = gym.make(EnvSpec.from_json(made.spec.to_json()))
    assert torch.equal(again.unwrapped.form.masks, SPACE.repair(MENU))


@pytest.mark.parametrize("shape", [(17, 5), (6, 84), (0, 85), (6, 5, 17), (1, 6, 17, 5)], ids=str)
def test_a_menu_of_another_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"^actions: got shape .*; \(K, 85\) or \(K, 17, 5\) with K from"):
        gym.make("InstaNAS-v1", actions=np.zeros(shape), **SCRATCH)


@pytest.mark.parametrize("actions", ["bit", "", None, 5, [], [[0, 1]], "no/menu.json", "x" * 5000, "\0"])
def test_unknown_forms_are_named(actions):
    with pytest.raises(ValueError, match="^actions: "):
        gym.make("InstaNAS-v1", actions=actions, **SCRATCH)


def test_wrappers_need_bits_of_ours():
    with pytest.raises(ValueError, match=r"^env: got actions of shape \(17,\)"):
        ActionFormWrapper(gym.make("InstaNAS-v1", actions="cells", **SCRATCH), "cells")
    with pytest.raises(ValueError, match="^env: got .*CartPole"):
        ActionFormWrapper(gym.make("CartPole-v1"), "cells")


def test_a_wrapper_around_gymnasiums_own_vector_environment():
    envs = gym.make_vec("InstaNAS-v1", num_envs=2, vectorization_mode="sync", **SCRATCH)
    envs = VectorActionFormWrapper(envs, "cells", space=SPACE)
    envs.reset(seed=0)
    info = envs.step(np.full((2, 17), 31))[4]
    assert info["mask"].all() and envs.action_space.shape == (2, 17)
