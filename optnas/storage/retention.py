"""Which training states must stay: garbage collection, decided from the study alone."""

from collections.abc import Iterator, Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas.config.contract import strategy_of
from optnas.trials.attributes import CONTINUES, PARENT
from optnas.trials.claims import Claim, is_feasible, queued_params
from optnas.trials.failures import is_lost
from optnas.trials.lineage import ancestors, parent_of

Keep = str
"""``"hull"``, ``"best:K"`` or ``"all"``."""


def needed(study: Study, trials: Sequence[FrozenTrial], keep: Keep | None) -> set[int]:
    """Numbers of the trials whose training state somebody may go on with, or start from.

    Args:
        study: The study; its sampler says what the strategy may still inherit from.
        trials: All trials, by number.
        keep: What is kept beyond that: the most cost-efficient networks (``"hull"``), the K with
            the highest values (``"best:K"``), or ``"all"`` that are complete.
    """
    numbers: set[int] = set()
    strategy = strategy_of(study.sampler)
    weights_needed = strategy.weights_needed
    have_parents = weights_needed is None or strategy.inherits
    for trial in _open(trials):
        line = [trial, *ancestors(trials, trial)]
        numbers.update(other.number for other in line)
        if have_parents:  # People may have named one that does not exist.
            parents = map(_parent, line)
            numbers.update(n for n in parents if n is not None and 0 <= n < len(trials))
    if weights_needed is not None:
        numbers.update(weights_needed(study))
    return numbers | set(_kept(trials, keep))


def deciding(trial: FrozenTrial) -> bool:
    """Whether a running trial has not chosen its candidate yet, or not its parent."""
    chosen = bool(trial.params) and (PARENT in trial.user_attrs or PARENT not in trial.params)
    return trial.state == TrialState.RUNNING and Claim.of(trial) is None and not chosen


def _open(trials: Sequence[FrozenTrial]) -> Iterator[FrozenTrial]:
    """The trials that train, will be trained, or were lost and will be continued."""
    continued = {trial.user_attrs.get(CONTINUES) for trial in trials}
    for trial in trials:
        if not trial.state.is_finished() or (is_lost(trial) and trial.number not in continued):
            yield trial


def _parent(trial: FrozenTrial) -> int | None:
    claim = Claim.of(trial)
    given = queued_params(trial) if claim is None else {**claim.params, **claim.attrs}
    parent = parent_of(trial)
    if parent is None and isinstance(given.get(PARENT), int):
        parent = given[PARENT]
    return parent


def _kept(trials: Sequence[FrozenTrial], keep: Keep | None) -> list[int]:
    if keep is None:
        return []
    complete = [
        trial for trial in trials if trial.state == TrialState.COMPLETE and is_feasible(trial)
    ]
    if keep == "hull":
        from optnas.trials.hull import hull_of

        complete = hull_of(complete)
    elif keep != "all":
        ranked = sorted(complete, key=lambda trial: trial.value or 0.0, reverse=True)
        complete = ranked[: int(keep.removeprefix("best:"))]
    return [trial.number for trial in complete]
