"""Modules that join a trained network: they change next to nothing, and they can learn."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from instanas_env.growth import quieten
from instanas_env.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for


@pytest.mark.parametrize("module", [0, 2], ids=["BasicConv", "MBConv"])
def test_a_new_module_disturbs_little_and_learns(tiny_graph: MetaGraph, tiny_space: SearchSpace, module: int):
    """Into cell 14 of the cheapest path, against one that starts as usual: a tenth of its output, and so less
    than a quarter of its disturbance (what follows is not linear).
    """
    path = tiny_space.repair(torch.zeros(17, 5, dtype=torch.bool))
    grown = path.clone()
    grown[14, module] = True
    images = torch.randn(8, 3, 32, 32, generator=generator_for(0))

    def logits(graph: MetaGraph, mask) -> torch.Tensor:
        return graph(images, mask.expand(8, -1, -1))

    usual, quiet = copy.deepcopy(tiny_graph), copy.deepcopy(tiny_graph)
    for graph in (usual, quiet):
        last = graph.cells[14].options[module][-1].bn
        torch.nn.init.ones_(last.weight)
        torch.nn.init.zeros_(last.bias)
    quieten(quiet, grown & ~path)
    before = logits(tiny_graph, path)
    assert torch.equal(logits(quiet, path), before), "without it nothing has changed"
    loud, soft = ((logits(graph, grown) - before).norm() for graph in (usual, quiet))
    assert 0 < soft < 0.25 * loud
    F.cross_entropy(logits(quiet.train(), grown), torch.arange(8)).backward()
    assert all(weight.grad.any() for weight in quiet.cells[14].options[module].parameters())


def test_modules_of_cells_that_change_shape_stay_as_they_are(tiny_graph: MetaGraph):
    graph = copy.deepcopy(tiny_graph)
    quieten(graph, torch.ones(17, 5, dtype=torch.bool))
    for cell, before in zip(graph.cells, tiny_graph.cells, strict=True):
        same = [torch.equal(a, b) for a, b in zip(cell.parameters(), before.parameters(), strict=True)]
        assert all(same) is not cell.keeps_shape
