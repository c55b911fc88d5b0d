"""A linear contextual bandit on the tabular twin: a million images in seconds, regret against exact oracles.

python examples/linucb_on_the_twin.py
"""

import gymnasium as gym
import numpy as np

import instanas_env  # noqa: F401  (registers InstaNASTabular-v1)
from agents.linucb import LinUCB


def main(steps: int = 100_000, seed: int = 0) -> tuple[float, float]:
    """Mean regret against the best mask for each image, of random masks and of what LinUCB learnt."""
    envs = gym.make_vec("InstaNASTabular-v1", num_envs=64, observation="features")
    envs.action_space.seed(seed)
    agent = LinUCB(envs, seed=seed).learn(steps)
    observation, _ = envs.reset()  # the images that wait
    regrets: dict[str, list[float]] = {"random": [], "learnt": []}
    for step in range(60):
        name = "random" if step % 2 else "learnt"
        arms = envs.action_space.sample() if name == "random" else agent.predict(observation)[0]
        observation, _, _, _, info = envs.step(arms)
        regrets[name].append(info["final_info"]["regret_image"].mean())
    return float(np.mean(regrets["random"])), float(np.mean(regrets["learnt"]))


if __name__ == "__main__":
    print("regret of random masks {:.3f}, of LinUCB {:.3f}".format(*main()))
