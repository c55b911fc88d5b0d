"""Killed and called again, a stage ends as if nobody had killed it; and a difference would be seen."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from instanas_env.storage import save_checkpoint, save_json, save_weights
from tests.tools.compare_runs import compare_runs, differences, identical, misleading
from tests.tools.kill_test import Options, killed_run, main
from tests.tools.life import ROOT, Life, temporary_files

# A stage without torch: counts to 8 in two files, whole or not at all, 30 ms for each writing.
COUNTER = """
import os, sys, time
from pathlib import Path
run = Path(sys.argv[1]); run.mkdir(exist_ok=True)
def write(name, text):
    (run / f".{name}.x").write_text(text); time.sleep(0.03); os.replace(run / f".{name}.x", run / name)
write("config.json", "{}")
count = len((run / "history.jsonl").read_text().splitlines()) if (run / "history.jsonl").exists() else 0
for n in range(count, 8):
    write("checkpoint.pt", str(n))
    write("history.jsonl", "".join(f'{{"epoch": {i}}}\\n' for i in range(n + 1)))
"""


def counter(run: Path, code: str = COUNTER) -> list[str]:
    return [sys.executable, "-c", code, str(run)]


def written(run: Path, loss: float = 0.5, seconds: float = 1.0, weight: float = 1.0) -> Path:
    """A run directory of all the kinds of file there are."""
    row = {"loss": loss, "seconds": seconds}
    save_json(run / "config.json", {"epochs": 1})
    save_weights(run / "sub" / "w.safetensors", {"w": torch.tensor([weight, 0.0])}, {"history": [row]})
    save_checkpoint(run / "checkpoint.pt", {"model": torch.tensor([weight]), "history": [row]})
    (run / "history.jsonl").write_text(json.dumps(row) + "\n")
    return run


def differing(expected: Path, run: Path) -> dict[str, tuple[str, ...]]:
    return {file.name: file.differences for file in compare_runs(expected, run) if file.differences}


def test_pretraining_killed_twice_ends_as_if_nobody_had(tmp_path, capsys):
    assert main(Options(tmp_path, "pretrain", kills=2, checkpoints=3))
    printed = capsys.readouterr().out
    assert "meta_graph.safetensors" in printed and "checkpoint.pt" in printed and "\nthe same" in printed
    with pytest.raises(ValueError, match="^out: .* is not empty; choose another folder"):
        main(Options(tmp_path))


@pytest.mark.slow
def test_a_whole_experiment_killed_twice_ends_as_if_nobody_had(tmp_path, capsys):
    """All stages; the figures and the page are compared byte by byte."""
    assert main(Options(tmp_path, "experiment", kills=2))
    printed = capsys.readouterr().out
    for made in ("results.json", "report.html", "figure_frontier.png", "regression/controller.safetensors"):
        assert made in printed, made
    assert "\nthe same" in printed


def test_as_many_kills_as_asked_for_and_every_finished_run_is_kept(tmp_path):
    """Moments up to about four times the whole duration: most lives end before theirs."""
    run = tmp_path / "killed"
    deaths = list(killed_run(counter(run), run, 3, 2.4, np.random.default_rng(0)))
    assert len(deaths) == 3 and [death.while_writing for death in deaths] == [False, True, False]
    assert deaths[1].resumable and not any(death.orphans for death in deaths)
    finished = list(tmp_path.glob("killed*"))
    assert len(finished) > 1, "some were begun anew"
    for each in finished:
        assert len((each / "history.jsonl").read_text().splitlines()) == 8


def test_a_killed_process_leaves_what_it_had(tmp_path):
    run = tmp_path / "killed"
    with Life(counter(run), run) as life:
        assert life.kill_after(0.0, while_writing=False)
    assert (run / "config.json").is_file()
    with Life(counter(run), run) as life:
        assert life.finish() > 0.2, "four counts at least"
    with Life(counter(run), run) as life:
        assert not life.kill_after(60.0, while_writing=False), "it ended by itself"


def test_a_process_that_outlives_its_parent_is_found_and_ended(tmp_path):
    code = COUNTER + "\nimport subprocess; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    run = tmp_path / "killed"
    with Life(counter(run, code), run) as life:
        assert life.kill_after(1.0, while_writing=False)
        assert life.orphans(patience_seconds=0.1)
        assert not life.orphans(), "ended"


WORKERS = """
import sys, time
sys.path.insert(0, sys.argv[1])
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from scripts.comparison.workers import end_with_parent
if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn"), INITIALIZER) as pool:
        tasks = [pool.submit(time.sleep, 0.0 if i < 2 else 60) for i in range(4)]
        tasks[0].result()
        Path(sys.argv[2], "config.json").write_text("{}")
        tasks[3].result()
