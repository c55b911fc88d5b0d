"""Fuzzed images: files in many formats, whole and damaged, and what a classifier takes for images."""

from __future__ import annotations

import functools
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from agents.pictures import as_batch
from instanas_env.data import load_images
from instanas_env.data.decoding import decode
from tests.tools.torture.fuzz_files import damaged
from tests.tools.torture.our_files import folder
from tests.tools.torture.values import Rng, odd, pick, told
from tests.tools.torture.verdicts import Case, Wrong

SIDE = 32
FORMATS = {
    "png": ("L", "RGB", "RGBA", "P", "1", "LA", "I;16"), "bmp": ("L", "RGB", "1", "P"), 
    "ppm": ("L", "RGB", "1"), "gif": ("L", "P", "RGB"), "tif": ("L", "RGB", "RGBA", "CMYK", "1", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "webp": ("RGB", "RGBA"),
}  # fmt: skip
LOSSLESS = ("png", "bmp", "ppm", "tif")


def encoded(rng: Rng, suffix: str, mode: str, size: tuple[int, int]) -> tuple[bytes, np.ndarray]:
    """A random image as the bytes of a file, and its grey or RGB pixels."""
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        pixels = np.repeat(pixels[..., :1], 3, 2)
    else:
        image = Image.fromarray(pixels).convert(mode)
        pixels = np.asarray(image.convert("RGB"))
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    return buffer.getvalue(), pixels


def check_pixels(pixels: np.ndarray, expected: np.ndarray | None) -> None:
    """uint8 RGB of the right size, and these if they are known."""
    if pixels.dtype != np.uint8 or pixels.shape != (SIDE, SIDE, 3):
        raise Wrong(f"{pixels.dtype} {pixels.shape}")
    if expected is not None and not np.array_equal(pixels, expected):
        raise Wrong("other pixels than the file has")


def file_case(rng: Rng) -> Case:
    """Decoded by the loader and by the classifier, which must agree; damaged in half of the cases."""
    suffix = pick(rng, list(FORMATS))
    mode = pick(rng, FORMATS[suffix])
    size = (SIDE, SIDE) if rng.random() < 0.6 else (int(rng.integers(1, 80)), int(rng.integers(1, 80)))
    content, pixels = encoded(rng, suffix, mode, size)
    exact = size == (SIDE, SIDE) and suffix in LOSSLESS and mode not in ("RGBA", "LA", "CMYK")
    what, valid = "whole", True
    if rng.random() < 0.5:
        content, what = damaged(rng, content)
        exact, valid = False, None  # type: ignore[assignment]
    path = folder() / f"image.{suffix}"

    def call() -> None:
        path.write_bytes(content)
        found = decode(path, SIDE)[0]
        check_pixels(found, pixels if exact else None)

    def as_classifier() -> None:
        path.write_bytes(content)
        batch, single = as_batch(path if rng.random() < 0.5 else str(path), SIDE)
        found = batch[0].permute(1, 2, 0).numpy()
        check_pixels(found, pixels if exact else None)
        if not single or not np.array_equal(found, decode(path, SIDE)[0]):
            raise Wrong("the classifier reads another image than the loader")

    chosen = as_classifier if rng.random() < 0.5 else call
    return Case(f"{chosen.__name__}: {suffix} {mode} {size}, {what}", chosen, (path.name,), valid)


def array_case(rng: Rng) -> Case:
    """Arrays, tensors and other things handed to a classifier."""
    right = rng.integers(0, 256, (int(rng.integers(1, 4)), 3, SIDE, SIDE), dtype=np.uint8)
    valid: bool | None = False
    kind = int(rng.integers(6))
    value: Any = right
    if kind == 0:
        value, valid = (
            pick(
                rng, (right, torch.from_numpy(right), right[::-1], np.asfortranarray(right), right.tolist())
            ),
            True,
        )
        if rng.random() < 0.5 and not isinstance(value, list):
            value = value.permute(0, 2, 3, 1) if isinstance(value, torch.Tensor) else value.astype("u2")
    elif kind == 1:
        value = right.astype(pick(rng, ("f4", "i1", "?", "c8", "U3")))
    elif kind == 2:
        value = right[..., : int(rng.integers(0, SIDE))]
    elif kind == 3:
        value = pick(rng, (right[:0], right[0, 0], right[None], right[:, :2]))
    elif kind == 4:
        value = pick(
            rng, (torch.from_numpy(right).float(), torch.from_numpy(right).to("meta"), None, 3, [], {})
        )
    else:
        value, valid = odd(rng), None

    expected = np.array(value) if valid else right
    if expected.shape[-1] == 3:  # channels may come last
        expected = expected.transpose(0, 3, 1, 2)

    def call() -> None:
        batch, _ = as_batch(value, SIDE)
        if valid and not np.array_equal(batch.numpy(), expected):
            raise Wrong("other pixels")

    names = ("images", str(value)[:50]) if isinstance(value, (str, Path)) else ("images",)
    return Case(f"as_batch({told(value)})", call, names, valid)


@functools.cache
def tree() -> Path:
    """An image folder of two classes, as small as one can be."""
    root = folder() / "tree"
    for split in ("train", "val", "test"):
        for number, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (SIDE, SIDE), (60 * number + i, 9, 9)).save(root / split / name / f"{i}.png")
    return root


ADDED: dict[str, tuple[bool | None, str]] = {
    "train/cat/x.txt": (True, ""), "train/cat/.x.png": (True, ""), "train/.git/x.png": (True, ""),
    "train/__MACOSX/x.png": (True, ""), "train/Cat/x.png": (None, ""), "val/Cat/x.png": (False, "Cat"),
    "val/bird/x.png": (False, "bird"), "train/cat/x.png": (False, "x.png"), 
    "train/cat/y.tiff": (False, "y.tiff"),
    "test/dog/z.jpg": (True, ""), "notes.txt": (True, ""), "train/x.png": (None, "x.png"),
}  # fmt: skip


def folder_case(rng: Rng) -> Case:
    """A data set with a file, folder, link or pipe too many."""
    place = pick(rng, list(ADDED))
    valid, name = ADDED[place]
    kind = pick(rng, ("text", "text", "folder", "link", "pipe"))
    path = folder() / "damaged_tree" / place
    split = place.partition("/")[0] if "/" in place else "val"
    if split == "test" or kind != "text":
        valid = None

    def call() -> None:
        shutil.rmtree(folder() / "damaged_tree", ignore_errors=True)
        shutil.copytree(tree(), folder() / "damaged_tree")
        path.parent.mkdir(exist_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(pick(rng, ("/nowhere", str(tree() / "train" / "cat" / "0.png"), ".")))
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_bytes(b"no image")
        found, expected = (load_images("folder", split, root) for root in (folder() / "damaged_tree", tree()))
        if valid and found.fingerprint != expected.fingerprint:
            raise Wrong(f"{len(found)} images, of {len(expected)}")

    names = tuple(filter(None, (name, path.name, path.parent.name, "data_dir")))
    return Case(f"a {kind} at {place}", call, names, valid)


def images_case(rng: Rng) -> Case:
    """Any of these."""
    kind = rng.random()
    return file_case(rng) if kind < 0.6 else array_case(rng) if kind < 0.9 else folder_case(rng)
