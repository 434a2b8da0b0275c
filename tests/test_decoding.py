"""Image files as pixels: modes, depths, transparency, frames."""

import io

import numpy as np
import pytest
from PIL import Image

from optnas.objectives.data.decoding import (
    FRAMES,
    ROTATED,
    TRANSPARENT,
    Depths,
    Framing,
    Unreadable,
    finished,
    read,
)
from optnas.objectives.data.depths import depths_of
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import decode

SIDE = 16


def disc(top=255):
    y, x = np.mgrid[:SIDE, :SIDE]
    return ((y - 8) ** 2 + (x - 8) ** 2 < 30) * top


def drawing(mode):
    """A black disc, opaque, on something that shows through."""
    opaque = Image.fromarray((disc() > 0).astype(np.uint8) * 255)
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    image.putalpha(opaque)
    return image if mode == "RGBA" else image.convert(mode)


def saved(tmp_path, image, suffix, **options):
    path = tmp_path / f"x.{suffix}"
    image.save(path, **options)
    return path


def pixels(path, **options):
    return decode(path, Framing(SIDE, **options))


def with_key(mode, key):
    """A black disc on a colour that the file calls transparent."""
    if mode == "1":
        image = Image.fromarray(disc() == 0)
    elif mode == "L":
        image = Image.fromarray(np.where(disc(), 0, 200).astype(np.uint8))
    elif mode == "I;16":
        image = Image.fromarray(np.where(disc(), 0, 60000).astype(np.uint16))
    else:
        gray = np.where(disc(), 0, 200).astype(np.uint8)
        image = Image.fromarray(np.stack([gray, gray // 2, gray], 2))
    return image, {"transparency": key}


TRANSPARENT_FILES = {
    "RGBA png": lambda p: saved(p, drawing("RGBA"), "png"),
    "LA png": lambda p: saved(p, drawing("LA"), "png"),
    "RGBA webp": lambda p: saved(p, drawing("RGBA"), "webp", lossless=True),
    "RGBA tif": lambda p: saved(p, drawing("RGBA"), "tif"),
    "P gif": lambda p: saved(p, drawing("RGBA"), "gif"),
    "P png, bytes": lambda p: saved(p, drawing("RGBA").quantize(4), "png"),
    "1 png": lambda p: saved(p, *with_key("1", 1)[:1], "png", **with_key("1", 1)[1]),
    "L png": lambda p: saved(p, *with_key("L", 200)[:1], "png", **with_key("L", 200)[1]),
    "RGB png": lambda p: saved(p, *with_key("RGB", 0)[:1], "png", transparency=(200, 100, 200)),
    "I;16 png": lambda p: saved(p, *with_key("I;16", 0)[:1], "png", transparency=60000),
}


@pytest.mark.parametrize("kind", TRANSPARENT_FILES)
@pytest.mark.parametrize(("background", "level"), [((255, 255, 255), 255), ((0, 0, 0), 0)])
def test_what_shows_through_is_the_background(tmp_path, kind, background, level):
    path = TRANSPARENT_FILES[kind](tmp_path)
    image = pixels(path, background=background)
    assert image[:, 0, 0].tolist() == [level] * len(image)
    assert image[:, 8, 8].tolist() == [0] * len(image)
    assert read(path, Framing(SIDE)).facts["flags"] & TRANSPARENT


def test_a_coloured_background_makes_colour(tmp_path):
    image = pixels(TRANSPARENT_FILES["LA png"](tmp_path), background=(255, 128, 0))
    assert image[:, 0, 0].tolist() == [255, 128, 0]


def test_opaque_images_with_an_alpha_channel_stay_what_they_are(tmp_path):
    gray = Image.fromarray(disc(200).astype(np.uint8))
    path = saved(tmp_path, gray.convert("LA"), "png")
    assert np.array_equal(pixels(path)[0], disc(200))
    assert not read(path, Framing(SIDE)).facts["flags"] & TRANSPARENT


def facts_of(paths):
    return np.array([read(path, Framing(SIDE)).facts for path in paths])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_depths_by_what_a_whole_set_uses(tmp_path, bits, suffix):
    (tmp_path / "dark").mkdir()
    top = (1 << bits) - 1
    bright = saved(tmp_path, Image.fromarray(disc(top).astype(np.uint16)), suffix)
    dark = saved(tmp_path / "dark", Image.fromarray(disc(top // 4).astype(np.uint16)), suffix)
    depths, remarks = depths_of(facts_of([bright, dark]), ["bright", "dark"])
    assert depths.integers == top
    assert f"{bits} bits" in remarks[0]
    assert decode(bright, SIDE, depths=depths).max() == 255
    assert decode(dark, SIDE, depths=depths).max() in (63, 64)


@pytest.mark.parametrize(("top", "unit"), [(1.0, 1.0), (0.7, 1.0), (255.0, 255.0), (90.5, 255.0)])
def test_floats_of_a_set_are_in_one_range(tmp_path, top, unit):
    path = saved(tmp_path, Image.fromarray(disc(top).astype(np.float32)), "tif")
    depths, _ = depths_of(facts_of([path]), ["x"])
    assert depths.floats == unit
    assert decode(path, SIDE, depths=depths).max() == round(top / unit * 255)


@pytest.mark.parametrize(
    ("tops", "dtype", "message"),
    [
        ((65536,), np.int32, "only 0 to 65535"),
        ((-5,), np.int32, "only 0 to 65535"),
        ((1,), np.uint16, "nobody can tell what is white"),
        ((300.0,), np.float32, "must all be in"),
        ((1.5,), np.float32, "must all be in"),
        ((-0.5,), np.float32, "must all be in"),
        ((0.5, 200.0), np.float32, "1 of 2 within"),
    ],
)
def test_what_cannot_be_decided_is_refused(tmp_path, tops, dtype, message):
    paths = []
    for number, top in enumerate(tops):
        (tmp_path / str(number)).mkdir()
        image = Image.fromarray(disc(top).astype(dtype))
        paths.append(saved(tmp_path / str(number), image, "tif"))
    with pytest.raises(DataError, match=message):
        depths_of(facts_of(paths), [str(path) for path in paths])


def png16(path, top):
    """A PNG in colours of 16 bits, written by hand: Pillow writes none."""
    import struct
    import zlib

    rows = np.repeat(disc(top).astype(">u2")[..., None], 3, 2)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def test_colours_of_16_bits_are_read_where_8_of_them_suffice(tmp_path):
    path = png16(tmp_path / "x.png", 65535)
    _, remarks = depths_of(facts_of([path]), ["x"])
    assert remarks == ["1 image in colours of 16 bits read as 8"]
    assert decode(path, SIDE).max() == 255
    dark = png16(tmp_path / "y.png", 4095)
    with pytest.raises(DataError, match="nearly black: y"):
        depths_of(facts_of([dark]), ["y"])


def test_pgm_files_say_how_deep_they_are(tmp_path):
    path = tmp_path / "x.pgm"
    values = disc(1000).astype(">u2").tobytes()
    path.write_bytes(f"P5 {SIDE} {SIDE} 4095\n".encode() + values)
    depths, _ = depths_of(facts_of([path]), ["x"])
    assert decode(path, SIDE, depths=depths).max() == round(1000 / 4095 * 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "I;16", "F"])
def test_every_mode_keeps_the_picture(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(disc(65535).astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray(disc(1).astype(np.float32))
    else:
        image = Image.fromarray(disc().astype(np.uint8)).convert("RGB").convert(mode)
    decoded = pixels(saved(tmp_path, image, "tif"))
    assert len(decoded) == (1 if mode in ("1", "L", "I;16", "F") else 3)
    assert int(decoded[:, 8, 8].min()) > 240
    assert int(decoded[:, 0, 0].max()) < 15


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (SIDE, SIDE), color) for color in ("white", "black", "black")]
    path = saved(tmp_path, frames[0], suffix, save_all=True, append_images=frames[1:])
    assert pixels(path).min() > 250
    assert read(path, Framing(SIDE)).facts["flags"] & FRAMES


@pytest.mark.parametrize("deep", [False, True])
def test_exif_turns_pictures_of_every_depth(tmp_path, deep):
    values = np.zeros((SIDE, SIDE), np.uint16 if deep else np.uint8)
    values[:8, :8] = 65535 if deep else 255
    image = Image.fromarray(values)
    exif = image.getexif()
    exif[0x0112] = 6
    path = saved(tmp_path, image, "png" if deep else "jpg", exif=exif)
    assert pixels(path)[0, 2, -3] > 200
    assert read(path, Framing(SIDE)).facts["flags"] & ROTATED


def test_squash_crop_and_pad(tmp_path):
    wide = np.zeros((8, 32, 3), np.uint8)
    wide[:, 12:20] = 255
    path = saved(tmp_path, Image.fromarray(wide), "png")
    squashed, cropped, padded = (
        decode(path, Framing(8, resize, (10, 20, 30))) for resize in ("squash", "crop", "pad")
    )
    assert (squashed[0] > 200).sum() == 8 * 2
    assert (cropped > 200).all()
    assert padded[:, 0, 0].tolist() == [10, 20, 30]
    assert (padded[0, 3:5] > 200).any()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"%PDF-1.7", "PDF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\0\0\0\x18ftypmif2heic", "no image of a known format"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "Cannot read the image"),
    ],
)
def test_files_that_are_no_images_say_what_they_are(tmp_path, content, reason):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        read(path, Framing(SIDE))


def test_truncated_files_are_unreadable(tmp_path):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    path = tmp_path / "x.jpg"
    path.write_bytes(buffer.getvalue()[:-1000])
    with pytest.raises(Unreadable, match="truncated"):
        read(path, Framing(SIDE))


def test_identical_samples_have_one_digest_whatever_the_file(tmp_path):
    image = Image.fromarray(disc().astype(np.uint8)).convert("RGB")
    facts = facts_of([saved(tmp_path, image, suffix) for suffix in ("png", "bmp", "tif")])
    assert len(set(facts["samples"].tolist())) == 1
    assert len(set(facts["content"].tolist())) == 3


def test_gray_and_colour_become_each_other(tmp_path):
    picture = read(saved(tmp_path, Image.new("RGB", (4, 4), (255, 0, 0)), "png"), Framing(4))
    assert finished(picture, Framing(4), Depths(), 1).tolist() == [[[76] * 4] * 4]
    gray = read(saved(tmp_path, Image.new("L", (4, 4), 9), "png"), Framing(4))
    assert finished(gray, Framing(4), Depths(), 3).shape == (3, 4, 4)
