"""A space with parameters of every kind, some of which others switch on."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from optnas.spaces import Architecture, ParamValue, Space

LAYERS = 5
KINDS = ("plain", "residual", "dense")


@dataclasses.dataclass(frozen=True)
class Mixed(Architecture):
    """A number of layers with a width each, and what hangs on their kind."""

    depth: int
    kind: str
    widths: tuple[int, ...]
    growth: float | None
    rate: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))


class MixedSpace(Space[Mixed]):
    """Integers (linear and logarithmic), a real number, choices; two of them conditional."""

    architecture_class: ClassVar[type[Architecture]] = Mixed

    def __repr__(self) -> str:
        return "MixedSpace()"

    def suggest(self, trial: BaseTrial) -> Mixed:
        depth = trial.suggest_int("depth", 1, LAYERS)
        kind = trial.suggest_categorical("kind", KINDS)
        widths = tuple(trial.suggest_int(f"width_{i}", 8, 64, step=8) for i in range(depth))
        growth = trial.suggest_float("growth", 0.1, 0.9) if kind == "dense" else None
        return Mixed(depth, kind, widths, growth, trial.suggest_int("rate", 1, 256, log=True))

    def to_params(self, architecture: Mixed) -> dict[str, ParamValue]:
        params: dict[str, ParamValue] = {"depth": architecture.depth, "kind": architecture.kind}
        params |= {f"width_{i}": width for i, width in enumerate(architecture.widths)}
        if architecture.growth is not None:
            params["growth"] = architecture.growth
        return params | {"rate": architecture.rate}

    def from_params(self, params: Mapping[str, Any]) -> Mixed:
        try:
            widths = tuple(params[f"width_{i}"] for i in range(params["depth"]))
            growth = params["growth"] if params["kind"] == "dense" else None
            return Mixed(params["depth"], params["kind"], widths, growth, params["rate"])
        except KeyError as error:
            raise ValueError(f"no parameter {error}") from None

    def distributions(self) -> dict[str, BaseDistribution]:
        widths = {f"width_{i}": IntDistribution(8, 64, step=8) for i in range(LAYERS)}
        return {
            "depth": IntDistribution(1, LAYERS),
            "kind": CategoricalDistribution(KINDS),
            **widths,
            "growth": FloatDistribution(0.1, 0.9),
            "rate": IntDistribution(1, 256, log=True),
        }

    def random(self, rng: np.random.Generator) -> Mixed:
        return self.completed({}, rng)


def quality(architecture: Mixed) -> float:
    """A value from 0 to 1 that depends on every parameter, best deep, dense and in between."""
    bonus = {"plain": 0.0, "residual": 0.05, "dense": 0.1}[architecture.kind]
    if architecture.growth is not None:
        bonus -= 0.2 * (architecture.growth - 0.6) ** 2
    widths = sum(0.02 * (width / 64) * (i + 1) for i, width in enumerate(architecture.widths))
    rate = 0.02 * (np.log2(architecture.rate) - 5) ** 2
    return float(0.5 + bonus + widths - rate + 0.02 * architecture.depth)
