"""Studies go on with what they were made with, whatever new studies have by default."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

import optnas
from optnas.config import stored as stored_module
from optnas.config.file import StudyFile, load_study_file, study_from_dict
from optnas.config.keys import StudyKeys
from optnas.config.settings import DataSettings, RetrainSettings, TrainSettings
from optnas.config.variants import variant
from optnas.doctor.examination import diagnose
from optnas.errors import UserError
from optnas.running.baseline_training import baselines_config
from optnas.samplers.econas import EcoNASSampler
from optnas.storage.opening import open_storage
from optnas.study.opening import config_to_run, create_or_open, open_existing
from optnas.study.record import RECORD

CASES = Path(__file__).parent.parent.parent / "shared" / "cases" / "old_studies"

FILE: dict[str, Any] = {"study": "old", "data": "digits", "sampler": "econas", "space": "cell"}


def made(folder: Path, file: Mapping[str, Any] = FILE, **edits: Any) -> Path:
    """A study, its file, and what an older version stored: dotted keys, absent ones as ``...``."""
    path = folder / f"{file['study']}.yaml"
    path.write_text(yaml.safe_dump(dict(file)))
    handle = create_or_open(load_study_file(path), in_channels=1, classes=10)
    record = handle.study.user_attrs[RECORD]
    for key, value in edits.items():
        *blocks, last = key.split("__")
        block = record["config"]
        for name in blocks:
            block = block[name]
        if value is ...:
            del block[last]
        else:
            block[last] = value
    handle.study.set_user_attr(RECORD, record)
    return path


def at(config: StudyFile, key: str) -> Any:
    value: Any = config.resolved()
    for name in key.split("__"):
        value = value[name]
    return value


OLDER: list[tuple[str, Any]] = [
    ("sampler__initial", 50_000),
    ("sampler__parents", [9, 8, 7]),
    ("space__nodes", 7),
    ("space__none", False),
    ("train__lr", 0.5),
    ("train__clip", None),
    ("train__epochs", 33),
    ("data__samples", 0.5),
    ("data__augment", ["flip"]),
    ("data__validation", "test"),
    ("network__cells", 5),
    ("limits__params", 77),
    ("retrain__epochs", 601),
    ("checkpoint__every", "60s"),
    ("max_retries", 1),
]
CHANGEABLE = ("retrain", "checkpoint", "max")


def test_what_the_file_does_not_say_is_as_stored(tmp_path: Path) -> None:
    path = made(tmp_path, **dict(OLDER))
    new, config = load_study_file(path), config_to_run(path)
    for key, value in OLDER:
        assert at(new, key) != value
        assert at(config, key) == value
    assert [line.partition(" ")[0] for line in sorted(config.kept)] == sorted(
        key.replace("__", ".") for key, _ in OLDER
    )
    assert "train.lr 0.5 (now 0.025)" in config.kept
    resolved = config.resolved()
    assert config_to_run(FILE | {"storage": f"sqlite:///{tmp_path}/old.db"}).train == config.train
    assert config_to_run(study_from_dict(FILE, tmp_path)).resolved() == resolved
    assert open_existing(str(path)).config.resolved() == resolved
    by_url = open_existing(f"sqlite:///{tmp_path}/old.db").config.resolved()
    assert {**by_url, "folder": str(tmp_path)} == resolved
    handle, findings = diagnose(str(path))
    assert handle.config.resolved() == resolved
    assert "configuration" not in {each.finding.kind for each in findings}
    again = create_or_open(new, in_channels=1, classes=10)
    assert again.config.resolved() == resolved
    assert again.study.user_attrs[RECORD]["config"] == resolved


def test_what_the_file_says_otherwise_is_refused(tmp_path: Path) -> None:
    older = [(key, value) for key, value in OLDER if key.partition("_")[0] not in CHANGEABLE]
    path = made(tmp_path, **dict(older))
    new = load_study_file(path)
    for key, value in older:
        block, name = key.split("__")
        said = FILE.get(block, {})
        written = {"name": said} if isinstance(said, str) else said
        path.write_text(yaml.safe_dump(FILE | {block: {**written, name: at(new, key)}}))
        with pytest.raises(UserError, match="another configuration") as caught:
            config_to_run(path)
        before, now = (v if isinstance(v, str) else json.dumps(v) for v in (value, at(new, key)))
        line = f"{block}.{name}: stored {before}, file says {now}"
        assert str(caught.value).splitlines()[1:-1] == [f"  {line}"]
    with pytest.raises(UserError, match="another configuration"):
        open_existing(str(path))
    assert next(diagnose(str(path))[1]).finding.what == line


@pytest.mark.parametrize("key", ["retrain", "checkpoint", "max_retries"])
def test_what_may_change_is_as_the_file_says(key: str, tmp_path: Path) -> None:
    older = {"retrain": {"epochs": 601}, "checkpoint": {"every": 9}, "max_retries": 1}
    path = made(tmp_path, **{key: older[key]})
    said = {"retrain": {"epochs": 7}, "checkpoint": {"every": 3}, "max_retries": 2}
    path.write_text(yaml.safe_dump(FILE | {key: said[key]}))
    assert at(config_to_run(path), key) != older[key]
    assert not config_to_run(path).kept


def test_how_it_runs_and_where_it_is_are_not_kept(tmp_path: Path) -> None:
    path = made(
        tmp_path,
        FILE | {"budget": {"trials": 3}, "workers": {"count": 2}},
        artifacts="/elsewhere",
        data__root="/gone",
        data__download=True,
    )
    path.write_text(yaml.safe_dump(FILE))
    config = config_to_run(path)
    assert (config.budget.trials, config.workers.count) == (None, None)
    assert config.artifacts == f"{tmp_path}/old.artifacts"
    assert (config.data.root, config.data.download) == (None, False)
    assert not config.kept


def test_a_preset_is_what_it_was(tmp_path: Path) -> None:
    for number, space in enumerate(({"preset": "tiny"}, {"name": "chain"}, None, {})):
        file = {"study": f"preset{number}", "data": "digits", "space": space}
        file = {key: value for key, value in file.items() if value is not None}
        path = made(tmp_path, file, space__depth=[3, 9], space__width=[5, 50])
        config = config_to_run(path)
        assert (at(config, "space__depth"), at(config, "space__width")) == ([3, 9], [5, 50])
        assert len(config.kept) == 2


@pytest.mark.parametrize(("version", "told"), [("99.0", True), ("0.0.1", False), ("x", False)])
def test_what_a_later_version_stored_is_told(tmp_path: Path, version: str, told: bool) -> None:
    path = made(tmp_path, train__novel=3)
    study = optuna.load_study(study_name="old", storage=f"sqlite:///{tmp_path}/old.db")
    study.set_user_attr(RECORD, {**study.user_attrs[RECORD], "version": version})
    for target in (str(path), f"sqlite:///{tmp_path}/old.db"):
        with pytest.raises(UserError, match="novel: unknown key") as refused:
            open_existing(target)
        assert ("made by optnas 99.0" in str(refused.value)) == told


def test_an_unsaid_name_is_the_stored_one(tmp_path: Path) -> None:
    """The default sampler has changed, so that the file's options alone fit no sampler."""
    path = made(tmp_path, FILE | {"sampler": {"name": "econas", "cycles": 5}})
    path.write_text(yaml.safe_dump(FILE | {"sampler": {"cycles": 5}}))
    with pytest.raises(UserError, match="unknown key"):
        load_study_file(path)
    config = config_to_run(path)
    assert (config.sampler.name, config.sampler.options["cycles"]) == ("econas", 5)
    [line] = config.kept
    assert "as a new study it is refused" in line
    assert open_existing(str(path)).config == config
    path.write_text(yaml.safe_dump({k: v for k, v in FILE.items() if k != "sampler"}))
    assert config_to_run(path).sampler.name == "econas"


