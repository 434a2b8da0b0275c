"""What every search space and every architecture offers."""

import abc
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial, FrozenTrial, Trial

from optnas.extensions.importing import load_entry
from optnas.spaces.axes import Axis, DrawingTrial

ParamValue = bool | int | float | str | None

DRAWS = 100
"""How often another value is drawn, before a space counts as holding one architecture only."""


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields for JSON, without the deep copies of `dataclasses.asdict`."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network's structure: frozen, hashable, and the same after a round trip through JSON.

    Subclasses are frozen dataclasses whose constructor validates its arguments and turns
    sequences into tuples, so that ``Kind(**json.loads(text))`` works.
    """

    def to_json(self) -> str:
        """The fields as one JSON object, keys sorted."""
        return json.dumps(self, default=_fields, sort_keys=True)

    def _repr_svg_(self) -> str | None:
        """The drawing, which a notebook shows; None of a kind that has none."""
        draw = load_entry("part", "optnas.networks", "svg")
        return None if draw is None else str(draw(self)) or None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The architecture that ``to_json`` wrote.

        Raises:
            ValueError: If ``text`` is not a JSON object with this architecture's fields.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        fields = json.loads(text)
        if not isinstance(fields, dict) or not fields.keys() <= names:
            raise ValueError(f"Expected a JSON object with the fields {sorted(names)}: {text}")
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"Not a {cls.__name__}: {error}") from None


A = TypeVar("A", bound=Architecture)


class Space(abc.ABC, Generic[A]):
    """A set of architectures, and how one is written as the parameters of an Optuna trial."""

    architecture_class: ClassVar[type[Architecture]]
    inherits: ClassVar[bool] = False
    """Whether a network starts from the weights of another, which must be kept for it."""

    @abc.abstractmethod
    def suggest(self, trial: BaseTrial) -> A:
        """Suggest every parameter of an architecture on ``trial`` and return the architecture."""

    @abc.abstractmethod
    def to_params(self, architecture: A) -> dict[str, ParamValue]:
        """The trial parameters that say ``architecture``, in the order of ``suggest``."""

    @abc.abstractmethod
    def from_params(self, params: Mapping[str, Any]) -> A:
        """The architecture that the parameters of a trial say; other parameters are ignored.

        Raises:
            ValueError: If a parameter is missing or no architecture has these parameters.
        """

    def from_trial(self, trial: FrozenTrial) -> A:
        """The architecture of a trial of a study.

        Raises:
            ValueError: If the trial has not named a whole one.
        """
        return self.from_params(trial.params)

    def named_by(self, trial: FrozenTrial) -> A | None:
        """The architecture of a trial, or None if it names none: people may add any trial."""
        try:
            return self.from_trial(trial)
        except (ValueError, TypeError, LookupError, RecursionError):  # JSON may be nested deeply.
            return None

    @abc.abstractmethod
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distribution of every parameter that any architecture of the space can have."""

    @abc.abstractmethod
    def random(self, rng: np.random.Generator) -> A:
        """An architecture drawn uniformly over each parameter."""

    def completed(self, params: Mapping[str, Any], rng: np.random.Generator) -> A:
        """The architecture with these parameters, as far as the space has it.

        Those that are missing or out of range are drawn uniformly; superfluous ones are ignored.
        """
        return self.suggest(DrawingTrial(params, rng))

    def mutate(self, architecture: A, rng: np.random.Generator) -> A:
        """Another architecture of the space that differs in one parameter, and what hangs on it.

        Every parameter is equally likely; of a number, a value beside it is as likely as all
        others together.

        Raises:
            ValueError: If the space has no other architecture.
        """
        params = self.to_params(architecture)
        trial = DrawingTrial(params, rng)
        self.suggest(trial)
        axes = {name: Axis(d) for name, d in trial.distributions.items()}
        names = [name for name, axis in axes.items() if axis.size != 1]
        for _ in range(DRAWS):
            if not names:
                break
            name = names[int(rng.integers(len(names)))]
            code = np.array([axes[name].code(trial.params[name])])
            value = axes[name].value(float(axes[name].change(code, rng)[0]))
            other = self.completed({**trial.params, name: value}, rng)
            if self.to_params(other) != params:
                return other
        raise ValueError(f"{self!r} has no architecture beside {architecture}.")

    def random_params(self, rng: np.random.Generator) -> dict[str, ParamValue]:
        """The parameters of a trial of a random network, for a strategy that knows no better."""
        return self.to_params(self.random(rng))

    def mutated_params(
        self, trial: FrozenTrial, rng: np.random.Generator
    ) -> dict[str, ParamValue]:
        """The parameters of a trial of a mutant of the network of ``trial``.

        Raises:
            ValueError: If the space has no other network, or the trial names none.
        """
        return self.to_params(self.mutate(self.from_trial(trial), rng))

    def extremes(self) -> tuple[A | None, A | None]:
        """The network that costs least and the one that costs most; None where nobody knows."""
        return None, None

    def baselines(self) -> Mapping[str, A]:
        """Networks of this kind that people designed, by name; they may lie outside the space."""
        return {}


def proposal(trial: BaseTrial) -> Mapping[str, Any]:
    """What the sampler proposes for ``trial``, decided now if it was not yet.

    ``suggest`` asks for this first: a proposal that is claimed before the first parameter is
    written is never seen half-made by another worker. Trials without a sampler propose nothing.
    """
    return trial.relative_params if isinstance(trial, Trial) else {}
