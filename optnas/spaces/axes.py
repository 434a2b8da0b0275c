"""Parameters as numbers, drawn and changed: what every space can do with its distributions."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FixedTrial

Codes = NDArray[np.float64]
NUMBERS = (int, float, np.number)

NEAR = 0.5
"""How often a number changes to one near it; otherwise to any other."""
REACH = 0.1
"""How far from a number one near it lies at most, as a part of the range, between real numbers."""


class Axis:
    """The values of one parameter as numbers, its codes.

    The code of a choice is its index. That of a number is its place in the range, from 0 to 1,
    on the scale of the distribution.

    Args:
        distribution: The parameter's distribution.

    Attributes:
        ordered: Whether the values are numbers.
        size: How many values there are; 0 where they lie too densely to be counted.
    """

    def __init__(self, distribution: BaseDistribution) -> None:
        self._distribution = distribution
        self.ordered = not isinstance(distribution, CategoricalDistribution)
        if isinstance(distribution, CategoricalDistribution):
            self.size = len(distribution.choices)
            return
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        low, high, step = distribution.low, distribution.high, distribution.step
        self.size = 0
        if low == high:
            self.size = 1
        elif step is not None and not distribution.log:
            self.size = round((high - low) / step) + 1
        self._ends = (math.log(low), math.log(high)) if distribution.log else (low, high)

    def code(self, value: Any) -> float:
        """The code of a value; NaN if the parameter cannot have it."""
        if self.ordered and (isinstance(value, bool) or not isinstance(value, NUMBERS)):
            return math.nan
        try:
            number = self._distribution.to_internal_repr(value)
        except (ValueError, TypeError):
            return math.nan
        if not self._distribution._contains(number):
            return math.nan
        if not self.ordered:
            return number
        if getattr(self._distribution, "log", False):
            number = math.log(number)
        low, high = self._ends
        return (number - low) / (high - low) if high > low else 0.0

    def value(self, code: float) -> Any:
        """The value of a code, or the one nearest to it."""
        distribution = self._distribution
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[int(code)]
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        low, high = self._ends
        number = low + code * (high - low)
        if distribution.log:
            number = math.exp(number)
        elif distribution.step is not None:
            number = low + distribution.step * round((number - low) / distribution.step)
        number = min(max(number, distribution.low), distribution.high)
        return round(number) if isinstance(distribution, IntDistribution) else float(number)

    def draw(self, n: int, rng: np.random.Generator) -> Codes:
        """Codes drawn uniformly, shape (n,)."""
        if not self.size:
            return rng.random(n)
        return self._of_indices(rng.integers(self.size, size=n))

    def change(self, codes: Codes, rng: np.random.Generator) -> Codes:
        """Other codes than these, shape (n,), of a parameter with two values or more."""
        n = len(codes)
        near = rng.random(n) < NEAR
        sign = np.where(rng.random(n) < 0.5, -1.0, 1.0)
        if not self.size:
            beside = codes + sign * REACH * (1 - rng.random(n))
            beside = np.where(beside < 0, -beside, np.where(beside > 1, 2 - beside, beside))
            return np.where(near, beside, rng.random(n))
        indices = np.rint(codes * max(1, self.size - 1)) if self.ordered else codes
        others = (indices + rng.integers(1, self.size, size=n)) % self.size
        if self.ordered:
            step = np.where((indices + sign < 0) | (indices + sign >= self.size), -sign, sign)
            others = np.where(near, indices + step, others)
        return self._of_indices(others)

    def _of_indices(self, indices: NDArray[Any]) -> Codes:
        return np.asarray(indices / max(1, self.size - 1) if self.ordered else indices, float)


class DrawingTrial(FixedTrial):
    """A trial that keeps the parameters given, and draws those that are missing or out of range.

    Args:
        params: The parameters.
        rng: What the others are drawn with, uniformly.
    """

    def __init__(self, params: Mapping[str, Any], rng: np.random.Generator) -> None:
        super().__init__(dict(params))
        self._rng = rng

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._suggested_params:
            axis = Axis(distribution)
            value = self._params.get(name)
            if name not in self._params or math.isnan(axis.code(value)):
                value = axis.value(float(axis.draw(1, self._rng)[0]))
            self._suggested_params[name] = value
            self._distributions[name] = distribution
        return self._suggested_params[name]
