"""Public arguments of environment, bandit and ``predict``: refused by name, or taken for what they are."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.static import RandomAgent, StaticAgent
from instanas_env import arrays, checks
from instanas_env.search_space import SearchSpace
from instanas_env.wrappers import action_form
from tests.tools.scratch import SCRATCH

SPACE = SearchSpace.preset("lite")
BITS = np.random.default_rng(0).integers(0, 2, (3, 85))

BAD_OPTIONS = [
    ("correct_reward", float("inf")), ("correct_reward", float("nan")), ("correct_reward", 1e308),
    ("correct_reward", "1"), ("correct_reward", True), ("correct_reward", None), ("correct_reward", 10**400),
    ("wrong_reward", -1e300), ("wrong_reward", []), ("augment", "False"), ("augment", 0), ("autocast", "yes"),
    ("search_space", None), ("search_space", 3), ("search_space", "lite@50000"), ("search_space", "lite@inf"),
    ("search_space", "lite@"), ("search_space", "lite@nan"), ("search_space", "lite@-1"), ("device", "hpu"),
    ("device", "meta"), ("device", "gpu"), ("device", None), ("device", "x" * 5000), ("shard", (0, 10**9)),
    ("shard", (1, 1)), ("shard", (-1, 2)), ("shard", 3), ("shard", (0.0, 1.0)), ("shard", (0, 1, 2)),
    ("data_dir", "x" * 5000), ("data_dir", 5), ("data_dir", "\0"), ("meta_graph", "x" * 5000),
    ("meta_graph", 7), ("latency_table", "\0"), ("latency_table", []), ("dataset", None), ("dataset", []),
    ("split", 1), ("order", None), ("order", ["shuffled"]), ("cost", 3), ("cost", {}), ("bounds", []),
    ("bounds", "falling"), ("bounds", {"upper": [10**400, "full"], "best": [1.0, "cheapest"]}),
    ("bounds", {"upper": [float("nan"), "full"], "best": [1.0, "cheapest"]}), ("layout", "NCHW"),
    ("layout", None), ("observation", "pixels"), ("render_mode", 3), ("render_mode", []), ("num_envs", 0),
    ("num_envs", 2.0), ("num_envs", True), ("num_envs", 10**9), ("autoreset_mode", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_OPTIONS, ids=lambda value: f"{value!r:.30}")
def test_keywords_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        gym.make_vec("InstaNAS-v1", **{"num_envs": 2, **SCRATCH, name: value})
    assert len(str(caught.value)) < 1000


@pytest.fixture(scope="module")
def envs():
    envs = gym.make_vec("InstaNAS-v1", num_envs=3, **SCRATCH).unwrapped
    envs.reset(seed=0)
    return envs


GOOD = {
    "list": BITS.tolist(), "bool": BITS.astype(bool), "int8": BITS.astype(np.int8),
    "uint64": BITS.astype("u8"),     "float16": BITS.astype(np.float16), "big-endian": BITS.astype(">i4"),
    "big-endian float": BITS.astype(">f8"),
    "long double": BITS.astype(np.longdouble), "fortran": np.asfortranarray(BITS),
    "strided": BITS.repeat(2, 1)[:, ::2],
    "reversed": np.ascontiguousarray(BITS[:, ::-1])[:, ::-1], "torch": torch.from_numpy(BITS),
    "bfloat16": torch.from_numpy(BITS).bfloat16(), "sparse": torch.from_numpy(BITS).float().to_sparse(),
    "gradient": torch.from_numpy(BITS).float().requires_grad_(),
    "tensors": [torch.from_numpy(row) for row in BITS],
    "tuple": tuple(map(tuple, BITS.tolist())),
}  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
def test_actions_of_every_number_type_are_the_same_actions(envs, kind):
    expected = envs.score(BITS)
    scores = envs.score(GOOD[kind])
    assert np.array_equal(scores.mask, expected.mask) and np.array_equal(scores.reward, expected.reward)


BAD = {
    "objects": BITS.astype(object), "text": BITS.astype(str), "complex": BITS.astype(complex),
    "None": None,
    "meta": torch.zeros(3, 85, device="meta"), "nan": np.full((3, 85), np.nan),
    "inf": np.full((3, 85), np.inf),
    "two": np.full((3, 85), 2), "minus": np.full((3, 85), -1), "half": np.full((3, 85), 0.5),
    "nearly": np.full((3, 85), 1 + 1e-9), "ragged": [[0] * 85, [0]], "dict": {}, "scalar": 1,
    "word": "actions",
    "complex tensor": torch.zeros(3, 85, dtype=torch.complex64), "dates": np.zeros((3, 85), "M8[s]"),
    "no masks": np.zeros((0, 3, 85)), "big": np.full((3, 85), 2**63, np.uint64),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_other_actions_are_refused_by_name(envs, kind):
    before = str(envs.state_dict())
    for call in (envs.score, envs.step):
        with pytest.raises(ValueError, match="^actions: "):
            call(BAD[kind])
    assert str(envs.state_dict()) == before


@given(
    value=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()))
)
def test_checks_give_the_value_or_a_named_error(value):
    """Whatever comes: a number, a whole number and a flag are what they were, or are refused."""
    kinds = ((checks.number, (int, float)), (checks.whole, int), (checks.flag, bool))
    for check, types in kinds:
        try:
            result = check("name", value)
        except ValueError as error:
            assert str(error).startswith("name: got ") and str(error).endswith(" will do")
        else:
            assert isinstance(value, types) and result == value


@given(data=st.binary(max_size=400), form=st.sampled_from(["bits", "cells", "blocks", "multi_discrete"]))
def test_fuzzed_actions_are_bits_or_named_errors(data, form):
    action = np.frombuffer(data, np.uint8)
    try:
        bits = action_form(form, SPACE).choices(action, ())
    except ValueError as error:
        assert str(error).startswith("actions: ")
    else:
        assert bits.shape == (85,) and bits.dtype == torch.bool


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (IMAGES / 255, "float64; uint8 from 0 to 255 will do"), (-IMAGES.astype(int) - 1, "int64 from -"),
        (IMAGES.astype(int) + 1000, "int64 from"),
        (np.zeros((2, 3, 64, 64), np.uint8), r"shape \(2, 3, 64, 64"),
        (np.zeros((32, 32), np.uint8), "shape"), (np.zeros((1, 1, 32, 32), np.uint8), "shape"),
        ("image", "<U5"),
        (None, "object"), (np.zeros((1, 2, 3, 32, 32), np.uint8), "shape"), (IMAGES > 3, "bool"),
    ],
)  # fmt: skip
def test_predict_takes_images_of_its_size_only(observation, message):
    with pytest.raises(ValueError, match=f"^observation: got {message}"):
        RandomAgent(SPACE).predict(observation)


def test_predict_takes_channels_last_and_other_whole_numbers():
    agent = StaticAgent(SPACE, SPACE.full_mask())
    for images in (IMAGES, IMAGES.transpose(0, 2, 3, 1), IMAGES.astype(np.int64), torch.from_numpy(IMAGES)):
        assert agent.predict(images)[0].shape == (2, 85)
        assert agent.predict(images[0])[0].shape == (85,)


@pytest.mark.parametrize(
    "mask", [[2] * 85, [0.5] * 85, [0] * 84, None, "mask", torch.full((17, 5), float("nan"))]
)
def test_a_static_mask_is_of_zeros_and_ones(mask):
    with pytest.raises(ValueError, match="^mask: got "):
        StaticAgent(SPACE, mask)


@pytest.mark.parametrize(
    "options", [{"keep": float("nan")}, {"keep": 1.5}, {"keep": "0.5"}, {"seed": -1}, {"seed": 0.5}]
)
def test_options_of_random_masks(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: got "):
        RandomAgent(SPACE, **options)


@pytest.mark.parametrize(
    "value", [torch.empty(2, device="meta"), [[1], [2, 3]], "ab", None, [0.5, 1.0]], ids=repr
)
def test_options_of_a_reset_are_named_whatever_they_are(value):
    with pytest.raises(ValueError, match=r"^options\['index'\]: got "):
        arrays.index(value, 2, 8)
    with pytest.raises(ValueError, match=r"^options\['reset_mask'\]: got "):
        arrays.reset_mask(value, 2)
