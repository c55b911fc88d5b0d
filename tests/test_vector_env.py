"""The native vector environment: what each mode of autoreset returns, and that it keeps what it returns."""

from __future__ import annotations

import copy
from dataclasses import asdict

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env.callbacks import MetaGraphUpdate
from instanas_env.render import GAP, SIDE
from instanas_env.storage import load_checkpoint, save_checkpoint
from tests.tools.scratch import SCRATCH

pytestmark = pytest.mark.usefixtures("one_meta_graph")
N = 3
FALLING = {"upper": [[1.0, "full"], [0.6, "full"]], "lower": [0.0, "full"], "epochs": 3}
STEP_KEYS = {
    "index", "epoch", "upper_ms", "lower_ms", "label", "prediction", "correct", "is_success", "latency_ms",
    "reward_task", "reward_latency", "mask",
}  # fmt: skip
INFO_KEYS = STEP_KEYS | {f"_{name}" for name in STEP_KEYS}
FINAL_KEYS = {"final_obs", "_final_obs", "final_info", "_final_info"}


def make(mode: AutoresetMode | str = AutoresetMode.SAME_STEP, images: int = 7, **options):
    """Three images a step, out of ``images`` in all."""
    envs = gym.make_vec("InstaNAS-v1", num_envs=N, autoreset_mode=mode, **SCRATCH, **options)
    bandit = envs.unwrapped.bandit
    bandit.image_set = bandit.image_set.take(torch.arange(images))
    return envs


def drawn_actions(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (*shape, 85), dtype=np.int8)


def images_at(envs, index: np.ndarray) -> np.ndarray:
    return envs.unwrapped.bandit.image_set.images[torch.from_numpy(index)].numpy()


def assert_flags(terminated, truncated, expected: bool) -> None:
    assert terminated.dtype == truncated.dtype == bool
    assert terminated.tolist() == [expected] * N and truncated.tolist() == [False] * N


def test_same_step_returns_the_next_images():
    envs = make()
    observation, info = envs.reset(seed=0)
    assert observation.shape == (N, 3, 32, 32) and observation.dtype == np.uint8
    assert info.keys() == INFO_KEYS
    for _ in range(3):
        index, scores = info["index"], envs.unwrapped.score(drawn_actions(N))
        assert np.array_equal(observation, images_at(envs, index))
        acted_on = observation
        observation, reward, terminated, truncated, info = envs.step(drawn_actions(N))
        assert_flags(terminated, truncated, True)
        assert info.keys() == INFO_KEYS | FINAL_KEYS
        assert np.array_equal(reward, scores.reward)
        assert np.array_equal(np.stack(list(info["final_obs"])), acted_on)
        assert info["final_obs"].dtype == object
        assert info["_final_obs"].all() and info["_final_info"].all()
        assert info["final_info"].keys() == INFO_KEYS
        for name in STEP_KEYS:
            assert np.array_equal(info["final_info"][name], asdict(scores)[name])
        assert np.array_equal(info["final_info"]["index"], index)


def test_next_step_spends_a_step_on_the_new_images():
    """The second actions are nonsense and nobody looks at them."""
    envs = make(AutoresetMode.NEXT_STEP)
    first, info = envs.reset(seed=0)
    for _ in range(2):
        observation, reward, terminated, truncated, info = envs.step(drawn_actions(N))
        assert_flags(terminated, truncated, True)
        assert np.array_equal(observation, first) and info.keys() == INFO_KEYS
        assert np.array_equal(reward, envs.unwrapped.score(drawn_actions(N)).reward)
        following, reward, terminated, truncated, info = envs.step(np.full((N, 85), 7))
        assert_flags(terminated, truncated, False)
        assert reward.tolist() == [0.0] * N and info.keys() == INFO_KEYS
        assert np.array_equal(following, images_at(envs, info["index"]))
        assert not np.array_equal(following, first)
        first = following


