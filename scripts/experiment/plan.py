"""The stages of an experiment: which script runs with which options, on what an earlier one made.

    pretrain -> profile -> search -> choose -> finetune -> evaluate -> report

A search is named after its agent. With several seeds each search is made once for each; a directory's ending
tells the further ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from agents.evaluation.picks import picks
from instanas_env.networks.torchvision_networks import NETWORK
from instanas_env.storage import load_json
from instanas_env.training.matching import CONTROLLER, META_GRAPH
from scripts import baseline, choose, evaluate, finetune, pretrain, profile, search
from scripts.experiment.presets import HERE, Preset
from scripts.experiment.stage import Stage
from scripts.options import TABLE, Compute
from scripts.report import run_report as report

StageName = Literal["pretrain", "baseline", "profile", "search", "choose", "finetune", "evaluate", "report"]
STAGES: tuple[StageName, ...] = get_args(StageName)
TRAINING: tuple[StageName, ...] = ("pretrain", "baseline", "search", "finetune")


@dataclass(frozen=True, kw_only=True)
class Options(Compute):
    """Which experiment, on what, and where to."""

    preset: Annotated[Preset, tyro.conf.arg(name="")] = field(kw_only=False)
    out: Path = field(kw_only=False)
    """Directory of the run; every stage writes into it."""
    data_dir: Path | None = field(default=None, kw_only=False)
    """Where the images are, see instanas_env.data.load_images."""
    stages: tuple[StageName, ...] = STAGES
    """Those to run, in this order."""
    dry_run: bool = False
    """Only print what would run."""
    seed: int = 0
    """The first, where a preset has several."""
    threads: int = 1
    """Threads of every stage but the report and the latency table, which is always measured with one."""
    workers: int = 1
    """Stages that run at a time, a process each, where they need nothing of each other: the networks trained
    alone, the searches, the fine-tuning. What they print is then in the stages folder of the run."""


class Plan:
    """The stages of an experiment, each with its options, in order.

    Those of later stages depend on the files of earlier ones (the table, the picks), so :meth:`stages`
    looks at these when it gets there; a dry run, which has none, gives the scripts' defaults instead.
    """

    def __init__(self, options: Options):
        self.preset = options.preset
        self.options = options
        self.out = options.out
        self.made = {"meta_graph": self.out / "meta_graph" / META_GRAPH, "latency_table": self.out / TABLE}

    def groups(self) -> Iterator[list[Stage]]:
        """Every stage, whether asked for or not, together with those that need nothing of each other."""
        seeds = range(self.preset.seeds)
        made = [(agent, seed) for agent in self.preset.agents for seed in seeds]
        first, *others = self._from_nothing()
        yield from [[first], others] if self.preset.taught else [[first, *others]]
        yield [self._profile()]  # which nothing may disturb
        yield [self._search(agent, seed) for agent, seed in made]
        yield [self._choose(agent, seed) for agent, seed in made]
        tuned = [(target, seed) for target in self.preset.fine_tuned for seed in seeds]
        yield list(chain.from_iterable(self._finetune(target, seed) for target, seed in tuned))
        yield [self._evaluate()]
        yield [Stage("report", "report", report.main, report.Options(run=self.out))]

    def stages(self) -> Iterator[Stage]:
        """The same, one after the other."""
        return chain.from_iterable(self.groups())

    def _common(self, seed: int = 0) -> dict[str, Any]:
        """What most stages are told: images, machine, and the seed, for the further ``seed`` of several."""
        own = {name: getattr(self.options, name) for name in ("data_dir", "device", "threads")}
        return {"dataset": self.preset.dataset, "seed": self.options.seed + seed, **own}

    def _wired(self, part: str, **values: Any) -> Any:
        """The options of a part of the preset with ``values``, which the experiment sets itself.

        Raises:
            ValueError: one of these was set by hand.
        """
        options = getattr(self.preset, part.replace("-", "_"))
        for entry in fields(options):
            given, default = getattr(options, entry.name), HERE if entry.default is MISSING else entry.default
            if entry.name in values and given != default:
                raise ValueError(
                    f"{part}.{entry.name}: got {given!r}, but the experiment sets it; leave it out"
                )
        return replace(options, **values)

    def _place(self, name: str, seed: int) -> Path:
        return self.out / f"{name}{_told(seed)}"

    # --- what trains from new weights and needs nothing of each other --------------------------------

    def _from_nothing(self) -> Iterator[Stage]:
        """MobileNetV2 of the space's own width, the meta-graph, which it may teach, and what is compared."""
        mobilenet_v2 = self._pretrain("mobilenet_v2", "mobilenet_v2", modules=(2,))
        yield mobilenet_v2
        yield self._pretrain("meta_graph", teacher=mobilenet_v2.makes if self.preset.taught else None)
        for factor in self.preset.widths:
            yield self._pretrain(f"mobilenet_v2_x{factor:g}", "mobilenet_v2", factor, modules=(2,))
        for name in ("resnet18", "shufflenet_v2"):
            if getattr(self.preset, name) is not None:
                options = self._wired(name, out=self.out / name, **self._common())
                yield Stage("baseline", f"baseline {name}", baseline.main, options, options.out / NETWORK)

    def _pretrain(self, name: str, part: str = "pretrain", factor: float = 1.0, **more: Any) -> Stage:
        """MobileNetV2 or the meta-graph, as a part of the preset has it, at ``factor`` times the width."""
        space = self.preset.search_space
        if factor != 1:
            preset, _, width = space.partition("@")
            space = f"{preset}@{factor * float(width or 1):g}"
        options = self._wired(part, out=self.out / name, search_space=space, **self._common(), **more)
        return Stage("pretrain", f"pretrain {name}", pretrain.main, options, options.out / META_GRAPH)

    def _profile(self) -> Stage:
        space = {"search_space": self.preset.search_space, "num_classes": self.preset.classes}
        out = self.made["latency_table"]
        options = self._wired("profile", out=out, seed=self.options.seed, **space)
        return Stage("profile", "profile", profile.main, options, out)

    # --- searches ------------------------------------------------------------------------------------

    def _search(self, agent: str, seed: int) -> Stage:
        options = self._wired(agent, out=self._place(agent, seed), **self.made, **self._common(seed))
        return Stage("search", f"search {options.out.name}", search.main, options, options.out / META_GRAPH)

    def _choose(self, agent: str, seed: int) -> Stage:
        common = {name: value for name, value in self._common().items() if name not in ("dataset", "seed")}
        options = self._wired("choose", run=self._place(agent, seed), **common)
        label = f"choose {options.run.name}"
        return Stage("choose", label, choose.main, options, options.run / "choices.json")

    # --- afterwards ----------------------------------------------------------------------------------

    def _finetune(self, target: str, seed: int) -> Iterator[Stage]:
        agent, _, pick = target.partition("/")
        if agent not in self.preset.agents:
            raise ValueError(
                f"fine_tuned: got {target!r}, but the agents are {', '.join(self.preset.agents)}"
            )
        run, label = self._place(agent, seed), f"finetune {target}{_told(seed)}"
        if pick and (run / "choices.json").exists() and pick not in picks(run):
            print(f"{label}: left out, the search gave {', '.join(picks(run))} only")
            return
        out = self._place(f"{agent}_finetuned{'_' + pick if pick else ''}", seed)
        options = self._wired("finetune", run=run, out=out, prefer=pick or None, **self._common(seed))
        yield Stage("finetune", label, finetune.main, options, out / CONTROLLER)

    def _evaluate(self) -> Stage:
        finished = (path.parent for path in self.out.glob(f"*/{CONTROLLER}"))
        runs = sorted(path for path in finished if (path / META_GRAPH).exists())
        sources = {Path(load_json(path / "config.json").get("run", "")) for path in runs}
        last = tuple(path for path in runs if path not in sources)  # a search, unless it was fine-tuned
        options = self._wired("evaluate", out=self.out, runs=last, **self.made, **self._common())
        alone = [
            stage.options.out for stage in self._from_nothing() if stage.options.out.name != "meta_graph"
        ]
        options = replace(options, alone=(*alone, *self.preset.evaluate.alone))
        return Stage("evaluate", "evaluate", evaluate.main, options, self.out / "results.json")


def _told(seed: int) -> str:
    """Ending of a name; the first seed's has none."""
    return f"_seed{seed}" if seed else ""
