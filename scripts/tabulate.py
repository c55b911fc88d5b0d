"""The tabular twin: which of K masks classify which images correctly, as a small file.

    instanas tabulate --out runs/tabular.safetensors
    instanas tabulate --out instanas_env/assets/tabular.safetensors     # the table that is shipped

``gym.make("InstaNASTabular-v1", table="runs/tabular.safetensors")`` plays it. The masks: the three reference
networks; of --candidates masks sampled at every density (the second half mutated from the best) those on the
frontier of accuracy and latency on validation images, and those good at a class; the rest spread over the
densities as sampled. Sorted by latency: mask 0 is the cheapest, the last one is the full meta-graph. With the
defaults this takes some seven minutes of one core. A call that is killed resumes: until the file is whole,
what is known lies in parts beside it, in OUT.parts.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from instanas_env.tabulated import Tabulated, reference_latencies
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.run_directory import FREE, RunDirectory, machine
from scripts.begin import begin, frozen_bandits
from scripts.comparison.tabulated import answered, table_masks
from scripts.options import Compute, Data, Weights


@dataclass(frozen=True, kw_only=True)
class Options(Compute, Weights, Data):
    """What to tabulate."""

    out: Path = field(kw_only=False)
    """The file to write, such as tabular.safetensors."""
    split: tuple[str, ...] = ("train", "val", "test")
    """Those that the table is to have."""
    masks: int = 256
    """How many, the three reference networks among them."""
    menu: Path | None = None
    """A menu file (JSON or safetensors) whose masks to tabulate instead."""
    candidates: int = 512
    """Masks to choose from."""
    images: int = 100
    """Validation images that the candidates are ranked on."""
    seed: int = 0


def parts_of(out: Path) -> Path:
    """The folder of a table that is not whole yet."""
    return out.with_name(out.name + ".parts")


def tabulate(options: Options, world: World = ALONE) -> Tabulated:
    """Choose the masks and run all images through each; what is done is kept in the folder of parts.

    Raises:
        ValueError: what lies there belongs to a table of other options, files or images.
    """
    run = RunDirectory(parts_of(options.out), options, free=FREE)
    splits = list(dict.fromkeys((*options.split, "val")))  # masks are chosen on validation images
    bandits = dict(zip(splits, frozen_bandits(options, splits, world.device), strict=True))
    bandit, table = bandits["val"], bandits["val"].latency_table
    made_of = run.read(meta_graph=options.weights_file, latency_table=options.table_file, menu=options.menu)
    run.bind(**{split: bandits[split].image_set for split in splits})
    state = run.restore()
    if state is None:
        state = {"masks": table_masks(bandit, options)}
        run.checkpoint({"masks": len(state["masks"])}, state)
    masks = state["masks"]
    image_sets = {split: bandits[split].image_set for split in options.split}
    packed = {
        split: answered(bandit.folded, images, split, state, run) for split, images in image_sets.items()
    }
    return Tabulated(
        space=bandit.space,
        masks=masks,
        latency_ms=table.lookup(masks),
        packed=packed,
        images={split: images.fingerprint for split, images in image_sets.items()},
        dataset=options.dataset,
        references=reference_latencies(table),
        meta_graph=made_of["meta_graph"],
        latency_table=made_of["latency_table"],
        record={
            "masks": len(masks) if options.menu is None else str(options.menu),
            "candidates": options.candidates,
            "images": options.images,
            "seed": options.seed,
            "machine": machine(world),
        },
    )


def main(options: Options) -> None:
    """Tabulate, write the file, and say what is in it."""
    if not options.split:
        raise ValueError("split: got none; train, val or test will do")
    world = begin(options)
    table = tabulate(options, world)
    table.save(options.out)
    (parts_of(options.out) / "checkpoint.pt").unlink()  # a kill from here on leaves a folder of this table
    shutil.rmtree(parts_of(options.out))
    for split in table.packed:
        accuracy = table.correct(split).mean(0)
        span = f"{100 * accuracy.min():.1f} to {100 * accuracy.max():.1f} %"
        print(f"{split}: {len(table.packed[split])} images, masks that are {span} accurate", file=sys.stderr)
    size = options.out.stat().st_size
    print(f"wrote {options.out}: {len(table)} masks, {size / 1e3:.0f} kB")
