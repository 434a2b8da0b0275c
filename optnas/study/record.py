"""What optnas records on a study, checked as it is read, and as it is to be understood now.

A storage may come from anywhere: its record is data. It names no code to import (see
``config.stored.references``), and its paths are read only: what is written lies beside the
storage, or where a study file says, or in a folder that holds this study's files already.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna

from optnas._version import __version__
from optnas.config.file import StudyFile
from optnas.config.messages import StudyFileError
from optnas.config.paths import default_artifacts, split_bucket, storage_path
from optnas.errors import UserError
from optnas.seeds import named_seed
from optnas.storage.artifacts import is_marked
from optnas.storage.soundness import read_beside_sqlite
from optnas.trials.metric import ACCURACY, Metric, metric
from optnas.units import shown

RECORD = "optnas"
"""Study attribute: identity, configuration, its hash, version, seed, the shape of the data."""
FORMER = "former_artifacts"
"""In the record: where the study's training states were kept under another name, to be read."""

MAKING = 2.0
"""Seconds in which the process that made a study has recorded its configuration."""

PLACE = "place"
"""In the record: the file of the database in which the study got its identity."""

_BLOCK = 1 << 20
"""Bytes of a database that are looked through at a time."""

_INTEGERS = {"in_channels": 1 << 16, "classes": 1 << 24, "seed": 1 << 64}
_TEXTS = ("id", "hash", "version")
_REQUIRED = ("config", "in_channels", "classes")


def read_record(study: optuna.Study) -> dict[str, Any] | None:
    """The record of a study under the name that it has now; None if it has none.

    A study that was renamed, or copied under another name, keeps the seed that it began with.

    Raises:
        UserError: If it is no record.
    """
    record = study.user_attrs.get(RECORD)
    if record is None:
        return None
    name = study.study_name
    _check(record, name)
    config = record["config"]
    if config["study"] == name:
        return dict(record)
    seed = config.get("seed")
    if seed is None:
        seed = record.get("seed", named_seed(config["study"], None))
    return {**record, "config": {**config, "study": name, "seed": seed}}


@contextlib.contextmanager
def of_version(record: Mapping[str, Any]) -> Iterator[None]:
    """Say of a configuration that cannot be understood that a later optnas wrote it, if so."""
    try:
        yield
    except StudyFileError as error:
        made = record.get("version", "")
        if _release(made) <= _release(__version__):
            raise
        raise StudyFileError(
            f"{error}\nThe study was made by optnas {shown(made)}, and {__version__} is "
            "installed, which may not know all of it: pip install -U optnas"
        ) from None


