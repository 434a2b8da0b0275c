"""Trials of a database read whole, as Optuna's class has them, without an object for every row.

Whoever decides reads what the trials that run have so far: with many workers hundreds of rows,
again and again. Optuna makes an object of its mapper of each, which takes ten times as long.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

from optnas.storage.columns import PARAMS, REPORTS, SYSTEM, USER, VALUES, Table, local_time

AT_ONCE = 500
"""Trials of which is asked at once: databases limit the parameters of a statement."""

_Trial, _Study = models.TrialModel, models.StudyModel
_TRIALS = sqlalchemy.select(
    _Trial.trial_id,
    _Trial.number,
    _Trial.state,
    _Trial._datetime_start_utc,
    _Trial._datetime_complete_utc,
)


def trials_of_study(
    connection: sqlalchemy.Connection,
    study_id: int,
    states: Collection[Any] | None,
    included: Collection[int],
    after: int,
    running: "Running",
) -> list[FrozenTrial]:
    """Trials of a study, by id, not to be modified.

    Args:
        connection: To the database.
        study_id: The study.
        states: Those asked for; None for all.
        included: Ids of trials up to ``after`` that are asked for, too.
        after: The id after which all are asked for; -1 for all that there are.
        running: What is known of those that run.

    Raises:
        KeyError: If there is no such study.
    """
    query = _TRIALS.where(_Trial.study_id == study_id)
    if states is not None:
        query = query.where(_Trial.state.in_(states))
    if after >= 0:
        newer = _Trial.trial_id > after
        earlier = sorted(id_ for id_ in included if id_ <= after)
        queries = [query.where(_Trial.trial_id.in_(ids)) for ids in _portions(earlier[AT_ONCE:])]
        listed = _Trial.trial_id.in_(earlier[:AT_ONCE])
        queries.append(query.where(sqlalchemy.or_(listed, newer) if earlier else newer))
    else:
        queries = [query]
    found = [row for each in queries for row in connection.execute(each)]
    if not found:
        known = sqlalchemy.select(_Study.study_id).where(_Study.study_id == study_id)
        if connection.execute(known).first() is None:
            raise KeyError(models.NOT_FOUND_MSG)
    return [running.made(raw) for raw in _raw(connection, sorted(found, key=lambda row: row[0]))]


def trial_of_id(connection: sqlalchemy.Connection, trial_id: int) -> FrozenTrial:
    """A trial, which nobody else has.

    Raises:
        KeyError: If there is none.
    """
    found = connection.execute(_TRIALS.where(_Trial.trial_id == trial_id)).all()
    if not found:
        raise KeyError(models.NOT_FOUND_MSG)
    return _built(_raw(connection, found)[0])


class Running:
    """The trials that ran when they were last read: one that did not change is the same object."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[_Raw, FrozenTrial]] = {}

    def made(self, raw: "_Raw") -> FrozenTrial:
        """The trial that these rows make."""
        trial_id, _, state, *_ = raw[0]
        known = self._known.get(trial_id)
        if known is not None and known[0] == raw:
            return known[1]
        trial = _built(raw)
        if state.is_finished():
            self._known.pop(trial_id, None)
        else:
            self._known[trial_id] = (raw, trial)
        return trial


_Raw = tuple[Any, ...]
"""What the tables have of a trial: its row, then lists of the rows of its parameters, user
attributes, system attributes, reports and values."""


def _raw(connection: sqlalchemy.Connection, found: Sequence[Any]) -> list[_Raw]:
    raw: list[_Raw] = []
    for rows in _portions(found):
        parts: dict[int, tuple[list[Any], ...]] = {row[0]: ([], [], [], [], []) for row in rows}
        given = {"ids": list(parts)}
        for trial_id, *rest in connection.execute(_PARAMS, given):
            parts[trial_id][0].append(rest)
        for which, trial_id, _, *rest in connection.execute(_ATTRS, given):
            parts[trial_id][which].append(rest)
        for trial_id, *rest in connection.execute(_REPORTS, given):
            parts[trial_id][3].append(rest)
        # Those that run have none.
        ended = [row[0] for row in rows if row[2].is_finished()]
        if ended:
            for trial_id, *rest in connection.execute(_VALUES, {"ids": ended}):
                parts[trial_id][4].append(rest)
        raw += [(tuple(row), *parts[row[0]]) for row in rows]
    return raw


def _built(raw: _Raw) -> FrozenTrial:
    (trial_id, number, state, began, ended), params, user, system, reports, values = raw
    decoded = {name: PARAMS.decode(*fields) for name, *fields in params}
    return FrozenTrial(
        number=number,
        state=state,
        value=None,
        values=_values({key: VALUES.decode(*fields) for key, *fields in values}),
        datetime_start=local_time(began),
        datetime_complete=local_time(ended),
        params={name: pair[0] for name, pair in decoded.items()},
        distributions={name: pair[1] for name, pair in decoded.items()},
        user_attrs={key: json.loads(text) for key, text in user},
        system_attrs={key: json.loads(text) for key, text in system},
        intermediate_values={step: REPORTS.decode(*fields) for step, *fields in reports},
        trial_id=trial_id,
    )


def _values(by_objective: dict[int, float]) -> list[float] | None:
    if not by_objective:
        return None
    values: list[float] = [0] * len(by_objective)
    for objective, value in by_objective.items():
        values[objective] = value
    return values


def _rows_of(table: Table) -> Any:
    query = sqlalchemy.select(table.model.trial_id, table.key, *table.fields)
    return query.where(table.model.trial_id.in_(_IDS)).order_by(table.order)


def _attrs() -> Any:
    """User and system attributes, in one statement: their tables are alike."""
    queries = [
        sqlalchemy.select(
            sqlalchemy.literal_column(str(which)).label("which"),
            table.model.trial_id,
            table.order.label("place"),
            table.key,
            *table.fields,
        ).where(table.model.trial_id.in_(_IDS))
        for which, table in ((1, USER), (2, SYSTEM))
    ]
    return sqlalchemy.union_all(*queries).order_by("which", "place")


_IDS: sqlalchemy.BindParameter[Any] = sqlalchemy.bindparam("ids", expanding=True)
_PARAMS, _REPORTS, _VALUES = map(_rows_of, (PARAMS, REPORTS, VALUES))
_ATTRS = _attrs()


def _portions(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[first : first + AT_ONCE] for first in range(0, len(items), AT_ONCE))
