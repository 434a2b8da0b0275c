"""`--set` says keys of a study file otherwise: checked as the file is, and stored as it is."""

import optuna
import pytest
from typer.testing import CliRunner

from optnas.cli import app
from optnas.config.file import read_study_file
from optnas.config.messages import StudyFileError
from optnas.config.overrides import parse_overrides
from optnas.study.opening import config_to_run

FILE = """\
study: tiny
sampler: macro_micro
space: {depth: [2, 3], width: [4, 6]}
data: {name: digits, classes: [0, 1, 2], samples: 0.3}
train:
"""


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(FILE)
    return path


def config(path, *texts):
    return config_to_run(read_study_file(path, parse_overrides(texts)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.lr=3e-4", lambda c: c.train.lr == 3e-4),
        ("train.milestones=null", lambda c: c.train.milestones is None),
        ("sampler.epochs=3", lambda c: c.sampler.options["epochs"] == 3),
        ("sampler={name: random}", lambda c: c.sampler.name == "random"),
        ("sampler = random", lambda c: c.sampler.name == "random"),
        ("space.depth=[2, 8]", lambda c: c.search_space.depth == (2, 8)),
        ("data.augment=[]", lambda c: c.data.augment == ()),
        ("budget.trials=7", lambda c: c.budget.trials == 7),
        ("study=other", lambda c: c.storage.endswith("/other.db")),
    ],
)
def test_a_key_is_said_otherwise(study_file, text, said):
    assert said(config(study_file, text))


def test_a_later_one_wins_and_the_rest_is_as_the_file_says(study_file):
    changed = config(study_file, "train.lr=0.1", "train.lr=0.2", "train.momentum=0.5")
    assert (changed.train.lr, changed.train.momentum) == (0.2, 0.5)
    assert changed.search_space.depth == (2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lr", "--set train.lr: expected KEY=VALUE"),
        ("=3", "--set =3: expected KEY=VALUE"),
        ("train..lr=3", "--set train..lr=3: expected KEY=VALUE"),
        ("train.lr=[", "--set train.lr=[: not valid YAML"),
        ("train.lrr=1", "--set train.lrr=1: train.lrr: unknown key; did you mean 'lr'?"),
        ("trian.lr=1", "--set trian.lr=1: trian: unknown key; did you mean 'train'?"),
        ("train.lr=fast", "--set train.lr=fast: train.lr: expected"),
        ("sampler.epochs=0", "--set sampler.epochs=0: sampler.epochs: expected"),
        ("study.name=x", "--set study.name=x: study is 'tiny' in the file"),
    ],
)
def test_what_is_wrong_is_said_as_of_the_file(study_file, text, message):
    with pytest.raises(StudyFileError) as error:
        config(study_file, text)
    assert str(error.value).startswith(message)


def test_what_the_file_says_wrong_is_still_said_of_the_file(study_file):
    study_file.write_text(FILE.replace("depth", "dept"))
    with pytest.raises(StudyFileError, match=r"tiny.yaml:3: space.dept"):
        config(study_file, "train.lr=0.1")


def test_it_is_stored_as_if_the_file_had_changed(study_file, tmp_path):
    arguments = ["run", str(study_file), "--set", "sampler.epochs=1", "--set", "budget.trials=1"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "otherwise than in" in result.stdout
    assert "sampler.epochs=1" in result.stdout
    assert f"optnas run {study_file} --set=sampler.epochs=1" in result.stdout
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/tiny.db")
    assert study.user_attrs["optnas"]["config"]["sampler"]["epochs"] == 1
    with pytest.raises(StudyFileError, match=r"sampler\.epochs: stored 1, file says 2"):
        config(study_file, "sampler.epochs=2")
    # What the file leaves open is as it is stored, so that it goes on without the option, too.
    assert config(study_file).sampler.options["epochs"] == 1
