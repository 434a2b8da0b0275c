"""Which trial a network descends from, and whose weights can still be inherited.

A finished trial cannot be written to any more, so that its weights are gone is said on the study.
"""

from optuna.storages import BaseStorage
from optuna.trial import BaseTrial, FrozenTrial

PARENT = "parent"
"""Parameter, or user attribute: number of the trial that a network starts from."""
ARCHITECTURE = "architecture"
"""User attribute: the architecture as JSON, where the parameters alone do not say it."""
TRAINING_SEED = "training_seed"
"""User attribute: what a trial's training is a function of, besides the images and the recipe."""

_WITHOUT_WEIGHTS = "optnas:no_weights:"


def parent_of(trial: BaseTrial | FrozenTrial) -> int | None:
    """Number of the trial that ``trial`` starts from, or None for random weights.

    The user attribute counts more than the parameter: it says which parent was really there.
    """
    number = trial.user_attrs.get(PARENT, trial.params.get(PARENT))
    return number if isinstance(number, int) and number >= 0 else None


def without_weights(storage: BaseStorage, study_id: int) -> dict[int, str]:
    """The finished trials whose weights are known not to exist, and why."""
    attrs = storage.get_study_system_attrs(study_id)
    return {
        int(name.removeprefix(_WITHOUT_WEIGHTS)): reason
        for name, reason in attrs.items()
        if name.startswith(_WITHOUT_WEIGHTS)
    }


def record_without_weights(storage: BaseStorage, study_id: int, number: int, reason: str) -> None:
    """Say that nobody can inherit from a trial any more, and why."""
    storage.set_study_system_attr(study_id, f"{_WITHOUT_WEIGHTS}{number}", reason)
