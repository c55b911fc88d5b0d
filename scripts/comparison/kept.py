"""What a long verb has finished is kept as it goes, so that a call that was killed goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from instanas_env.storage import load_weights, save_weights
from instanas_env.training.hold import hold

Made = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and what JSON can hold."""


class Kept:
    """A folder of what was made, a file each, beside what it depends on; it belongs to one process at a time.

    Args:
        folder: made when the first is kept.
        common: what all depend on, such as fingerprints of files; JSON can hold it.
    """

    def __init__(self, folder: Path, common: Mapping[str, Any]):
        self.folder = folder
        self.common = common
        self._files: list[Path] = []

    def get(self, name: str, depends: Mapping[str, Any], make: Callable[[], Made]) -> Made:
        """What ``make`` gives, as it is read back; or what an earlier call has kept.

        A file that was damaged, or that depends on something else, is made anew. ``ValueError`` if another
        process is at work in the folder.

        Args:
            name: tells it from the others in the folder.
            depends: what it depends on besides what all do.
            make: makes it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        hold(self.folder)
        file = self.folder / f"{file_name(name)[-150:]}.safetensors"
        self._files.append(file)
        on = json.loads(json.dumps({"name": name, **self.common, **depends}))
        if file.exists():
            with suppress(ValueError):
                tensors, config = load_weights(file)
                if config.get("depends") == on:
                    print(f"{name}: kept from an earlier call", flush=True)
                    return tensors, config["made"]
        tensors, made = make()
        save_weights(file, tensors, {"depends": on, "made": made})
        tensors, config = load_weights(file)
        return tensors, config["made"]

    def discard(self) -> None:
        """Remove what was kept, and the folder if nothing else is in it."""
        for file in self._files:
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def file_name(name: str) -> str:
    """A name as a file can have it on any system."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
