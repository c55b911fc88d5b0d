"""Tianshou's REINFORCE on a menu. Its vector environments are its own: 25 lines put ours among them.

python examples/tianshou_reinforce.py        (pip install ".[examples]")
"""

import gymnasium as gym
import numpy as np
import torch
from tianshou.algorithm import Reinforce
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import BaseVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, dist_fn_categorical_from_logits

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env import SearchSpace
from instanas_env.seeding import generator_for

SPACE = SearchSpace.preset("lite")
MENU = [SPACE.random_masks(6, keep, generator_for(0)).flatten(1).int().tolist() for keep in (0.1, 0.3, 0.7)]
FORM = {"actions": sum(MENU, []), "observation": "features"}
NUM_ENVS = 250


class NativeVenv(BaseVectorEnv):
    """The native environment (mode Disabled) among Tianshou's: one batched forward a step."""

    def __init__(self, envs: gym.vector.VectorEnv):
        self.envs, self.env_num, self.is_async, self.is_closed = envs, envs.num_envs, False, False
        self.waiting_id: list[int] = []

    def get_env_attr(self, key, id=None):
        spaces = {"action_space": "single_action_space", "observation_space": "single_observation_space"}
        return [getattr(self.envs, spaces.get(key, key))] * self.env_num

    def reset(self, env_id=None, **options):
        rows = np.arange(self.env_num) if env_id is None else np.asarray(env_id)
        first = env_id is None
        marked = None if first else {"reset_mask": np.isin(np.arange(self.env_num), rows)}
        observation, info = self.envs.reset(seed=options.get("seed"), options=marked)
        return observation[rows], self._rows(info)[rows]

    def step(self, action, id=None):
        *results, info = self.envs.step(action)
        return *results, self._rows(info)

    def close(self):
        self.envs.close()

    def _rows(self, info):
        return np.array([{"env_id": i, "index": info["index"][i]} for i in range(self.env_num)])


def main(steps: int = 20_000, seed: int = 0) -> tuple[float, float]:
    """Mean reward of its samples on the 1,000 test images before and after."""
    torch.manual_seed(seed)
    train = NativeVenv(gym.make_vec("InstaNAS-v1", num_envs=NUM_ENVS, autoreset_mode="Disabled", **FORM))
    test = gym.make_vec("InstaNAS-v1", num_envs=1000, split="test", **FORM)
    seen, _ = test.reset(seed=seed)
    net = Net(state_shape=(24,), hidden_sizes=(64,))
    actor = DiscreteActor(preprocess_net=net, action_shape=len(FORM["actions"]), softmax_output=False)
    policy = DiscreteActorPolicy(
        actor=actor, dist_fn=dist_fn_categorical_from_logits, action_space=test.single_action_space
    )
    algorithm = Reinforce(policy=policy, gamma=0.0, optim=AdamOptimizerFactory(lr=3e-3))
    collector = Collector(algorithm, train, VectorReplayBuffer(2 * NUM_ENVS, NUM_ENVS))

    @torch.no_grad()
    def reward() -> float:
        arms = dist_fn_categorical_from_logits(actor(seen)[0]).sample()
        return float(test.unwrapped.score(arms).reward.mean())

    before = reward()
    quiet = {"test_collector": None, "show_progress": False, "verbose": False}
    params = OnPolicyTrainerParams(
        training_collector=collector, max_epochs=1, epoch_num_steps=steps, batch_size=NUM_ENVS,
        collection_step_num_env_steps=NUM_ENVS, **quiet,
    )  # fmt: skip
    algorithm.run_training(params)
    return before, reward()


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
