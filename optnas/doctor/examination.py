"""A study examined: what is wrong with it, and what of that can be put right."""

import dataclasses
import functools
import itertools
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from optnas.config.contract import strategy_of
from optnas.config.paths import split_bucket
from optnas.devices.gpus import gpus, mps_runs
from optnas.doctor.trials import (
    Finding,
    mixed_environments,
    never_started,
    run_twice,
    without_network,
    without_worker,
)
from optnas.errors import UserError
from optnas.report.text import next_command
from optnas.running.placement import check_gpus, plan_workers
from optnas.storage.artifacts import check_artifacts, open_artifacts
from optnas.storage.checking import checks_of
from optnas.storage.checkpoints import CheckpointError, Checkpoints, checkpoint_of
from optnas.storage.retention import needed
from optnas.storage.urls import StorageError, hide_password, reason_of, storage_file
from optnas.study.opening import OpenStudy, open_compared
from optnas.study.record import is_copy, read_record
from optnas.trials.attributes import CHECKPOINT
from optnas.trials.lineage import without_weights
from optnas.units import plural, size

LEAST_FREE = 1 << 30
"""Bytes that should be free on a disk; ten times the largest checkpoint, if that is more."""


@dataclasses.dataclass(frozen=True)
class TreatedFinding:
    """What became of a finding.

    Args:
        finding: The finding.
        mended: Whether it was put right.
        error: Why it could not be, if that was tried.
    """

    finding: Finding
    mended: bool = False
    error: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """For programs: JSON values."""
        finding = self.finding
        return {
            "kind": finding.kind,
            "what": finding.what,
            "cure": finding.cure,
            "trials": finding.trials,
            "mendable": finding.mend is not None,
            "mended": self.mended,
            "error": self.error,
        }

    @property
    def text(self) -> str:
        """For people: one line."""
        finding = self.finding
        line = f"{finding.kind}: {finding.what}."
        if self.mended:
            return f"{line} Mended: {finding.cure}."
        if self.error is not None:
            return f"{line} Not mended: {self.error}."
        return f"{line} {'With --fix: ' if finding.mend else ''}{finding.cure}."


def diagnose(
    target: str,
    study_name: str | None = None,
    *,
    fix: bool = False,
    allow: Collection[str] = (),
) -> tuple[OpenStudy, Iterator[TreatedFinding]]:
    """Examine a study, and put right what can be put right if ``fix`` is true.

    Without ``fix`` nothing is written, but for a small object in a bucket of artifacts, which is
    deleted at once. No trial is touched whose worker lives. Any number of doctors and workers may
    be at it together.

    Args:
        target: The path of a study file, or the URL of a storage.
        study_name: The study's name, if ``target`` is a storage with several.
        fix: Whether to mend.
        allow: Code that may be imported though the storage names it: ``module:Name``.

    Returns:
        The study, and what is wrong with it. What is examined later sees what was mended before.

    Raises:
        UserError: If there is no such study, or it was not made by ``optnas run``.
    """
    handle, differing = open_compared(target, study_name, allow=allow, reading=not fix)
    return handle, (_treated(finding, fix) for finding in examine(handle, differing))


def examine(handle: OpenStudy, differing: Sequence[str] = ()) -> Iterator[Finding]:
    """Everything that is wrong with a study; nothing is written.

    Args:
        handle: The study.
        differing: How its file differs from the configuration that it was made with.
    """
    for line in differing:
        cure = "Change the file back, or give the study another name: it is refused as it is"
        yield Finding("configuration", line, cure)
    yield from _damaged(handle)
    if not _is_whole(handle):
        return
    yield from _unwritable_storage(handle)
    yield from _little_space(handle)
    yield from without_worker(handle)
    yield from run_twice(handle)
    yield from without_network(handle)
    yield from never_started(handle)
    yield from _artifacts(handle)
    yield from _impossible_workers(handle)
    yield from mixed_environments(handle)


