"""PPO as CleanRL writes it: one file, plain torch, 85 independent bits.

python examples/cleanrl_ppo.py
"""

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Bernoulli

import instanas_env  # noqa: F401  (registers InstaNAS-v1)

NUM_ENVS, EPOCHS, MINIBATCHES, CLIP = 256, 8, 1, 0.2


class Agent(nn.Module):
    """85 logits and the value of an image."""

    def __init__(self):
        super().__init__()
        layers = nn.Conv2d(3, 16, 7, 4, 3), nn.ReLU(), nn.Conv2d(16, 32, 5, 2, 2), nn.ReLU(), nn.Flatten()
        self.features = nn.Sequential(*layers)
        self.actor, self.critic = nn.Linear(512, 85), nn.Linear(512, 1)
        nn.init.zeros_(self.actor.weight)  # every module is on with probability 1/2

    def forward(self, images: np.ndarray) -> tuple[Bernoulli, torch.Tensor]:
        x = self.features(torch.as_tensor(images).float() / 127.5 - 1)
        return Bernoulli(logits=self.actor(x)), self.critic(x).squeeze(1)


def update(agent: Agent, optimizer: torch.optim.Optimizer, images, actions, rewards) -> None:
    """PPO's clipped loss. An episode is one step: no discount, and the advantage is reward less value."""
    with torch.no_grad():
        policy, values = agent(images)
        old, advantages = policy.log_prob(actions).sum(1), rewards - values
    advantages = (advantages - advantages.mean()) / advantages.std()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(rewards)).chunk(MINIBATCHES):
            policy, values = agent(images[rows])
            ratio = (policy.log_prob(actions[rows]).sum(1) - old[rows]).exp()
            gain = torch.min(ratio * advantages[rows], ratio.clamp(1 - CLIP, 1 + CLIP) * advantages[rows])
            loss = -gain.mean() + 0.5 * (values - rewards[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def main(steps: int = 30_720, seed: int = 0) -> tuple[float, float]:
    """Mean reward of its samples on the 1,000 test images before and after."""
    torch.manual_seed(seed)
    envs = gym.make_vec("InstaNAS-v1", num_envs=NUM_ENVS)
    test = gym.make_vec("InstaNAS-v1", num_envs=1000, split="test")
    test_images, _ = test.reset(seed=seed)
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)

    @torch.no_grad()
    def reward() -> float:
        return float(test.unwrapped.score(agent(test_images)[0].sample()).reward.mean())

    before = reward()
    images, _ = envs.reset(seed=seed)
    for _ in range(steps // NUM_ENVS):
        with torch.no_grad():
            actions = agent(images)[0].sample()
        following, rewards, _, _, _ = envs.step(actions)
        update(agent, optimizer, images, actions, torch.as_tensor(rewards).float())
        images = following
    return before, reward()


if __name__ == "__main__":
    print("reward before {:.3f}, after {:.3f}".format(*main()))
