"""Studies with the configuration they were made with: created, opened, and what they found."""

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from optnas.config import plugins
from optnas.config.contract import strategy_of
from optnas.config.file import (
    StudyFile,
    Written,
    from_resolved,
    read_study_file,
    written_in_python,
)
from optnas.config.messages import StudyFileError
from optnas.errors import UserError
from optnas.seeds import named_seed
from optnas.spaces import Architecture
from optnas.storage.artifacts import Artifacts, Folder
from optnas.storage.checking import checks_of
from optnas.storage.checkpoints import Checkpoints
from optnas.storage.opening import ask_study, explained, open_storage
from optnas.storage.urls import Absent, StorageError, asked_url, hide_password, not_started
from optnas.study.record import (
    FORMER,
    await_record,
    beside,
    check_directions,
    check_whole,
    former_artifacts,
    new_record,
    of_version,
    read_record,
    told_apart,
    write_record,
)
from optnas.trials.claims import is_feasible
from optnas.trials.failures import is_lost


@dataclasses.dataclass(frozen=True)
class OpenStudy:
    """A study and the configuration it was made with; its sampler and pruner are in place."""

    config: StudyFile
    study: optuna.Study

    @property
    def is_finished(self) -> bool:
        """Whether the strategy has come to its end."""
        return bool(strategy_of(self.study.sampler).is_finished(self.study))

    @property
    def has_end(self) -> bool:
        """Whether the sampler comes to an end by itself, whatever the budget."""
        return bool(strategy_of(self.study.sampler).has_end)

    @property
    def keep(self) -> str | None:
        """Whose weights stay, beyond those that a strategy may still need."""
        keep = self.config.checkpoint.keep
        if keep is None and strategy_of(self.study.sampler).weights_needed is None:
            # A stock sampler may draw any earlier trial as a parent.
            return "all" if self.config.search_space.inherits else None
        return keep

    def checkpoints(self, store: Artifacts) -> Checkpoints:
        """The training states of the study, which are kept in ``store``."""
        study, config, record = self.study, self.config, read_record(self.study) or {}
        # The name alone is that of studies in other storages, too, which may share the store.
        name = f"{study.study_name} {record.get('id', '')}".rstrip()
        former = [
            Folder(place) for place in former_artifacts(record, config.artifacts, config.storage)
        ]
        return Checkpoints(store, study._storage, name, keep=self.keep, former=former)


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """A network to train fully.

    Args:
        architecture: Its architecture.
        number: The trial that speaks for it.
        value: That trial's validation accuracy, a fraction.
        settled: Whether the strategy has come to its end with it; otherwise it is the best so
            far, or the best of a sampler that has no end.
    """

    architecture: Architecture
    number: int
    value: float
    settled: bool


def create_or_open(
    config: StudyFile, *, in_channels: int, classes: int, patient: bool = False
) -> OpenStudy:
    """Open the study of a configuration, creating it if it does not exist.

    Args:
        config: The configuration.
        in_channels: Channels of the images.
        classes: Number of classes.
        patient: Whether a server that does not answer is waited for.

    Raises:
        StudyFileError: If the study exists with another configuration.
        StorageError: If the storage cannot be opened.
    """
    record = new_record(config, in_channels, classes)
    with explained(config.storage):
        storage = open_storage(config.storage, patient=patient)
        try:
            study = optuna.create_study(
                study_name=config.study, storage=storage, direction="maximize"
            )
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(study_name=config.study, storage=storage)
            stored = await_record(study)
            if stored is not None:
                config = _as_made(config.written, stored, config.storage)
                record = new_record(config, in_channels, classes)
                shape = {"in_channels": in_channels, "classes": classes}
                if any(stored[key] != value for key, value in shape.items()):
                    raise StudyFileError(f"{_where(config)} was made with other data") from None
                stored = told_apart(stored, config.storage)
                # What may change has changed: `resume` goes on as the last run did.
                former = former_artifacts(stored, config.artifacts, config.storage)
                record = {**stored, "config": record["config"], FORMER: former}
            elif study.get_trials(deepcopy=False) or study.direction.name != "MAXIMIZE":
                raise StudyFileError(
                    f"{_where(config)} exists and was not made by optnas run; give this study "
                    "another name"
                ) from None
        write_record(study, record)
    check_whole(study)
    return prepared(config, study, record)


