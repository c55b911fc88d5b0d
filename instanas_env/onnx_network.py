"""A child network as an ONNX graph, run by onnxruntime: what one would put on a device.

    pip install ".[onnx]"

PyTorch's eager mode pays for each layer's call; onnxruntime fuses layers and calls once. In a small space
such as "lite" that is most of the latency.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from instanas_env.storage import PathLike, write_atomic


def to_onnx(network: nn.Module, example: Tensor) -> bytes:
    """The ONNX model of ``network``: input "images", output "logits", any batch size.

    Args:
        network: such as :meth:`MetaGraph.child`, in evaluation mode, on the CPU.
        example: an input ``(B, 3, H, W)`` of the right type.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
    """
    _runtime()
    model = io.BytesIO()
    with warnings.catch_warnings():
        # Deprecated, but a third of a second for a child; the newer exporter takes several.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            network,
            (example,),
            model,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
        )
    return model.getvalue()


class OnnxNetwork:
    """An ONNX model as a function from images ``(B, 3, H, W)`` to logits ``(B, num_classes)``.

    Args:
        model: from :func:`to_onnx`.
        threads: that onnxruntime computes with.
    """

    def __init__(self, model: bytes, threads: int = 1):
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self.model = model
        self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"images": images.numpy()})[0])

    def save(self, path: PathLike) -> None:
        """Write the model, to be run anywhere."""
        write_atomic(path, self.model)


def _runtime() -> Any:
    """onnxruntime, if all that is needed is installed."""
    try:
        import onnx  # noqa: F401  (the exporter needs it)
        import onnxruntime
    except ImportError as error:
        raise ImportError(f'{error.name} is needed for ONNX: pip install "instanas-env[onnx]"') from error
    return onnxruntime
