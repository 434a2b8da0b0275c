"""Where a study's network and page are: one place for each study, whatever its neighbours."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from searches import opened, trial

from optnas.report.page import report_page
from optnas.study.folders import mark_network, network_folder, page_path
from optnas.study.opening import OpenStudy, open_existing


def study(folder: Path, name: str = "made", database: str = "", **keys: Any) -> OpenStudy:
    storage = {"storage": f"sqlite:///{database}.db"} if database else {}
    return opened(folder, [trial(0, 0.5)], study=name, **storage, **keys)


def trained(found: OpenStudy, folder: str | Path, **origin: Any) -> None:
    """A network as version 0.1.0 kept it: with an origin, but without a mark."""
    path = Path(folder)
    path.mkdir(parents=True)
    architecture = json.loads(
        found.config.make_space().from_trial(found.study.trials[0]).to_json()
    )
    told = {"study": found.study.study_name, "trial": 0, **origin}
    content = json.dumps({"origin": told, "architecture": architecture})
    (path / "network.json").write_text(content)


@pytest.mark.parametrize("name", ["made", "two words", "naïve 网络", "a?b", "100%", "x.network"])
def test_they_are_beside_the_storage_under_the_study_s_name(name: str, tmp_path: Path) -> None:
    found = study(tmp_path, name)
    stem = name.replace("?", "_").replace("%", "_")
    assert network_folder(found) == f"{tmp_path}/{stem}.network"
    assert network_folder(found, "-cifar10") == f"{tmp_path}/{stem}.network-cifar10"
    assert page_path(found) == tmp_path / f"{stem}.html"


def test_studies_that_share_artifacts_share_nothing_else(tmp_path: Path) -> None:
    first, second = (study(tmp_path, name, artifacts="art") for name in "ab")
    assert network_folder(first) == f"{tmp_path}/a.network"
    assert network_folder(second) == f"{tmp_path}/b.network"


@pytest.mark.parametrize("artifacts", ["s3://bucket/prefix", "elsewhere/art"])
def test_they_follow_the_storage_not_the_artifacts(artifacts: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    found = study(tmp_path, database="data/studies", artifacts=artifacts)
    assert network_folder(found) == f"{tmp_path}/data/made.network"
    assert page_path(found) == tmp_path / "data" / "made.html"


@pytest.mark.parametrize(("one", "other"), [("made", "made"), ("a?b", "a*b")])
def test_who_comes_second_has_another_folder_and_page(
    one: str, other: str, tmp_path: Path
) -> None:
    first, second = study(tmp_path, one, "one"), study(tmp_path, other, "other")
    stem = one.replace("?", "_")
    for suffix in ("", "-cifar10"):
        path = Path(network_folder(first, suffix))
        path.mkdir()
        mark_network(first, path)
        assert network_folder(first, suffix) == str(path) == f"{tmp_path}/{stem}.network{suffix}"
        theirs = Path(network_folder(second, suffix))
        assert theirs.name.startswith(f"{stem}-")
        assert theirs.name.endswith(f".network{suffix}")
        theirs.mkdir()
        mark_network(second, theirs)
        path.rename(tmp_path / "away")
        assert network_folder(second, suffix) == str(theirs)
        (tmp_path / "away").rename(path)
    page_path(first).write_text(report_page(first, "x.yaml"), encoding="utf-8")
    assert page_path(first) == tmp_path / f"{stem}.html"
    assert page_path(second).name.startswith(f"{stem}-")


def test_what_somebody_wrote_himself_is_not_written_over(tmp_path: Path) -> None:
    found = study(tmp_path)
    (tmp_path / "made.html").write_text("<h1>My thesis</h1>")
    (tmp_path / "made.network").mkdir()
    (tmp_path / "made.network" / "thesis.tex").touch()
    assert page_path(found).name != "made.html"
    assert Path(network_folder(found)).name != "made.network"


def test_a_training_that_was_cut_off_before_its_mark_goes_on(tmp_path: Path) -> None:
    found = study(tmp_path)
    folder = tmp_path / "made.network"
    folder.mkdir()
    for name in ("training.pt", "training.pt.0f.partial"):
        (folder / name).touch()
    assert network_folder(found) == str(folder)


@pytest.mark.parametrize("origin", [{}, {"channels": "64 (found with 16)"}])
@pytest.mark.parametrize("place", ["made.network", "art.network"])
def test_the_networks_of_version_0_1_0_are_where_they_were(
    place: str, origin: dict[str, str], tmp_path: Path
) -> None:
    first, second = (study(tmp_path, name, artifacts="art") for name in ("made", "b"))
    trained(first, tmp_path / place, **origin)
    assert network_folder(first) == f"{tmp_path}/{place}"
    assert network_folder(second) == f"{tmp_path}/b.network"
    trained(second, tmp_path / "art.network-cifar10")
    assert network_folder(second, "-cifar10") == f"{tmp_path}/art.network-cifar10"
    assert network_folder(first, "-cifar10") == f"{tmp_path}/made.network-cifar10"


@pytest.mark.parametrize("origin", [{"trial": 7}, {"trial": -1}, {"trial": "0"}, {"study": "b"}])
def test_a_network_of_another_study_is_not_this_one_s(
    origin: dict[str, Any], tmp_path: Path
) -> None:
    found = study(tmp_path)
    trained(found, tmp_path / "made.network", **origin)
    assert Path(network_folder(found)).name != "made.network"


@pytest.mark.parametrize("content", ["", "[", "3", "[]", "{}", '{"origin": 3}', "\0", "[" * 10**5])
@pytest.mark.parametrize("name", ["network.json", "study.json"])
def test_marks_that_say_nothing_are_nobody_s(name: str, content: str, tmp_path: Path) -> None:
    found = study(tmp_path)
    (tmp_path / "made.network").mkdir()
    (tmp_path / "made.network" / name).write_text(content)
    assert Path(network_folder(found)).name != "made.network"


def test_a_database_that_was_moved_takes_its_artifacts_along(tmp_path: Path) -> None:
    """By its URL alone, where only the storage says where they were."""

    def artifacts(path: Path) -> str:
        return open_existing(f"sqlite:///{path}").config.artifacts

    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    study(before)
    study(before, "other", artifacts="big/other.artifacts")
    (before / "big" / "other.artifacts").mkdir(parents=True)
    assert artifacts(before / "made.db") == f"{before}/made.artifacts"
    after.mkdir()
    for name in ("made", "other"):
        with sqlite3.connect(before / f"{name}.db") as whole:
            whole.execute(f"VACUUM INTO '{after / name}.db'")
    (before / "made.artifacts").mkdir()
    assert artifacts(after / "made.db") == f"{after}/made.artifacts"
    assert artifacts(after / "other.db") == f"{after}/other.artifacts"
    before.rename(tmp_path / "gone")
    assert artifacts(after / "made.db") == f"{after}/made.artifacts"
