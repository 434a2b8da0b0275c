"""The files around the code: what contributors, GitHub and pre-commit read."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import optnas

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text())


def test_the_workflow_runs_the_checks_on_every_version():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    assert jobs["check"]["strategy"]["matrix"]["python"][0] == PROJECT["requires-python"][2:]
    for job in jobs.values():
        assert job["steps"][-1]["run"] == ".ci/run"


def test_a_release_is_tried_before_it_is_published():
    workflow = read(".github/workflows/release.yml")
    assert workflow[True]["push"]["tags"] == ["v*"]  # YAML 1.1 reads the key `on` as true.
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    assert any(step.get("run") == "make release-check" for step in build["steps"])
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    (check,) = (step["run"] for step in build["steps"] if "tag" in step.get("name", ""))
    names = os.environ | {"GITHUB_REF_NAME": f"v{optnas.__version__}"}
    subprocess.run(["bash", "-ec", check], cwd=ROOT, env=names, check=True)
    other = subprocess.run(["bash", "-ec", check], cwd=ROOT, env=names | {"GITHUB_REF_NAME": "v9"})
    assert other.returncode == 1
    assert PROJECT["version"] == optnas.__version__


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_are_forms(name):
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= form.keys()
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) > 0


def test_the_citation_is_of_this_version():
    citation = read("CITATION.cff")
    for work in (citation, citation["preferred-citation"]):
        assert (work["title"], str(work["version"])) == ("optnas", optnas.__version__)
        assert work["authors"]
    assert {"cff-version", "message"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_has_this_version():
    titles = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert titles[0] == "Unreleased"
    assert optnas.__version__ in titles


def test_hooks_call_programs_of_this_repository():
    (local,) = read(".pre-commit-config.yaml")["repos"]
    targets = {"ruff", "make"}
    assert {Path(hook["entry"].split()[0]).name for hook in local["hooks"]} == targets


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_pages_name_files_that_exist(page):
    pattern = r"`((?:optnas|samplers|objectives|tests|docs|benchmarks)/[\w./]*)`"
    paths = re.findall(pattern, (ROOT / page).read_text())
    assert paths
    assert not [path for path in paths if "NAME" not in path and not (ROOT / path).exists()]


def test_every_room_is_on_the_map():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [
        f.parent for top in ("optnas", "objectives") for f in ROOT.glob(f"{top}/*/__init__.py")
    ]
    assert rooms
    missing = [r for r in rooms if f"`{r.relative_to(ROOT).as_posix()}/`" not in page]
    assert not missing


def test_contributors_call_targets_that_there_are():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    lines = re.findall(r"^make (.*)$", text, re.M)
    assert lines
    for line in lines:
        subprocess.run(["make", "-n", *line.split()], cwd=ROOT, check=True, capture_output=True)
