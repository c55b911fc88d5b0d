"""The stages of an experiment: which script runs with which options, on what an earlier one made.

    pretrain -> profile -> oneshot -> search -> choose -> finetune -> early-exit -> evaluate -> report

A search is named after its agent. With several seeds each search is made once for each; a directory's ending
tells the further ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from agents.evaluation.picks import CHOICES, Pick, picks
from agents.saved import TABLE
from instanas_env.networks.torchvision_networks import NETWORK
from instanas_env.storage import load_json
from instanas_env.training.matching import CONTROLLER, META_GRAPH
from scripts import baseline, choose, early_exit, evaluate, finetune, oneshot, pretrain, profile, search
from scripts.comparison.fixed import FRONTIER
from scripts.comparison.tables import EXIT, RIVAL, TUNED
from scripts.experiment.presets import ONE_SHOT, Preset
from scripts.experiment.stage import Stage
from scripts.options import Compute
from scripts.report import run_report as report
from scripts.search_options import Regression

StageName = Literal[
    "pretrain",
    "baseline",
    "profile",
    "oneshot",
    "search",
    "choose",
    "finetune",
    "early-exit",
    "evaluate",
    "report",
]
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
        check_targets(self.preset)
        self.out = options.out
        self.seed = options.seed
        self.machine = {name: getattr(options, name) for name in ("data_dir", "device", "threads")}
        table, weights = self.out / TABLE, self.out / "meta_graph" / META_GRAPH
        self.made: dict[str, Any] = {"meta_graph": weights, "latency_table": table}

    def groups(self) -> Iterator[list[Stage]]:
        """Every stage, whether asked for or not, together with those that need nothing of each other."""
        preset, seeds = self.preset, range(self.preset.seeds)
        mobilenet_v2, *others = self._alone()
        if preset.taught:
            yield [mobilenet_v2]
            yield [self._meta_graph(mobilenet_v2.makes), *others]
        else:
            yield [mobilenet_v2, self._meta_graph(None), *others]
        yield [self._profile()]  # which nothing may disturb
        yield [self._one_shot()]
        yield [self._search(agent, seed) for agent in preset.agents for seed in seeds]
        yield [self._choose(agent, seed) for agent in preset.agents for seed in seeds]
        tuned = [(target, seed) for target in preset.fine_tuned for seed in seeds]
        yield [stage for target, seed in tuned for stage in self._finetune(target, seed)]
        leaving = [(target, seed) for target in preset.early_exits for seed in seeds]
        yield [stage for target, seed in leaving for stage in self._early_exit(target, seed)]
        yield [self._evaluate()]
        yield [Stage("report", "report", report.main, report.Options(run=self.out))]

    def stages(self) -> Iterator[Stage]:
        """The same, one after the other."""
        return chain.from_iterable(self.groups())

    def _common(self, seed: int = 0) -> dict[str, Any]:
        """What most stages are told: images, machine, and the seed, for the further ``seed`` of several."""
        return {"dataset": self.preset.dataset, "seed": self.seed + seed, **self.machine}

    def _place(self, name: str, seed: int) -> Path:
        return self.out / f"{name}{_told(seed)}"

    # --- what trains from new weights and needs nothing of each other --------------------------------

    def _alone(self) -> Iterator[Stage]:
        """Networks for all images alike: MobileNetV2, of the space's own width first, and torchvision's."""
        preset = self.preset
        family, _, width = preset.search_space.partition("@")
        yield self._pretrain("mobilenet_v2", preset.mobilenet_v2, preset.search_space, modules=(2,))
        for factor in preset.widths:
            space = f"{family}@{factor * float(width or 1):g}"
            yield self._pretrain(f"mobilenet_v2_x{factor:g}", preset.mobilenet_v2, space, modules=(2,))
        for name, numbers in (("resnet18", preset.resnet18), ("shufflenet_v2", preset.shufflenet_v2)):
            if numbers is not None:
                options = baseline.Options(out=self.out / name, **self._common(), **vars(numbers))
                yield Stage("baseline", f"baseline {name}", baseline.main, options, options.out / NETWORK)

    def _meta_graph(self, teacher: Path | None) -> Stage:
        """With ``teacher``, unless the preset names another."""
        numbers = self.preset.pretrain
        numbers = replace(numbers, teacher=numbers.teacher or teacher)
        return self._pretrain("meta_graph", numbers, self.preset.search_space)

    def _pretrain(self, name: str, numbers: pretrain.Numbers, space: str, **more: Any) -> Stage:
        out = self.out / name
        options = pretrain.Options(out=out, search_space=space, **more, **self._common(), **vars(numbers))
        return Stage("pretrain", f"pretrain {name}", pretrain.main, options, out / META_GRAPH)

    def _profile(self) -> Stage:
        preset = self.preset
        options = profile.Options(
            out=self.made["latency_table"],
            search_space=preset.search_space,
            num_classes=preset.classes,
            seed=self.seed,
            **vars(preset.profile),
        )
        return Stage("profile", "profile", profile.main, options, options.out)

    # --- searches ------------------------------------------------------------------------------------

    def _search(self, agent: str, seed: int) -> Stage:
        out, numbers = self._place(agent, seed), getattr(self.preset, agent.replace("-", "_"))
        if isinstance(numbers.agent, Regression) and numbers.agent.menu is not None:
            numbers = replace(numbers, agent=replace(numbers.agent, menu=self.out / numbers.agent.menu))
        options = search.Options(out=out, **self.made, **self._common(seed), **vars(numbers))
        return Stage("search", f"search {out.name}", search.main, options, out / META_GRAPH)

    def _one_shot(self) -> Stage:
        out, numbers = self.out / ONE_SHOT, self.preset.one_shot
        options = oneshot.Options(out=out, **self.made, **self._common(), **vars(numbers))
        return Stage("oneshot", "oneshot", oneshot.main, options, out / FRONTIER, free=("menu",))

    def _choose(self, agent: str, seed: int) -> Stage:
        run = self._place(agent, seed)
        options = choose.Options(run=run, **self.machine, **vars(self.preset.choose))
        return Stage("choose", f"choose {run.name}", choose.main, options, run / CHOICES)

    # --- afterwards ----------------------------------------------------------------------------------

    def _finetune(self, target: str, seed: int) -> Iterator[Stage]:
        """One stage, and its rival's if it has one; none where the search did not give the pick."""
        agent, _, pick = target.partition("/")
        run, label = self._place(agent, seed), f"finetune {target}{_told(seed)}"
        if pick and (run / CHOICES).exists() and pick not in picks(run):
            print(f"{label}: left out, the search gave {', '.join(picks(run))} only")
            return
        ending = f"_{pick}" if pick else ""
        out = self._place(f"{agent}{TUNED}{ending}", seed)
        given = {"run": run, "out": out, "prefer": pick or None, **self._common(seed)}
        options = finetune.Options(**given, **vars(self.preset.finetune))
        yield Stage("finetune", label, finetune.main, options, out / CONTROLLER)
        if target in self.preset.rivals:
            alone = self._place(f"{RIVAL}_{agent}{ending}", seed)
            options = replace(options, out=alone, one_shot=self.out / ONE_SHOT)
            yield Stage("finetune", f"finetune {alone.name}", finetune.main, options, alone / CONTROLLER)

    def _early_exit(self, target: str, seed: int) -> Iterator[Stage]:
        """Before the networks that were fine-tuned, and before the rival, if there is one."""
        agent, _, pick = target.partition("/")
        ending = f"_{pick}" if pick else ""
        run = self._place(f"{agent}{TUNED}{ending}", seed)
        policies: dict[str, tuple[str, Path | None]] = {target: (f"{agent}{TUNED}{ending}{EXIT}", None)}
        if target in self.preset.rivals:
            rival = f"{RIVAL}_{agent}{ending}"
            policies[rival] = f"{rival}{EXIT}", self._place(rival, seed)
        if pick and (self.out / agent).exists() and not run.exists():
            return  # the search did not give the pick
        for label, (name, network) in policies.items():
            out = self._place(name, seed)
            given: dict[str, Any] = {"run": run, "out": out, "network": network}
            options = early_exit.Options(**given, dataset=self.preset.dataset, **self.machine)
            stage = f"early-exit {label}{_told(seed)}"
            yield Stage("early-exit", stage, early_exit.main, options, out / CONTROLLER)

    def _evaluate(self) -> Stage:
        finished = (path.parent for path in self.out.glob(f"*/{CONTROLLER}"))
        runs = sorted(path for path in finished if (path / META_GRAPH).exists())
        trained = (path for path in runs if not path.name.partition("_seed")[0].endswith(EXIT))
        sources = {Path(load_json(path / "config.json").get("run", "")) for path in trained}
        numbers, anew = self.preset.evaluate, self.preset.finetune.from_scratch
        # A search, unless it was trained on; where others were trained anew, they stand beside it.
        last = tuple(path for path in runs if anew or path not in sources)
        alone = (*(stage.options.out for stage in self._alone()), *numbers.alone)
        given = {
            "out": self.out,
            "runs": last,
            "one_shot": self.out / ONE_SHOT,
            **self.made,
            **self._common(),
        }
        options = evaluate.Options(**given, **vars(replace(numbers, alone=alone)))
        return Stage("evaluate", "evaluate", evaluate.main, options, self.out / "results.json")


def check_targets(preset: Preset) -> None:
    """``ValueError`` for something to fine-tune that no search can give, or a rival of something else."""
    for target in preset.fine_tuned:
        agent, slash, pick = target.partition("/")
        if agent not in preset.agents:
            raise ValueError(f"fine_tuned: got {target!r}, but the agents are {', '.join(preset.agents)}")
        if slash and pick not in get_args(Pick):
            raise ValueError(f"fine_tuned: got {target!r}; a pick will do: {', '.join(get_args(Pick))}")
    for name in ("rivals", "early_exits"):
        for stray in set(getattr(preset, name)) - set(preset.fine_tuned):
            among = ", ".join(preset.fine_tuned) or "none"
            raise ValueError(f"{name}: got {stray!r}; those that are fine-tuned will do: {among}")


def _told(seed: int) -> str:
    """Ending of a name; the first seed's has none."""
    return f"_seed{seed}" if seed else ""
