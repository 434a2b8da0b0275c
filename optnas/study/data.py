"""What a study has seen of its data: recorded with it, and compared before it sees more."""

import base64
import binascii
import contextlib
import dataclasses
import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import optuna

from optnas.config.file import StudyFile
from optnas.errors import UserError
from optnas.storage.artifacts import absent, open_artifacts
from optnas.storage.opening import ask_study
from optnas.study.opening import OpenStudy
from optnas.study.record import identity_of, stored_places
from optnas.units import shown

DATA = "optnas:data"
"""Study attribute: what was read, the images or where they are, and what was accepted."""
INLINE = 20_000
"""Characters of the list of images that are kept in the study itself; a longer one is an artifact,
because some databases hold 64 KiB in a value."""
_KEPT = 200
"""How many unreadable files are kept by name."""


class DataReading(Protocol):
    """What an objective's images say they are: `optnas.objectives.data.reading.Reading`."""

    def record(self) -> dict[str, Any]:
        """JSON values, and under ``images`` the bytes of the list of images, or None."""
        ...

    def differences(self, known: Mapping[str, Any]) -> list[str]:
        """How this differs from an earlier ``record``, a line for every kind of difference."""
        ...


class ChangedData(UserError):
    """The data is not what the study has seen."""


@dataclasses.dataclass(frozen=True)
class SeenData:
    """What a study has seen of its data.

    Args:
        record: As `DataReading.record` gave it.
        accepted: Which changes were accepted, each with the number of trials before it.
    """

    record: Mapping[str, Any]
    accepted: tuple[Mapping[str, Any], ...] = ()


def seen_fields(study: optuna.Study) -> dict[str, Any] | None:
    """What was read, without the list of images; None if the study has not recorded it."""
    stored = study.user_attrs.get(DATA)
    if not isinstance(stored, dict) or not isinstance(stored.get("reading"), dict):
        return None
    accepted = [x for x in stored.get("accepted") or () if isinstance(x, dict)]
    return {**stored["reading"], "accepted": accepted}


def seen_lines(study: optuna.Study) -> list[str]:
    """The same in a few lines, for people."""
    fields = seen_fields(study) or {}
    lines = [str(line) for line in fields.get("lines") or ()]
    for change in fields.get("accepted") or ():
        changes = "; ".join(str(line) for line in change.get("changes") or ())
        lines.append(f"changed data accepted before trial {change.get('trials')}: {changes}")
    return list(map(shown, lines))  # Somebody else may have written them.


def seen_data(study: optuna.Study, artifacts: str) -> SeenData | None:
    """What a study has seen; None if it has not recorded it.

    Args:
        study: The study.
        artifacts: Where its artifacts are.

    Raises:
        UserError: If the list of images is missing or damaged.
    """
    fields = seen_fields(study)
    if fields is None:
        return None
    accepted = fields.pop("accepted")
    stored_images = study.user_attrs[DATA].get("images")
    return SeenData(
        {**fields, "images": _images(stored_images, study, artifacts)}, tuple(accepted)
    )


def data_seen_by_study(handle: OpenStudy) -> SeenData | None:
    """The same of a study that is open."""
    return seen_data(handle.study, handle.config.artifacts)


def data_seen_with(config: StudyFile, *, patient: bool = False) -> SeenData | None:
    """The same of the study of a configuration, if that exists; nothing is created.

    Args:
        config: The configuration.
        patient: Whether a server that does not answer is waited for.
    """
    return ask_study(
        config.storage,
        config.study,
        lambda study: seen_data(study, config.artifacts),
        patient=patient,
    )


