"""Artifact stores: whole or not at all in a folder, S3 and Google Cloud Storage."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.artifacts.exceptions import ArtifactNotFound
from servers import free_port

from optnas.config.file import study_from_dict
from optnas.config.paths import artifacts_location
from optnas.report.text import network_folder
from optnas.running import events
from optnas.running.runner import run
from optnas.storage.artifacts import check_artifacts, open_artifacts
from optnas.storage.urls import StorageError


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path) -> str:
    """The URL of a folder in an empty bucket, with the environment that people set."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # It keeps the credentials it found.
    bucket = f"bucket-{free_port()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/where"


@pytest.fixture(scope="module")
def google_server() -> Iterator[str]:
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    pytest.importorskip("google.cloud.storage")
    port = free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def google(google_server, monkeypatch) -> str:
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google_server)
    bucket = f"bucket-{free_port()}"
    storage.Client().create_bucket(bucket)
    return f"gs://{bucket}/some/where"


@pytest.fixture(params=["folder", "s3", "google"])
def location(request, tmp_path) -> str:
    """An empty place of every kind."""
    if request.param == "folder":
        return str(tmp_path / "artifacts")
    return request.getfixturevalue(request.param)


def read(store, name: str) -> bytes:
    with store.open_reader(name) as reader:
        return reader.read()


def test_a_place_is_checked_and_nothing_is_left_there(location, tmp_path):
    before = list(tmp_path.iterdir())
    check_artifacts(location)
    assert list(tmp_path.iterdir()) == before
    assert list(open_artifacts(location).items()) == []


def test_what_is_written_is_read_listed_replaced_and_removed(location):
    store = open_artifacts(location)
    store.write("a", io.BytesIO(b"abc"))
    store.write("b", io.BytesIO(bytes(20_000_000)))  # More than S3's clients send in one piece.
    store.write("a", io.BytesIO(b"defg"))
    again = open_artifacts(location)
    assert read(again, "a") == b"defg"
    assert sorted(again.items()) == [("a", 4), ("b", 20_000_000)]
    again.remove("b")
    assert list(store.items()) == [("a", 4)]
    with pytest.raises(ArtifactNotFound):
        store.open_reader("b")


@pytest.mark.parametrize("cloud", ["s3", "google"])
def test_a_prefix_is_a_folder_of_its_own(cloud, request):
    location = request.getfixturevalue(cloud)
    bucket = location.removesuffix("/some/where")
    for place, content in [(location, b"1"), (f"{location}-else/", b"22"), (bucket, b"333")]:
        open_artifacts(place).write("a", io.BytesIO(content))
    assert list(open_artifacts(location).items()) == [("a", 1)]
    assert read(open_artifacts(f"{location}-else"), "a") == b"22"
    assert sorted(open_artifacts(bucket).items()) == [
        ("a", 3),
        ("some/where-else/a", 2),
        ("some/where/a", 1),
    ]


@pytest.mark.parametrize("cloud", ["s3", "google"])
def test_a_bucket_that_does_not_exist_is_refused_in_one_line(cloud, request):
    bucket = request.getfixturevalue(cloud).replace("bucket-", "missing-")
    with pytest.raises(StorageError) as caught:
        check_artifacts(bucket)
    message = str(caught.value)
    assert message.startswith(f"{bucket}: artifacts cannot be kept there: ")
    assert "the bucket must exist" in message
    assert "\n" not in message
    # Later, it is an error like those of disks.
    with pytest.raises(OSError, match=r"bucket|404"):
        open_artifacts(bucket).write("a", io.BytesIO(b"1"))


def test_missing_credentials_are_named(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with pytest.raises(StorageError, match=r"Unable to locate credentials; .* environment"):
        check_artifacts(s3)


def test_an_endpoint_that_does_not_answer_is_named_without_credentials(s3, monkeypatch):
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match=endpoint) as caught:
        check_artifacts(s3)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs")])
