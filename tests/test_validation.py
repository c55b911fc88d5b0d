"""The validator of JSON, and what it guards: wrong values are named, absurd sizes before they take memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.evaluation.picks import controller_file, picks
from agents.files import load_agent
from agents.static import RandomAgent
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.reward import BoundsSchedule
from instanas_env.search_space import SearchSpace
from instanas_env.storage import load_json, load_weights, save_json, save_weights
from instanas_env.validation import anything, integer, items, number, parse_json, record, text

PERSON = record({"name": text(), "ages": items(integer(0, 150), 1, 3)}, {"height": number(0, above=True)})
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ([], r"person: got \[\]; an object will do"),
        ({"name": "A"}, "person: lacks ages"),
        ({"name": "A", "ages": [1], "age": 1}, "person: unknown 'age'; known are name, ages, height"),
        ({"name": 1, "ages": [1]}, r"person.name: got 1; a string will do"),
        ({"name": "A", "ages": 1}, r"person.ages: got 1; a list will do"),
        ({"name": "A", "ages": []}, r"person.ages: got 0 values; 1 to 3 will do"),
        (
            {"name": "A", "ages": [1, True]},
            r"person.ages\[1\]: got True; a whole number from 0 to 150 will do",
        ),
        ({"name": "A", "ages": [1.0]}, r"person.ages\[0\]: got 1.0; a whole number"),
        ({"name": "A", "ages": [10**999]}, r"person.ages\[0\]: got 1000.*000; a whole number"),
        *(
            ({"name": "A", "ages": [1], "height": height}, r"person.height: got .*; a number above 0")
            for height in (0, -1.5, True, "0.5", None, float("nan"), float("inf"), 10**999, [1])
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(value, what):
    with pytest.raises(ValueError, match=what):
        PERSON(value, "person")


def test_what_is_right_is_given_back():
    value = {"name": "A", "ages": [1, 2], "height": 2}
    assert PERSON(value, "person") == value and isinstance(PERSON(value, "person")["height"], float)
    assert record({"a": anything}, more=True)({"a": [], "b": 1}, "x") == {"a": [], "b": 1}
    with pytest.raises(ValueError, match="unit: unknown 'h'; choose from ms, MMACs"):
        text("ms", "MMACs")("h", "unit")


def test_json_itself():
    assert parse_json(b'{"a": [1, {"a": 2}]}', "x") == {"a": [1, {"a": 2}]}
    for bad in (
        b'{"a": 1, "a": 1}',
        b'[{"a": {"b": 1, "b": 2}}]',
        b"[" * 80 + b"]" * 80,
        b"[" * 10**6,
        b"\xff",
    ):
        with pytest.raises(ValueError, match="^x: "):
            parse_json(bad, "x")


@given(value=JSON)
def test_whatever_comes_the_answer_is_a_value_or_a_value_error(value):
    """Also in the place of one part of what is right."""
    bounds = {"upper": [1.0, "full"], "best": [1.0, "cheapest"], "epochs": 3}
    for make, good in (
        (SearchSpace.from_config, SearchSpace.preset("lite").config),
        (BoundsSchedule.from_config, bounds),
    ):
        for wrong in (value, *({**good, key: value} for key in good)):
            try:
                make(wrong)
            except ValueError as error:
                assert str(error)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"width": 1e9}, r"search_space.width: got 1000000000.0; a number above 0 to 16"),
        ({"width": True}, "search_space.width: got True"),
        ({"width": "0.5"}, "search_space.width: got '0.5'"),
        ({"preset": "huge"}, "search_space.preset: unknown 'huge'; choose from cifar"),
        ({"preset": ["lite"]}, r"search_space.preset: got \['lite'\]; a string"),
        ({"modules": [0] * 10**6}, "search_space.modules: got 1000000 values; 1 to 5"),
        ({"modules": [5]}, r"search_space.modules\[0\]: got 5"),
        ({"modules": [0.0]}, r"search_space.modules\[0\]: got 0.0"),
    ],
)
def test_search_spaces(change, what):
    with pytest.raises(ValueError, match=what):
        SearchSpace.from_config({**SearchSpace.preset("lite").config, **change})
    with pytest.raises(ValueError, match="search_space: lacks preset, width, modules"):
        SearchSpace.from_config({})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"unit": "hours"}, "table.unit: unknown 'hours'; choose from ms, MMACs, parameters"),
        ({"unit": None}, "table.unit: got None"),
        ({"fixed": True}, "table.fixed: got True"),
        ({"fixed": "0.5"}, "table.fixed: got '0.5'"),
        ({"controller": 10**400}, "table.controller: got 1000.*; a number from 0 will do"),
        ({"modules": [[1.0] * 5] * 16}, "modules: got shape"),
        ({"modules": [[1.0], [1.0, 2.0]]}, "expected sequence of length 1"),
        ({"modules": [[float("nan")] * 5] * 17}, r"table.modules\[0\]\[0\]: got nan"),
        ({"modules": [["1"] * 5] * 17}, r"table.modules\[0\]\[0\]: got '1'"),
        ({"modules": [[-1.0] * 5] * 17}, r"table.modules\[0\]\[0\]: got -1.0"),
        ({"search_space": {"preset": "lite"}}, "search_space: lacks width, modules"),
        ({"record": []}, r"table.record: got \[\]; an object"),
        ({"more": 1}, "table: unknown 'more'"),
    ],
)
def test_latency_tables(tmp_path, lite_space, change, what):
    path = tmp_path / "latency.json"
    LatencyTable(lite_space, torch.ones(17, 5).double(), 1.0, unit="ms").save(path)
    save_json(path, {**load_json(path), **change})
    with pytest.raises(ValueError, match=rf"^latency_table: .*latency.json is not .*{what}"):
        LatencyTable.load(path)


def test_a_table_in_an_unknown_unit_is_not_made(lite_space):
    with pytest.raises(ValueError, match="unit: unknown 'h'"):
        LatencyTable(lite_space, torch.ones(17, 5).double(), 1.0, unit="h")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"num_classes": 10**9}, "config.num_classes: got 1000000000"),
        ({"num_classes": 99_999}, r"does not fit: head.3.bias is torch.float32 \(10,\); .*99999"),
        ({"num_classes": True}, "config.num_classes: got True"),
        ({"search_space": {"preset": "imagenet", "width": 16.0, "modules": [0, 1, 2, 3, 4]}}, "does not fit"),
        ({"search_space": {"preset": "imagenet", "width": 1e9, "modules": [0]}}, "search_space.width"),
        ({"search_space": []}, r"search_space: got \[\]; an object"),
    ],
)
def test_meta_graphs_take_no_memory_before_they_are_checked(tmp_path, tiny_graph, change, what):
    """ImageNet's space at 16 times its width would take 60 GB."""
    path = tmp_path / "w.safetensors"
    tiny_graph.save(path)
    weights, config = load_weights(path)
    save_weights(path, weights, {**config, **change})
    with pytest.raises(ValueError, match=f"^meta_graph: .*w.safetensors.*{what}"):
        MetaGraph.load(path)


