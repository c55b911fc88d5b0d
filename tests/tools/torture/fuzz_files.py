"""Fuzzed files: latency tables, menus, weights, agents, checkpoints, tabular twins, records of a run.

Two kinds of damage. Bytes: bits flipped, cut off, repeated; what loads nevertheless must be what was written.
Content: a value replaced, dropped or added and the checksum made anew, as whoever writes files would; what
loads must then hold what the file holds.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import torch

from instanas_env.storage import load_weights, save_weights
from tests.tools.torture.our_files import folder, kinds, same, whole
from tests.tools.torture.values import INF, NAN, Rng, pick
from tests.tools.torture.verdicts import Case, Wrong

BAD_VALUES = (
    None, True, "", "0.5", "x" * 300, -1, 1.5, 10**9, 10**400, NAN, INF, -INF, 1e308, [], {}, [[]], {"a": 1},
    "lite", "\ud800", [NAN], 0,
)  # fmt: skip


# --- damaged bytes -------------------------------------------------------------------------------------


def damaged(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """The bytes with one thing done to them, and what."""
    at = int(rng.integers(len(content)))
    if rng.random() < 0.3:
        at = min(at, int(rng.integers(1, 400)))  # headers are at the start
    kind = int(rng.integers(6))
    if kind <= 1:
        bit = 1 << int(rng.integers(8))
        return content[:at] + bytes([content[at] ^ bit]) + content[
            at + 1 :
        ], f"bit {bit} of byte {at} flipped"
    if kind == 2:
        return content[:at], f"cut off after {at} bytes"
    if kind == 3:
        length = int(rng.integers(1, 64))
        new = rng.bytes(length)
        return content[:at] + new + content[at + length :], f"{new.hex()} written at {at}"
    if kind == 4:
        length = int(rng.integers(1, 64))
        return content[:at] + content[at + length :], f"{length} bytes taken out at {at}"
    length = int(rng.integers(1, 64))
    return content[:at] + content[at : at + length] + content[at:], f"{length} bytes twice at {at}"


def bytes_case(rng: Rng) -> Case:
    """Refused with the file's name, or read as if nothing had happened."""
    name = pick(rng, list(kinds()))
    kind = kinds()[name]
    content, what = damaged(rng, kind.path.read_bytes())
    path = folder() / kind.path.name
    expected = whole(name)

    def call() -> None:
        path.write_bytes(content)
        found = kind.load(path)
        if kind.checked and not same(found, expected):
            raise Wrong("the damage was not seen, and something else was read")

    return Case(f"{name}, {what}", call, (path.name,))


# --- another content -----------------------------------------------------------------------------------


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a JSON value."""
    inner: Any = []
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    return [place, *(found for key, each in inner for found in places(each, (*place, key)))]


def changed_json(rng: Rng, value: Any) -> tuple[Any, str]:
    """A JSON value with one thing replaced, dropped or added."""
    made = copy.deepcopy(value)
    place = pick(rng, places(made)[1:])
    inside = made
    for key in place[:-1]:
        inside = inside[key]
    kind = rng.random()
    if kind < 0.2:
        del inside[place[-1]]
        return made, f"without {place}"
    new = pick(rng, BAD_VALUES)
    if kind < 0.3:
        deep: Any = new
        for _ in range(int(rng.integers(1, 200))):
            deep = [deep]
        new = deep
    if kind < 0.45 and isinstance(inside, dict):
        inside["added"] = new
        return made, f"with added {new!r:.80} beside {place}"
    inside[place[-1]] = new
    return made, f"{place} = {new!r:.80}"


def json_case(rng: Rng) -> Case:
    """A table, menu or record with another content: refused, or read and as written."""
    name = pick(rng, ("table", "menu", "data.json", "table"))
    kind = kinds()[name]
    content = json.loads(kind.path.read_text())
    content.pop("sha256")
    value, what = changed_json(rng, content)
    path = folder() / kind.path.name

    def call() -> None:
        path.write_text(json.dumps(value))
        found = kind.load(path)
        if name == "table" and not same(
            found[1].tolist(), [list(map(float, row)) for row in value["modules"]]
        ):
            raise Wrong(f"modules: {found[1]}")
        if name == "table" and not (torch.isfinite(found[1]).all() and (found[1] >= 0).all()):
            raise Wrong("costs that are none")
        if name == "data.json" and not np.isfinite(found[1] + found[2]).all():
            raise Wrong(f"mean and deviation: {found[1:3]}")
        if name == "data.json" and not all(isinstance(each, str) for each in found[0]):
            raise Wrong(f"classes: {found[0]}")

    return Case(f"{name} with {what}", call, (path.name,))


BAD_NUMBERS = (NAN, INF, -INF)
DTYPES = (
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
)


def changed_tensors(rng: Rng, tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """One tensor replaced by what no network of ours can take."""
    made = dict(tensors)
    name = pick(rng, [name for name in made if "num_batches" not in name])
    tensor = made[name]
    kind = int(rng.integers(6))
    if kind == 0:
        del made[name]
        return made, f"without {name}"
    if kind == 1:
        made["added"] = torch.zeros(2)
        return made, "with a tensor too many"
    if kind == 2 and tensor.is_floating_point() and tensor.numel():
        flat = tensor.clone().flatten()
        value = -1.0 if name.endswith("running_var") else pick(rng, BAD_NUMBERS)
        flat[rng.integers(len(flat))] = value
        made[name] = flat.view_as(tensor)
        return made, f"{value} in {name}"
    if kind == 3:
        dtype = pick(rng, [each for each in DTYPES if each != tensor.dtype])
        made[name] = tensor.float().to(dtype) if dtype == torch.float8_e4m3fn else tensor.to(dtype)
        return made, f"{name} as {dtype}"
    shapes = ((*tensor.shape, 1), (0,), (), (tensor.numel() + 1,), (1, *tensor.shape))
    shape = pick(rng, [each for each in shapes if each != tuple(tensor.shape)])
    made[name] = torch.zeros(shape, dtype=tensor.dtype)
    return made, f"{name} of shape {shape}"


def tensors_case(rng: Rng) -> Case:
    """Weights with a wrong tensor, which must be refused, or another config in a good header."""
    name = pick(rng, ("meta-graph", "reinforce", "static agent", "random agent", "menu weights", "twin"))
    kind = kinds()[name]
    tensors, config = load_weights(kind.path)
    path = folder() / kind.path.name
    valid: bool | None = None
    if tensors and rng.random() < 0.5:
        tensors, what = changed_tensors(rng, tensors)
        valid = False if name in ("meta-graph", "reinforce") else None
    else:
        config, what = changed_json(rng, config)
    expected = whole(name)

    def call() -> None:
        save_weights(path, tensors, config)
        found = kind.load(path)
        if name == "meta-graph" and not same(found, expected) and found[:2] == expected[:2]:
            raise Wrong("other weights were read than the same file's")

    return Case(f"{name}, {what}", call, (path.name,), valid)
