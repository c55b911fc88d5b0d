"""Self-critical REINFORCE: its formulas by hand, and a toy bandit with a known optimum that it must solve."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.reinforce import (
    PAPER_SETTINGS,
    SelfCriticalReinforce,
    entropy,
    leave_one_out,
    log_probability,
    self_critical_loss,
)
from agents.reward_regression import RewardRegression
from instanas_env.bandit import Contexts, Outcome
from instanas_env.seeding import generator_for
from instanas_env.storage import load_checkpoint, load_weights, save_checkpoint, save_weights
from tests.tools.toys import NUM_IMAGES, are_bright, dark_and_bright_envs, flat_weights

# The toy bandit: dark and bright images, and for each kind one mask that is worth 1.
DARK, BRIGHT = torch.rand(2, 85, generator=generator_for(0)) < 0.5


# Equation (1) alone, with a learning rate that stays.
PURE = {"naming_coefficient": 0.0, "entropy_coefficient": 0.0, "constant_rate": 1.0, "alpha": (0.8, 0.98)}


def toy_score(contexts: Contexts, actions) -> Outcome:
    """The fraction of bits that agree with the best mask; the best mask depends on the brightness."""
    bright = are_bright(contexts.images)
    best = torch.where(bright.unsqueeze(1), BRIGHT, DARK)
    share = (torch.as_tensor(actions) == best).double().mean(-1).numpy()
    labels = np.zeros(share.shape, np.int64)
    return replace(Outcome(**{field.name: share for field in fields(Outcome)}), label=labels)


def toy_envs(num_envs: int = 32):
    """The real environment with noisy grey images (dark ones are even) and the toy's rewards."""
    envs = dark_and_bright_envs(num_envs)
    bandit = envs.unwrapped.bandit
    bandit.score = toy_score
    return envs


def test_log_probability_golden_values():
    """P(1, 0, 1) = 1/4 * (1 - 1/8) * 1/2; an impossible bit counts as 1e-6."""
    p = torch.tensor([0.25, 0.125, 0.5])
    actions = torch.tensor([[True, False, True], [False, True, False]])
    expected = [math.log(0.25 * 0.875 * 0.5), math.log(0.75 * 0.125 * 0.5)]
    assert log_probability(p, actions).sum(-1).tolist() == pytest.approx(expected)
    assert log_probability(torch.tensor([0.0]), torch.tensor([True])).item() == pytest.approx(math.log(1e-6))


def test_entropy_golden_values():
    """log 2 a bit at p = 1/2; nothing where the bit is certain."""
    assert entropy(torch.full((3, 85), 0.5)).tolist() == pytest.approx([85 * math.log(2)] * 3)
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert entropy(torch.tensor([0.25, 0.75])).item() == pytest.approx(2 * quarter)
    assert entropy(torch.tensor([0.0, 1.0])).item() == pytest.approx(0.0, abs=1e-4)


def test_the_gradient_is_minus_equation_1():
    """Two samples of two bits, p_i = sigmoid(l_i): d log P(a) / d l_i = a_i - p_i.

    E[(R(p') - R(p~)) (a_i - p_i)] with advantages 2 - 0.5 and 0 - 1 of the actions (1, 0) and (1, 1).
    """
    logits = torch.tensor([0.4, -1.2], dtype=torch.float64, requires_grad=True)
    p = logits.sigmoid()
    actions = torch.tensor([[True, False], [True, True]])
    reward, baseline = torch.tensor([2.0, 0.0]), torch.tensor([0.5, 1.0])
    self_critical_loss(log_probability(p, actions), reward, baseline).backward()
    p0, p1 = p.tolist()
    first = (1.5 * (1 - p0) - 1.0 * (1 - p0)) / 2
    second = (1.5 * (0 - p1) - 1.0 * (1 - p1)) / 2
    assert logits.grad.tolist() == pytest.approx([-first, -second])


