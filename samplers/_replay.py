"""Sequential strategies, written as a coroutine and replayed over the stored results."""

import abc
import dataclasses
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from optuna.study import Study

from optnas.samplers._base import StrategySampler
from optnas.samplers._batches import Batch, Candidate, Members, Step, Together
from optnas.samplers._history import History, Key, LostCandidate, Result
from optnas.spaces import Architecture
from optnas.trials.attributes import PARENT

A = TypeVar("A", bound=Architecture)

Search = Generator[Candidate | Sequence[Candidate] | Batch, Any, A]
"""A search yields what it wants trained, receives the results, and returns what it found.

For a `Candidate` it receives its `Result`; for a list of them, which are trained at once, a list;
for another `Batch` what its class says: for `Draws` the best result of all.
"""


class Replay(Generic[A]):
    """A search on its way over the results.

    Results that are stored do not change, as a rule, so a sampler goes on with the replay that it
    made for the decision before: the way from the beginning takes tens of milliseconds once there
    are hundreds of candidates.

    Args:
        search: The search, not yet begun.

    Attributes:
        path: The candidates answered, in the search's order, with their results.
        next: The candidate or batch that has no answer yet, or None at the end.
        members: The candidates of that batch that were claimed.
        guessed: The first candidate that was answered with a guess, or would have to be.
        conclusion: What the search returned at the end.
    """

    def __init__(self, search: Search[A]) -> None:
        self.path: list[tuple[Candidate, Result]] = []
        self.next: Candidate | Batch | None = None
        self.members: Members = ()
        self.guessed: Candidate | None = None
        self.conclusion: A | None = None
        self._search = search
        self._answers: list[Any] = []
        self._keys: list[Key] = []
        self._advance(None)

    @property
    def answered(self) -> list[tuple[Candidate, Result]]:
        """The path, and what is known of the batch at its end."""
        return [*self.path, *_with_results(self.members)]

    def holds(self, history: History) -> bool:
        """Whether ``history`` still answers as it did."""
        if len(self._keys) < len(self._answers):
            return False  # A batch is looked at anew: somebody may have added to it.
        return all(
            history.result_of(key) == answer
            for key, answer in zip(self._keys, self._answers, strict=True)
        )

    def go_on(self, history: History) -> None:
        """Go as far as the results carry."""
        while self.next is not None:
            if isinstance(self.next, Batch):
                self.members = self.next.members(history, len(self.path))
                answered = _with_results(self.members)
                if len(answered) < self.next.number:
                    return
                self.members = ()
                self.path += answered
                self._receive(self.next.answer(answered))
                continue
            key = history.key(self.next.params)
            result = history.result_of(key)
            if result is None:
                return
            self._keys.append(key)
            self.path.append((self.next, result))
            self._receive(result)

    def go_beyond(self, history: History) -> None:
        """Go on with guesses where candidates still train, as far as there are guesses."""
        self.go_on(history)
        while isinstance(self.next, Candidate) and history.is_running(self.next.params):
            candidate = self.next
            self.guessed = self.guessed or candidate
            if candidate.guess is None:
                return
            guess = Result(candidate.guess)
            self.path.append((candidate, guess))
            self._receive(guess)
            self.go_on(history)

    def restarted(self, search: Search[A]) -> "Replay[A]":
        """The same replay with ``search``, another run of the same."""
        replay = Replay(search)
        for answer in self._answers:
            replay._receive(answer)
        replay.path = list(self.path)
        return replay

    def imagine(self, judge: Callable[[Candidate], Result]) -> Iterator[Candidate]:
        """Go on to the end with results that are made up.

        Args:
            judge: Makes up the result of a candidate.

        Yields:
            What would be trained, each candidate once.

        Raises:
            NotImplementedError: If what is trained depends on more than the results before it.
        """
        known: dict[Key, Result] = {}
        while self.next is not None:
            if isinstance(self.next, Batch) and not isinstance(self.next, Together):
                raise NotImplementedError(f"{type(self.next).__name__} cannot be made up.")
            alone = isinstance(self.next, Candidate)
            results = []
            for candidate in (
                [self.next] if isinstance(self.next, Candidate) else self.next.candidates
            ):
                key = frozenset(candidate.params.items())
                if key not in known:
                    known[key] = judge(candidate)
                    yield candidate
                results.append(known[key])
            self._receive(results[0] if alone else results)

    def _receive(self, answer: Any) -> None:
        self._answers.append(answer)
        self._advance(answer)

    def _advance(self, answer: Any) -> None:
        try:
            following = self._search.send(answer)
        except StopIteration as stop:
            self.next, self.conclusion = None, stop.value
        else:
            if not isinstance(following, Candidate | Batch):
                following = Together(following)
            self.next = following


