"""What is ahead of a macro-micro search, from what is known of how its networks learn."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from optnas.samplers._batches import Candidate
from optnas.samplers._history import Result
from optnas.samplers._learning import Learning, Trained, grain_of, likely_ways
from optnas.samplers._outlook import COURSES, Course, Outlook, Stretch, in_stretches
from optnas.samplers._replay import Replay
from optnas.trials.attributes import TRAIN_ACCURACY

MACRO = ("depth", "width")
"""The phases whose length nobody knows beforehand."""


class MacroMicroOutlook:
    """The courses that a macro-micro search may take from where it stands.

    The macro search is run on made-up accuracies; how many networks the micro search trains
    follows from the depth that it comes to.

    Args:
        sampler: A `MacroMicroSampler`.
        replay: Where its search stands.
    """

    def __init__(self, sampler: Any, replay: Replay[Any]) -> None:
        self._sampler = sampler
        self._replay = replay
        self._known = [
            self._size(candidate.params)(result.value, result.attrs.get(TRAIN_ACCURACY))
            for candidate, result in replay.path
            if candidate.phase in MACRO and not result.failed
        ]
        self._grain = grain_of(self._known)

    def drawn(self, rng: np.random.Generator) -> Outlook:
        """The courses, the likely ones drawn from ``rng``."""
        micro = [candidate for candidate, _ in self._replay.path if candidate.phase not in MACRO]
        if self._replay.next is None:
            return Outlook.settled()
        if micro:
            return Outlook.settled(self._micro(micro[0], done=len(micro)))
        ways = likely_ways(self._known, COURSES, rng)
        best = max((each.value for each in self._known), default=0.0)
        return Outlook(
            least=self._course(_learnt_at_once),
            most=self._course(_AlwaysBetter(best, self._sampler)),
            likely=[self._course(_Imagined(way, self._size, self._grain, rng)) for way in ways],
        )

    def _course(self, judge: Callable[[Candidate], Result]) -> Course:
        """How the search goes on if its networks are judged so."""
        macro: list[tuple[Candidate, Any]] = []
        for candidate in self._replay.restarted(self._sampler.search()).imagine(judge):
            if candidate.phase not in MACRO:
                return (*in_stretches(macro), self._micro(candidate))
            macro.append((candidate, self._network(candidate)))
        return in_stretches(macro)

    def _micro(self, baseline: Candidate, done: int = 0) -> Stretch:
        """The trials of the micro search, which are known once its first network is."""
        network = self._network(baseline)
        layers = len(network.kernels or ())
        trials = 1 + layers * len(self._sampler.changes) - done
        return Stretch("micro", trials, baseline.params["epochs"], network)

    def _network(self, candidate: Candidate) -> Any:
        params, sampler = candidate.params, self._sampler
        kinds = (sampler.operation, sampler.kernel)
        return sampler.space.uniform(params["depth"], params["width"], *kinds)

    def _size(self, params: Any) -> Callable[[float, float | None], Trained]:
        """How large a network is, and how long it is trained, relative to the first one."""
        space = self._sampler.space
        return functools.partial(
            Trained,
            params["depth"] / space.depth[0],
            params["width"] / space.width[1],
            params["epochs"] / self._sampler.epochs,
        )


def _learnt_at_once(candidate: Candidate) -> Result:
    """The next network is good enough, and no narrower one is."""
    return Result(1.0 if candidate.phase == "depth" else 0.0, 0)


class _Imagined:
    """Networks one after the other, as they may be judged.

    Args:
        way: How they learn.
        size: Says how large a candidate is.
        grain: What accuracies are multiples of.
        rng: Draws the rest.
    """

    def __init__(
        self,
        way: Learning,
        size: Callable[[Any], Callable[[float, float | None], Trained]],
        grain: float,
        rng: np.random.Generator,
    ) -> None:
        self._way = way
        self._size = size
        self._grain = grain
        self._rng = rng

    def __call__(self, candidate: Candidate) -> Result:
        size = self._size(candidate.params)(0.0, None)
        self._way = self._way.next(self._rng)
        value, train_accuracy = self._way.judged(
            size.depth, size.width, size.epochs, self._grain, self._rng
        )
        return Result(value, 0, {TRAIN_ACCURACY: train_accuracy})


class _AlwaysBetter:
    """Every network is just good enough to go on, and none to stop.

    Args:
        best: The best accuracy so far.
        sampler: The sampler.
    """

    def __init__(self, best: float, sampler: Any) -> None:
        self._best = best
        self._sampler = sampler

    def __call__(self, candidate: Candidate) -> Result:
        better = self._best + self._sampler.gain
        if candidate.phase == "depth" and better < self._sampler.target_accuracy:
            self._best = better
        return Result(self._best, 0)