def test_leave_one_out_golden_values():
    """The others of 1, 2, 6 have the means (2 + 6) / 2, (1 + 6) / 2 and (1 + 2) / 2."""
    rewards = torch.tensor([[1.0, 0.0], [2.0, 3.0], [6.0, 0.0]])
    assert leave_one_out(rewards).tolist() == [[4.0, 1.5], [3.5, 0.0], [1.5, 1.5]]


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(2, 8))
def test_advantages_over_the_others_sum_to_zero(seed, samples):
    rewards = torch.randn(samples, 5, dtype=torch.float64, generator=generator_for(seed))
    assert torch.allclose((rewards - leave_one_out(rewards)).sum(0), torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize(("samples", "steps"), [(1, 320), (4, 80)])
def test_it_solves_the_toy_bandit(samples, steps):
    """One mask for all images is worth 1 - d / 2 at best, d the share of bits in which the optima differ."""
    envs = toy_envs()
    agent = SelfCriticalReinforce(envs, learning_rate=5e-3, samples_per_image=samples, **PURE)
    agent.learn(32 * steps)
    images = envs.unwrapped.bandit.image_set.images
    actions = agent.predict(images.numpy())[0].astype(bool)
    contexts = Contexts(torch.arange(NUM_IMAGES), images)
    best_static = 1 - (DARK ^ BRIGHT).double().mean().item() / 2
    assert best_static < 0.85
    assert toy_score(contexts, actions).reward.mean() >= 0.9
    dark, bright = actions[::2], actions[1::2]
    assert (dark[:, None] != bright[None]).any(2).all(), "no dark image shares its mask with a bright one"


def test_statistics_and_alpha():
    """Four steps of 32 images: alpha moves from 0.8 by 0.16 * 32 / 128 a step."""
    agent = SelfCriticalReinforce(toy_envs(), alpha=(0.8, 0.96))
    rows = list(agent.train(32 * 4 - 5))
    assert agent.num_timesteps == 32 * 4, "rounded up to whole steps"
    assert len(rows) == 4 and all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[0]["entropy"] == pytest.approx(85 * math.log(2)), "p = 1/2 everywhere at first"
    agent = SelfCriticalReinforce(toy_envs(), alpha=(0.8, 0.96), horizon=128)
    alphas = [row["alpha"] for _ in range(3) for row in agent.train(64)]
    assert alphas == pytest.approx([0.8, 0.84, 0.88, 0.92, 0.96, 0.96])


def test_the_sign_of_the_entropy_coefficient():
    """A bonus keeps the policy open, a penalty closes it; both see the same rewards."""
    entropies = []
    for coefficient in (-0.1, 0.1):
        options = {**PURE, "learning_rate": 1e-2, "entropy_coefficient": coefficient}
        agent = SelfCriticalReinforce(toy_envs(), **options)
        entropies.append(list(agent.train(32 * 40))[-1]["entropy"])
    assert entropies[0] < 0.5 * entropies[1]


@pytest.mark.parametrize("options", [{}, PAPER_SETTINGS])
def test_the_seed_decides_everything(options):
    def trained(seed: int) -> Tensor:
        return flat_weights(SelfCriticalReinforce(toy_envs(), seed=seed, **options).learn(96))

    first = trained(1)
    torch.manual_seed(7)
    assert torch.equal(trained(1), first)
    assert not torch.equal(trained(2), first)


def test_a_resumed_run_reaches_the_same_weights(tmp_path):
    """Through a file, with a new agent on a new environment."""
    options = {"horizon": 192, "entropy_coefficient": 0.01}
    envs, others = toy_envs(), toy_envs()
    whole = SelfCriticalReinforce(envs, **options).learn(96)
    state = {"agent": whole.state_dict(), "envs": envs.unwrapped.state_dict()}
    save_checkpoint(tmp_path / "c.pt", state)
    resumed, state = SelfCriticalReinforce(others, **options), load_checkpoint(tmp_path / "c.pt")
    resumed.load_state_dict(state["agent"])
    others.unwrapped.load_state_dict(state["envs"])
    rows = [list(agent.train(96)) for agent in (whole, resumed)]
    assert rows[0] == rows[1]
    assert torch.equal(flat_weights(whole), flat_weights(resumed)) and resumed.num_timesteps == 192


def test_save_and_load_predict_the_same(tmp_path):
    agent = SelfCriticalReinforce(toy_envs(), samples_per_image=2, learning_rate=1e-2, alpha=(0.7, 0.9))
    images = agent.learn(320).env.unwrapped.bandit.image_set.images.numpy()
    agent.save(tmp_path / "a.safetensors", record={"note": "toy"})
    assert load_weights(tmp_path / "a.safetensors")[1]["record"] == {"note": "toy"}
    loaded = SelfCriticalReinforce.load(tmp_path / "a.safetensors")
    actions, state = loaded.predict(images)
    assert state is None and actions.dtype == np.int8 and actions.shape == (NUM_IMAGES, 85)
    assert np.array_equal(actions, agent.predict(images)[0]) and actions.std() > 0
    assert np.array_equal(loaded.predict(images[3])[0], actions[3])
    for name in SelfCriticalReinforce.hyperparameters:
        assert getattr(loaded, name) == getattr(agent, name), name
    with pytest.raises(ValueError, match="^env: this agent was made without one"):
        loaded.learn(1)


def test_predictions_may_be_sampled(lite_space):
    """A fresh policy has p = 1/2: greedily nothing, sampled a half; 64 * 85 bits deviate less than 0.05."""
    agent = SelfCriticalReinforce(None, space=lite_space)
    images = np.zeros((64, 3, 32, 32), np.uint8)
    assert not agent.predict(images)[0].any()
    assert agent.predict(images, deterministic=False)[0].mean() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match=r"^observation: got shape \(64, 3, 16, 16\)"):
        agent.predict(np.zeros((64, 3, 16, 16), np.uint8))


