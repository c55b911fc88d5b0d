"""The latency tables in the package: one for each preset, of its own space, as good as is promised."""

from __future__ import annotations

import pytest

from instanas_env.build import SHIPPED_TABLES, NotMeasured, build_bandit, parse_search_space, shipped_table
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.storage import load_json


@pytest.mark.parametrize("name", SHIPPED_TABLES)
def test_each_is_of_its_space_and_was_checked_on_other_children(name):
    """200 children that the table was not fitted to: r of at least 0.99, a median error of at most 5 %."""
    space = parse_search_space(name)
    table = LatencyTable.load(shipped_table(space))
    assert table.space == space and table.unit == "ms" and table.controller > 0
    assert table.reference("cheapest") < table.reference("mobilenet_v2") < table.reference("full")
    estimate = load_json(shipped_table(space))["record"]["estimate"]
    assert estimate["children"] == len(estimate["real_ms"]) == len(estimate["estimated_ms"]) == 200
    assert estimate["correlation"] >= 0.99 and estimate["median_relative_error"] <= 0.05
    assert table.record["backend"].startswith("onnxruntime") and table.record["threads"] == 1


def test_the_environment_finds_the_table_of_its_space():
    bandit = build_bandit(split="val", search_space="lite@2", meta_graph="random")
    expected = LatencyTable.load(shipped_table(parse_search_space("lite@2")))
    assert bandit.latency_table.lookup(bandit.space.full_mask()) == expected.reference("full")


def test_a_space_that_nobody_measured_is_named_with_what_will_do():
    with pytest.raises(NotMeasured, match=r"latency_table: the package has those of lite, lite@2.*profile"):
        shipped_table(SearchSpace.preset("cifar", 0.75))
    with pytest.raises(ValueError, match="latency_table: the package has those of"):
        build_bandit(split="val", search_space="lite@0.5", meta_graph="random")
