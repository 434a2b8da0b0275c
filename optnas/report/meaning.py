"""What the numbers of a search mean beside one another, and where they mean nothing."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from optnas.study.budget import trial_epochs
from optnas.study.data import seen_fields
from optnas.study.opening import Conclusion, OpenStudy
from optnas.study.record import metric_of
from optnas.trials.attributes import PHASE
from optnas.trials.chance import is_chance
from optnas.units import plural

LEAST = 3
"""Fewer trials may be at chance by accident."""


def could_be_guessed(handle: OpenStudy, value: float | None) -> bool | None:
    """Whether a guess could have such a value; None where nobody can tell."""
    counts = (seen_fields(handle.study) or {}).get("counts") or {}
    judgement = next((c for c in map(counts.get, ("validation", "test")) if c and sum(c)), None)
    if value is None or not judgement or not 0 <= value <= 1:
        return None
    return is_chance(value, judgement, metric_of(handle.study).key)


def remarks(handle: OpenStudy, found: Sequence[Conclusion], target: str) -> list[str]:
    """What has to be said of networks that are shown side by side.

    Args:
        handle: The study.
        found: The networks.
        target: How commands name the study.
    """
    return [*incomparable(handle, found), *nothing_learnt(handle, found, target)]


def incomparable(handle: OpenStudy, found: Sequence[Conclusion]) -> list[str]:
    """What has to be said of values after trainings of other lengths.

    Args:
        handle: The study.
        found: The networks.
    """
    trials = handle.study.get_trials(deepcopy=False)
    epochs = {c.number: trial_epochs(trials[c.number]) for c in found}
    if len(set(epochs.values())) < 2:
        return []
    each = ", ".join(f"trial {n} for {plural(e, 'epoch')}" for n, e in epochs.items())
    return [f"These values cannot be compared, after trainings of other lengths: {each}."]


def nothing_learnt(handle: OpenStudy, found: Sequence[Conclusion], target: str) -> list[str]:
    """What has to be said of phases that are no better than a guess, and what follows.

    Args:
        handle: The study.
        found: The networks.
        target: How commands name the study.
    """
    trials = handle.study.get_trials(deepcopy=False)
    idle = phases_at_chance(handle, trials)
    if not idle:
        return []
    names = " and ".join(filter(None, [", ".join(idle[:-1]), idle[-1]]))
    number = sum(t.value is not None and t.user_attrs.get(PHASE) in idle for t in trials)
    phases = f"{'phase' if len(idle) == 1 else 'phases'} {names}"
    lines = [
        f"All {plural(number, 'trial')} of the {phases} are no better than a guess: nothing was "
        "learnt there, and what was changed is chance."
    ]
    sound = next((c for c in found if trials[c.number].user_attrs.get(PHASE) not in idle), None)
    if sound is not None and sound is not found[0]:
        lines.append(
            f"What follows: train the network of trial {sound.number}, by `optnas retrain "
            f"{target} --trial {sound.number}`; or search again with more epochs for these phases."
        )
    else:
        lines.append("What follows: search again, with more epochs or other training settings.")
    return lines


def phases_at_chance(handle: OpenStudy, trials: Sequence[FrozenTrial]) -> list[str]:
    """The phases in which no network was better than a guess, if there are some trials of them.

    Phases that follow one another count together.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            values[str(trial.user_attrs.get(PHASE, ""))].append(trial.value)
    idle: list[str] = []
    for is_idle, run in itertools.groupby(
        filter(None, values), lambda phase: bool(could_be_guessed(handle, max(values[phase])))
    ):
        phases = list(run)
        if is_idle and sum(len(values[phase]) for phase in phases) >= LEAST:
            idle += phases
    return idle
