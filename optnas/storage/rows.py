"""Trials of a database read whole, as Optuna's class has them, without an object for every row.

Whoever decides reads what the trials that run have so far: with many workers hundreds of rows,
again and again. Optuna makes an object of its mapper of each, which takes ten times as long.
"""

import collections
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
_Parts = dict[int, dict[Any, Any]]


def trials_of_study(
    connection: sqlalchemy.Connection,
    study_id: int,
    states: Collection[Any] | None,
    included: Collection[int],
    after: int,
) -> list[FrozenTrial]:
    """Trials of a study, by id.

    Args:
        connection: To the database.
        study_id: The study.
        states: Those asked for; None for all.
        included: Ids of trials up to ``after`` that are asked for, too.
        after: The id after which all are asked for; -1 for all that there are.

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
    return _with_parts(connection, sorted(found, key=lambda row: row[0]))


def trial_of_id(connection: sqlalchemy.Connection, trial_id: int) -> FrozenTrial:
    """A trial.

    Raises:
        KeyError: If there is none.
    """
    found = connection.execute(_TRIALS.where(_Trial.trial_id == trial_id)).all()
    if not found:
        raise KeyError(models.NOT_FOUND_MSG)
    return _with_parts(connection, found)[0]


def _with_parts(connection: sqlalchemy.Connection, found: Sequence[Any]) -> list[FrozenTrial]:
    trials: list[FrozenTrial] = []
    for rows in _portions(found):
        ids = [row[0] for row in rows]
        params = _read(connection, PARAMS, ids)
        user, system = _read_attrs(connection, ids)
        reports = _read(connection, REPORTS, ids)
        # Those that run have none.
        values = _read(connection, VALUES, [row[0] for row in rows if row[2].is_finished()])
        trials += [
            FrozenTrial(
                number=number,
                state=state,
                value=None,
                values=_values(values.get(trial_id)),
                datetime_start=local_time(began),
                datetime_complete=local_time(ended),
                params={name: pair[0] for name, pair in params[trial_id].items()},
                distributions={name: pair[1] for name, pair in params[trial_id].items()},
                user_attrs=user[trial_id],
                system_attrs=system[trial_id],
                intermediate_values=reports[trial_id],
                trial_id=trial_id,
            )
            for trial_id, number, state, began, ended in rows
        ]
    return trials


def _values(by_objective: dict[int, float] | None) -> list[float] | None:
    if not by_objective:
        return None
    values: list[float] = [0] * len(by_objective)
    for objective, value in by_objective.items():
        values[objective] = value
    return values


def _read(connection: sqlalchemy.Connection, table: Table, ids: Sequence[int]) -> _Parts:
    """The rows of trials, decoded, by id and key."""
    parts: _Parts = collections.defaultdict(dict)
    if ids:
        query = sqlalchemy.select(table.model.trial_id, table.key, *table.fields)
        query = query.where(table.model.trial_id.in_(ids)).order_by(table.order)
        for trial_id, key, *fields in connection.execute(query):
            parts[trial_id][key] = table.decode(*fields)
    return parts


def _read_attrs(connection: sqlalchemy.Connection, ids: Sequence[int]) -> tuple[_Parts, _Parts]:
    """User and system attributes of trials, in one statement: their tables are alike."""
    parts: tuple[_Parts, _Parts] = collections.defaultdict(dict), collections.defaultdict(dict)
    queries = [
        sqlalchemy.select(
            sqlalchemy.literal_column(str(which)).label("which"),
            table.model.trial_id,
            table.order.label("place"),
            table.key,
            *table.fields,
        ).where(table.model.trial_id.in_(ids))
        for which, table in enumerate((USER, SYSTEM))
    ]
    both = sqlalchemy.union_all(*queries)
    for which, trial_id, _, key, text in connection.execute(both.order_by("which", "place")):
        parts[which][trial_id][key] = json.loads(text)
    return parts


def _portions(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[first : first + AT_ONCE] for first in range(0, len(items), AT_ONCE))
