"""What clients do: resets after autoresets, recorded infos, Gymnasium's wrappers and modes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers.vector import (
    GrayscaleObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    TransformReward,
)
from hypothesis import given
from hypothesis import strategies as st

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.reinforce import SelfCriticalReinforce
from instanas_env.observations import features
from tests.tools.scratch import SCRATCH

pytestmark = pytest.mark.usefixtures("one_meta_graph")
N = 3
SAME_STEP_SYNC = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": "SameStep"}}


def make(images: int = 6, num_envs: int = N, **options):
    envs = gym.make_vec("InstaNAS-v1", num_envs=num_envs, **SCRATCH, **options)
    bandit = envs.unwrapped.bandit
    bandit.image_set = bandit.image_set.take(torch.arange(images))
    return envs


def zeros() -> np.ndarray:
    return np.zeros((N, 85), np.int8)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
@pytest.mark.parametrize("options", [None, {}])
def test_a_client_that_resets_after_every_episode_loses_no_image(mode, options):
    """TorchRL's and RLlib's loop, three passes; the observation is what the rewards are of."""
    envs = make(autoreset_mode=mode)
    observation, info = envs.reset(seed=0)
    acted = []
    while len(acted) < 6:
        expected = envs.unwrapped.score(zeros())
        assert info["index"].tolist() == expected.index.tolist()
        _, reward, terminated, _, _ = envs.step(zeros())
        if mode == "NextStep":
            envs.step(zeros())
        assert terminated.all() and np.array_equal(reward, expected.reward)
        acted.append(expected.index)
        observation, info = envs.reset(options=options)
        assert np.array_equal(observation, envs.unwrapped.observation())
    assert np.array_equal(np.sort(np.reshape(acted, (3, 6))), [range(6)] * 3)
    assert not np.array_equal(envs.reset()[1]["index"], info["index"]), "a second reset goes on"


def test_a_resumed_environment_still_keeps_what_it_drew():
    one, other = make(), make()
    one.reset(seed=0)
    waiting = one.step(zeros())[4]["index"]
    other.unwrapped.load_state_dict(one.unwrapped.state_dict())
    assert other.reset()[1]["index"].tolist() == waiting.tolist()


def types(info: dict) -> dict:
    return {name: (type(value), value.dtype, value.shape) for name, value in info.items()}


def test_infos_have_the_same_keys_and_types_and_stack():
    """A waiting image's label does not leak; what is unknown has its placeholder."""
    env = gym.make("InstaNAS-v1", **SCRATCH)
    waiting, acted = env.reset(seed=0)[1], env.step(np.ones(85))[4]
    assert types(waiting) == types(acted)
    assert all(isinstance(value, (np.generic, np.ndarray)) for value in acted.values())
    assert waiting["label"] == waiting["prediction"] == -1 and not waiting["mask"].any()
    assert not waiting["correct"] and not waiting["is_success"]
    assert all(np.isnan(waiting[name]) for name in ("latency_ms", "reward_task", "reward_latency"))
    assert all(waiting[name] == acted[name] for name in ("index", "epoch", "upper_ms", "lower_ms"))


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_native_and_gymnasiums_own_vector_environment_say_the_same(mode):
    """Keys, their order, masks and types after reset and step; ``index`` is of the images returned."""
    native = make(images=6, autoreset_mode=mode)
    sync = gym.make_vec(
        "InstaNAS-v1",
        num_envs=N,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        **SCRATCH,
    )

    def assert_alike(mine: dict, theirs: dict) -> None:
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            if isinstance(value, dict):
                assert_alike(value, theirs[name])
            else:
                assert (value.dtype, value.shape) == (theirs[name].dtype, theirs[name].shape), name
                assert not name.startswith("_") or np.array_equal(value, theirs[name])

    assert_alike(native.reset(seed=0)[1], sync.reset(seed=0)[1])
    for _ in range(2):
        results = [envs.step(zeros()) for envs in (native, sync)]
        assert_alike(results[0][4], results[1][4])
        stores = native.unwrapped.bandit, sync.envs[0].unwrapped.bandit
        for (observation, *_, info), bandit in zip(results, stores, strict=True):
            assert np.array_equal(observation, bandit.image_set.images[torch.from_numpy(info["index"])])
        if mode == "Disabled":
            marked = np.array([True, False, True])
            infos = [envs.reset(options={"reset_mask": marked.copy()})[1] for envs in (native, sync)]
            assert_alike(*infos)
            for envs in (native, sync):
                envs.reset()


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_gymnasium_counts_returns(mode):
    envs = RecordEpisodeStatistics(make(autoreset_mode=mode))
    envs.reset(seed=0)
    for _ in range(3):
        _, reward, _, _, info = envs.step(zeros())
        assert np.allclose(info["episode"]["r"], reward) and info["episode"]["l"].tolist() == [1] * N
        if mode == "NextStep":
            envs.step(zeros())


def test_gymnasiums_wrappers_work_on_the_native_environment():
    """Those of rewards in the default mode; those of observations where Gymnasium allows them."""
    envs = NormalizeReward(TransformReward(make(), lambda reward: reward + 100))
    envs.reset(seed=0)
    assert np.isfinite(envs.step(zeros())[1]).all()
    for changed in (NormalizeReward(make()), TransformReward(make(), lambda reward: reward)):
        with pytest.raises(ValueError, match="^env: a wrapper changes its rewards"):
            SelfCriticalReinforce(changed)
    for mode in ("NextStep", "Disabled"):
        envs = GrayscaleObservation(make(layout="HWC", autoreset_mode=mode))
        assert envs.single_observation_space.shape == (32, 32)
        assert envs.reset(seed=0)[0].shape == envs.step(zeros())[0].shape == (N, 32, 32)


