"""The contextual bandit behind both environments: draws images, turns masks into rewards.

This is the one place where an action of the live environment becomes a reward:
actions -> repair -> meta-graph -> correct -> R_T; table -> z -> R_A(z; U_t, L_t); equation (2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from instanas_env import arrays, checks
from instanas_env.contextual import BENCHMARK, Contexts, ContextualBandit, Outcome, Rules
from instanas_env.data import DRAWS_PER_IMAGE, Augmentation, ImageSet, augment
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph

__all__ = ["Contexts", "InstanceBandit", "Outcome"]


class InstanceBandit(ContextualBandit):
    """Images as contexts, masks as arms; passes, epochs and bounds as in :class:`ContextualBandit`.

    Args:
        meta_graph: what the masks choose from. :meth:`refresh` after changing its weights.
        image_set: the contexts.
        latency_table: gives ``latency_ms``.
        cost_table: what R_A judges; None means the latency table.
        augmentation: None shows the images as they are.
        autocast: let convolutions compute in bfloat16, for GPUs that are made for it.
        rules: what it pays, and in which order images come.

    Attributes:
        folded: the copy of the meta-graph that predicts, as it was at the last :meth:`refresh`.
    """

    cost_table: LatencyTable

    def __init__(
        self,
        meta_graph: MetaGraph,
        image_set: ImageSet,
        latency_table: LatencyTable,
        cost_table: LatencyTable | None = None,
        augmentation: Augmentation | None = None,
        autocast: bool = False,
        rules: Rules = BENCHMARK,
    ):
        super().__init__(meta_graph.space, image_set, cost_table or latency_table, rules)
        self.meta_graph = meta_graph
        self.latency_table = latency_table
        self.augmentation = augmentation
        self.autocast = checks.flag("autocast", autocast)
        self.refresh()

    def contexts(self, index: Tensor) -> Contexts:
        """The images at ``index`` ``(n,)``, augmented if the bandit augments."""
        images = self.image_set.images[index]
        if self.augmentation is not None:
            uniforms = torch.from_numpy(self.rng.random((len(index) * self.shards, DRAWS_PER_IMAGE)))
            images = augment(images, self.augmentation, uniforms[self._own(len(index))])
        return Contexts(index, images)

    def score(self, contexts: Contexts, actions: Any) -> Outcome:
        """What ``actions`` would earn on ``contexts``. Draws nothing, changes nothing.

        Args:
            contexts: n images.
            actions: ``(n, num_bits)``, or ``(K, n, num_bits)`` for K masks per image, of 0 and 1.

        Raises:
            ValueError: another shape, or another value than 0 and 1.
        """
        arrays.expect_shape("actions", actions, (len(contexts), self.space.num_bits), several=True)
        masks = self.space.repair(self.space.masks_from_actions(actions))
        prediction = self._predict(contexts, masks)
        label = self.image_set.labels[contexts.index].expand(prediction.shape)
        correct = prediction == label
        latency = self.latency_table.lookup(masks)
        cost = latency if self.cost_table is self.latency_table else self.cost_table.lookup(masks)
        reward_task, reward_latency, reward = self.pay(correct, cost)
        return Outcome(
            reward=reward.numpy(),
            index=contexts.index.expand(correct.shape).numpy().copy(),
            label=label.numpy().copy(),
            prediction=prediction.numpy(),
            correct=correct.numpy(),
            is_success=correct.numpy().copy(),
            latency_ms=latency.numpy(),
            reward_task=reward_task.numpy(),
            reward_latency=reward_latency.numpy(),
            mask=masks.numpy(),
            **self._window(tuple(correct.shape)),
        )

    def actions_of(self, masks: Tensor) -> Tensor:
        """The bits of masks, ``(n, num_bits)``."""
        return masks.flatten(1)

    def refresh(self) -> None:
        """Take over the meta-graph's present weights."""
        self.folded = self.meta_graph.folded()

    @property
    def device(self) -> torch.device:
        """Where the meta-graph computes. Images, masks and outcomes are on the CPU."""
        return next(self.folded.parameters()).device

    @torch.inference_mode()
    def _predict(self, contexts: Contexts, masks: Tensor) -> Tensor:
        """Predicted class of each mask, ``(n,)`` or ``(K, n)``."""
        images = self.image_set.normalize(contexts.images.to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.folded(images, masks).argmax(-1).cpu()
