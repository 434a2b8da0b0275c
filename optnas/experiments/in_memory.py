"""Searches in memory, where the objective trains nothing: tables."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import optuna
from optuna.trial import FrozenTrial

from optnas.config import plugins
from optnas.config.contract import Objective, objective_class
from optnas.config.file import StudyFile
from optnas.errors import UserError
from optnas.experiments.studies import run_all
from optnas.study.objectives import ObjectiveMaker
from optnas.study.unstored import unstored

Cost = Callable[[FrozenTrial, Sequence[FrozenTrial]], float]
"""What a trial spent itself; the second argument are all trials of its study."""


@dataclasses.dataclass(frozen=True)
class Simulated:
    """What came of a search in memory.

    Args:
        trials: Its trials, by number.
        scores: What the score column says of every trial's network, NaN where there is none;
            None without a score column.
    """

    trials: Sequence[FrozenTrial]
    scores: Sequence[float] | None


def is_instant(config: StudyFile) -> bool:
    """Whether the objective of a study trains nothing."""
    return not objective_class(
        plugins.load("objective", config.objective.name, config.folder)
    ).trains


def simulate_all(
    configs: Sequence[StudyFile], *, processes: int, cost: Cost, amount: float, score: str | None
) -> Iterator[tuple[StudyFile, Simulated]]:
    """Search until the cost is spent, some searches at once; yields each with what came of it.

    Args:
        configs: The searches.
        processes: How many run at once, each in a process of its own; 1 stays in this one.
        cost: What a trial spent; it can be pickled.
        amount: How much a search may spend.
        score: A column of the table that says what the networks are worth.

    Raises:
        UserError: If a table cannot be read, or has no such column.
    """
    work = functools.partial(_simulated, cost=cost, amount=amount, score=score)
    yield from run_all(configs, work, processes)


def _simulated(config: StudyFile, *, cost: Cost, amount: float, score: str | None) -> Simulated:
    objective = _objective(config)
    if score is not None and objective.score is None:
        raise UserError(f"--score: the objective {config.objective.name!r} has no other columns")
    shape = {"in_channels": objective.in_channels, "classes": objective.classes}
    study = unstored(config, **shape).study
    spent = 0.0

    def stop_when_spent(study: optuna.Study, trial: FrozenTrial) -> None:
        nonlocal spent
        spent += cost(trial, study.get_trials(deepcopy=False))
        if spent >= amount:
            study.stop()

    study.optimize(objective, callbacks=[stop_when_spent])
    trials = study.get_trials(deepcopy=False)
    if score is None or objective.score is None:
        return Simulated(trials, None)
    named = [config.search_space.named_by(trial) for trial in trials]
    say = objective.score
    return Simulated(trials, [float("nan") if a is None else say(a, score) for a in named])


def _objective(config: StudyFile) -> Objective:
    """The objective of a configuration; the last table is kept, to be read once."""
    key = tuple(
        str(part) for part in (config.objective, config.space, config.limits, config.folder)
    )
    if key not in _KEPT:
        maker = ObjectiveMaker(config)
        maker.check()
        _KEPT.clear()
        _KEPT[key] = maker.make()
    return _KEPT[key]


_KEPT: dict[tuple[str, ...], Objective] = {}
