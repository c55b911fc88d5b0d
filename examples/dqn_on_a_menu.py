"""DQN of Stable-Baselines3: a menu of masks makes the action one number, features make the image 24.

python examples/dqn_on_a_menu.py
"""

import gymnasium as gym
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecMonitor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.sb3 import NativeVecEnv
from instanas_env import SearchSpace
from instanas_env.seeding import generator_for

SPACE = SearchSpace.preset("lite")
MENU = [SPACE.random_masks(6, keep, generator_for(0)).flatten(1).int().tolist() for keep in (0.1, 0.3, 0.7)]
FORM = {"actions": sum(MENU, []), "observation": "features"}  # or the path of a menu: see docs/environment.md


def main(steps: int = 16_384, seed: int = 0) -> tuple[float, float]:
    """Mean reward of its greedy arms on the 1,000 test images before and after."""
    train = VecMonitor(NativeVecEnv(gym.make_vec("InstaNAS-v1", num_envs=64, **FORM)))
    test = gym.make_vec("InstaNAS-v1", num_envs=1000, split="test", **FORM)
    seen, _ = test.reset(seed=seed)
    exploration = {"exploration_fraction": 0.8, "exploration_final_eps": 0.05, "learning_starts": 512}
    often = {"train_freq": 1, "gradient_steps": 8, "batch_size": 128, "learning_rate": 1e-3, "gamma": 0.0}
    model = DQN("MlpPolicy", train, seed=seed, device="cpu", buffer_size=20_000, **exploration, **often)

    def reward() -> float:
        return float(test.unwrapped.score(model.predict(seen, deterministic=True)[0]).reward.mean())

    before = reward()
    model.learn(steps)
    return before, reward()


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
