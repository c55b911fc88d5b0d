"""The paper's experiment, whole, in one directory: every stage from pre-training to the report.

    instanas experiment laptop-cifar10 --data-dir data/cifar10 --dry-run
    instanas experiment laptop-cifar10 --data-dir data/cifar10 --out runs/laptop

The preset comes first; its numbers can be changed one by one (``--pretrain.epochs 5``). Killed at any
moment and called again with the same options, it goes on where it was: finished stages are passed over,
and the one that was stopped resumes. ``--stages`` runs some of them, ``--workers 2`` two at a time where that
is possible. ``--dry-run`` prints what would run. The stages that train
also run under torchrun (``--stages pretrain``), see instanas_env.training.distributed.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import tyro

from instanas_env.build import parse_search_space
from instanas_env.data import SPLITS, load_images
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.hold import hold
from scripts.experiment import dry_run
from scripts.experiment.plan import TRAINING, Options, Plan
from scripts.experiment.presets import PRESETS, Preset, SearchName
from scripts.experiment.stage import run_together

SEARCHES = tuple(agent.replace("-", "_") for agent in get_args(SearchName))
"""The parts of a preset that are of a search."""
STEPS = 2_000
"""Steps of training from new weights in the preset "folder"; a search and fine-tuning take fewer."""


def main(options: Options, world: World = ALONE) -> None:
    """Run the stages that are asked for, or print them."""
    options = replace(options, preset=as_found(options.preset, options.data_dir))
    if options.workers < 1 or (options.workers > 1 and world.size > 1):
        will_do = "at least 1" if world.size == 1 else "under torchrun 1"
        raise ValueError(f"workers: got {options.workers}; {will_do} will do")
    if world.size > 1 and not set(options.stages) <= set(TRAINING):
        raise ValueError(
            f"stages: got {', '.join(options.stages)}; under torchrun {', '.join(TRAINING)} will do, and the"
            " others without it"
        )
    groups = ([stage for stage in group if stage.name in options.stages] for group in Plan(options).groups())
    if options.dry_run:
        dry_run.show(options.preset, chain.from_iterable(groups))
        return
    if world.is_main:
        options.out.mkdir(parents=True, exist_ok=True)
        hold(options.out)
    for group in groups:
        run_together(group, options.out / "stages", options.workers, world)


def parse(arguments: list[str] | None = None) -> Options:
    """Options from the command line: a preset's name, then what is to differ from it."""
    choices = {
        name: (
            f"{p.dataset}, search space {p.search_space}: {', '.join(p.agents)}",
            Options(p, Path("runs") / name),
        )
        for name, p in PRESETS.items()
    }
    options = tyro.extras.overridable_config_cli(
        choices,
        prog="instanas experiment",
        description=__doc__,
        args=arguments,
        config=(tyro.conf.AvoidSubcommands,),
    )
    refuse_unread(options.preset)
    return options


def refuse_unread(preset: Preset) -> None:
    """``ValueError`` for options, set by hand, of an agent that does not search, and for early exits of one
    that learns no names.
    """
    for agent in set(get_args(SearchName)) - set(preset.agents):
        part = agent.replace("-", "_")
        if all(getattr(preset, part) != getattr(known, part) for known in PRESETS.values()):
            agents = " ".join(preset.agents)
            raise ValueError(
                f"{part}: options are given, but the agents are {agents}; --agents {agents} {agent} will do"
            )
    for target in preset.early_exits:
        search: Any = getattr(preset, target.partition("/")[0].replace("-", "_"), None)
        options = getattr(search, "agent", None)
        if not (getattr(options, "naming_coefficient", 0) or getattr(options, "names", False)):
            raise ValueError(f"early_exits: got {target!r}, whose controller learns no names")


def as_found(preset: Preset, data_dir: Path | None) -> Preset:
    """A preset that knows neither images nor classes, with those of its folder.

    Epochs and batches that were not set follow the number of images: about :data:`STEPS` steps, 4 to 60
    epochs, batches of a twentieth of the images, 16 to 128.
    """
    if preset.classes:
        return preset
    space = parse_search_space(preset.search_space)
    sets = [load_images(preset.dataset, split, data_dir, space.resolution) for split in SPLITS]
    train = len(sets[0])
    batch = min(128, max(16, train // 20))
    epochs = min(60, max(4, STEPS * batch // train))
    shorter, envs = max(3, epochs // 4), min(256, batch, train)
    computed = dict.fromkeys(("pretrain", "mobilenet_v2"), {"epochs": epochs, "batch_size": batch})
    computed |= {"finetune": {"epochs": shorter, "batch_size": batch}}
    computed |= dict.fromkeys(SEARCHES, {"epochs": shorter, "num_envs": envs})
    parts = {name: unless_set(name, getattr(preset, name), found) for name, found in computed.items()}
    sizes = (train, len(sets[1]), len(sets[2]))
    return replace(preset, classes=len(sets[0].classes), images=sizes, **parts)


def unless_set(name: str, numbers: Any, found: dict[str, int]) -> Any:
    """The numbers of a part of the preset "folder" with what was found, but for what was set by hand."""
    known = getattr(PRESETS["folder"], name)
    return replace(
        numbers,
        **{key: value for key, value in found.items() if getattr(numbers, key) == getattr(known, key)},
    )
