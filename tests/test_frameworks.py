"""What other libraries see of the environment: specs that hold, rewards that are those of ``score``.

Warnings are errors, also those of the libraries. Each test is skipped where its library is not installed;
`make examples` installs them.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env.contextual import ContextualBandit
from tests.test_forms import FORMS, LAYOUTS
from tests.tools.scratch import SCRATCH

N, STEPS = 3, 4
MODES = ("Disabled", "SameStep")  # TorchRL refuses NextStep


@pytest.fixture
def earned(monkeypatch) -> list[np.ndarray]:
    """What ``score`` says of every step's actions: an array ``(n,)`` a step."""
    rewards: list[np.ndarray] = []
    plain = ContextualBandit.act

    def act(bandit, contexts, actions):
        rewards.append(bandit.score(contexts, actions).reward)
        return plain(bandit, contexts, actions)

    monkeypatch.setattr(ContextualBandit, "act", act)
    return rewards


@pytest.mark.parametrize("look", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_torchrl_accepts_every_form_and_layout(form, look):
    """Its ``check_env_specs``: the scalar environment, and the native one in the modes that it takes."""
    torchrl = pytest.importorskip("torchrl.envs")
    from torchrl.envs.utils import check_env_specs

    options = {"actions": FORMS[form], **LAYOUTS[look], **SCRATCH}
    envs = [gym.make("InstaNAS-v1", **options)]
    envs += [gym.make_vec("InstaNAS-v1", num_envs=N, autoreset_mode=mode, **options) for mode in MODES]
    for env in envs:
        check_env_specs(torchrl.GymWrapper(env))


@pytest.mark.parametrize("look", [*LAYOUTS, "index"])
def test_torchrl_accepts_the_twin(look):
    """Numbers of images become one-hot there, for which it has no placeholder in SAME_STEP."""
    torchrl = pytest.importorskip("torchrl.envs")
    from torchrl.envs.utils import check_env_specs

    options = {**({"observation": "index"} if look == "index" else LAYOUTS[look]), "split": "val"}
    envs = [gym.make("InstaNASTabular-v1", **options)]
    modes = MODES[:1] if look == "index" else MODES
    envs += [gym.make_vec("InstaNASTabular-v1", num_envs=N, autoreset_mode=mode, **options) for mode in modes]
    for env in envs:
        check_env_specs(torchrl.GymWrapper(env))


@pytest.mark.parametrize("name", ["InstaNAS-v1", "InstaNASTabular-v1"])
def test_torchrl_refuses_the_mode_that_the_documentation_says(name):
    torchrl = pytest.importorskip("torchrl.envs")
    options = SCRATCH if name == "InstaNAS-v1" else {"split": "val"}
    with pytest.raises(RuntimeError, match="(?i)next_?step"):
        torchrl.GymWrapper(gym.make_vec(name, num_envs=N, autoreset_mode="NextStep", **options))


@pytest.mark.parametrize("mode", MODES)
def test_torchrl_sees_the_rewards_of_the_images_it_acted_on(mode, earned):
    """Two rollouts: observation, info and reward of a frame are of one image; no image comes twice."""
    torchrl = pytest.importorskip("torchrl.envs")
    envs = gym.make_vec("InstaNAS-v1", num_envs=N, autoreset_mode=mode, **SCRATCH)
    env = torchrl.GymWrapper(envs)  # which reads infos by itself in SAME_STEP
    if mode == "Disabled":
        env.auto_register_info_dict()
    env.set_seed(0)
    bandit, shown = envs.unwrapped.bandit, []
    for _ in range(2):
        earned.clear()
        frames = env.rollout(STEPS, break_when_any_done=False)
        assert np.allclose(frames["next", "reward"][..., 0].T, np.stack(earned))
        assert torch.equal(frames["observation"], bandit.image_set.images[frames["index"]])
        shown.append(frames["index"].flatten())
    assert len(torch.cat(shown).unique()) == 2 * N * STEPS


def test_skrl_sees_the_rewards_of_score(earned):
    skrl = pytest.importorskip("skrl.envs.wrappers.torch")
    envs = gym.make_vec("InstaNAS-v1", num_envs=N, actions="cells", **SCRATCH)
    env = skrl.wrap_env(envs, verbose=False)
    env.reset()
    for step in range(STEPS):
        _, reward, terminated, _, _ = env.step(torch.randint(32, (N, 17)))
        assert terminated.all() and np.allclose(reward[:, 0], earned[step])
        env.reset()  # as its trainer does for one environment


def test_minari_records_what_came_of_the_actions(earned, tmp_path, monkeypatch):
    """Infos are recorded too. Without its own seeding of each reset a pass shows each image once."""
    pytest.importorskip("jax", reason="Minari's DataCollector needs it")
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gym.make("InstaNAS-v1", **SCRATCH), record_infos=True, jpeg_encoding=False)
    for step in range(STEPS):
        env.reset(seed=None if step else 0, options={"minari_autoseed": False})
        env.step(env.action_space.sample())
    names = ("algorithm_name", "author", "author_email", "code_permalink", "description")
    told = dict.fromkeys(names, "test")  # Minari warns of what is left out
    dataset = env.create_dataset("instanas/test-v0", eval_env="InstaNAS-v1", **told)
    episodes = list(dataset.iterate_episodes())
    assert len(episodes) == STEPS and len({int(each.infos["index"][0]) for each in episodes}) == STEPS
    images = env.unwrapped.bandit.image_set.images
    for episode, reward in zip(episodes, earned, strict=True):
        assert episode.rewards.tolist() == reward.tolist()
        assert episode.infos["index"].tolist() == [episode.infos["index"][0]] * 2
        assert np.array_equal(episode.observations[0], images[int(episode.infos["index"][0])])


def test_an_option_of_minari_is_let_through():
    """Its collector hands it on; other unknown options are refused as ever."""
    for env in (gym.make("InstaNAS-v1", **SCRATCH), gym.make_vec("InstaNAS-v1", num_envs=N, **SCRATCH)):
        env.reset(seed=0, options={"minari_autoseed": False})
        with pytest.raises(ValueError, match="^options: got unknown"):
            env.reset(options={"minari_autoseed": False, "minari": 1})


def test_an_option_of_minari_draws_nothing_anew():
    """After an autoreset the images that it drew are kept, as without options."""
    envs = gym.make_vec("InstaNAS-v1", num_envs=N, **SCRATCH)
    envs.reset(seed=0)
    waiting = envs.step(np.zeros((N, 85)))[4]["index"]
    assert envs.reset(options={"minari_autoseed": False})[1]["index"].tolist() == waiting.tolist()
