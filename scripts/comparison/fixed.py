"""The rows of a comparison that look at no image: reference networks, those trained alone, the best masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import track
from torch import Tensor

from agents.agent import Agent
from agents.evaluation.alone import LoneNetwork, is_of, latencies
from agents.evaluation.controls import ROUNDING_MS
from agents.one_shot import OneShotSearch
from agents.static import RandomAgent, StaticAgent
from instanas_env import checks
from instanas_env.bandit import InstanceBandit
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_json
from instanas_env.validation import items, record, text
from scripts.comparison.rows import Comparison

FRONTIER = "one_shot.json"

_CONTENT = record(
    {"search_space": SearchSpace.from_config, "frontier": items(record({"mask": text()}, more=True))},
    more=True,
)


def add_networks(comparison: Comparison, bandit: InstanceBandit, alone: Sequence[LoneNetwork]) -> None:
    """The rows of fixed policies on the shared meta-graph, and of networks trained alone.

    MobileNetV2 of the space itself comes first: it is what latencies are compared with.
    """
    space, seed = bandit.space, comparison.seed
    found = list(zip(alone, latencies(alone, bandit, generator_for(seed, 9)), strict=True))
    for lone, latency in found:
        if is_of(lone, space):
            comparison.add_network(bandit, lone, latency)
    fixed: dict[str, Agent] = {
        "full meta-graph": StaticAgent(space, space.full_mask()),
        "MobileNetV2 path": StaticAgent(space, space.mobilenet_v2_mask()),
        "cheapest path": StaticAgent(space, bandit.latency_table.cheapest_mask()),
        "random half": RandomAgent(space, 0.5, seed),
    }
    for name, agent in fixed.items():
        comparison.add("fixed", name, bandit, agent)
    for lone, latency in found:
        if not is_of(lone, space):
            comparison.add_network(bandit, lone, latency)


def one_shot_search(val: InstanceBandit, run: Path | None, count: int, seed: int) -> OneShotSearch:
    """A search of its own, of ``count`` masks, or a run's frontier, ranked on all validation images."""
    if run is None:
        return ranked(OneShotSearch(val, seed), count)
    given = load_frontier(run, val.space)
    search = OneShotSearch(val, seed, len(val.image_set))
    for _ in track(search.rank_masks(given), "one-shot search", total=len(given)):
        pass
    return search


def frontier_file(path: Path) -> Path:
    """The file of a one-shot search; ``path`` is its run's directory or the file itself."""
    file = path / FRONTIER if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"one_shot: no such file: {file}; `instanas oneshot` makes it")
    return file


def load_frontier(path: Path, space: SearchSpace) -> Tensor:
    """The masks ``(K, num_cells, num_modules)`` that a run left; ``path`` is its directory or the file."""
    file = frontier_file(path)
    with checks.explained(f"one_shot: {file} is not of `instanas oneshot`"):
        content = _CONTENT(load_json(file), "content")
    if (found := content["search_space"]) != space:
        raise ValueError(f"one_shot: {file} is of the search space {found.config}, not {space.config}")
    with checks.explained(f"one_shot: {file} is damaged"):
        return space.masks_from_text([row["mask"] for row in content["frontier"]], "frontier")


def as_fast_as(masks: Tensor, policy: Agent, table: LatencyTable | None, path: Path) -> StaticAgent:
    """The most accurate mask for all images alike, of the frontier that a run left, that takes no longer.

    Args:
        masks: of the validation images.
        policy: who gave them; the time of its controller, if it has one, comes on top.
        table: of the latencies.
        path: the run's directory or file.

    Raises:
        ValueError: all take longer, or are of another space, or there is no table.
    """
    if table is None:
        raise ValueError(f"one_shot: got {path}, but run has no latency table; `instanas profile` makes it")
    frontier = load_frontier(path, table.space)
    controller_ms = 0.0 if policy.controller is None else table.controller
    limit_ms = table.lookup(masks).mean().item() + controller_ms
    affordable = frontier[table.lookup(frontier) <= limit_ms + ROUNDING_MS]
    if not len(affordable):
        raise ValueError(f"one_shot: no mask of {path} takes at most {limit_ms:.3g} ms, as the policy does")
    return StaticAgent(table.space, affordable[0])  # each is more accurate than the next


def ranked(search: OneShotSearch, count: int) -> OneShotSearch:
    """The search when it has ranked ``count`` masks, half of them mutations of the best, under a bar."""
    for _ in track(search.rank(count), "fixed masks", total=count):
        pass
    return search


def add_static(
    comparison: Comparison, bandit: InstanceBandit, masks: Tensor, accuracy: Tensor, limits: Sequence[float]
) -> None:
    """The rows of the best of fixed masks within some multiples of MobileNetV2's latency.

    Args:
        masks, accuracy: ``(K, num_cells, num_modules)`` and ``(K,)``, on validation.
        limits: the multiples.
    """
    latency_ms = bandit.latency_table.lookup(masks)
    for factor in limits:
        limit_ms = factor * bandit.latency_table.reference("mobilenet_v2") + ROUNDING_MS
        affordable = (latency_ms <= limit_ms).nonzero().flatten()
        if len(affordable):
            best = masks[affordable[accuracy[affordable].argmax()]]
            name = f"best static <= {factor:g} MobileNetV2"
            comparison.add("static", name, bandit, StaticAgent(bandit.space, best))
