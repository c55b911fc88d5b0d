"""`instanas tabulate`: which masks it takes, and that its table is the live environment, to the bit."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import instanas_env  # noqa: F401  (registers the environments)
from instanas_env.build import shipped
from instanas_env.storage import file_fingerprint, load_checkpoint
from instanas_env.tabular import TABLE
from instanas_env.tabulated import Tabulated
from instanas_env.wrappers.menu import save_menu
from scripts.comparison import tabulated
from scripts.comparison.tabulated import distinct
from scripts.tabulate import Options, main, tabulate
from tests.tools.life import POLL_SECONDS, Life
from tests.tools.tables import SPACE

N = 250


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> Options:
    out = tmp_path_factory.mktemp("tabulated") / "table.safetensors"
    return Options(out, split=("val",), masks=9, candidates=12, images=20)


@pytest.fixture(scope="module")
def table(options) -> Tabulated:
    main(options)
    return Tabulated.load(options.out)


def live(table: Tabulated, split: str, count: int | None, **options):
    """The live environment with the table's masks as a menu."""
    menu = table.masks.flatten(1).int().tolist()
    if count is None:
        return gym.make("InstaNAS-v1", split=split, actions=menu, **options)
    return gym.make_vec("InstaNAS-v1", num_envs=count, split=split, actions=menu, **options)


def assert_same_but_for_wrong_answers(ours, theirs) -> None:
    """Every value to the bit; a table does not know which wrong class was answered."""
    for name, value in theirs.items():
        if name == "prediction":
            value = np.where(theirs["correct"], value, -1)
        assert np.array_equal(ours[name], value), name


WINDOWS = [
    {},
    {
        "correct_reward": 0.7,
        "wrong_reward": -0.1,
        "bounds": {"upper": [0.9, "full"], "lower": [0.1, "mobilenet_v2"]},
    },
]


