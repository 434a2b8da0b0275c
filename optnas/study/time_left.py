"""How long a search will still take, as a range."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from optnas.study.opening import OpenStudy

Span = tuple[float, float]
"""Seconds, from and to."""


def time_left(handle: OpenStudy, trials: Sequence[FrozenTrial], elapsed: float) -> Span | None:
    """How long it will take."""
    return None
