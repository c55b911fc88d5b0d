"""Policies from elsewhere: Stable-Baselines3's learners and files, and anybody's class."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym

from agents.agent import Agent, native
from agents.predicting import Predicting, form_of, observer_of
from instanas_env.wrappers.forms import Menu
from scripts.comparison.contest import NUM_ENVS, Contest
from scripts.comparison.learning import Entry

ONE_STEP = {"gamma": 0.0, "device": "cpu"}
ON_POLICY = {"gae_lambda": 1.0, **ONE_STEP}
SB3: dict[str, dict[str, Any]] = {
    "ppo": {"learning_rate": 2e-3, "n_steps": 2, "batch_size": 512, "n_epochs": 2, **ON_POLICY},
    "a2c": {"learning_rate": 2e-3, "n_steps": 2, **ON_POLICY},
    "trpo": {
        "learning_rate": 1e-3,
        "n_steps": 8,
        "batch_size": 256,
        "target_kl": 0.1,
        "cg_max_steps": 8,
        "n_critic_updates": 4,
        **ON_POLICY,
    },
    "dqn": {
        "learning_rate": 1e-3,
        "buffer_size": 20_000,
        "learning_starts": NUM_ENVS,
        "batch_size": 256,
        "train_freq": 1,
        "gradient_steps": 4,
        "exploration_fraction": 0.5,
        **ONE_STEP,
    },
}
"""Settings of Stable-Baselines3's learners, chosen on validation images, see docs/clients.md.

Episodes are one step long, so there is no discount."""


def predicting(contest: Contest, policy: Any, envs: gym.vector.VectorEnv) -> Predicting:
    """A policy that sees and acts as in ``envs``."""
    inner = native(envs)
    form = Menu(contest.masks("menu")) if contest.twin else inner.form
    observer = observer_of(inner.single_observation_space, contest.space.resolution)
    return Predicting(contest.space, policy, form, observer)


def of_sb3(contest: Contest, seed: int, name: str) -> Entry:
    """A learner of Stable-Baselines3 on the controller's convolutions."""
    kind = algorithm(name)
    from stable_baselines3.common.vec_env import VecMonitor

    from agents.sb3 import ControllerFeatures, ControllerPolicy, NativeVecEnv

    settings = {**SB3[name], "seed": seed}
    policy: Any = ControllerPolicy
    if name == "dqn":
        policy = "CnnPolicy"
        features = {"features_extractor_class": ControllerFeatures, "normalize_images": False}
        settings["policy_kwargs"] = features
    envs = contest.envs_of_arms() if contest.twin or name == "dqn" else contest.envs()
    model = kind(policy, VecMonitor(NativeVecEnv(envs)), **settings)
    return Entry(predicting(contest, model, envs), envs, lambda: model.learn(contest.budget.steps))


def algorithm(name: str) -> Any:
    """The class of Stable-Baselines3, or of sb3-contrib, that is called ``name`` in capitals."""
    for package in ("stable_baselines3", "sb3_contrib"):
        try:
            found = getattr(import_module(package), name.upper(), None)
        except ImportError as error:
            raise ValueError(f'policies: {name} needs {package}: pip install "instanas-env[sb3]"') from error
        if found is not None:
            return found
    raise ValueError(
        f"policies: Stable-Baselines3 has no {name!r}; a file such as ppo.zip or dqn_1.zip will do"
    )


def unzipped(contest: Contest, path: Path) -> Predicting:
    """A model of SB3's; the file's name begins with its algorithm."""
    model = algorithm(path.stem.split("_")[0].split("-")[0]).load(path, device="cpu")
    space = contest.space
    form = form_of(model.action_space, space, contest.masks("menu"))
    return Predicting(space, model, form, observer_of(model.observation_space, space.resolution))


def imported(name: str) -> Any:
    """What ``module:Class`` names; the working directory counts."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"policies: {name} cannot be imported ({error})") from error
    finally:
        sys.path.remove("")


def of_user(contest: Contest, kind: Any, seed: int) -> Entry:
    """``Class(envs, seed=seed)``, which learns if it can; an :class:`Agent` or anything that predicts.

    ``Class.env_options``, if it has that, is a dict of ``actions``, ``layout``, ``observation``: the forms of
    its environments.
    """
    envs = contest.envs(**getattr(kind, "env_options", {}))
    policy = kind(envs, seed=seed)
    agent = policy if isinstance(policy, Agent) else predicting(contest, policy, envs)
    learns = hasattr(policy, "learn")
    return Entry(agent, envs, (lambda: policy.learn(contest.budget.steps)) if learns else None)
