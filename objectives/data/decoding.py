"""Image files as pixels: whatever the format, the mode and the depth, the picture stays."""

import dataclasses
import functools
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import xxhash

from optnas.objectives.data.crops import crop_box
from optnas.objectives.data.refusals import reason_of

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("apng", "bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm"),
        *("ppm", "tif", "tiff", "webp"),
    )
)
HEIF_SUFFIXES = frozenset((".heic", ".heif"))
# Pillow would try every format it knows, and start Ghostscript on PostScript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_GRAYS = ("1", "L", "LA", "La")
_ORIENTATION = 0x0112
_GAP = 3.0
"""Where images shrink more than this, whole pixels are averaged before: faster, as good to see."""
_BITS_PER_SAMPLE = 258

TRANSPARENT, FRAMES, ROTATED, FRACTIONAL, WIDE, GRAY = (1 << bit for bit in range(6))
"""Flags of `FACTS`: something shows through; further frames; turned by EXIF; samples that are no
whole numbers; colours of 16 bits, of which 8 are read; gray."""

FACTS = np.dtype(
    [
        ("content", "S32"),
        ("samples", "S32"),
        ("mode", "S8"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("low", "<f8"),
        ("top", "<f8"),
        ("flags", "u1"),
    ]
)
"""What is known of a file: digests (128 bits in hexadecimal) of its bytes and of its decoded
samples, mode, size in pixels, least and greatest sample, and flags."""

Resize = Literal["squash", "crop", "pad"]


@dataclasses.dataclass(frozen=True)
class Framing:
    """How pictures of any size and kind become squares.

    Args:
        size: Height and width in pixels; 0 leaves them as they are.
        resize: ``squash`` both sides, ``crop`` the middle, or ``pad`` with the background.
        background: Red, green and blue of what shows through, in 0 to 255.
        fraction: Share of the sides that is kept in the middle; the rest is cut off before.
    """

    size: int
    resize: Resize = "squash"
    background: tuple[int, int, int] = (255, 255, 255)
    fraction: float = 1.0

    def __repr__(self) -> str:
        # Fingerprints of images are made of this: the usual goes unsaid.
        fraction = "" if self.fraction == 1 else f", fraction={self.fraction!r}"
        return (
            f"Framing(size={self.size!r}, resize={self.resize!r}, "
            f"background={self.background!r}{fraction})"
        )

    @property
    def is_gray(self) -> bool:
        """Whether the background is."""
        return len(set(self.background)) == 1

    @property
    def gray(self) -> int:
        """The background of pictures in gray."""
        red, green, blue = self.background
        return round((299 * red + 587 * green + 114 * blue) / 1000)


@dataclasses.dataclass(frozen=True)
class Depths:
    """The greatest sample of a whole set, by which its pictures become 8 bits.

    Args:
        integers: That of images of more than 8 bits.
        floats: That of images of floats.
    """

    integers: float = 65535
    floats: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A decoded and resized image.

    Args:
        values: Samples (h, w) or (h, w, 3): uint8, or float32 in the units of the file.
        cover: Of deep samples (h, w): what share of a pixel is opaque; None is all.
        facts: One row of `FACTS`.
    """

    values: np.ndarray
    cover: np.ndarray | None
    facts: np.ndarray


class Unreadable(OSError):
    """A file that holds no image that can be read here."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"Cannot read the image {path}: {reason}")
        self.reason = reason


@functools.cache
def reads_heif() -> bool:
    """Whether `pillow-heif`, an extra, is here; it is made ready."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


def suffixes() -> frozenset[str]:
    """The suffixes of images that can be read here, in lower case."""
    return SUFFIXES | HEIF_SUFFIXES if reads_heif() else SUFFIXES


def read(
    path: str | Path, framing: Framing, *, crop: int | None = None, digests: bool = True
) -> Picture:
    """Decode a file once: its picture at the wanted size, and what there is to know of it.

    Args:
        path: The file.
        framing: The wanted size.
        crop: The seed of a random crop, which is resized to that size, instead of the whole.
        digests: Whether digests are among what there is to know.

    Raises:
        Unreadable: If it is no image, or a damaged one.
        OSError: If the file cannot be had.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        return _read(content, framing, crop, digests)
    except Exception as error:  # whatever a decoder may raise about a damaged file
        raise Unreadable(path, reason_of(content, error, reads_heif())) from error


def read_opened(picture: "Image.Image", framing: Framing) -> Picture:
    """The same for an image that another library has opened."""
    return _framed(picture, framing, b"")


def finished(picture: Picture, framing: Framing, depths: Depths, channels: int) -> np.ndarray:
    """The pixels (channels, size, size), uint8, of a picture that was read.

    Args:
        picture: What was read, at the same framing.
        framing: The size and the background.
        depths: How deep the whole set is.
        channels: 1 or 3; gray is repeated, colour becomes gray.
    """
    values = picture.values
    if values.dtype != np.uint8:
        is_float = picture.facts["mode"] == b"F"
        values = values * (255 / (depths.floats if is_float else depths.integers))
        if picture.cover is not None:
            values = values + (1 - picture.cover) * framing.gray
        values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if values.ndim == 3 and channels == 1:
        from PIL import Image

        values = np.asarray(Image.fromarray(values).convert("L"))
    values = values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)
    if framing.resize == "pad" and framing.size:
        values = _padded(values, framing)
    return np.broadcast_to(values, (channels, *values.shape[1:]))


