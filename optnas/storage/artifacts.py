"""Where checkpoints and drawings are kept: a folder, or a bucket of S3 or Google Cloud Storage."""

import contextlib
import io
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from optnas.config.paths import split_bucket
from optnas.errors import first_line
from optnas.storage.urls import StorageError

_PARTIAL = ".partial"
_MARK = ".optnas-{}"
"""A file that says of which study a folder holds artifacts."""
_OWN_PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")
"""What a writer leaves behind that was killed. Others' partial files are not ours."""
_LEFT_OVER = 24 * 3600.0
"""Seconds after which nobody still writes a partial file."""

_RIGHTS = {
    "s3": "the bucket must exist, and credentials that may list, write and delete there are "
    "taken from AWS's usual environment variables and files",
    "gs": "the bucket must exist, and credentials that may list, write and delete there are "
    "taken from Google's usual environment variables and files",
}
_EXTRAS = {"s3": "s3", "gs": "gcs"}


# Optuna's package of artifacts imports the clients of every cloud that are installed: a quarter of
# a second, which commands that only look at a study do not need.


def absent() -> tuple[type[Exception], ...]:
    """What is raised where there is no such artifact."""
    from optuna.artifacts.exceptions import ArtifactNotFound

    return ArtifactNotFound, FileNotFoundError


class Artifacts(Protocol):
    """Optuna's artifact store, which can also say what it holds.

    Whatever goes wrong is an ``OSError``, or ``ArtifactNotFound`` where there is no such artifact.
    """

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """A file of the artifact's bytes."""
        ...

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store an artifact, whole or not at all, in place of one of the same name."""
        ...

    def remove(self, artifact_id: str) -> None:
        """Delete an artifact."""
        ...

    def items(self) -> Iterator[tuple[str, int]]:
        """Name and bytes of every artifact, in no particular order."""
        ...


def open_artifacts(location: str | Path, *, create: bool = True) -> Artifacts:
    """Open the artifact store at ``location``.

    Args:
        location: A folder, or ``s3://BUCKET/PREFIX`` or ``gs://BUCKET/PREFIX``. Buckets take
            credentials, region and endpoint from where the clouds' own tools do.
        create: Whether a folder is made if it does not exist, and tidied if it does.

    Raises:
        StorageError: If the driver is missing, or there are no credentials.
    """
    bucket = split_bucket(str(location))
    if bucket is None:
        path = Path(location)
        if create:
            path.mkdir(parents=True, exist_ok=True)
            _tidy(path)
        return Folder(path)
    scheme, name, prefix = bucket
    with _explained(scheme, str(location)):
        return (_s3 if scheme == "s3" else _google)(name, prefix)


def mark_artifacts(location: str | Path, identity: str) -> None:
    """Say in a folder of artifacts that it is that of the study with this identity."""
    if split_bucket(str(location)) is None and identity.isalnum():
        with contextlib.suppress(OSError):  # It is not needed by whoever names the folder.
            Path(location, _MARK.format(identity)).touch()


def is_marked(location: str | Path, identity: str) -> bool:
    """Whether a folder says that it holds the artifacts of the study with this identity."""
    try:
        return identity.isalnum() and Path(location, _MARK.format(identity)).is_file()
    except (OSError, ValueError):
        return False


def check_artifacts(location: str | Path) -> None:
    """Refuse a place that cannot take artifacts, and leave nothing there.

    Args:
        location: As for :func:`open_artifacts`. A folder is not made.

    Raises:
        StorageError: If it is no folder or bucket, or its rights do not suffice.
    """
    bucket = split_bucket(str(location))
    if bucket is None:
        return _check_folder(Path(location))
    with _explained(bucket[0], str(location)):
        store = open_artifacts(location)
        next(store.items(), None)  # The first, because its errors are the clearest.
        name = f"check-{uuid.uuid4().hex}"
        store.write(name, io.BytesIO(b"optnas"))
        store.remove(name)


class Folder:
    """Artifacts in a folder, each of which is there whole or not at all, whatever happens.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = Path(path)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        with _told_absent(artifact_id):
            return self._path(artifact_id).open("rb")

    def remove(self, artifact_id: str) -> None:
        with _told_absent(artifact_id):
            self._path(artifact_id).unlink()

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        path = self._path(artifact_id)
        # A name of its own: a worker that was taken for dead may write the same artifact.
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
        try:
            with partial.open("xb") as file:
                shutil.copyfileobj(content_body, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

    def items(self) -> Iterator[tuple[str, int]]:
        if not self._folder.is_dir():  # Opened without making it.
            return
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):  # Somebody deletes it meanwhile.
                hidden = entry.name.startswith(".") or entry.name.endswith(_PARTIAL)
                if entry.is_file() and not hidden:
                    yield entry.name, entry.stat().st_size

    def _path(self, artifact_id: str) -> Path:
        path = Path(os.path.normpath(self._folder / artifact_id))
        if not path.is_relative_to(os.path.normpath(self._folder)):
            raise ValueError(f"Invalid artifact_id: {artifact_id!r}")
        return path


