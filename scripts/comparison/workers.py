"""Tasks in processes of their own, several at a time; one that is killed takes nothing with it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch


def in_processes(
    work: Callable[..., object], tasks: Iterable[tuple[Any, ...]], jobs: int, threads: int
) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Call ``work(*task)`` for each task in a fresh process (spawned, not forked), ``jobs`` at a time.

    Args:
        work: a function of a module; what it makes, it writes.
        tasks: its arguments.
        jobs: processes at a time.
        threads: of PyTorch in each.

    Yields:
        Each task when it has ended, and its exit code: 0, 2 for an error that it has told, or what killed it.
    """
    context, waiting = get_context("spawn"), list(tasks)
    running: dict[Any, tuple[Any, tuple[Any, ...]]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop(0)
                process = context.Process(target=_run, args=(work, task, threads))
                process.start()
                running[process.sentinel] = process, task
            for ended in connection.wait(list(running)):
                process, task = running.pop(ended)
                process.join()
                assert process.exitcode is not None
                yield task, process.exitcode
    finally:
        for process, _ in running.values():
            process.terminate()


def _run(work: Callable[..., object], task: tuple[Any, ...], threads: int) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    torch.set_num_threads(threads)
    try:
        work(*task)
    except (ValueError, OSError, ImportError) as error:
        print(f"{' '.join(str(part) for part in task[1:])}: {error}", file=sys.stderr)
        sys.exit(2)


def end_with_parent() -> None:
    """Let this process end when the one that made it does, however that ends.

    Otherwise one that outlives a killed parent goes on, in a pool with the queue's next tasks.
    """
    parent = parent_process()
    assert parent is not None, "only a worker has a parent process"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
