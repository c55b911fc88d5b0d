"""Trees of ``If`` nodes: every case is found, and what is frequent is near the root."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from instanas_env.deploy.choice import patterns
from instanas_env.deploy.switch import ANY, NOTHING, Fork, Switch, huffman, switches

WEIGHTS = st.dictionaries(st.integers(-1, 31), st.floats(0.01, 100), min_size=1, max_size=7)


def found(switch: Switch, code: int) -> int:
    """Where the forks lead."""
    tree = switch.tree
    while isinstance(tree, Fork):
        tree = tree.left if code < tree.code else tree.right
    return tree


def forks(switch: Switch, row: list[bool]) -> int:
    """How many are on the way to the case of a cell's modules."""
    code, tree, passed = switch.code(row), switch.tree, 0
    while isinstance(tree, Fork):
        tree, passed = (tree.left if code < tree.code else tree.right), passed + 1
    return passed


@given(WEIGHTS)
def test_every_case_is_found_by_its_code(weights):
    switch = huffman(weights)
    assert sorted(switch.order) == sorted(weights)
    assert [found(switch, code) for code in range(len(weights))] == list(switch.order)


def test_huffmans_tree():
    """Weights 8, 4, 2, 1 are 1, 2, 3 and 3 forks away: 8 + 2 * 4 + 3 * 2 + 3 * 1 = 25 in all."""
    switch = huffman({1: 8.0, 2: 4.0, 4: 2.0, 8: 1.0})
    rows = torch.eye(4, dtype=torch.bool).tolist()
    assert [forks(switch, row) for row in rows] == [1, 2, 3, 3]


def test_a_cell_has_the_cases_that_it_can_have(tiny_space):
    for cell, switch in zip(tiny_space.cells, switches(tiny_space), strict=True):
        expected = {1, 2, 4, 8, 16, ANY} | ({NOTHING} if cell.keeps_shape else set())
        assert set(switch.order) == expected
    alone = switches(tiny_space.only(2))
    assert {switch.order for switch in alone} <= {(1,), (NOTHING, 1), (1, NOTHING)}


def test_what_is_typical_is_one_fork_away(tiny_space):
    typical = tiny_space.path(3).expand(50, -1, -1)
    for switch in switches(tiny_space, typical):
        assert forks(switch, [False, False, False, True, False]) == 1


def test_codes_of_rows(tiny_space):
    switch = switches(tiny_space)[-2]
    for row in itertools.product([False, True], repeat=5):
        case = found(switch, switch.code(row))
        number = sum(row)
        assert case == (NOTHING if number == 0 else ANY if number > 1 else 1 << row.index(True))


def test_what_often_comes_together_is_a_case_of_its_own(tiny_space):
    """Of 100 images 5 get modules 0 and 3 (pattern 9), 4 get 1 and 2 (6), 91 get module 3 alone."""
    typical = tiny_space.path(3).repeat(100, 1, 1)
    typical[:5, :, 0] = True
    typical[5:9] = torch.tensor([False, True, True, False, False])
    for switch in switches(tiny_space, typical):
        assert 9 in switch.order and 6 not in switch.order
        assert found(switch, switch.code([True, False, False, True, False])) == 9
        assert found(switch, switch.code([False, True, True, False, False])) == ANY
        assert forks(switch, [False, False, False, True, False]) == 1


def test_patterns_are_repaired_and_in_the_order_of_their_bits(tiny_space):
    table = patterns(tiny_space)
    assert table.shape == (17, 32, 5)
    assert table[0, 0b01010].tolist() == [False, True, False, True, False]
    for cell, rows in zip(tiny_space.cells, table, strict=True):
        assert rows[0].tolist() == [not cell.keeps_shape, False, False, False, False]
