"""The candidates that trials were given, or queued with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from optnas.trials.attributes import CLAIM
from optnas.trials.writing import Attr, write_attrs


@dataclasses.dataclass(frozen=True)
class Claim:
    """The candidate that a trial was given.

    Args:
        index: Number of distinct candidates that the study had claimed before this one.
        params: The parameters proposed for the trial.
        attrs: The user attributes given with them.
        continues: Number of the lost trial that this one goes on from.
    """

    index: int
    params: Mapping[str, Any]
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    continues: int | None = None

    @classmethod
    def of(cls, trial: FrozenTrial) -> "Claim | None":
        """The claim of ``trial``, or None if it was not given a candidate."""
        fields = trial.system_attrs.get(CLAIM)
        return None if fields is None else cls(**fields)

    def attr(self) -> Attr:
        """What says so on the trial."""
        return "system", CLAIM, dataclasses.asdict(self)

    def write(self, storage: BaseStorage, trial: FrozenTrial) -> None:
        """Store the claim, and show it on ``trial`` itself."""
        write_attrs(storage, trial, [self.attr()])


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether ``trial`` violates no constraint."""
    return all(violation <= 0 for violation in trial.constraints.values())


def queued_params(trial: FrozenTrial) -> Mapping[str, Any]:
    """The parameters that a trial was queued with."""
    fixed: Mapping[str, Any] = trial.system_attrs.get("fixed_params", {})
    return fixed