class Bucket:
    """Artifacts in a bucket, where their names have a prefix.

    Args:
        store: Optuna's store for the bucket.
        prefix: What the names in the bucket begin with.
        listing: Yields names and sizes of everything in the bucket whose name has a prefix.
        errors: What the cloud's client raises.
    """

    def __init__(
        self,
        store: Any,
        prefix: str,
        listing: Callable[[str], Iterator[tuple[str, int]]],
        errors: tuple[type[Exception], ...],
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._listing = listing
        self._errors = errors

    def open_reader(self, artifact_id: str) -> BinaryIO:
        # Read at once, so that what can go wrong goes wrong here.
        with self._translated(), self._store.open_reader(self._prefix + artifact_id) as body:
            return io.BytesIO(body.read())

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        with self._translated():
            self._store.write(self._prefix + artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        with self._translated():
            self._store.remove(self._prefix + artifact_id)

    def items(self) -> Iterator[tuple[str, int]]:
        with self._translated():
            for name, size in self._listing(self._prefix):
                yield name.removeprefix(self._prefix), size

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except absent():
            raise
        except self._errors as error:
            raise OSError(first_line(error).rstrip(".")) from error


def _s3(bucket: str, prefix: str) -> Bucket:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from optuna.artifacts import Boto3ArtifactStore

    store = Boto3ArtifactStore(bucket)

    def listing(prefix: str) -> Iterator[tuple[str, int]]:
        pages = store.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=prefix):
            yield from ((found["Key"], found["Size"]) for found in page.get("Contents", ()))

    return Bucket(store, prefix, listing, (Boto3Error, BotoCoreError, ClientError))


def _google(bucket: str, prefix: str) -> Bucket:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from optuna.artifacts import GCSArtifactStore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls the class experimental.
        store = GCSArtifactStore(bucket)

    def listing(prefix: str) -> Iterator[tuple[str, int]]:
        return ((blob.name, blob.size) for blob in store.bucket_obj.list_blobs(prefix=prefix))

    errors = (GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse)
    return Bucket(store, prefix, listing, errors)


@contextlib.contextmanager
def _explained(scheme: str, location: str) -> Iterator[None]:
    """Turn whatever goes wrong with a bucket into a ``StorageError`` of one line."""
    try:
        yield
    except StorageError:
        raise
    except ImportError:
        raise StorageError(
            f"{location}: the driver is missing; pip install 'optnas[{_EXTRAS[scheme]}]'."
        ) from None
    except Exception as error:  # Clients raise what they like before there is a connection.
        reason = first_line(error).rstrip(".")
        raise StorageError(
            f"{location}: artifacts cannot be kept there: {reason}; {_RIGHTS[scheme]}."
        ) from None


@contextlib.contextmanager
def _told_absent(artifact_id: str) -> Iterator[None]:
    """Say in Optuna's words that a file is not there."""
    try:
        yield
    except FileNotFoundError as error:
        raise absent()[0](artifact_id) from error


def _tidy(folder: Path) -> None:
    """Delete what writers left behind that were killed."""
    for path in folder.glob(f"*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            if (
                _OWN_PARTIAL.fullmatch(path.name)
                and time.time() - path.stat().st_mtime > _LEFT_OVER
            ):
                path.unlink()


def _check_folder(path: Path) -> None:
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise StorageError(f"{path}: {nearest} is not a folder; name another place.")
    if not os.access(nearest, os.W_OK):
        raise StorageError(f"{path}: {nearest} cannot be written to; name another place.")
