"""TorchRL's PPO. It wants autoreset_mode="Disabled" (or SAME_STEP), and takes MultiBinary as it is.

python examples/torchrl_ppo.py        (pip install ".[examples]")
"""

import gymnasium as gym
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Bernoulli, Independent
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.controller import Controller
from instanas_env import SearchSpace

SPACE = SearchSpace.preset("lite")
NUM_ENVS, EPOCHS = 256, 8


class Bits(Independent):
    """85 coins as one distribution."""

    def __init__(self, logits: torch.Tensor):
        super().__init__(Bernoulli(logits=logits), 1)


def main(steps: int = 30_720, seed: int = 0) -> tuple[float, float]:
    """Mean reward of its samples on the 1,000 test images before and after."""
    torch.manual_seed(seed)
    # No env.set_seed(seed): it resets, and so does the collector; nobody would act on the images between.
    env = GymWrapper(gym.make_vec("InstaNAS-v1", num_envs=NUM_ENVS, autoreset_mode="Disabled"))
    test = gym.make_vec("InstaNAS-v1", num_envs=1000, split="test")
    images = torch.from_numpy(test.reset(seed=seed)[0])
    logits = TensorDictModule(Controller(SPACE), in_keys=["observation"], out_keys=["logits"])
    actor = ProbabilisticActor(logits, in_keys=["logits"], distribution_class=Bits, return_log_prob=True)
    value = ValueOperator(Controller(SPACE, outputs=1), in_keys=["observation"])
    loss_of = ClipPPOLoss(actor, value, entropy_coeff=0.0, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss_of.parameters(), lr=1e-3)

    @torch.no_grad()
    def reward() -> float:
        actions = Bits(logits.module.eval()(images)).sample()
        logits.module.train()
        return float(test.unwrapped.score(actions).reward.mean())

    before = reward()
    frames = {"frames_per_batch": NUM_ENVS, "total_frames": steps, "auto_register_policy_transforms": True}
    for batch in Collector(env, actor, **frames):
        batch = batch.reshape(
            -1
        )  # (images, 1 step) to (images,); an episode is one step: nothing to bootstrap
        batch["value_target"] = batch["next", "reward"]
        with torch.no_grad():
            batch["advantage"] = batch["value_target"] - value.module(batch["observation"])
        for _ in range(EPOCHS):
            losses = loss_of(batch)
            loss = losses["loss_objective"] + losses["loss_critic"]
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(loss_of.parameters(), 0.5)
            optimizer.step()
    return before, reward()


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