def _padded(values: np.ndarray, framing: Framing) -> np.ndarray:
    size = framing.size
    height, width = values.shape[1:]
    fill = framing.background if len(values) == 3 else (framing.gray,)
    result = np.empty((len(values), size, size), np.uint8)
    result[:] = np.array(fill, np.uint8)[:, None, None]
    top, left = (size - height) // 2, (size - width) // 2
    result[:, top : top + height, left : left + width] = values
    return result


def _read(content: bytes, framing: Framing, crop: int | None, digests: bool) -> Picture:
    from PIL import Image

    formats = (*FORMATS, "HEIF") if reads_heif() else FORMATS
    with Image.open(io.BytesIO(content), formats=formats) as source:
        return _framed(source, framing, content, crop, digests)


def _framed(
    source: "Image.Image",
    framing: Framing,
    content: bytes,
    crop: int | None = None,
    digests: bool = True,
) -> Picture:
    facts = np.zeros((), FACTS)
    flags = 0
    if getattr(source, "is_animated", False) and source.format not in ("MPO", "HEIF"):
        flags |= FRAMES
    flags |= WIDE if _is_wide(source, content) else 0
    source.load()
    if digests:
        facts["content"], facts["samples"] = _digests(source, content)
    facts["mode"], (facts["width"], facts["height"]) = source.mode, source.size
    cover = None
    if source.mode[0] in "IF":
        image, cover = _deep(source, facts)
        flags |= GRAY | (TRANSPARENT if cover is not None else 0)
        values = np.asarray(image)
        flags |= FRACTIONAL if source.mode == "F" and (values != np.rint(values)).any() else 0
    else:
        image, shows = _composed(source, framing)
        flags |= TRANSPARENT if shows else 0
        flags |= GRAY if source.mode in _GRAYS else 0
        facts["low"], facts["top"] = _extremes(source) if flags & WIDE else (0, 255)
    turn = _turn(source)
    flags |= ROTATED if turn is not None else 0
    facts["flags"] = flags
    if turn is not None:
        image = image.transpose(turn)
        cover = None if cover is None else cover.transpose(turn)
    values = np.asarray(_resized(image, framing, crop))
    shares = None if cover is None else np.asarray(_resized(cover, framing, crop))
    return Picture(values, shares, facts)


def _digests(source: "Image.Image", content: bytes) -> tuple[str, str]:
    """What tells a file's bytes from others, and its samples."""
    # Pixels as they lie in memory: packing them to three bytes takes longer than hashing them.
    raw = source.tobytes("raw", "RGBX") if source.mode == "RGB" else source.tobytes()
    samples = xxhash.xxh3_128(raw)
    kind = (source.mode, source.size, source.info.get("transparency"))
    if source.mode in ("P", "PA"):
        palette = source.getpalette("RGBA") or ()
        kind = (*kind, bytes(palette))  # type: ignore[assignment]
    samples.update(repr(kind).encode())
    # It tells other files, not forged ones, and takes a twentieth of the time of SHA-256.
    of_content = xxhash.xxh3_128_hexdigest(content or samples.digest())
    return of_content, samples.hexdigest()


