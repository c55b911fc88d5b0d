"""An agent of our own: regress the reward, then switch on what is worth its latency.

The paper's learner lets 85 coin flips share one reward. But half of that reward is known: latency is a
sum over a table. So learn only the other half, from the same feedback (mask, correct):

    P(correct | x, m) = sigmoid(b(x) + sum_i w_i(x) m_i)

with one output w_i(x) per module from the paper's controller network. The policy maximises

    sum_i m_i (w_i(x) - lambda * latency_i)

over all masks, which switches on m_i = [w_i(x) > lambda * latency_i], or over a menu of masks known to be
good, such as a one-shot search finds. Lambda is a dial at inference: one training gives the whole frontier.
``dial`` finds the lambda of a mean latency. In the language of bandits this is the direct method.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from agents.agent import LearningAgent, native, space_of
from agents.controller import Controller
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for

TRADE_OFFS = (1e-4, 1e3)  # the ends of the dial
BISECTIONS = 30

Experience = tuple[Tensor, Tensor, Tensor]
"""Images uint8 ``(n, 3, H, W)``, masks bool ``(n, bits)``, correct bool ``(n,)``."""


class RewardRegression(LearningAgent):
    """The reward-regression controller.

    Args:
        env: from ``gym.make_vec``.
        trade_off: lambda, the logits that a millisecond must bring. Can be set at any time.
        learning_rate: of Adam.
        random_timesteps: so many images get random masks of every density; afterwards masks are those of
            the policy at a lambda drawn for each image, with some bits flipped.
        latencies: mean latencies in ms between which those lambdas spread; None means from the cheapest
            path to a third of the full meta-graph.
        flip: probability with which an explored bit is flipped.
        replay: steps of the environment that are kept and trained on again.
        gradient_steps: batches, of as many images as the environment has, per step.
        weight_decay: of Adam (decoupled).
        anneal_timesteps: the learning rate falls linearly to 0 over so many images; None keeps it. A bit
            per image is noisy feedback, and the noise is averaged out at the end.
        menu: masks to choose from, ``(K, bits)`` or ``(K, num_cells, num_modules)``, repaired; None means
            all. Masks off it are then never tried: random ones are drawn from it.
        seed: of the initial weights and all draws.
        table: what latency_i is; by default the environment's.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = (
        "trade_off", "learning_rate", "random_timesteps", "latencies", "flip", "replay", "gradient_steps",
        "weight_decay", "anneal_timesteps", "menu", "seed",
    )  # fmt: skip

    def __init__(
        self,
        env: gym.vector.VectorEnv | None,
        trade_off: float = 0.1,
        learning_rate: float = 2e-3,
        random_timesteps: int = 40_000,
        latencies: tuple[float, float] | None = None,
        flip: float = 0.05,
        replay: int = 64,
        gradient_steps: int = 2,
        weight_decay: float = 1e-4,
        anneal_timesteps: int | None = None,
        menu: Tensor | Sequence[Sequence[int]] | None = None,
        seed: int = 0,
        space: SearchSpace | None = None,
        table: LatencyTable | None = None,
    ):
        if latencies is not None and not 0 < latencies[0] <= latencies[1]:
            raise ValueError(f"latencies: got {latencies}; two positive numbers, rising, will do")
        if gradient_steps < 1 or replay < 1:
            raise ValueError(f"gradient_steps, replay: got {gradient_steps}, {replay}; at least 1 will do")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip: got {flip}; a probability will do")
        if anneal_timesteps is not None and anneal_timesteps < 1:
            raise ValueError(f"anneal_timesteps: got {anneal_timesteps}; at least 1, or None, will do")
        space = space_of(env, space)
        controller = RegressionController(space, generator_for(seed, 0))
        super().__init__(env, space, controller, seed)
        self.trade_off = trade_off
        self.learning_rate = learning_rate
        self.random_timesteps = random_timesteps
        self.latencies = None if latencies is None else (float(latencies[0]), float(latencies[1]))
        self.flip = flip
        self.replay = replay
        self.gradient_steps = gradient_steps
        self.weight_decay = weight_decay
        self.anneal_timesteps = anneal_timesteps
        self._menu = None if menu is None else _menu_of(space, menu)
        self.menu = None if self._menu is None else self._menu.int().tolist()
        self.optimizer = torch.optim.AdamW(controller.parameters(), learning_rate, weight_decay=weight_decay)
        self.generator = generator_for(seed, 1)
        self._memory: deque[Experience] = deque(maxlen=replay)
        if table is None and env is not None:
            table = native(env).bandit.latency_table
        if table is not None:
            controller.latencies.copy_(table.modules.flatten())
            controller.fixed_ms.fill_(table.stem + table.head)
            if self.latencies is None:
                self.latencies = (table.reference("cheapest"), table.reference("full") / 3)

    controller: RegressionController

    @torch.no_grad()
    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """The masks at :attr:`trade_off`; the policy has no chance in it, whatever ``deterministic``."""
        return self.masks_at(images, torch.tensor(self.trade_off))

    @torch.no_grad()
    def masks_at(self, images: Tensor, trade_offs: Tensor) -> Tensor:
        """Masks at each image's own lambda, ``(B,)`` or one number for all.

        On is what gains more than lambda times its latency; a cell that must not stay empty keeps its
        best module even if none does. With a menu: the mask of the largest total surplus.
        """
        _, gains = self.controller.eval()(images)
        return self._worthwhile(gains, trade_offs)

    @torch.no_grad()
    def dial(self, images: Tensor, latency_ms: float) -> float:
        """Set :attr:`trade_off` so that the networks of ``images`` take ``latency_ms`` on average.

        Give it validation images. Returns the new lambda; where no lambda gets there, the nearest.
        """
        gains = torch.cat([self.controller.eval()(part)[1] for part in images.split(500)])
        self.trade_off = self._trade_off_at(gains, latency_ms)
        return self.trade_off

    @torch.no_grad()
    def spread_masks(
        self, images: Tensor, latencies: tuple[float, float], generator: torch.Generator
    ) -> Tensor:
        """Masks of a batch at lambdas drawn for each image between those of two mean latencies (ms)."""
        _, gains = self.controller.eval()(images)
        fast, slow = (np.log(self._trade_off_at(gains, latency)) for latency in latencies)
        draws = torch.rand(len(images), generator=generator)
        return self._worthwhile(gains, torch.exp(slow + (fast - slow) * draws))

    def _trade_off_at(self, gains: Tensor, latency_ms: float) -> float:
        """The lambda at which masks take ``latency_ms`` on average: bisection, latency falls with lambda."""
        low, high = np.log(TRADE_OFFS)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            masks = self._worthwhile(gains, torch.tensor(float(np.exp(middle))))
            latency = (masks.flatten(1) * self.controller.latencies).sum(1).mean() + self.controller.fixed_ms
            low, high = (middle, high) if latency.item() > latency_ms else (low, middle)
        return float(np.exp((low + high) / 2))

    def _worthwhile(self, gains: Tensor, trade_offs: Tensor) -> Tensor:
        """Masks ``(B, num_cells, num_modules)`` from w(x) ``(B, bits)`` and lambdas ``(B,)`` or one."""
        surplus = gains - trade_offs.reshape(-1, 1) * self.controller.latencies
        if self._menu is not None:
            chosen = self._menu[(surplus @ self._menu.T.float()).argmax(1)]
            return chosen.view(-1, self.space.num_cells, self.space.num_modules)
        surplus = surplus.view(-1, self.space.num_cells, self.space.num_modules)
        best = F.one_hot(surplus.argmax(2), self.space.num_modules).bool()
        needed = torch.tensor([[not cell.keeps_shape] for cell in self.space.cells])
        return (surplus > 0) | (best & needed)

    def train(self, total_timesteps: int) -> Iterator[dict[str, float]]:
        """See :class:`LearningAgent`."""
        env = self._native()
        for _ in range(-(-total_timesteps // env.num_envs)):
            if self.anneal_timesteps is not None:
                remaining = max(0.0, 1 - self.num_timesteps / self.anneal_timesteps)
                for group in self.optimizer.param_groups:
                    group["lr"] = remaining * self.learning_rate
            images = torch.from_numpy(self._begin())
            _, info = self._step(self._explore(images))
            masks = torch.from_numpy(np.asarray(info["mask"])).flatten(1)
            self._memory.append((images, masks, torch.from_numpy(np.asarray(info["correct"]))))
            losses = [self._gradient_step(age) for age in range(self.gradient_steps)]
            yield {
                "loss": sum(losses) / len(losses),
                "reward": float(info["reward_task"].mean()),
                "accuracy": float(info["correct"].mean()),
                "latency_ms": float(info["latency_ms"].mean()),
            }

    @torch.no_grad()
    def _explore(self, images: Tensor) -> Tensor:
        """Bits ``(n, bits)`` to try: random ones at first, then the policy's with a few flipped.

        With a menu, random ones are drawn from it, also in place of flipping.
        """
        count = len(images)
        if self._menu is not None:
            drawn = self._menu[torch.randint(len(self._menu), (count,), generator=self.generator)]
            if self.num_timesteps < self.random_timesteps:
                return drawn
            assert self.latencies is not None
            bits = self.spread_masks(images, self.latencies, self.generator).flatten(1)
            return torch.where(torch.rand(count, 1, generator=self.generator) < self.flip, drawn, bits)
        if self.num_timesteps < self.random_timesteps:
            keep = torch.rand(count, generator=self.generator)
            return self.space.random_masks(count, keep, self.generator).flatten(1)
        assert self.latencies is not None  # an environment came with a table
        bits = self.spread_masks(images, self.latencies, self.generator).flatten(1)
        return bits ^ (torch.rand(bits.shape, generator=self.generator) < self.flip)

    def _gradient_step(self, number: int) -> float:
        """One step on the newest experience (``number`` 0) or on one drawn from the memory."""
        memory = len(self._memory)
        chosen = -1 if number == 0 else int(torch.randint(memory, (), generator=self.generator))
        images, masks, correct = self._memory[chosen]
        base, gains = self.controller.train()(images)
        loss = F.binary_cross_entropy_with_logits(base + (gains * masks).sum(1), correct.float())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """As in :class:`LearningAgent`, with the memory and the dial."""
        return {**super().state_dict(), "memory": list(self._memory), "trade_off": self.trade_off}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As in :class:`LearningAgent`, with the memory."""
        super().load_state_dict(state)
        self.trade_off = state["trade_off"]
        self._memory.clear()
        self._memory.extend(tuple(experience) for experience in state["memory"])

    @classmethod
    def _restore(
        cls, env: gym.vector.VectorEnv | None, space: SearchSpace, hyperparameters: dict[str, Any]
    ) -> Self:
        return cls(env, space=space, **hyperparameters)


def _menu_of(space: SearchSpace, menu: Tensor | Sequence[Sequence[int]]) -> Tensor:
    """A menu as bool ``(K, bits)``; ``ValueError`` unless it holds repaired masks of the space."""
    masks = torch.as_tensor(menu)
    bits = masks.flatten(1) if masks.ndim == 3 else masks
    if (
        bits.ndim != 2
        or not len(bits)
        or bits.shape[1] != space.num_bits
        or not ((bits == 0) | (bits == 1)).all()
    ):
        will_do = f"(K, {space.num_bits}) of 0 and 1, K at least 1,"
        raise ValueError(f"menu: got shape {tuple(masks.shape)}; {will_do} will do")
    chosen = bits.bool().view(-1, space.num_cells, space.num_modules)
    if not torch.equal(space.repair(chosen), chosen):
        raise ValueError("menu: got a mask with an empty cell that changes shape; repaired masks will do")
    return chosen.flatten(1)


class RegressionController(nn.Module):
    """The paper's controller with one more output: b(x) ``(B,)`` and w(x) ``(B, bits)``.

    ``latencies`` ``(bits,)`` are the modules' ms and ``fixed_ms`` those of stem and head, kept with the
    weights: a policy belongs to a table.
    """

    latencies: Tensor
    fixed_ms: Tensor

    def __init__(self, space: SearchSpace, generator: torch.Generator):
        super().__init__()
        self.network = Controller(space, outputs=space.num_bits + 1, generator=generator)
        self.register_buffer("latencies", torch.ones(space.num_bits))
        self.register_buffer("fixed_ms", torch.zeros(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network(images)
        return outputs[:, 0], outputs[:, 1:]
