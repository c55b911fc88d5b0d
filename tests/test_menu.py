"""A menu around a mask: its variations are new, repaired, and differ in one way a cell."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipeline_fixtures import image_folder, searched

from agents.evaluation import choose_masks
from agents.files import load_agent
from agents.menu import alternative, menu_around
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
# Module 3 is the fastest of every cell.
TABLE = LatencyTable(SPACE, torch.tensor([5.0, 4.0, 3.0, 1.0, 2.0]).expand(17, 5), 1.0, 1.0)


@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0.0, 1.0), size=st.integers(1, 12))
def test_the_masks_of_a_menu(seed, density, size):
    generator = generator_for(seed)
    mask = SPACE.random_masks(1, density, generator)[0]
    menu = menu_around(mask, TABLE, size, 0.3, generator)
    assert menu.shape == (size, 17, 5) and menu.dtype == torch.bool
    assert torch.equal(menu[0], mask)
    assert torch.equal(SPACE.repair(menu), menu)
    assert len(torch.unique(menu, dim=0)) == size
    for cell in range(17):
        assert len(torch.unique(menu[:, cell], dim=0)) <= 2, "the mask's modules, or one alternative"


def test_the_alternative_of_each_kind_of_cell():
    """Empty: the fastest module; one that keeps its shape: nothing; else another module alone."""
    mask = SPACE.mobilenet_v2_mask()
    keeping = [number for number, cell in enumerate(SPACE.cells) if cell.keeps_shape]
    mask[keeping[0]] = False
    other = alternative(mask, TABLE, generator_for(0))
    assert other[keeping[0]].tolist() == [False, False, False, True, False]
    for number, cell in enumerate(SPACE.cells):
        if cell.keeps_shape and number != keeping[0]:
            assert not other[number].any()
        if not cell.keeps_shape:
            assert other[number].sum() == 1 and not other[number, 2]


def test_a_cell_of_several_modules_may_keep_one_of_them():
    """0 to 4 all come up; 100 draws miss one of five with a probability of 5 (4/5)^100 = 1e-9."""
    mask = SPACE.full_mask()
    generator = generator_for(0)
    first = [int(alternative(mask, TABLE, generator)[0].int().argmax()) for _ in range(100)]
    assert set(first) == {0, 1, 2, 3, 4}


def test_more_variations_than_there_are_is_an_error():
    """A cell that is never changed leaves the mask alone."""
    with pytest.raises(ValueError, match="^size: got 2, but only 1 variations were found; fewer will do"):
        menu_around(SPACE.full_mask(), TABLE, 2, 0.0, generator_for(0))


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
