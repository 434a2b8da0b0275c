"""Trials of a database that are read a column at a time, once somebody asks for it.

A finished trial does not change any more. So whoever wants to know of ten thousand trials how far
their search is reads states, phases and numbers of epochs, and no parameter of any of them.
"""

import dataclasses
import datetime
import functools
import json
from collections.abc import Callable
from typing import Any

import sqlalchemy
from optuna.distributions import json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from optnas.trials import damage
from optnas.trials.damage import DamagedError, damage_text, fits

FEW = 20
"""So many trials are read as a whole one by one; then all that ended alike are."""

ABSENT: Any = object()
Query = sqlalchemy.Select[Any]
Take = Callable[[Any], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A table of what trials have.

    Args:
        model: Optuna's class for it.
        key: The column that names what a row holds.
        fields: The columns that hold it.
        order: The column by which Optuna orders.
        decode: Makes a value of the fields.
        rules: What is expected of some values, by key.
    """

    model: Any
    key: Any
    fields: tuple[Any, ...]
    order: Any
    decode: Callable[..., Any]
    rules: damage.Rules | None = None


@functools.lru_cache(maxsize=1 << 16)
def _param(value: float, written: str) -> tuple[Any, Any]:
    """A parameter and its distribution, of which few are distinct."""
    distribution = json_to_distribution(written)
    return distribution.to_external_repr(value), distribution


_Param, _Value = models.TrialParamModel, models.TrialValueModel
_User, _System = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
_Report, _Trial = models.TrialIntermediateValueModel, models.TrialModel
PARAMS = Table(
    _Param,
    _Param.param_name,
    (_Param.param_value, _Param.distribution_json),
    _Param.param_id,
    _param,
)
USER = Table(
    _User,
    _User.key,
    (_User.value_json,),
    _User.trial_user_attribute_id,
    json.loads,
    damage.USER,
)
SYSTEM = Table(
    _System,
    _System.key,
    (_System.value_json,),
    _System.trial_system_attribute_id,
    json.loads,
    damage.SYSTEM,
)
REPORTS = Table(
    _Report,
    _Report.step,
    (_Report.intermediate_value, _Report.intermediate_value_type),
    _Report.trial_intermediate_value_id,
    _Report.stored_repr_to_intermediate_value,
)
VALUES = Table(
    _Value,
    _Value.objective,
    (_Value.value, _Value.value_type),
    _Value.trial_value_id,
    _Value.stored_repr_to_value,
)


class Columns:
    """What the finished trials of a study have, read when it is asked for, once.

    Args:
        read: Hands every row of a query to a function, which may be told of them all again.
        study_id: The study.

    Attributes:
        trials: The finished trials, by id; others are left out.
    """

    def __init__(self, read: Callable[[Query, Callable[[], Take]], None], study_id: int) -> None:
        self._read = read
        self._study_id = study_id
        self._counts: dict[Table, dict[int, int]] = {}
        self._having: dict[tuple[Table, Any], set[int]] = {}
        self._columns: dict[tuple[Table, Any], dict[int, Any]] = {}
        self._all: dict[tuple[Table, TrialState], dict[int, dict[Any, Any]]] = {}
        self._single: dict[Table, dict[int, dict[Any, Any]]] = {}
        self._constraints: dict[int, dict[str, Any]] | None = None
        self._times: dict[int, tuple[Any, Any]] | None = None
        self.trials: dict[int, FrozenTrial] = {}

    def count(self, table: Table, trial_id: int) -> int:
        """How many rows a trial has."""
        if table not in self._counts:
            id_ = table.model.trial_id
            query = self._of_study(table, id_, sqlalchemy.func.count()).group_by(id_)
            self._counts[table] = self._gathered(query, lambda row, found: found.update([row]))
        return self._counts[table].get(trial_id, 0)

    def has(self, table: Table, key: Any, trial_id: int) -> bool:
        """Whether a trial has a row of this key."""
        known = self._known(table, trial_id) is not None or (table, key) in self._columns
        if table is PARAMS or known:
            return self.get(table, key, trial_id, ABSENT) is not ABSENT
        if (table, key) not in self._having:
            query = self._of_study(table, table.model.trial_id).where(table.key == key)
            found = self._gathered(query, lambda row, found: found.update({row[0]: True}))
            self._having[table, key] = set(found)
        return trial_id in self._having[table, key]

    def get(self, table: Table, key: Any, trial_id: int, default: Any = None) -> Any:
        """The value of a trial's row of this key."""
        known = self._known(table, trial_id)
        if known is not None:
            return known.get(trial_id, {}).get(key, default)
        column = self._columns.get((table, key))
        if column is None and table is PARAMS and self._is_cheap(trial_id):
            # Who asks for one parameter of a network asks for the others, too.
            return self.whole(table, trial_id).get(key, default)
        if column is None:
            query = self._of_study(table, table.model.trial_id, *table.fields)

            def take(row: Any, found: dict[int, Any]) -> None:
                if row[0] in self.trials:
                    found[row[0]] = self._value(table, row[0], key, row[1:])

            column = self._gathered(query.where(table.key == key), take)
            self._columns[table, key] = column
        return column.get(trial_id, default)

    def whole(self, table: Table, trial_id: int) -> dict[Any, Any]:
        """All rows of a trial, by key."""
        single = self._single.setdefault(table, {})
        known = self._known(table, trial_id)
        if known is None and trial_id not in single:
            if len(single) < FEW:
                single[trial_id] = self._rows(table, _Trial.trial_id == trial_id).get(trial_id, {})
            else:  # Who asks for so many that a pruner stopped does not ask for the others.
                state = self.trials[trial_id].state
                known = self._all[table, state] = self._rows(table, _Trial.state == state)
        return single[trial_id] if known is None else known.get(trial_id, {})

    def _known(self, table: Table, trial_id: int) -> dict[int, dict[Any, Any]] | None:
        """The rows of all trials that ended like a trial, by id and key, if they were read."""
        return self._all.get((table, self.trials[trial_id].state))

    def _is_cheap(self, trial_id: int) -> bool:
        """Whether the parameters of a trial are known, or may be read alone."""
        known = self._single.get(PARAMS, {})
        return trial_id in known or len(known) < FEW

    def constraints(self, trial_id: int) -> dict[str, Any]:
        """The system attributes of a trial that are constraints."""
        if self._constraints is None:
            query = self._of_study(SYSTEM, SYSTEM.model.trial_id, SYSTEM.key, *SYSTEM.fields)

            def take(row: Any, found: dict[int, Any]) -> None:
                found.setdefault(row[0], {})[row[1]] = json.loads(row[2])

            query = query.where(SYSTEM.key.like("constraints%")).order_by(SYSTEM.order)
            self._constraints = self._gathered(query, take)
        return self._constraints.get(trial_id, {})

    def times(self, trial_id: int) -> tuple[datetime.datetime | None, datetime.datetime | None]:
        """When a trial began and ended."""
        if self._times is None:
            query = sqlalchemy.select(
                _Trial.trial_id, _Trial._datetime_start_utc, _Trial._datetime_complete_utc
            ).where(_Trial.study_id == self._study_id)
            self._times = self._gathered(
                query,
                lambda row, found: found.update(
                    {row[0]: (local_time(row[1]), local_time(row[2]))}
                ),
            )
        return self._times[trial_id]

    def _rows(self, table: Table, which: Any) -> dict[int, dict[Any, Any]]:
        """All rows of some trials, by id and key."""
        query = self._of_study(table, table.model.trial_id, table.key, *table.fields)
        query = query.where(which)

        def take(row: Any, found: dict[int, Any]) -> None:
            if row[0] in self.trials:
                of_trial = found.setdefault(row[0], {})
                of_trial[row[1]] = self._value(table, row[0], row[1], row[2:])

        return self._gathered(query.order_by(table.order), take)

    def _of_study(self, table: Table, *columns: Any) -> Query:
        query = sqlalchemy.select(*columns).join(_Trial, _Trial.trial_id == table.model.trial_id)
        return query.where(_Trial.study_id == self._study_id)

    def _gathered(
        self, query: Query, take: Callable[[Any, dict[int, Any]], None]
    ) -> dict[int, Any]:
        found: dict[int, Any] = {}

        def begin() -> Take:
            found.clear()  # A connection may break in the middle.
            return lambda row: take(row, found)

        self._read(query, begin)
        return found

    def _value(self, table: Table, trial_id: int, key: Any, fields: Any) -> Any:
        """What a row holds.

        Raises:
            DamagedError: If nobody could have written it.
        """
        value, trial = table.decode(*fields), self.trials[trial_id]
        if table is PARAMS:
            if not fits(value[1], value[0]):
                name, expected = f"parameter {key}", f"a value of {value[1]}"
                raise DamagedError(damage_text(trial.number, name, expected))
        elif table is REPORTS:
            if not damage.is_report(key, value):
                raise DamagedError(damage_text(trial.number, f"report {key}", damage.REPORT))
        elif table is VALUES:
            if not damage.is_number(value):
                raise DamagedError(damage_text(trial.number, "value", damage.VALUE))
        elif table.rules and key in table.rules:
            holds, expected = table.rules[key]
            if not holds(value, trial):
                raise DamagedError(damage_text(trial.number, key, expected))
        return value


def local_time(time: datetime.datetime | None) -> datetime.datetime | None:
    """A time of the database, in UTC, as Optuna gives it: here, and without saying so."""
    if time is None:
        return None
    return time.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)
