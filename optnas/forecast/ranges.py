"""Ranges of what nobody knows yet."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from optnas.units import duration

WIDEST = 6.0
"""A range says nothing any more if its ends are further apart."""


class Span(NamedTuple):
    """Where a number lies, in all likelihood.

    Args:
        low: The lower end.
        high: The upper end.
    """

    low: float
    high: float

    def scaled(self, low: float, high: float | None = None) -> "Span":
        """Its ends times ``low`` and ``high``."""
        return Span(self.low * low, self.high * (low if high is None else high))

    def plus(self, other: "Span") -> "Span":
        """The sum of both."""
        return Span(self.low + other.low, self.high + other.high)

    def text(self, shown: Callable[[float], str]) -> str:
        """Both ends in words, or one where they read alike."""
        low, high = shown(self.low), shown(self.high)
        return low if low == high else f"{low} to {high}"

    def counts(self) -> str:
        """It as whole numbers."""
        return self.text(lambda number: f"{round(number):,}")

    def times(self) -> str:
        """It as times, of which it gives the seconds."""
        return self.text(duration)


def span_of(values: Sequence[float], lower: float = 5, upper: float = 95) -> Span:
    """Between these percentiles of values that are equally likely."""
    low, high = np.percentile(np.asarray(values, float), (lower, upper))
    return Span(float(low), float(high))


def most_likely(values: Sequence[float], widest: float = WIDEST) -> Span:
    """Where values lie that are equally likely: between the 5th and the 95th percentile.

    If that is wider than ``widest``-fold: the range of this width in which most of them lie, and
    of several such ranges the middle one.
    """
    span = span_of(values)
    if span.low <= 0 or span.high <= widest * span.low:
        return span
    logs = np.sort(np.log(np.maximum(np.asarray(values, float), span.low / WIDEST)))
    reach = math.log(widest)
    # A range may begin at every value, or end at one.
    lows = np.sort(np.concatenate([logs, logs - reach]))
    inside = np.searchsorted(logs, lows + reach + 1e-9, "right") - np.searchsorted(
        logs, lows - 1e-9, "left"
    )
    best = lows[inside == inside.max()]
    low = math.exp(best[len(best) // 2])
    return Span(low, low * widest)


def at_least_wide(span: Span, least: float) -> Span:
    """The same, widened around its geometric middle if it is narrower than ``least``-fold."""
    if span.low <= 0 or span.high >= least * span.low:
        return span
    middle, reach = math.sqrt(span.low * span.high), math.sqrt(least)
    return Span(middle / reach, middle * reach)


def at_most_wide(span: Span, widest: float = WIDEST) -> Span:
    """The same, narrowed around its geometric middle if it is wider than ``widest``-fold."""
    if span.low <= 0 or span.high <= widest * span.low:
        return span
    middle, reach = math.sqrt(span.low * span.high), math.sqrt(widest)
    return Span(middle / reach, middle * reach)