@pytest.mark.parametrize("window", WINDOWS)
def test_a_pass_earns_what_the_live_environment_pays(options, table, window):
    twin = gym.make_vec(
        "InstaNASTabular-v1", num_envs=N, table=str(options.out), split="val", observation="image", **window
    )
    real = live(table, "val", N, **window)
    assert np.array_equal(twin.reset(seed=4)[0], real.reset(seed=4)[0])
    for arms in np.random.default_rng(0).integers(0, 9, (1000 // N + 1, N)):
        ours, theirs = twin.step(arms), real.step(arms)
        assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
        assert_same_but_for_wrong_answers(ours[4]["final_info"], theirs[4]["final_info"])
        assert len(np.unique(ours[1])) > 3  # right and wrong answers, several latencies


def test_one_image_earns_what_the_live_environment_pays(options, table):
    twin = gym.make("InstaNASTabular-v1", table=str(options.out), split="val", observation="image")
    real = live(table, "val", None)
    for number, arm in enumerate(np.random.default_rng(1).integers(0, 9, 12)):
        ours, theirs = (env.reset(seed=2 if number == 0 else None) for env in (twin, real))
        assert np.array_equal(ours[0], theirs[0]) and ours[1]["index"] == theirs[1]["index"]
        ours, theirs = twin.step(arm), real.step(arm)
        assert ours[1] == theirs[1]
        assert_same_but_for_wrong_answers(ours[4], theirs[4])


def test_masks_run_from_the_cheapest_to_the_full_one(table):
    assert len(table) == len(distinct(table.masks)) == 9
    assert table.latency_ms.tolist() == sorted(table.latency_ms.tolist())
    assert table.latency_ms[0] == table.reference("cheapest")
    assert table.latency_ms[-1] == table.reference("full") and table.masks[-1].all()
    assert any(torch.equal(mask, SPACE.mobilenet_v2_mask()) for mask in table.masks)
    assert table.meta_graph == file_fingerprint(shipped("meta_graph.safetensors"))


def test_the_same_seed_makes_the_same_table(options, table):
    again = tabulate(options)
    assert torch.equal(again.masks, table.masks) and torch.equal(again.packed["val"], table.packed["val"])


def test_a_menu_is_tabulated_as_it_is(tmp_path):
    masks = torch.stack([SPACE.mobilenet_v2_mask(), SPACE.full_mask()])
    save_menu(tmp_path / "menu.json", SPACE, masks)
    found = tabulate(Options(tmp_path / "out", split=("val",), menu=tmp_path / "menu.json"))
    assert torch.equal(found.masks, masks)


def answered_parts(parts: Path) -> int:
    """How many parts are on the disk: the checkpoint holds them."""
    file = parts / "checkpoint.pt"
    return sum(name.startswith("val.") for name in load_checkpoint(file)) if file.exists() else 0


def test_a_killed_call_resumes(options, table, tmp_path, monkeypatch):
    """Killed when some masks are answered: those are not asked again, and the file is the unbroken one's."""
    out = tmp_path / options.out.name
    again, parts = replace(options, out=out), tmp_path / f"{out.name}.parts"
    parts.mkdir()
    command = [sys.executable, "-m", "scripts", "tabulate", "--out", str(out), "--split", "val"]
    command += ["--masks", "9", "--candidates", "12", "--images", "20"]
    with Life(command, parts) as life:
        while not answered_parts(parts):
            assert life.process.poll() is None
            time.sleep(POLL_SECONDS)
        life.process.kill()
        life.process.wait()
    if out.exists():
        pytest.skip("it was faster than the kill")
    kept, asked = answered_parts(parts), []
    plain = tabulated.answers

    def counted(folded, images, masks):
        asked.append(len(masks))
        return plain(folded, images, masks)

    monkeypatch.setattr(tabulated, "answers", counted)
    main(again)
    assert sum(asked) == {1: 1, 2: 0}[kept]
    assert out.read_bytes() == options.out.read_bytes() and not parts.exists()


def test_parts_of_another_table_are_refused(options, tmp_path):
    """Other options, and another file behind the same name; what was begun stays."""
    menu = tmp_path / "menu.json"
    save_menu(menu, SPACE, SPACE.full_mask()[None])
    begun = Options(tmp_path / "table.safetensors", split=("val",), menu=menu)
    tabulate(begun)
    kept = sorted(path.name for path in (tmp_path / "table.safetensors.parts").iterdir())
    assert kept == ["checkpoint.pt", "config.json", "history.jsonl"]
    assert answered_parts(tmp_path / "table.safetensors.parts") == 1
    with pytest.raises(ValueError, match="^out: .*parts holds a run with other masks; choose another folder"):
        main(replace(begun, masks=5))
    save_menu(menu, SPACE, SPACE.mobilenet_v2_mask()[None])
    with pytest.raises(ValueError, match="^out: .*parts holds a run that read another menu; "):
        main(begun)
    assert sorted(path.name for path in (tmp_path / "table.safetensors.parts").iterdir()) == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": 2}, "masks: got 2; a whole number from 3 to 4096"),
        ({"masks": 50, "candidates": 20}, "candidates: got 20; a whole number of at least 50"),
        ({"split": ()}, "split: got none"),
        ({"split": ("tset",)}, "split: unknown 'tset'"),
    ],
)
def test_wrong_options_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        main(Options(tmp_path / "table.safetensors", **changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_shipped_table_is_the_shipped_environment(split):
    """On 64 images, under many masks. It fails where weights were shipped without a new table."""
    assert shipped(TABLE).stat().st_size < 1e6
    twin = gym.make_vec("InstaNASTabular-v1", num_envs=64, split=split)
    real = live(twin.unwrapped.bandit.table, split, 64)
    assert np.array_equal(twin.reset(seed=0)[0], real.reset(seed=0)[0])
    arms = np.random.default_rng(0).integers(0, twin.single_action_space.n, 64)
    assert np.array_equal(twin.step(arms)[1], real.step(arms)[1])
