"""The examples run, act on every image of a pass once, and what they show is true: their agents get better.

Short here, and only those whose packages are there. `make examples` installs these and runs all in full.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import instanas_env.build
from instanas_env.contextual import ContextualBandit

# Warnings are errors, but for what a library says of itself: TorchRL's Collector makes by default what
# TorchRL is about to replace.
pytestmark = pytest.mark.filterwarnings("ignore:Creating .*WeightUpdater which.*:DeprecationWarning")

EXAMPLES = Path(__file__).parent.parent / "examples"
IN_FULL = bool(os.environ.get("EXAMPLES_IN_FULL"))
IMAGES = 1024  # of each split, where an example is run in short: a pass is short too

NEEDS = {
    "own_agent": None,
    "ppo": "stable_baselines3",
    "linucb_on_the_twin": None,
    "cleanrl_ppo": None,
    "dqn_on_a_menu": "stable_baselines3",
    "joint_search": "stable_baselines3",
    "trpo": "sb3_contrib",
    "torchrl_ppo": "torchrl",
    "tianshou_reinforce": "tianshou",
    "skrl_ppo": "skrl",
    "rllib_ppo": "ray",
    "minari_offline": "minari",
    "vowpal_wabbit_on_the_twin": "vowpalwabbit",
    "mabwiser_on_the_twin": "mabwiser",
}
MARGIN = 0.05
"""Of reward, that each gains in full: about half of the least that was measured, see docs/clients.md."""
TWINS = [name for name in NEEDS if name.endswith("twin")]
QUICK = ("own_agent",)
LIVE = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NEEDS if name not in TWINS
]


def example(name: str):
    if NEEDS[name]:
        pytest.importorskip(NEEDS[name])
    if name == "minari_offline":
        pytest.importorskip("jax", reason="Minari's DataCollector needs it")
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


@pytest.fixture
def acted(monkeypatch) -> dict:
    """Of every bandit that was acted on: the numbers of its images, in order."""
    seen: dict[ContextualBandit, list[np.ndarray]] = {}

    def act(bandit, contexts, actions):
        outcome, ended = plain(bandit, contexts, actions)
        assert np.array_equal(outcome.index, contexts.index)
        seen.setdefault(bandit, []).append(outcome.index)
        return outcome, ended

    plain = ContextualBandit.act
    monkeypatch.setattr(ContextualBandit, "act", act)
    return seen


@pytest.fixture
def few_images(monkeypatch) -> None:
    """Splits of live environments have at most 1,024 images."""
    plain = instanas_env.build.load_images

    def load(*args):
        images = plain(*args)
        return images.take(torch.arange(min(IMAGES, len(images))))

    monkeypatch.setattr(instanas_env.build, "load_images", load)


def assert_each_pass_shows_each_image_once(acted: dict, at_least: int) -> None:
    """In whole passes each image comes once; in the one that was not finished none comes twice."""
    assert sum(len(part) for parts in acted.values() for part in parts) >= at_least
    for bandit, parts in acted.items():
        for one_pass in torch.from_numpy(np.concatenate(parts)).split(len(bandit.image_set)):
            assert len(one_pass.unique()) == len(one_pass)


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NEEDS)


@pytest.mark.skipif(IN_FULL, reason="runs in full")
@pytest.mark.parametrize("name", LIVE)
def test_each_client_acts_on_each_image_once(name, acted, few_images):
    """A pass and a half under every client: had a reset skipped images, others would come twice in it."""
    steps = IMAGES + 512
    before, after = example(name)(steps=steps)
    assert np.isfinite([before, after]).all() and -1 <= min(before, after) <= max(before, after) <= 1
    assert_each_pass_shows_each_image_once(acted, IMAGES)


@pytest.mark.skipif(IN_FULL, reason="runs in full")
@pytest.mark.parametrize("name", TWINS)
def test_bandits_lose_regret_on_the_twin(name, acted):
    """At least a tenth of what they begin with; a pass is 4,000 images here."""
    before, after = example(name)(steps=10_000)
    assert 0 <= after < 0.9 * before
    assert_each_pass_shows_each_image_once(acted, 9_000)


@pytest.mark.slow
@pytest.mark.skipif(IN_FULL, reason="runs in full")
def test_ppo_learns():
    before, after = example("ppo")(steps=12_288)
    assert after > before + 0.01


@pytest.mark.skipif(not IN_FULL, reason="`make examples` runs them in full")
@pytest.mark.parametrize("name", NEEDS)
def test_in_full(name, acted):
    """The reward rises, the regret falls: more than by the chance of 1,000 images (0.02)."""
    before, after = example(name)()
    print(f"\n{name}: before {before:.3f}, after {after:.3f}")
    assert after < 0.8 * before if name in TWINS else after > before + MARGIN
    assert_each_pass_shows_each_image_once(acted, 1)
