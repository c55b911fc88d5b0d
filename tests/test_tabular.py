"""InstaNASTabular-v1: rewards are the live environment's, regrets are right, and it is an environment."""

from __future__ import annotations

from dataclasses import asdict

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import instanas_env
from agents.reinforce import SelfCriticalReinforce
from instanas_env import tabular
from instanas_env.contextual import Rules
from instanas_env.observations import features
from instanas_env.tabular import TABLE
from instanas_env.tabular_bandit import TabularBandit
from tests.tools.tables import drawn_table, four_images, validation_images

N = 250
WINDOWS = [
    {},
    {"correct_reward": 0.7, "wrong_reward": -0.1, "order": "sequential"},
    {"correct_reward": 2.0, "wrong_reward": 0.5, "bounds": {"upper": [0.9, "full"], "lower": [0.0, "full"]}},
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> str:
    """A file of random answers for the embedded validation images, 11 masks."""
    path = tmp_path_factory.mktemp("drawn") / "table.safetensors"
    drawn_table().save(path)
    return str(path)


def make(table: str, count: int | None = N, **options):
    options = {"table": table, "split": "val", **options}
    if count is None:
        return gym.make("InstaNASTabular-v1", **options)
    return gym.make_vec("InstaNASTabular-v1", num_envs=count, **options)


def arms_for(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, shape)


# --- regrets by hand -------------------------------------------------------------------------------------


def hand_bandit() -> tuple[TabularBandit, instanas_env.Contexts]:
    """1, 2, 3 ms: the window is best at 1 and ends at 3, so R_A = 1, 3/4, 0. Rewards of images x masks:

    class 0   1   3/4   0      sums of class 0:   0   3/2   0: the second mask
             -1   3/4   0
    class 1   1   -1    0      sums of class 1:   0   -2    0: the first, it is faster
             -1   -1    0      sums of both:      0  -1/2   0: the first
    """
    table, image_set = four_images()
    bandit = TabularBandit(table, "val", image_set)
    return bandit, bandit.contexts(torch.arange(4))


def test_regrets_by_hand():
    bandit, contexts = hand_bandit()
    judged = bandit.judged
    assert judged.reward_latency.tolist() == [1, 0.75, 0]
    assert judged.best_of_image.tolist() == [1, 0.75, 1, 0]
    assert judged.class_arms.tolist() == [1, 0] and judged.fixed_arm == 0

    outcome = bandit.score(contexts, np.array([2, 2, 2, 2]))
    assert outcome.reward.tolist() == [0, 0, 0, 0]
    assert outcome.regret_image.tolist() == [1, 0.75, 1, 0]
    assert outcome.regret_class.tolist() == [0.75, 0.75, 1, -1]
    assert outcome.regret_fixed.tolist() == [1, -1, 1, -1]

    outcome = bandit.score(contexts, np.array([0, 0, 1, 1]))
    assert outcome.reward.tolist() == [1, -1, -1, -1]
    assert outcome.prediction.tolist() == [0, -1, -1, -1] and outcome.label.tolist() == [0, 0, 1, 1]
    assert outcome.regret_image.tolist() == [0, 1.75, 2, 1]
    assert outcome.regret_class.tolist() == [-0.25, 1.75, 2, 0]
    assert outcome.regret_fixed.tolist() == [0, 0, 2, 0]


@given(seed=st.integers(0, 2**32 - 1), window=st.sampled_from(WINDOWS))
def test_the_oracles_are_the_best_of_their_kind(seed, window):
    """Over a pass no arm, no arm for a class and no arm for an image earns more than its oracle."""
    images = validation_images()
    rules = {name: value for name, value in window.items() if name.endswith("reward")}
    if "bounds" in window:
        rules["bounds"] = instanas_env.BoundsSchedule.from_config(window["bounds"])
    bandit = TabularBandit(drawn_table(seed=seed), "val", images, Rules(**rules))
    contexts = bandit.contexts(torch.arange(len(images)))
    every = bandit.score(contexts, np.tile(np.arange(11)[:, None], len(images)))
    assert (every.regret_image >= 0).all() and (every.regret_image.min(0) == 0).all()
    assert (every.regret_fixed.sum(1) >= -1e-9).all()
    assert abs(every.regret_fixed[bandit.judged.fixed_arm]).max() == 0
    for label in range(10):
        of_class = every.regret_class[:, images.labels.numpy() == label].sum(1)
        assert (of_class >= -1e-9).all() and abs(of_class[bandit.judged.class_arms[label]]) == 0
    sums = [getattr(every, name).sum(1) for name in TabularBandit.regrets]
    assert (sums[0] >= sums[1] - 1e-9).all() and (sums[1] >= sums[2] - 1e-9).all()


def test_regrets_follow_a_moving_window(drawn):
    """With L = 0, U falls from 1 to 1/2 of the full network's 11 ms: other masks are the best then."""
    bounds = {"upper": [[1.0, "full"], [0.5, "full"]], "lower": [0.0, "full"], "epochs": 2}
    envs = make(drawn, bounds=bounds)
    envs.reset(seed=0)
    bandit = envs.unwrapped.bandit
    before = bandit.judged
    for _ in range(1000 // N):
        info = envs.step(arms_for(11, N))[4]
        assert (info["final_info"]["upper_ms"] == 11).all()
    assert (info["upper_ms"] == 5.5).all() and (info["epoch"] == 1).all()
    assert before.reward_latency[5] > 0 == bandit.judged.reward_latency[5]
    assert (envs.step(arms_for(11, N))[4]["final_info"]["regret_image"] >= 0).all()


# --- the environment -------------------------------------------------------------------------------------


LOOKS = [{}, {"layout": "HWC"}, {"observation": "features"}, {"observation": "index"}]


@pytest.mark.filterwarnings("ignore:.*minimal resolution for an image is 36x36.*:UserWarning")
@pytest.mark.parametrize("options", LOOKS)
def test_checkers_find_nothing_to_complain_about(drawn, options):
    """Warnings are errors here; SB3 rightly says that its own CnnPolicy does not fit 32 px."""
    for check in (check_env, sb3_check_env):
        check(make(drawn, None, render_mode="rgb_array", **options).unwrapped)
    envs = make(drawn, 3, **options)
    assert envs.reset(seed=0)[0] in envs.observation_space
    assert envs.step(envs.action_space.sample())[0] in envs.observation_space


def test_observations_are_of_the_images_that_wait(drawn):
    images = validation_images().images
    for observation, expected in (
        ("image", images.numpy()),
        ("features", features(images)),
        ("index", np.arange(1000)),
    ):
        envs = make(drawn, observation=observation)
        first, info = envs.reset(seed=3)
        assert np.array_equal(first, expected[info["index"]])
        index = info["index"]
        second, _, _, _, info = envs.step(arms_for(11, N))
        assert np.array_equal(second, expected[info["index"]])
        assert np.array_equal(np.stack(list(info["final_obs"])), expected[index])
        assert np.array_equal(envs.unwrapped.images(), images.numpy()[info["index"]])
        first[:] = 0  # the caller's own
        assert np.array_equal(envs.unwrapped.observation(), second)


def test_infos_have_the_keys_of_the_live_environment_and_regrets(drawn):
    live = gym.make_vec("InstaNAS-v1", num_envs=2, split="val")
    twin = make(drawn, 2)
    regrets = {*TabularBandit.regrets, *(f"_{name}" for name in TabularBandit.regrets)}
    waiting, expected = twin.reset(seed=0)[1], live.reset(seed=0)[1]
    assert waiting.keys() == expected.keys() | regrets
    assert all(np.isnan(waiting[name]).all() for name in TabularBandit.regrets)
    for name, value in expected.items():
        if name not in ("upper_ms", "lower_ms"):
            assert np.array_equal(waiting[name], value, equal_nan=value.dtype.kind == "f")
    infos = [envs.step(envs.action_space.sample())[4] for envs in (live, twin)]
    theirs, ours = (info["final_info"] for info in infos)
    assert ours.keys() == theirs.keys() | regrets and infos[1].keys() == infos[0].keys() | regrets
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape


def test_scalar_and_vector_agree_to_the_bit(drawn):
    """The same seed shows the same images; what is known of them is the same."""
    scalar, vector = make(drawn, None, observation="features"), make(drawn, 2, observation="features")
    scalar.reset(seed=5)
    observation, _ = vector.reset(seed=5)
    for arms in arms_for(11, 4, 2):
        following, reward, _, _, info = vector.step(arms)
        for i, arm in enumerate(arms):
            assert scalar.unwrapped.score(arm).reward == reward[i]
            seen, earned, terminated, truncated, mine = scalar.step(arm)
            assert np.array_equal(seen, observation[i]) and earned == reward[i]
            assert terminated and not truncated
            for name, value in mine.items():
                assert np.array_equal(value, info["final_info"][name][i])
            scalar.reset()
        observation = following


def test_each_pass_shows_each_image_once(drawn):
    envs = make(drawn, observation="index")
    observation, _ = envs.reset(seed=0)
    for _ in range(2):
        seen = []
        for _ in range(1000 // N):
            seen.append(observation)
            observation = envs.step(arms_for(11, N))[0]
            envs.reset()  # as TorchRL does
        assert sorted(np.concatenate(seen)) == list(range(1000))


def test_a_seed_repeats_everything(drawn):
    def play(seed):
        envs = make(drawn, 16, observation="index")
        first = envs.reset(seed=seed)[0]
        return [first, *(part for arms in arms_for(11, 5, 16) for part in envs.step(arms)[:2])]

    assert all(map(np.array_equal, play(1), play(1)))
    assert not np.array_equal(play(1)[0], play(2)[0])


def test_a_state_is_taken_up_again(drawn):
    envs, other = make(drawn, 16), make(drawn, 16)
    envs.reset(seed=1)
    envs.step(arms_for(11, 16))
    other.unwrapped.load_state_dict(envs.unwrapped.state_dict())
    for arms in arms_for(11, 3, 16):
        mine, theirs = envs.step(arms), other.step(arms)
        assert np.array_equal(mine[0], theirs[0]) and np.array_equal(mine[1], theirs[1])


@pytest.mark.parametrize("mode", AutoresetMode)
def test_modes_of_autoreset(drawn, mode):
    envs = make(drawn, 4, observation="index", autoreset_mode=mode.value)
    first, _ = envs.reset(seed=0)
    expected = envs.unwrapped.score(arms_for(11, 4))
    observation, reward, terminated, _, info = envs.step(arms_for(11, 4))
    assert np.array_equal(reward, expected.reward) and terminated.all()
    same = mode is AutoresetMode.SAME_STEP
    assert np.array_equal(observation, first) is not same
    assert np.array_equal((info["final_info"] if same else info)["regret_fixed"], expected.regret_fixed)
    if mode is AutoresetMode.DISABLED:
        with pytest.raises(ResetNeeded, match="call reset"):
            envs.step(arms_for(11, 4))


def test_score_takes_several_arms_and_changes_nothing(drawn):
    envs = make(drawn, 5)
    envs.reset(seed=0)
    several = envs.unwrapped.score(arms_for(11, 3, 5))
    assert several.reward.shape == (3, 5) and several.mask.shape == (3, 5, 17, 5)
    for k, arms in enumerate(arms_for(11, 3, 5)):
        for name, value in asdict(envs.unwrapped.score(arms)).items():
            assert np.array_equal(value, getattr(several, name)[k])
    scalar = make(drawn, None)
    scalar.reset(seed=0)
    assert scalar.unwrapped.score([0, 10]).reward.shape == (2,)


def test_a_picture_is_drawn(drawn):
    env = make(drawn, None, render_mode="rgb_array")
    env.reset(seed=0)
    empty = env.render()
    env.step(10)
    assert env.render().shape == empty.shape and not np.array_equal(env.render(), empty)


# --- errors ----------------------------------------------------------------------------------------------


def test_wrong_actions_are_refused_before_anything_changes(drawn):
    envs = make(drawn, 3)
    with pytest.raises(ResetNeeded, match="call reset"):
        envs.step([0, 0, 0])
    info = envs.reset(seed=0)[1]
    for wrong, message in (
        ([0, 1], r"got shape \(2,\); \(3,\) will do"),
        ([[0, 1, 2]], r"got shape \(1, 3\); \(3,\) will do"),
        ([0, 1, 11], r"the value 11; only whole numbers in 0\.\.10"),
        ([0, 1, -1], "the value -1"),
        ([0, 1, 0.5], "the value 0.5"),
    ):
        with pytest.raises(ValueError, match=f"actions: {message}" if message[0] == "g" else message):
            envs.step(wrong)
    assert np.array_equal(envs.step([0, 1, 2])[4]["final_info"]["index"], info["index"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "split: unknown 'test'; the table has val"),
        ({"observation": "pixels"}, "observation: unknown 'pixels'; choose from image, features, index"),
        ({"layout": "HCW"}, "layout: unknown 'HCW'"),
        ({"order": "sorted"}, "order: unknown 'sorted'"),
        ({"bounds": {"upper": [1.0, "half"], "lower": [0.0, "full"]}}, "unknown reference 'half'"),
        ({"correct_reward": -1.0}, "correct_reward: got -1.0, not above wrong_reward"),
        ({"autoreset_mode": "Never"}, "autoreset_mode: unknown 'Never'"),
        ({"render_mode": "human"}, "render_mode: unknown 'human'"),
        ({"count": 1001}, "num_envs: got 1001; a whole number from 1 to 1000"),
    ],
)
def test_wrong_arguments_are_named(drawn, options, message):
    with pytest.raises(ValueError, match=message):
        make(drawn, **options)


def test_a_table_of_other_images_is_refused(tmp_path):
    table = drawn_table()
    object.__setattr__(table, "images", {"val": "0" * 32})
    table.save(tmp_path / "table.safetensors")
    with pytest.raises(ValueError, match="made with other images of 'embedded' .val.: fingerprint 0{32}"):
        make(str(tmp_path / "table.safetensors"))


def test_a_shipped_table_of_other_weights_is_refused(drawn, monkeypatch):
    """As after the meta-graph was trained anew and the table was not."""
    shipped = tabular.shipped
    monkeypatch.setattr(tabular, "shipped", lambda name: drawn if name == TABLE else shipped(name))
    with pytest.raises(ValueError, match="was made with another meta_graph.safetensors .*`instanas tabulate"):
        gym.make("InstaNASTabular-v1", split="val")


def test_what_needs_a_network_is_refused(drawn):
    envs = make(drawn, 4)
    for env in (envs, make(drawn, None)):
        with pytest.raises(ValueError, match="a table has no meta-graph to train"):
            env.unwrapped.add_callback(instanas_env.MetaGraphUpdate())
    with pytest.raises(ValueError, match="actions='bits' will do"):
        SelfCriticalReinforce(envs).learn(8)
