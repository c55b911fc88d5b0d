"""What `instanas bench` measures of memory: how much is held, whether it grows, what giving it back costs.

In processes of their own: what one has allocated, and what its C library was told, cannot be taken back.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from scripts.bench_parts.ratios import Figure, Options, figure, ratio


def memory(options: Options) -> Iterator[Figure]:
    """Resident memory, in a process of its own: what 50,000 images take, what 100,000 steps add.

    The latter asks for a leak: its masks are eight batches in turn. With new ones oneDNN meets sub-batches
    of sizes it has no kernels for yet and keeps those it compiles: 40 MB between 25,000 and 50,000 steps,
    12 MB in the next 375,000, until it has met all.
    """
    steps = 2_000 if options.quick else 100_000
    command = [sys.executable, "-c", MEMORY, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made, grown = map(float, done.stdout.split())
    yield figure("MB of an environment with 50,000 images of 32 px", [made], "<= 600")
    yield figure(f"MB that {steps:,} steps add", [grown], "flat")


MEMORY = """
import resource, sys, torch
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
torch.set_num_threads(1)
imported = resident()
import gymnasium as gym, instanas_env
from dataclasses import replace
envs = gym.make_vec("InstaNAS-v1", num_envs=250)
bandit = envs.unwrapped.bandit
images = torch.randint(256, (50_000, 3, 32, 32), dtype=torch.uint8)
bandit.image_set = replace(bandit.image_set, images=images, labels=torch.arange(len(images)) % 10)
del images
envs.reset(seed=0)
envs.action_space.seed(0)
steps = int(sys.argv[1])
for _ in range(steps // 1000):
    envs.step(envs.action_space.sample())
made = resident()
batches = [envs.action_space.sample() for _ in range(8)]
def settled():  # what is in use only now and then does not count
    return min(resident() for _ in map(envs.step, batches))
settled()  # from here on nothing is new
before = settled()
for step in range(steps // 250):
    envs.step(batches[step % 8])
print(made - imported, settled() - before)
"""


def kept_memory(options: Options) -> Iterator[Figure]:
    """Training MobileNetV2 at width 0.5 where freed memory goes back to the kernel, over where it is kept."""
    batch = 16 if options.quick else 128

    def seconds(how: str) -> float:
        """Of a step, the median of five after two."""
        command = [sys.executable, "-c", TRAINING, how, str(batch), str(options.threads)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    found = [(seconds("given back"), seconds("kept")) for _ in range(options.rounds)]
    given_back, kept = map(list, zip(*found, strict=True))
    yield figure("images/s, training MobileNetV2 at cifar@0.5", [batch / s for s in kept])
    yield ratio("training: freed memory given back over kept", given_back, kept)


TRAINING = """
import sys, time, torch
from statistics import median
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.training.allocator import keep_freed_memory
from instanas_env.training.epoch import sgd
how, batch, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
if how == "kept":
    keep_freed_memory()
network = MetaGraph(SearchSpace.preset("cifar", 0.5).only(2), 10).train()
optimizer = sgd(network, 1e-3, 0.9, 0.0)
images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
masks = network.space.full_mask().expand(batch, -1, -1)
seconds = []
for _ in range(7):
    start = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(images, masks), labels).backward()
    optimizer.step()
    seconds.append(time.perf_counter() - start)
print(median(seconds[2:]))
"""
