"""Populations of networks, and EcoNAS's synchronous cycles as a coroutine."""

import dataclasses
import itertools
from collections.abc import Generator, Sequence

import numpy as np

from optnas.samplers._base import Step
from optnas.samplers._history import History, Result

RUNGS = 3


@dataclasses.dataclass(frozen=True)
class Member:
    """A network of a population.

    Args:
        number: The trial that trained it last.
        value: Its best accuracy, over all rungs.
        rung: How far it was trained, in rungs, from 1.
        cycle: The cycle in which it was trained last.
    """

    number: int
    value: float
    rung: int
    cycle: int = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """A training to be done: of a child, of a network to promote, or else of a random network.

    Args:
        among: The networks that the child's parent is drawn from.
        promotes: The network to be trained for another rung.
    """

    among: Sequence[Member] = ()
    promotes: Member | None = None


def tournament(members: Sequence[Member], rng: np.random.Generator) -> Member:
    """The best of ``len(members) // 4 + 1`` members drawn uniformly, with replacement."""
    drawn: list[int] = rng.integers(len(members), size=len(members) // 4 + 1).tolist()
    return max((members[i] for i in drawn), key=lambda member: (member.value, -member.number))


def by_rung(members: Sequence[Member]) -> list[list[Member]]:
    """The populations: the members of every rung, from the lowest."""
    return [[m for m in members if m.rung == rung] for rung in range(1, RUNGS + 1)]


def shares(populations: Sequence[list[Member]], parents: Sequence[int]) -> list[list[Member]]:
    """Every child's population, for the children of those that are not empty."""
    some = [(members, n) for members, n in zip(populations, parents, strict=True) if members]
    return [members for members, n in some for _ in range(n)] or [members for members, _ in some]


@dataclasses.dataclass(frozen=True)
class Cycles:
    """The synchronous search.

    Args:
        initial: Number of random networks.
        parents: Children per cycle and population.
        max_age: Cycles for which a network stays alive.
        cycles: Number of cycles; None for no end.
        promote: Promotions per cycle and population.
        snapshot: Whether children and promotions are trained at once, from the population at
            the beginning of the cycle, and an empty population's children are left out.
    """

    initial: int
    parents: tuple[int, ...]
    max_age: int
    cycles: int | None
    snapshot: bool
    promote: tuple[int, ...]

    def search(self, members: list[Member]) -> Generator[list[Task], list[Result], None]:
        """Algorithm 1: yields what can be trained at once, and receives the results.

        Args:
            members: Empty; the population, as long as it lives, is kept here.
        """
        yield from self._train(members, [Task()] * self.initial, 0)
        for cycle in itertools.count() if self.cycles is None else range(self.cycles):
            members[:] = (m for m in members if cycle - m.cycle < self.max_age)
            children = self._children(by_rung(members))
            if self.snapshot:
                tasks = [*children, *self._promotions(members, 1), *self._promotions(members, 2)]
                yield from self._train(members, tasks, cycle)
            else:
                yield from self._train(members, children, cycle)
                yield from self._train(members, self._promotions(members, 1), cycle)
                yield from self._train(members, self._promotions(members, 2), cycle)

    def _children(self, populations: Sequence[list[Member]]) -> list[Task]:
        among = shares(populations, self.parents)
        if not among:
            return [Task()] * sum(self.parents)
        children = len(among) if self.snapshot else sum(self.parents)
        return [Task(among[child % len(among)]) for child in range(children)]

    def _promotions(self, members: Sequence[Member], rung: int) -> list[Task]:
        """The best of a population."""
        ranked = sorted(
            (m for m in members if m.rung == rung), key=lambda m: m.value, reverse=True
        )
        return [Task(promotes=member) for member in ranked[: self.promote[rung - 1]]]

    def _train(
        self, members: list[Member], tasks: list[Task], cycle: int
    ) -> Generator[list[Task], list[Result], None]:
        results = yield tasks
        moved = {id(task.promotes) for task in tasks if task.promotes is not None}
        if moved:
            members[:] = [member for member in members if id(member) not in moved]
        for task, result in zip(tasks, results, strict=True):
            old, rung, value = task.promotes, 1, result.value
            if old is not None:
                rung, value = old.rung + 1, max(old.value, value)
            if result.number is not None and not result.failed:
                members.append(Member(result.number, value, rung, cycle))


def next_task(
    search: Generator[list[Task], list[Result], None], history: History
) -> tuple[Task | Step, int]:
    """The first task of a search that nobody has claimed, and how many were done before.

    The n-th task is the n-th claim of the study. A search goes on when all tasks that it yielded
    at once are done.
    """
    claimed = 0
    try:
        tasks = next(search)
        while True:
            keys = history.asked[claimed : claimed + len(tasks)]
            if len(keys) < len(tasks):
                return tasks[len(keys)], claimed
            results = [result for key in keys if (result := history.answer(key)) is not None]
            if len(results) < len(tasks):
                return Step.WAIT, claimed
            claimed += len(tasks)
            tasks = search.send(results)
    except StopIteration:
        return Step.DONE, claimed
