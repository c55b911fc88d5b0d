"""MABWiser's LinUCB on the tabular twin: 16 of its 256 masks, 24 features of the image.

python examples/mabwiser_on_the_twin.py        (pip install ".[examples]")
"""

import gymnasium as gym
import numpy as np
from mabwiser.mab import MAB, LearningPolicy

import instanas_env  # noqa: F401  (registers InstaNASTabular-v1)

ARMS = np.linspace(0, 255, 16).astype(int).tolist()  # from the cheapest network to the full one


def main(steps: int = 15_000, seed: int = 0) -> tuple[float, float]:
    """Mean regret, against the best mask for each image, of random arms and of its own on the last images."""
    envs = gym.make_vec("InstaNASTabular-v1", num_envs=100, observation="features")
    bandit, regrets = MAB(ARMS, LearningPolicy.LinUCB(alpha=0.3), seed=seed), []
    rng = np.random.default_rng(seed)
    observation, _ = envs.reset(seed=seed)
    for step in range(steps // 100):
        x = np.append(observation, np.ones((100, 1)), 1)
        arms = rng.choice(ARMS, 100) if step < 5 else np.array(bandit.predict(x))
        random = envs.unwrapped.score(rng.choice(ARMS, 100)).regret_image.mean()
        observation, reward, _, _, info = envs.step(arms)
        (bandit.partial_fit if step else bandit.fit)(arms, reward, x)
        regrets.append((random, info["final_info"]["regret_image"].mean()))
    before, after = np.mean(regrets[-len(regrets) // 5 :], axis=0)
    return float(before), float(after)


if __name__ == "__main__":
    print("regret of random arms {:.3f}, of its own {:.3f}".format(*main()))
