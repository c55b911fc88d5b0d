"""Make the page that anyone can play with: one file, ``docs/_build/try/index.html``, which needs no network.

    python docs/try/build.py                       # the shipped controller and the embedded images
    python docs/try/build.py --run runs/search     # yours

The networks run in onnxruntime-web, which is fetched from npm once and checked. Everything is inside of the
page, packed, so that it opens from a disk as well as from a server; its policy forbids it to fetch anything.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
import urllib.request
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from agents.agent import NETWORK
from agents.early_exit import EarlyExit
from agents.evaluation.picks import Pick
from agents.reward_regression import RewardRegression
from agents.saved import SavedRun, check_same_classes, load_run
from instanas_env.build import shipped
from instanas_env.data import ImageSet, load_images
from instanas_env.deploy.dynamic import static_model
from instanas_env.deploy.export import export
from instanas_env.search_space import MOBILENET_V2_BLOCK, ModuleSpec
from instanas_env.storage import write_atomic
from scripts.options import filled
from scripts.report.pictures import data_uri, png_of

HERE = Path(__file__).parent
VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
ARCHIVE = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
RUNTIME, WASM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"


@dataclass(frozen=True)
class Options:
    """What the page shows."""

    run: Path = shipped("reference/controller.safetensors").parent
    """Directory of a search, of fine-tuning or of early exits."""
    prefer: Pick | None = None
    """Which of the trade-offs that `instanas choose` picked; by default the run's own controller."""
    dataset: str | None = None
    """Whose test images are shown; by default the run's."""
    data_dir: Path | None = None
    """Where its files are."""
    out: Path = HERE.parent / "_build/try/index.html"
    """The page."""
    cache: Path = Path("~/.cache/instanas_env")
    """Where the archive of onnxruntime-web is kept."""


def fetched(cache: Path) -> tarfile.TarFile:
    """The archive of onnxruntime-web, 25 MB, from ``cache`` or else from npm.

    Raises:
        OSError: npm cannot be reached.
        ValueError: the archive is another than the one that was pinned.
    """
    path = cache.expanduser() / Path(ARCHIVE).name
    is_new = not path.is_file()
    with urllib.request.urlopen(ARCHIVE, timeout=60) if is_new else path.open("rb") as file:
        content = file.read()
    if (got := digest("sha512", content)) != SHA512:
        raise ValueError(
            f"{ARCHIVE if is_new else path}: SHA-512 is {got}; the pinned one, {SHA512}, will do"
        )
    if is_new:
        write_atomic(path, content)
    return tarfile.open(fileobj=io.BytesIO(content))


def digest(kind: str, content: bytes) -> str:
    """A hash as npm and browsers write it."""
    return base64.b64encode(hashlib.new(kind, content).digest()).decode()


def packed(content: bytes) -> str:
    """Compressed, as text."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def row_label(module: ModuleSpec) -> str:
    """A module's name for somebody who never saw the paper."""
    size = f"{module.kernel}×{module.kernel}"
    return f"plain {size}" if module.kind == "basic" else f"bottleneck {size}, ×{module.expansion}"


def networks(run: SavedRun) -> list[dict[str, Any]]:
    """The file of `instanas export`, and what its time is compared with: all modules, and MobileNetV2."""
    space, data = run.meta_graph.space, run.data
    statistics = (data.mean, data.std)
    folded = run.meta_graph.cpu().folded()
    dynamic = export(run.agent, folded, run.table, data, run.agent.has_dial)
    found = [("dynamic", "this picture's network", dynamic)]
    if MOBILENET_V2_BLOCK in space.modules:
        mask = space.mobilenet_v2_mask()
        found.append(("mobilenet_v2", "MobileNetV2's path", static_model(folded, mask, *statistics)))
    found.append(("all", "all modules", static_model(folded, space.full_mask(), *statistics)))
    return [{"name": name, "label": label, "model": model} for name, label, model in found]


