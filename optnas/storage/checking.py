"""Storages that are checked as they are read: what is damaged is refused in one line.

A database or journal may be damaged, edited, or made up. Optuna decodes its rows one way or
another, or stumbles over them; a trial that it could read is held to `optnas.trials.damage`.
"""

import contextlib
import datetime
import functools
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import json_to_distribution
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import NOT_FOUND_MSG, JournalOperation
from optuna.trial import FrozenTrial, TrialState, create_trial

from optnas.errors import UserError
from optnas.storage.database import Database
from optnas.trials.damage import DamagedError, damage_text, damages, without

UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, AssertionError),
)
"""What Optuna raises when it decodes what nobody encoded."""


def check_number(number: Any, trial_id: int) -> None:
    """Refuse a trial's number that is none: trials are told apart, and ordered, by it.

    Raises:
        DamagedError: Then.
    """
    if not isinstance(number, int):
        raise DamagedError(
            f"the trial with the id {trial_id} has a damaged number: expected a whole number; "
            "restore a copy"
        )


class Checks:
    """The trials of one storage, checked once each if they are finished.

    Attributes:
        found: What is wrong, by trial and key, where it is left out instead of refused; or None.
        lines: The numbers of damaged lines of a journal, where they are left out; or None.
    """

    lines: list[int] | None = None

    def __init__(self) -> None:
        self.found: dict[tuple[int, str], str] | None = None
        self._sound: dict[int, FrozenTrial | None] = {}
        """None for one that has ended."""

    def __call__(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The trials.

        Raises:
            DamagedError: If something is wrong with one, unless it is left out.
        """
        for trial in trials:
            id_ = trial._trial_id
            if id_ in self._sound and (self._sound[id_] is None or self._sound[id_] is trial):
                continue
            check_number(trial.number, trial._trial_id)
            for key, expected in list(damages(trial)):
                if self.found is None:
                    raise DamagedError(damage_text(trial.number, key, expected))
                self.found[trial.number, key] = expected
                without(trial, key)
            self._sound[trial._trial_id] = None if trial.state.is_finished() else trial
        return list(trials)


def checks_of(storage: BaseStorage) -> Checks | None:
    """The checks of a storage that `optnas.storage.opening` opened; None for others."""
    backend = getattr(storage, "_backend", storage)  # Behind Optuna's cache.
    return getattr(backend, "checks", None)


def _decoded(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that reads a storage, with what it cannot decode explained."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except UserError:
            raise
        except UNREADABLE as error:
            raise DamagedError(self.diagnosis(error)) from error

    return call


class CheckedDatabase(Database):
    """A database whose rows are data, whatever they hold."""

    checks: Checks

    get_study_user_attrs = _decoded(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _decoded(RDBStorage.get_study_system_attrs)
    get_study_directions = _decoded(RDBStorage.get_study_directions)
    get_trial_system_attrs = _decoded(RDBStorage.get_trial_system_attrs)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        known = (study_id, states, included_trial_ids, trial_id_greater_than)
        try:
            return self.checks(super()._get_trials(*known))
        except UserError:
            raise
        except UNREADABLE as error:
            if self.checks.found is None:
                raise DamagedError(self.diagnosis(error)) from error
            return self.checks(list(self._one_by_one(study_id)))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        try:
            return self.checks([super().get_trial(trial_id)])[0]
        except (UserError, KeyError):
            raise
        except UNREADABLE as error:
            raise DamagedError(self.diagnosis(error)) from error

    def _one_by_one(self, study_id: int) -> Iterator[FrozenTrial]:
        """The trials; one that cannot be decoded as a failed one about which nothing is known."""
        assert self.checks.found is not None
        self.checks.found.update(_undecodable(self.engine))
        query = "SELECT trial_id, number FROM trials WHERE study_id = :id ORDER BY number"
        with self.engine.connect() as connection:
            rows = connection.execute(sqlalchemy.text(query), {"id": study_id}).all()
        for trial_id, number in rows:
            try:
                yield RDBStorage.get_trial(self, trial_id)
            except UNREADABLE:
                trial = create_trial(state=TrialState.FAIL)
                trial.number, trial._trial_id = number, trial_id
                yield trial

    def diagnosis(self, error: BaseException) -> str:
        """Which row cannot be decoded."""
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError, StopIteration):
            (number, key), expected = next(iter(_undecodable(self.engine).items()))
            return _study_text(key, expected) if number < 0 else damage_text(number, key, expected)
        return f"the storage is damaged: {type(error).__name__}: {error}"


class LineCheckedBackend(JournalFileBackend):
    """A journal whose lines are data, whatever they hold."""

    checks: Checks
    _path: str

    def __init__(self, path: str, lock: Any) -> None:
        super().__init__(path, lock)
        self._path, self.checks = path, Checks()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        if self.checks.lines is not None:
            yield from self._sound_logs(log_number_from, self.checks.lines)
            return
        number = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                number += 1
                if not _is_operation(log):
                    raise DamagedError(_line_text(number))
                yield log
        except DamagedError:
            raise
        except (ValueError, RecursionError):
            raise DamagedError(_line_text(number + 1)) from None

    def _sound_logs(self, start: int, damaged: list[int]) -> Iterator[dict[str, Any]]:
        """The lines from one on; one that is damaged as an operation that does nothing."""
        with open(self._path, "rb") as file:
            for number, line in enumerate(file):
                if number < start or not line.endswith(b"\n"):
                    continue
                log: Any = None
                with contextlib.suppress(ValueError, RecursionError):
                    log = json.loads(line)
                if _is_operation(log):
                    yield log
                else:
                    damaged.append(number + 1)
                    yield dict(_NOTHING)


_OF_STUDY: Mapping[str, type] = {"study_id": int}
_OF_TRIAL: Mapping[str, type] = {"trial_id": int}
_FIELDS: Mapping[int, Mapping[str, type]] = {
    JournalOperation.CREATE_STUDY: {"study_name": str, "directions": list},
    JournalOperation.DELETE_STUDY: _OF_STUDY,
    JournalOperation.SET_STUDY_USER_ATTR: {**_OF_STUDY, "user_attr": dict},
    JournalOperation.SET_STUDY_SYSTEM_ATTR: {**_OF_STUDY, "system_attr": dict},
    JournalOperation.CREATE_TRIAL: _OF_STUDY,
    JournalOperation.SET_TRIAL_PARAM: {**_OF_TRIAL, "param_name": str, "distribution": str},
    JournalOperation.SET_TRIAL_STATE_VALUES: {**_OF_TRIAL, "state": int},
    JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE: {**_OF_TRIAL, "step": int},
    JournalOperation.SET_TRIAL_USER_ATTR: {**_OF_TRIAL, "user_attr": dict},
    JournalOperation.SET_TRIAL_SYSTEM_ATTR: {**_OF_TRIAL, "system_attr": dict},
    JournalOperation.DISCARD_TRIALS: {},
}
"""What Optuna's replay takes for granted of each operation: fields, and their types in JSON."""


def _is_operation(log: Any) -> bool:
    """Whether a line of a journal is an operation that can be replayed, or refused as a whole."""
    if type(log) is not dict or type(code := log.get("op_code")) is not int:
        return False
    # Exact types: true and 1.0 are as good a key as 1, and name the same trial.
    return (
        code in _FIELDS
        and type(log.get("worker_id")) is str
        and all(type(log.get(key)) is kind for key, kind in _FIELDS[code].items())
    )


_NOTHING = {"op_code": JournalOperation.DELETE_STUDY, "study_id": -1, "worker_id": ""}
"""An operation of another process on a study that does not exist."""


class _CheckedTrials(BaseStorage):
    """A storage that hands out no damaged trial."""

    checks: Checks

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        # Of the storage that this is mixed into.
        trials = super().get_all_trials(study_id, deepcopy, states)  # type: ignore[safe-super]
        return self.checks(trials)


class CheckedJournal(_CheckedTrials, JournalStorage):
    """A journal whose trials are data, whatever they hold."""

    def _sync_with_backend(self) -> None:
        while True:
            try:
                return super()._sync_with_backend()
            except (UserError, optuna.exceptions.OptunaError):
                raise
            except UNREADABLE as error:
                # Optuna refuses what its caller asked for in the same words, from its own logs.
                if _is_refusal(error):
                    raise
                number = self._replay_result.log_number_read
                if self.checks.lines is None:
                    raise DamagedError(_line_text(number)) from error
                self.checks.lines.append(number)


class CheckedProxy(_CheckedTrials, GrpcStorageProxy):
    """A proxy whose trials are data, whatever they hold."""


def _is_refusal(error: BaseException) -> bool:
    """Whether Optuna's replay refused an operation of this process, not a line of the file."""
    return isinstance(error, KeyError) and error.args == (NOT_FOUND_MSG,)


def _line_text(number: int) -> str:
    return (
        f"line {number} of the journal is damaged: expected an operation of Optuna's as JSON; "
        "restore a copy, or remove the line; `optnas doctor` lists all such lines"
    )


def _study_text(key: str, expected: str) -> str:
    return f"what is stored of the study as {key!r} is damaged: expected {expected}"


_KINDS = {"INF_POS": float("inf"), "INF_NEG": -float("inf"), "NAN": float("nan")}
_ROWS: Mapping[str, tuple[str, Callable[..., Any], str]] = {
    "trials": (
        "SELECT number, 'state', state FROM trials ORDER BY number",
        lambda state: TrialState[state],
        "a state",
    ),
    "times": (
        "SELECT number, 'datetime_start', datetime_start, datetime_complete FROM trials "
        "ORDER BY number",
        lambda *times: [datetime.datetime.fromisoformat(str(t)) for t in times if t is not None],
        "a time",
    ),
    "trial_params": (
        "SELECT number, param_name, distribution_json, param_value FROM trial_params "
        "JOIN trials USING (trial_id) ORDER BY number",
        lambda json, value: json_to_distribution(json).to_external_repr(value),
        "a distribution and a value of it",
    ),
    "trial_values": (
        "SELECT number, 'value', value_type, value FROM trial_values "
        "JOIN trials USING (trial_id) ORDER BY number",
        lambda kind, value: float(value) if kind == "FINITE" else _KINDS[kind],
        "a number",
    ),
    "trial_intermediate_values": (
        "SELECT number, step, intermediate_value_type, intermediate_value "
        "FROM trial_intermediate_values JOIN trials USING (trial_id) ORDER BY number",
        lambda kind, value: float(value) if kind == "FINITE" else _KINDS[kind],
        "a number",
    ),
    "trial_user_attributes": (
        'SELECT number, "key", value_json FROM trial_user_attributes '
        "JOIN trials USING (trial_id) ORDER BY number",
        json.loads,
        "JSON",
    ),
    "trial_system_attributes": (
        'SELECT number, "key", value_json FROM trial_system_attributes '
        "JOIN trials USING (trial_id) ORDER BY number",
        json.loads,
        "JSON",
    ),
    "study_user_attributes": (
        'SELECT -1, "key", value_json FROM study_user_attributes',
        json.loads,
        "JSON",
    ),
    "study_system_attributes": (
        'SELECT -1, "key", value_json FROM study_system_attributes',
        json.loads,
        "JSON",
    ),
    "study_directions": (
        "SELECT -1, 'direction', direction FROM study_directions",
        lambda direction: optuna.study.StudyDirection[direction],
        "a direction",
    ),
}


def _undecodable(engine: sqlalchemy.Engine) -> dict[tuple[int, str], str]:
    """Rows that cannot be decoded, by number of the trial (-1 for the study) and key."""
    found = {}
    with engine.connect() as connection:
        if engine.dialect.name == "mysql":
            connection.execute(sqlalchemy.text("SET SESSION sql_mode = 'ANSI_QUOTES'"))
        for query, decode, expected in _ROWS.values():
            for number, key, *values in connection.execute(sqlalchemy.text(query)):
                try:
                    decode(*values)
                except UNREADABLE:
                    found[number if isinstance(number, int) else -1, str(key)] = expected
    return found