"""


@pytest.mark.parametrize(("initializer", "live_on"), [("end_with_parent", False), ("None", True)])
def test_workers_end_with_their_parent(tmp_path, initializer, live_on):
    """As `instanas experiment` has them; without the initializer they do not."""
    run, script = tmp_path / "run", tmp_path / "workers.py"
    run.mkdir()
    script.write_text(WORKERS.replace("INITIALIZER", initializer))
    with Life([sys.executable, str(script), str(ROOT), str(run)], run) as life:
        assert life.kill_after(0.5, while_writing=False)
        assert life.orphans(patience_seconds=2.0 if live_on else 5.0) is live_on


def test_a_stage_that_fails_is_no_run(tmp_path):
    with (
        Life(counter(tmp_path / "run", "raise SystemExit(3)"), tmp_path / "run") as life,
        pytest.raises(RuntimeError, match=r"run ended with 3: see .*errors\.txt"),
    ):
        life.finish()


def test_only_the_time_may_differ(tmp_path):
    expected = written(tmp_path / "a")
    assert differing(expected, written(tmp_path / "b", seconds=9.0)) == {}
    compared = {file.name: file.compared for file in compare_runs(expected, expected)}
    assert compared == {
        "checkpoint.pt": "1 tensors, 1 values",
        "config.json": "0 tensors, 1 values",
        "history.jsonl": "0 tensors, 1 values",
        "sub/w.safetensors": "1 tensors, 1 values",
    }


def test_the_last_bit_of_a_number_or_a_weight_is_seen(tmp_path):
    expected = written(tmp_path / "a")
    found = differing(expected, written(tmp_path / "b", loss=math.nextafter(0.5, 1.0)))
    assert found["history.jsonl"] == ("0/loss: 0.5, 0.5000000000000001",)
    assert found.keys() == {"history.jsonl", "checkpoint.pt", "sub/w.safetensors"}
    one_more = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item()
    found = differing(expected, written(tmp_path / "c", weight=one_more))
    assert found == {
        "checkpoint.pt": ("model: 'tensor', 'tensor'",),
        "sub/w.safetensors": ("weights/w: 'tensor', 'tensor'",),
    }


def test_a_file_of_one_run_alone_is_a_difference(tmp_path):
    expected, run = written(tmp_path / "a"), written(tmp_path / "b")
    (run / "config.json").rename(run / "extra.json")
    assert differing(expected, run) == {"config.json": ("not in b",), "extra.json": ("not in a",)}
    with pytest.raises(ValueError, match="^expected: .*nothing holds no files"):
        list(compare_runs(tmp_path / "nothing", tmp_path / "nothing"))


def test_identical_means_bits_and_type():
    zero, minus, nan = torch.zeros(2), -torch.zeros(2), torch.full((2,), float("nan"))
    assert identical(nan, nan.clone()) and not identical(zero, minus)
    assert not identical(zero, zero.double()) and not identical(zero, zero[:1])
    assert identical(float("nan"), float("nan")) and not identical(1, 1.0) and not identical(1, True)
    assert list(differences({"a": [1, 2]}, {"a": [1]})) == ["a/1: in one only"]


def test_what_is_left_of_a_write_is_hidden_and_ends_in_nothing_known(tmp_path):
    """Names as in storage.write_atomic against names that a glob for outputs would find."""
    fine, visible, named = (
        tmp_path / n for n in (".w.safetensors.a1b2.partial", "w.safetensors.a1", ".w.pt")
    )
    for path in (fine, visible, named):
        path.touch()
    assert temporary_files(tmp_path) == {fine, named}
    assert misleading([fine, visible, named]) == [visible, named]
