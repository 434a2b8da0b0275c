"""Architectures as rows of numbers, one column for each parameter of the space."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from optnas.spaces.axes import Axis

Codes = NDArray[np.float64]


class Encoding:
    """What turns the parameters of architectures into codes, and changes these.

    A parameter that an architecture does not have is NaN.

    Args:
        distributions: The distribution of every parameter of the space.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._names = list(distributions)
        self.axes = [Axis(distribution) for distribution in distributions.values()]

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
