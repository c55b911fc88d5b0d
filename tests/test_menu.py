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
from agents.menu import parts_around, places
from agents.reward_regression import RewardRegression
from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts.menu import Options, main

# In three epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

SPACE = SearchSpace.preset("lite")


def union(choice):
    return torch.stack(choice).any(0).view(17, 5)


@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.floats(0.0, 1.0),
    shared=st.integers(0, 15),
    modules=st.sets(st.integers(0, 4), min_size=1),
)
def test_masks_of_the_parts(seed, density, shared, modules):
    """All have the trunk; the first of each place together are the mask; MenuArms takes them."""
    generator = generator_for(seed)
    mask = SPACE.random_masks(1, density, generator)[0]
    parts, groups = parts_around(SPACE, mask, shared=shared, modules=sorted(modules))
    arms = MenuArms(SPACE, parts, groups)
    masks = arms.masks(arms.random(50, generator))
    assert torch.equal(masks[:, :shared], mask[:shared].expand(50, -1, -1))
    assert not (masks & ~mask)[:, :, [module for module in range(5) if module not in modules]].any()
    firsts = torch.stack([group[0] for group in parts.split(groups)])
    assert torch.equal(firsts.any(0), mask)
    assert all(len(torch.unique(group, dim=0)) == len(group) for group in parts.split(groups))


def test_a_place_is_a_cell_that_changes_shape_or_the_cells_between_two_of_them():
    """Stages of 1, 2, 3, 4, 3, 3 and 1 cells: the first of each changes the shape."""
    expected = [[0], [1], [2], [3], [4, 5], [6], [7, 8, 9], [10], [11, 12], [13], [14, 15], [16]]
    assert list(places(SPACE, 0)) == expected
    assert list(places(SPACE, 8)) == [[8, 9], *expected[7:]]


def test_the_parts_of_each_place():
    """Around the cheapest path and module 0 in cell 14, with modules 0 and 2, behind the first 13 cells.

    Cell 13 has module 0 or 2, cell 16 as well; of cells 14 and 15 one has 0 or 2, or both are empty: as it is
    is (14, 0) itself, then nothing, (14, 2), (15, 0), (15, 2).
    """
    mask = SPACE.repair(torch.zeros(17, 5, dtype=torch.bool))
    mask[14, 0] = True
    parts, groups = parts_around(SPACE, mask, shared=13, modules=(0, 2))
    assert groups == [2, 5, 2]
    own = [[tuple(bit) for bit in part.nonzero().tolist()] for part in parts]
    trunk = [(cell, 0) for cell in (0, 1, 3, 6, 10)]
    assert own[:2] == [[*trunk, (13, 0)], [*trunk, (13, 2)]]
    assert own[2:7] == [[(14, 0)], [], [(14, 2)], [(15, 0)], [(15, 2)]]
    assert own[7:] == [[(16, 0)], [(16, 2)]]


def test_nothing_to_choose_is_an_error():
    mask = SPACE.mobilenet_v2_mask()
    with pytest.raises(ValueError, match="^shared: got 18; 0 to 17, the cells, will do"):
        parts_around(SPACE, mask, shared=18, modules=(0,))
    with pytest.raises(ValueError, match=r"^modules: got \(5,\); numbers in 0..4 will do"):
        parts_around(SPACE, mask, shared=0, modules=(5,))
    with pytest.raises(ValueError, match=r"^shared, modules: got 16, \(2,\), which leave nothing to choose"):
        parts_around(SPACE, mask, shared=16, modules=(2,))


def test_the_script_writes_a_controller_that_knows_the_menu(tmp_path, capsys):
    run = searched("reinforce")
    folder = {"dataset": "folder", "data_dir": image_folder()}
    out = tmp_path / "menu.safetensors"
    main(Options(run, out, shared=10, **folder))
    agent = RewardRegression.load(out)
    source = load_agent(run / "controller.safetensors")
    masks = source.space.repair(choose_masks(source, load_images("folder", "val", image_folder())))
    found, counts = torch.unique(masks, dim=0, return_counts=True)
    assert agent.menu is not None and agent.num_classes == 10
    parts = torch.tensor(agent.menu).bool()
    assert torch.equal(union([group[0] for group in parts.split(agent.groups)]), found[counts.argmax()])
    table = LatencyTable.load(shipped("latency.json"))
    latencies = table.lookup(torch.stack([union(choice) for choice in product(*parts.split(agent.groups))]))
    told = f"{len(latencies)} masks of {latencies.min():.2f} to {latencies.max():.2f} ms"
    assert told in capsys.readouterr().out
    with pytest.raises(ValueError, match="^latency_table: for .*0.5.*, but the run is for"):
        narrow = SearchSpace.preset("lite", width=0.5)
        LatencyTable(narrow, torch.ones(17, 5), 1.0, 1.0).save(tmp_path / "narrow.json")
        main(Options(run, out, latency_table=tmp_path / "narrow.json", **folder))
