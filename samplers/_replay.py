"""Sequential strategies, written as a coroutine and replayed over the stored results."""

import abc
import dataclasses
from collections.abc import Generator
from typing import Generic, TypeVar

import numpy as np
from optuna.study import Study

from optnas.samplers._base import Candidate, Step, StrategySampler
from optnas.samplers._history import History, LostCandidate, Result
from optnas.spaces import Architecture

A = TypeVar("A", bound=Architecture)

Search = Generator[Candidate, Result, A]
"""A search yields candidates, receives their results, and returns what it found."""


@dataclasses.dataclass(frozen=True)
class Replay(Generic[A]):
    """How far the results carry a search.

    Args:
        path: The candidates answered, in the search's order, with their results.
        guessed: The first candidate that was answered with a guess, or waits, or None.
        next: The candidate that has no answer yet, or None at the end.
        conclusion: What the search returned at the end.
    """

    path: list[tuple[Candidate, Result]]
    guessed: Candidate | None
    next: Candidate | None
    conclusion: A | None


class ReplaySampler(StrategySampler[A]):
    """Base of strategies whose every decision depends on the result before it.

    The paper's pseudo-code is the generator :meth:`search`. It is replayed over the stored
    results for every decision, which takes milliseconds: a candidate found there is answered,
    the first one not found is the next proposal.

    With several workers, a candidate that still trains is answered with the guess it carries, so
    that the next worker gets the candidate that comes next if the guess holds. At most one
    candidate per other worker is started beyond the first guess, which bounds what a wrong one
    costs; and an end that rests on a guess is no end.
    """

    @abc.abstractmethod
    def search(self) -> Search[A]:
        """The strategy, as a coroutine: yields candidates, receives results, returns the end."""

    def found(self, study: Study) -> A | None:
        return self.replay(self._history(study), guess=False).conclusion

    def replay(self, history: History, *, guess: bool) -> Replay[A]:
        """Run the search over ``history`` until a candidate has no answer.

        Args:
            history: The study's trials.
            guess: Whether candidates that still train are answered with their guess.
        """
        search = self.search()
        path: list[tuple[Candidate, Result]] = []
        guessed = None
        try:
            candidate = next(search)
            while True:
                result = history.result(candidate.params)
                if result is None:
                    if not guess or not history.is_running(candidate.params):
                        return Replay(path, guessed, candidate, None)
                    guessed = guessed or candidate
                    if candidate.guess is None:
                        return Replay(path, guessed, None, None)
                    result = Result(candidate.guess)
                path.append((candidate, result))
                candidate = search.send(result)
        except StopIteration as stop:
            return Replay(path, guessed, None, stop.value)

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        replay = self.replay(history, guess=True)
        if replay.guessed is not None:
            others = history.workers - 1
            if replay.next is None or history.started_after(replay.guessed.params) >= others:
                return Step.WAIT
        return Step.DONE if replay.next is None else replay.next

    def _decide(self, study: Study, history: History) -> Candidate | LostCandidate | Step:
        """A lost candidate is taken up when the search comes to it, and left alone otherwise."""
        step = self._propose(study, history)
        if isinstance(step, Candidate):
            key = history.key(step.params)
            for lost in history.lost:
                if history.key(lost.claim.params) == key:
                    return lost
        return step
