"""A study is thrown away with what is provably its own, after it was shown; and who lists them."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

import optnas
from optnas.cli import app
from optnas.errors import UserError
from optnas.report.studies import studies_in
from optnas.study.opening import open_existing
from optnas.study.removal import belongings, throw_away
from optnas.trials.leases import renew_lease

TINY = """\
study: tiny
space: {depth: [2, 3], width: [4, 6]}
sampler: random
data: {name: digits, classes: [0, 1, 2], samples: 0.3}
train: {epochs: 1}
budget: {trials: 2}
checkpoint: {keep: all}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "tiny.yaml").write_text(TINY)
    optnas.run(folder / "tiny.yaml")
    # From another place: a copy of a study that is where it was leaves the training states alone.
    return folder.rename(tmp_path_factory.mktemp("moved") / "made")


@pytest.fixture
def folder(made, tmp_path):
    for path in made.iterdir():
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / path.name)
    return tmp_path


def run(*arguments, text=None):
    return CliRunner().invoke(app, list(map(str, arguments)), input=text, catch_exceptions=False)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_study_is_shown_and_goes_with_all_that_is_its_own(folder):
    (folder / "tiny.network").mkdir()
    result = run("rm", folder / "tiny.yaml", "--yes")
    assert result.exit_code == 0
    assert "study 'tiny'" in result.stdout
    assert "2 trials" in result.stdout
    # Weights and a drawing of each network.
    assert "4 artifacts" in result.stdout
    assert "tiny.network stays" in result.stdout
    assert names(folder) == ["tiny.network", "tiny.yaml"]


def test_nothing_goes_unasked(folder):
    before = names(folder)
    with pytest.raises(UserError, match="say --yes"):
        run("rm", folder / "tiny.yaml", text="")
    assert names(folder) == before


def test_what_others_put_there_stays(folder):
    artifacts = folder / "tiny.artifacts"
    foreign = ["notes.txt", "0" * 12 + "-1-1-00000000.pt", "images-" + "0" * 12 + "-1"]
    for name in foreign:
        (artifacts / name).write_text("mine")
    optuna.create_study(study_name="other", storage=f"sqlite:///{folder}/tiny.db")
    run("rm", folder / "tiny.yaml", "--yes")
    assert names(artifacts) == sorted(foreign)
    assert optuna.get_all_study_names(f"sqlite:///{folder}/tiny.db") == ["other"]


def test_a_database_with_other_tables_stays(folder):
    database = sqlite3.connect(folder / "tiny.db")
    database.execute("CREATE TABLE addresses (name TEXT)")
    database.close()
    run("rm", folder / "tiny.yaml", "--yes")
    assert "tiny.db" in names(folder)


@pytest.mark.parametrize("name", ["../precious.txt", "/etc/hostname", "notes.txt", "a" * 36, 7])
def test_a_name_in_the_storage_is_no_path(folder, name):
    (folder / "precious.txt").write_text("mine")
    (folder / "tiny.artifacts" / "notes.txt").write_text("mine")
    handle = open_existing(str(folder / "tiny.yaml"))
    mention = json.dumps({"artifact_id": name, "filename": "a.svg"})
    trial = handle.study.get_trials()[0]
    database = sqlite3.connect(folder / "tiny.db")
    database.execute(
        "INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
        (trial._trial_id, "artifacts:x", json.dumps(mention)),
    )
    database.commit()
    database.close()
    own = belongings(open_existing(str(folder / "tiny.yaml")))
    assert str(name) not in own.artifacts
    throw_away(own)
    assert (folder / "precious.txt").exists()
    assert (folder / "tiny.artifacts" / "notes.txt").exists()


def test_a_study_that_somebody_works_on_stays(folder):
    handle = open_existing(str(folder / "tiny.yaml"))
    trial = handle.study.ask()
    renew_lease(handle.study._storage, trial._trial_id, 100.0)
    with pytest.raises(UserError, match=r"a worker trains trial 2 .* stop it first"):
        belongings(handle)


def test_a_restart_begins_anew_with_what_the_file_says_now(folder):
    changed = TINY.replace("trials: 2", "trials: 1").replace("width: [4, 6]", "width: [4, 8]")
    (folder / "tiny.yaml").write_text(changed)
    result = run("run", folder / "tiny.yaml", "--restart", "--yes")
    assert "to be thrown away: study 'tiny'" in result.stdout
    handle = open_existing(str(folder / "tiny.yaml"))
    assert handle.config.search_space.width == (4, 8)
    assert len(handle.study.trials) == 1


def test_a_first_run_may_be_a_restart(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY.replace("trials: 2", "trials: 1"))
    result = run("run", tmp_path / "tiny.yaml", "--restart")
    assert "was never started" in result.stdout
    assert (tmp_path / "tiny.db").exists()


def test_studies_are_listed_by_folder_and_by_storage(folder):
    (folder / "later.yaml").write_text(TINY.replace("study: tiny", "study: later"))
    (folder / "other.yaml").write_text("colour: red\n")
    (folder / "notes.db").write_text("no database")
    optuna.create_study(study_name="foreign", storage=f"sqlite:///{folder}/foreign.db")
    rows = {row["study"]: row for row in studies_in(str(folder))}
    assert rows.keys() == {"tiny", "later", "foreign"}
    assert (rows["tiny"]["state"], rows["tiny"]["trials"]) == ("budget used up", 2)
    assert 0 <= rows["tiny"]["best"] <= 1
    assert rows["tiny"]["file"] == str(folder / "tiny.yaml")
    assert rows["later"]["state"] == "not started"
    assert rows["foreign"]["state"] == "not of optnas"
    assert [row["study"] for row in studies_in(f"sqlite:///{folder}/tiny.db")] == ["tiny"]
    table = run("ls", folder).stdout.splitlines()
    assert table[0].split()[:3] == ["study", "strategy", "state"]
    assert len(table) == 4


def test_no_studies_is_an_answer(tmp_path):
    assert "no studies in" in run("ls", tmp_path).stdout
    with pytest.raises(UserError, match="expected a folder"):
        run("ls", tmp_path / "absent")
    with pytest.raises(UserError, match="there is no such file"):
        run("ls", f"sqlite:///{tmp_path}/absent.db")


@pytest.mark.parametrize("command", ["best", "status"])
def test_before_the_first_run_the_next_command_is_named(tmp_path, command):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    with pytest.raises(UserError) as error:
        run(command, path)
    assert str(error.value) == f"{path}: not started: optnas run {path}"


def test_the_version_and_completions_are_printed():
    assert run("--version").stdout.strip() == optnas.__version__
    for shell in ("bash", "zsh", "fish"):
        assert "_OPTNAS_COMPLETE" in run("completion", shell).stdout
    asked = {"_OPTNAS_COMPLETE": "complete_bash", "COMP_WORDS": "optnas ret", "COMP_CWORD": "1"}
    command = [str(Path(sys.executable).with_name("optnas"))]
    done = subprocess.run(
        command, env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["retrain"]
