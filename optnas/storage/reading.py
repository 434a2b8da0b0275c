"""Databases that are only looked at: nothing is written there, whether that is allowed or not.

What is asked of finished trials is read a column at a time where the tables are those that
`optnas.storage.columns` knows, and by Optuna otherwise: the answers are the same.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Container
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import orm

from optnas.errors import UserError
from optnas.storage.checking import UNREADABLE, CheckedDatabase, Checks, check_number
from optnas.storage.column_trials import ColumnTrial
from optnas.storage.columns import Columns, Query, Take
from optnas.storage.retrying import (
    DATABASE_METHODS,
    METHODS,
    SQLITE_TIMEOUT,
    Outage,
    may_pass,
    patient,
)
from optnas.storage.soundness import parts_beside
from optnas.storage.urls import Absent, engine_url, hide_password, storage_file
from optnas.trials.damage import DamagedError

KNOWN = (12, "v3.2.0.a")
"""The schema whose tables are read here, of Optuna 5: its own version, and alembic's."""
_OPTUNA = "5."
_AT_ONCE = 2000
"""Rows that are fetched at once."""


@patient((*METHODS, *DATABASE_METHODS, "read"), may_pass)
class ReadDatabase(CheckedDatabase):
    """A database whose tables are known, to look at.

    Args:
        url: Its URL.
        engine: What reads it.
    """

    def __init__(self, url: str, engine: sqlalchemy.Engine) -> None:
        # What Optuna's class has, without what it does to a database that it opens: it makes
        # tables, and loads a package that upgrades them.
        self.checks, self.outage = Checks(), Outage(url)
        self.url, self.engine, self.engine_kwargs = engine_url(url), engine, {}
        self.skip_compatibility_check = True
        self.heartbeat_interval = self.grace_period = None
        self.heartbeat_stale_trial_callback = self.failed_trial_callback = None
        self.scoped_session = orm.scoped_session(orm.sessionmaker(bind=engine))
        self._columns: dict[int, Columns] = {}

    def read(self, query: Query, begin: Callable[[], Take]) -> None:
        """Hand every row of a query to what ``begin`` returns, from the first one each time."""
        take = begin()
        try:
            with self.engine.connect() as connection:
                for rows in (
                    connection.execution_options(yield_per=_AT_ONCE).execute(query).partitions()
                ):
                    for row in rows:
                        take(row)
        except UserError:
            raise
        except UNREADABLE as error:
            raise DamagedError(self.diagnosis(error)) from error

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        if self.checks.found is not None or states is not None or trial_id_greater_than >= 0:
            known = (study_id, states, included_trial_ids, trial_id_greater_than)
            return super()._get_trials(*known)
        columns = self._columns[study_id] = Columns(self.read, study_id)
        rows = self._states(study_id)
        for trial_id, number, state in rows:
            check_number(number, trial_id)
            if state.is_finished():
                columns.trials[trial_id] = ColumnTrial(columns, number, trial_id, state)
        # Those change while others are read, so each is read once and whole.
        open_ = {trial_id for trial_id, _, state in rows if not state.is_finished()}
        others: list[FrozenTrial] = []
        if open_:
            last = max(row[0] for row in rows)
            others = super()._get_trials(study_id, None, open_, last)
        return [*columns.trials.values(), *others]

    def _states(self, study_id: int) -> list[Any]:
        """Id, number and state of every trial."""
        trial = models.TrialModel
        query = sqlalchemy.select(trial.trial_id, trial.number, trial.state)
        found: list[Any] = []

        def begin() -> Take:
            found.clear()
            return found.append

        self.read(query.where(trial.study_id == study_id).order_by(trial.trial_id), begin)
        return found


def read_database(url: str) -> ReadDatabase | None:
    """The database at ``url``, to look at; None if its tables are not those that are known.

    Raises:
        Absent: If it has no tables of studies: none was ever stored there.
    """
    path = storage_file(url)
    engine = (
        sqlalchemy.create_engine(engine_url(url), pool_pre_ping=True)
        if path is None
        else _engine_of(path, url)
    )
    tables = set(sqlalchemy.inspect(engine).get_table_names())
    is_known = optuna.__version__.startswith(_OPTUNA) and _version(engine, tables) == KNOWN
    if is_known:
        return ReadDatabase(url, engine)
    engine.dispose()
    if "studies" not in tables:
        raise Absent(
            f"{hide_password(url)}: no study was ever stored there; `optnas run` creates one."
        )
    return None


def _version(engine: sqlalchemy.Engine, tables: Collection[str]) -> tuple[Any, ...] | None:
    """The version of the tables; None if they say none."""
    if not {"version_info", "alembic_version"}.issubset(tables):
        return None
    with engine.connect() as connection:
        schema = connection.execute(sqlalchemy.select(models.VersionInfoModel.schema_version))
        alembic = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))
        return (schema.scalar(), alembic.scalar())


def _engine_of(path: Path, url: str) -> sqlalchemy.Engine:
    """What reads a file of sqlite, on whatever medium it is."""

    def engine(place: Path, options: str) -> sqlalchemy.Engine:
        uri = f"{place.absolute().as_uri()}?{options}"

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(uri, uri=True, timeout=SQLITE_TIMEOUT, check_same_thread=False)

        return sqlalchemy.create_engine(engine_url(url), creator=connect)

    if is_writable(path):
        return engine(path, "mode=rw")
    kept = engine(path, "mode=ro")
    try:
        with kept.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT count(*) FROM sqlite_master"))
        return kept
    except sqlalchemy.exc.OperationalError:
        kept.dispose()
    parts = parts_beside(path)
    if not parts:  # Nobody can write to it, so that no lock is needed.
        return engine(path, "mode=ro&immutable=1")
    # A part of it is in files that only a writer can take in.
    folder = tempfile.TemporaryDirectory(prefix="optnas-")
    for part in ("", *parts):
        shutil.copy(path.with_name(path.name + part), Path(folder.name, "study.db" + part))
    copied = engine(Path(folder.name, "study.db"), "mode=rw")
    sqlalchemy.event.listen(copied, "engine_disposed", lambda _: folder.cleanup())
    return copied


def is_writable(path: Path) -> bool:
    """Whether a file of sqlite, and what belongs beside it, can be written to."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
