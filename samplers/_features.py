"""Architectures as points whose weighted distances a Gaussian process compares."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from optnas.spaces.axes import Axis

Matrix = NDArray[np.float64]

BINS = 16
"""Parts of the range of a number, in which distance grows linearly from one to another."""
SHARED = 4.0
"""Distance of two architectures that have a choice everywhere and nowhere."""


class Features:
    """Parameters as features whose weighted squared distance is that of the parameters.

    Two choices that differ have distance 1, two numbers their distance as a part of the range,
    and a parameter that only one of two architectures has counts 1. Parameters of one kind, the
    operations of the layers, say, also have in common how often each choice is made among them,
    or their mean if they are numbers. So what is seen in one layer says something about others.

    Args:
        axes: The parameters.
        alike: Positions of the parameters of each kind that has several.
    """

    def __init__(self, axes: Sequence[Axis], alike: Sequence[Sequence[int]] = ()) -> None:
        self._axes = axes
        self._alike = [list(positions) for positions in alike]
        self._bins = [min(axis.size - 1, BINS) if axis.size else BINS for axis in axes]
        own = [
            1 + (bins if axis.ordered else axis.size)
            for axis, bins in zip(axes, self._bins, strict=True)
        ]
        self._shared_bins = [
            bins for positions in self._alike for bins in _bins_in_common(axes, positions)
        ]
        lengths = [*own, *self._shared_bins]
        self.starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(int)
        """Where the features of each parameter, and then of what they have in common, begin."""
        self.groups = np.repeat(np.arange(len(lengths)), lengths)
        """The parameter of every feature, or what is in common."""

    def of(self, codes: Matrix) -> Matrix:
        """Features, shape (n, f), of codes, shape (n, p), NaN for what an architecture lacks."""
        result = np.zeros((len(codes), len(self.groups)))
        active = ~np.isnan(codes)
        rows = np.arange(len(codes))
        for i, (axis, bins) in enumerate(zip(self._axes, self._bins, strict=True)):
            start, has = self.starts[i], active[:, i]
            column = np.where(has, codes[:, i], 0.0)
            if not axis.ordered:
                result[:, start] = has * np.sqrt(0.5)
                result[rows[has], start + 1 + column[has].astype(int)] = np.sqrt(0.5)
            elif bins:
                filled = _filled(column, bins)
                filled[~has] = 0.5
                result[:, start] = has * np.sqrt(0.75)
                result[:, start + 1 : start + 1 + bins] = filled / np.sqrt(bins)
        starts = self.starts[len(self._axes) :]
        for start, bins, shares in zip(
            starts, self._shared_bins, self._shares(codes), strict=True
        ):
            filled = _filled(shares, bins)
            result[:, start : start + bins] = filled * np.sqrt(SHARED / bins)
        return result

    def _shares(self, codes: Matrix) -> list[Matrix]:
        """What parameters of one kind have in common, from 0 to 1, shape (n,) each."""
        shares: list[Matrix] = []
        for positions in self._alike:
            axis, some = self._axes[positions[0]], codes[:, positions]
            if axis.ordered:
                count = (~np.isnan(some)).sum(axis=1)
                mean = np.nansum(some, axis=1) / np.maximum(count, 1)
                shares.append(np.where(count, mean, 0.5))
            else:
                shares += [(some == choice).mean(axis=1) for choice in range(axis.size)]
        return shares


def _bins_in_common(axes: Sequence[Axis], positions: Sequence[int]) -> list[int]:
    """How finely each choice's share is seen, or the mean of numbers."""
    axis = axes[positions[0]]
    return [BINS] if axis.ordered else [min(len(positions), BINS)] * axis.size


def _filled(numbers: Matrix, bins: int) -> Matrix:
    """Numbers from 0 to 1 as the filling of a row of vessels: whole ones differ by 1 each."""
    return np.clip(numbers[:, None] * bins - np.arange(bins), 0, 1)