def test_a_mistake_in_the_file_is_told_before_what_differs(tmp_path: Path) -> None:
    path = made(tmp_path, train__lr=0.5)
    path.write_text(yaml.safe_dump(FILE | {"trian": {}}))
    for open_it in (config_to_run, lambda p: open_existing(str(p)), lambda p: diagnose(str(p))):
        with pytest.raises(UserError, match=r"old\.yaml:\d+: trian: unknown key"):
            open_it(path)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"proxy": "c0r0s0e4"}, "proxy: stored c0r0s0e3, file says c0r0s0e4"),
        ({"proxy": {"e": 4}}, "proxy: stored c0r0s0e3, file says c0r0s0e4"),
        ({"train": {"epochs": 5}}, "train.epochs: stored 3, file says 5"),
        ({"sampler": "macro_micro"}, "sampler.name: stored random, file says macro_micro"),
        ({"data": "fashion_mnist"}, "data.name: stored digits, file says fashion_mnist"),
    ],
)
def test_what_follows_from_a_contradiction_does_not_hide_it(
    said: dict[str, Any], line: str, tmp_path: Path
) -> None:
    file = {"study": "old", "data": "digits", "sampler": "random", "proxy": "c0r0s0e3"}
    path = made(tmp_path, file)
    changed = {**{k: v for k, v in file.items() if k != "proxy"}, **said}
    path.write_text(yaml.safe_dump(changed | ({"space": "chain"} if "sampler" in said else {})))
    with pytest.raises(UserError, match="another configuration") as caught:
        config_to_run(path)
    assert f"\n  {line}\n" in str(caught.value)


