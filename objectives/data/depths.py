"""How deep the samples of a whole set are: a single dark picture cannot say, the set can."""

import numpy as np

from optnas.objectives.data.decoding import FRACTIONAL, WIDE, Depths
from optnas.objectives.data.errors import DataError, some
from optnas.units import plural

_BITS = (8, 10, 12, 14, 16)
_LEAST = 16
"""The least maximum from which a depth can be told; a set below it could be anything."""


def depths_of(facts: np.ndarray, names: list[str]) -> tuple[Depths, list[str]]:
    """By what the samples of a set become 8 bits, and what is to be said of it.

    Args:
        facts: (N,) of `FACTS`.
        names: The names of the files.

    Raises:
        DataError: If it cannot be told.
    """
    modes = np.char.decode(facts["mode"], "ascii")
    integers = np.char.startswith(modes, "I")
    floats = modes == "F"
    wide = (facts["flags"] & WIDE) != 0
    remarks: list[str] = []
    deepest, unit = 65535.0, 1.0
    if integers.any():
        deepest = _integers(facts, integers, names, remarks)
    if floats.any():
        unit = _floats(facts, floats, names, remarks)
    if wide.any():
        _check_wide(facts, wide, names)
        remarks.append(f"{plural(int(wide.sum()), 'image')} in colours of 16 bits read as 8")
    return Depths(deepest, unit), remarks


def _integers(
    facts: np.ndarray, chosen: np.ndarray, names: list[str], remarks: list[str]
) -> float:
    low, top = facts["low"][chosen].min(), facts["top"][chosen].max()
    if low < 0 or top > 65535:
        wrong = chosen & ((facts["low"] < 0) | (facts["top"] > 65535))
        raise DataError(
            f"{plural(int(wrong.sum()), 'image')} have samples from {low:g} to {top:g}, and only "
            f"0 to 65535 can be read: {_named(wrong, names)}. Scale them to 8 or 16 bits."
        )
    if 0 < top < _LEAST:
        raise DataError(
            f"The {plural(int(chosen.sum()), 'image')} of more than 8 bits have no sample above "
            f"{top:g}, so that nobody can tell what is white: {_named(chosen, names)}. Scale them "
            "to 8 bits."
        )
    bits = next(bits for bits in _BITS if top < 1 << bits)
    remarks.append(
        f"{plural(int(chosen.sum()), 'image')} of more than 8 bits: no sample is above {top:g}, "
        f"so {bits} bits are taken for the depth of the set"
    )
    return float((1 << bits) - 1)


def _floats(facts: np.ndarray, chosen: np.ndarray, names: list[str], remarks: list[str]) -> float:
    low, top = facts["low"][chosen].min(), facts["top"][chosen].max()
    fractional = (facts["flags"] & FRACTIONAL) != 0
    small = chosen & fractional & (facts["top"] <= 1)
    unclear = low < 0 or top > 255 or 1 < top < _LEAST or (top > 1 and small.any())
    if unclear:
        wrong = small if top > 1 and small.any() else chosen
        raise DataError(
            f"Images of floats must all be in [0, 1] or all in [0, 255], and these go from "
            f"{low:g} to {top:g}, {int(small.sum())} of {int(chosen.sum())} within [0, 1]: "
            f"{_named(wrong, names)}. Scale them alike."
        )
    unit = 1.0 if top <= 1 else 255.0
    remarks.append(f"{plural(int(chosen.sum()), 'image')} of floats, taken as in [0, {unit:g}]")
    return unit


def _check_wide(facts: np.ndarray, chosen: np.ndarray, names: list[str]) -> None:
    top = int(facts["top"][chosen].max())
    if top < 1 << 14:
        raise DataError(
            f"The {plural(int(chosen.sum()), 'image')} in colours of 16 bits have no sample "
            f"above {top}, so that their 8 upper bits, which can be read here, are nearly black: "
            f"{_named(chosen, names)}. Scale them to 8 bits."
        )


def _named(chosen: np.ndarray, names: list[str]) -> str:
    return some((names[i] for i in np.flatnonzero(chosen)), 3)
