"""The stages of an experiment: which script runs with which options, on what an earlier one made.

    pretrain -> profile_latency -> search -> choose -> menu -> search -> finetune -> evaluate -> report

A search is named after its agent. With a menu, two go on from others: ``regression`` puts experts into the
network that ``reinforce`` ended with, once that is trained, and learns to choose between them;
``handed-over`` is REINFORCE that goes on from its policy. Both are done once for each seed; a directory's
ending tells the further ones. What they are compared with trains for as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.choices import picks
from instanas_env.latency import LatencyTable
from instanas_env.storage import load_json
from scripts import (
    choose,
    evaluate,
    finetune,
    menu,
    profile_latency,
    report,
    search,
)
from scripts.from_nothing import from_nothing
from scripts.stage import Stage
from scripts.wiring import wired

if TYPE_CHECKING:
    from scripts.experiment import Options

BASE = "reinforce/balanced"
"""The network that the menu is around, as one of a preset's ``fine_tuned``."""


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
        self.table = self.out / "latency.json"
        self.menu = self.out / "menu"
        # What a search goes on from; only with a menu.
        sources = {"regression": "menu", "handed-over": "regression"}
        self.sources = {} if self.preset.menu is None else sources
        self.base = self.out / "reinforce_finetuned_balanced"
        if self.sources and BASE not in self.preset.fine_tuned:
            raise ValueError(f"fine_tuned: got {self.preset.fine_tuned}; a menu needs {BASE!r} among them")

    def groups(self) -> Iterator[list[Stage]]:
        """Every stage, whether asked for or not, together with those that need nothing of each other."""
        agents = self.preset.agents
        yield list(self._from_nothing())
        yield [self._profile_latency()]  # which nothing may disturb
        yield [self._search(agent) for agent in agents if agent not in self.sources]
        yield [self._choose(agent) for agent in agents if agent not in self.sources]
        yield [
            stage
            for target in self.preset.fine_tuned
            if target.partition("/")[0] not in self.sources
            for stage in self._finetune(target)
        ]
        if self.preset.menu is not None:
            yield [self._menu(self.preset.menu)]
        experts = self._seeds("regression") if "regression" in self.sources and "regression" in agents else ()
        yield [*self._for_as_long(), *(self._search("regression", seed) for seed in experts)]
        if "handed-over" in agents:
            yield [self._search("handed-over", seed) for seed in self._seeds("handed-over")]
        yield [self._evaluate()]
        yield [Stage("report", "report", report.main, report.Options(run=self.out))]

    def stages(self) -> Iterator[Stage]:
        """The same, one after the other."""
        return chain.from_iterable(self.groups())

    def _from_nothing(self) -> Iterator[Stage]:
        return from_nothing(self.preset, self.out, {**self.data, **self.chance})

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

    # --- searches --------------------------------------------------------------------------------

    def _search(self, agent: str, seed: int = 0) -> Stage:
        given: search.Options = getattr(self.preset, agent.replace("-", "_"))
        source = self.sources.get(agent)
        start_from: Path | None = None
        graph = self.out / "meta_graph"
        if source is not None:
            graph = self.menu if source == "menu" else self._place(source, seed)
            start_from = graph / "controller.safetensors"
        options = wired(
            agent,
            given,
            out=self.searched(agent, seed),
            agent="reinforce" if agent == "handed-over" else agent,
            start_from=start_from,
            meta_graph=graph / "meta_graph.safetensors",
            latency_table=self.table,
            search_space=self.preset.search_space,
            teacher=self._teacher() if source == "menu" else None,
            latencies=self._ms(*self.preset.explored) or given.latencies,
            dial=(self._ms(self.preset.dial) or (given.dial,))[0],
            **self.data,
            **self._chance(seed),
        )
        file = options.out / "meta_graph.safetensors"
        return Stage("search", f"search {options.out.name}", search.main, options, file)

    def _seeds(self, agent: str) -> range:
        """Of what goes on from the menu; the others are done for the first alone."""
        return range(self.preset.seeds if agent in self.sources else 1)

    def searched(self, agent: str, seed: int = 0) -> Path:
        """The directory of a search."""
        return self._place(agent, seed if agent in self.sources else 0)

    def _place(self, name: str, seed: int) -> Path:
        return self.out / f"{name}{f'_seed{seed}' if seed else ''}"

    def _chance(self, seed: int) -> dict[str, int]:
        return {**self.chance, "seed": self.options.seed + seed}

    def _choose(self, agent: str) -> Stage:
        more = {"data_dir": self.options.data_dir, "threads": self.options.threads}
        options = wired("choose", self.preset.choose, run=self.out / agent, **more)
        return Stage("choose", f"choose {agent}", choose.main, options, options.run / "choices.json")

    def _menu(self, given: menu.Options) -> Stage:
        options = wired(
            "menu",
            given,
            run=self.base,
            out=self.menu,
            latency_table=self.table,
            num_classes=self.preset.classes,
            **self.data,
            **self.chance,
        )
        return Stage("menu", "menu", menu.main, options, self.menu / "meta_graph.safetensors")

    # --- afterwards ------------------------------------------------------------------------------

    def _finetune(self, target: str) -> Iterator[Stage]:
        agent, _, pick = target.partition("/")
        if agent not in self.preset.agents:
            raise ValueError(
                f"fine_tuned: got {target!r}, but the agents are {', '.join(self.preset.agents)}"
            )
        run = self.searched(agent)
        if self._lacks(target):
            print(f"finetune {target}: left out, the search gave {', '.join(picks(run))} only")
            return
        out = self.out / f"{agent}_finetuned{'_' + pick if pick else ''}"
        dial = self._tuned_latencies() if agent == "regression" else {}
        yield self._tuned(target, self.preset.finetune, run, out, prefer=pick or None, **dial)

    def _for_as_long(self) -> Iterator[Stage]:
        """MobileNetV2, taught by itself as it was before; and with a menu the network that it is around.

        Both go on for as many epochs as the experts train.
        """
        epochs = self.preset.finetune.epochs
        if self.sources:
            epochs = self.preset.regression.epochs - self.preset.regression.frozen_epochs
        given = replace(self.preset.finetune_longer, epochs=epochs)
        for seed in self._seeds("regression") if self.sources else ():
            out, label = self._place(f"{self.base.name}_longer", seed), f"{BASE} longer{_told(seed)}"
            yield self._tuned(label, given, self.base, out, **self._chance(seed))
        if self.preset.distilled:
            run, out = self.out / "mobilenet_v2", self.out / "mobilenet_v2_finetuned"
            yield self._tuned("mobilenet_v2", given, run, out, masks="all")

    def _tuned(self, label: str, given: finetune.Options, run: Path, out: Path, **more: Any) -> Stage:
        both = {**self.data, **self.chance, **more}
        # Networks trained alone have no teacher in their first training either.
        teacher = None if given.from_scratch else self._teacher()
        options = wired("finetune", given, run=run, out=out, teacher=teacher, **both)
        made = "meta_graph" if options.masks == "all" else "controller"
        return Stage("finetune", f"finetune {label}", finetune.main, options, out / f"{made}.safetensors")

    def _tuned_latencies(self) -> dict[str, Any]:
        """The option, unless there is no table yet."""
        latencies = self._ms(*self.preset.tuned)
        return {"latencies": latencies} if latencies else {}

    def _teacher(self) -> Path | None:
        return self.out / "mobilenet_v2" / "meta_graph.safetensors" if self.preset.distilled else None

    def _lacks(self, target: str) -> bool:
        """Whether a search is over and did not give this pick."""
        agent, _, pick = target.partition("/")
        run = self.out / agent
        return bool(pick) and (run / "choices.json").exists() and pick not in picks(run)

    def _evaluate(self) -> Stage:
        finished = (path.parent for path in self.out.glob("*/controller.safetensors"))
        runs = sorted(path for path in finished if (path / "meta_graph.safetensors").exists())
        if self.menu in runs:
            runs.remove(self.menu)  # its controller has learnt nothing yet
        sources = {Path(load_json(path / "config.json").get("run", "")) for path in runs}
        alone = [stage.options.out for stage in self._from_nothing()]
        if self.preset.distilled:
            alone.append(self.out / "mobilenet_v2_finetuned")
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

    def _ms(self, *multiples: float) -> tuple[float, ...]:
        """Multiples of MobileNetV2's latency in ms; empty while there is no table."""
        if not self.table.exists():
            return ()
        reference = LatencyTable.load(self.table).reference("mobilenet_v2")
        return tuple(multiple * reference for multiple in multiples)


def _told(seed: int) -> str:
    """Of a label: the first is not mentioned."""
    return f" seed {seed}" if seed else ""
