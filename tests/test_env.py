"""InstaNAS-v1 as Gymnasium and Stable-Baselines3 demand it, and its errors as a user meets them."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import asdict

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import instanas_env
from instanas_env.networks.counting import count_macs, count_parameters
from instanas_env.render import BACKGROUND, GAP, LINE, OFF, ON, SIDE, TILE
from tests.tools.scratch import SCRATCH

FALLING = {"upper": [[1.0, "full"], [0.6, "full"]], "lower": [0.0, "full"], "epochs": 3}
STEP_KEYS = {
    "index", "label", "prediction", "correct", "is_success", "latency_ms", "reward_task", "reward_latency",
    "mask", "upper_ms", "lower_ms", "epoch",
}  # fmt: skip


def make(**options) -> gym.Env:
    return gym.make("InstaNAS-v1", **{**SCRATCH, **options})


def on_six_images(env):
    bandit = env.unwrapped.bandit
    bandit.image_set = bandit.image_set.take(torch.arange(6))
    return env


def drawn_actions(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (*shape, 85), dtype=np.int8)


def play(env: gym.Env, actions: np.ndarray, seed: int | None = None) -> list:
    """Reset and step with each action; everything that came back."""
    record = []
    for number, action in enumerate(actions):
        record += [env.reset(seed=seed if number == 0 else None), env.step(action)]
    return record


def assert_same(one, other) -> None:
    """Equal in structure, type and every bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        one, other = list(one.items()), list(other.items())
    if isinstance(one, (list, tuple)):
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        floats = np.asarray(one).dtype.kind == "f"
        assert np.array_equal(one, other, equal_nan=floats)


@pytest.mark.filterwarnings("error")
def test_gymnasium_finds_nothing_to_say():
    check_env(make(augment=True, render_mode="rgb_array").unwrapped)


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version.*:UserWarning")
def test_gymnasium_accepts_what_make_gives():
    check_env(make(render_mode="rgb_array"))


@pytest.mark.filterwarnings("ignore:.*minimal resolution for an image is 36x36.*:UserWarning")
def test_sb3_accepts_it():
    """It rightly says that its own CnnPolicy does not fit 32 px; ``agents/sb3.py`` does."""
    sb3_check_env(make(render_mode="rgb_array").unwrapped)


def test_spaces_and_what_steps_give():
    env = make(correct_reward=2.0, wrong_reward=-3.0)
    assert env.observation_space == gym.spaces.Box(0, 255, (3, 32, 32), np.uint8)
    assert env.action_space == gym.spaces.MultiBinary(85)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info.keys() == STEP_KEYS
    assert np.array_equal(observation, env.unwrapped.bandit.image_set.images[info["index"]])
    after, reward, terminated, truncated, info = env.step(drawn_actions())
    assert np.array_equal(after, observation)
    assert (terminated, truncated) == (True, False) and type(reward) is float
    assert info.keys() == STEP_KEYS and info["mask"].shape == (17, 5)
    assert reward == (2.0 * info["reward_latency"] if info["correct"] else -3.0)


def test_reset_shows_the_image_that_is_asked_for():
    env = make()
    for index in (7, np.int64(7), np.array([7])):
        observation, info = env.reset(options={"index": index})
        assert info["index"] == 7
        assert np.array_equal(observation, env.unwrapped.bandit.image_set.images[7])
    for index in (-1, 10**6, 0.5, True, None, "one", [1, 2], [[1, 2]]):
        with pytest.raises(ValueError, match=r"^options\['index'\]: got "):
            env.reset(options={"index": index})


def test_every_step_needs_a_reset():
    env = make().unwrapped
    for call in (env.step, env.score):
        with pytest.raises(ResetNeeded, match=r"reset\(\)"):
            call(drawn_actions())
    env.reset(seed=0)
    with pytest.raises(ValueError, match="^actions: "):
        env.step(drawn_actions() + 1)
    env.step(drawn_actions())
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before each step"):
        env.step(drawn_actions())


@pytest.mark.parametrize("augment", [False, True])
def test_one_image_at_a_time_is_the_same_as_many(augment):
    """Bit for bit, through three passes over six images with falling bounds."""
    options = {**SCRATCH, "augment": augment, "bounds": FALLING}
    env = on_six_images(gym.make("InstaNAS-v1", **options))
    envs = on_six_images(gym.make_vec("InstaNAS-v1", num_envs=3, **options))
    actions = drawn_actions(6, 3)
    record = play(env, actions.reshape(18, 85), seed=5)
    observations, reset_info = envs.reset(seed=5)
    for k, batch in enumerate(actions):
        following, rewards, _, _, info = envs.step(batch)
        for i in range(3):
            (before, first_info), (_, reward, _, _, single) = record[2 * (3 * k + i) :][:2]
            assert np.array_equal(observations[i], before) and reward == rewards[i]
            assert single.keys() == STEP_KEYS
            for name in STEP_KEYS:
                assert np.array_equal(single[name], info["final_info"][name][i])
                assert k or np.array_equal(first_info[name], reset_info[name][i], equal_nan=name != "mask")
        observations = following
    assert [step[4]["epoch"] for step in record[1::2]] == [0] * 6 + [1] * 6 + [2] * 6


def test_the_same_seed_gives_the_same_trajectory():
    env = make(augment=True)
    first, again, other = (play(env, drawn_actions(3), seed) for seed in (1, 1, 2))
    assert_same(again, first)
    assert not np.array_equal(other[0][0], first[0][0])


