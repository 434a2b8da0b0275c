"""Sequential strategies, written as a coroutine and replayed over the stored results."""

import abc
import dataclasses
from collections.abc import Collection, Generator
from typing import Any, Generic, TypeVar

import numpy as np
from optuna.study import Study

from optnas.samplers._base import Candidate, Step, StrategySampler
from optnas.samplers._draws import Draws, Known
from optnas.samplers._history import History, Key, LostCandidate, Result
from optnas.spaces import Architecture
from optnas.trials.attributes import PARENT

A = TypeVar("A", bound=Architecture)

Search = Generator[Candidate | Draws, Result, A]
"""A search yields candidates, receives their results, and returns what it found.

Where it yields `Draws`, a sampler draws the candidates, and it receives the best result of all.
"""


@dataclasses.dataclass(frozen=True)
class Replay(Generic[A]):
    """How far the results carry a search.

    Args:
        walked: The candidates answered, in the search's order, with their results; without those
            of ``drawn``.
        guessed: The first candidate that was answered with a guess, or waits, or None.
        next: The candidate that has no answer yet, or None at the end.
        conclusion: What the search returned at the end.
        draws: What candidates are drawn of, if the search has come to that.
        drawn: The candidates drawn of it so far, with their results or None while they run.
        answers: What the search was told, one for every step of it.
    """

    walked: list[tuple[Candidate, Result]]
    guessed: Candidate | None
    next: Candidate | None
    conclusion: A | None
    draws: Draws | None = None
    drawn: Known = ()
    answers: tuple[Result, ...] = ()

    @property
    def path(self) -> list[tuple[Candidate, Result]]:
        """The candidates answered, in the search's order, with their results."""
        return self.walked + ([] if self.draws is None else _answered(self.draws, self.drawn))


class _Walk(Generic[A]):
    """A search on its way over the results.

    Results that are stored do not change, as a rule, so a sampler goes on with the walk that it
    made for the decision before: the way from the beginning takes tens of milliseconds once there
    are hundreds of candidates.

    Args:
        search: The search, not yet begun.

    Attributes:
        path: The candidates answered, in the search's order, with their results.
    """

    def __init__(self, search: Search[A]) -> None:
        self.path: list[tuple[Candidate, Result]] = []
        self._search = search
        self._answers: list[Result] = []
        self._keys: list[Key] = []
        self._drawn: Known = ()
        self._guessed: Candidate | None = None
        self._waits = False
        self._conclusion: A | None = None
        self._at: Candidate | Draws | None = None
        self._advance(None)

    @property
    def replay(self) -> Replay[A]:
        """How far it has come."""
        at = self._at
        return Replay(
            list(self.path),
            self._guessed,
            at if isinstance(at, Candidate) and not self._waits else None,
            self._conclusion,
            at if isinstance(at, Draws) else None,
            self._drawn,
            tuple(self._answers),
        )

    def holds(self, history: History) -> bool:
        """Whether ``history`` still answers as it did."""
        if len(self._keys) < len(self._answers):
            return False  # What was drawn, or guessed, is looked at anew.
        return all(
            history.answer(key) == answer
            for key, answer in zip(self._keys, self._answers, strict=True)
        )

    def answer(self, result: Result) -> None:
        """Tell the search a result, and go to its next step."""
        self._answers.append(result)
        self._advance(result)

    def go_on(self, history: History, *, guess: bool = False) -> None:
        """Go as far as the results carry."""
        while True:
            if isinstance(self._at, Draws):
                self._drawn = self._at.among(history.candidates())
                if sum(result is not None for _, result in self._drawn) < self._at.number:
                    return
                answered = _answered(self._at, self._drawn)
                self.path += answered
                tried, best = max(answered, key=lambda pair: pair[1].value)
                self._drawn = ()
                self.answer(dataclasses.replace(best, params=tried.params))
                continue
            candidate = self._at
            if candidate is None:
                return
            key = history.key(candidate.params)
            result = history.answer(key)
            if result is None:
                if not guess or not history.is_running(candidate.params):
                    return
                self._guessed = self._guessed or candidate
                if candidate.guess is None:
                    self._waits = True
                    return
                result = Result(candidate.guess)
            self._keys.append(key)
            self.path.append((candidate, result))
            self.answer(result)

    def _advance(self, result: Result | None) -> None:
        try:
            # What a generator that has not begun is sent is None.
            self._at = self._search.send(result)  # type: ignore[arg-type]
        except StopIteration as stop:
            self._at, self._conclusion = None, stop.value


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

    _walk: _Walk[A] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A search under way cannot be copied; it is only an optimisation.
        return {**vars(self), "_walk": None}

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
        # Taken out, because threads may share a sampler.
        walk, self._walk = self._walk, None
        if walk is None or not walk.holds(history):
            walk = _Walk(self.search())
        walk.go_on(history)
        replay = walk.replay
        self._walk = walk
        candidate = replay.next
        if not guess or candidate is None or not history.is_running(candidate.params):
            return replay
        # The walk itself must not rest on guesses: another one takes the same way, and goes on.
        beyond = _Walk(self.search())
        for answer in replay.answers:
            beyond.answer(answer)
        beyond.path = list(replay.path)
        beyond.go_on(history, guess=True)
        return beyond.replay

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        replay = self.replay(history, guess=True)
        if replay.draws is not None:
            return _draw(replay.draws, replay.drawn, history, rng)
        return _following(replay, history)

    def _is_over(self, study: Study, history: History) -> bool:
        replay = self.replay(history, guess=True)
        # As is proposed, but nothing is drawn for it.
        return replay.draws is None and _following(replay, history) is Step.DONE

    def weights_needed(self, study: Study) -> Collection[int]:
        """The network that the next candidate starts from."""
        if not self.inherits:
            return ()
        following = self.replay(self._history(study), guess=False).next
        attrs = following.attrs if following else {}
        return [attrs[PARENT]] if PARENT in attrs else []

    def _decide(self, study: Study, history: History) -> Candidate | LostCandidate | Step:
        """A lost candidate is taken up when the search comes to it, and left alone otherwise."""
        step = self._propose(study, history)
        if isinstance(step, Candidate):
            key = history.key(step.params)
            for lost in history.lost:
                if history.key(lost.claim.params) == key:
                    return lost
        return step


def _following(replay: Replay[Any], history: History) -> Candidate | Step:
    """What follows where a search has come to a candidate, or to its end."""
    if replay.guessed is not None:
        others = history.workers - 1
        if replay.next is None or history.started_after(replay.guessed.params) >= others:
            return Step.WAIT
    if replay.next is None:
        return Step.DONE
    if replay.next.attrs.get(PARENT) in history.without_weights:
        return dataclasses.replace(replay.next, attrs={})  # Nothing to start from.
    return replay.next


def _answered(draws: Draws, drawn: Known) -> list[tuple[Candidate, Result]]:
    """The candidates drawn that have a result."""
    return [(Candidate(params, draws.phase), r) for params, r in drawn if r is not None]


def _draw(
    draws: Draws, drawn: Known, history: History, rng: np.random.Generator
) -> Candidate | Step:
    """The next candidate of ``draws``: one that was lost before a new one."""
    for lost in history.lost:
        if draws.holds(lost.claim.params):
            return Candidate(lost.claim.params, draws.phase)
    if len(drawn) >= draws.number:
        return Step.WAIT
    return Candidate(draws.draw(drawn, rng), draws.phase)
