"""The paper's experiment, whole, in one directory: every stage from pre-training to the report.

    python -m scripts.experiment laptop-cifar10 --data-dir data/cifar10 --dry-run
    python -m scripts.experiment laptop-cifar10 --data-dir data/cifar10 --out runs/laptop

The preset comes first; its numbers can be changed one by one (``--pretrain.epochs 5``). Killed at any
moment and called again with the same options, it goes on where it was: finished stages are passed over,
and the one that was stopped resumes. ``--stages`` runs some of them, ``--workers 2`` two at a time where that
is possible. ``--dry-run`` prints what would run, and how long it might take on this machine. The stages that
train also run under torchrun (``--stages pretrain``), see instanas_env.distributed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import tyro

from agents.choices import picks
from instanas_env.distributed import ALONE, World, launch
from instanas_env.latency import LatencyTable
from scripts import (
    benchmark,
    choose,
    dry_run,
    evaluate,
    finetune,
    menu,
    pretrain,
    profile_latency,
    report,
    search,
)
from scripts.presets import HERE, PRESETS, Preset
from scripts.stage import Stage, run_together

StageName = Literal[
    "pretrain",
    "profile_latency",
    "search",
    "choose",
    "finetune",
    "menu",
    "benchmark",
    "evaluate",
    "report",
]
STAGES: tuple[StageName, ...] = get_args(StageName)
TRAINING: tuple[StageName, ...] = ("pretrain", "search", "finetune")
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """Which experiment, on what, and where to."""

    preset: Annotated[Preset, tyro.conf.arg(name="")]
    out: Path
    """Directory of the run; every stage writes into it."""
    data_dir: Path | None = None
    """Where the images are, see instanas_env.data.load_images."""
    stages: tuple[StageName, ...] = STAGES
    """Those to run, of pretrain, profile_latency, search, choose, finetune, menu, benchmark, evaluate,
    report."""
    dry_run: bool = False
    """Only print what would run."""
    seed: int = 0
    threads: int = 1
    """Of every stage but the report and the latency table, which is always measured with one."""
    workers: int = 1
    """Stages that run at a time, a process each, where they need nothing of each other: the two pre-training
    runs, the searches, the fine-tuning. What they print is then in the stages folder of the run."""


def wired(stage: str, options: T, **values: Any) -> T:
    """The options of a stage with what the experiment sets itself.

    Raises:
        ValueError: one of these was set by hand.
    """
    for entry in fields(options):  # type: ignore[arg-type]
        if entry.name in values and getattr(options, entry.name) != default(entry):
            raise ValueError(
                f"{stage}.{entry.name}: got {getattr(options, entry.name)!r}, but the experiment sets it;"
                " leave it out"
            )
    return replace(options, **values)  # type: ignore[type-var]


def default(entry: Field[Any]) -> Any:
    """Of a script's option; that of one without is :data:`HERE`."""
    return HERE if entry.default is MISSING else entry.default


