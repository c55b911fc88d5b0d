"""Our files: JSON, weights and checkpoints, read without running anybody's code, a flipped bit found.

Each carries a SHA-256 of what it holds. Files of others, and older ones of ours, have none and are taken as
they are; but a checkpoint without one is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from instanas_env.atomic import PathLike, read_file, write_atomic
from instanas_env.checks import explained
from instanas_env.validation import json_object, parse_json, record, text

MAX_JSON_BYTES = 2**28
MAX_HEADER_BYTES = 10**8  # as the safetensors library has it
NO_WEIGHTS = "not a whole weights file of this project"
CHECKSUM = "sha256"
COUNTER = "num_batches_tracked"
_TRAILER = b"\nsha256 of the bytes before this line: "
_METADATA = record({"config": text()}, {CHECKSUM: text()}, more=True)


def file_fingerprint(path: PathLike) -> str:
    """32 hexadecimal digits that change with any byte of a file."""
    return hashlib.sha256(read_file(path)).hexdigest()[:32]


# --- JSON ------------------------------------------------------------------------------------------------


def save_json(path: PathLike, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON, with the checksum of its content as the last entry, "sha256"."""
    if not isinstance(value, Mapping):
        raise TypeError(f"value: got {type(value).__name__}; a dict will do")
    if CHECKSUM in value:
        raise ValueError(f"value: got the key {CHECKSUM!r}, which is that of the checksum")
    content = json.loads(json.dumps(value))
    whole = {**content, CHECKSUM: _json_sum(content)}
    write_atomic(path, (json.dumps(whole, indent=1) + "\n").encode())


def load_json(path: PathLike) -> dict[str, Any]:
    """Read a JSON file that holds an object; its checksum, if it has one, is checked and left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not an object, or changed since it was written; the message names the file.
    """
    content = json_object(parse_json(read_file(path, MAX_JSON_BYTES), str(path)), str(path))
    if not content:  # somebody's "{}"
        return content
    last, value = list(content.items())[-1]
    if CHECKSUM in content or _like_a_sum(value):
        rest = {key: inner for key, inner in content.items() if key not in (CHECKSUM, last)}
        if last != CHECKSUM or value != _json_sum(rest):
            raise ValueError(
                f"{path}: changed since it was written, by its checksum; if that was you, remove its entry"
                f" {CHECKSUM!r}, else make the file anew"
            )
        return rest
    return content


def _like_a_sum(value: Any) -> bool:
    """Whether a value is a checksum, or was one before a bit flipped.

    So that a flipped bit in its key does not turn the check off.
    """
    digits = "0123456789abcdef"
    return isinstance(value, str) and len(value) == 64 and sum(letter in digits for letter in value) >= 63


def _json_sum(content: Any) -> str:
    """SHA-256 of a value, however its text is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_json_lines(path: PathLike) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line, such as a run's history; ``ValueError`` names file and line."""
    lines = read_file(path, MAX_JSON_BYTES).splitlines()
    places = [f"{path}, line {number}" for number in range(1, len(lines) + 1)]
    return [
        json_object(parse_json(*pair), pair[1]) for pair in zip(lines, places, strict=True) if pair[0].strip()
    ]


# --- weights ---------------------------------------------------------------------------------------------


def save_weights(path: PathLike, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write tensors as safetensors, with ``config`` (JSON-able) and a checksum of both in the header.

    BatchNorm's counters of batches, which nothing of ours reads, are left out.
    """
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith(COUNTER)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()}
    described = json.dumps(config)
    metadata = {"config": described, CHECKSUM: _weights_sum(tensors, described)}
    write_atomic(path, _ordered(safetensors.torch.save(tensors, metadata)))


def _ordered(content: bytes) -> bytes:
    """The same safetensors file with its metadata in the order of their keys; the library's order is random.

    Its header is 8 bytes of length, then JSON, padded with spaces to a multiple of 8.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    described = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    described += b" " * (-len(described) % 8)
    return len(described).to_bytes(8, "little") + described + content[end:]


def load_weights(path: PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_weights` wrote: tensors and config.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, changed, not safetensors, or without our config.
    """
    metadata, config = _header(path)
    with explained(f"{path}: {NO_WEIGHTS}", SafetensorError, KeyError):
        tensors = safetensors.torch.load(read_file(path))
    if CHECKSUM in metadata and metadata[CHECKSUM] != _weights_sum(tensors, metadata["config"]):
        raise ValueError(f"{path}: {NO_WEIGHTS} (changed since it was written, by its checksum)")
    return tensors, config


def load_config(path: PathLike) -> dict[str, Any]:
    """Read the config alone of what :func:`save_weights` wrote, from the header; errors as there."""
    return _header(path)[1]


def _header(path: PathLike) -> tuple[dict[str, str], dict[str, Any]]:
    """The texts in a header, and our config among them: 8 bytes give the length, then there is JSON."""
    with explained(f"{path}: {NO_WEIGHTS}"):
        length = int.from_bytes(read_file(path, count=8), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes; at most {MAX_HEADER_BYTES} will do")
        header = parse_json(read_file(path, count=8 + length)[8:], "header")
        metadata = _METADATA(json_object(header, "header").get("__metadata__"), "__metadata__")
        return metadata, json_object(parse_json(metadata["config"], "config"), "config")


def _weights_sum(tensors: dict[str, Tensor], config: str) -> str:
    digest = hashlib.sha256(config.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_weights(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """``ValueError`` unless ``weights`` are what a network can take that has the weights ``expected``.

    Names, shapes and types must be the same (but for BatchNorm's counters, which need not be there), numbers
    finite, variances not negative. ``expected`` may be on the device "meta": nothing is allocated.
    """
    needed = {name for name in expected if not name.endswith(COUNTER)}
    missing, unknown = sorted(needed - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        raise ValueError(f"{where} lacks {missing[:3]}, has {unknown[:3]} too many")
    for name, tensor in sorted(weights.items()):  # the same message every time
        like = expected[name]
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            got, wanted = (f"{t.dtype} {tuple(t.shape)}" for t in (tensor, like))
            raise ValueError(f"{where} does not fit: {name} is {got}; {wanted} will do")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{where} holds NaN or inf in {name}; finite numbers will do")
        if name.endswith("running_var") and (tensor < 0).any():
            raise ValueError(f"{where} holds a negative variance in {name}")


# --- checkpoints -----------------------------------------------------------------------------------------


def save_checkpoint(path: PathLike, state: dict[str, Any]) -> None:
    """Write the state of a run (tensors, plain values, and containers of them) and a checksum behind it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomic(path, content + _TRAILER + hashlib.sha256(content).hexdigest().encode() + b"\n")


def load_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote; unpickles tensors and plain values only.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, changed, foreign, or with anything but plain values in it.
    """
    content, found, checksum = read_file(path).rpartition(_TRAILER)
    if not found or hashlib.sha256(content).hexdigest().encode() + b"\n" != checksum:
        raise ValueError(
            f"{path}: not a whole checkpoint of this project (its checksum is not there or another)"
        )
    foreign = (EOFError, KeyError, pickle.UnpicklingError, RuntimeError)
    with explained(f"{path}: not a whole checkpoint of this project", *foreign):
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return json_object(state, f"{path}: its state")