def check_same(seen: SeenData | None, reading: DataReading | None, *, accept: bool) -> list[str]:
    """How the data differs from what a study has seen.

    Args:
        seen: What it has seen; None if it has seen nothing yet.
        reading: What there is now; None if the objective does not say.
        accept: Whether other data is accepted.

    Raises:
        ChangedData: If it differs, and that is not accepted.
    """
    if seen is None or reading is None:
        return []
    changes = reading.differences(seen.record)
    if changes and not accept:
        lines = "".join(f"\n  {line}" for line in changes)
        place = shown(seen.record.get("place"))
        raise ChangedData(
            f"the data is not what the study has seen (in {place}):{lines}\n"
            "Restore it, give the study another name, begin anew by --restart, or go on with "
            "other data by --accept-changed-data."
        )
    return changes


def record_data(
    study: optuna.Study,
    reading: DataReading | None,
    seen: SeenData | None,
    changes: Sequence[str],
    artifacts: str,
) -> None:
    """Keep with a study what it sees now.

    Args:
        study: The study.
        reading: What was read.
        seen: What it had seen before.
        changes: What is different and was accepted.
        artifacts: Where its artifacts are.
    """
    if reading is None:
        return
    record = reading.record()
    images = record.pop("images")
    record["unreadable"] = list(record.get("unreadable", ()))[:_KEPT]
    moved = seen is not None and seen.record.get("place") != record.get("place")
    if seen is not None and moved and not changes:
        record["lines"].append(f"the same images as before, which were in {seen.record['place']}")
    accepted = list(seen.accepted) if seen is not None else []
    if changes:
        number = len(study.get_trials(deepcopy=False))
        accepted.append({"trials": number, "changes": list(changes)})
    stored: dict[str, Any] = {"reading": record, "accepted": accepted}
    if images is not None:
        stored["images"] = _kept(images, study, artifacts)
    stored = json.loads(json.dumps(stored))
    if study.user_attrs.get(DATA) != stored:
        study.set_user_attr(DATA, stored)


def _kept(images: bytes, study: optuna.Study, artifacts: str) -> dict[str, str]:
    digest = hashlib.sha256(images).hexdigest()
    text = base64.b85encode(images).decode()
    if len(text) <= INLINE:
        return {"sha256": digest, "inline": text}
    # Never what is stored, which somebody else may have written.
    name = f"{images_prefix(study)}{digest[:16]}"
    store = open_artifacts(artifacts)
    before = (study.user_attrs.get(DATA) or {}).get("images") or {}
    if before.get("sha256") != digest:
        store.write(name, io.BytesIO(images))
    return {"sha256": digest}


def images_prefix(study: optuna.Study) -> str:
    """How the names of a study's own lists of images begin among the artifacts."""
    owner = f"{study.study_name} {identity_of(study)}"
    return f"images-{hashlib.sha256(owner.encode()).hexdigest()[:12]}-"


def _images(stored: Any, study: optuna.Study, artifacts: str) -> bytes | None:
    if stored is None:
        return None
    wrong = UserError(
        f"the list of images of the study {study.study_name!r} is missing or damaged, so that "
        "nobody can tell whether the data is the same; it is kept with the artifacts in "
        f"{artifacts}."
    )
    digest = stored.get("sha256") if isinstance(stored, dict) else None
    if not isinstance(digest, str) or len(digest) != 64 or not digest.isalnum():
        raise wrong
    content = None
    if "inline" in stored:
        with contextlib.suppress(ValueError, TypeError, binascii.Error, zlib.error):
            content = base64.b85decode(stored["inline"])
    else:
        for place in [artifacts, *stored_places(study)]:
            content = content or _found_in(place, digest)
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise wrong
    return content


def _found_in(place: str, digest: str) -> bytes | None:
    """The list of images with a checksum among artifacts, whatever the study's name was."""
    with contextlib.suppress(OSError, *absent()):
        store = open_artifacts(place, create=False)
        for name, _ in store.items():
            if name.startswith("images-") and name.endswith(f"-{digest[:16]}"):
                content = store.open_reader(name).read()
                if hashlib.sha256(content).hexdigest() == digest:
                    return content
    return None