def test_disabled_waits_for_reset():
    envs = make("Disabled")
    before, info = envs.reset(seed=0)
    observation, _, terminated, truncated, acted = envs.step(drawn_actions(N))
    assert_flags(terminated, truncated, True)
    assert np.array_equal(observation, before) and acted.keys() == INFO_KEYS
    with pytest.raises(ResetNeeded, match="call reset"):
        envs.step(drawn_actions(N))

    observation, info = envs.reset(options={"reset_mask": np.array([False, True, False])})
    assert np.array_equal(observation, images_at(envs, info["index"]))
    assert (info["index"] == acted["index"]).tolist() == [True, False, True]
    with pytest.raises(ResetNeeded, match="call reset"):
        envs.step(drawn_actions(N))

    kept = info["index"][1]
    info = envs.reset(options={"reset_mask": np.array([True, False, True]), "index": [5, 6, 5]})[1]
    assert envs.step(drawn_actions(N))[4]["index"].tolist() == info["index"].tolist() == [5, kept, 5]
    assert sorted(envs.reset()[1]["index"]) != sorted(acted["index"])


@pytest.mark.parametrize("mode", AutoresetMode)
def test_modes_may_be_given_as_enum_or_text(mode):
    """Metadata holds the enum, which Gymnasium's wrappers compare with."""
    for given in (mode, mode.value):
        envs = make(given).unwrapped
        assert envs.metadata["autoreset_mode"] is mode and envs.autoreset_mode is mode
    assert type(envs).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


