"""Why ``vectorization_mode="async"`` does not hang: a forked process gets one torch thread.

Gymnasium's ``AsyncVectorEnv`` makes one environment in the parent, to look at its spaces, and then forks. The
parent's first convolution has started OpenMP's threads (libgomp), which a fork does not copy; the child's
first convolution hands them work and waits for ever. With one thread there is no team to wait for. It is what
``torch.utils.data.DataLoader`` does in its workers, done here for every fork of a process that imported us.
A forked process that wants several threads has to be started with "spawn" or "forkserver" instead.
"""

from __future__ import annotations

import os

import torch


def survive_forks() -> None:
    """Let every process that is forked from this one compute in one thread."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