def test_a_missing_driver_is_named(scheme, extra, monkeypatch):
    for name in ("boto3.exceptions", "google.cloud.storage.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StorageError, match=rf"pip install 'optnas\[{extra}\]'"):
        check_artifacts(f"{scheme}://bucket/prefix")


def test_a_place_that_cannot_hold_a_folder_is_refused_and_nothing_made(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(StorageError, match="file is not a folder"):
            check_artifacts(tmp_path / place)
    check_artifacts(tmp_path / "new" / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    open_artifacts(tmp_path / "new" / "folder")
    check_artifacts(tmp_path / "new" / "folder")


class _Broken(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 100_000:
            raise OSError("no space left")
        return super().read(size)


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    store = open_artifacts(tmp_path)
    store.write("a", io.BytesIO(b"whole"))
    with pytest.raises(OSError, match="no space left"):
        store.write("a", _Broken(bytes(10_000_000)))
    assert read(store, "a") == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_writer_that_is_killed_leaves_what_was_there(tmp_path):
    store = open_artifacts(tmp_path)
    store.write("a", io.BytesIO(b"whole"))
    code = f"""
        import io, time
        from optnas.storage.artifacts import open_artifacts

        class Slow(io.BytesIO):
            def read(self, size=-1):
                if self.tell() > 100_000:
                    print("writing", flush=True)
                    time.sleep(60)
                return super().read(size)

        open_artifacts({str(tmp_path)!r}).write("a", Slow(bytes(10_000_000)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(signal.SIGKILL)
    assert list(store.items()) == [("a", 5)]
    assert read(store, "a") == b"whole"
    # What it left behind is swept up once it is surely nobody's.
    partial = next(path for path in tmp_path.iterdir() if path.name != "a")
    open_artifacts(tmp_path)
    assert partial.exists()
    days_ago = time.time() - 2 * 24 * 3600
    os.utime(partial, (days_ago, days_ago))
    open_artifacts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://my.bucket-1/some/where/", "s3://my.bucket-1/some/where"),
        ("gs://bucket/some", "gs://bucket/some"),
        ("some/where", "/study/some/where"),
        ("/some/where", "/some/where"),
    ],
)
def test_what_a_study_file_says_is_a_bucket_or_a_folder(text, expected):
    assert artifacts_location(text, Path("/study")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "s3://me:s3cret@bucket/some",
        "s3://bucket/some?secret=s3cret",
        "s3://b/s3cret",
        "s3:///s3cret",
        "https://bucket.s3.amazonaws.com/s3cret",
    ],
)
def test_other_urls_are_refused_and_not_repeated(text):
    with pytest.raises(ValueError, match=r"'s3://BUCKET/PREFIX'") as caught:
        artifacts_location(text, Path("/study"))
    assert "s3cret" not in str(caught.value)


def test_a_study_keeps_its_checkpoints_in_a_bucket(s3, tmp_path):
    held: set[str] = set()

    class Display(events.Display):
        def epoch(self, progress, worker) -> None:
            held.update(checkpoints())

    def checkpoints() -> list[str]:
        return [name for name, _ in open_artifacts(s3).items() if name.endswith(".pt")]

    config = {
        "study": "tiny",
        "storage": f"sqlite:///{tmp_path}/tiny.db",
        "artifacts": s3,
        "space": {"depth": [2, 3], "width": [4, 6]},
        "sampler": "random",
        "train": {"epochs": 3},
        "data": {"name": "digits", "classes": [0, 1], "samples": 0.5},
        "budget": {"trials": 1},
    }
    opened = run(study_from_dict(config), display=Display()).opened
    assert len(held) >= 2
    assert checkpoints() == []
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert Path(network_folder(opened)) == tmp_path / "tiny.network"


@pytest.mark.parametrize("name", ["../a", "/tmp/a"])
def test_names_do_not_lead_out_of_the_folder(name, tmp_path):
    store = open_artifacts(tmp_path / "inside")
    with pytest.raises(ValueError, match="Invalid artifact_id"):
        store.write(name, io.BytesIO(b""))