def test_forms_of_one_value_are_no_contradiction(tmp_path: Path) -> None:
    path = made(tmp_path, {"study": "old", "data": "digits", "sampler": "random"})
    for data in ("digits", {"name": "digits"}, {"name": "digits", "samples": 1}):
        path.write_text(
            yaml.safe_dump({"study": "old", "data": data, "sampler": {"name": "random"}})
        )
        config_to_run(path)


# Keys that older versions did not have.


@pytest.fixture
def newer_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        stored_module,
        "OLD_BEHAVIOUR",
        {
            ("data", "validation"): 0.5,
            ("sampler", "econas", "unique"): False,
            ("sampler", "macro_micro", "strikes"): 9,
            ("objective", "supernet_classification", "search", "lr"): 0.5,
            ("max_retries",): 2,
        },
    )


@pytest.mark.usefixtures("newer_keys")
def test_a_key_that_its_version_did_not_know_means_what_that_did(tmp_path: Path) -> None:
    absent = ("data__validation", "sampler__unique", "max_retries", "train__graphs")
    path = made(tmp_path, **dict.fromkeys(absent, ...))
    handle = open_existing(f"sqlite:///{tmp_path}/old.db")
    for config in (config_to_run(path), handle.config, open_existing(str(path)).config):
        assert config.data.validation == 0.5
        assert config.sampler.options["unique"] is False
        assert config.max_retries == 2
        assert config.train.graphs is True  # Not in the table: as it was.
    assert "sampler.unique false (now true)" in config_to_run(path).kept
    new = config_to_run(FILE | {"study": "new", "storage": f"sqlite:///{tmp_path}/old.db"})
    assert (new.data.validation, new.sampler.options["unique"], new.kept) == (None, True, ())
    path.write_text(yaml.safe_dump(FILE | {"data": {"name": "digits", "validation": 0.25}}))
    with pytest.raises(UserError, match=r"data\.validation: stored 0\.5, file says 0\.25"):
        config_to_run(path)
    path.write_text(yaml.safe_dump(FILE | {"data": {"name": "digits", "validation": 0.5}}))
    assert config_to_run(path).data.validation == 0.5


def test_a_study_from_before_there_were_kernels_keeps_those_of_torch(
    tmp_path: Path,
) -> None:
    path = made(tmp_path, train__kernels=...)
    assert config_to_run(path).train.kernels == "torch"
    assert "train.kernels torch (now auto)" in config_to_run(path).kept
    path.write_text(yaml.safe_dump(FILE | {"train": {**FILE.get("train", {}), "kernels": "auto"}}))
    with pytest.raises(UserError, match=r"train\.kernels: stored torch, file says auto"):
        config_to_run(path)
    path = made(tmp_path, FILE | {"study": "new"})
    assert config_to_run(path).train.kernels == "auto"


