"""A run's directory belongs to one process at a time: two that write in turns would spoil both runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from instanas_env.atomic import lock

_held: dict[tuple[int, int], int] = {}
"""File descriptors of the directories that this process holds, by device and inode."""


def hold(path: Path) -> None:
    """Keep other processes off a directory for as long as this one lives, however it ends.

    The lock is the kernel's, of the directory itself, so that a killed run leaves none behind. Where there
    are no such locks (Windows, some network file systems) nobody is kept off.

    Raises:
        ValueError: another process holds the directory.
    """
    with contextlib.suppress(PermissionError):  # Windows opens no directory
        handle = os.open(path, os.O_RDONLY)
        status = os.fstat(handle)
        place = status.st_dev, status.st_ino
        if place in _held:
            os.close(handle)
        elif lock(handle) is False:
            os.close(handle)
            raise ValueError(f"out: another process is at work in {path}; wait, or choose another folder")
        else:
            _held[place] = handle  # open, and so locked, until the process ends