def test_wrong_files_are_named(tiny_space, lite_space, tmp_path):
    """Another agent's, another space's, and one from which weights are missing."""
    path, envs = tmp_path / "a.safetensors", toy_envs(1)
    RewardRegression(None, space=lite_space).save(path)
    with pytest.raises(ValueError, match=r"a\.safetensors holds 'RewardRegression', not 'SelfCritical"):
        SelfCriticalReinforce.load(path)
    SelfCriticalReinforce(None, space=tiny_space).save(path)
    with pytest.raises(ValueError, match="^env: its search space is not the agent's"):
        SelfCriticalReinforce.load(path, envs)
    SelfCriticalReinforce(None, space=lite_space, naming_coefficient=0.0).save(path)
    assert SelfCriticalReinforce.load(path, envs).learn(1).num_timesteps == 1
    weights, config = load_weights(path)
    del weights["output.weight"]
    save_weights(path, weights, config)
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        SelfCriticalReinforce.load(path)


@pytest.mark.parametrize(
    "options",
    [
        {"samples_per_image": 0},
        {"alpha": (0.4, 0.9)},
        {"alpha": (0.8, 1.1)},
        {"log_probability_under": "q"},
        {"constant_rate": 1.5},
        {"naming_coefficient": -1.0},
        {"naming_coefficient": float("nan")},
        {"horizon": 0},
        {"alpha": 3},
        {"alpha": ("a", "b")},
        {"entropy_coefficient": (1,)},
        {"entropy_coefficient": float("inf")},
        {"learning_rate": "fast"},
        {"seed": 0.5},
        {"num_classes": 10**9},
    ],
    ids=str,
)
def test_impossible_hyperparameters_are_named(lite_space, options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        SelfCriticalReinforce(None, space=lite_space, **options)


def test_training_takes_our_environment_only():
    with pytest.raises(ValueError, match="^env: got SyncVectorEnv; "):
        SelfCriticalReinforce(gym.make_vec("CartPole-v1", num_envs=1, vectorization_mode="sync"))
    with pytest.raises(ValueError, match="^total_timesteps: got 0"):
        SelfCriticalReinforce(toy_envs(1)).learn(0)


def test_the_learning_rate_and_the_entropy_coefficient_fall():
    """Of 128 images, 32 a step: the rate stays for half of them, then is 1 - 0 / 64, 1 - 32 / 64 and 0."""
    agent = SelfCriticalReinforce(toy_envs(), learning_rate=0.5, constant_rate=0.5, horizon=128)
    rates = []
    for _ in agent.train(160):
        rates.append(agent.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.25, 0.0])
    assert SelfCriticalReinforce(None, entropy_coefficient=0.2, space=agent.space).entropy_coefficient == (
        0.2,
        0.2,
    )


def test_the_second_loss_teaches_names():
    """Dark images are of class 0 and bright ones of class 3; the masks' rewards are all alike."""
    envs = dark_and_bright_envs(32)
    bandit = envs.unwrapped.bandit
    labels = 3 * are_bright(bandit.image_set.images).long()
    bandit.image_set = replace(bandit.image_set, labels=labels)
    agent = SelfCriticalReinforce(envs, learning_rate=5e-3).learn(32 * 30)
    images = bandit.image_set.images
    assert (agent.names(images) == labels).float().mean() == 1.0
    assert agent.num_classes == 10 and agent.masks(images).shape == (NUM_IMAGES, 17, 5)
    pure = SelfCriticalReinforce(envs, naming_coefficient=0.0)
    with pytest.raises(ValueError, match="^names: this agent learns none"):
        pure.names(images)


def test_what_the_controller_names_changes_no_mask(tmp_path):
    """The outputs are 85 logits and 10 names; a loaded agent splits them in the same place."""
    agent = SelfCriticalReinforce(toy_envs(), learning_rate=1e-2).learn(96)
    images = agent.env.unwrapped.bandit.image_set.images
    agent.save(tmp_path / "a.safetensors")
    loaded = SelfCriticalReinforce.load(tmp_path / "a.safetensors")
    assert torch.equal(loaded.names(images), agent.names(images))
    with torch.no_grad():
        agent.controller.output.bias[85:] += 100.0
    assert torch.equal(agent.masks(images), loaded.masks(images))


def test_an_agent_made_without_environment_says_what_it_lacks_to_learn():
    envs = gym.make_vec("InstaNAS-v1", num_envs=2)
    space = envs.unwrapped.bandit.space
    for agent, told in (
        (SelfCriticalReinforce(None, space=space), "num_classes: got 0"),
        (
            SelfCriticalReinforce(None, space=space, num_classes=5),
            "env: its images have labels up to 9; num_classes of this agent is 5",
        ),
        (RewardRegression(None, space=space), "env: this agent was made without one, and knows no latencies"),
    ):
        agent.env = envs
        with pytest.raises(ValueError, match=f"^{told}"):
            agent.learn(2)
    whole = SelfCriticalReinforce(None, space=space, num_classes=10)
    whole.env = envs
    assert whole.learn(2).num_timesteps == 2