def examples(run: SavedRun, images: ImageSet, limit: int = 1000) -> list[dict[str, str]]:
    """A dozen images from little to much time: three of each of the two easiest and hardest classes.

    Of a class, those a sixth, a half and five sixths of the way from the quickest to the slowest, so that
    nobody picks them by hand.
    """
    latency_ms = times(run, images.images[:limit])
    labels = images.labels[:limit]
    by_class = [(labels == label).nonzero().flatten() for label in labels.unique()]
    ranked = sorted(by_class, key=lambda index: latency_ms[index].mean().item())
    ends = ranked if len(ranked) <= 4 else [*ranked[:2], *ranked[-2:]]
    chosen = set()
    for index in ends:
        ordered = index[latency_ms[index].argsort(stable=True)].tolist()
        chosen |= {ordered[len(ordered) * sixths // 6] for sixths in (1, 3, 5)}
    rising = sorted(chosen, key=lambda i: latency_ms[i].item())
    pictures = (png_of(images.images[i].permute(1, 2, 0).numpy()) for i in rising)
    names = (images.classes[int(images.labels[i])] for i in rising)
    return [{"source": data_uri(png), "name": name} for png, name in zip(pictures, names, strict=True)]


def times(run: SavedRun, images: torch.Tensor) -> torch.Tensor:
    """What the networks of images uint8 ``(B, 3, H, W)`` take, ms by the table; none runs for some."""
    latency_ms = run.table.lookup(run.meta_graph.space.repair(run.agent.masks(images)))
    return torch.where(run.agent.own_answers(images) == NETWORK, latency_ms, 0.0)


def dial(run: SavedRun, images: torch.Tensor, count: int = 9) -> dict[str, Any]:
    """Where the slider may stand, if the agent has a trade-off: from little to much time.

    Args:
        run: its own trade-off is one of the places, the one where the slider begins.
        images: uint8 ``(B, 3, H, W)``, by which the mean time of each place is told.
        count: places beside that one.
    """
    agent = run.agent
    chooser = agent.chooser if isinstance(agent, EarlyExit) else agent
    if not isinstance(chooser, RewardRegression):
        return {}
    own = chooser.trade_off
    least, most = chooser.latencies or (run.table.reference("cheapest"), run.table.reference("full") / 3)
    places = {}
    for trade_off in [*(agent.dial(images, ms) for ms in np.linspace(least, most, count)), own]:
        chooser.trade_off = trade_off
        places[times(run, images).mean().item()] = trade_off
    assert chooser.trade_off == own, "the last"
    rising = [{"ms": ms, "value": places[ms]} for ms in sorted(places)]
    return {"dial": rising, "dial_now": [place["value"] for place in rising].index(own)}


def light_on_black(images: torch.Tensor) -> bool:
    """Whether images, uint8 ``(B, 3, H, W)``, are grey with a black edge, as Fashion-MNIST's are."""
    edges = (images[..., [0, -1]], images[..., [0, -1], :])
    is_dark = all(edge.float().mean() < 64 for edge in edges)
    return is_dark and bool((images == images[:, :1]).all())


def page(run: SavedRun, images: ImageSet, archive: tarfile.TarFile) -> str:
    """The page, from a run, test images and the archive of onnxruntime-web."""
    space = run.meta_graph.space
    runtime, wasm = (archive.extractfile(name) for name in (RUNTIME, WASM))
    assert runtime is not None and wasm is not None, "both are files"
    data = {
        "side": space.resolution,
        "cells": space.num_cells,
        "rows": [row_label(module) for module in space.modules],
        "classes": list(run.data.classes),
        "light_on_black": light_on_black(images.images[:200]),
        "table_ms": run.table.reference("full"),
        "images": examples(run, images),
        "networks": [{**each, "model": packed(each["model"])} for each in networks(run)],
        **dial(run, images.images[:500]),
        "runtime": packed(runtime.read()),
        "wasm": packed(wasm.read()),
    }
    style, script = ((HERE / name).read_text() for name in ("try.css", "try.js"))
    classes = f"{len(run.data.classes)} things: {', '.join(run.data.classes[:20])}"
    filled_in = {
        "policy": (
            f"default-src 'none'; img-src data:; style-src 'sha256-{digest('sha256', style.encode())}';"
            f" script-src 'sha256-{digest('sha256', script.encode())}' blob: 'wasm-unsafe-eval'"
        ),
        "style": style,
        "script": script,
        "data": json.dumps(data).replace("<", "\\u003c"),
        "modules": str(space.num_cells * space.num_modules),
        "cells": str(space.num_cells),
        "rows": str(space.num_modules),
        "known": escape(classes + (", ..." if len(run.data.classes) > 20 else "")),
        "version": VERSION,
    }
    # In one pass: names of classes are a stranger's, and may look like something to fill in.
    text = (HERE / "index.html").read_text()
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: filled_in[found[1]], text)


def main(options: Options) -> None:
    """Write the page."""
    torch.set_num_threads(1)
    options = filled(options, [options.run])
    run = load_run(options.run, options.prefer)
    assert options.dataset is not None, "filled"
    images = load_images(options.dataset, "test", options.data_dir, run.meta_graph.space.resolution)
    check_same_classes(run.data.classes, images.classes)
    text = page(run, images, fetched(options.cache))
    write_atomic(options.out, text.encode())
    print(
        f"wrote {options.out}, {len(text) / 1e6:.1f} MB: open it in a browser, from there or from any server"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
