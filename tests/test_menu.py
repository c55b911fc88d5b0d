"""A menu around a mask: its variations are new and repaired, and each step of drawing them does its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipeline_fixtures import image_folder, searched

from agents.evaluation import choose_masks
from agents.files import load_agent
from agents.menu import interchangeable, menu_around
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


@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.floats(0.0, 1.0),
    size=st.integers(1, 12),
    shared=st.integers(0, 12),
)
def test_the_masks_of_a_menu(seed, density, size, shared):
    generator = generator_for(seed)
    mask = SPACE.random_masks(1, density, generator)[0]
    menu = menu_around(SPACE, mask, size, generator, shared=shared)
    assert menu.shape == (size, 17, 5) and menu.dtype == torch.bool
    assert torch.equal(menu[0], mask)
    assert torch.equal(SPACE.repair(menu), menu)
    assert len(torch.unique(menu, dim=0)) == size
    assert torch.equal(menu[:, :shared], mask[:shared].expand(size, -1, -1))


def test_cells_that_are_exchanged_are_those_of_one_stage():
    """Repeats of 2, 3, 4, 3 and 3 cells less the first, which changes the shape: 1, 2, 3, 2 and 2."""
    assert list(interchangeable(SPACE)) == [[2], [4, 5], [7, 8, 9], [11, 12], [14, 15]]


def test_exchanging_alone_keeps_the_number_of_modules_of_every_stage():
    """MobileNetV2's path but for cell 7: in others another cell of its stage is the empty one."""
    mask = SPACE.mobilenet_v2_mask()
    mask[7] = False
    menu = menu_around(SPACE, mask, 3, generator_for(0), change=0.0, resize=0.0)
    assert torch.equal(menu.sum((1, 2)), torch.full((3,), 16))
    empty = [int((~each.any(1)).nonzero()) for each in menu]
    assert empty[0] == 7 and sorted(empty) == [7, 8, 9], "all three of them, since a menu has no mask twice"


def test_a_changed_cell_has_another_module_alone():
    """With certainty: every cell of MobileNetV2's path leaves module 2, and none is emptied."""
    menu = menu_around(SPACE, SPACE.mobilenet_v2_mask(), 5, generator_for(0), change=1.0, resize=0.0)
    assert (menu[1:].sum(2) == 1).all() and not menu[1:, :, 2].any()
    assert set(menu[1:].int().argmax(2).flatten().tolist()) == {0, 1, 3, 4}


def test_a_resized_cell_is_emptied_or_filled():
    """With certainty: of the ten cells that keep their shape, all are empty or all have one module."""
    keeps = torch.tensor([cell.keeps_shape for cell in SPACE.cells])
    full, cheapest = SPACE.mobilenet_v2_mask(), SPACE.repair(torch.zeros(17, 5, dtype=torch.bool))
    emptied = menu_around(SPACE, full, 2, generator_for(0), change=0.0, resize=1.0)[1]
    assert not emptied[keeps].any() and torch.equal(emptied[~keeps], full[~keeps])
    filled = menu_around(SPACE, cheapest, 2, generator_for(0), change=0.0, resize=1.0)[1]
    assert (filled[keeps].sum(1) == 1).all() and torch.equal(filled[~keeps], cheapest[~keeps])


def test_more_variations_than_there_are_is_an_error():
    """Exchanging cells that are all alike, and nothing else, leaves the mask alone."""
    with pytest.raises(ValueError, match="^size: got 2, but only 1 variations were found; fewer will do"):
        menu_around(SPACE, SPACE.full_mask(), 2, generator_for(0), change=0.0, resize=0.0)
    with pytest.raises(ValueError, match="^shared: got 18; 0 to 17, the cells, will do"):
        menu_around(SPACE, SPACE.full_mask(), 2, generator_for(0), shared=18)


def test_the_script_writes_a_controller_that_knows_the_menu(tmp_path, capsys):
    run = searched("reinforce")
    folder = {"dataset": "folder", "data_dir": image_folder()}
    out = tmp_path / "menu.safetensors"
    main(Options(run, out, size=6, **folder))
    agent = RewardRegression.load(out)
    source = load_agent(run / "controller.safetensors")
    masks = source.space.repair(choose_masks(source, load_images("folder", "val", image_folder())))
    found, counts = torch.unique(masks, dim=0, return_counts=True)
    assert agent.menu is not None and len(agent.menu) == 6
    assert agent.menu[0] == found[counts.argmax()].flatten().int().tolist()
    assert agent.num_classes == 10
    table = LatencyTable.load(shipped("latency.json"))
    latencies = table.lookup(agent.space.masks_from_actions(agent.menu))
    assert f"6 masks of {latencies.min():.2f} to {latencies.max():.2f} ms" in capsys.readouterr().out
    with pytest.raises(ValueError, match="^latency_table: for .*0.5.*, but the run is for"):
        narrow = SearchSpace.preset("lite", width=0.5)
        LatencyTable(narrow, torch.ones(17, 5), 1.0, 1.0).save(tmp_path / "narrow.json")
        main(Options(run, out, latency_table=tmp_path / "narrow.json", **folder))
