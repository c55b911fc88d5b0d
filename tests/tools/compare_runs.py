"""Two run directories, file by file: tensors bit for bit, numbers digit for digit, times left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instanas_env.storage import load_checkpoint, load_json, load_json_lines, load_weights

TIMES = ("seconds", "files")
"""Fields that a run measures with a clock; "files" are fingerprints of files in which such fields stand, and
which are compared themselves."""
OUTPUTS = (".safetensors", ".json", ".jsonl", ".pt")


@dataclass(frozen=True)
class FileComparison:
    """One file of two runs.

    Attributes:
        name: its path inside the run.
        compared: how much there was to compare, such as "612 tensors, 31 values".
        differences: where they differ; empty if nowhere.
    """

    name: str
    compared: str
    differences: tuple[str, ...]


def compare_runs(expected: Path, run: Path) -> Iterator[FileComparison]:
    """Compare every file of ``expected`` and ``run``; one that a kill left half-written is not an output."""
    names = sorted({*output_names(expected), *output_names(run)})
    if not names:
        raise ValueError(f"expected: {expected} holds no files")
    for name in names:
        absent = next((place for place in (expected, run) if not (place / name).is_file()), None)
        if absent is not None:
            yield FileComparison(name, "", (f"not in {absent.name}",))
            continue
        first, second = read(expected / name), read(run / name)
        leaves = [leaf for _, leaf in flatten(first)]
        tensors = sum(isinstance(leaf, Tensor) for leaf in leaves)
        compared = f"{tensors} tensors, {len(leaves) - tensors} values"
        yield FileComparison(name, compared, tuple(differences(first, second)))


def output_names(run: Path) -> set[str]:
    """Paths inside ``run`` of all files but the hidden ones."""
    paths = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return {str(path) for path in paths if not path.name.startswith(".")}


def misleading(temporary: Iterable[Path]) -> list[Path]:
    """Those of some left-over files that a reader could take for an output: not hidden, or so named."""
    return [path for path in temporary if not path.name.startswith(".") or path.suffix in OUTPUTS]


def read(path: Path) -> Any:
    """What a file holds: tensors and plain values, in containers; bytes of a kind that is not ours."""
    if path.suffix == ".safetensors":
        weights, config = load_weights(path)
        return {"weights": weights, "config": config}
    if path.suffix == ".pt":
        return load_checkpoint(path)
    if path.suffix == ".json":
        return load_json(path)
    if path.suffix == ".jsonl":
        return load_json_lines(path)
    return path.read_bytes()


def flatten(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its place, such as ``("history/3/loss", 0.25)``; fields of :data:`TIMES` left out."""
    if isinstance(value, dict):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        yield place, value
        return
    for key, inner in items:
        if key not in TIMES:
            yield from flatten(inner, f"{place}/{key}" if place else str(key))


def differences(first: Any, second: Any) -> Iterator[str]:
    """Where two values differ, and how."""
    one, other = dict(flatten(first)), dict(flatten(second))
    for place in sorted(one.keys() | other.keys()):
        if place not in one or place not in other:
            yield f"{place}: in one only"
        elif not identical(one[place], other[place]):
            a, b = ("tensor" if isinstance(leaf, Tensor) else leaf for leaf in (one[place], other[place]))
            yield f"{place}: {a!r}, {b!r}"


def identical(a: Any, b: Any) -> bool:
    """Same type and bits: NaN equals NaN, 0.0 is not -0.0, nor 1 (``repr`` of a float is exact)."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return type(a) is type(b) and repr(a) == repr(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    bits = [x.contiguous().flatten().view(torch.uint8) for x in (a, b)]
    return torch.equal(*bits)