def _resized(image: "Image.Image", framing: Framing, crop: int | None) -> "Image.Image":
    """Pillow's filters widen when they shrink an image, so this is antialiased."""
    from PIL import Image

    size, (width, height) = framing.size, image.size
    if not size:
        return image
    shape, box = (size, size), None
    if crop is not None:
        top, left, rows, columns = crop_box(height, width, crop)
        window = image.crop((left, top, left + columns, top + rows))
        return window.resize(shape, Image.Resampling.BILINEAR)
    if framing.resize == "crop" or framing.fraction < 1:
        shown = (min(width, height),) * 2 if framing.resize == "crop" else (width, height)
        across, down = (framing.fraction * side for side in shown)
        x, y = (width - across) / 2, (height - down) / 2
        box = (x, y, x + across, y + down)
    elif framing.resize == "pad":
        longest = max(width, height)
        shape = (max(1, round(size * width / longest)), max(1, round(size * height / longest)))
    return image.resize(shape, Image.Resampling.BILINEAR, box=box, reducing_gap=_GAP)


def _composed(source: "Image.Image", framing: Framing) -> tuple["Image.Image", bool]:
    """An image of 8 bits in gray or RGB, and whether the background shows through it."""
    from PIL import Image

    image, is_gray = source, source.mode in _GRAYS
    if image.mode in ("RGBa", "La"):  # premultiplied
        image = image.convert(image.mode.upper())
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert(
            "L" if is_gray else "RGB"
        ), False
    if image.mode == "1":
        image = _gray_with_key(image)
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return image.convert("RGB").convert("L" if is_gray else "RGB"), False
    below = Image.new("RGBA", image.size, (*framing.background, 255))
    image = Image.alpha_composite(below, image).convert("RGB")
    is_gray = is_gray and framing.is_gray
    return image.convert("L") if is_gray else image, True


def _gray_with_key(image: "Image.Image") -> "Image.Image":
    """A bitmap in gray; its transparent value is 0 or 1 in the file."""
    key = image.info.get("transparency")
    gray = image.convert("L")
    gray.info["transparency"] = 255 if key else 0
    return gray


def _deep(source: "Image.Image", facts: np.ndarray) -> tuple["Image.Image", "Image.Image | None"]:
    """Samples of more than 8 bits as float32, and the opaque share of every pixel."""
    from PIL import Image

    values = np.asarray(source).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("it has samples that are no numbers")
    key = source.info.get("transparency")
    cover = None
    if isinstance(key, int) and (values == key).any():
        opaque = (values != key).astype(np.float32)
        values, cover = values * opaque, Image.fromarray(opaque)
    facts["low"], facts["top"] = values.min(), values.max()
    if source.format == "PPM" and source.mode == "I":
        facts["top"] = 65535  # The file says how deep it is, and Pillow scales by that.
    return Image.fromarray(values), cover


def _is_wide(source: "Image.Image", content: bytes) -> bool:
    """Whether these are colours of 16 bits, which Pillow reads as 8."""
    if source.mode[0] in "IF":
        return False
    if source.format == "PNG":
        return content[24:25] == b"\x10"
    if source.format == "TIFF":
        bits = source.tag_v2.get(_BITS_PER_SAMPLE, ())  # type: ignore[attr-defined]
        return max(bits, default=8) > 8
    return False


def _extremes(source: "Image.Image") -> tuple[int, int]:
    """The least and the greatest sample of any colour, as 16 bits."""
    ranges = source.getextrema()
    bands = source.getbands()
    pairs = ranges if isinstance(ranges[0], tuple) else (ranges,)
    colours = [pair for pair, band in zip(pairs, bands, strict=True) if band not in "Aa"]
    low, top = min(low for low, _ in colours), max(top for _, top in colours)
    return 256 * int(low), 256 * int(top) + 255


def _turn(source: "Image.Image") -> "Image.Transpose | None":
    """How EXIF says that the picture is to be turned."""
    from PIL import Image

    try:
        orientation = source.getexif().get(_ORIENTATION, 1)
    except Exception:  # A damaged note about a sound picture.
        return None
    method = Image.Transpose
    return {
        2: method.FLIP_LEFT_RIGHT,
        3: method.ROTATE_180,
        4: method.FLIP_TOP_BOTTOM,
        5: method.TRANSPOSE,
        6: method.ROTATE_270,
        7: method.TRANSVERSE,
        8: method.ROTATE_90,
    }.get(orientation)