@pytest.mark.parametrize("num_classes", [0, -1, 10**9, True, 2.0, "10"])
def test_no_network_is_made_for_absurd_numbers_of_classes(tiny_space, num_classes):
    with pytest.raises(ValueError, match="num_classes: got .*; a whole number from 1 to 100000 will do"):
        MetaGraph(tiny_space, num_classes)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.fill_(float("nan")), "holds NaN or inf in"),
        (lambda t: t.fill_(float("inf")), "holds NaN or inf in"),
        (lambda t: t.double(), "is torch.float64"),
        (lambda t: t.bfloat16(), "is torch.bfloat16"),
        (lambda t: t.to(torch.int32), "is torch.int32"),
    ],
)
def test_weights_of_meta_graphs(tmp_path, tiny_graph, change, what):
    path = tmp_path / "w.safetensors"
    tiny_graph.save(path)
    weights, config = load_weights(path)
    name = "cells.3.options.2.1.conv.weight"
    save_weights(path, {**weights, name: change(weights[name].clone())}, config)
    with pytest.raises(ValueError, match=rf"w.safetensors .*{what}"):
        MetaGraph.load(path)
    variance = "stem.bn.running_var"
    save_weights(path, {**weights, variance: -weights[variance]}, config)
    with pytest.raises(ValueError, match="holds a negative variance in stem.bn.running_var"):
        MetaGraph.load(path)


def test_a_loaded_meta_graph_is_the_saved_one(tmp_path, tiny_graph):
    """Values, memory format, mode, and that it can be trained."""
    tiny_graph.save(tmp_path / "w.safetensors")
    loaded = MetaGraph.load(tmp_path / "w.safetensors")
    ours, theirs = tiny_graph.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert all(ours[n].stride() == theirs[n].stride() for n in ours)
    assert not loaded.training and all(p.requires_grad and p.is_leaf for p in loaded.parameters())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"hyperparameters": None}, "config.hyperparameters: got None"),
        ({"hyperparameters": {"keep": 0.5, "speed": 1}}, "has other hyperparameters"),
        ({"search_space": {"preset": "lite"}}, "search_space: lacks"),
    ],
)
def test_agents(tmp_path, tiny_space, change, what):
    path = tmp_path / "a.safetensors"
    RandomAgent(tiny_space).save(path)
    weights, config = load_weights(path)
    save_weights(path, weights, {**config, **change})
    with pytest.raises(ValueError, match=rf"^path: .*a.safetensors.*{what}"):
        load_agent(path)


def test_choices_lead_nowhere_else(tmp_path):
    """The letter is part of a path."""
    content: dict[str, Any] = {"picks": {"A": 0}, "prefer": {"accuracy": "A"}}
    save_json(tmp_path / "choices.json", content)
    assert list(picks(tmp_path)) == ["A", "accuracy"]
    for wrong in ({"prefer": {"accuracy": "../../x"}}, {"picks": {"../x": 0}}, {"picks": [1]}):
        (tmp_path / "choices.json").write_text(json.dumps({**content, **wrong}))
        with pytest.raises(ValueError, match=r"^prefer: .*choices.json"):
            controller_file(tmp_path, "accuracy")


@pytest.mark.parametrize(
    "level", [[True, "full"], ["0.5", "full"], [float("nan"), "full"], [10**400, "full"]]
)
def test_bounds_of_no_number(level):
    with pytest.raises(ValueError, match="^bounds: got .*factor: got"):
        BoundsSchedule.from_config({"upper": level, "best": [1.0, "cheapest"]})
    with pytest.raises(ValueError, match="^bounds: got .*epochs: got True"):
        BoundsSchedule.from_config({"upper": [1.0, "full"], "best": [1.0, "cheapest"], "epochs": True})
