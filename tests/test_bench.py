"""The reference is the meta-graph's function; ratios pair rounds; a quick run fills every row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instanas_env.seeding import generator_for
from scripts.bench import main
from scripts.bench_parts.meta_graph import DenseMetaGraph
from scripts.bench_parts.ratios import Options, figure, interleaved, ratio
from tests.tools.pipeline_fixtures import read_strictly


@given(keep=st.floats(0, 1), count=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_the_released_design_computes_what_the_meta_graph_does(tiny_graph, keep, count, seed):
    """To 1e-5 of the largest logit, whichever form runs."""
    generator = generator_for(seed)
    images = torch.randn(count, 3, 32, 32, generator=generator)
    masks = tiny_graph.space.random_masks(count, keep, generator)
    with torch.inference_mode():
        expected = DenseMetaGraph(tiny_graph)(images, masks)
        for form in (tiny_graph, tiny_graph.folded()):
            assert (form(images, masks) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_actions_take_turns():
    """One round to warm up and two that count."""
    turns: list[str] = []
    seconds = interleaved({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, rounds=2)
    assert turns == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_ratios_golden_values():
    """4/2, 9/3, 8/2 = 2, 3, 4: median 3; the quartiles of three values are the outer ones."""
    found = ratio("x", [4.0, 9.0, 8.0], [2.0, 3.0, 2.0], ">= 2")
    assert (found.value, found.low, found.high, found.goal) == (3, 2, 4, ">= 2")
    assert (figure("y", [5.0]).low, figure("y", [5.0]).high) == (5, 5)


@pytest.mark.slow
def test_a_quick_run_writes_every_figure(tmp_path):
    main(Options(tmp_path / "bench.json", quick=True, rounds=1, threads=1))
    results = read_strictly(tmp_path / "bench.json")
    assert results.keys() == {"options", "machine", "figures"}
    names = [row["name"] for row in results["figures"]]
    assert len(names) == len(set(names)) >= 15
    assert all(row["low"] <= row["value"] <= row["high"] for row in results["figures"])
    shares = {row["name"]: row["value"] for row in results["figures"]}
    assert 0 < shares["fifth over all"] < shares["half over all"] < 1
