"""onnxruntime on one thread, as latencies are measured: what one would put on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor


def session(model: bytes) -> onnxruntime.InferenceSession:
    """A session on the CPU, without threads of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxNetwork:
    """An ONNX model as a function from images ``(B, 3, H, W)`` to logits ``(B, num_classes)``.

    It can be pickled, and used in forked processes.

    Args:
        model: the bytes of a model with one input, from :func:`instanas_env.deploy.onnx_graph.to_onnx` say.
    """

    def __init__(self, model: bytes):
        self.model = model
        self.session = session(model)
        self._input = self.session.get_inputs()[0].name

    def __call__(self, images: Any) -> Any:
        """The first output: a tensor for a tensor, an array for an array."""
        if isinstance(images, Tensor):
            return torch.from_numpy(self.outputs(images.numpy())[0])
        return self.outputs(images)[0]

    def outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """All outputs of the model, as arrays."""
        return self.session.run(None, {self._input: images})

    def __reduce__(self) -> tuple[type[OnnxNetwork], tuple[bytes]]:
        return type(self), (self.model,)