@pytest.mark.usefixtures("newer_keys")
def test_a_key_inside_a_block_of_options(tmp_path: Path) -> None:
    file = FILE | {
        "sampler": "ftso",
        "objective": {"name": "supernet_classification", "search": {"cells": 3}},
    }
    path = made(tmp_path, file, objective__search__lr=..., objective__search__batch_size=17)
    search = config_to_run(path).objective.options["search"]
    assert (search["cells"], search["lr"], search["batch_size"]) == (3, 0.5, 17)
    file["objective"]["search"] = {"cells": 4}
    path.write_text(yaml.safe_dump(file))
    with pytest.raises(UserError, match=r"objective\.search\.cells: stored 3, file says 4"):
        config_to_run(path)


OWN = """
from collections.abc import Mapping
from optnas.samplers.econas import EcoNASSampler
from optnas.samplers.baselines import *
from optuna.samplers import RandomSampler

class Derived(EcoNASSampler):
    "One of optnas, but for its name."

class Own(RandomSampler):
    def __init__(self, seed: int | None = None, *, rate: float = RATE, NEWER
                 weights: Mapping[str, float] = {"a": 1.0}) -> None:
        super().__init__(seed)
        self.rate, self.weights = rate, weights
"""


@pytest.mark.usefixtures("newer_keys")
def test_samplers_that_inherit_an_option_inherit_what_it_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = OWN.replace("RATE", "0.5").replace("NEWER", "")
    (tmp_path / "optnas_test_derived.py").write_text(source)
    for number, name in enumerate(
        ("optnas_test_derived:Derived", "optnas.samplers:EcoNASSampler")
    ):
        path = made(tmp_path, FILE | {"study": f"s{number}", "sampler": name}, sampler__unique=...)
        assert config_to_run(path).sampler.options["unique"] is False
    own = FILE | {"study": "own", "sampler": "optnas_test_derived:Own", "space": "chain"}
    assert config_to_run(made(tmp_path, own)).sampler.options == {
        "rate": 0.5,
        "weights": {"a": 1.0},
    }


def test_a_mapping_that_is_one_value_is_not_mixed_with_the_stored_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = OWN.replace("RATE", "0.5").replace("NEWER", "")
    (tmp_path / "optnas_test_mapped.py").write_text(source)
    block = {"name": "optnas_test_mapped:Own", "weights": {"a": 1.0, "b": 2.0}}
    file = FILE | {"sampler": block, "space": "chain"}
    path = made(tmp_path, file, sampler__rate=0.25)
    assert config_to_run(path).sampler.options["rate"] == 0.25
    block["weights"] = {"b": 2.0}
    path.write_text(yaml.safe_dump(file))
    with pytest.raises(UserError, match="another configuration"):
        config_to_run(path)


def test_somebody_s_own_sampler_goes_on_after_its_default_has_moved(tmp_path: Path) -> None:
    """In processes of their own, because the module is another one the second time."""
    module = tmp_path / "mine.py"
    file = {
        "study": "own",
        "data": {"name": "digits", "classes": [0, 1], "samples": 0.3},
        "sampler": "mine:Own",
        "space": {"depth": [1, 2], "width": [2, 4]},
        "train": {"epochs": 1},
        "budget": {"trials": 1},
    }

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("optnas"), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )

    module.write_text(OWN.replace("RATE", "0.5").replace("NEWER", ""))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(file))
    assert command("run", "own.yaml").returncode == 0
    module.write_text(OWN.replace("RATE", "0.125").replace("NEWER", "newer: int = 3,"))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(file | {"budget": {"trials": 2}}))
    again = command("run", "own.yaml")
    assert again.returncode == 0, again.stderr
    line = "kept from when the study was made: sampler.rate 0.5 (now 0.125)\n"
    assert again.stderr.count(line) == 1
    storage = open_storage(f"sqlite:///{tmp_path}/own.db")
    record = optuna.load_study(study_name="own", storage=storage).user_attrs[RECORD]
    assert record["config"]["sampler"]["rate"] == 0.5
    assert record["config"]["sampler"]["newer"] == 3
    assert command("status", "own.yaml").returncode == 0


