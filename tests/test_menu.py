"""Parts around a mask: which places have a choice, what may run there, and what the script writes of it."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipeline_fixtures import image_folder, searched

from agents.arms import MenuArms
from agents.evaluation import choose_masks
from agents.files import load_agent
from agents.menu import parts_around
from agents.reward_regression import RewardRegression
from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.growth import QUIET
from instanas_env.latency import LatencyTable
from instanas_env.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts.menu import Options, main, parse_place

# In three epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

SPACE = SearchSpace.preset("lite")


def union(choice):
    return torch.stack(choice).any(0).view(17, 5)


PLACES = [[(7, 0), (8, 0), (9, 0)], [(14, 0), (15, 2)], [(16, 0), (16, 2)]]
CHOICE = torch.tensor([7, 8, 9, 14, 15, 16])


@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0.0, 1.0))
def test_masks_of_the_parts(seed, density):
    """All have the trunk; the first of each place together are the mask; MenuArms takes them."""
    generator = generator_for(seed)
    mask = SPACE.random_masks(1, density, generator)[0]
    parts, groups = parts_around(SPACE, mask, PLACES)
    arms = MenuArms(SPACE, parts, groups)
    masks = arms.masks(arms.random(50, generator))
    trunk = torch.ones(17, dtype=torch.bool)
    trunk[CHOICE] = False
    assert torch.equal(masks[:, trunk], mask[trunk].expand(50, -1, -1))
    told = torch.zeros(17, 5, dtype=torch.bool)
    told[tuple(zip(*(pair for place in PLACES for pair in place), strict=True))] = True
    assert not (masks & ~mask & ~told).any()
    assert torch.equal(torch.stack([group[0] for group in parts.split(groups)]).any(0), mask)
    assert all(len(torch.unique(group, dim=0)) == len(group) for group in parts.split(groups))


def test_the_parts_of_each_place():
    """Around the cheapest path and module 0 in cell 14: what is there, nothing, the others; each once."""
    mask = SPACE.repair(torch.zeros(17, 5, dtype=torch.bool))
    mask[14, 0] = True
    parts, groups = parts_around(SPACE, mask, PLACES)
    assert groups == [4, 3, 2]
    own = [[tuple(bit) for bit in part.nonzero().tolist()] for part in parts]
    trunk = [(cell, 0) for cell in (0, 1, 3, 6, 10, 13)]
    assert [sorted(part) for part in own[:4]] == [
        trunk, *(sorted([*trunk, (cell, 0)]) for cell in (7, 8, 9))
    ]  # fmt: skip
    assert own[4:7] == [[(14, 0)], [], [(15, 2)]]
    assert own[7:] == [[(16, 0)], [(16, 2)]]


def test_places_that_there_are_not():
    mask = SPACE.mobilenet_v2_mask()
    with pytest.raises(ValueError, match=r"^places: got \[\]; at least one, with a module, will do"):
        parts_around(SPACE, mask, [])
    with pytest.raises(ValueError, match="^places: got 17:0; cells in 0..16, modules in 0..4 will do"):
        parts_around(SPACE, mask, [[(17, 0)]])
    with pytest.raises(ValueError, match="^places: got cell 8 in two of them; one will do"):
        parts_around(SPACE, mask, [[(7, 0), (8, 0)], [(8, 1)]])


def test_a_place_on_the_command_line():
    assert parse_place("14:0, 15:2") == [(14, 0), (15, 2)]
    with pytest.raises(ValueError, match="^places: got '14-0'; cell:module with commas between"):
        parse_place("14-0")


def test_the_script_puts_a_menu_around_a_trained_network(tmp_path, capsys):
    """The mask that most images get, first of all; its network answers as before, on a run of REINFORCE's."""
    run = searched("reinforce")
    folder = {"dataset": "folder", "data_dir": image_folder()}
    main(Options(run, tmp_path, **folder))
    agent = RewardRegression.load(tmp_path / "controller.safetensors")
    source, images = load_agent(run / "controller.safetensors"), load_images("folder", "val", image_folder())
    masks = source.space.repair(choose_masks(source, images))
    found, counts = torch.unique(masks, dim=0, return_counts=True)
    most = found[counts.argmax()]
    assert agent.menu is not None and agent.num_classes == 10
    parts = torch.tensor(agent.menu).bool()
    assert torch.equal(union([group[0] for group in parts.split(agent.groups)]), most)
    every = torch.stack([union(choice) for choice in product(*parts.split(agent.groups))])
    latencies = LatencyTable.load(shipped("latency.json")).lookup(every)
    told = f"{len(every)} masks of {latencies.min():.2f} to {latencies.max():.2f} ms"
    assert told in capsys.readouterr().out
    before, after = (MetaGraph.load(place / "meta_graph.safetensors") for place in (run, tmp_path))
    inputs = images.normalize(images.images[:8])
    assert torch.equal(*(graph(inputs, most.expand(8, -1, -1)) for graph in (before, after)))
    new = (every.any(0) & ~most).nonzero()
    assert len(new) and all((after.cells[t].options[m][-1].bn.weight == QUIET).all() for t, m in new.tolist())
    with pytest.raises(ValueError, match="^latency_table: for .*0.5.*, but the run is for"):
        narrow = SearchSpace.preset("lite", width=0.5)
        LatencyTable(narrow, torch.ones(17, 5), 1.0, 1.0).save(tmp_path / "narrow.json")
        main(Options(run, tmp_path, latency_table=tmp_path / "narrow.json", **folder))