class Plan:
    """The stages of an experiment, each with its options, in order.

    Those of later stages depend on the files of earlier ones (the table, the picks), so :meth:`stages`
    looks at these when it gets there; a dry run, which has none, gives the scripts' defaults instead.
    """

    def __init__(self, options: Options):
        self.preset = options.preset
        self.options = options
        self.out = options.out
        self.data = {"dataset": self.preset.dataset, "data_dir": options.data_dir}
        self.chance = {"seed": options.seed, "threads": options.threads}
        self.taught = {**self.data, **self.chance}
        self.table = self.out / "latency.json"
        self.meta_graph = self.out / "meta_graph" / "meta_graph.safetensors"
        mobilenet_v2 = self.out / "mobilenet_v2" / "meta_graph.safetensors"
        self.taught["teacher"] = mobilenet_v2 if self.preset.distilled else None

    def groups(self) -> Iterator[list[Stage]]:
        """Every stage, whether asked for or not, together with those that need nothing of each other."""
        yield list(self._pretrain())
        yield [self._profile_latency()]  # which nothing may disturb
        yield [self._search(agent) for agent in self.preset.agents]
        yield [self._choose(agent) for agent in self.preset.agents]
        yield [stage for target in self.preset.fine_tuned for stage in self._finetune(target)]
        if self.preset.variations is not None:
            yield from ([stage] for stage in self._variations(self.preset.variations))
        yield [self._evaluate()]
        yield [Stage("report", "report", report.main, report.Options(run=self.out))]

    def stages(self) -> Iterator[Stage]:
        """The same, one after the other."""
        return chain.from_iterable(self.groups())

    def _pretrain(self) -> Iterator[Stage]:
        space, _, width = self.preset.search_space.partition("@")
        both = {**self.data, **self.chance, "search_space": space, "width": float(width or 1)}
        for name, only in (("meta_graph", {}), ("mobilenet_v2", {"modules": (2,)})):
            given = self.preset.pretrain if name == "meta_graph" else self.preset.mobilenet_v2
            options = wired("pretrain", given, out=self.out / name, **both, **only)
            file = self.out / name / "meta_graph.safetensors"
            yield Stage("pretrain", f"pretrain {name}", pretrain.main, options, file)

    def _profile_latency(self) -> Stage:
        options = wired(
            "profile_latency",
            self.preset.profile_latency,
            out=self.table,
            search_space=self.preset.search_space,
            num_classes=self.preset.classes,
            seed=self.options.seed,
        )
        return Stage("profile_latency", "profile_latency", profile_latency.main, options, self.table)

    def _search(self, agent: str) -> Stage:
        given: search.Options = getattr(self.preset, agent.replace("-", "_"))
        options = wired(
            agent,
            given,
            out=self.out / agent,
            agent=agent,
            meta_graph=self.meta_graph,
            latency_table=self.table,
            search_space=self.preset.search_space,
            latencies=self._ms(*self.preset.explored) or given.latencies,
            dial=(self._ms(self.preset.dial) or (given.dial,))[0],
            **self.data,
            **self.chance,
        )
        return Stage(
            "search", f"search {agent}", search.main, options, options.out / "meta_graph.safetensors"
        )

    def _choose(self, agent: str) -> Stage:
        more = {"data_dir": self.options.data_dir, "threads": self.options.threads}
        options = wired("choose", self.preset.choose, run=self.out / agent, **more)
        return Stage("choose", f"choose {agent}", choose.main, options, options.run / "choices.json")

    def _finetune(self, target: str) -> Iterator[Stage]:
        agent, _, pick = target.partition("/")
        if agent not in self.preset.agents:
            raise ValueError(
                f"fine_tuned: got {target!r}, but the agents are {', '.join(self.preset.agents)}"
            )
        run, given = self.out / agent, self.preset.finetune
        if self._lacks(target):
            print(f"finetune {target}: left out, the search gave {', '.join(picks(run))} only")
            return
        options = wired(
            "finetune",
            given,
            run=run,
            out=self._fine_tuned(target),
            prefer=pick or None,
            latencies=self._ms(*self.preset.tuned) or given.latencies,
            **self.taught,
        )
        file = options.out / "controller.safetensors"
        yield Stage("finetune", f"finetune {target}", finetune.main, options, file)

    def _lacks(self, target: str) -> bool:
        """Whether a search is over and did not give this pick."""
        agent, _, pick = target.partition("/")
        run = self.out / agent
        return bool(pick) and (run / "choices.json").exists() and pick not in picks(run)

    def _fine_tuned(self, target: str) -> Path:
        agent, _, pick = target.partition("/")
        return self.out / f"{agent}_finetuned{'_' + pick if pick else ''}"

    def _variations(self, given: menu.Options) -> Iterator[Stage]:
        """Around the first network of REINFORCE that was fine-tuned."""
        targets = [each for each in self.preset.fine_tuned if each.startswith("reinforce")]
        targets = [each for each in targets if not self._lacks(each)]
        if not targets:
            raise ValueError(
                f"variations: of reinforce, but fine_tuned is {', '.join(self.preset.fine_tuned)}"
            )
        run, place = self._fine_tuned(targets[0]), self.out / "variations"
        known, graph = place / "menu.safetensors", place / "finetuned" / "meta_graph.safetensors"
        made = wired(
            "variations",
            given,
            run=run,
            out=known,
            latency_table=self.table,
            num_classes=self.preset.classes,
            **self.data,
            **self.chance,
        )
        yield Stage("menu", "menu", menu.main, made, known)
        for_all = wired(
            "variations_finetune",
            self.preset.variations_finetune,
            run=run,
            out=graph.parent,
            controller=known,
            masks="random",
            **self.taught,
        )
        # Written last is the copy of the controller.
        made_last = graph.parent / "controller.safetensors"
        yield Stage("finetune", "finetune variations", finetune.main, for_all, made_last)
        learning = wired(
            "benchmark",
            self.preset.benchmark,
            out=place / "benchmark",
            meta_graph=graph,
            latency_table=self.table,
            known=known,
            threads=self.options.threads,
            workers=self.options.workers,
            **self.data,
        )
        yield Stage("benchmark", "benchmark", benchmark.main, learning, learning.out / "benchmark.json")
        dial = learning.dial
        chosen = wired(
            "finetune",
            self.preset.finetune,
            run=graph.parent,
            out=self.out / "variations_finetuned",
            controller=learning.out / "controller_0.safetensors",
            latencies=self._ms(min(dial), max(dial)) or self.preset.finetune.latencies,
            **self.taught,
        )
        last = chosen.out / "controller.safetensors"
        yield Stage("finetune", "finetune variations/policy", finetune.main, chosen, last)

    def _evaluate(self) -> Stage:
        finished = (path.parent for path in self.out.glob("*/controller.safetensors"))
        runs = tuple(sorted(path for path in finished if (path / "meta_graph.safetensors").exists()))
        options = wired(
            "evaluate",
            replace(self.preset.evaluate, alone=()),
            out=self.out,
            runs=runs,
            meta_graph=self.meta_graph,
            latency_table=self.table,
            alone=(self.out / "mobilenet_v2", *self.preset.evaluate.alone),
            **self.data,
            **self.chance,
        )
        return Stage("evaluate", "evaluate", evaluate.main, options, self.out / "results.json")

    def _ms(self, *multiples: float) -> tuple[float, ...]:
        """Multiples of MobileNetV2's latency in ms; empty while there is no table."""
        if not self.table.exists():
            return ()
        reference = LatencyTable.load(self.table).reference("mobilenet_v2")
        return tuple(multiple * reference for multiple in multiples)


def main(options: Options, world: World = ALONE) -> None:
    """Run the stages that are asked for, or print them."""
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
        dry_run.show(options.preset, list(groups), options.threads, options.workers)
        return
    for group in groups:
        run_together(group, options.out / "stages", options.workers, world)


def parse(arguments: list[str] | None = None) -> Options:
    """Options from the command line: a preset's name, then what is to differ from it."""
    choices = {
        name: (preset_line(preset), Options(preset, Path("runs") / name)) for name, preset in PRESETS.items()
    }
    return tyro.extras.overridable_config_cli(choices, description=__doc__, args=arguments)


def preset_line(preset: Preset) -> str:
    """What a preset is, for the list of them."""
    return f"{preset.dataset}, search space {preset.search_space}: {', '.join(preset.agents)}"


if __name__ == "__main__":
    chosen = parse()
    with launch() as world:
        main(chosen, world)
