"""One stage of an experiment: a script's main with its options, and a note once it has finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instanas_env.storage import load_json, save_json
from scripts.run_directory import changed_options, config_of


@dataclass(frozen=True)
class Stage:
    """A call of a script.

    Attributes:
        name: of the script.
        label: tells the calls of one script apart.
        main: the script's.
        options: its argument.
        makes: the file that it writes last; None for a stage that is so short that it is always run anew.
    """

    name: str
    label: str
    main: Callable[[Any], None]
    options: Any
    makes: Path | None = None

    def run(self, notes: Path) -> None:
        """Run the stage, unless a note in the directory ``notes`` says that it has finished.

        Scripts that train resume by themselves; the note spares loading the data, and keeps the others
        from measuring or comparing twice.

        Raises:
            ValueError: it has finished with other options.
        """
        note = notes / (self.label.replace(" ", "_").replace("/", "_") + ".json")
        config = config_of(self.options, free=("out", "data_dir"))
        if self.makes is not None and self.makes.exists() and note.exists():
            changed = changed_options(load_json(note), config)
            if changed:
                raise ValueError(
                    f"out: {self.label} has finished with other {', '.join(changed)}; choose another"
                    f" folder, or remove {note} and what the stage made"
                )
            print(f"{self.label}: finished before")
            return
        print(f"{self.label}: {self.makes or 'always anew'}", flush=True)
        self.main(self.options)
        if self.makes is not None:
            save_json(note, config)