def _with_results(members: Members) -> list[tuple[Candidate, Result]]:
    return [(candidate, result) for candidate, result in members if result is not None]


class _Replays(threading.local):
    """The replay of every thread: threads may share a sampler."""

    replay: Replay[Any] | None = None


@dataclasses.dataclass(eq=False)
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._replays = _Replays()

    def __getstate__(self) -> dict[str, Any]:
        # A search under way cannot be copied; it is only an optimisation.
        return {name: value for name, value in vars(self).items() if name != "_replays"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._replays = _Replays()

    @abc.abstractmethod
    def search(self) -> Search[A]:
        """The strategy, as a coroutine: yields candidates, receives results, returns the end."""

    def found(self, study: Study) -> A | None:
        replay = self.replay(self._history(study))
        # Where no candidate could be judged, the rules still come to an end, which says nothing.
        has_result = any(not result.failed for _, result in replay.answered)
        return replay.conclusion if has_result else None

    def replay(self, history: History) -> Replay[A]:
        """How far the results carry the search.

        The replay is this thread's own, and goes on with its next call.
        """
        replay = self._replays.replay
        if replay is None or not replay.holds(history):
            replay = self._replays.replay = Replay(self.search())
        replay.go_on(history)
        return replay

    def candidates(self, study: Study) -> list[tuple[int, A, float]]:
        """Trial number, architecture and value of the networks that were trained, best first."""
        trained = [
            (result.number, self.space.from_params(candidate.params), result.value)
            for candidate, result in self._trained(study)
            if result.number is not None
        ]
        return sorted(trained, key=lambda entry: -entry[2])

    def _trained(self, study: Study) -> list[tuple[Candidate, Result]]:
        """What was trained with success, in the order of the search."""
        answered = self.replay(self._history(study)).answered
        return [pair for pair in answered if pair[1].number is not None and not pair[1].failed]

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        replay = self.replay(history)
        following = replay.next
        if isinstance(following, Candidate) and history.is_running(following.params):
            # The replay itself must not rest on guesses.
            replay = replay.restarted(self.search())
            replay.go_beyond(history)
        return _following(replay, history, rng)

    def _ends(self, study: Study, history: History) -> bool:
        return self.replay(history).next is None

    def weights_needed(self, study: Study) -> Collection[int]:
        """The network that the next candidate starts from."""
        if not self.inherits:
            return ()
        following = self.replay(self._history(study)).next
        attrs = following.attrs if isinstance(following, Candidate) else {}
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


def _following(
    replay: Replay[Any], history: History, rng: np.random.Generator
) -> Candidate | Step:
    """What is proposed where a search has come to."""
    if replay.guessed is not None and _has_guessed_enough(replay, history):
        return Step.WAIT
    following = replay.next
    if following is None:
        return Step.DONE
    if isinstance(following, Batch):
        return following.next(replay.members, history, rng)
    if following.attrs.get(PARENT) in history.without_weights:
        return dataclasses.replace(following, attrs={})  # Nothing to start from.
    return following


def _has_guessed_enough(replay: Replay[Any], history: History) -> bool:
    following = replay.next
    if following is None:
        return True
    if isinstance(following, Candidate) and history.is_running(following.params):
        return True
    guessed = replay.guessed
    return guessed is not None and history.started_after(guessed.params) >= history.workers - 1
