"""Spaces whose architectures all have the same parameters, each with its list of values."""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import BaseTrial

from optnas.spaces.base import A, Space, proposal

Choices = tuple[str, ...] | range


class ChoiceSpace(Space[A]):
    """A space without conditional parameters.

    Args:
        choices: The values of every parameter: a tuple makes it categorical, a range an integer.
    """

    def __init__(self, choices: Mapping[str, Choices]) -> None:
        self.choices = dict(choices)

    @abc.abstractmethod
    def _build(self, params: Mapping[str, Any]) -> A:
        """The architecture of ``params``, where no parameter is missing."""

    def suggest(self, trial: BaseTrial) -> A:
        proposed = proposal(trial)
        return self._build(
            {
                name: trial.suggest_int(name, *_bounds(values, proposed.get(name)))
                if isinstance(values, range)
                else trial.suggest_categorical(name, values)
                for name, values in self.choices.items()
            }
        )

    def from_params(self, params: Mapping[str, Any]) -> A:
        missing = [name for name in self.choices if name not in params]
        if missing:
            kind = self.architecture_class.__name__
            raise ValueError(f"No {kind} without the parameters {', '.join(missing)}.")
        return self._build(params)

    def distributions(self) -> dict[str, BaseDistribution]:
        return {
            name: IntDistribution(values[0], values[-1])
            if isinstance(values, range)
            else CategoricalDistribution(values)
            for name, values in self.choices.items()
        }

    def random(self, rng: np.random.Generator) -> A:
        return self._build({name: _drawn(values, rng) for name, values in self.choices.items()})

    def _changed(self, architecture: A, name: str, rng: np.random.Generator) -> A:
        """``architecture`` with another value of one parameter, uniform over the other values."""
        params = self.to_params(architecture)
        others = [value for value in self.choices[name] if value != params[name]]
        params[name] = _drawn(others, rng)
        return self._build(params)


def _bounds(values: range, proposed: int | None) -> tuple[int, int]:
    """Least and greatest value, of those of the space and one that a strategy proposes."""
    known = (values[0], values[-1]) if proposed is None else (values[0], values[-1], proposed)
    return min(known), max(known)


def _drawn(values: Choices | list[str | int], rng: np.random.Generator) -> str | int:
    return values[int(rng.integers(len(values)))]
