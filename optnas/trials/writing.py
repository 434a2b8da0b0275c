"""Several attributes written on a trial at once."""

from collections.abc import Sequence
from typing import Any, Literal

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

Attr = tuple[Literal["user", "system"], str, Any]
"""An attribute of a trial: whose it is, its name, its value."""


def write_attrs(storage: BaseStorage, trial: FrozenTrial, attrs: Sequence[Attr]) -> None:
    """Set attributes of a trial, and show them on ``trial`` itself.

    A database of ours sets all of them at once, or none; other storages one after the other.
    """
    backend = getattr(storage, "_backend", storage)  # Behind Optuna's cache.
    together = getattr(backend, "set_trial_attrs", None)
    if together is not None:
        together(trial._trial_id, attrs)
    for whose, name, value in attrs:
        if together is None and whose == "user":
            storage.set_trial_user_attr(trial._trial_id, name, value)
        elif together is None:
            storage.set_trial_system_attr(trial._trial_id, name, value)
        shown = trial.user_attrs if whose == "user" else trial.system_attrs
        shown[name] = value
