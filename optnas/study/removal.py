"""Throwing a study away: what belongs to it is shown first, and nothing else is touched.

Only what is provably the study's own is deleted: its rows in the storage, its training states and
its list of images, whose names tell whose they are, and the drawings that its trials name, under
the names that Optuna gives out, in a folder of its own. A name in the storage is data: it never
says a path.
"""

import contextlib
import dataclasses
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from optnas.config.file import Written
from optnas.config.paths import default_artifacts, split_bucket
from optnas.config.stored import references
from optnas.errors import UserError
from optnas.storage.artifacts import absent, is_marked, open_artifacts
from optnas.storage.opening import ask_study, explained, release
from optnas.storage.urls import hide_password, storage_file
from optnas.study.data import images_prefix
from optnas.study.folders import network_folder, page_path
from optnas.study.opening import OpenStudy, counted_trials, open_existing
from optnas.study.record import identity_of
from optnas.trials.leases import worker_is_dead
from optnas.units import plural, size

_DRAWING = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MENTION = "artifacts:"
"""What Optuna's attributes begin with that name an artifact of a trial."""


@dataclasses.dataclass(frozen=True)
class Belongings:
    """What belongs to a study.

    Args:
        handle: The study.
        artifacts: Names and bytes of what it keeps in its artifacts.
        file: The file of its storage, if nothing else is in it; else None.
        stays: What was made of it, and is not thrown away.
    """

    handle: OpenStudy
    artifacts: dict[str, int]
    file: Path | None
    stays: tuple[str, ...]

    def text(self) -> str:
        """What would be thrown away, in lines."""
        study, config = self.handle.study, self.handle.config
        trials = counted_trials(study)
        values = [trial.value for trial in trials if trial.value is not None]
        best = f", best value {max(values):.4f}" if values else ""
        place = hide_password(config.storage)
        whole = "the file with it, as it holds no other study" if self.file else "nothing else"
        count = plural(len(trials), "trial")
        lines = [f"study {study.study_name!r} in {place}: {count}{best}; {whole}"]
        if self.artifacts:
            total = size(sum(self.artifacts.values()))
            lines.append(f"{len(self.artifacts)} artifacts in {config.artifacts}: {total}")
        lines += [f"{path} stays" for path in self.stays]
        return "\n".join(lines)


def study_of(written: Written) -> OpenStudy | None:
    """The study of a configuration as it was made, whatever the configuration says now.

    Raises:
        UserError: If the configuration cannot be understood, or the study cannot be opened.
    """
    if written.place is None:
        written.checked()  # It says what is wrong.
    assert written.place is not None
    url, name = written.place
    if not ask_study(url, name, lambda _: True):
        return None
    return open_existing(url, name, allow=references(written.keys).values())


def belongings(handle: OpenStudy) -> Belongings:
    """What belongs to a study.

    Raises:
        UserError: If somebody works on it, or its artifacts cannot be read.
    """
    trials = handle.study.get_trials(deepcopy=False)
    working = [t.number for t in trials if t.state == TrialState.RUNNING and not worker_is_dead(t)]
    if working:
        raise UserError(
            f"a worker trains trial {working[0]} of the study {handle.study.study_name!r}; stop "
            "it first"
        )
    made = (network_folder(handle), str(page_path(handle)))
    stays = tuple(path for path in made if Path(path).exists())
    return Belongings(handle, dict(_artifacts(handle, trials)), _whole_file(handle), stays)


def throw_away(belongings: Belongings) -> None:
    """Delete what belongs to a study.

    The artifacts go first: what is left of a study that was interrupted here can be shown and
    thrown away again.

    Raises:
        UserError: If the storage cannot be used.
    """
    handle = belongings.handle
    config, study = handle.config, handle.study
    if belongings.artifacts:
        store = open_artifacts(config.artifacts, create=False)
        for name in belongings.artifacts:
            with contextlib.suppress(*absent()):
                store.remove(name)
    _leave(config.artifacts, identity_of(study))
    with explained(config.storage):
        optuna.delete_study(study_name=study.study_name, storage=study._storage)
        release(study._storage)
    if belongings.file is not None:
        belongings.file.unlink(missing_ok=True)


def _artifacts(handle: OpenStudy, trials: list[FrozenTrial]) -> Iterator[tuple[str, int]]:
    """Names and bytes of the artifacts that are the study's own."""
    config, study = handle.config, handle.study
    store = open_artifacts(config.artifacts, create=False)
    states = handle.checkpoints(store)
    listed = images_prefix(study)
    drawn = set(_drawings(trials)) if _is_own_place(handle) else set()
    try:
        for name, number in store.items():
            if states.is_own(name) or name.startswith(listed) or name in drawn:
                yield name, number
    except OSError as error:
        raise UserError(f"the artifacts in {config.artifacts} cannot be read: {error}") from None


def _is_own_place(handle: OpenStudy) -> bool:
    """Whether the artifacts are in the default place, or a folder marked as the study's."""
    config = handle.config
    default = default_artifacts(config.study, config.storage, config.folder)
    return config.artifacts == default or is_marked(config.artifacts, identity_of(handle.study))


def _drawings(trials: list[FrozenTrial]) -> Iterator[str]:
    """The artifacts that trials name, under names as Optuna gives out."""
    for trial in trials:
        for key, value in trial.system_attrs.items():
            if not key.startswith(_MENTION) or not isinstance(value, str):
                continue
            with contextlib.suppress(ValueError, TypeError, KeyError):
                name = json.loads(value)["artifact_id"]
                if isinstance(name, str) and _DRAWING.fullmatch(name):
                    yield name


def _leave(artifacts: str, identity: str) -> None:
    """Take the mark out of a folder, and the folder away if nothing else is in it."""
    if split_bucket(artifacts) is not None:
        return
    folder = Path(artifacts)
    with contextlib.suppress(OSError):
        if is_marked(folder, identity):
            (folder / f".optnas-{identity}").unlink()
        os.rmdir(folder)


def _whole_file(handle: OpenStudy) -> Path | None:
    """The file of the storage, if it is a database with Optuna's tables and this study alone."""
    path = storage_file(handle.config.storage)
    if path is None or handle.config.storage.startswith("journal:"):
        return None
    names = optuna.get_all_study_names(handle.study._storage)
    if names != [handle.study.study_name]:
        return None
    with contextlib.closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = {name for (name,) in rows if not name.startswith("sqlite_")}
    known = models.BaseModel.metadata.tables.keys() | {"alembic_version"}
    return path if tables <= known else None
