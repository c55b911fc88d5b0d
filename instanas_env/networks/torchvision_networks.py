"""ShuffleNetV2 and ResNet of torchvision for small images, which the paper compares with (Tables 1 and 2).

Their stem (7x7 or 3x3 at stride 2, then max-pooling at stride 2) leaves one pixel of 32; here it is one 3x3
convolution. What follows is torchvision's, with every channel count multiplied.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from instanas_env.checks import explained
from instanas_env.networks.meta_graph import MAX_CLASSES, initialise, take_weights
from instanas_env.networks.traced import TracedNetwork
from instanas_env.storage import PathLike, load_weights, save_weights
from instanas_env.validation import integer, number, record, text

NETWORK = "network.safetensors"
Network = Literal["shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "resnet18"]
LABELS: dict[str, tuple[str, str]] = {
    "shufflenet_v2_x0_5": ("ShuffleNetV2", "ShuffleNetV2 0.5x"),
    "shufflenet_v2_x1_0": ("ShuffleNetV2", "ShuffleNetV2 1.0x"),
    "resnet18": ("ResNet", "ResNet-18"),
}
_ARCHITECTURE = {
    "network": text(*LABELS),
    "width": number(0, 16, above=True),
    "stem_stride": integer(1, 2),
    "resolution": integer(1, 4096),
}
_CONFIG = record({**_ARCHITECTURE, "num_classes": integer(1, MAX_CLASSES)}, more=True)


@dataclass(frozen=True)
class Architecture:
    """Which network, and for what images.

    Attributes:
        network: of torchvision.
        width: multiplies every channel count.
        stem_stride: of the first convolution, 1 or 2; three more stages of stride 2 follow it.
        resolution: of the images, px.
    """

    network: Network = "resnet18"
    width: float = 1.0
    stem_stride: int = 2
    resolution: int = 32

    def __post_init__(self) -> None:
        for name, specification in _ARCHITECTURE.items():
            specification(getattr(self, name), name)

    @property
    def family(self) -> str:
        """What the networks of one line in a figure are called."""
        return f"{LABELS[self.network][0]} alone"

    @property
    def name(self) -> str:
        """What its row is called, such as "ResNet-18 x 0.25"."""
        return f"{LABELS[self.network][1]} x {self.width:g}"


class TorchvisionNetwork(nn.Module):
    """A network of torchvision that trains in the place of a meta-graph: it takes masks and ignores them.

    Args:
        architecture: which.
        num_classes: length of the logits.
        generator: draws the initial weights, as those of a meta-graph are; None means one seeded with 0.
    """

    def __init__(
        self, architecture: Architecture, num_classes: int, generator: torch.Generator | None = None
    ):
        self._build(architecture, num_classes)
        initialise(self, generator or torch.Generator().manual_seed(0))
        self.to(memory_format=torch.channels_last)

    def _build(self, architecture: Architecture, num_classes: int) -> None:
        """All layers, without memory for their weights."""
        super().__init__()
        self.architecture = architecture
        self.num_classes = num_classes
        build = _resnet18 if architecture.network == "resnet18" else _shufflenet_v2
        with torch.device("meta"):  # PyTorch's own initialisation would draw from the global generator
            self.network = build(architecture, num_classes)

    def forward(self, images: Tensor, masks: Tensor | None = None, elsewhere: Tensor | None = None) -> Tensor:
        """Normalised float images ``(B, 3, H, W)`` to logits ``(B, num_classes)``, whatever the masks."""
        return self.network(images.contiguous(memory_format=torch.channels_last))

    def folded(self) -> TorchvisionNetwork:
        """A copy for evaluation, BatchNorm folded into the convolutions; gives the same logits, faster."""
        copy = TorchvisionNetwork(self.architecture, self.num_classes)
        copy.load_state_dict(self.state_dict())
        copy.network = fuse(copy.network.eval(), inplace=True)
        return copy.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def to_onnx(self, graph: Any, images: str) -> str:
        """Write the folded network into an :class:`instanas_env.deploy.onnx_graph.OnnxGraph`."""
        side = self.architecture.resolution
        assert isinstance(self.network, fx.GraphModule), "folded networks are"
        return TracedNetwork(self.network, graph).write(images, torch.zeros(1, 3, side, side))

    def save(self, path: PathLike, record: dict[str, Any] | None = None) -> None:
        """Write the weights as safetensors; ``record`` (JSON-able: how they were made) goes with them."""
        if isinstance(self.network, fx.GraphModule):
            raise ValueError("save: BatchNorm is folded into these weights; save what they came from")
        config = {**dataclasses.asdict(self.architecture), "num_classes": self.num_classes, "record": record}
        save_weights(path, self.state_dict(), config)

    @classmethod
    def load(cls, path: PathLike) -> TorchvisionNetwork:
        """Read a network in evaluation mode; ``ValueError`` if the file is not one, or not whole."""
        weights, config = load_weights(path)
        with explained(f"network: {path} holds no whole network of torchvision"):
            checked = _CONFIG(config, "config")
            network = cls.__new__(cls)
            architecture = Architecture(**{name: checked[name] for name in _ARCHITECTURE})
            network._build(architecture, checked["num_classes"])  # takes no memory yet
            take_weights(network, weights, "its file")
        return network


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width`` to the next even number: ShuffleNetV2 splits them in halves."""
    return max(2, 2 * round(channels * width / 2))


def _shufflenet_v2(architecture: Architecture, num_classes: int) -> nn.Module:
    from torchvision.models import ShuffleNetV2  # half a second that other scripts do not need

    stages = (48, 96, 192) if architecture.network == "shufflenet_v2_x0_5" else (116, 232, 464)
    channels = [scaled(count, architecture.width) for count in (24, *stages, 1024)]
    network = ShuffleNetV2([4, 8, 4], channels, num_classes)
    network.conv1[0] = _stem(channels[0], architecture.stem_stride)
    network.maxpool = nn.Identity()
    return network


def _resnet18(architecture: Architecture, num_classes: int) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    planes = [scaled(count, architecture.width) for count in (64, 128, 256, 512)]
    network = ResNet(BasicBlock, [1, 1, 1, 1])  # for its forward; the layers are made anew
    network.inplanes = planes[0]
    network.conv1 = _stem(planes[0], architecture.stem_stride)
    network.bn1 = nn.BatchNorm2d(planes[0])
    network.maxpool = nn.Identity()
    network.layer1, network.layer2, network.layer3, network.layer4 = (
        network._make_layer(BasicBlock, count, 2, stride=1 if stage == 0 else 2)
        for stage, count in enumerate(planes)
    )
    network.fc = nn.Linear(planes[-1], num_classes)
    return network


def _stem(out_channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(3, out_channels, 3, stride, 1, bias=False)
