"""EcoNAS: evolution over three populations, of networks trained for E, 2E and 3E epochs."""

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas.samplers._base import (
    Candidate,
    Step,
    StrategySampler,
    check_at_least,
    check_choice,
)
from optnas.samplers._cycles import (
    RUNGS,
    Cycles,
    Member,
    Task,
    by_rung,
    next_task,
    shares,
    tournament,
)
from optnas.samplers._history import History, Result
from optnas.spaces import Architecture, ParamValue, Space
from optnas.trials.attributes import CONTINUES, RUNG, SCHEDULE

A = TypeVar("A", bound=Architecture)

BEST = 5
"""How many networks the paper trains fully in the end (section 5.1)."""
DRAWS = 100
"""How often a child is drawn that nobody has tried, before one that is known is accepted."""


class EcoNASSampler(StrategySampler[A]):
    """Sampler using the evolution of *EcoNAS: Finding Proxies for Economical NAS*.

    Networks live in three populations, of those trained for E, 2E and 3E epochs. Every cycle
    of 16 children takes 6 parents from the first, 5 from the second and 5 from the third, each by
    a tournament, and changes one value of each. The first networks are random.

    With :class:`HierarchicalPruner`, which prunes a trial at E or 2E epochs, the populations are
    the trials by the rung that they reached; a trial that runs to its end is in the last one,
    and so are all of them with another pruner that stops none, or without reports. An empty
    population lends its share of the parents to the others. A network dies when ``max_age``
    cycles of trials have ended after it.

    With ``order="paper"`` or ``order="code"`` the search goes in synchronous cycles, to be run
    with ``optuna.pruners.NopPruner()``. Every trial trains one rung: the parameter ``epochs``
    says how far, the user attribute ``schedule_epochs`` how long the whole schedule is (3E). The
    best networks of a population are promoted by a new trial whose user attribute ``continues``
    is the number of the trial to go on from.

    The objective suggests the parameters of the space, and ``epochs`` in the synchronous orders;
    its value is the best held-out accuracy over the epochs, a fraction.

    Source: Zhou et al., *EcoNAS*, section 4 and algorithm 1; the tournament, its numbers and
    ``order="code"`` from the authors' code.

    Example:

        .. code-block:: python

            sampler = EcoNASSampler(CellSpace())
            pruner = HierarchicalPruner(epochs=20)
            study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
            study.optimize(objective)
            print(sampler.found(study))

    Args:
        space: The space to search: any with ``mutate(architecture, rng)``.
        initial: Number of random networks at the start.
        parents: Children of a cycle whose parent comes from the networks trained for E, 2E and
            3E epochs.
        max_age: Cycles for which a network stays alive.
        cycles: Cycles after which the search ends; None goes on for ever.
        unique: Whether a child that was tried before is changed once more, until it is new. The
            paper trains it again.
        order: ``"asynchronous"`` proposes a child whenever a worker is free; ``"paper"`` trains
            a cycle's children, then promotes; ``"code"``, as the authors' code, does both at
            once, and gives no parents for an empty population.
        promote: Networks promoted in a cycle from E to 2E, and from 2E to 3E epochs, in the
            synchronous orders.
        epochs: Epochs E of a rung in the synchronous orders.
        seed: Seed of the study. None derives one from the study's name.
        max_retries: How often a candidate is tried again whose worker died before it got further.
        patience: Seconds after which a running trial that decides nothing is not waited for.

    Raises:
        TypeError: If ``space`` has no ``mutate``.
        ValueError: If a number is out of range.

    Differences from the paper:
        A child is drawn when a worker is free, from the networks that are finished, and promoted
        when it arrives at a rung, or never (by the pruner). No network is trained twice, unless
        ``unique`` is off. Age counts trials: a cycle is ``sum(parents)`` of them. In the
        synchronous orders a cycle's parents are drawn from the population at its beginning, where
        algorithm 1 lets a child be a parent at once. A promotion restores the whole training
        state; the authors' code restores the weights alone.
    """

    retrained = BEST
    """How many of the candidates are trained fully."""

    def __init__(
        self,
        space: Space[A],
        *,
        initial: int = 50,
        parents: tuple[int, int, int] = (6, 5, 5),
        max_age: int = 10,
        cycles: int | None = 100,
        unique: bool = True,
        order: Literal["asynchronous", "paper", "code"] = "asynchronous",
        promote: tuple[int, int] = (8, 4),
        epochs: int = 20,
        seed: int | None = None,
        max_retries: int = 5,
        patience: float = 60.0,
    ) -> None:
        if not hasattr(space, "mutate"):
            raise TypeError(
                "EcoNASSampler searches a space with a method `mutate(architecture, rng)`, not "
                f"{space!r}."
            )
        check_choice("order", order, ("asynchronous", "paper", "code"))
        for name, value in {"initial": initial, "max_age": max_age, "epochs": epochs}.items():
            check_at_least(name, value, 1)
        if cycles is not None:
            check_at_least("cycles", cycles, 0)
        _check_counts("parents", parents, RUNGS)
        _check_counts("promote", promote, RUNGS - 1)
        check_at_least("sum(parents)", sum(parents), 1)
        self.sets_epochs = order != "asynchronous"
        super().__init__(space, seed=seed, max_retries=max_retries, patience=patience)
        self._mutate: Callable[[A, np.random.Generator], A] = space.mutate
        self._initial = initial
        self._parents = tuple(parents)
        self._max_age = max_age
        self._cycles = cycles
        self._unique = unique
        self._order = order
        self._promote = tuple(promote)
        self._epochs = epochs
        self._read: dict[int, tuple[FrozenTrial, bool]] = {}

    @property
    def has_end(self) -> bool:
        return self._cycles is not None

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        task = (
            self._next_at_once(history) if not self.sets_epochs else self._next_in_cycle(history)
        )
        if isinstance(task, Step):
            return task
        if task.promotes is not None:
            return self._promotion(history, task.promotes)
        architecture = self._new(history, task.among, rng)
        phase = "child" if task.among else "initial"
        return self._candidate(self.space.to_params(architecture), 1, phase)

    def found(self, study: Study) -> A | None:
        """The best network that is finished, or None before there is one."""
        return next((architecture for _, architecture, _ in self.candidates(study)), None)

    def candidates(self, study: Study) -> list[tuple[int, A, float]]:
        """Trial number, architecture and value of the five best networks, best first.

        A network that was trained for more rungs is better, whatever its age.
        """
        history = self._history(study)
        members = [self._member(history, result) for result in history.answers]
        members = [member for member in members if math.isfinite(member.value)]
        best: dict[A, Member] = {}
        for member in sorted(members, key=lambda m: (-m.rung, -m.value, m.number)):
            if self._is_network(history, member):
                best.setdefault(self._architecture(history, member), member)
            if len(best) == BEST:
                break
        return [(member.number, a, member.value) for a, member in best.items()]

    def _next_at_once(self, history: History) -> Task | Step:
        """A child of the networks that are finished now."""
        size = sum(self._parents)
        if self._cycles is not None and history.claims >= self._initial + self._cycles * size:
            return Step.WAIT if history.waits else Step.DONE
        if history.claims < self._initial:
            return Task()
        living = history.answers[-self._max_age * size :]
        members = [self._member(history, result) for result in living if not result.failed]
        members = [member for member in members if self._is_network(history, member)]
        among = shares(by_rung(members), self._parents)
        return Task(among[history.claims % len(among)]) if among else Task()

    def weights_needed(self, study: Study) -> Collection[int]:
        """The networks that may be promoted, in the synchronous orders."""
        if not self.sets_epochs:
            return ()
        history = self._history(study)
        members: list[Member] = []
        step, done = next_task(self._cycle_search(members), history)
        if step is Step.DONE:
            return ()
        current = [history.answer(key) for key in history.asked[done:]]
        recent = [result.number for result in current if result and result.number is not None]
        return {member.number for member in members if member.rung < RUNGS} | set(recent)

    def _next_in_cycle(self, history: History) -> Task | Step:
        return next_task(self._cycle_search([]), history)[0]

    def _cycle_search(self, members: list[Member]) -> Generator[list[Task], list[Result], None]:
        cycles = Cycles(
            initial=self._initial,
            parents=self._parents,
            max_age=self._max_age,
            cycles=self._cycles,
            snapshot=self._order == "code",
            promote=self._promote,
        )
        return cycles.search(members)

    def _member(self, history: History, result: Result) -> Member:
        """A result as a network in its population."""
        assert result.number is not None  # Only guesses have none.
        trial = history.trials[result.number]
        if self.sets_epochs:
            rung = trial.params.get("epochs", 0) // self._epochs
        elif trial.state == TrialState.COMPLETE:
            rung = RUNGS
        else:
            rung = trial.system_attrs.get(RUNG, 1)
        return Member(result.number, result.value, min(max(rung, 1), RUNGS))

    def _new(self, history: History, among: Sequence[Member], rng: np.random.Generator) -> A:
        """A child of a network drawn from ``among``, or else a random network."""
        if among:
            parent = self._architecture(history, tournament(among, rng))
            architecture = self._mutate(parent, rng)
        else:
            architecture = self.space.random(rng)
        for _ in range(DRAWS):
            if not self._unique or not self._is_known(history, architecture):
                break
            # From the known child onwards, so that a crowded neighbourhood is left.
            architecture = self._mutate(architecture, rng)
        return architecture

    def _is_known(self, history: History, architecture: A) -> bool:
        params = self._candidate(self.space.to_params(architecture), 1, "").params
        return history.result(params) is not None or history.is_running(params)

    def _promotion(self, history: History, member: Member) -> Candidate:
        params = self.space.to_params(self._architecture(history, member))
        continued = {CONTINUES: member.number}
        return self._candidate(params, member.rung + 1, "promotion", continued)

    def _candidate(
        self,
        params: dict[str, ParamValue],
        rung: int,
        phase: str,
        attrs: Mapping[str, int] | None = None,
    ) -> Candidate:
        if not self.sets_epochs:
            return Candidate(params, phase=phase)
        return Candidate(
            params | {"epochs": rung * self._epochs},
            phase=phase,
            attrs={SCHEDULE: RUNGS * self._epochs, **(attrs or {})},
        )

    def _is_network(self, history: History, member: Member) -> bool:
        """Whether a finished trial names a network: somebody may have added it."""
        trial = history.trials[member.number]
        known = self._read.get(member.number)
        if known is None or known[0] is not trial:
            known = self._read[member.number] = (trial, self.space.named_by(trial) is not None)
        return known[1]

    def _architecture(self, history: History, member: Member) -> A:
        return self.space.from_trial(history.trials[member.number])


def _check_counts(name: str, counts: tuple[int, ...], length: int) -> None:
    if len(counts) != length or not all(count >= 0 for count in counts):
        raise ValueError(f"`{name}` must hold {length} integers from 0 upwards: {counts}.")
