"""One image file to 8-bit RGB pixels of a square; whatever is wrong with the file is said with its name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import Transpose

from instanas_env.atomic import read_file

EXTENSIONS = {
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
}  # fmt: skip
"""What the names of images end in, in lower case; of animated ones the first frame is read."""
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""How an image of another orientation is turned upright."""
WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def decode(path: Path, side: int, argument: str = "data_dir") -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image as :func:`square` has it.

    Args:
        path: a regular file, or a link to one.
        side: of the result, px.
        argument: what an error's message begins with.

    Returns:
        uint8 ``(side, side, 3)``, and the width and height in the file, upright.

    Raises:
        ValueError: damaged, cut off, too large, 32 bits a pixel, a pipe, or absent; the message has the path.
    """
    try:
        with Image.open(io.BytesIO(read_file(path))) as image:
            return square(image, side)
    except Exception as error:  # Pillow's readers raise SyntaxError, struct.error, KeyError and others
        unknown = isinstance(error, UnidentifiedImageError)
        what = "of no known kind" if unknown else f"{type(error).__name__}: {error}"
        raise ValueError(f"{argument}: {path} is no whole image ({what}); fetch or remove it") from error


def square(image: Image.Image, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The middle square of an image, resized; and its width and height, upright.

    It is turned upright as its EXIF orientation says. 16-bit grey is scaled to 8 bits; transparent pixels
    show white. ``ValueError`` for 32 bits a pixel; Pillow's own errors for a damaged one.
    """
    image.load()
    upright, turn = _rgb(image), UPRIGHT.get(_orientation(image))
    if turn is not None:
        upright = upright.transpose(turn)
    return np.asarray(ImageOps.fit(upright, (side, side), Image.Resampling.BILINEAR)), upright.size


def _rgb(image: Image.Image) -> Image.Image:
    """Three channels of 8 bits, on white where the image is transparent."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel, of unknown range; save it with 8 or 16")
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        own = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", own.size, "white"), own)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 0..65535 as 0..255; 65535 = 257 x 255."""
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; damaged EXIF data are as good as none, as the pixels do not depend on them."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # as above
        return 1
