"""Finished trials of which nothing is read before somebody asks."""

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optuna.study._constrained_optimization import _get_constraints_from_system_attrs
from optuna.trial import FrozenTrial, TrialState

from optnas.storage.columns import ABSENT, PARAMS, REPORTS, SYSTEM, USER, VALUES, Columns, Table
from optnas.trials.damage import DamagedError, damage_text

_first, _second = operator.itemgetter(0), operator.itemgetter(1)


class Fields(Mapping[Any, Any]):
    """What a trial has in a table: its parameters, say.

    Args:
        columns: Where it is read.
        table: The table.
        trial_id: The trial.
        part: Makes what is shown of what a row holds; None shows it as it is.
    """

    __slots__ = ("_columns", "_part", "_table", "_trial_id")

    def __init__(
        self,
        columns: Columns,
        table: Table,
        trial_id: int,
        part: Callable[[Any], Any] | None = None,
    ) -> None:
        self._columns, self._table = columns, table
        self._trial_id, self._part = trial_id, part

    def __getitem__(self, key: Any) -> Any:
        value = self._columns.get(self._table, key, self._trial_id, ABSENT)
        if value is ABSENT:
            raise KeyError(key)
        return value if self._part is None else self._part(value)

    def __contains__(self, key: Any) -> bool:
        return self._columns.has(self._table, key, self._trial_id)

    def __len__(self) -> int:
        return self._columns.count(self._table, self._trial_id)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._columns.whole(self._table, self._trial_id))

    def items(self) -> Any:
        return self.read().items()

    def values(self) -> Any:
        return self.read().values()

    def get(self, key: Any, default: Any = None) -> Any:
        value = self._columns.get(self._table, key, self._trial_id, ABSENT)
        if value is ABSENT:
            return default
        return value if self._part is None else self._part(value)

    def read(self) -> dict[Any, Any]:
        """All of it."""
        found, part = self._columns.whole(self._table, self._trial_id), self._part
        return dict(found) if part is None else {k: part(v) for k, v in found.items()}


class ColumnTrial(FrozenTrial):
    """A finished trial, of which nothing is read before somebody asks.

    Args:
        columns: Where it is read.
        number: Its number.
        trial_id: Its id in the database.
        state: Its state.
    """

    def __init__(self, columns: Columns, number: int, trial_id: int, state: TrialState) -> None:
        self._columns = columns
        self._number = number
        self._trial_id = trial_id
        self.state = state

    def __getattr__(self, name: str) -> Any:
        # What Optuna's class keeps under these names.
        if name not in _KEPT:
            raise AttributeError(name)
        return _KEPT[name](self, self._columns, self._trial_id)

    @property
    def constraints(self) -> dict[str, float]:
        return _get_constraints_from_system_attrs(self._columns.constraints(self._trial_id))

    def whole(self) -> FrozenTrial:
        """The trial as Optuna reads it."""
        return FrozenTrial(
            number=self.number,
            state=self.state,
            value=None,
            values=self._values,
            datetime_start=self._datetime_start,
            datetime_complete=self.datetime_complete,
            params=dict(self._params.items()),
            distributions=dict(self._distributions.items()),
            user_attrs=dict(self._user_attrs.items()),
            system_attrs=dict(self._system_attrs.items()),
            intermediate_values=dict(self.intermediate_values.items()),
            trial_id=self._trial_id,
        )

    def __deepcopy__(self, memo: Any) -> FrozenTrial:
        return copy.deepcopy(self.whole(), memo)

    def __eq__(self, other: object) -> bool:
        return self.whole() == (other.whole() if isinstance(other, ColumnTrial) else other)

    def __hash__(self) -> int:
        return self._trial_id

    def __repr__(self) -> str:
        return repr(self.whole())


def _values(trial: ColumnTrial, columns: Columns, trial_id: int) -> list[float] | None:
    value = columns.get(VALUES, 0, trial_id)
    if value is None and trial.state == TrialState.COMPLETE:
        expected = "one number, which a complete trial has"
        raise DamagedError(damage_text(trial.number, "value", expected))
    return None if value is None else [value]


_KEPT: Mapping[str, Callable[[ColumnTrial, Columns, int], Any]] = {
    "_params": lambda _, columns, trial_id: Fields(columns, PARAMS, trial_id, _first),
    "_distributions": lambda _, columns, trial_id: Fields(columns, PARAMS, trial_id, _second),
    "_user_attrs": lambda _, columns, trial_id: Fields(columns, USER, trial_id),
    "_system_attrs": lambda _, columns, trial_id: Fields(columns, SYSTEM, trial_id),
    "intermediate_values": lambda _, columns, trial_id: Fields(columns, REPORTS, trial_id),
    "_values": _values,
    "_datetime_start": lambda _, columns, trial_id: columns.times(trial_id)[0],
    "datetime_complete": lambda _, columns, trial_id: columns.times(trial_id)[1],
}