# A later version, for whole runs.


@pytest.fixture
def later_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Other defaults in blocks, and in a strategy."""
    models = (DataSettings, RetrainSettings, TrainSettings, StudyKeys, StudyFile)
    moved = {
        (TrainSettings, "lr"): 0.5,
        (TrainSettings, "batch_size"): 7,
        (DataSettings, "validation"): 0.5,
        (RetrainSettings, "epochs"): 7,
        (StudyKeys, "max_retries"): 1,
        (StudyFile, "max_retries"): 1,
    }
    before = {key: key[0].model_fields[key[1]].default for key in moved}

    def have(defaults: Mapping[Any, Any]) -> None:
        for (model, name), value in defaults.items():
            model.model_fields[name].default = value
        for model in models:
            model.model_rebuild(force=True)

    monkeypatch.setitem(EcoNASSampler.__init__.__kwdefaults__, "max_age", 2)
    have(moved)
    yield
    have(before)


@pytest.mark.usefixtures("later_version")
def test_the_later_version_has_other_defaults() -> None:
    new = study_from_dict(FILE)
    assert (new.train.lr, new.train.batch_size, new.data.validation) == (0.5, 7, 0.5)
    assert (new.retrain.epochs, new.max_retries) == (7, 1)
    assert new.sampler.options["max_age"] == 2


@pytest.mark.usefixtures("later_version")
@pytest.mark.skipif(not CASES.is_dir(), reason="the studies of version 0.1.0 are not here")
@pytest.mark.parametrize("name", ["macro_micro", "econas", "tpe_defaults"])
def test_studies_of_version_0_1_0_go_on_as_they_began(name: str, tmp_path: Path) -> None:
    for path in CASES.glob(f"{name}.*"):
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        copy(path, tmp_path / path.name)
    file = tmp_path / f"{name}.yaml"
    before = config_to_run(file)
    said = yaml.safe_load(file.read_text())
    assert (before.train.lr, before.data.validation) == (
        said.get("train", {}).get("lr", 0.025),
        None,
    )
    assert any(line.endswith(" (now 1)") for line in before.kept) != ("max_retries" in said)
    with pytest.warns(
        UserWarning, match="kept from when the study was made: .*data.validation null"
    ):
        outcome = optnas.run(file)
    expected = {
        line.split(" ", 1)[0]: line.split(" ", 1)[1]
        for line in (CASES / "expected.txt").read_text().splitlines()
    }[name]
    if expected != "any":
        assert outcome.best is not None
        assert json.loads(outcome.best.architecture.to_json()) == json.loads(expected)


# Studies made of others.


def test_variants_leave_open_what_their_file_leaves_open(tmp_path: Path) -> None:
    base = study_from_dict(FILE, tmp_path)
    one = variant(base, "x", train={"epochs": 3})
    made(tmp_path, {**one.written.keys}, sampler__initial=99, train__lr=0.5)
    again = config_to_run(variant(base, "x", train={"epochs": 3}))
    assert (again.sampler.options["initial"], again.train.lr) == (99, 0.5)
    same = variant(base, "x", sampler=base.resolved()["sampler"], train={"epochs": 3})
    assert config_to_run(same).sampler.options["initial"] == 99


def test_baselines_are_trained_as_the_search_was(tmp_path: Path) -> None:
    file = {"study": "old", "data": "digits", "sampler": "random", "space": "stage"}
    path = made(tmp_path, file, train__lr=0.5, data__samples=0.5)
    config = baselines_config(open_existing(str(path)))
    assert (config.train.lr, config.data.samples) == (0.5, 0.5)
    assert config_to_run(config).train.lr == 0.5
