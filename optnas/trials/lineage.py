"""Which trials a network descends from, and whose weights can still be inherited.

A finished trial cannot be written to any more, so that its weights are gone is said on the study.
"""

import os
import threading
from collections.abc import Collection, Iterator, Sequence

from optuna.storages import BaseStorage
from optuna.trial import BaseTrial, FrozenTrial, Trial

from optnas.trials.attributes import CONTINUES, PARENT

# User attributes of the study: among its system attributes are whole figures, once somebody has
# opened a dashboard, and this is read at every proposal.
_WITHOUT_WEIGHTS = "optnas:no_weights:"
_WRITER = os.urandom(8).hex()
_WRITING = threading.Lock()


def parent_of(trial: BaseTrial | FrozenTrial) -> int | None:
    """Number of the trial that ``trial`` starts from, or None for random weights.

    The user attribute counts more than the parameter: it says which parent was really there.
    """
    number = trial.user_attrs.get(PARENT, trial.params.get(PARENT))
    return number if isinstance(number, int) and number >= 0 else None


def ancestors(trials: Sequence[FrozenTrial], trial: FrozenTrial | Trial) -> Iterator[FrozenTrial]:
    """The trials that ``trial`` goes on from, nearest first: their training is its beginning.

    Args:
        trials: All trials of the study, by number.
        trial: One of them.
    """
    number: int | None = trial.user_attrs.get(CONTINUES)
    while number is not None:
        yield trials[number]
        number = trials[number].user_attrs.get(CONTINUES)


def without_weights(storage: BaseStorage, study_id: int) -> dict[int, str]:
    """The finished trials whose weights are known not to exist, and why."""
    lists = (
        reasons
        for name, reasons in storage.get_study_user_attrs(study_id).items()
        if name.startswith(_WITHOUT_WEIGHTS)
    )
    return {
        number: reason
        for reasons in lists
        for reason, numbers in reasons.items()
        for number in numbers
    }


def record_without_weights(
    storage: BaseStorage, study_id: int, numbers: Collection[int], reason: str
) -> None:
    """Say that nobody can inherit from these trials any more, and why."""
    # A list of this process alone, so that no entry of another one is lost.
    name = f"{_WITHOUT_WEIGHTS}{_WRITER}-{os.getpid()}"
    with _WRITING:
        own: dict[str, list[int]] = storage.get_study_user_attrs(study_id).get(name, {})
        merged = sorted({*own.get(reason, []), *numbers})
        storage.set_study_user_attr(study_id, name, {**own, reason: merged})
