"""From JSON-able names to a bandit: the keyword arguments of ``gym.make`` and what they stand for."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from instanas_env import checks, paper
from instanas_env.bandit import InstanceBandit
from instanas_env.contextual import Order, Rules
from instanas_env.data import LIGHT, load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.counting import count_macs, count_parameters
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.reward import BoundsSchedule
from instanas_env.search_space import SearchSpace

Cost = Literal["latency", "flops", "params"]
SHIPPED_SPACE = "lite"
SHIPPED_TABLES = ("lite", "lite@2", "cifar@0.5", "cifar", "tiny_imagenet", "imagenet")
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


class NotMeasured(ValueError):
    """A search space of whose latencies the package knows nothing."""


def shipped(name: str) -> Path:
    """Path of a file that comes with the package, such as ``meta_graph.safetensors``."""
    with as_file(files("instanas_env") / "assets" / name) as path:
        if not path.is_file():
            present = sorted(p.name for p in path.parent.iterdir())
            raise FileNotFoundError(f"{name}: not among the files of the package: {', '.join(present)}")
        return path


def shipped_table(space: SearchSpace) -> Path:
    """The latencies of a search space that come with the package; of one machine, which they name.

    Raises:
        NotMeasured: a space that was not measured.
    """
    measured = {parse_search_space(name): name for name in SHIPPED_TABLES}
    if space not in measured:
        raise NotMeasured(
            f"latency_table: the package has those of {', '.join(SHIPPED_TABLES)}, not of {space.config};"
            " `instanas profile` measures one, whose path will do"
        )
    return shipped(f"latency/{measured[space]}.json")


def build_bandit(
    dataset: str = "embedded",
    data_dir: str | None = None,
    split: str = "train",
    augment: bool = False,
    search_space: str = SHIPPED_SPACE,
    meta_graph: str | None = None,
    latency_table: str | None = None,
    cost: Cost = "latency",
    correct_reward: float = paper.CORRECT_REWARD,
    wrong_reward: float = paper.WRONG_REWARD,
    bounds: dict[str, Any] | None = None,
    order: Order = "shuffled",
    device: str = "cpu",
    autocast: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> InstanceBandit:
    """Load images, weights and table, see that they belong together, and make the bandit.

    Args:
        dataset, data_dir, split: as in :func:`instanas_env.data.load_images`.
        augment: whether images are randomly cropped and flipped before they are shown.
        search_space: preset name; "cifar@0.5" is a preset at width 0.5.
        meta_graph: path of weights; None means those shipped for "lite", "random" untrained ones.
        latency_table: path of a table; None means the one shipped for the space, see :func:`shipped_table`.
        cost: what R_A judges: "latency" (ms), "flops" (million MACs) or "params".
        correct_reward, wrong_reward: R_T.
        bounds: see :meth:`instanas_env.reward.BoundsSchedule.from_config`; None is the benchmark's.
        device: torch device of the meta-graph; "auto" is CUDA where there is one, else the CPU.
        autocast: convolutions in bfloat16.
        order, shard: see :class:`instanas_env.contextual.Rules`.

    Raises:
        ValueError: a name that does not exist, or parts that do not belong together.
        FileNotFoundError: files that are not there.
    """
    augmentation = LIGHT if checks.flag("augment", augment) else None
    checks.choice("cost", cost, get_args(Cost))
    schedule = BoundsSchedule() if bounds is None else BoundsSchedule.from_config(bounds)
    rules = Rules(schedule, correct_reward, wrong_reward, order, shard)
    place = parse_device(device)
    space = parse_search_space(search_space)
    image_set = load_images(dataset, split, data_dir, space.resolution)
    num_classes = len(image_set.classes)
    graph = _meta_graph(meta_graph, space, num_classes, place)
    table = LatencyTable.load(
        shipped_table(space) if latency_table is None else checks.file("latency_table", latency_table)
    )
    space.expect(meta_graph=graph.space, latency_table=table.space)
    if table.unit != "ms":
        raise checks.refuse("latency_table", checks.Shown(f"a table in {table.unit}"), "one in ms")
    counts = {"flops": count_macs, "params": count_parameters}
    return InstanceBandit(
        graph,
        image_set,
        table,
        counts[cost](space, num_classes) if cost in counts else None,
        augmentation,
        autocast,
        rules,
    )


def parse_device(name: str) -> torch.device:
    """A torch device that computes here; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ValueError: "meta", which does not compute, a name that is unknown, or CUDA where it is not there.
    """
    if isinstance(name, str) and name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(checks.text("device", name, "cuda:0"))
    except RuntimeError as error:
        raise ValueError(f"device: got {name!r:.80}; {', '.join(DEVICES)} will do") from error
    if device.type not in DEVICES:
        raise checks.refuse("device", name, ", ".join(DEVICES))
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(
            f"device: got {name!r}; PyTorch finds {count} CUDA devices here; auto or cpu will do"
        )
    return device


def parse_search_space(name: str) -> SearchSpace:
    """ "lite" or "cifar@0.5": a preset, and its width after an @, see :meth:`SearchSpace.preset`."""
    preset, at, width = checks.text("search_space", name, "lite").partition("@")
    with checks.explained(f"search_space: got {name!r}"):
        return SearchSpace.preset(preset, float(width) if at else 1.0)


def search_space_name(space: SearchSpace) -> str:
    """Inverse of :func:`parse_search_space`; ``ValueError`` for a space without some of the modules."""
    name = f"{space.name}@{space.width!r}"
    if space != parse_search_space(name):
        raise ValueError(f"search_space: only spaces with all modules have a name; got {space.config}")
    return name


def _meta_graph(source: str | None, space: SearchSpace, num_classes: int, device: torch.device) -> MetaGraph:
    """The meta-graph of a file, the shipped or an untrained one, on a device."""
    if isinstance(source, str) and source == "random":
        graph = MetaGraph(space, num_classes, torch.Generator().manual_seed(0)).eval()
    else:
        graph = MetaGraph.load(
            _shipped_weights(space) if source is None else checks.file("meta_graph", source)
        )
    if graph.num_classes != num_classes:
        raise ValueError(f"meta_graph: has {graph.num_classes} classes, the images have {num_classes}")
    with checks.explained(f"device: got {str(device)!r}", RuntimeError, AssertionError, ImportError):
        return graph.to(device)


def _shipped_weights(space: SearchSpace) -> Path:
    if space != parse_search_space(SHIPPED_SPACE):
        raise ValueError(
            f"meta_graph: the package has one for {SHIPPED_SPACE!r} only, not for {space.config};"
            " `instanas pretrain` makes one, whose path will do"
        )
    return shipped("meta_graph.safetensors")