def _damaged(handle: OpenStudy) -> Iterator[Finding]:
    """What nobody could have written, and is left out of all that is examined."""
    study, checks = handle.study, checks_of(handle.study._storage)
    trials = study.get_trials(deepcopy=False)
    found = {} if checks is None or checks.found is None else checks.found
    lines = [] if checks is None else sorted(set(checks.lines or ()))
    for line in lines:
        what = f"line {line} of the journal is damaged: expected an operation of Optuna's as JSON"
        cure = "Restore a copy of the journal, or remove the line: the search is refused"
        yield Finding("damage", what, cure)
    for (number, key), expected in sorted(found.items()):
        which = f"trial {number}" if number >= 0 else "the study"
        what = f"{which}: what is stored as {key!r} is damaged: expected {expected}"
        cure = "Restore a copy of the storage, or mend the row by hand: the search is refused"
        yield Finding("damage", what, cure, trials=(number,) if number >= 0 else ())
    if not _is_whole(handle):
        missing = sorted(set(range(len(trials))) - {trial.number for trial in trials})
        what = f"the trials {', '.join(map(str, missing[:5]))} are not there, but later ones are"
        yield Finding("damage", what, "Restore a copy of the storage: the search is refused")


def _is_whole(handle: OpenStudy) -> bool:
    trials = handle.study.get_trials(deepcopy=False)
    return all(trial.number == number for number, trial in enumerate(trials))


def _treated(finding: Finding, fix: bool) -> TreatedFinding:
    if not fix or finding.mend is None:
        return TreatedFinding(finding)
    try:
        finding.mend()
    except OSError as error:
        return TreatedFinding(finding, error=str(error))
    return TreatedFinding(finding, mended=True)


def _unwritable_storage(handle: OpenStudy) -> Iterator[Finding]:
    url = handle.config.storage
    reason = _why_unwritable(handle.study._storage, url)
    if reason is not None:
        what = f"{hide_password(url)}: the storage cannot be written to: {reason}"
        yield Finding("storage", what, "No trial can be stored there")


def _why_unwritable(storage: BaseStorage, url: str) -> str | None:
    backend = getattr(storage, "_backend", storage)  # Behind Optuna's cache.
    path = storage_file(url)
    if path is not None and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return "this user may not write there"
    if isinstance(backend, RDBStorage):
        try:
            with backend.engine.connect() as connection:
                # Rights are asked for, though there is no such row.
                nobody = "UPDATE studies SET study_name = study_name WHERE study_id = -1"
                connection.execute(sqlalchemy.text(nobody))
                connection.rollback()
        except sqlalchemy.exc.SQLAlchemyError as error:
            return reason_of(error, url)
    return None


def _little_space(handle: OpenStudy) -> Iterator[Finding]:
    """Disks that are nearly full."""
    trials = handle.study.get_trials(deepcopy=False)
    largest = max(((checkpoint_of(trial) or {}).get("bytes", 0) for trial in trials), default=0)
    places: dict[int, Path] = {}
    for path in (storage_file(handle.config.storage), _folder(handle)):
        if path is not None:
            exists = next(place for place in (path, *path.absolute().parents) if place.exists())
            places.setdefault(exists.stat().st_dev, exists)
    for place in places.values():
        free = shutil.disk_usage(place).free
        if free < max(LEAST_FREE, 10 * largest):
            what = f"{size(free)} are left on the disk of {place}"
            yield Finding("space", what, "Make room before training states cannot be kept")


def _folder(handle: OpenStudy) -> Path | None:
    """The folder of the artifacts; None for a bucket."""
    location = handle.config.artifacts
    return Path(location) if split_bucket(location) is None else None


def _artifacts(handle: OpenStudy) -> Iterator[Finding]:
    """What is wrong with the training states, and with the place where they are kept."""
    location = handle.config.artifacts
    try:
        check_artifacts(location)
    except StorageError as error:
        yield Finding("artifacts", str(error).rstrip("."), "No training state can be kept there")
        return
    checkpoints = handle.checkpoints(open_artifacts(location, create=False))
    try:
        yield from _unreadable(handle, checkpoints)
        yield from _orphaned(handle, checkpoints)
    except OSError as error:
        yield Finding("artifacts", f"{location}: {error}", "Try again later")


def _impossible_workers(handle: OpenStudy) -> Iterator[Finding]:
    """Workers that this machine cannot have."""
    try:
        check_gpus(plan_workers(handle.config.workers))
    except UserError as error:
        what, _, cure = str(error).rpartition(": ")
        yield Finding("workers", what, f"{cure[0].upper()}{cure[1:]}")


def _unreadable(handle: OpenStudy, checkpoints: Checkpoints) -> Iterator[Finding]:
    """Training states that are needed but missing or damaged: all of them are read."""
    for number in _needed(handle):
        try:
            checkpoints.load(handle.study.get_trials(deepcopy=False)[number])
        except CheckpointError as error:
            # Somebody may have deleted it meanwhile because nobody needs it any more.
            if number in _needed(handle):
                yield _without_state(handle, checkpoints, number, str(error))


