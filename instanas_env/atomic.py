"""Whole files: written at once or not at all, read without ever waiting for a writer."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: there nothing is cleared away
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]

PARTIAL = ".instanas-partial"
"""What the name of a file ends in that is being written, or was when its writer was killed."""
NAME_BYTES = 100  # of the final name that its temporary file's begins with; file systems allow 255 in all
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_file(path: PathLike, limit: int | None = None, count: int = -1) -> bytes:
    """The content of a regular file, or of one that a link leads to.

    Args:
        path: where it is.
        limit: bytes that it may have at most.
        count: how many of them to read, from the start; all by default.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder or a pipe has that name, or the file is larger than ``limit``.
    """
    handle = _open(path)
    try:
        status = os.fstat(handle)
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFREG:
            raise ValueError(f"{path}: {_KINDS.get(kind, 'no regular file')}; a file will do")
        if limit is not None and status.st_size > limit:
            raise ValueError(f"{path}: {status.st_size} bytes; at most {limit} will do")
        with open(handle, "rb", closefd=False) as file:
            return file.read(count)
    finally:
        os.close(handle)


def _open(path: PathLike) -> int:
    """Open for reading; does not wait for the writer of a pipe."""
    try:
        # O_NONBLOCK means nothing to a regular file.
        return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except IsADirectoryError as error:  # where folders cannot be opened
        raise ValueError(f"{path}: a folder; a file will do") from error
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r}: no name of a file ({error})") from error
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):
            raise ValueError(f"{path}: a socket, a device or a link to itself; a file will do") from error
        raise


def write_atomic(path: PathLike, content: bytes) -> None:
    """Write ``content``; a reader, or a kill or power cut at any time, finds the old file or the new one.

    Raises:
        OSError: what the disk says, with the name of the file, which is as it was.
    """
    try:
        _write(Path(path), content)
    except OSError as error:
        if error.errno is None:
            raise
        # A full disk is told of without a name, and nobody knows the temporary file's.
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)  # before the lock is given up with the file
    except BaseException:  # an interrupt too must leave no temporary file behind
        with contextlib.suppress(OSError):  # its folder may be gone; the cause must be seen
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside ``path``, open and locked by this process for as long as it writes."""
    start = os.fsdecode(os.fsencode(path.name)[:NAME_BYTES])
    while True:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{start}.", suffix=PARTIAL)
        # Another process may have taken it for abandoned before it was locked: then make a new one.
        if lock(handle) is not False and os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)


def lock(handle: int) -> bool | None:
    """Lock an open file: whether nobody else had; None where the file system knows no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sync_folder(folder: Path) -> None:
    """Bring a renaming to the disk; some file systems cannot, and need not."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_abandoned(folder: PathLike) -> None:
    """Delete what killed calls of :func:`write_atomic` left in ``folder`` and below, and nothing else.

    A writer that lives, also on another machine, holds a lock on its file, whatever the clocks say.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(PARTIAL):
                with contextlib.suppress(OSError):  # its writer was faster, or it is a link, or not ours
                    _remove_if_unlocked(os.path.join(place, name))


def _remove_if_unlocked(path: str) -> None:
    handle = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    try:
        status = os.fstat(handle)
        regular = stat.S_ISREG(status.st_mode)
        if regular and lock(handle) and os.path.samestat(status, os.lstat(path)):
            os.unlink(path)
    finally:
        os.close(handle)
