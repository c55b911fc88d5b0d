"""Single images in onnxruntime: a cache of static children, and the dynamic file for masks that are new."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import NETWORK, Agent
from instanas_env.data import DataRecord
from instanas_env.deploy.choice import choice_model
from instanas_env.deploy.dynamic import dynamic_model, static_model
from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph

REMEMBERED = 16  # masks seen once, as a multiple of the children kept


@dataclass(eq=False)
class SingleImages:
    """Runs one image at a time.

    The controller looks at it. A mask that is met for the first time runs in the dynamic file; a static
    child, which is faster, is built when it comes again. An agent without an ONNX form chooses in PyTorch,
    and its children are built at once. Can be pickled; what it keeps is then built anew.

    Attributes:
        agent: the policy, its controller folded or not.
        meta_graph: folded, on the CPU.
        data: of the images.
        table: of latencies.
        controller_ms: the controller's.
        cache_size: children kept; the least recently used goes first.
    """

    agent: Agent
    meta_graph: MetaGraph
    data: DataRecord
    table: LatencyTable
    controller_ms: float
    cache_size: int

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop what was built, as the policy has changed."""
        self.children: OrderedDict[bytes, OnnxNetwork] = OrderedDict()
        self.built = 0
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._chooser: OnnxNetwork | None = None
        self._dynamic: OnnxNetwork | None = None

    def __call__(self, image: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Logits ``(1, C)`` and mask ``(1, num_cells, num_modules)`` of an image uint8 ``(1, 3, H, W)``."""
        mask, own = self.decide(image)
        if own is not None and not mask.any():
            return own, mask
        key = mask.tobytes()
        if key in self.children:
            self.children.move_to_end(key)
        elif self.agent.has_onnx and not self._met_before(key):
            if self._dynamic is None:
                self._dynamic = OnnxNetwork(self._write_dynamic())
            return self._dynamic(image.numpy()), mask
        return self.child(mask)(image.numpy()), mask

    def choose(self, image: Tensor) -> np.ndarray:
        """The repaired mask ``(1, num_cells, num_modules)``, empty where the agent answers itself."""
        return self.decide(image)[0]

    def decide(self, image: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """The mask of :meth:`choose`, and the logits ``(1, C)`` of the agent's own answer, if it has any."""
        if not self.agent.has_onnx:
            if self.agent.may_answer and (self.agent.own_answers(image) != NETWORK).item():
                empty = np.zeros((1, *self.meta_graph.space.mask_shape), bool)
                return empty, self.agent.name_logits(image).cpu().numpy()
            return self.meta_graph.space.repair(self.agent.masks(image)).cpu().numpy(), None
        if self._chooser is None:
            policy = self.agent.bits_to_onnx, self.table, self.controller_ms, self.agent.exit_to_onnx
            self._chooser = OnnxNetwork(choice_model(*policy))
        mask, _, *own = self._chooser.outputs(image.numpy())
        return mask, own[0] if own else None

    def child(self, mask: np.ndarray) -> OnnxNetwork:
        """The child of a mask ``(1, num_cells, num_modules)``, built if it is not kept."""
        key = mask.tobytes()
        if key not in self.children:
            row = torch.from_numpy(mask[0])
            model = static_model(self.meta_graph, row, self.data.mean, self.data.std)
            self.children[key] = OnnxNetwork(model)
            self.built += 1
            if len(self.children) > self.cache_size:
                self.children.popitem(last=False)
        return self.children[key]

    def _met_before(self, key: bytes) -> bool:
        """Tell whether a mask was met before, and remember it."""
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > REMEMBERED * self.cache_size:
            self._seen.popitem(last=False)
        return False

    def _write_dynamic(self) -> bytes:
        return dynamic_model(
            self.meta_graph,
            self.agent.bits_to_onnx,
            self.table,
            self.controller_ms,
            self.data.mean,
            self.data.std,
            typical=self.data.typical,
            write_exit=self.agent.exit_to_onnx,
        )

    def __reduce__(self) -> tuple[type[SingleImages], tuple[Any, ...]]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))
