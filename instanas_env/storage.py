"""Files that are written whole or not at all, and read without running anybody's code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

PathLike = str | os.PathLike[str]

PARTIAL = ".partial"
"""What the name of a file ends in that is being written, or was when its writer was killed."""
ABANDONED_SECONDS = 600.0  # since the last byte: no writer that lives pauses so long


def write_atomic(path: PathLike, content: bytes) -> None:
    """Write ``content``; a reader, or a kill at any moment, sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:  # an interrupt too must leave no temporary file behind
        os.unlink(temporary)
        raise


def remove_abandoned(folder: PathLike) -> None:
    """Delete what killed calls of :func:`write_atomic` left in ``folder`` and below.

    By its age, as another process, perhaps on another machine, may be writing there now.
    """
    newest = time.time() - ABANDONED_SECONDS
    for path in Path(folder).rglob(f".*{PARTIAL}"):
        with contextlib.suppress(FileNotFoundError):  # its writer was faster: it has the final name
            if path.stat().st_mtime < newest:
                path.unlink()


def save_json(path: PathLike, value: Any) -> None:
    """Write ``value`` as indented JSON."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def load_json(path: PathLike) -> Any:
    """Read a JSON file; ``ValueError`` names a file that is not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error


def save_weights(path: PathLike, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write tensors as safetensors, with ``config`` (JSON-able) in the header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_atomic(path, safetensors.torch.save(tensors, {"config": json.dumps(config)}))


def load_weights(path: PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_weights` wrote: tensors and config.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, not safetensors, or without our config.
    """
    config = load_config(path)
    return safetensors.torch.load_file(path), config


def load_config(path: PathLike) -> dict[str, Any]:
    """Read the config alone of what :func:`save_weights` wrote, from the header; errors as there."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    try:
        with safe_open(os.fspath(path), "pt") as file:
            return json.loads((file.metadata() or {})["config"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a whole weights file of this project ({error})") from error


def save_checkpoint(path: PathLike, state: dict[str, Any]) -> None:
    """Write the state of a run (tensors, numbers, strings, and containers of them)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote; unpickles tensors and plain values only.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, foreign, or with anything but plain values in it.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"{path}: not a whole checkpoint of this project ({error})") from error