def _release(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def new_record(config: StudyFile, in_channels: int, classes: int) -> dict[str, Any]:
    """The record of a new study of this configuration.

    Args:
        config: The configuration.
        in_channels: Channels of the images.
        classes: Number of classes.
    """
    identity = json.dumps(config.identity(), sort_keys=True)
    return {
        "id": secrets.token_hex(8),
        PLACE: _place(config.storage),
        "config": config.resolved(),
        "hash": hashlib.sha256(identity.encode()).hexdigest(),
        "version": __version__,
        "seed": named_seed(config.study, config.seed),
        "in_channels": in_channels,
        "classes": classes,
    }


def await_record(study: optuna.Study) -> dict[str, Any] | None:
    """The record of a study that another process may be making at this moment."""
    deadline = time.monotonic() + MAKING
    while True:
        stored = read_record(study)
        made = stored is not None or bool(study.get_trials(deepcopy=False))
        if made or time.monotonic() > deadline:
            # Once more: the record is older than the first trial.
            return stored or read_record(study)
        time.sleep(0.05)


def identity_of(study: optuna.Study) -> str:
    """What tells a study from others of its name; empty where it was made by version 0.1.0."""
    return str(study.user_attrs.get(RECORD, {}).get("id", ""))


def metric_of(study: optuna.Study) -> Metric:
    """What a study maximises: as its record says, or accuracy where it says nothing."""
    found: Any = study.user_attrs
    for key in (RECORD, "config", "objective", "metric"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return metric(found) if isinstance(found, str) and found else ACCURACY


def write_record(study: optuna.Study, record: Mapping[str, Any]) -> None:
    """Record a study, and tell Optuna what the values of a new one are.

    Else the dashboard calls them "Objective 0".
    """
    study.set_user_attr(RECORD, record)
    if study.metric_names is not None or study.get_trials(deepcopy=False):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([metric_of(study).name])


def is_copy(record: Mapping[str, Any], url: str) -> bool:
    """Whether the study in the database at ``url`` is a copy of one that is still where it was.

    Both have one identity then, by which each would take the other's training states for its own.

    Args:
        record: The record, as `read_record` gives it.
        url: The URL of the storage.
    """
    made, here = record.get(PLACE), storage_path(url)
    identity = record.get("id", "").encode()
    if made is None or here is None or not identity:
        return False
    try:
        if os.path.samefile(made, here):
            return False
        return _holds(Path(made), identity)
    except (OSError, ValueError):
        return False  # It was moved.


def _holds(path: Path, wanted: bytes) -> bool:
    """Whether a text is somewhere in a database file."""
    overlap = len(wanted) - 1
    for start in range(0, path.stat().st_size, _BLOCK):
        if wanted in read_beside_sqlite(path, start, _BLOCK + overlap):
            return True
    return False


def told_apart(record: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The record of a study that goes on in the database at ``url``, with an identity of its own.

    A copy gets a new one: it reads the training states there are, and deletes none of them.
    """
    if not is_copy(record, url):
        return {**record, PLACE: _place(url)}
    warnings.warn(
        f"{url} is a copy of {record[PLACE]}: from now on each keeps training states of its own",
        stacklevel=2,
    )
    return {**record, "id": secrets.token_hex(8), PLACE: _place(url)}


def _place(url: str) -> str | None:
    path = storage_path(url)
    return None if path is None else str(path.absolute())


def former_artifacts(record: Mapping[str, Any], now: str, url: str) -> list[str]:
    """The folders where the study's training states may be, beside where they are written now.

    Not those of the database that this one is a copy of, in another folder.

    Args:
        record: The record, as `read_record` gives it.
        now: Where they are written.
        url: The URL of the storage.
    """
    file = storage_path(url)
    places = dict.fromkeys([*record.get(FORMER, ()), record["config"].get("artifacts")])
    return [
        place
        for place in places
        if isinstance(place, str)
        and place != now
        and (file is None or not _is_default(place) or Path(place).parent == file.parent)
        and split_bucket(place) is None
        and os.path.isdir(place)
    ]


def stored_places(study: optuna.Study) -> list[str]:
    """Folders in which artifacts of a study may be, to be read by what their contents are."""
    record = read_record(study) or {"config": {}}
    places = [*record.get(FORMER, ()), record["config"].get("artifacts")]
    return [place for place in places if isinstance(place, str) and os.path.isdir(place)]


def beside(record: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The record of a study that was opened by its storage alone, so that it writes beside it.

    Its artifacts stay in a bucket, or a folder that is marked as this study's. They are looked
    for beside the storage otherwise, and read where the record says. Nothing is downloaded into
    a folder that the record names.

    Args:
        record: The record, as `read_record` gives it.
        url: The URL of the storage.
    """
    config = dict(record["config"])
    stored, here = config.get("artifacts"), Path.cwd()
    if isinstance(config.get("data"), dict) and config["data"].get("root") is not None:
        config["data"] = {**config["data"], "download": False}
    default = default_artifacts(config["study"], url, here)
    if not isinstance(stored, str) or split_bucket(stored) is not None or stored == default:
        return {**record, "config": config}
    moved = storage_path(url) is not None and _is_default(stored)
    if not moved and is_marked(stored, record.get("id", "")):
        return {**record, "config": config}
    if not moved and os.path.isdir(stored):
        warnings.warn(
            f"the study says that its artifacts are in {stored}, which is not marked as its own: "
            f"they are read there, and kept in {default} from now on; name the study file to "
            "keep them elsewhere",
            stacklevel=2,
        )
    config["artifacts"] = default
    return {**record, "config": config, FORMER: former_artifacts(record, default, url)}


def check_whole(study: optuna.Study) -> None:
    """Refuse a study that trials were taken out of: others refer to them by number."""
    for number, trial in enumerate(study.get_trials(deepcopy=False)):
        if trial.number != number:
            raise UserError(
                f"trial {number} of the study {study.study_name!r} is not there, but trial "
                f"{trial.number} is: restore a copy of its storage"
            )


def check_directions(study: optuna.Study) -> None:
    """Refuse a study that does anything but maximise one value."""
    directions = [direction.name.lower() for direction in study.directions]
    if directions != ["maximize"]:
        said = ", ".join(directions) or "none"
        raise UserError(
            f"the study {study.study_name!r} has the directions {said}, and "
            "studies of optnas maximise one value: restore a copy of its storage"
        )


def _is_default(place: str) -> bool:
    return place.endswith(".artifacts")


def _check(record: Any, name: str) -> None:
    if not isinstance(record, dict):
        raise _wrong(name, "a mapping", record)
    for key in _REQUIRED:
        if key not in record:
            raise UserError(f"the record of the study {name!r} ({RECORD!r}) lacks {key!r}")
    config = record["config"]
    if not isinstance(config, dict) or not isinstance(config.get("study"), str):
        raise _wrong(f"{name}", "a configuration as `config`", config)
    for key, limit in _INTEGERS.items():
        value = record.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
            raise _wrong(name, f"a whole number as {key!r}", value)
    for key in _TEXTS:
        value = record.get(key, "")
        if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
            raise _wrong(name, f"a short text as {key!r}", value)
    place = record.get(PLACE)
    if place is not None and not isinstance(place, str):
        raise _wrong(name, f"a path as {PLACE!r}", place)
    former = record.get(FORMER, [])
    if not isinstance(former, list) or not all(isinstance(place, str) for place in former):
        raise _wrong(name, f"a list of folders as {FORMER!r}", former)
    seed = config.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise _wrong(name, "a whole number as `config.seed`", seed)


def _wrong(name: str, expected: str, value: Any) -> UserError:
    return UserError(
        f"the record of the study {name!r} ({RECORD!r}) is damaged: expected {expected} "
        f"(found {str(value)[:60]!r})"
    )
