"""The paper's joint search under somebody else's agent: the meta-graph trains between the passes of PPO.

python examples/joint_search.py
"""

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from agents.sb3 import ControllerPolicy, NativeVecEnv
from instanas_env import MetaGraphUpdate


def main(steps: int = 4 * 4500, seed: int = 0) -> tuple[float, float]:
    """Accuracy of what PPO samples, in the first and last epoch of a meta-graph that starts random.

    PPO sees the standard API only. At the end of each pass the callback trains the meta-graph for one epoch,
    on the images and masks of the pass, the masks shuffled between the images (section 3.3).
    """
    envs = gym.make_vec("InstaNAS-v1", num_envs=250, augment=True, meta_graph="random")
    images = len(envs.unwrapped.bandit.image_set)
    update = MetaGraphUpdate(epochs=max(1, steps // images), learning_rate=0.05, batch_size=50, seed=seed)
    envs.unwrapped.add_callback(update)
    settings = {"n_steps": 3, "batch_size": 250, "n_epochs": 4, "gamma": 0.0, "gae_lambda": 1.0}
    model = PPO(ControllerPolicy, VecMonitor(NativeVecEnv(envs)), seed=seed, device="cpu", **settings)
    model.learn(steps)
    return update.history[0]["accuracy"], update.history[-1]["accuracy"]


if __name__ == "__main__":
    print("accuracy before {:.3f}, after {:.3f}".format(*main()))
