"""Candidates that a search asks for at once: they do not wait for one another."""

import abc
import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from optnas.samplers._history import History, Result


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What a strategy wants trained next.

    Args:
        params: The parameters of the trial.
        phase: What the strategy is doing, in a word, for people who watch.
        guess: The accuracy to go on with, in a replay, while the candidate still trains; None
            waits for it.
        attrs: What else the objective must know, as user attributes of the trial.
        step: Where the strategy stands with it, in words for people: "depth 13 of at most 100,
            accepted 11".
    """

    params: Mapping[str, Any]
    phase: str
    guess: float | None = None
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    step: str = ""


class Step(enum.Enum):
    """What a strategy says when it has no candidate."""

    WAIT = "wait"
    DONE = "done"


Members = Sequence[tuple[Candidate, Result | None]]
"""The candidates of a batch that were claimed, with their results or None while they run."""


class Batch(abc.ABC):
    """Candidates that are trained at once; a search goes on when all of them have results."""

    @property
    @abc.abstractmethod
    def number(self) -> int:
        """How many candidates there are."""

    @abc.abstractmethod
    def members(self, history: History, before: int) -> Members:
        """The candidates of this batch that were claimed, in the batch's order.

        Args:
            history: The study's trials.
            before: Number of candidates that the search had before this batch.
        """

    @abc.abstractmethod
    def next(
        self, members: Members, history: History, rng: np.random.Generator
    ) -> Candidate | Step:
        """A candidate that was lost, or else one that was not claimed yet, or else ``WAIT``.

        Args:
            members: As :meth:`members` gives them.
            history: The study's trials.
            rng: Decides what is drawn.
        """

    def answer(self, answered: Sequence[tuple[Candidate, Result]]) -> Any:
        """What the search receives for its ``yield``: the results in order."""
        return [result for _, result in answered]


@dataclasses.dataclass(frozen=True)
class Together(Batch):
    """Candidates that are known beforehand: the search yields them as a list."""

    candidates: Sequence[Candidate]

    @property
    def number(self) -> int:
        return len(self.candidates)

    def members(self, history: History, before: int) -> Members:
        found = [(c, history.result(c.params)) for c in self.candidates]
        return [(c, r) for c, r in found if r is not None or history.is_running(c.params)]

    def next(
        self, members: Members, history: History, rng: np.random.Generator
    ) -> Candidate | Step:
        taken = [history.key(candidate.params) for candidate, _ in members]
        free = (c for c in self.candidates if history.key(c.params) not in taken)
        return next(free, Step.WAIT)


Drawing = Callable[[History, np.random.Generator], Candidate]
"""Draws a candidate when a worker is free for it."""


@dataclasses.dataclass(frozen=True)
class InOrder(Batch):
    """Candidates that are drawn one after the other, each when a worker is free for it.

    A search that yields these yields nothing else: its n-th candidate is the study's n-th claim,
    so that a candidate may be drawn twice, and is trained twice.
    """

    drawings: Sequence[Drawing]

    @property
    def number(self) -> int:
        return len(self.drawings)

    def members(self, history: History, before: int) -> Members:
        keys = history.asked[before : before + self.number]
        return [(Candidate(dict(key), phase=""), history.result_of(key)) for key in keys]

    def next(
        self, members: Members, history: History, rng: np.random.Generator
    ) -> Candidate | Step:
        if history.lost:
            return Candidate(history.lost[0].claim.params, phase="")
        if len(members) == self.number:
            return Step.WAIT
        return self.drawings[len(members)](history, rng)
