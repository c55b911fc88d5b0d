"""Several processes that train as one, on one machine or more: the seam to Lightning Fabric.

All draw the same random numbers, for the whole batch; each takes its rows of the batch, and gradients and
BatchNorm's statistics are those of the whole. So the result is one process's, to rounding, on any number of
processes. A plain call is one process, :data:`ALONE`, in which everything here does nothing; torchrun makes
several (or one on a GPU), each with a GPU of its own where there are GPUs:

    torchrun --nproc_per_node 8 -m scripts pretrain --out runs/meta_graph
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from instanas_env.training.sync_batch_norm import synchronise


class World:
    """The processes that train together, seen from one of them.

    Args:
        rank: which one this is.
        size: how many there are.
        device: where this one's meta-graph computes, and what is exchanged passes.
        fabric: Lightning's, launched; None for one process without it.

    Every method but :meth:`rows` and :meth:`own` talks to the other processes: all must call it, in the same
    order.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | str = "cpu", fabric: Any = None):
        if not 0 <= rank < size:
            raise ValueError(f"rank: got {rank} of {size} processes; 0 to {size - 1} will do")
        self.rank, self.size, self.device = rank, size, torch.device(device)
        self._fabric = fabric

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files and prints."""
        return self.rank == 0

    def on(self, device: torch.device) -> World:
        """This world with a plain call's ``device``; torchrun has given each of its processes one."""
        return World(device=device) if self._fabric is None and self.size == 1 else self

    # --- rows of a batch -------------------------------------------------------------------------

    def rows(self, count: int) -> slice:
        """The rows of a batch of ``count`` that this process computes; shares differ by one row at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def own(self, whole: Tensor, dim: int = 0) -> Tensor:
        """This process's rows of a tensor that all have."""
        rows = self.rows(whole.shape[dim])
        return whole if self.size == 1 else whole.narrow(dim, rows.start, rows.stop - rows.start)

    def gather(self, part: Tensor, total: int | None = None, dim: int = 0) -> Tensor:
        """The whole tensor of which :meth:`own` is ``part``.

        Args:
            part: of any type; other sizes than that of ``dim`` are the same in all processes.
            total: the whole's size; None where every part has the same.
            dim: along which it is in parts.
        """
        if self.size == 1:
            return part
        shape = list(part.shape)
        shape[dim] = self.size * shape[dim] if total is None else total
        # A sum of parts padded with zeros: exact, and unlike an all-gather it takes parts of unequal size.
        whole = part.new_zeros(shape, dtype=torch.uint8 if part.dtype == torch.bool else part.dtype)
        self.own(whole, dim).copy_(part)
        return self.sum(whole).to(part.dtype)

    # --- sums ------------------------------------------------------------------------------------

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes, where ``tensor`` is; not differentiable."""
        if self.size == 1:
            return tensor
        moved = tensor.detach().to(self.device, copy=True).contiguous()
        torch.distributed.all_reduce(moved)
        return moved.to(tensor.device)

    def mean(self, values: Sequence[float], weight: float = 1.0) -> list[float]:
        """The mean over processes of each value; ``weight`` is the size of this one's share over the mean."""
        if self.size == 1:
            return list(values)
        return (self.sum(weight * torch.tensor(values, dtype=torch.float64)) / self.size).tolist()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over processes, in one exchange."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients])) / self.size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    # --- modules ---------------------------------------------------------------------------------

    def synchronise(self, module: nn.Module) -> None:
        """Let BatchNorm in ``module`` normalise over the batch of all processes."""
        if self.size > 1:
            synchronise(module, self)

    def replicate(self, module: nn.Module) -> nn.Module:
        """What trains ``module`` here: called like it, it has its parameters, and gradients are the means.

        Moves ``module`` to :attr:`device`, so make optimizers afterwards. Call it once for a module.
        """
        self.synchronise(module)
        return module if self._fabric is None else self._fabric.setup_module(module)

    def one_first(self) -> AbstractContextManager[None]:
        """A context in which one process of each machine goes before the others, to download say."""
        return nullcontext() if self._fabric is None else self._fabric.rank_zero_first(local=True)


ALONE = World()


@contextmanager
def launch() -> Iterator[World]:
    """The world of this process: what torchrun's environment says, or :data:`ALONE` without torchrun.

    Raises:
        ImportError: torchrun started this process, but Lightning Fabric is not installed.
    """
    if not torch.distributed.is_torchelastic_launched():
        yield ALONE
        return
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise ImportError(f'for torchrun: pip install "instanas-env[distributed]" ({error})') from error
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    size, here = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=here,
        num_nodes=size // here,
        strategy=DDPStrategy(find_unused_parameters=True),  # modules that no image of a batch chose
    )
    fabric.launch()
    yield World(fabric.global_rank, fabric.world_size, fabric.device, fabric)
    # Left to the interpreter's end, one in ten runs aborted. After an error the others are not waited for.
    fabric.barrier()
    torch.distributed.destroy_process_group()


def _end_with(parent: int) -> None:
    """End this process soon after torchrun's own, be that killed: what is called again must not meet it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