@pytest.mark.parametrize(
    ("options", "name"),
    [({"autoreset_mode": "sometimes"}, "autoreset_mode"), ({"num_envs": 0}, "num_envs"),
     ({"num_envs": 10**6}, "num_envs")],
)  # fmt: skip
def test_bad_arguments_are_named(options, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        gym.make_vec("InstaNAS-v1", **SCRATCH, **{"num_envs": N, **options})


@pytest.mark.parametrize(
    "options",
    [{"index": [0, 1]}, {"index": [0, 1, 7]}, {"index": [0.0, 1.0, 2.0]}, {"reset_mask": np.zeros(N, bool)},
     {"reset_mask": np.ones(N)}, {"reset_mask": np.ones(2, bool)}],
    ids=str,
)  # fmt: skip
def test_bad_reset_options_are_named_and_change_nothing(options):
    envs = make("Disabled")
    envs.reset(seed=0)
    before = copy.deepcopy(envs.unwrapped.state_dict())
    with pytest.raises(ValueError, match=rf"^options\['{next(iter(options))}'\]: got "):
        envs.reset(options=options)
    assert str(envs.unwrapped.state_dict()) == str(before)
    with pytest.raises(ValueError, match=r"^seed: got \[1, 2, 3\]"):
        envs.reset(seed=[1, 2, 3])


def test_before_reset_there_is_nothing_to_do():
    envs = make(render_mode="rgb_array").unwrapped
    for call in (lambda: envs.step(drawn_actions(N)), lambda: envs.score(drawn_actions(N)), envs.render):
        with pytest.raises(ResetNeeded, match="call reset"):
            call()


def test_spoiling_what_was_returned_spoils_nothing():
    """Neither the environment's own images, nor its picture, nor the record the meta-graph learns from."""
    envs, twin = (make("Disabled", render_mode="rgb_array") for _ in range(2))
    updates = MetaGraphUpdate(), MetaGraphUpdate()
    for each, update in zip((envs, twin), updates, strict=True):
        each.unwrapped.add_callback(update)
        each.reset(seed=0)
        observation, reward, _, _, info = each.step(drawn_actions(N))
        if each is envs:
            for array in (observation, reward, *info.values()):
                array[...] = 0
    one, other = envs.unwrapped.score(drawn_actions(N)), twin.unwrapped.score(drawn_actions(N))
    kept = {
        "images": np.array_equal(one.reward, other.reward) and np.array_equal(one.index, other.index),
        "picture": np.array_equal(envs.render(), twin.render()),
        "recorded index": torch.equal(updates[0]._indices[0], updates[1]._indices[0]),
        "recorded masks": torch.equal(updates[0]._masks[0], updates[1]._masks[0]),
    }
    assert all(kept.values()), kept


@pytest.mark.parametrize("mode", AutoresetMode)
def test_every_info_value_has_one_entry_per_image(mode):
    envs = make(mode)
    infos = [envs.reset(seed=0)[1], envs.step(drawn_actions(N))[4]]
    infos += [infos[1]["final_info"]] if mode is AutoresetMode.SAME_STEP else []
    for info in infos:
        assert all(len(value) == N for name, value in info.items() if name != "final_info")


def test_a_seed_gives_a_trajectory_and_starts_again():
    """Two environments, and one of them again later; augmented, so that every draw of chance counts."""

    def play(envs, seed: int) -> list[np.ndarray]:
        arrays = [envs.reset(seed=seed)[0]]
        for step in range(4):
            observation, reward, _, _, info = envs.step(drawn_actions(N, seed=step))
            arrays += [observation, reward, *(info["final_info"][name] for name in sorted(STEP_KEYS))]
        return arrays

    one, other = make(augment=True), make(augment=True)
    first = play(one, seed=1)
    for again in (play(other, seed=1), play(one, seed=1)):
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(play(one, seed=2)[0], first[0])


def test_epochs_pass_and_bounds_fall():
    """Six images, three a step: two steps an epoch. U goes from 1 over 0.8 to 0.6 of the full network."""
    envs = make(images=6, bounds=FALLING)
    envs.reset(seed=0)
    infos = [envs.step(drawn_actions(N))[4]["final_info"] for _ in range(8)]
    assert [info["epoch"].tolist() for info in infos] == [[k // 2] * N for k in range(8)]
    full = envs.unwrapped.bandit.latency_table.reference("full")
    for k, info in enumerate(infos):
        assert info["upper_ms"] == pytest.approx(full * (1.0, 0.8, 0.6, 0.6)[k // 2])
    shown = np.concatenate([info["index"] for info in infos]).reshape(4, 6)
    assert np.array_equal(np.sort(shown), np.arange(6) * np.ones((4, 1)))


def test_a_resumed_environment_goes_on_as_the_first_would_have(tmp_path):
    first, second = make(augment=True), make(augment=True)
    first.reset(seed=4)
    first.step(drawn_actions(N))
    save_checkpoint(tmp_path / "c.pt", first.unwrapped.state_dict())
    second.unwrapped.load_state_dict(load_checkpoint(tmp_path / "c.pt"))
    for seed in range(3):
        one, other = (envs.step(drawn_actions(N, seed=seed)) for envs in (first, second))
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
        assert all(
            np.array_equal(one[4]["final_info"][name], other[4]["final_info"][name]) for name in STEP_KEYS
        )


def test_gymnasium_counts_our_episodes():
    envs = gym.wrappers.vector.RecordEpisodeStatistics(make())
    envs.reset(seed=0)
    for _ in range(2):
        _, reward, _, _, info = envs.step(drawn_actions(N))
        assert np.allclose(info["episode"]["r"], reward) and info["episode"]["l"].tolist() == [1] * N
    assert envs.episode_count == 2 * N


@pytest.mark.parametrize("mode", AutoresetMode)
def test_render_gives_a_picture_of_each_image(mode):
    """After a step with its mask, in every mode; after a reset or a rewind of what waits."""
    envs = make(mode, render_mode="rgb_array")
    envs.reset(options={"index": np.array([0, 0, 1])})
    before = envs.render()
    assert isinstance(before, tuple) and [frame.dtype for frame in before] == [np.uint8] * N
    assert np.array_equal(before[0], before[1]) and not np.array_equal(before[0], before[2])
    envs.step(np.repeat([[0], [1], [1]], 85, axis=1))
    after = envs.render()
    assert not np.array_equal(after[0], after[1]), "one image under two masks"
    inside = np.s_[GAP : GAP + SIDE, GAP : GAP + SIDE]
    assert all(np.array_equal(a[inside], b[inside]) for a, b in zip(after, before, strict=True))
    state = envs.unwrapped.state_dict()
    envs.reset()
    words = np.s_[SIDE + 2 * GAP :]
    assert not np.array_equal(after[0][words], before[0][words])
    assert all(np.array_equal(frame[words], before[0][words]) for frame in envs.render())
    envs.step(np.ones((N, 85)))
    envs.unwrapped.load_state_dict(state)
    assert all(np.array_equal(frame[words], before[0][words]) for frame in envs.render())
    assert make(mode).render() is None
