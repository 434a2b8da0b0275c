"""Architectures as rows of numbers, one column for each parameter of the space."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from optnas.spaces.axes import Axis

Codes = NDArray[np.float64]

MANY = 3
"""Parameters that make a kind."""
DRAWN = 20
"""Values of a parameter of which the one farthest from those in use is taken."""


class Encoding:
    """What turns the parameters of architectures into codes, and changes these.

    A parameter that an architecture does not have is NaN.

    Args:
        distributions: The distribution of every parameter of the space.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._names = list(distributions)
        self.axes = [Axis(distribution) for distribution in distributions.values()]
        kinds: dict[tuple[str, BaseDistribution], list[int]] = {}
        for position, (name, distribution) in enumerate(distributions.items()):
            kinds.setdefault((re.sub(r"\d+", "", name), distribution), []).append(position)
        self.alike = [
            positions
            for positions in kinds.values()
            if len(positions) >= MANY and self.axes[positions[0]].size != 1
        ]
        """Positions of parameters with the same values whose names differ in numbers alone."""

    def codes(self, params: Mapping[str, Any]) -> Codes:
        """The codes of an architecture, shape (p,)."""
        pairs = zip(self._names, self.axes, strict=True)
        return np.array([axis.code(params[n]) if n in params else np.nan for n, axis in pairs])

    def params(self, codes: Codes) -> dict[str, Any]:
        """The parameters that codes of shape (p,) say."""
        rows = zip(self._names, self.axes, codes.tolist(), strict=True)
        return {name: axis.value(code) for name, axis, code in rows if code == code}

    def drawn(self, n: int, rng: np.random.Generator) -> Codes:
        """Codes with every parameter drawn uniformly, shape (n, p)."""
        return np.stack([axis.draw(n, rng) for axis in self.axes], axis=1)

    def spread(self, rows: Codes, rng: np.random.Generator) -> Codes:
        """Codes whose every parameter is far from its values in ``rows``, or seldom there.

        Args:
            rows: Shape (n, p).
            rng: What they are drawn with.
        """
        result = np.empty(len(self.axes))
        for column, axis in enumerate(self.axes):
            drawn = axis.draw(DRAWN, rng)
            used = rows[~np.isnan(rows[:, column]), column]
            apart = np.abs(drawn[:, None] - used)
            if not axis.ordered:
                apart = np.minimum(apart, 1.0)
            nearest = apart.min(axis=1, initial=1.0)
            uses = (apart == 0).sum(axis=1)
            result[column] = drawn[np.lexsort((uses, -nearest))[0]]
        return result

    def mutants(
        self, parents: Codes, changes: NDArray[np.int64], rng: np.random.Generator
    ) -> Codes:
        """Children of ``parents``, shape (n, p), with so many changes each, shape (n,).

        A change may undo another.
        """
        children = parents.copy()
        free = np.array([axis.size != 1 for axis in self.axes])
        for step in range(int(changes.max(initial=0))):
            # The greatest of random numbers is a uniform choice among what may change.
            keys = np.where(~np.isnan(children) & free, rng.random(children.shape), -1.0)
            columns = keys.argmax(axis=1)
            due = (changes > step) & (keys.max(axis=1) >= 0)
            for column in np.unique(columns[due]):
                rows = due & (columns == column)
                children[rows, column] = self.axes[column].change(children[rows, column], rng)
        return children
