"""Files are written whole or not at all, and only what dead writers left is cleared away."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from instanas_env import atomic
from instanas_env.atomic import PARTIAL, read_file, remove_abandoned, write_atomic


def test_write_atomic_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "run" / "deep" / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644, "others may read it, though temporary files are private"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "text is not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_replacement_leaves_no_temporary_file(tmp_path):
    """The last step can fail too: here a folder has the file's name."""
    folder = tmp_path / "name"
    folder.mkdir()
    with pytest.raises(OSError, match="name"):
        write_atomic(folder, b"content")
    assert list(tmp_path.iterdir()) == [folder]


CODE = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("atomic", "instanas_env/atomic.py")  # without torch, in no time
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
os.fsync = {}
atomic.write_atomic(sys.argv[1], b'half')
"""


def writer(path: Path, fsync: str) -> subprocess.Popen:
    """A process that writes ``path`` and, before the renaming, calls another ``fsync``."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE.format(fsync), str(path)], cwd=Path(__file__).parent.parent
    )


def killed_while_writing(path: Path) -> Path:
    """What is left of a ``write_atomic`` whose process died (here of ``os._exit``) before the renaming."""
    before = set(path.parent.iterdir())
    assert writer(path, "lambda _: os._exit(1)").wait() == 1
    (left,) = set(path.parent.iterdir()) - before
    assert left.read_bytes() == b"half" and not path.exists()
    return left


def test_what_a_killed_writer_left_goes_at_once_and_nothing_else_does(tmp_path):
    """Whatever the clocks say, and whatever others call their files."""
    (tmp_path / "sub").mkdir()
    old, deep, young = (killed_while_writing(tmp_path / name) for name in ("a.pt", "sub/b.json", "a.pt"))
    os.utime(old, (0, 0))
    os.utime(young, (time.time() + 86_400,) * 2)
    names = (
        "a.json",
        ".a.json.swp",
        "a.partial",
        ".a.partial",
        ".x.crdownload.partial",
        ".hidden",
        f"a{PARTIAL}",
    )
    others = [tmp_path / name for name in names]
    for path in others:
        path.write_text("mine")
        os.utime(path, (0, 0))
    folder, link, pipe = (tmp_path / f".{name}{PARTIAL}" for name in ("folder", "link", "pipe"))
    folder.mkdir()
    link.symlink_to(others[0])
    os.mkfifo(pipe)
    remove_abandoned(tmp_path)
    assert {*tmp_path.iterdir()} == {tmp_path / "sub", folder, link, pipe, *others}
    assert not deep.exists()
    remove_abandoned(tmp_path / "not there")


def test_a_writer_that_lives_keeps_its_file(tmp_path):
    """Paused for as long as one likes, with a clock that is years behind."""
    path = tmp_path / "a.pt"
    slow = writer(path, "lambda _: time.sleep(600)")
    try:
        while not (found := [p for p in tmp_path.iterdir() if p.read_bytes() == b"half"]):
            time.sleep(0.01)
        os.utime(found[0], (0, 0))
        remove_abandoned(tmp_path)
        assert found[0].exists()
    finally:
        slow.kill()
        slow.wait()
    remove_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())


def test_cleaning_beside_writers_breaks_none(tmp_path):
    """A file that was taken in the moment before it was locked is made anew."""
    stop = threading.Event()

    def clean() -> None:
        while not stop.wait(0.001):
            remove_abandoned(tmp_path)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for number in range(100):
            write_atomic(tmp_path / "a", str(number).encode())
            assert (tmp_path / "a").read_bytes() == str(number).encode()
    finally:
        stop.set()
        cleaner.join()
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


def test_a_file_taken_before_it_was_locked_is_made_anew(tmp_path, monkeypatch):
    lock, taken = atomic.lock, []

    def robbed(handle: int) -> bool | None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        return lock(handle)

    monkeypatch.setattr(atomic, "lock", robbed)
    write_atomic(tmp_path / "a", b"whole")
    assert taken and (tmp_path / "a").read_bytes() == b"whole"


def test_without_locks_files_are_written_and_none_is_deleted(tmp_path, monkeypatch):
    left = killed_while_writing(tmp_path / "b")
    monkeypatch.setattr(atomic, "fcntl", None)
    write_atomic(tmp_path / "a", b"whole")
    remove_abandoned(tmp_path)
    assert {*tmp_path.iterdir()} == {tmp_path / "a", left}


def test_the_folder_is_brought_to_the_disk_as_well(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), sync(handle)))
    write_atomic(tmp_path / "a", b"whole")
    assert synced == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_folder_that_vanished_does_not_hide_the_cause(tmp_path, monkeypatch, error):
    folder = tmp_path / "run"

    def vanish(_: int) -> None:
        shutil.rmtree(folder)
        raise error

    monkeypatch.setattr(os, "fsync", vanish)
    with pytest.raises(type(error)) as raised:
        write_atomic(folder / "a", b"whole")
    assert raised.value is error


@pytest.mark.parametrize("name", ["x" * 255, "\udce9" * 200, "caf\u00e9" * 40])
def test_long_and_strange_names_are_written(tmp_path, name):
    write_atomic(tmp_path / name, b"whole")
    assert read_file(tmp_path / name) == b"whole" and len([*tmp_path.iterdir()]) == 1


def test_read_file_reads_files_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "link") == b"12345" and read_file(tmp_path / "a", count=2) == b"12"
    with pytest.raises(ValueError, match="a: 5 bytes; at most 4 will do"):
        read_file(tmp_path / "a", limit=4)
    for path, what in ((tmp_path, "a folder"), (tmp_path / "pipe", "a pipe"), ("/dev/null", "a device")):
        with pytest.raises(ValueError, match=f"{path}: {what}; a file will do"):
            read_file(path)
    for path in (tmp_path / "b", tmp_path / "a" / "b"):
        with pytest.raises(FileNotFoundError, match="b: no such file"):
            read_file(path)
    with pytest.raises(ValueError, match="no name of a file"):
        read_file("a\0b")
    with contextlib.suppress(PermissionError):
        read_file("/proc/1/mem", count=0)


def test_a_full_disk_is_told_of_with_the_file_s_name(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_atomic(tmp_path / "a.json", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.json'$") as caught:
        write_atomic(tmp_path / "a.json", b"new")
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"old"
