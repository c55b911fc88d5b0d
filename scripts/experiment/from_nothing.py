"""The first stages of an experiment: what trains from new weights and needs nothing of each other.

The meta-graph, MobileNetV2 alone at several widths, and networks of torchvision.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts import baseline, pretrain
from scripts.experiment.presets import Preset
from scripts.experiment.stage import Stage
from scripts.experiment.wiring import wired


def from_nothing(preset: Preset, out: Path, common: dict[str, Any]) -> Iterator[Stage]:
    """Those stages, MobileNetV2 of the space's own width first, then the meta-graph, which it may teach.

    Args:
        preset: the experiment's.
        out: directory of the experiment; each stage has one of its own in it.
        common: options of them all: data set, its place, seed and threads.
    """
    name_of_space, _, width = preset.search_space.partition("@")

    def pretrained(name: str, part: str, factor: float = 1.0, **more: Any) -> Stage:
        """MobileNetV2 or the meta-graph, as a part of the preset has it, at ``factor`` times the width."""
        space = preset.search_space if factor == 1 else f"{name_of_space}@{factor * float(width or 1):g}"
        both = {**common, "search_space": space, **more}
        options = wired(part, getattr(preset, part), out=out / name, **both)
        file = options.out / "meta_graph.safetensors"
        return Stage("pretrain", f"pretrain {name}", pretrain.main, options, file)

    mobilenet_v2 = pretrained("mobilenet_v2", "mobilenet_v2", modules=(2,))
    yield mobilenet_v2
    yield pretrained("meta_graph", "pretrain", teacher=mobilenet_v2.makes if preset.taught else None)
    for factor in preset.widths:
        yield pretrained(f"mobilenet_v2_x{factor:g}", "mobilenet_v2", factor, modules=(2,))
    for name, given in (("resnet18", preset.resnet18), ("shufflenet_v2", preset.shufflenet_v2)):
        if given is not None:
            options = wired(name, given, out=out / name, **common)
            file = options.out / "network.safetensors"
            yield Stage("baseline", f"baseline {name}", baseline.main, options, file)
