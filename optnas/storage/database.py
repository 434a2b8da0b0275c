"""Optuna's storage in a database, with few statements for what a trial reads and writes.

A trial of a strategy makes some twenty entries. Optuna asks for each whether the trial still runs,
in a transaction of its own, which with what opens and ends it is five round trips to a server.
Here an entry is one statement, which makes it where the trial runs, and says whether it did.
"""

import contextlib
import functools
import json
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import mysql, postgresql, sqlite

from optnas.storage.rows import Running, trial_of_id, trials_of_study
from optnas.trials.writing import Attr

_INSERTS: Mapping[str, Any] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
    "mysql": mysql.insert,
    "mariadb": mysql.insert,
}
_Trial = models.TrialModel
_Param, _Report = models.TrialParamModel, models.TrialIntermediateValueModel
_ATTRS = {"user": models.TrialUserAttributeModel, "system": models.TrialSystemAttributeModel}


class Database(RDBStorage):
    """A database; the answers are those of Optuna's class."""

    @functools.cached_property
    def _running(self) -> Running:
        return Running()

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        assert states is None or isinstance(states, Collection)
        with self._reads() as connection:
            return trials_of_study(
                connection,
                study_id,
                states,
                included_trial_ids,
                trial_id_greater_than,
                self._running,
            )

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._reads() as connection:
            return trial_of_id(connection, trial_id)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.set_trial_attrs(trial_id, [("user", key, value)])

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.set_trial_attrs(trial_id, [("system", key, value)])

    def set_trial_attrs(self, trial_id: int, attrs: Sequence[Attr]) -> None:
        """Set attributes of a trial, all of them or none.

        Raises:
            KeyError: If there is no such trial.
            UpdateFinishedTrialError: If it has ended.
        """
        entries: dict[Any, list[dict[str, Any]]] = {}
        for whose, key, value in attrs:
            entry = {"trial": trial_id, "new_key": key, "new_value_json": json.dumps(value)}
            entries.setdefault(_ATTRS[whose], []).append(entry)
        self._write(trial_id, entries)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        value, kind = _Report.intermediate_value_to_stored_repr(intermediate_value)
        entry = {
            "trial": trial_id,
            "new_step": step,
            "new_intermediate_value": value,
            "new_intermediate_value_type": kind,
        }
        self._write(trial_id, {_Report: [entry]})

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        if previous_distribution is None:  # Somebody else may know one.
            super()._set_trial_param(
                trial_id, param_name, param_value_internal, distribution, previous_distribution
            )
            return
        check_distribution_compatibility(previous_distribution, distribution)
        entry = {
            "trial": trial_id,
            "new_param_name": param_name,
            "new_param_value": param_value_internal,
            "new_distribution_json": distribution_to_json(distribution),
        }
        self._write(trial_id, {_Param: [entry]})

    def _write(self, trial_id: int, entries: Mapping[Any, list[dict[str, Any]]]) -> None:
        """Make entries in tables of what trials have, where the trial runs."""
        dialect, number, made = self.engine.dialect.name, 0, 0
        with self._writes(is_one=sum(map(len, entries.values())) == 1) as connection:
            for model, rows in entries.items():
                statement = _entry(dialect, model)
                for row in rows:
                    number += 1
                    made += connection.execute(statement, row).rowcount != 0
            if made < number:
                state = connection.execute(_STATE, {"trial": trial_id}).scalar()
                if state is None:
                    raise KeyError(models.NOT_FOUND_MSG)
                self.check_trial_is_updatable(trial_id, state)

    @contextlib.contextmanager
    def _reads(self) -> Iterator[sqlalchemy.Connection]:
        with self._connected() as connection:
            # There a transaction would show what others write meanwhile, too.
            yield self._alone(connection)

    @contextlib.contextmanager
    def _writes(self, *, is_one: bool) -> Iterator[sqlalchemy.Connection]:
        """For one statement, or for several that are all done or none."""
        with self._connected() as connection:
            if is_one:
                self._alone(connection)
            yield connection
            connection.commit()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlalchemy.Connection]:
        with self.engine.connect() as connection:
            try:
                yield connection
            except sqlalchemy.exc.SQLAlchemyError:
                # A commit that failed may have left its transaction open, with its locks.
                connection.invalidate()
                raise

    def _alone(self, connection: sqlalchemy.Connection) -> sqlalchemy.Connection:
        """A connection whose every statement is a transaction, where that saves round trips."""
        if self.engine.dialect.name != "postgresql":
            return connection
        return connection.execution_options(isolation_level="AUTOCOMMIT")


_STATE = sqlalchemy.select(_Trial.state).where(_Trial.trial_id == sqlalchemy.bindparam("trial"))
_KEYS: Mapping[Any, tuple[str, ...]] = {
    **dict.fromkeys(_ATTRS.values(), ("trial_id", "key")),
    _Report: ("trial_id", "step"),
    _Param: ("trial_id", "param_name"),
}
_FIELDS: Mapping[Any, tuple[str, ...]] = {
    **dict.fromkeys(_ATTRS.values(), ("value_json",)),
    _Report: ("intermediate_value", "intermediate_value_type"),
    _Param: ("param_value", "distribution_json"),
}


@functools.cache
def _entry(dialect: str, model: Any) -> Any:
    """The statement that makes an entry of a trial that runs.

    One that is there is made anew, but for parameters, which do not change.
    """
    table, keys, fields = model.__table__, _KEYS[model], _FIELDS[model]
    names = (*keys[1:], *fields)
    given = [sqlalchemy.bindparam(f"new_{name}", type_=table.c[name].type) for name in names]
    chosen = sqlalchemy.select(_Trial.trial_id, *given).where(
        _Trial.trial_id == sqlalchemy.bindparam("trial"),
        _Trial.state.in_([TrialState.RUNNING, TrialState.WAITING]),
    )
    insert = _INSERTS[dialect](model).from_select([keys[0], *names], chosen)
    insert = insert.execution_options(preserve_rowcount=True)
    changed = keys[:1] if model is _Param else fields
    if dialect in ("mysql", "mariadb"):
        return insert.on_duplicate_key_update({name: insert.inserted[name] for name in changed})
    update = {name: insert.excluded[name] for name in changed}
    return insert.on_conflict_do_update(index_elements=keys, set_=update)