def open_existing(
    target: str,
    study_name: str | None = None,
    *,
    allow: Collection[str] = (),
    reading: bool = False,
) -> OpenStudy:
    """Open a study that exists, by its study file, or by its storage and name.

    Args:
        target: The path of a study file, or the URL of a storage.
        study_name: The study's name, if ``target`` is a storage with several.
        allow: Code that may be imported though the storage names it: ``module:Name``.
        reading: Whether the study is only looked at.

    Raises:
        UserError: If there is no such study of ``optnas run``, or its file contradicts it.
    """
    if "://" in target:
        handle = _open_url(target, study_name, allow, reading=reading)
    else:
        handle = _open_file(target, study_name, allow, reading=reading)[0]
    check_whole(handle.study)
    return handle


def _open_url(
    target: str, study_name: str | None, allow: Collection[str], **how: bool
) -> OpenStudy:
    """The study in a storage, by its URL; it is written to beside that storage."""
    url = asked_url(target)
    storage = open_storage(url, create=False, **how)
    with explained(url):
        names = [study.study_name for study in storage.get_all_studies()]
    if study_name is None and len(names) != 1:
        raise UserError(
            f"{hide_password(url)} holds {len(names)} studies; name one of them: "
            f"{', '.join(sorted(names)) or '(none)'}"
        )
    study, stored = _load(storage, url, study_name or names[0])
    stored = beside(stored, url)
    here = {**stored["config"], "folder": str(Path.cwd())}
    with of_version(stored):
        return prepared(from_resolved(here, url, allow), study, stored)


def open_compared(
    target: str,
    study_name: str | None = None,
    *,
    allow: Collection[str] = (),
    reading: bool = False,
) -> tuple[OpenStudy, list[str]]:
    """The same, even if the file differs from the study, or what is stored of trials is damaged.

    What is damaged is left out, and noted in the storage's `optnas.storage.checking.Checks`.

    Returns:
        The study as it was made, and how the file differs: a line per key.
    """
    changed: list[str] = []
    if "://" in target:
        handle = _open_url(target, study_name, allow, reading=reading, lenient=True)
    else:
        how = {"reading": reading, "lenient": True}
        handle, changed = _open_file(target, study_name, allow, refuse=False, **how)
    checks = checks_of(handle.study._storage)
    if checks is not None:
        checks.found = {}
    return handle, changed


def config_to_run(config: StudyFile | Written | Mapping[str, Any] | str | Path) -> StudyFile:
    """A configuration to run: with what its study was made with, if that exists.

    Nothing is created. ``config`` is the path of a study file, a mapping with its keys, or a
    configuration as it was written or checked.

    Raises:
        UserError: If the configuration is wrong, the study exists with another one, or the
            storage cannot be read.
    """
    if isinstance(config, StudyFile | Written):
        written = config if isinstance(config, Written) else config.written
    elif isinstance(config, Mapping):
        written = written_in_python(config)
    else:
        written = read_study_file(config)
    try:
        new = config if isinstance(config, StudyFile) else written.checked()
    except StudyFileError:
        # What is wrong with a new study may be right with what this one was made with.
        with contextlib.suppress(StorageError):
            if (stored := _stored(written)) is not None:
                return _as_made(written, *stored)
        raise
    stored = _stored(written)
    return new if stored is None else _as_made(written, *stored)


def _stored(written: Written) -> tuple[dict[str, Any], str] | None:
    """The record of a study and the URL of its storage, if it exists and has one."""
    if written.place is None:
        return None
    stored = ask_study(*written.place, read_record)
    return None if stored is None else (stored, written.place[0])


def conclusions(handle: OpenStudy, first: int | None = None) -> list[Conclusion]:
    """What would be trained fully, best first: what the strategy says, else the best trials.

    Args:
        handle: The study.
        first: How many, at most; None for all.
    """
    study, space = handle.study, handle.config.search_space
    candidates = strategy_of(study.sampler).candidates(study)
    if candidates is not None:
        settled = handle.is_finished
        return [Conclusion(a, n, v, settled) for n, a, v in candidates[:first]]
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if is_feasible(trial)
    ]
    trials.sort(key=lambda trial: (-(trial.value or 0.0), trial.number))
    best: dict[Architecture, Conclusion] = {}
    for trial in trials:
        if len(best) == first:
            break
        architecture = space.named_by(trial)
        if architecture is not None:  # Somebody may have added the trial.
            value = trial.value or 0.0
            best.setdefault(architecture, Conclusion(architecture, trial.number, value, False))
    return list(best.values())


def counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that trained something: not those that ended with the search, or were lost."""
    return list(filter(is_counted, study.get_trials(deepcopy=False)))


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial trained something to an end."""
    return bool(trial.params) and trial.state.is_finished() and not is_lost(trial)


def open_study(config: StudyFile, *, reading: bool = False) -> OpenStudy:
    """Open the study of a configuration, which exists, perhaps only to look at it.

    Raises:
        Absent: If it does not exist.
        UserError: As ``open_existing``.
    """
    storage = open_storage(config.storage, create=False, patient=True, reading=reading)
    study, stored = _load(storage, config.storage, config.study)
    return prepared(_as_made(config.written, stored, config.storage), study, stored)


def reopened(handle: OpenStudy) -> OpenStudy:
    """An open study once more, for another thread: by the storage that is open, but nothing else.

    Samplers and pruners keep what they have read, and studies whether they were stopped.
    """
    study = optuna.load_study(study_name=handle.study.study_name, storage=handle.study._storage)
    return prepared(handle.config, study, read_record(study) or {})


def _open_file(
    path: str,
    study_name: str | None,
    allow: Collection[str],
    *,
    refuse: bool = True,
    **how: bool,
) -> tuple[OpenStudy, list[str]]:
    """The study of a study file, and how the file contradicts it, unless that is refused."""
    written = dataclasses.replace(read_study_file(path), allowed=frozenset(allow))
    if written.place is None:
        written.checked()  # It says what is wrong.
    assert written.place is not None
    url, name = written.place
    if study_name not in (None, name):
        raise UserError(f"{path}: the study is named {name!r}, not {study_name!r}")
    try:
        study, stored = _load(open_storage(url, create=False, **how), url, name)
    except UserError as error:
        written.checked()  # What is wrong with the file is said first.
        raise not_started(path, error) from None
    with of_version(stored):
        config, changed = written.over(stored["config"], url)
    if changed and refuse:
        raise _contradicted(config, changed)
    return prepared(config, study, stored), changed


def _load(storage: BaseStorage, url: str, name: str) -> tuple[optuna.Study, dict[str, Any]]:
    """A study that exists, and its record."""
    try:
        with explained(url):
            study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise Absent(
            f"{hide_password(url)}: there is no study {name!r}; `optnas run` creates it."
        ) from None
    stored = read_record(study)
    if stored is None:
        raise UserError(f"{hide_password(url)}: the study {name!r} was not made by optnas run.")
    return study, stored


def _as_made(written: Written, stored: Mapping[str, Any], storage: str) -> StudyFile:
    """What was written, with what the study was made with where it says nothing."""
    with of_version(stored):
        config, changed = written.over(stored["config"], storage)
    if changed:
        raise _contradicted(config, changed)
    return config


def _contradicted(config: StudyFile, changed: Sequence[str]) -> StudyFileError:
    lines = "".join(f"\n  {line}" for line in changed)
    return StudyFileError(
        f"{_where(config)} has another configuration:{lines}\n"
        "Change the file back, give the study another name, or begin anew by --restart."
    )


def prepared(config: StudyFile, study: optuna.Study, record: Mapping[str, Any]) -> OpenStudy:
    """A study with its strategy and its pruner, made for the images of its record."""
    check_directions(study)
    seed = named_seed(config.study, config.seed)
    sampler = plugins.load("sampler", config.sampler.name, config.folder)
    if strategy_of(sampler).is_stock:
        seed %= 2**32  # They take no more.
    shape = {"in_channels": record["in_channels"], "classes": record["classes"]}
    study.sampler = config.make_sampler(config.search_space, **shape, seed=seed)
    study.pruner = config.make_pruner()
    return OpenStudy(config, study)


def _where(config: StudyFile) -> str:
    return f"the study {config.study!r} in {hide_password(config.storage)}"
