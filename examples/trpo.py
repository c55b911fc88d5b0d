"""TRPO of sb3-contrib, on the same adapter and policy as PPO.

python examples/trpo.py        (pip install ".[examples]")
"""

import gymnasium as gym
from sb3_contrib import TRPO
from stable_baselines3.common.vec_env import VecMonitor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.sb3 import ControllerPolicy, NativeVecEnv


def main(steps: int = 32_768, seed: int = 0) -> tuple[float, float]:
    """Mean reward of its samples on the 1,000 test images before and after; no discount, see ppo.py."""
    train = VecMonitor(NativeVecEnv(gym.make_vec("InstaNAS-v1", num_envs=256)))
    test = gym.make_vec("InstaNAS-v1", num_envs=1000, split="test")
    images, _ = test.reset(seed=seed)
    settings = {"n_steps": 8, "batch_size": 256, "gamma": 0.0, "gae_lambda": 1.0, "target_kl": 0.1}
    cheaper = {"cg_max_steps": 8, "n_critic_updates": 4, "learning_rate": 1e-3, "sub_sampling_factor": 4}
    model = TRPO(ControllerPolicy, train, seed=seed, device="cpu", **settings, **cheaper)

    def reward() -> float:
        return float(test.unwrapped.score(model.predict(images)[0]).reward.mean())

    before = reward()
    model.learn(steps)
    return before, reward()


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
