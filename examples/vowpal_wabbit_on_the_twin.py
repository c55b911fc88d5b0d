"""Vowpal Wabbit's contextual bandit on the tabular twin: 16 of its 256 masks, 24 features of the image.

python examples/vowpal_wabbit_on_the_twin.py        (pip install ".[examples]")
"""

import gymnasium as gym
import numpy as np
from vowpalwabbit import Workspace

import instanas_env  # noqa: F401  (registers InstaNASTabular-v1)

ARMS = np.linspace(0, 255, 16).astype(int)  # from the cheapest network to the full one


def example(features: np.ndarray, label: str = "") -> str:
    """An image in VW's text format."""
    return label + " | " + " ".join(f"f{i}:{value:.4f}" for i, value in enumerate(features))


def main(steps: int = 30_000, seed: int = 0) -> tuple[float, float]:
    """Mean regret, against the best mask for each image, of random arms and of its own on the last images."""
    envs = gym.make_vec("InstaNASTabular-v1", num_envs=100, observation="features")
    learner = Workspace(f"--cb_explore {len(ARMS)} --epsilon 0.05 --random_seed {seed} --quiet")
    rng, regrets = np.random.default_rng(seed), []
    observation, _ = envs.reset(seed=seed)
    for _ in range(steps // 100):
        policies = np.array([learner.predict(example(features)) for features in observation])
        chances = policies / policies.sum(1, keepdims=True)
        choices = (chances.cumsum(1) > rng.random((100, 1))).argmax(1)
        random = envs.unwrapped.score(rng.choice(ARMS, 100)).regret_image.mean()
        following, reward, _, _, info = envs.step(ARMS[choices])
        for features, choice, earned, chance in zip(observation, choices, reward, chances, strict=True):
            learner.learn(example(features, f"{choice + 1}:{-earned:.4f}:{chance[choice]:.4f}"))
        regrets.append((random, info["final_info"]["regret_image"].mean()))
        observation = following
    before, after = np.mean(regrets[-len(regrets) // 5 :], axis=0)
    return float(before), float(after)


if __name__ == "__main__":
    print("regret of random arms {:.3f}, of its own {:.3f}".format(*main()))