def test_a_spec_survives_json():
    env = make(correct_reward=3.0, bounds=FALLING, order="sequential", cost="flops")
    other = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert_same(play(other, drawn_actions(2), seed=0), play(env, drawn_actions(2), seed=0))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_on_by_itself(duplicate):
    """Taken while an image waits; the copy's steps leave the original where it was."""
    env = make(augment=True)
    play(env, drawn_actions(2), seed=3)
    env.reset()
    other = duplicate(env)
    ahead, later = ([e.step(drawn_actions()), *play(e, drawn_actions(3))] for e in (other, env))
    assert_same(later, ahead)


def test_render_shows_the_image_and_then_the_mask():
    """The grid begins right of the enlarged image; module m of cell t is the tile in row m, column t."""
    env = make(render_mode="rgb_array")
    env.reset(options={"index": 0})
    waiting = env.render()
    action = np.zeros(85, np.int8)
    action[5 * 4 + 3] = 1
    info = env.step(action)[4]
    acted = env.render()
    for frame in (waiting, acted):
        assert frame.dtype == np.uint8 and frame.shape == (
            SIDE + 2 * GAP + 2 * LINE,
            SIDE + 3 * GAP + 17 * TILE,
            3,
        )
    tiles = GAP + TILE * np.arange(5), 2 * GAP + SIDE + TILE * np.arange(17)
    assert (waiting[np.ix_(*tiles)] == OFF).all()
    needed = sum(not cell.keeps_shape for cell in env.unwrapped.bandit.space.cells)
    shown = (acted[np.ix_(*tiles)] == ON).all(2)
    assert np.array_equal(shown, info["mask"].T) and shown.sum() == 1 + needed
    words = acted[SIDE + 2 * GAP :]
    assert (waiting[SIDE + 2 * GAP :] == BACKGROUND).all() and (words != BACKGROUND).any(), "what it earned"
    assert make().unwrapped.render() is None


def test_score_is_what_the_step_gives():
    env = make()
    env.reset(seed=0)
    actions = drawn_actions(4)
    scores, single = env.unwrapped.score(actions), env.unwrapped.score(actions[2])
    assert (scores.mask.shape, single.mask.shape) == ((4, 17, 5), (17, 5)) and np.shape(single.reward) == ()
    _, reward, _, _, info = env.step(actions[2].astype(np.float32))
    assert reward == scores.reward[2] == single.reward
    for name, value in info.items():
        assert np.array_equal(asdict(scores)[name][2], value) and np.array_equal(asdict(single)[name], value)


def test_importing_and_stepping_need_neither_matplotlib_nor_sb3():
    code = (
        "import sys, gymnasium as gym, instanas_env\n"
        f"env = gym.make('InstaNAS-v1', **{SCRATCH!r})\n"
        "env.reset(seed=0); env.step(env.action_space.sample())\n"
        "print(sorted({'matplotlib', 'stable_baselines3', 'torchvision', 'agents'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"search_space": "cifr"}, ValueError, "^search_space: .*choose from cifar"),
        ({"search_space": "cifar"}, ValueError, r"^meta_graph: .*`instanas pretrain`"),
        ({"dataset": "mnist"}, ValueError, "^dataset: unknown 'mnist'; choose from embedded"),
        ({"split": "dev"}, ValueError, "^split: unknown 'dev'; choose from train, val, test"),
        ({"cost": "joules"}, ValueError, "^cost: unknown 'joules'; choose from latency"),
        ({"order": "random"}, ValueError, "^order: unknown 'random'; choose from shuffled"),
        ({"meta_graph": "no/such.safetensors"}, FileNotFoundError, "^meta_graph: .*no/such.safetensors"),
        ({"latency_table": "no/such.json"}, FileNotFoundError, "^latency_table: .*no/such.json"),
        ({"bounds": {**FALLING, "lower": [0.8, "full"]}}, ValueError, "^bounds: .*U must be above L"),
        ({"bounds": {**FALLING, "lower": [[2.0, "full"], [0.0, "full"]]}}, ValueError, "^bounds: "),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    """When the environment is made, before anybody waits for the first step."""
    with pytest.raises(error, match=message):
        gym.make("InstaNAS-v1", **options)


@pytest.mark.parametrize("kind", [instanas_env.InstaNASEnv, instanas_env.InstaNASVectorEnv])
def test_an_unknown_render_mode_is_named(kind):
    with pytest.raises(ValueError, match="^render_mode: unknown 'ansi'; choose from None, rgb_array"):
        kind(render_mode="ansi")


def test_files_of_another_space_are_named(tiny_graph, tiny_space, tmp_path):
    tiny_graph.save(tmp_path / "w.safetensors")
    instanas_env.LatencyTable(tiny_space, torch.ones(17, 5).double(), 0.0, 0.0).save(tmp_path / "t.json")
    files = {"meta_graph": str(tmp_path / "w.safetensors"), "latency_table": str(tmp_path / "t.json")}
    for name, path in files.items():
        with pytest.raises(ValueError, match=f"^{name}: made for the search space .*'width': 0.5"):
            make(**{name: path})
    assert make(search_space="lite@0.5", **files).action_space.n == 85


@pytest.mark.parametrize("count", [count_macs, count_parameters])
def test_a_table_of_another_unit_is_named(lite_space, tmp_path, count):
    count(lite_space, 10).save(tmp_path / "t.json")
    message = "^latency_table: got a table in (MMACs|parameters); one in ms will do"
    with pytest.raises(ValueError, match=message):
        make(latency_table=str(tmp_path / "t.json"))


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_files_are_named(tiny_graph, tmp_path, keep):
    path = tmp_path / "w.safetensors"
    tiny_graph.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"w\.safetensors: not a whole weights file"):
        make(meta_graph=str(path))
