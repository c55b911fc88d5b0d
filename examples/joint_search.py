"""The paper's joint search under somebody else's agent: the meta-graph trains between the passes of PPO.

python examples/joint_search.py
"""

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor
from torch import nn

from agents.sb3 import ControllerPolicy, NativeVecEnv
from instanas_env import MetaGraphUpdate


def main(steps: int = 2 * 4000, seed: int = 0) -> tuple[float, float]:
    """Mean reward of PPO's samples on the 1,000 test images, on the meta-graph as it was and as it became.

    It is the package's with a new last layer, as for new classes, and at first right one time in ten. PPO
    sees the standard API only: at the end of each pass the callback trains the meta-graph for one epoch, on
    the images and masks of the pass, the masks shuffled between the images (section 3.3).
    """
    envs = gym.make_vec("InstaNAS-v1", num_envs=250, augment=True)
    bandit, test = envs.unwrapped.bandit, gym.make_vec("InstaNAS-v1", num_envs=1000, split="test").unwrapped
    nn.init.zeros_(bandit.meta_graph.head[-1].weight)
    bandit.refresh()
    passes = max(1, steps // len(bandit.image_set))
    envs.unwrapped.add_callback(MetaGraphUpdate(epochs=passes, batch_size=50, seed=seed))
    settings = {"n_steps": 2, "batch_size": 500, "n_epochs": 2, "gamma": 0.0, "gae_lambda": 1.0}
    env = VecMonitor(NativeVecEnv(envs))
    model = PPO(ControllerPolicy, env, learning_rate=2e-3, seed=seed, device="cpu", **settings)
    images, _ = test.reset(seed=seed)

    def reward() -> float:
        test.bandit.meta_graph = bandit.meta_graph
        test.bandit.refresh()
        return float(test.score(model.predict(images)[0]).reward.mean())

    before = reward()
    model.learn(steps)
    return before, reward()


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
