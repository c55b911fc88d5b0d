"""An agent of our own: regress the reward, then switch on what is worth its latency.

The paper's learner lets 85 coin flips share one reward. But half of that reward is known: latency is a
sum over a table. So learn only the other half, from the same feedback (mask, correct):

    P(correct | x, m) = sigmoid(b(x) + sum_i w_i(x) m_i)

with one output w_i(x) per module from the paper's controller network. The policy maximises

    P(correct | x, m) - lambda * sum_i m_i latency_i

so that an image which is right anyway, or never, gets little. Given a menu of masks known to be good, such as
a one-shot search finds, i counts those instead, and the best one is taken. Of modules those are on that are
worth it to first order, m_i = [p (1 - p) w_i(x) > lambda * latency_i], see :class:`agents.arms.ModuleArms`.
Lambda is a dial at inference: one training gives the whole frontier. ``dial`` finds the lambda of a mean
latency. In the language of bandits this is the direct method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agents.agent import native, space_of
from agents.arms import Arms, MenuArms, ModuleArms
from agents.controller import outputs_to_onnx
from agents.learning import LearningAgent
from agents.memory import Experience, Memory
from agents.regression_controller import RegressionController
from instanas_env import checks
from instanas_env.data import DRAWS_PER_IMAGE, LIGHT, augment
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MAX_CLASSES
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.epoch import set_learning_rate, warmup_cosine

MOST_KEPT = 10**9  # steps


class RewardRegression(LearningAgent):
    """The reward-regression controller.

    Args:
        env: from ``gym.make_vec``.
        trade_off: lambda, the P(correct) that a millisecond must bring. Can be set at any time.
        learning_rate: of Adam.
        random_timesteps: so many images get random masks of every density; afterwards masks are those of
            the policy at a lambda drawn for each image, with some bits flipped.
        latencies: mean latencies in ms between which those lambdas spread; None means from the cheapest
            path to a third of the full meta-graph.
        flip: probability with which an explored bit is flipped.
        replay: steps of the environment that are kept and trained on again.
        gradient_steps: batches, of as many images as the environment has, per step.
        passes: so often all that is kept is trained on when the last random masks have been answered, the
            learning rate falling to 0: explore, then commit. What comes early is not seen more often than
            what comes late, as in ``gradient_steps``.
        weight_decay: of Adam (decoupled).
        anneal_timesteps: the learning rate falls linearly to 0 over so many images; None keeps it.
        masks_per_image: masks tried on each image; the environment is stepped with the first and asked for
            the score of the others. With a menu, as many as it holds give a full answer for every image.
        menu: masks to choose from, ``(K, bits)`` or ``(K, num_cells, num_modules)``, repaired; None means
            all. Masks off it are then never tried: random ones are drawn from it, and so is what ``flip``
            explores. There is one logit for each of them.
        num_classes: if not 0, the controller also learns to name the images, whose labels are in ``info``: a
            second loss that shapes its features with a full answer for every image.
        augment: whether each gradient step crops and flips its images anew, lightly, so that they can be
            trained on many times. The answers stay those of the images as they were shown.
        seed: of the initial weights and all draws.
        space: the search space; by default the environment's.
        table: what latency_i is; by default the environment's.
        world: see :class:`LearningAgent`.
    """

    controller: RegressionController
    hyperparameters: ClassVar[tuple[str, ...]] = (
        "trade_off", "learning_rate", "random_timesteps", "latencies", "flip", "replay", "gradient_steps",
        "passes", "weight_decay", "anneal_timesteps", "masks_per_image", "menu", "num_classes", "augment",
        "seed",
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
        passes: int = 0,
        weight_decay: float = 1e-4,
        anneal_timesteps: int | None = None,
        masks_per_image: int = 1,
        menu: Tensor | Sequence[Sequence[int]] | None = None,
        num_classes: int = 0,
        augment: bool = False,
        seed: int = 0,
        space: SearchSpace | None = None,
        table: LatencyTable | None = None,
        world: World = ALONE,
    ):
        self.trade_off = checks.number("trade_off", trade_off, -1e30, 1e30)
        self.learning_rate = checks.number("learning_rate", learning_rate, 0)
        self.random_timesteps = checks.whole("random_timesteps", random_timesteps)
        self.latencies = None if latencies is None else checks.pair("latencies", latencies, 0, above=True)
        if self.latencies is not None and self.latencies[0] > self.latencies[1]:
            raise checks.refuse("latencies", latencies, "two numbers, rising,")
        self.flip = checks.number("flip", flip, 0, 1)
        self.replay = checks.whole("replay", replay, 1, MOST_KEPT)
        self.gradient_steps = checks.whole("gradient_steps", gradient_steps, 1)
        self.passes = checks.whole("passes", passes)
        if self.passes and not self.random_timesteps:
            raise ValueError(f"random_timesteps: got 0 with {passes} passes; at least 1 will do")
        self.weight_decay = checks.number("weight_decay", weight_decay, 0)
        self.anneal_timesteps = checks.whole_or_none("anneal_timesteps", anneal_timesteps, 1)
        self.masks_per_image = checks.whole("masks_per_image", masks_per_image, 1)
        self.num_classes = checks.whole("num_classes", num_classes, 0, MAX_CLASSES)
        self.augment = checks.flag("augment", augment)
        space = space_of(env, space)
        arms = ModuleArms(space) if menu is None else MenuArms(space, menu)
        controller = RegressionController(space, arms, num_classes, generator_for(seed, 0))
        super().__init__(env, space, controller, seed, world)
        self.arms: Arms = arms
        self.menu = arms.menu.flatten(1).int().tolist() if isinstance(arms, MenuArms) else None
        self.optimizer = torch.optim.AdamW(controller.parameters(), learning_rate, weight_decay=weight_decay)
        self._memory = Memory(self.replay, self.world)
        if table is None and env is not None:
            table = native(env).bandit.latency_table
        if table is not None:
            controller.latencies.copy_(arms.latencies(table.modules))
            controller.fixed_ms.fill_(table.fixed)
            if self.latencies is None:
                self.latencies = (table.reference("cheapest"), table.reference("full") / 3)

    @torch.no_grad()
    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """The masks at :attr:`trade_off`; the policy has no chance in it, whatever ``deterministic``.

        On is what is worth more than lambda times its latency; a cell that must not stay empty keeps its
        best module even if none is. With a menu: the mask of the largest surplus.
        """
        worth = self.controller.worth(images)
        return self.arms.masks(self.controller.choices(worth, torch.tensor(self.trade_off)))

    def bits_to_onnx(self, graph: OnnxGraph, image: str, dial: str | None = None) -> str:
        """As :meth:`Agent.bits_to_onnx`: what arms are worth, less the price at :attr:`trade_off`.

        ``dial`` names a value of the graph, float ``(1,)``, that is used instead of :attr:`trade_off`.
        """
        latencies = self.controller.latencies[None].float()
        # The sums leave out the names of the classes.
        wanted = F.pad(self.arms.combinations, (0, self.num_classes))
        worth = self.arms.worth_to_onnx(graph, outputs_to_onnx(self.controller.network, graph, image, wanted))
        price = graph.constant(self.trade_off * latencies)
        if dial:
            price = graph.op("Mul", dial, graph.constant(latencies))
        return self.arms.best_to_onnx(graph, graph.op("Sub", worth, price))

    def name_logits(self, images: Tensor) -> Tensor:
        return self.controller.eval()(images)[2]

    @property
    def has_dial(self) -> bool:
        """True, see :meth:`dial`."""
        return True

    @torch.no_grad()
    def dial(self, images: Tensor, latency_ms: float) -> float:
        """Set :attr:`trade_off` so that the networks of ``images`` take ``latency_ms`` on average.

        Give it validation images. Returns the new lambda; where none gets there, one that comes near.
        """
        latency_ms = checks.number("latency_ms", latency_ms, 0)
        worth = torch.cat([self.controller.worth(part) for part in images.split(500)])
        self.trade_off = self.controller.trade_off_at(worth, latency_ms)
        return self.trade_off

    @torch.no_grad()
    def spread_masks(
        self,
        images: Tensor,
        latencies: tuple[float, float],
        generator: torch.Generator,
        total: int | None = None,
    ) -> Tensor:
        """Masks of a batch at lambdas drawn for each image between those of two mean latencies (ms).

        In a world ``images`` are this process's and the masks those of the whole batch, of ``total`` images
        unless all processes have as many.
        """
        worth = self.world.gather(self.controller.worth(images), total)
        return self.arms.masks(self.controller.spread(worth, latencies, generator))

    def train(self, total_timesteps: int) -> Iterator[dict[str, float]]:
        """See :class:`LearningAgent`."""
        self._native()
        if self.latencies is None:
            raise ValueError("env: this agent was made without one, and knows no latencies; make it with env")
        for _ in range(self._steps(total_timesteps)):
            if self.anneal_timesteps is not None:
                remaining = max(0.0, 1 - self.num_timesteps / self.anneal_timesteps)
                set_learning_rate(self.optimizer, remaining * self.learning_rate)
            images = torch.from_numpy(self._begin())
            random = self.num_timesteps < self.random_timesteps
            choices = self.world.own(self._explore(images), dim=1)
            actions = self.arms.masks(choices).flatten(2)
            others = [self._native().score(actions[1:].numpy()).correct] if len(actions) > 1 else []
            reward, info = self._step(actions[0])
            answers = torch.from_numpy(np.concatenate([info["correct"][None], *others]))
            newest = Experience(images, choices, answers, torch.from_numpy(np.asarray(info["label"])))
            self._memory.steps.append(newest)
            losses = [self._gradient_step(newest)]
            for _ in range(1, self.gradient_steps):
                losses.append(self._gradient_step(self._memory.draw(self.generator)))
            if self.passes and random and self.num_timesteps >= self.random_timesteps:
                losses.append(self._commit())
            yield self._means(info, loss=sum(losses) / len(losses), reward=float(reward.mean()))

    @torch.no_grad()
    def _explore(self, images: Tensor) -> Tensor:
        """Choices to try ``(K, n, arms)``, of all processes: random at first, then near the policy's."""
        count, tries = len(images) * self.world.size, self.masks_per_image
        if self.num_timesteps < self.random_timesteps:
            return self.arms.random(tries, count, self.generator)
        assert self.latencies is not None
        worth = self.world.gather(self.controller.worth(images))
        spread = (self.controller.spread(worth, self.latencies, self.generator) for _ in range(tries))
        return torch.stack([self.arms.explore(choices, self.flip, self.generator) for choices in spread])

    def _commit(self) -> float:
        """All passes over what is kept; the loss of the last one."""
        kept, batches = self._memory.together(), self._memory.batches(self.passes, self.generator)
        losses = []
        for step, rows in enumerate(batches):
            set_learning_rate(self.optimizer, warmup_cosine(step, len(batches), self.learning_rate))
            losses.append(self._gradient_step(kept.take(self.world.own(rows))))
        set_learning_rate(self.optimizer, self.learning_rate)
        last = losses[-len(self._memory.steps) :]  # a pass has a batch for each step
        return sum(last) / len(last)

    def _gradient_step(self, experience: Experience) -> float:
        """One step of the optimizer; gives the loss."""
        images, choices, correct, labels = experience
        if self.augment:
            count = len(images) * self.world.size
            uniforms = torch.rand(count, DRAWS_PER_IMAGE, generator=self.generator)
            images = augment(images, LIGHT, self.world.own(uniforms))
        base, gains, classes = self.controller.train()(images)
        loss = F.binary_cross_entropy_with_logits(base + (gains * choices).sum(-1), correct.float())
        self._update(loss + F.cross_entropy(classes, labels) if self.num_classes else loss)
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """As in :class:`LearningAgent`, with the memory of all processes and the dial."""
        memory = [tuple(step) for step in self._memory.state_dict()]
        return {**super().state_dict(), "memory": memory, "trade_off": self.trade_off}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As in :class:`LearningAgent`, with the memory."""
        super().load_state_dict(state)
        self.trade_off = state["trade_off"]
        self._memory.load_state_dict(state["memory"])