def _needed(handle: OpenStudy) -> list[int]:
    """The finished trials whose state is needed and not known to be gone.

    Where states are kept at all, every network that others may start from has one. Those of
    running trials are in their workers' memory.
    """
    study = handle.study
    trials = study.get_trials(deepcopy=False)
    kept = any(checkpoint_of(trial) is not None for trial in trials)
    inherits = strategy_of(study.sampler).inherits or handle.config.search_space.inherits
    known = without_weights(study._storage, study._study_id)
    return [
        number
        for number in sorted(needed(study, trials, handle.keep) - known.keys())
        if checkpoint_of(trials[number]) is not None
        or (kept and inherits and trials[number].state == TrialState.COMPLETE)
        if trials[number].state.is_finished()
    ]


def _without_state(
    handle: OpenStudy, checkpoints: Checkpoints, number: int, reason: str
) -> Finding:
    study = handle.study
    cure = "recorded, so that no network starts from it"
    if study.get_trials(deepcopy=False)[number].state != TrialState.COMPLETE:
        cure = "recorded; its epochs are trained again"
    mend = functools.partial(checkpoints.say_lost, study, number, reason)
    return Finding("checkpoint", reason, cure, mend, (number,))


def _orphaned(handle: OpenStudy, checkpoints: Checkpoints) -> Iterator[Finding]:
    """Training states to which no trial refers: of workers that were killed at the wrong time."""
    checks = checks_of(handle.study._storage)
    if checks is not None and any(key == CHECKPOINT for _, key in checks.found or ()):
        return  # Theirs may be those whose names are damaged.
    if is_copy(read_record(handle.study) or {}, handle.config.storage):
        return  # They may be of the study that this one is a copy of.
    orphans = checkpoints.orphans(handle.study)
    if orphans:
        few = ", ".join(itertools.islice(sorted(orphans), 3))
        names = few if len(orphans) <= 3 else f"{few} and {len(orphans) - 3} others"
        what = f"no trial refers to {names}, in {handle.config.artifacts}"
        cure = f"deleted, which frees {size(sum(orphans.values()))}"
        yield Finding("orphans", what, cure, functools.partial(checkpoints.delete, orphans))


def diagnosis_fields(handle: OpenStudy, treated: Sequence[TreatedFinding]) -> dict[str, Any]:
    """What came of it, for programs."""
    return {
        "study": handle.study.study_name,
        "trials": len(handle.study.get_trials(deepcopy=False)),
        "findings": [each.fields for each in treated],
        "left": sum(not each.mended for each in treated),
        "gpus": [dataclasses.asdict(gpu) for gpu in gpus()],
        "mps": mps_runs(),
    }


def diagnosis_text(handle: OpenStudy, treated: Sequence[TreatedFinding], target: str) -> str:
    """A line for every GPU of this machine, one about what came of it, and the next command.

    Args:
        handle: The study.
        treated: What was found.
        target: How commands name this study.
    """
    lines = [*_gpu_lines(), _summary(handle, treated)]
    left = [each.finding for each in treated if not each.mended]
    if any(finding.mend is not None for finding in left):
        lines.append(f"Next: optnas doctor {target} --fix")
    elif left:
        lines.append(f"Next, when that is done: optnas doctor {target}")
    else:
        lines.append(f"Next: {next_command(handle, target)}")
    return "\n".join(lines)


def _summary(handle: OpenStudy, treated: Sequence[TreatedFinding]) -> str:
    trials = plural(len(handle.study.get_trials(deepcopy=False)), "trial")
    if not treated:
        return f"Nothing is wrong with {handle.study.study_name!r} ({trials})."
    mended = sum(each.mended for each in treated)
    mendable = sum(each.finding.mend is not None and not each.mended for each in treated)
    parts = [f"{len(treated)} found", *([f"{mended} mended"] if mended else [])]
    if mendable:
        parts.append(f"{mendable} can be mended with --fix")
    return f"{handle.study.study_name!r} ({trials}): {', '.join(parts)}."


def _gpu_lines() -> Iterator[str]:
    mps = "MPS is running" if mps_runs() else "MPS is not running"
    for gpu in gpus():
        memory = f"{size(gpu.free)} of {size(gpu.total)} free"
        yield f"{gpu.name}: {memory}, compute mode {gpu.mode}, {mps}."
