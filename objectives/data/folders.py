"""A user's own images in files: found by folders or by a table, looked at, and read."""

import dataclasses
import functools
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from optnas.config.settings import DataSettings
from optnas.objectives.data.decoding import Framing
from optnas.objectives.data.errors import DataError, some
from optnas.objectives.data.found import FoundImages, rows_of
from optnas.objectives.data.image_files import ImageFiles, Pixels, decode
from optnas.objectives.data.listing import Entry, Listing, by_folders, left_out_lines
from optnas.objectives.data.reading import conversions, sizes_and_modes
from optnas.objectives.data.scanning import Scan, scan
from optnas.objectives.data.tables import by_table
from optnas.units import plural, shown

UNREADABLE_SHARE = 0.05
"""Up to this share of a class may be unreadable and is left out."""
DEFAULT_SIZE = 32
HOW = {"squash": "squashed", "crop": "cropped in the middle", "pad": "padded"}


def framing_of(settings: DataSettings) -> Framing:
    """How the settings say that pictures become squares.

    Raises:
        DataError: If there is no such colour.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(settings.background)[:3]
    except ValueError:
        raise DataError(
            f"`background` must be a colour such as white, black or #ff8800: "
            f"{shown(settings.background)!r}."
        ) from None
    if settings.resize == "pad" and settings.crop_fraction < 1:
        raise DataError("`crop_fraction` is for `resize: crop` or `squash`, not for `pad`.")
    size = settings.size or DEFAULT_SIZE
    return Framing(size, settings.resize, (red, green, blue), settings.crop_fraction)


def preparation(framing: Framing) -> dict[str, Any]:
    """What a network that learns from such images has to know of them."""
    fraction = {} if framing.fraction == 1 else {"fraction": framing.fraction}
    return {"resize": framing.resize, "background": framing.background, **fraction}


def load_files(root: Path, settings: DataSettings) -> FoundImages:
    """Images in folders per class, or as a table says, resized once and cached, or streamed.

    Args:
        root: The folder.
        settings: What else is said of them.

    Raises:
        DataError: If they cannot be used; the message says why.
    """
    if settings.labels is None:
        listing = by_folders(root)
    else:
        listing = by_table(root, Path(settings.labels).expanduser())
    framing = framing_of(settings)
    looked = scan(listing.entries, root, framing, keep=not settings.stream)
    _check_readable(listing, looked, settings)
    channels = _channels(settings, looked.channels)
    pixels: Pixels
    if looked.pixels is None:
        read = functools.partial(decode, framing=framing, depths=looked.depths)
        paths = [entry.path for entry in looked.entries]
        contents = looked.facts["content"]
        pixels = ImageFiles(paths, channels, framing.size, read=read, contents=contents)
    else:
        pixels = _with_channels(torch.from_numpy(looked.pixels), channels)
    places = {name: place for place, name in enumerate(listing.class_names)}
    names = [entry.name for entry in looked.entries]
    labels = [places[entry.label] for entry in looked.entries]
    splits = [entry.split for entry in looked.entries]
    facts = looked.facts
    return FoundImages(
        pixels,
        rows_of(facts["content"], facts["samples"], names, labels, splits),
        names,
        listing.class_names,
        str(root),
        {
            **sizes_and_modes(facts),
            "framing": HOW[settings.resize],
            "preparation": {**preparation(framing), **dataclasses.asdict(looked.depths)},
            "left_out": tuple(left_out_lines(listing.left_out)),
            "unreadable": tuple(
                (shown(entry.name), shown(why)) for entry, why in looked.unreadable
            ),
            "converted": (*conversions(facts, framing, channels), *looked.remarks),
            "remarks": tuple(listing.remarks),
        },
    )


def _channels(settings: DataSettings, found: int) -> int:
    if settings.channels is None:
        return found
    if settings.channels not in (1, 3):
        raise DataError(
            f"`channels` of image files must be 1 (gray) or 3 (colour): {settings.channels}."
        )
    return settings.channels


def _with_channels(pixels: torch.Tensor, channels: int) -> torch.Tensor:
    if pixels.shape[1] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(-1, 3, -1, -1).contiguous()
    # As Pillow rounds, which reads single files.
    weights = torch.tensor([19595, 38470, 7471]).view(1, 3, 1, 1)
    pieces = torch.split(pixels, 4096)
    return torch.cat([((p * weights).sum(1, keepdim=True) + 0x8000 >> 16).byte() for p in pieces])


def _check_readable(listing: Listing, looked: Scan, settings: DataSettings) -> None:
    """Refuse more unreadable files than may be left out, all of them named."""
    broken = looked.unreadable
    if not broken:
        return
    sizes = Counter(entry.label for entry in listing.entries)
    lost = Counter(entry.label for entry, _ in broken)
    beyond = [name for name, number in lost.items() if number > UNREADABLE_SHARE * sizes[name]]
    if settings.unreadable == "refuse":
        why = "`unreadable: refuse` takes none of them."
    elif beyond:
        shares = some(f"{name} {lost[name]} of {sizes[name]}" for name in beyond)
        why = f"At most {UNREADABLE_SHARE:.0%} of a class may be left out ({shares})."
    else:
        return
    raise DataError(f"{_named(broken)}{why} Repair these files or remove them.")


def _named(broken: list[tuple[Entry, str]]) -> str:
    entry, reason = broken[0]
    first = f"Cannot read the image {shown(entry.path)}: {reason}. "
    if len(broken) == 1:
        return first
    every = "".join(f"\n  {shown(entry.name)}: {reason}" for entry, reason in broken)
    return f"{first}{plural(len(broken), 'file')} cannot be read:{every}\n"
