"""A run's directory: whose it is, and that its files agree after a crash."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from instanas_env.atomic import PARTIAL
from instanas_env.data import Augmentation
from instanas_env.storage import load_json, save_checkpoint, save_json
from instanas_env.training.run_directory import RunDirectory, machine
from scripts.finetune import Options

FREE = ("out", "data_dir")


def options(out: Path) -> Options:
    """Paths, tuples, numbers, None and a dataclass inside: all kinds of options."""
    return Options(run=Path("runs/search"), out=out)


def test_the_same_options_open_a_directory_again(tmp_path):
    """What JSON turns into lists and strings still counts as the same."""
    RunDirectory(tmp_path / "deep" / "run", options(tmp_path), FREE).claim()
    again = RunDirectory(tmp_path / "deep" / "run", options(tmp_path), FREE)
    assert load_json(again.path / "config.json") == again.config
    assert again.config["run"] == "runs/search"
    assert again.config["augmentation"] == dataclasses.asdict(options(tmp_path).augmentation)
    assert not again.config.keys() & set(FREE) and again.history == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"seed": 1}, "seed"),
        ({"run": Path("elsewhere")}, "run"),
        ({"augmentation": Augmentation(flip=False)}, "augmentation"),
        ({"learning_rate": 0.1, "epochs": 11, "from_scratch": True}, "epochs, from_scratch, learning_rate"),
    ],
)
def test_a_refusal_names_the_options_that_changed(tmp_path, changes, names):
    RunDirectory(tmp_path, options(tmp_path), FREE).claim()
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=f"^out: {tmp_path} holds a run with other {names}; choose another"):
        RunDirectory(tmp_path, dataclasses.replace(options(tmp_path), **changes), FREE)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_file_is_told_by_its_bytes_and_not_by_where_it_lies(tmp_path):
    """The path may change, the content may not; nor may it be left out."""
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"other")):
        (tmp_path / name).write_bytes(content)

    def opened(run: Path | None) -> RunDirectory:
        directory = RunDirectory(tmp_path / "out", dataclasses.replace(options(tmp_path), run=run), FREE)
        directory.read(run=run)
        directory.claim()
        return directory

    assert opened(tmp_path / "a").config["run"] == str(tmp_path / "a")
    assert opened(tmp_path / "b").config["run"] == str(tmp_path / "b")
    with pytest.raises(ValueError, match="^out: .* holds a run that read another run; bring that file back"):
        opened(tmp_path / "c")
    with pytest.raises(ValueError, match="holds a run with other run; choose another folder"):
        opened(None)


def test_free_options_may_change(tmp_path):
    RunDirectory(tmp_path, options(tmp_path), FREE).claim()
    moved = dataclasses.replace(options(tmp_path / "moved"), data_dir=Path("/data"))
    RunDirectory(tmp_path, moved, FREE)
    with pytest.raises(ValueError, match="other data_dir;"):
        RunDirectory(tmp_path, moved, free=("out",))


def test_an_option_of_another_version_is_named(tmp_path):
    """A directory that was written when the script had one option more, and one less."""
    run = RunDirectory(tmp_path, options(tmp_path), FREE)
    older = {name: value for name, value in run.config.items() if name != "seed"}
    save_json(tmp_path / "config.json", {**older, "momentum": 0.5})
    with pytest.raises(ValueError, match="other momentum, seed;"):
        RunDirectory(tmp_path, options(tmp_path), FREE)


def test_a_config_that_is_cut_off_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"config\.json: not a JSON file"):
        RunDirectory(tmp_path, options(tmp_path), FREE)


def test_a_new_directory_has_nothing_to_restore(tmp_path):
    run = RunDirectory(tmp_path, options(tmp_path), FREE)
    assert run.restore() is None and run.history == []
    assert not (tmp_path / "history.jsonl").exists()


def test_rows_are_added_and_restored_with_the_last_state(tmp_path):
    run = RunDirectory(tmp_path, options(tmp_path), FREE)
    rows = [{"epoch": 1, "val": {"accuracy": 0.1 + 0.2}}, {"epoch": 2, "meta_graph": None}]
    for row in rows:
        run.checkpoint(row, {"weights": torch.full((2,), float(row["epoch"]))})
    again = RunDirectory(tmp_path, options(tmp_path), FREE)
    state = again.restore()
    assert state is not None and state.keys() == {"weights"}
    assert state["weights"].tolist() == [2.0, 2.0]
    assert again.history == rows, "floats to the last bit"
    again.checkpoint({"epoch": 3}, {})
    assert [json.loads(line)["epoch"] for line in (tmp_path / "history.jsonl").open()] == [1, 2, 3]


@pytest.mark.parametrize(
    "stale",
    ['{"epoch": 1}\n', '{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n', '{"epo', None],
    ids=["a row short", "a row more", "cut", "absent"],
)
def test_the_checkpoint_decides_after_a_crash_between_the_two_files(tmp_path, stale):
    """Killed between the writes, the history may lag behind; whatever it holds is written again."""
    run = RunDirectory(tmp_path, options(tmp_path), FREE)
    save_checkpoint(tmp_path / "checkpoint.pt", {"history": [{"epoch": 1}, {"epoch": 2}], "step": 7})
    if stale is not None:
        (tmp_path / "history.jsonl").write_text(stale)
    assert run.restore() == {"step": 7}
    assert run.history == [{"epoch": 1}, {"epoch": 2}]
    assert (tmp_path / "history.jsonl").exists() == bool(stale), "nothing is written before it is claimed"
    run.claim()
    assert (tmp_path / "history.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 2}\n'


def test_a_damaged_checkpoint_is_named(tmp_path):
    run = RunDirectory(tmp_path, options(tmp_path), FREE)
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint\.pt"):
        run.restore()


def test_a_directory_holds_whole_files_only(tmp_path):
    RunDirectory(tmp_path, options(tmp_path), FREE).checkpoint({"epoch": 1}, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint.pt", "config.json", "history.jsonl"]


def test_claiming_a_directory_clears_what_kills_left(tmp_path):
    """Opening it does not: a refused or failed call has no business there. A writer that lives has a lock."""
    fcntl = pytest.importorskip("fcntl", reason="without locks nothing is cleared away")
    left, written = (tmp_path / f".checkpoint.pt.{name}{PARTIAL}" for name in ("a1b2", "c3d4"))
    left.touch()
    run = RunDirectory(tmp_path, options(tmp_path), FREE)
    assert left.exists()
    with written.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run.claim()
        assert not left.exists() and written.exists(), "somebody is writing the other one"
    RunDirectory(tmp_path, options(tmp_path), FREE).claim()
    assert not written.exists(), "now nobody is"


def test_a_call_that_fails_before_its_first_result_leaves_no_trace(tmp_path):
    """So that the corrected one, with other options, is not refused."""
    RunDirectory(tmp_path / "run", options(tmp_path), FREE)
    assert list(tmp_path.iterdir()) == []
    RunDirectory(tmp_path / "run", dataclasses.replace(options(tmp_path), seed=1), FREE).checkpoint({}, {})
    with pytest.raises(ValueError, match="holds a run with other seed;"):
        RunDirectory(tmp_path / "run", options(tmp_path), FREE)


def test_of_two_calls_with_other_options_the_first_to_claim_has_the_directory(tmp_path):
    one = RunDirectory(tmp_path, options(tmp_path), FREE)
    two = RunDirectory(tmp_path, dataclasses.replace(options(tmp_path), seed=1), FREE)
    two.claim()
    with pytest.raises(ValueError, match="holds a run with other seed;"):
        one.claim()


def test_machine_tells_what_numbers_depend_on():
    found = machine()
    assert found.keys() == {"device", "processor", "threads", "torch", "python"}
    assert found["processor"] and isinstance(found["processor"], str)
    assert found["threads"] == torch.get_num_threads()
    assert found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"]) and "+" not in found["torch"]
    assert json.loads(json.dumps(found)) == found


HOLDER = """
import sys
from pathlib import Path
from instanas_env.training.hold import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_been_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"held\n"
        run = RunDirectory(tmp_path, options(tmp_path), FREE)
        with pytest.raises(ValueError, match=f"^out: another process is at work in {tmp_path}; wait, or"):
            run.claim()
        assert list(tmp_path.iterdir()) == []
        first.kill()
    run.claim()
    RunDirectory(tmp_path, options(tmp_path), FREE).claim()  # the same process may open it again
