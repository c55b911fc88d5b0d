"""One stage of an experiment: a script's main with its options, and a note once it has finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from instanas_env.storage import load_json, save_json
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.run_directory import FREE, changed_options, config_of
from scripts.comparison.workers import in_processes


@dataclass(frozen=True)
class Stage:
    """A call of a script.

    Attributes:
        name: of the script.
        label: tells the calls of one script apart.
        main: the script's.
        options: its argument.
        makes: the file that it writes last; None for a stage that is so short that it is always run anew.
        free: options that may change: the script then makes what depends on them from what it has kept.
    """

    name: str
    label: str
    main: Callable[..., None]
    options: Any
    makes: Path | None = None
    free: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.label

    def file(self, notes: Path, ending: str) -> Path:
        """Where in ``notes`` something of this stage is kept."""
        return notes / f"{self.label.replace(' ', '_').replace('/', '_')}.{ending}"

    def run(self, notes: Path, world: World = ALONE) -> None:
        """Run the stage, unless a note says that it has finished.

        Scripts that train resume by themselves; the note spares loading the data, and keeps the others
        from measuring or comparing twice.

        The processes of ``world`` run it together. ``ValueError`` if it has finished with other options.
        """
        note = self.file(notes, "json")
        config = within(notes.parent, config_of(self.options, free=(*FREE, "workers")))
        if self.makes is not None and self.makes.exists() and note.exists():
            changed = changed_options(load_json(note), config)
            if refused := [name for name in changed if name not in self.free]:
                raise ValueError(
                    f"out: {self.label} has finished with other {', '.join(refused)}; choose another"
                    f" folder, or remove {note} and what the stage made"
                )
            if not changed:
                self._say("finished before", world)
                return
        self._say(str(self.makes or "always anew"), world)
        if world.size == 1:
            self.main(self.options)
        else:
            self.main(self.options, world)
        if self.makes is not None and world.is_main:
            save_json(note, config)

    def _say(self, what: str, world: World) -> None:
        if world.is_main:
            print(f"{self.label}: {what}", flush=True)

    def run_quietly(self, notes: Path) -> None:
        """As :meth:`run`; what it prints is added to its log in ``notes``."""
        notes.mkdir(parents=True, exist_ok=True)
        with self.file(notes, "log").open("a") as log, redirect_stdout(log), redirect_stderr(log):
            self.run(notes)


def within(folder: Path, config: Any) -> Any:
    """Options in which paths below ``folder`` are told from there on: it may be moved, or named otherwise."""
    if isinstance(config, dict):
        return {name: within(folder, value) for name, value in config.items()}
    if isinstance(config, list):
        return [within(folder, value) for value in config]
    return config.removeprefix(f"{folder}/") if isinstance(config, str) else config


def run_together(stages: Sequence[Stage], notes: Path, workers: int = 1, world: World = ALONE) -> None:
    """Run stages that need nothing of each other, several at a time.

    Args:
        stages, notes: which, and the directory of their notes and logs.
        workers: processes; 1 runs them here, one after the other, each together with those of ``world``.

    Raises:
        ValueError: stages that failed, each in a process of its own; the others have run to their end.
    """
    if workers == 1 or len(stages) < 2:
        for stage in stages:
            stage.run(notes, world)
        return
    for stage in stages:
        print(f"{stage.label}: see {stage.file(notes, 'log')}", flush=True)
    tasks, failed = [(notes, stage) for stage in stages], []
    running = in_processes(_run_quietly, tasks, workers, stages[0].options.threads)
    for (_, stage), code in track(running, stages[0].name, total=len(stages)):
        if code != 0:
            failed.append(f"{stage} ended with {code}")
    if failed:
        raise ValueError(f"workers: {'; '.join(failed)}; what has finished is kept, the same command goes on")


def _run_quietly(notes: Path, stage: Stage) -> None:
    stage.run_quietly(notes)