def test_channels_last_are_the_same_images():
    one, other = make(), make(layout="HWC")
    (first, _), (last, _) = (envs.reset(seed=0) for envs in (one, other))
    assert last.shape == (N, 32, 32, 3) and np.array_equal(first.transpose(0, 2, 3, 1), last)
    mine, theirs = (envs.step(zeros()) for envs in (one, other))
    assert np.array_equal(mine[0].transpose(0, 2, 3, 1), theirs[0]) and np.array_equal(mine[1], theirs[1])
    assert np.array_equal(theirs[4]["final_obs"][0], last[0])
    assert np.array_equal(one.unwrapped.images(), other.unwrapped.images())


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(1, 5))
def test_features_are_what_they_are_said_to_be(seed, count):
    """By NumPy's own mean and deviation; an image alone has them to the bit; all lie in 0..1."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), np.uint8)
    got = features(torch.from_numpy(images))
    scaled = images / 255
    grey = scaled.mean(1)
    expected = [scaled.mean((2, 3)), 2 * scaled.std((2, 3))]
    expected += [np.abs(np.diff(grey, axis=axis)).mean((1, 2))[:, None] for axis in (2, 1)]
    expected += [grey.reshape(count, 4, 8, 4, 8).mean((2, 4)).reshape(count, 16)]
    assert got.dtype == np.float32 and np.allclose(got, np.concatenate(expected, 1), atol=1e-6)
    assert got.min() >= 0 and got.max() <= 1
    for i in range(count):
        assert np.array_equal(features(torch.from_numpy(images[i : i + 1]))[0], got[i])


def test_extreme_features():
    black_and_white = (
        torch.tensor([0, 255], dtype=torch.uint8).repeat(512).reshape(1, 1, 32, 32).expand(1, 3, 32, 32)
    )
    assert features(black_and_white)[0, :8].tolist() == [0.5] * 3 + [1.0] * 3 + [1.0, 0.0]


def test_seeds_of_any_integer_type():
    envs, env = make(), gym.make("InstaNAS-v1", **SCRATCH)
    for each in (envs, env):
        expected = each.reset(seed=3)[0]
        for seed in (np.int64(3), np.uint8(3)):
            assert np.array_equal(each.reset(seed=seed)[0], expected)
        for seed in (-1, 1.0, "3", True, [1, 2, 3], np.array(3)):
            before = str(each.unwrapped.bandit.state_dict())
            with pytest.raises(ValueError, match="^seed: got .* one whole number"):
                each.unwrapped.reset(seed=seed)
            assert str(each.unwrapped.bandit.state_dict()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": [0, 1, 99999]}, r"^options\['index'\]: got"), ({"idx": 1}, "^options: got unknown"),
        ([("index", 1)], "^options: got"), ("index", "^options: got"), ({"index": [[1], [2, 3]]}, "^options"),
        ({"index": "abc"}, "^options"), ({"index": None}, "^options"), ({"index": [0.0, 1.0, 2.0]},
        "^options"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_change_nothing_even_with_a_seed(options, message):
    envs, env = make().unwrapped, gym.make("InstaNAS-v1", **SCRATCH).unwrapped
    for each in (envs, env):
        each.reset(seed=0)
        before = str(each.bandit.state_dict()), each.np_random.bit_generator.state["state"]
        with pytest.raises(ValueError, match=message):
            each.reset(seed=5, options=options)
        assert (str(each.bandit.state_dict()), each.np_random.bit_generator.state["state"]) == before
        each.step(np.zeros((N, 85) if each is envs else 85))


@pytest.mark.parametrize("shape", [(1, 85), (2, 85), (84,), (17, 5), (), (1, N, 85), (2, N, 85), (N, 17, 5)])
def test_steps_take_one_shape_and_change_nothing_otherwise(shape):
    """An action of the wrong shape neither counts nor spends the episode."""
    envs, env = make().unwrapped, gym.make("InstaNAS-v1", **SCRATCH).unwrapped
    for each, right in ((envs, (N, 85)), (env, (85,))):
        each.reset(seed=0)
        before = str(each.bandit.state_dict())
        with pytest.raises(ValueError, match="^actions: got shape"):
            each.step(np.zeros(shape))
        assert str(each.bandit.state_dict()) == before
        each.step(np.zeros(right))
    with pytest.raises(ValueError, match=r"^actions: got shape \(0, 3, 85\); .* K of at least 1"):
        envs.score(np.zeros((0, N, 85)))


ASYNC = """
import gymnasium as gym, numpy as np, torch
import instanas_env
torch.set_num_threads(2)
if __name__ == "__main__":
    fork = {{"context": "fork"}}
    envs = gym.make_vec("InstaNAS-v1", 2, vectorization_mode="async", vector_kwargs=fork, **{options})
    envs.reset(seed=0)
    print("ok", envs.step(np.ones((2, 85), int))[1].shape)
    envs.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_workers_do_not_hang():
    """Two threads in the parent, whose team a fork does not copy: a worker still answers."""
    code = ASYNC.format(options=SCRATCH)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        assert process.communicate(timeout=240)[0] == "ok (2,)\n"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the session of this test's own process
