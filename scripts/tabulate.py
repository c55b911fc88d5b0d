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

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from agents.one_shot import OneShotSearch
from instanas_env import checks
from instanas_env.bandit import InstanceBandit
from instanas_env.tabulated import (
    MOST,
    REFERENCES,
    Tabulated,
    file_fingerprint,
    reference_latencies,
)
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.run_directory import machine
from instanas_env.wrappers.menu import load_menu
from scripts.begin import begin, frozen_bandits
from scripts.comparison.fixed import ranked
from scripts.options import Compute, Data, Weights
from scripts.tabulate_parts import Parts


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


def choose_masks(bandit: InstanceBandit, options: Options) -> Tensor:
    """The masks ``(K, num_cells, num_modules)``, cheap to slow, each once; ``bandit`` is of validation."""
    space, table = bandit.space, bandit.latency_table
    if options.menu is not None:
        masks = load_menu(options.menu, space)
    else:
        count = checks.whole("masks", options.masks, len(REFERENCES), MOST)
        checks.whole("candidates", options.candidates, count)
        masks = torch.stack([table.cheapest_mask(), space.mobilenet_v2_mask(), space.full_mask()])
        search = ranked(OneShotSearch(bandit, options.seed, options.images), options.candidates)
        # As many as are wanted besides the references, which may be among them.
        masks = distinct(torch.cat([masks, search.menu(count)]))[:count]
    masks = distinct(masks)
    return masks[table.lookup(masks).argsort(stable=True)]


def distinct(masks: Tensor) -> Tensor:
    """Each mask once, in the order in which they first come."""
    first = {tuple(mask.flatten().tolist()): mask for mask in reversed(masks)}
    return torch.stack(list(first.values())[::-1])


def tabulate(options: Options, world: World = ALONE) -> Tabulated:
    """Choose the masks and run all images through each; what is done is kept in parts."""
    parts = Parts(options.out, options)
    splits = list(dict.fromkeys((*options.split, "val")))  # masks are chosen on validation images
    bandits = dict(zip(splits, frozen_bandits(options, splits, world.device), strict=True))
    image_sets = {split: bandits[split].image_set for split in options.split}
    bandit, table = bandits["val"], bandits["val"].latency_table
    files = {"meta_graph": options.weights_file, "latency_table": options.table_file, "menu": options.menu}
    made_of = {name: file_fingerprint(path) for name, path in files.items() if path is not None}
    parts.bind(made_of, {split: bandits[split].image_set for split in splits})
    masks = parts.masks(lambda: choose_masks(bandit, options))
    packed = {
        split: parts.answers(bandit.folded, images, masks, split) for split, images in image_sets.items()
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
    Parts(options.out, options).remove()
    for split in table.packed:
        accuracy = table.correct(split).mean(0)
        span = f"{100 * accuracy.min():.1f} to {100 * accuracy.max():.1f} %"
        print(f"{split}: {len(table.packed[split])} images, masks that are {span} accurate", file=sys.stderr)
    size = options.out.stat().st_size
    print(f"wrote {options.out}: {len(table)} masks, {size / 1e3:.0f} kB")
