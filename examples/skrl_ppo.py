"""skrl's PPO. It takes no MultiBinary: actions="cells" is one number for each of the 17 cells.

python examples/skrl_ppo.py        (pip install ".[examples]")
"""

import gymnasium as gym
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, Model, MultiCategoricalMixin
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.controller import Controller
from instanas_env import SearchSpace

SPACE = SearchSpace.preset("lite")
NUM_ENVS, ROLLOUTS = 250, 2


class Policy(MultiCategoricalMixin, Model):
    """17 x 32 logits: which of the 32 subsets of a cell's modules is on."""

    def __init__(self, env: dict):
        Model.__init__(self, **env)
        MultiCategoricalMixin.__init__(self)
        self.network = Controller(SPACE, outputs=17 * 32)

    def compute(self, inputs, role=""):
        return self.network(inputs["observations"].view(-1, 3, 32, 32)), {}


class Value(DeterministicMixin, Model):
    """What an image will earn."""

    def __init__(self, env: dict):
        Model.__init__(self, **env)
        DeterministicMixin.__init__(self)
        self.network = Controller(SPACE, outputs=1)

    def compute(self, inputs, role=""):
        return self.network(inputs["observations"].view(-1, 3, 32, 32)), {}


def main(steps: int = 30_000, seed: int = 0) -> tuple[float, float]:
    """Mean reward of its samples on the 1,000 test images before and after."""
    set_seed(seed)
    env = wrap_env(gym.make_vec("InstaNAS-v1", num_envs=NUM_ENVS, actions="cells"))
    test = gym.make_vec("InstaNAS-v1", num_envs=1000, split="test", actions="cells")
    images = torch.from_numpy(test.reset(seed=seed)[0])
    of_env = {"observation_space": env.observation_space, "action_space": env.action_space, "device": "cpu"}
    models = {"policy": Policy(of_env), "value": Value(of_env)}
    settings = PPO_CFG(
        rollouts=ROLLOUTS, learning_epochs=8, mini_batches=2, learning_rate=1e-3, gae_lambda=1.0
    )
    settings.discount_factor, settings.value_loss_scale = 0.0, 0.5
    settings.experiment.write_interval = settings.experiment.checkpoint_interval = 0
    memory = RandomMemory(memory_size=ROLLOUTS, num_envs=NUM_ENVS, device="cpu")
    agent = PPO(models=models, memory=memory, cfg=settings, **of_env)
    quiet = {"headless": True, "disable_progressbar": True, "close_environment_at_exit": False}
    trainer = SequentialTrainer(env=env, agents=agent, cfg={"timesteps": steps // NUM_ENVS, **quiet})

    @torch.no_grad()
    def reward() -> float:
        actions, _ = models["policy"].act({"observations": images})
        return float(test.unwrapped.score(actions).reward.mean())

    before = reward()
    trainer.train()
    return before, reward()


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
