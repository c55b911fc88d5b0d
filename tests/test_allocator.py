"""Freed memory stays with the process, and changes no result."""

import platform
import subprocess
import sys

import pytest

MIB = 2**20
SIZE = 128 * MIB  # of the block that is freed; glibc itself never keeps one above 32 MiB

FREED = f"""
import resource, sys, torch
from pathlib import Path
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.training.allocator import keep_freed_memory
torch.set_num_threads(1)
assert sys.argv[1] == "gives back" or keep_freed_memory()
network = MetaGraph(SearchSpace.preset("cifar", 0.5).only(2), 10, generator_for(0)).train()
images = torch.rand(64, 3, 32, 32, generator=generator_for(1))
loss = network(images, network.space.full_mask().expand(64, -1, -1)).square().mean()
loss.backward()
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
block = torch.ones({SIZE}, dtype=torch.uint8)
held = resident()
del block
print(held - resident(), loss.item(), sum(w.grad.norm().item() for w in network.parameters()))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's memory only")
def test_freed_memory_stays_and_changes_no_result():
    (given_back, *results), (kept_less, *same_results) = (
        subprocess.run(
            [sys.executable, "-c", FREED, how], capture_output=True, text=True, check=True
        ).stdout.split()
        for how in ("gives back", "keeps")
    )
    assert results == same_results
    # Counts of page faults would depend on the size of the kernel's pages; what is resident does not.
    assert int(kept_less) < SIZE // 2 < int(given_back)
