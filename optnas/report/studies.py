"""Which studies there are: in a folder, or in a storage."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudySummary
from optuna.trial import TrialState

from optnas.config.file import read_study_file
from optnas.config.messages import StudyFileError
from optnas.config.paths import storage_url
from optnas.errors import UserError, first_line
from optnas.report.text import GOES_ON, state_text
from optnas.storage.opening import explained, open_storage
from optnas.storage.urls import Absent, asked_url, hide_password
from optnas.study.opening import counted_trials, open_existing
from optnas.study.record import RECORD
from optnas.units import aligned, count

_SQLITE = b"SQLite format 3\x00"
_JOURNAL = b'{"op_code"'
UNREADABLE = "cannot be opened here"
_LARGEST_FILE = 1 << 16
"""Bytes of a study file at most."""


def studies_in(place: str) -> list[dict[str, Any]]:
    """What there is to say of every study, for programs; the newest first.

    Args:
        place: A folder, whose databases, journals and study files are looked at, or the URL of a
            storage.

    Raises:
        UserError: If there is no such place.
    """
    if "://" in place:
        return [_shown(row) for row in _newest(_in_storage(asked_url(place)))]
    folder = Path(place)
    if not folder.is_dir():
        raise UserError(f"{place}: expected a folder, or the URL of a storage")
    files = dict(_study_files(folder))
    rows: list[dict[str, Any]] = []
    for url in dict.fromkeys([*_storages(folder), *(url for url, _ in files)]):
        try:
            rows += _in_storage(url)
        except Absent:
            continue  # Of studies that are not started, or a database of something else.
        except UserError as error:
            named = [study for place, study in files if place == url] or ["-"]
            rows += [_row(url, study, UNREADABLE, reason=first_line(error)) for study in named]
    for row in rows:
        row["file"] = files.pop((row["url"], row["study"]), None)
    waiting = [_row(url, study, "not started", file=file) for (url, study), file in files.items()]
    return [_shown(row) for row in [*_newest(rows), *waiting]]


def studies_text(rows: list[dict[str, Any]], place: str) -> str:
    """The same, as a table for people."""
    if not rows:
        return f"no studies in {hide_password(place)}; `optnas init` writes a file to start from"
    table = [("study", "strategy", "state", "trials", "best", "last change", "file or storage")]
    for row in rows:
        best = "-" if row["best"] is None else f"{row['best']:.4f}"
        changed = "-" if row["changed"] is None else row["changed"].replace("T", " ")[:16]
        where = row["file"] or row["storage"]
        cells = (row["study"], row["sampler"] or "-", row["state"], count(row["trials"]))
        table.append((*cells, best, changed, where))
    reasons = dict.fromkeys(row["reason"] for row in rows if row["reason"] is not None)
    return "\n".join([*aligned(table, left=range(len(table[0]))), *reasons])


def _study_files(folder: Path) -> Iterator[tuple[tuple[str, str], str]]:
    """Storage and name of the study of every study file in a folder, and the file."""
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            if path.stat().st_size <= _LARGEST_FILE:
                written = read_study_file(path)
                if written.place is not None:
                    yield written.place, str(path)
        except (StudyFileError, OSError):
            continue  # Many a YAML file is none.


def _storages(folder: Path) -> Iterator[str]:
    """The URLs of the databases and journals in a folder, by how they begin."""
    for path in sorted(folder.iterdir()):
        try:
            with path.open("rb") as file:
                begin = file.read(16)
        except OSError:
            continue
        if begin == _SQLITE:
            yield storage_url(f"sqlite:///{path}", Path.cwd())
        elif begin.startswith(_JOURNAL):
            yield storage_url(f"journal:///{path}", Path.cwd())


def _in_storage(url: str) -> list[dict[str, Any]]:
    """The studies in a storage, which is only looked at."""
    with explained(url):
        storage = open_storage(url, create=False, reading=True)
        summaries = optuna.get_all_study_summaries(storage)
    return [_described(url, summary) for summary in summaries]


def _described(url: str, summary: StudySummary) -> dict[str, Any]:
    """A study, as far as it can be opened."""
    name = summary.study_name
    if RECORD not in summary.user_attrs:
        best = None if summary.best_trial is None else summary.best_trial.value
        return _row(url, name, "not of optnas", trials=summary.n_trials, best=best)
    try:
        handle = open_existing(url, name, reading=True)
    except UserError as error:
        reason = first_line(error)
        return _row(url, name, UNREADABLE, trials=summary.n_trials, reason=reason)
    trials = handle.study.get_trials(deepcopy=False)
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    state = state_text(handle)
    if state == GOES_ON:
        state = f"{running} running" if running else "stopped"
    ended = counted_trials(handle.study)
    moments = [t.datetime_complete or t.datetime_start for t in trials]
    return _row(
        url,
        name,
        state,
        sampler=handle.config.sampler.name,
        trials=len(ended),
        best=max((t.value for t in ended if t.value is not None), default=None),
        changed=max((moment for moment in moments if moment is not None), default=None),
    )


def _row(url: str, study: str, state: str, **fields: Any) -> dict[str, Any]:
    row = {"study": study, "url": url, "state": state, "sampler": None, "trials": 0, "best": None}
    return {**row, "changed": None, "file": None, "reason": None, **fields}


def _newest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    never = datetime.datetime.min
    return sorted(rows, key=lambda row: row["changed"] or never, reverse=True)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is printed: no passwords, times as text."""
    url = row.pop("url")
    changed = None if row["changed"] is None else row["changed"].isoformat()
    return {**row, "storage": hide_password(url), "changed": changed}
