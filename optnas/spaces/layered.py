"""Networks of layers: a depth, a width, and per layer or block an operation and a kernel."""

import abc
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import BaseTrial

from optnas.spaces.base import A, ParamValue, Space, proposal

KERNELS = (3, 5, 7)

T = TypeVar("T")


class LayeredSpace(Space[A]):
    """Base of the spaces whose parameters are ``depth``, ``width``, ``op_{i}`` and ``kernel_{i}``.

    A subclass sets the attributes below when it is made.
    """

    PRESETS: ClassVar[dict[str, dict[str, tuple[int, int]]]]
    """Ranges of depth and width, by name."""
    kind: ClassVar[str]
    """What a network is called in messages."""
    operation: ClassVar[str]
    """What a search begins with in every layer."""
    depth_step: ClassVar[int]
    """Layers that are added at a time."""
    micro: ClassVar[bool]
    """Whether operations and kernels are searched for unless it is said otherwise."""

    depth: tuple[int, int]
    width: tuple[int, int]
    kernels: tuple[int, ...]
    operations: tuple[str, ...]
    width_step: int

    @abc.abstractmethod
    def choosing(self, depth: int) -> int:
        """How many operations, and how many kernels, a network of ``depth`` layers has.

        Raises:
            ValueError: If no network has so many layers.
        """

    @abc.abstractmethod
    def _network(
        self, depth: int, width: int, operations: tuple[str, ...], kernels: tuple[int, ...]
    ) -> A:
        """The network of these parameters."""

    @property
    def widths(self) -> range:
        """The widths that are drawn, ascending: steps down from the greatest."""
        low, high = self.width
        return range(low + (high - low) % self.width_step, high + 1, self.width_step)

    def suggest(self, trial: BaseTrial) -> A:
        widths = self.widths
        proposed = proposal(trial).get("width", widths[0])
        if proposed not in widths:
            widths = range(max(1, min(self.width[0], proposed)), self.width[1] + 1)
        depth = trial.suggest_int("depth", *self.depth, step=self.depth_step)
        width = trial.suggest_int("width", widths[0], widths[-1], step=widths.step)
        params: dict[str, Any] = {"depth": depth, "width": width}
        for name, choices in self._choices(depth):
            params[name] = trial.suggest_categorical(name, choices)
        return self.from_params(params)

    def from_params(self, params: Mapping[str, Any]) -> A:
        try:
            layers = range(self.choosing(params["depth"]))
            return self._network(
                params["depth"],
                params["width"],
                tuple(params[f"op_{i}"] for i in layers),
                tuple(params[f"kernel_{i}"] for i in layers),
            )
        except KeyError as error:
            raise ValueError(
                f"No {self.kind} without the parameter {error}: {dict(params)}."
            ) from None

    def distributions(self) -> dict[str, BaseDistribution]:
        result: dict[str, BaseDistribution] = {
            "depth": IntDistribution(*self.depth, step=self.depth_step),
            # From 1, one by one: what a micro candidate's width may be.
            "width": IntDistribution(1, self.width[1]),
        }
        for name, choices in self._choices(self.depth[1]):
            result[name] = _categorical(choices)
        return result

    def random(self, rng: np.random.Generator) -> A:
        low, high = self.depth
        steps = (high - low) // self.depth_step
        depth = low + self.depth_step * int(rng.integers(steps, endpoint=True))
        params: dict[str, Any] = {
            "depth": depth,
            "width": self.widths[int(rng.integers(len(self.widths)))],
        }
        for name, choices in self._choices(depth):
            params[name] = choices[int(rng.integers(len(choices)))]
        return self.from_params(params)

    def _choices(self, depth: int) -> list[tuple[str, tuple[Any, ...]]]:
        layers = range(self.choosing(depth))
        operations = [(f"op_{i}", self.operations) for i in layers]
        return [*operations, *((f"kernel_{i}", self.kernels) for i in layers)]

    def _ranges(self, preset: str) -> dict[str, tuple[int, int]]:
        if preset not in self.PRESETS:
            raise ValueError(f"`preset` must be one of {sorted(self.PRESETS)}: {preset!r}.")
        return self.PRESETS[preset]


def layer_params(
    depth: int, width: int, operations: Sequence[str] | None, kernels: Sequence[int] | None
) -> dict[str, ParamValue]:
    """The parameters of a trial of a network, in the order of ``suggest``."""
    params: dict[str, ParamValue] = {"depth": depth, "width": width}
    params.update((f"op_{i}", value) for i, value in enumerate(operations or ()))
    params.update((f"kernel_{i}", value) for i, value in enumerate(kernels or ()))
    return params


def per_layer(
    name: str, values: Sequence[T], choices: Sequence[T], layers: int, counted: str
) -> tuple[T, ...]:
    """One of ``choices`` for every layer: the first one throughout where nothing is given.

    Raises:
        ValueError: If there are not as many values as layers, or one is no choice.
    """
    given = tuple(values) or (choices[0],) * layers
    if len(given) != layers or not set(given) <= set(choices):
        raise ValueError(
            f"`{name}` must hold {layers} values ({counted}), each one of {choices}: {given}."
        )
    return given


def checked_positive(name: str, given: int) -> int:
    """An option that is an integer, 1 or more.

    Raises:
        ValueError: If it is none.
    """
    if type(given) is not int or given < 1:
        raise ValueError(f"`{name}` must be an integer, 1 or more: {given!r}.")
    return given


def checked_choices(name: str, given: Sequence[T], known: Sequence[T]) -> tuple[T, ...]:
    """An option that holds some of what is known, each once.

    Raises:
        ValueError: If it does not.
    """
    chosen = tuple(given)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(known):
        raise ValueError(f"`{name}` must be some of {tuple(known)}, each once: {chosen}.")
    return chosen


def weights(operation: str, before: int, after: int, kernel: int) -> int:
    """Weights of a convolution of an operation, ``"conv"`` or ``"separable"``."""
    taps = kernel * kernel
    return before * after * taps if operation == "conv" else before * (taps + after)


@functools.lru_cache(maxsize=64)
def _categorical(choices: tuple[Any, ...]) -> CategoricalDistribution:
    return CategoricalDistribution(choices)
