"""RLlib's PPO on scalar environments: actions="cells" (it takes no MultiBinary), 24 features of the image.

RLlib pins an older Gymnasium, so it has an environment of packages of its own; it runs with the newer one:

    python -m venv rllib && . rllib/bin/activate
    pip install instanas-env "ray[rllib]" && pip install "gymnasium>=1.4"
    python examples/rllib_ppo.py
"""

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns

import instanas_env  # noqa: F401  (registers InstaNAS-v1)

FORM = {"actions": "cells", "observation": "features"}


class Standardise(ConnectorV2):
    """Standardises advantages over the images alone.

    RLlib pads every episode with a row, here half of all rows, and counts them: what is better than nothing
    then looks good, also where it is worse than the mean.
    """

    def __call__(self, *, batch, **_):
        rows = batch["default_policy"]
        own = rows[Columns.ADVANTAGES][rows[Columns.LOSS_MASK]]
        rows[Columns.ADVANTAGES] = (rows[Columns.ADVANTAGES] - own.mean()) / own.std().clamp(min=1e-4)
        return batch


class Learner(PPOTorchLearner):
    """RLlib's, with its advantages standardised again."""

    def build(self):
        super().build()
        self._learner_connector.append(Standardise())


def main(steps: int = 8_192, seed: int = 0) -> tuple[float, float]:
    """Mean reward of its samples on the 1,000 test images before and after."""
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    test = gym.make_vec("InstaNAS-v1", num_envs=1000, split="test", **FORM)
    seen = torch.from_numpy(test.reset(seed=seed)[0])
    config = (
        PPOConfig()
        .environment("InstaNAS-v1", env_config=FORM)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=16)
        .training(
            gamma=0.0,
            lambda_=1.0,
            lr=1e-3,
            train_batch_size=256,
            minibatch_size=256,
            num_epochs=8,
            use_kl_loss=False,
        )
        .training(learner_class=Learner)
        .debugging(seed=seed, log_level="ERROR")
    )
    algorithm = config.build_algo()

    @torch.no_grad()
    def reward() -> float:
        module = algorithm.get_module()
        logits = module.forward_exploration({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
        cells = torch.distributions.Categorical(logits=logits.view(-1, 17, 32)).sample()
        return float(test.unwrapped.score(np.asarray(cells)).reward.mean())

    before = reward()
    for _ in range(steps // 256):
        algorithm.train()
    after = reward()
    algorithm.stop()
    ray.shutdown()
    return before, after


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
