"""Reduced settings in which candidates are judged cheaply: EcoNAS's four reduction factors."""

import dataclasses
import math
import re
from typing import Any

FACTORS = ("c", "r", "s", "e")
LARGEST = 4
"""The paper reduces channels, resolution and samples in up to four steps."""

_FORM = re.compile(r"c(\d)r(\d)s(\d)e([1-9]\d*)")


@dataclasses.dataclass(frozen=True)
class Proxy:
    """A reduced setting, written as in ``c4r4s0e60``.

    Every step of ``c``, ``r`` or ``s`` about halves the cost. The zero setting reduces nothing.

    Source: EcoNAS, section 3.1 and table 1.

    Args:
        c: Steps by which the channels are divided by the square root of 2.
        r: The same for the images' height and width.
        s: Steps by which the training images are halved.
        e: Epochs.

    Raises:
        ValueError: If a step is not in 0 to 4, or ``e`` is below 1.
    """

    c: int
    r: int
    s: int
    e: int

    def __post_init__(self) -> None:
        for name in FACTORS[:3]:
            if not 0 <= getattr(self, name) <= LARGEST:
                raise ValueError(f"`{name}` must be in 0 to {LARGEST}: {getattr(self, name)}.")
        if self.e < 1:
            raise ValueError(f"`e` must be greater than or equal to 1: {self.e}.")

    @classmethod
    def parse(cls, text: str) -> "Proxy":
        """The proxy that ``text`` names.

        Raises:
            ValueError: If it is not of the form ``c4r4s0e60``.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(
                "expected a proxy such as 'c4r4s0e60': channels, resolution and samples in 0 to "
                f"{LARGEST} steps, and epochs"
            )
        return cls(*map(int, match.groups()))

    def __str__(self) -> str:
        return "".join(f"{name}{getattr(self, name)}" for name in FACTORS)

    def channels(self, full: int) -> int:
        """The reduced number of channels."""
        return reduced(full, self.c)

    def side(self, full: int) -> int:
        """The reduced height or width in pixels."""
        return reduced(full, self.r)

    def samples(self, full: float) -> float:
        """The reduced fraction of the training images."""
        return full / float(2**self.s)


def reduced(full: int, steps: int) -> int:
    """``full / sqrt(2) ** steps`` where that is an integer, else the nearest multiple of 4.

    At least 1; below 4 the nearest integer, since the nearest multiple of 4 may be 0.

    Source: EcoNAS, table 1. Its caption multiplies where the values divide.

    Args:
        full: The value that is not reduced, at least 1.
        steps: Number of steps.
    """
    exact, odd = divmod(full, 1 << steps // 2)
    if steps % 2 == 0 and odd == 0:
        return exact
    value = full / math.sqrt(2) ** steps
    return max(1, round(value)) if value < 4 else 4 * max(1, math.floor(value / 4 + 0.5))


def proxy_from(value: Any) -> Proxy:
    """A proxy from a study file: its text, or a mapping of the factors with ``e`` among them.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(value, dict) and {"e"} <= value.keys() <= set(FACTORS):
        numbers = {"c": 0, "r": 0, "s": 0} | value
        value = "".join(f"{name}{numbers[name]}" for name in FACTORS)
    return Proxy.parse(str(value))
