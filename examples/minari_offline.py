"""Minari: record a behaviour policy, then learn from the record alone which mask suits which image.

python examples/minari_offline.py        (pip install ".[examples]")
"""

import os
import tempfile

import gymnasium as gym
import minari
import numpy as np

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env import SearchSpace
from instanas_env.seeding import generator_for

SPACE = SearchSpace.preset("lite")
MENU = [SPACE.random_masks(3, keep, generator_for(0)).flatten(1).int().tolist() for keep in (0.1, 0.3, 0.7)]
FORM = {"actions": sum(MENU, []), "observation": "features"}  # images: DataCollector(jpeg_encoding=False)


def record(steps: int, seed: int):
    """A data set of random arms, episodes of one step; ``record_infos=True`` would keep the masks too.

    The collector seeds every reset unless told not to; then each pass shows each image once.
    """
    played = gym.make("InstaNAS-v1", **FORM)
    env = minari.DataCollector(played)
    env.action_space.seed(seed)
    for step in range(steps):
        env.reset(seed=None if step else seed, options={"minari_autoseed": False})
        env.step(env.action_space.sample())
    about = {"algorithm_name": "random arms", "description": "one-step episodes", "code_permalink": __file__}
    you = {"author": "you", "author_email": "you@example.org"}  # Minari warns of what is left out
    return env.create_dataset("instanas/random-v0", eval_env=played, **about, **you)


def learn(dataset) -> np.ndarray:
    """A ridge regression of the reward for each arm, ``(arms, 25)``."""
    x, arms, rewards = [], [], []
    for episode in dataset.iterate_episodes():
        x.append(np.append(episode.observations[0], 1.0))
        arms.append(episode.actions[0])
        rewards.append(episode.rewards[0])
    x, arms, rewards = np.array(x), np.array(arms), np.array(rewards)
    weights = []
    for arm in range(len(FORM["actions"])):
        mine = x[arms == arm]
        weights.append(np.linalg.solve(mine.T @ mine + 3 * np.eye(25), mine.T @ rewards[arms == arm]))
    return np.array(weights)


def main(steps: int = 3_000, seed: int = 0) -> tuple[float, float]:
    """Mean reward on the 1,000 test images of the recorded policy and of the learnt one."""
    with tempfile.TemporaryDirectory() as folder:  # instead of ~/.minari
        os.environ["MINARI_DATASETS_PATH"] = folder
        weights = learn(record(steps, seed))
    test = gym.make_vec("InstaNAS-v1", num_envs=1000, split="test", **FORM)
    seen, _ = test.reset(seed=seed)
    chosen = (np.append(seen, np.ones((1000, 1)), 1) @ weights.T).argmax(1)
    random = np.random.default_rng(seed).integers(len(weights), size=1000)
    rewards = test.unwrapped.score([random, chosen]).reward.mean(1)
    return float(rewards[0]), float(rewards[1])


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
