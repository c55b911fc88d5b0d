"""PPO of Stable-Baselines3 with the controller's convolutions.

python examples/ppo.py
"""

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.sb3 import ControllerPolicy, NativeVecEnv


def make(split: str) -> VecMonitor:
    """256 images a step, in one batched forward."""
    return VecMonitor(NativeVecEnv(gym.make_vec("InstaNAS-v1", num_envs=256, split=split)))


def main(steps: int = 40_000, seed: int = 0) -> tuple[float, float]:
    """Mean reward of its samples on the test images before and after; episodes are one step: no discount."""
    settings = {"n_steps": 2, "batch_size": 512, "n_epochs": 2, "gamma": 0.0, "gae_lambda": 1.0}
    model = PPO(ControllerPolicy, make("train"), learning_rate=2e-3, seed=seed, device="cpu", **settings)
    before, _ = evaluate_policy(model, make("test"), 1000, deterministic=False)
    model.learn(steps)
    after, _ = evaluate_policy(model, make("test"), 1000, deterministic=False)
    return float(np.mean(before)), float(np.mean(after))


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
