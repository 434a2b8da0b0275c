"""EcoNAS in synchronous cycles: algorithm 1 of the paper, and what its authors' code does."""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.samplers._batches import Batch, Candidate, InOrder
from optnas.samplers._history import History, Result
from optnas.samplers._options import Count, Positive
from optnas.samplers._outlook import Outlook, Stretch
from optnas.samplers._populations import (
    RUNGS,
    Member,
    PopulationSampler,
    by_rung,
    in_cycle,
    shares,
)
from optnas.samplers._replay import Replay, ReplaySampler, Search
from optnas.spaces import Architecture
from optnas.trials.attributes import CONTINUES, SCHEDULE

A = TypeVar("A", bound=Architecture)


@dataclasses.dataclass(frozen=True)
class Task:
    """A training to be done: of a child, of a network to promote, or else of a random network.

    Args:
        among: The networks that the child's parent is drawn from.
        promotes: The network to be trained for another rung.
    """

    among: Sequence[Member] = ()
    promotes: Member | None = None


@dataclasses.dataclass(eq=False)
class SynchronousEcoNASSampler(PopulationSampler[A], ReplaySampler[A]):
    """Sampler using the cycles of *EcoNAS: Finding Proxies for Economical NAS*.

    Networks live in three populations, of those trained for E, 2E and 3E epochs. Every cycle
    trains 16 children for E epochs: 6 with a parent from the first population, 5 from the second
    and 5 from the third, each by a tournament, each with one value changed. The best 8 of the
    first population are then trained to 2E epochs, and the best 4 of the second to 3E.

    It is run without a pruner. Every trial trains one rung: the parameter ``epochs`` says how
    far, the user attribute ``schedule_epochs`` how long the whole schedule is (3E). A promotion
    is a new trial, whose user attribute ``continues`` is the number of the trial to go on from.
    What is trained at once keeps as many workers busy; then all wait for the slowest.
    :class:`EcoNASSampler` does without waiting.

    The objective suggests the parameters of the space and ``epochs``; its value is the best
    held-out accuracy over the epochs, a fraction.

    Source: Zhou et al., *EcoNAS*, section 4 and algorithm 1; the tournament, its numbers and
    ``order="code"`` from the authors' code.

    Example:

        .. code-block:: python

            sampler = SynchronousEcoNASSampler(CellSpace(), epochs=20)
            study = optuna.create_study(
                direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner()
            )
            study.optimize(objective)
            print(sampler.found(study))

    Args:
        space: The space to search: any whose parameters say the
            whole network. Options that are not
            named here are those of the evolution (:class:`PopulationSampler`).
        order: ``"paper"`` trains a cycle's children, then promotes; ``"code"``, as the authors'
            code, does both at once, and gives no parents for an empty population.
        promote: Networks promoted in a cycle from E to 2E, and from 2E to 3E epochs.
        epochs: Epochs E of a rung.

    Raises:
        TypeError: If the networks of ``space`` descend from one another.
        ValueError: If an option is out of range.

    Differences from the paper:
        No network is trained twice, unless ``unique`` is off. A cycle's parents are drawn from
        the population at its beginning, where algorithm 1 lets a child be a parent at once. A
        promotion restores the whole training state; the authors' code restores the weights alone.
    """

    sets_epochs = True

    _: KW_ONLY
    order: Literal["paper", "code"] = "paper"
    promote: Annotated[tuple[Count, Count], "hold 2 integers from 0 upwards"] = (8, 4)
    epochs: Positive = 20

    @property
    def epochs_range(self) -> tuple[int, int]:
        return self.epochs, RUNGS * self.epochs

    def search(self, population: list[Member] | None = None) -> Search[Any]:
        """Algorithm 1.

        Args:
            population: Empty; the networks that are alive are kept here.
        """
        alive: list[Member] = [] if population is None else population
        yield from self._train([Task()] * self.initial, alive, 0)
        for cycle in itertools.count() if self.cycles is None else range(self.cycles):
            alive[:] = [member for member in alive if cycle - member.cycle < self.max_age]
            children = self._children(by_rung(alive, RUNGS))
            if self.order == "paper":
                yield from self._train(children, alive, cycle)
                yield from self._train(self._promotions(alive, 1), alive, cycle)
                yield from self._train(self._promotions(alive, 2), alive, cycle)
            else:
                promotions = [*self._promotions(alive, 1), *self._promotions(alive, 2)]
                yield from self._train([*children, *promotions], alive, cycle)

    def _children(self, populations: Sequence[list[Member]]) -> list[Task]:
        """A cycle's children; random networks where nobody is alive."""
        among = shares(populations, self.parents)
        if not among:
            return [Task()] * sum(self.parents)
        children = sum(self.parents) if self.order == "paper" else len(among)
        return [Task(among[child % len(among)]) for child in range(children)]

    def _promotions(self, alive: Sequence[Member], rung: int) -> list[Task]:
        """The best of a population."""
        ranked = sorted((m for m in alive if m.rung == rung), key=lambda m: m.value, reverse=True)
        return [Task(promotes=member) for member in ranked[: self.promote[rung - 1]]]

    def _train(
        self, tasks: Sequence[Task], alive: list[Member], cycle: int
    ) -> Generator[Batch, list[Result], None]:
        """Train at once, and move each network to its next population; what fails dies."""
        when = in_cycle(cycle, self.cycles)
        results = yield InOrder(
            [
                functools.partial(self._candidate, task, f"{when}: {place} of {len(tasks)}")
                for place, task in enumerate(tasks, start=1)
            ]
        )
        promoted = [task.promotes for task in tasks if task.promotes is not None]
        alive[:] = [member for member in alive if member not in promoted]
        for task, result in zip(tasks, results, strict=True):
            old, rung, value = task.promotes, 1, result.value
            if old is not None:
                rung, value = old.rung + 1, max(old.value, value)
            if result.number is not None and not result.failed:
                alive.append(Member(result.number, value, rung, cycle))

    def _candidate(
        self, task: Task, step: str, history: History, rng: np.random.Generator
    ) -> Candidate:
        """Draws what a task trains."""
        return dataclasses.replace(self._drawn(task, history, rng), step=step)

    def _drawn(self, task: Task, history: History, rng: np.random.Generator) -> Candidate:
        if task.promotes is not None:
            network = self._network(history, task.promotes)
            continued = {CONTINUES: task.promotes.number}
            return self._training(network, task.promotes.rung + 1, "promotion", continued)
        if task.among:
            return self._child(task.among, history, rng)
        return self._random_network(history, rng)

    def _first_training(self, network: A, phase: str) -> Candidate:
        return self._training(network, 1, phase)

    def _training(
        self, network: A, rung: int, phase: str, attrs: Mapping[str, int] | None = None
    ) -> Candidate:
        return Candidate(
            self.space.to_params(network) | {"epochs": rung * self.epochs},
            phase=phase,
            attrs={SCHEDULE: RUNGS * self.epochs, **(attrs or {})},
        )

    def outlook(self, study: Study, rng: np.random.Generator) -> Outlook | None:
        """Every trial trains a rung; in the first cycles there are fewer networks to promote."""
        if self.cycles is None:
            return None
        children, promoted = sum(self.parents), 0
        living = [self.initial, 0]  # In the populations of the first and the second rung.
        for _ in range(self.cycles):
            for rung, most in enumerate(self.promote):
                living[0] += children if rung == 0 else 0
                number = min(most, living[rung])
                promoted, living[rung] = promoted + number, living[rung] - number
                living[1] += number if rung == 0 else 0
        total = self.initial + self.cycles * children + promoted
        left = total - len(self._history(study).results)
        return Outlook.settled(Stretch("child or promotion", left, self.epochs))

    def rung(self, trial: FrozenTrial) -> int:
        rung: int = trial.params.get("epochs", 0) // self.epochs
        return min(rung, RUNGS)

    def weights_needed(self, study: Study) -> Collection[int]:
        """The networks that may be promoted."""
        history, alive = self._history(study), list[Member]()
        replay = Replay(self.search(alive))
        replay.go_on(history)
        if replay.next is None:
            return ()
        recent = [result.number for _, result in replay.members if result is not None]
        numbers = [*(member.number for member in alive if member.rung < RUNGS), *recent]
        return {number for number in numbers if number is not None}
