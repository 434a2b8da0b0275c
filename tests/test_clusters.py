"""What is checked before anything runs on a cluster, and what every node must have."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from optnas import cli
from optnas.cli.options import with_local_ray
from optnas.clusters import reach
from optnas.clusters.own_modules import own_modules
from optnas.clusters.ray_run import run_on_ray
from optnas.clusters.versions import check_versions, versions
from optnas.config.file import study_from_dict
from optnas.config.messages import StudyFileError
from optnas.errors import UserError

DOCS = Path(__file__).parents[1] / "docs"
BUCKET = "s3://bucket/prefix"
SERVER = "postgresql+psycopg://optnas@db.example.org/optnas"


@pytest.mark.parametrize(
    ("storage", "artifacts", "kind", "message"),
    [
        ("sqlite:////work/study.db", BUCKET, "nfs", "cannot reach the file /work/study.db"),
        ("sqlite:////work/study.db", BUCKET, "ext4", "optnas storage serve"),
        ("journal:////work/study.log", BUCKET, "ext4", "cannot reach the file"),
        ("journal:////work/study.log", BUCKET, "fuse.sshfs", "cannot reach the file"),
        ("journal:////work/study.log", BUCKET, "nfs", None),
        ("postgresql+psycopg://optnas@localhost/optnas", BUCKET, "", "another machine on each"),
        ("postgresql+psycopg:///optnas", BUCKET, "", "another machine on each"),
        ("mysql+pymysql://optnas@127.0.0.1/optnas", BUCKET, "", "another machine on each"),
        ("grpc://[::1]:13000", BUCKET, "", "another machine on each"),
        ("grpc://0.0.0.0:13000", BUCKET, "", "another machine on each"),
        ("grpc://10.0.0.1:13000", BUCKET, "", None),
        (SERVER, BUCKET, "", None),
        (SERVER, "/scratch/artifacts", "nfs4", None),
        (SERVER, "/home/me/artifacts", "ext4", "cannot reach the folder /home/me/artifacts"),
    ],
)
def test_what_other_nodes_cannot_reach_is_refused(monkeypatch, storage, artifacts, kind, message):
    monkeypatch.setattr(reach, "file_system", lambda path: kind)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    if message is None:
        reach.check_reach(storage, artifacts, "10.0.0.2")
    else:
        with pytest.raises(UserError, match=re.escape(message)):
            reach.check_reach(storage, artifacts, "10.0.0.2")


def test_a_bucket_of_this_machine_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    with pytest.raises(UserError, match="localhost:9000 is another machine"):
        reach.check_reach(SERVER, BUCKET, "10.0.0.2")
    reach.check_reach(SERVER, "gs://bucket/prefix", "10.0.0.2")


def test_a_password_is_not_given_to_a_cluster():
    with pytest.raises(UserError, match="PGPASSFILE") as told:
        reach.check_password("postgresql+psycopg://optnas:hunter2@db.example.org/optnas")
    assert "hunter2" not in str(told.value)
    with pytest.raises(UserError, match="PGPASSFILE"):
        reach.check_password("postgresql+psycopg://optnas@db.example.org/optnas?password=hunter2")
    reach.check_password(SERVER)
    reach.check_password("sqlite:////a:b@c/study.db")


def test_other_versions_are_refused_in_a_line():
    check_versions(versions(), "10.0.0.2")
    with pytest.raises(UserError) as told:
        check_versions({**versions(), "torch": "1.0", "python": "2.7"}, "10.0.0.2")
    assert str(told.value).startswith("node 10.0.0.2 has torch ")
    assert "the run torch 1.0, python 2.7" in str(told.value)


def test_the_modules_of_a_study_are_those_it_names_and_those_they_import(tmp_path):
    (tmp_path / "clusters_mine").mkdir()
    (tmp_path / "clusters_mine" / "__init__.py").write_text(
        "from clusters_mine.data import images\n"
    )
    (tmp_path / "clusters_mine" / "data.py").write_text("import helper, json, numpy\n")
    (tmp_path / "helper.py").write_text("import clusters_mine\ndef later():\n    import far\n")
    (tmp_path / "far.py").write_text("")
    (tmp_path / "numpy.py").write_text("an installed one is taken")
    (tmp_path / "other.py").write_text("")
    (tmp_path / "objective.py").write_text(
        "from optnas.objectives.classification import Classification\n"
        "import far\nclass Mine(Classification): pass\n"
    )
    keys = {"study": "mine", "data": "digits"}
    study = study_from_dict({**keys, "objective": "objective:Mine"}, tmp_path)
    assert [path.name for path in own_modules(study)] == ["far.py", "objective.py"]
    study = study_from_dict({**keys, "data": "clusters_mine:images"}, tmp_path)
    assert [path.name for path in own_modules(study)] == ["clusters_mine", "far.py", "helper.py"]
    assert own_modules(study_from_dict(keys, tmp_path)) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["study.yaml", "--ray"], ["study.yaml", "--ray", "local"]),
        (["--ray", "study.yaml"], ["--ray", "local", "study.yaml"]),
        (["study.yaml", "--ray", "--json"], ["study.yaml", "--ray", "local", "--json"]),
        (["study.yaml", "--ray", "auto"], ["study.yaml", "--ray", "auto"]),
        (["--ray", "10.0.0.1:6379", "study.yaml"], ["--ray", "10.0.0.1:6379", "study.yaml"]),
        (["study.yaml", "--ray=auto"], ["study.yaml", "--ray=auto"]),
        (["study.yaml"], ["study.yaml"]),
        (["--ray", "sqlite:///a.db", "one"], ["--ray", "local", "sqlite:///a.db", "one"]),
        (
            ["--ray", "postgresql+psycopg://h/db", "one"],
            ["--ray", "local", "postgresql+psycopg://h/db", "one"],
        ),
        (["--ray", "h:1", "sqlite:///a.db", "one"], ["--ray", "h:1", "sqlite:///a.db", "one"]),
        (["--ray", "ray://h:10001", "one"], ["--ray", "ray://h:10001", "one"]),
    ],
)
def test_ray_may_be_asked_for_without_an_address(given, expected):
    assert with_local_ray(given) == expected


@pytest.mark.parametrize(
    ("address", "workers", "message"),
    [
        ("head", {}, "expected HOST:PORT"),
        ("127.0.0.1:1", {}, "no Ray cluster answers there"),
        ("local", {"per_device": 2}, "workers.per_device is for the devices of one machine"),
    ],
)
def test_what_ray_cannot_do_is_refused(tmp_path, address, workers, message):
    study = study_from_dict({"study": "s", "data": "digits", "workers": workers}, tmp_path)
    with pytest.raises(UserError, match=message):
        run_on_ray(study, address=address, workers=study.workers)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("1.5GB", 15 * 10**8), ("512MB", 512 * 10**6)]
)
def test_memory_is_said_in_words(text, size):
    workers = {"resources": {"memory": text}}
    study = study_from_dict({"study": "s", "data": "digits", "workers": workers})
    assert study.workers.resources.memory_bytes == size


@pytest.mark.parametrize(
    "resources", [{"memory": "4"}, {"memory": "0GB"}, {"gpus": 2}, {"cpus": 0}]
)
def test_resources_have_bounds(resources):
    with pytest.raises(StudyFileError, match=r"workers\.resources"):
        study_from_dict({"study": "s", "data": "digits", "workers": {"resources": resources}})


def test_the_page_about_clusters_says_what_there_is():
    page = (DOCS / "clusters.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    study_from_dict(yaml.safe_load(text))
    shell = "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S))
    known = typer.main.get_command(cli.app).commands
    lines = [
        line[line.index("optnas ") :] for line in shell.splitlines() if " optnas " in f" {line}"
    ]
    for line in lines:
        _, name, *arguments = shlex.split(line)
        known[name].make_context(name, arguments)
    assert len(lines) == 8
