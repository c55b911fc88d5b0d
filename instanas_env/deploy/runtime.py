"""onnxruntime as we use it: one image at a time, on one thread, nothing that waits by spinning."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from instanas_env.storage import PathLike, write_atomic


class OnnxNetwork:
    """An ONNX model as a function of images.

    Args:
        model: the file's content.
        threads: that onnxruntime computes with.
    """

    def __init__(self, model: bytes, threads: int = 1):
        self.model = model
        self.threads = threads
        self.session = onnxruntime.InferenceSession(
            model, session_options(threads), providers=["CPUExecutionProvider"]
        )
        (self._input,) = (given.name for given in self.session.get_inputs())

    def __call__(self, images: Any) -> np.ndarray:
        """The first output for ``images``, an array or tensor ``(B, 3, H, W)`` of the model's type."""
        return self.run(images)[0]

    def run(self, images: Any) -> list[np.ndarray]:
        """All outputs, in the order of the model's."""
        return self.session.run(None, {self._input: np.asarray(images)})

    @property
    def metadata(self) -> dict[str, str]:
        """What was written beside the model, such as its class names."""
        return self.session.get_modelmeta().custom_metadata_map

    def save(self, path: PathLike) -> None:
        """Write the model, to be run anywhere."""
        write_atomic(path, self.model)

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "threads": self.threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options for the latency of single images."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors alone
    return options
