"""One image file to pixels: every kind of file that people have, and files that are none."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from instanas_env.data.decoding import EXTENSIONS, decode


def saved(path: Path, image: Image.Image, **how: object) -> Path:
    image.save(path, **how)
    return path


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, np.uint16))


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(("value", "expected"), [(0, 0), (20000, 78), (128, 0), (129, 1), (65535, 255)])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, ending, value, expected):
    """20000 / 257 = 77.8, 128 / 257 = 0.498 and 129 / 257 = 0.502."""
    pixels, _ = decode(saved(tmp_path / f"a.{ending}", grey16(value)), 4)
    assert pixels.dtype == np.uint8 and pixels.shape == (4, 4, 3) and (pixels == expected).all()


def test_sixteen_bits_of_netpbm_and_its_own_largest_value(tmp_path):
    """A PGM says what its white is: here 1000, so that 500 is the middle grey, 127.5."""
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 2 1000\n" + struct.pack(">4H", 500, 500, 500, 500))
    pixels, _ = decode(path, 2)
    assert set(pixels.flatten().tolist()) <= {127, 128}


def test_sixteen_bit_grey_with_a_transparent_value(tmp_path):
    image = grey16(0)
    pixels, _ = decode(saved(tmp_path / "a.png", image, transparency=0), 8)
    assert (pixels == 255).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_are_refused_as_their_range_is_unknown(tmp_path, mode):
    path = saved(tmp_path / "a.tif", Image.new(mode, (8, 8), 5))
    with pytest.raises(ValueError, match=rf"^data_dir: {path} is no whole image \(.*32 bits a pixel"):
        decode(path, 8)


@pytest.mark.parametrize("ending", sorted(EXTENSIONS))
def test_every_kind_is_read(tmp_path, ending):
    """Black and white alone is what even PBM can hold."""
    mode = "1" if ending == ".pbm" else "RGB"
    kind = {".jfif": "jpeg", ".jpe": "jpeg", ".pnm": "ppm"}.get(ending)
    path = saved(tmp_path / f"a{ending}", Image.new(mode, (12, 12), "white"), format=kind)
    pixels, size = decode(path, 6)
    assert size == (12, 12) and pixels.shape == (6, 6, 3) and (pixels > 250).all()


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(tmp_path, ending, orientation):
    """An upright image with its upper left corner bright, stored as a camera held otherwise stores it."""
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, :8] = 255
    upright[:8, 8:] = 90
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    pixels, _ = decode(saved(tmp_path / f"a.{ending}", image, exif=exif), 16)
    corners = [pixels[2, 2, 0], pixels[2, 13, 0], pixels[13, 2, 0], pixels[13, 13, 0]]
    assert np.abs(np.array(corners, int) - [255, 90, 0, 0]).max() < 25, "JPEG loses a little"


def test_the_size_is_that_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(saved(tmp_path / "a.jpg", Image.new("RGB", (40, 30)), exif=exif), 8)[1] == (30, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so
@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0"])
def test_damaged_exif_data_are_as_good_as_none(tmp_path, exif):
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (8, 8), "white"), exif=exif)
    assert (decode(path, 8)[0] > 250).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_shape_that_is_in_alpha_alone_is_seen(tmp_path, mode):
    """Black all over, opaque on the left: white shows on the right, half of it where alpha is 128."""
    image = Image.new(mode, (8, 8), 0)
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:, :4], alpha[0, 7] = 255, 128
    image.putalpha(Image.fromarray(alpha))
    pixels, _ = decode(saved(tmp_path / "a.png", image), 8)
    assert (pixels[:, :4] == 0).all() and (pixels[1:, 4:] == 255).all() and (pixels[0, 7] == 127).all()


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_a_transparent_colour_of_a_palette_is_white(tmp_path, ending):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    pixels, _ = decode(saved(tmp_path / f"a.{ending}", image, transparency=1), 8)
    assert (pixels == 255).all()


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert decode(path, 8)[0][0, 0].tolist() == [255, 0, 0]


def good(ending: str) -> bytes:
    path = Path(f"/tmp/instanas_good_{os.getpid()}.{ending}")
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.unlink()
    return content


GOOD = {ending: good(ending) for ending in ("png", "bmp", "ppm", "jpg", "tif", "gif", "webp", "pgm")}


@given(ending=st.sampled_from(sorted(GOOD)), data=st.data())
def test_a_damaged_file_gives_pixels_or_its_name(tmp_path_factory, ending, data):
    """Bytes exchanged and the end cut off: SyntaxError, struct.error and others came out here."""
    content = bytearray(GOOD[ending])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(200, len(content) - 1)))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / f"a.{ending}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        pixels, _ = decode(path, 8)
    except ValueError as error:
        assert str(error).startswith(f"data_dir: {path} is no whole image (")
    else:
        assert pixels.shape == (8, 8, 3)


def test_an_image_of_millions_of_pixels_is_named(tmp_path):
    """14,000 x 13,000 px: its header alone is enough to refuse it."""
    path = tmp_path / "a.png"
    content = GOOD["png"]
    header = b"IHDR" + struct.pack(">2I", 14_000, 13_000) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    with pytest.raises(ValueError, match=rf"^data_dir: {path} is no whole image \(DecompressionBombError"):
        decode(path, 8)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: None])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, make):
    make(tmp_path / "a.png")
    with pytest.raises(ValueError, match=rf"^data_dir: {tmp_path}/a.png is no whole image"):
        decode(tmp_path / "a.png", 8)
