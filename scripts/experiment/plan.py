"""The stages of an experiment: which script runs with which options, on what an earlier one made.

    pretrain -> profile -> search -> choose -> finetune -> evaluate -> report

A search is named after its agent. With several seeds each search is made once for each; a directory's ending
tells the further ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from agents.evaluation.picks import picks
from instanas_env.storage import load_json
from scripts import choose, evaluate, finetune, profile, search
from scripts.experiment.from_nothing import from_nothing
from scripts.experiment.options import Options
from scripts.experiment.stage import Stage
from scripts.experiment.wiring import wired
from scripts.report import run_report as report


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
        self.chance = {"seed": options.seed, "threads": options.threads, "device": options.device}
        self.table = self.out / "latency.json"

    def groups(self) -> Iterator[list[Stage]]:
        """Every stage, whether asked for or not, together with those that need nothing of each other."""
        made = [(agent, seed) for agent in self.preset.agents for seed in range(self.preset.seeds)]
        first, *others = self._from_nothing()
        if self.preset.taught:
            yield [first]
            yield others
        else:
            yield [first, *others]
        yield [self._profile()]  # which nothing may disturb
        yield [self._search(agent, seed) for agent, seed in made]
        yield [self._choose(agent, seed) for agent, seed in made]
        yield [
            stage
            for target in self.preset.fine_tuned
            for seed in range(self.preset.seeds)
            for stage in self._finetune(target, seed)
        ]
        yield [self._evaluate()]
        yield [Stage("report", "report", report.main, report.Options(run=self.out))]

    def stages(self) -> Iterator[Stage]:
        """The same, one after the other."""
        return chain.from_iterable(self.groups())

    def _from_nothing(self) -> Iterator[Stage]:
        return from_nothing(self.preset, self.out, {**self.data, **self.chance})

    def _profile(self) -> Stage:
        options = wired(
            "profile",
            self.preset.profile,
            out=self.table,
            search_space=self.preset.search_space,
            num_classes=self.preset.classes,
            seed=self.options.seed,
        )
        return Stage("profile", "profile", profile.main, options, self.table)

    # --- searches --------------------------------------------------------------------------------

    def _search(self, agent: str, seed: int) -> Stage:
        given: search.Options = getattr(self.preset, agent.replace("-", "_"))
        options = wired(
            agent,
            given,
            out=self._place(agent, seed),
            meta_graph=self.out / "meta_graph" / "meta_graph.safetensors",
            latency_table=self.table,
            **self.data,
            **self._chance(seed),
        )
        file = options.out / "meta_graph.safetensors"
        return Stage("search", f"search {options.out.name}", search.main, options, file)

    def _place(self, name: str, seed: int) -> Path:
        return self.out / f"{name}{_told(seed)}"

    def _chance(self, seed: int) -> dict[str, Any]:
        return {**self.chance, "seed": self.options.seed + seed}

    def _choose(self, agent: str, seed: int) -> Stage:
        more = {name: getattr(self.options, name) for name in ("data_dir", "threads", "device")}
        options = wired("choose", self.preset.choose, run=self._place(agent, seed), **more)
        label = f"choose {options.run.name}"
        return Stage("choose", label, choose.main, options, options.run / "choices.json")

    # --- afterwards ------------------------------------------------------------------------------

    def _finetune(self, target: str, seed: int) -> Iterator[Stage]:
        agent, _, pick = target.partition("/")
        if agent not in self.preset.agents:
            raise ValueError(
                f"fine_tuned: got {target!r}, but the agents are {', '.join(self.preset.agents)}"
            )
        run, label = self._place(agent, seed), f"finetune {target}{_told(seed)}"
        if self._lacks(run, pick):
            print(f"{label}: left out, the search gave {', '.join(picks(run))} only")
            return
        options = wired(
            "finetune",
            self.preset.finetune,
            run=run,
            out=self._place(f"{agent}_finetuned{'_' + pick if pick else ''}", seed),
            prefer=pick or None,
            **self.data,
            **self._chance(seed),
        )
        yield Stage("finetune", label, finetune.main, options, options.out / "controller.safetensors")

    def _lacks(self, run: Path, pick: str) -> bool:
        """Whether a search is over and did not give this pick."""
        return bool(pick) and (run / "choices.json").exists() and pick not in picks(run)

    def _evaluate(self) -> Stage:
        finished = (path.parent for path in self.out.glob("*/controller.safetensors"))
        runs = sorted(path for path in finished if (path / "meta_graph.safetensors").exists())
        sources = {Path(load_json(path / "config.json").get("run", "")) for path in runs}
        alone = [stage.options.out for stage in self._from_nothing()]
        options = wired(
            "evaluate",
            replace(self.preset.evaluate, alone=()),
            out=self.out,
            runs=tuple(path for path in runs if path not in sources),  # a search, unless it was fine-tuned
            meta_graph=self.out / "meta_graph" / "meta_graph.safetensors",
            latency_table=self.table,
            alone=(*(path for path in alone if path.name != "meta_graph"), *self.preset.evaluate.alone),
            **self.data,
            **self.chance,
        )
        return Stage("evaluate", "evaluate", evaluate.main, options, self.out / "results.json")


def _told(seed: int) -> str:
    """Ending of a name; the first seed's has none."""
    return f"_seed{seed}" if seed else ""
