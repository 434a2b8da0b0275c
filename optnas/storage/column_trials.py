"""Finished trials of which nothing is read before somebody asks."""

import copy
import datetime
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

    # What Optuna's class keeps under these names.

    @property
    def _params(self) -> Any:
        return Fields(self._columns, PARAMS, self._trial_id, _first)

    @property
    def _distributions(self) -> Any:
        return Fields(self._columns, PARAMS, self._trial_id, _second)

    @property
    def _user_attrs(self) -> Any:
        return Fields(self._columns, USER, self._trial_id)

    @property
    def _system_attrs(self) -> Any:
        return Fields(self._columns, SYSTEM, self._trial_id)

    @property
    def intermediate_values(self) -> Any:
        return Fields(self._columns, REPORTS, self._trial_id)

    @property
    def _values(self) -> Any:
        value = self._columns.get(VALUES, 0, self._trial_id)
        if value is None and self.state == TrialState.COMPLETE:
            expected = "one number, which a complete trial has"
            raise DamagedError(damage_text(self.number, "value", expected))
        return None if value is None else [value]

    @property
    def _datetime_start(self) -> datetime.datetime | None:
        return self._columns.times(self._trial_id)[0]

    @property
    def datetime_complete(self) -> datetime.datetime | None:
        return self._columns.times(self._trial_id)[1]

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
            params=self._params.read(),
            distributions=self._distributions.read(),
            user_attrs=self._user_attrs.read(),
            system_attrs=self._system_attrs.read(),
            intermediate_values=self.intermediate_values.read(),
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
