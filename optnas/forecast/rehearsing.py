"""What some networks of a study cost: the smallest, a typical one, the greatest, and the first."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil

from optnas.config.contract import Objective, Rehearsal, count_params, described, strategy_of
from optnas.forecast.ahead import Ahead
from optnas.forecast.pace import Pace, Timed, fitted, shape_of
from optnas.seeds import derive_seed
from optnas.spaces import Architecture
from optnas.study.opening import OpenStudy

DRAWN = 15
"""Networks that are drawn for a typical one, where parameters are counted without building."""
BUILT = 5
"""As many where they are built."""
LONG, BRIEF = 0.25, 0.02
"""Seconds for which the steps of a network are repeated, for a dry run and before a run."""
LONGEST = 2.0
"""Seconds of a step, at most: of a network that takes longer, a part of a batch is tried."""


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    """A network and what it costs.

    Args:
        name: What it is among the networks of its study.
        architecture: The network; None for what is no network of the space.
        costs: What it costs.
    """

    name: str
    architecture: Architecture | None
    costs: Rehearsal


@dataclasses.dataclass(frozen=True)
class Rehearsals:
    """What the networks of a study cost.

    Args:
        shown: The smallest, a typical and the greatest network, as far as they are known.
        pace: How long epochs take; None if nothing could be timed.
    """

    shown: tuple[Rehearsed, ...]
    pace: Pace | None


def rehearse(handle: OpenStudy, objective: Objective, ahead: Ahead) -> Rehearsals | None:
    """Try the networks of a study on its device. Takes some seconds, and keeps nothing.

    Args:
        handle: The study, without trials or with.
        objective: Its objective.
        ahead: What is ahead of it.

    Returns:
        None if the objective does not say what its networks cost.
    """
    if objective.rehearse is None:
        return None
    stage = _Stage(handle, objective.rehearse, LONG)
    typical = stage.typical()
    least, most = handle.config.search_space.extremes()
    smallest = stage.timed("smallest", least or typical[0])
    middle = stage.timed("typical", typical[len(typical) // 2])
    greatest = stage.timed("greatest", most or typical[-1], known=most is not None)
    for architecture in _of_courses(ahead):
        stage.timed("ahead", architecture)
    return Rehearsals((smallest, middle, greatest), stage.pace(typical, ahead))


def rehearse_briefly(handle: OpenStudy, objective: Objective, ahead: Ahead) -> Pace | None:
    """The pace, from the first networks alone: for a run that should begin."""
    if objective.rehearse is None:
        return None
    stage = _Stage(handle, objective.rehearse, BRIEF)
    first, *others = _of_courses(ahead) or [stage.draw(), stage.draw()]
    stage.timed("first", first)
    for other in others:
        # It may not be trained for long, so that it should not take more memory than what is.
        stage.timed("other", other, part=4)
    return stage.pace([first, *others], ahead)


class _Stage:
    """Tries one network after the other, none for longer than makes sense."""

    def __init__(
        self, handle: OpenStudy, rehearse: Callable[..., Rehearsal], seconds: float
    ) -> None:
        self._seconds = seconds
        self._handle = handle
        self._space = handle.config.search_space
        self._rehearse = rehearse
        self._shape = shape_of(handle)
        self._rng = np.random.default_rng(derive_seed("typical", handle.study.study_name) % 2**32)
        self._tried: dict[Architecture, Rehearsal] = {}
        self._timed: list[Timed] = []
        self._per_multiply_add: float | None = None

    def draw(self) -> Architecture:
        """A network of the space."""
        network: Architecture = self._space.random(self._rng)
        return network

    def typical(self) -> list[Architecture]:
        """Networks of the space, by their parameters."""
        counted = self.params(self.draw()) is not None
        drawn = [self.draw() for _ in range(DRAWN if counted else BUILT)]
        return sorted(drawn, key=lambda network: self.params(network) or self.size(network).params)

    def params(self, architecture: Architecture) -> int | None:
        """Parameters, if they are counted without building the network."""
        return count_params(self._space, architecture, *self._shape)

    def size(self, architecture: Architecture) -> Rehearsal:
        """What a network costs, not timed."""
        if architecture not in self._tried:
            self._tried[architecture] = self._rehearse(architecture, seconds=None)
        return self._tried[architecture]

    def timed(
        self, name: str, architecture: Architecture, *, known: bool = True, part: int = 1
    ) -> Rehearsed:
        """Try a network, by as many images as time and memory allow, or a part of these."""
        name = name if known else f"{name} of {BUILT}"
        costs = self._tried.get(architecture)
        if costs is None or (costs.seconds is None and costs.trouble is None):
            images = self._handle.config.train.batch_size
            if self._seconds > BRIEF:  # It costs a second to find out what there is room for.
                images = self._images(self.size(architecture))
            costs = self._rehearse(architecture, images=images // part, seconds=self._seconds)
            self._tried[architecture] = costs
            if costs.seconds is not None:
                depth = described(architecture).depth or 1
                self._timed.append(Timed(depth, costs.params, costs.seconds))
                speed = costs.seconds / costs.images / costs.multiply_adds
                self._per_multiply_add = min(self._per_multiply_add or speed, speed)
        return Rehearsed(name, architecture, costs)

    def _images(self, costs: Rehearsal) -> int:
        """Images of a step that takes neither too long nor too much memory."""
        images = self._handle.config.train.batch_size
        if self._per_multiply_add is not None:
            each = self._per_multiply_add * costs.multiply_adds
            images = min(images, int(LONGEST / each))
        free = psutil.virtual_memory().available / 2
        return max(min(images, int(free / (2 * costs.memory_bytes))), 1)

    def pace(self, typical: list[Architecture], ahead: Ahead) -> Pace | None:
        """How long epochs take, by what was timed."""
        if not self._timed:
            return None
        phases = dict(self._special(ahead))
        fit = fitted(self._timed, 0.0, self._space, self._shape, phases)
        sizes = [(described(a).depth or 1, self.params(a) or self.size(a).params) for a in typical]
        mean = float(np.mean([fit.of(depth, params) for depth, params in sizes]))
        return dataclasses.replace(fit, typical=mean)

    def _special(self, ahead: Ahead) -> Iterator[tuple[str, tuple[float, int]]]:
        """Seconds and epochs of the phases that train something else than a network."""
        special = strategy_of(self._handle.study.sampler).phases or ()
        for phase in ahead.phases:
            if phase in special and phase != special[-1]:
                costs = self._rehearse(None, phase=phase, seconds=self._seconds)
                if costs.seconds is not None:
                    yield phase, (costs.seconds, costs.epochs or 1)


def _of_courses(ahead: Ahead) -> list[Any]:
    """The first network of the likely courses, and one in the middle of them."""
    named = [s.architecture for c in ahead.courses or () for s in c if s.architecture is not None]
    if not named:
        return []
    depths = sorted(named, key=lambda architecture: described(architecture).depth or 0)
    return list(dict.fromkeys([named[0], depths[len(depths) // 2]]))
