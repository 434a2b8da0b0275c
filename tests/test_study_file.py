import json
import re
from pathlib import Path
from typing import Any

import optuna
import pytest

from optnas.config import plugins
from optnas.config.file import StudyFile, from_resolved, load_study_file, study_from_dict
from optnas.config.messages import StudyFileError
from optnas.config.schema import schema
from optnas.config.stored import differences, identity_of, references
from optnas.config.template import template
from optnas.spaces import ChainSpace

STRATEGY = '''
from optnas.spaces import ChainSpace
from optuna.samplers import RandomSampler


class Strategy(RandomSampler):
    """A strategy that chooses the epochs.

    Args:
        width_step: Channels taken away in one step.
        epochs: Epochs of the first candidate.
    """

    sets_epochs = True

    def __init__(self, space, *, in_channels: int, classes: int, width_step: int = 2,
                 epochs: int = 10, max_retries: int = 5, seed: int | None = None):
        if width_step < 1:
            raise ValueError("`width_step` must be greater than or equal to 1.")
        super().__init__(seed)
        self.arguments = (space, in_channels, classes, width_step, epochs, max_retries, seed)


class Picky(RandomSampler):
    sets_epochs = True

    def __init__(self, space, seed: int | None = None):
        if isinstance(space, ChainSpace):
            raise TypeError("Picky cannot search a ChainSpace; it needs a CellSpace.")


class Broken(RandomSampler):
    def __init__(self, seed: int | None = None):
        raise RuntimeError("no licence")
'''

SMALLEST = "study: digits\nsampler: random\ndata: digits\n"
OURS = "study: digits\nsampler: optnas_test_strategy:Strategy\ndata: digits\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "optnas_test_strategy.py").write_text(STRATEGY)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def load(folder: Path, text: str | bytes) -> StudyFile:
    return load_study_file(write(folder, text))


def refusal(folder: Path, text: str | bytes) -> str:
    """The message without the folder."""
    before = sorted(folder.rglob("*.*"))
    with pytest.raises(StudyFileError) as caught:
        load(folder, text)
    created = set(folder.rglob("*.*")) - {*before, folder / "study.yaml"}
    assert not {path for path in created if path.suffix != ".pyc"}
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder}/")


CHOICES = {"kernels": [3, 5], "width_step": 2, "operations": ["separable", "conv"]}
"""What the chain's layers and widths choose from by default, as in the paper."""


def test_the_smallest_file_has_every_default(folder: Path) -> None:
    study = load(folder, SMALLEST)
    assert study.study == "digits"
    assert study.storage == f"sqlite:///{folder}/digits.db"
    assert study.artifacts == f"{folder}/digits.artifacts"
    assert study.folder == folder
    assert study.space.options == {
        **{"depth": [10, 100], "width": [16, 64], "preset": "tiny"},
        **CHOICES,
    }
    assert study.pruner.name == "none"
    assert study.objective.name == "classification"
    assert study.train.epochs == 20
    assert study.retrain.epochs == 600
    assert study.budget.model_dump() == {"trials": None, "epochs": None, "hours": None}
    assert study.max_retries == 5
    assert study.seed is None


def test_a_full_file(folder: Path) -> None:
    study = load(
        folder,
        """
study: fashion-tiny
storage: postgresql+psycopg://optnas:secret@db/optnas
artifacts: checkpoints
seed: 0
space: {name: chain, preset: mobile, depth: [5, 20]}
sampler: {name: optnas_test_strategy:Strategy, width_step: 4}
pruner: {name: hyperband, max_resource: 20}
data: {name: fashion_mnist, root: data, validation: 5000, augment: [crop, flip], samples: 1}
train: {lr: 1, weight_decay: 3e-4, deterministic: true}
retrain: {epochs: 10}
budget: {trials: 200, hours: 12}
limits: {params: 500_000}
max_retries: 0
""",
    )
    assert study.space.options == {
        **{"depth": [5, 20], "width": [16, 128], "preset": "mobile"},
        **CHOICES,
    }
    assert study.sampler.options == {"width_step": 4, "epochs": 10}
    assert study.pruner.options["max_resource"] == 20
    assert study.data.augment == ("crop", "flip")
    assert study.data.root == str(folder / "data")
    assert study.data.samples == 1.0
    assert study.train.weight_decay == 3e-4
    assert study.train.epochs is None
    assert study.limits.params == 500_000
    assert study.budget.hours == 12.0
    assert study.artifacts.endswith("/checkpoints")
    assert "secret" not in json.dumps(study.resolved())
    assert "secret" not in repr(study)


def test_empty_blocks_and_blocks_without_a_name_have_defaults(folder: Path) -> None:
    study = load(folder, SMALLEST + "train:\nbudget:\nspace: {depth: [3, 4]}\n")
    assert study.train.batch_size == 64
    assert study.space.name == "chain"
    assert study.space.options["depth"] == [3, 4]


# One entry per mistake: what is added to OURS (three lines) and the whole message or its start.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("budgett: 1", "study.yaml:4: budgett: unknown key; did you mean 'budget'? Valid keys: "),
        (
            "train: {optimiser: sgd}",
            "study.yaml:4: train.optimiser: unknown key; did you mean 'optimizer'? Valid keys: ",
        ),
        (
            "limits: {parms: 1}",
            "study.yaml:4: limits.parms: unknown key; did you mean 'params'? "
            "Valid keys: params, multiply_adds",
        ),
        ("retrain: {zzz: 1}", "study.yaml:4: retrain.zzz: unknown key. Valid keys: epochs"),
        # Known, but elsewhere, or by another name.
        ("trials: 3", "study.yaml:4: trials: unknown key; did you mean 'budget.trials'? "),
        (
            "lr: 0.1",
            "study.yaml:4: lr: unknown key; did you mean 'train.lr' or 'retrain.lr'? Valid keys: ",
        ),
        (
            "train: {learning_rate: 1}",
            "study.yaml:4: train.learning_rate: unknown key; did you mean 'lr'? ",
        ),
        (
            "space: {name: chain, deph: [1, 2]}",
            "study.yaml:4: space.deph: unknown key; did you mean 'depth'? "
            "Valid keys: name, depth, width, preset",
        ),
        ("pruner: {name: none, x: 1}", "study.yaml:4: pruner.x: unknown key. Valid keys: name"),
        ("data: kmnist", "study.yaml:4: data: repeated key, on lines 3 and 4; keep one of them"),
        (
            "train:\n  lr: 0.1\n  epochs: 1\n  lr: 0.2",
            "study.yaml:7: train.lr: repeated key, on lines 5 and 7; keep one of them",
        ),
        ("seed: x", "study.yaml:4: seed: expected an integer (found 'x')"),
        ("seed: -1", "study.yaml:4: seed: expected at least 0 (found -1)"),
        ("seed: 1.0", "study.yaml:4: seed: expected an integer (found 1.0)"),
        ("max_retries: true", "study.yaml:4: max_retries: expected an integer (found true)"),
        ("max_retries:", "study.yaml:4: max_retries: expected an integer (found null)"),
        ("train: {lr: .nan}", "study.yaml:4: train.lr: expected a finite number (found NaN)"),
        (
            "budget: {hours: .inf}",
            "study.yaml:4: budget.hours: expected a finite number (found Infinity)",
        ),
        ("budget: {trials: 0}", "study.yaml:4: budget.trials: expected at least 1 (found 0)"),
        (
            "train: {momentum: 1}",
            "study.yaml:4: train.momentum: expected a number less than 1.0 (found 1)",
        ),
        (
            "train: {optimizer: sdg}",
            "study.yaml:4: train.optimizer: expected 'sgd' or 'adamw' (found 'sdg'); "
            "did you mean 'sgd'?",
        ),
        (
            "train: {deterministic: yes}",
            "study.yaml:4: train.deterministic: expected true or false (found 'yes')",
        ),
        ("train: [1]", "study.yaml:4: train: expected a mapping of keys (found [1])"),
        ("space: 3", "study.yaml:4: space: expected a name or a mapping of keys (found 3)"),
        ("pruner:", "study.yaml:4: pruner: expected a name or a mapping of keys (found null)"),
        (
            "space:\n  depth: [100, 10]",
            "study.yaml:5: space.depth: `depth` must be two integers, the least and the greatest",
        ),
        ("space: {width: [0, 9]}", "study.yaml:4: space.width: `width` must be two integers"),
        ("space: {width: 0}", "study.yaml:4: space.width: expected a list (found 0)"),
        (
            "space: {depth: [10]}",
            "study.yaml:4: space.depth: expected a list of at least 2 values (found [10])",
        ),
        (
            "space: {depth: [1, 2, 3]}",
            "study.yaml:4: space.depth: expected a list of at most 2 values (found [1, 2, 3])",
        ),
        (
            "space: {depth: [1, a]}",
            "study.yaml:4: space.depth[1]: expected an integer (found 'a')",
        ),
        ("space: {preset: huge}", "study.yaml:4: space.preset: `preset` must be one of"),
        ("space: chian", "study.yaml:4: space: unknown space 'chian'; did you mean 'chain'?"),
        (
            "space:\n  name: chian",
            "study.yaml:5: space.name: unknown space 'chian'; did you mean 'chain'?",
        ),
        (
            "pruner: medain",
            "study.yaml:4: pruner: unknown pruner 'medain'; did you mean 'median'?",
        ),
        (
            "pruner: {name: hyperband, min_resource: x}",
            "study.yaml:4: pruner.min_resource: expected an integer (found 'x')",
        ),
        (
            "pruner: {name: hyperband, max_resource: x}",
            "study.yaml:4: pruner.max_resource: The 'max_resource' should be integer or 'auto'",
        ),
        (
            "objective: clasification",
            "study.yaml:4: objective: unknown objective 'clasification'; "
            "did you mean 'classification'?",
        ),
        (
            "train:\n  epochs: 3",
            "study.yaml:5: train.epochs: the sampler 'optnas_test_strategy:Strategy' chooses each "
            "candidate's epochs; use `sampler.epochs` instead (found 3)",
        ),
        (
            "storage: postgrsql://u:secret@h/d",
            "study.yaml:4: storage: unknown kind of storage 'postgrsql://'; "
            "did you mean 'postgresql://'?",
        ),
        ("storage: study.db", "study.yaml:4: storage: expected a URL, such as 'sqlite:///"),
        ("storage: 'sqlite:///:memory:'", "study.yaml:4: storage: a database in memory is lost"),
        ("storage: sqlite://", "study.yaml:4: storage: a database in memory is lost"),
        ("storage: sqlite://x.db", "study.yaml:4: storage: a URL of a file needs three slashes"),
        ("storage: sqlite:///a?b.db", "study.yaml:4: storage: a path cannot begin with 'file:'"),
        ("storage: sqlite:///file:a?uri=true", "study.yaml:4: storage: a path cannot begin"),
        ('storage: "sqlite:///a\\0.db"', "study.yaml:4: storage: a name in a path has 1 to 255"),
        (f"storage: journal:///{'a' * 256}", "study.yaml:4: storage: a name in a path has 1 to"),
        ('artifacts: "a\\0"', "study.yaml:4: artifacts: a name in a path has 1 to 255 bytes"),
        (
            "artifacts: s3://x",
            "study.yaml:4: artifacts: expected a folder that every worker can write",
        ),
        ("artifacts: ''", "study.yaml:4: artifacts: expected a string of at least 1 character"),
    ],
)
def test_mistakes_in_a_block(folder: Path, text: str, expected: str) -> None:
    message = refusal(folder, OURS + text + "\n")
    assert message.startswith(expected), message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {cycles: 3}", "train.cycles: `cycles` must divide the 20 epochs: 3."),
        ("train: {epochs: 9, cycles: 2}", "train.cycles: `cycles` must divide the 9 epochs: 2."),
        (
            "train: {cycles: 2}\nproxy: c0r0s1e5",
            "train.cycles: `cycles` must divide the 5 epochs: 2.",
        ),
        (
            "train: {cycles: 2, schedule: constant}",
            "train.cycles: `cycles` are for the cosine schedule, not 'constant'.",
        ),
        (
            "sampler: macro_micro\ntrain: {cycles: 2}",
            "train.cycles: the sampler 'macro_micro' chooses each candidate's epochs; remove this "
            "key (found 2)",
        ),
        ("retrain: {cycles: 7}", "retrain.cycles: `cycles` must divide the 600 epochs: 7."),
        (
            "train: {initial_epochs: 9}",
            "train.initial_epochs: in this study no network starts from another's weights; remove "
            "this key",
        ),
    ],
)
def test_mistakes_about_cycles(folder: Path, text: str, expected: str) -> None:
    sampler = "" if "sampler" in text else "sampler: random\n"
    message = refusal(folder, f"study: a\ndata: digits\n{sampler}{text}\n")
    assert message == f"study.yaml:4: {expected}"


@pytest.mark.parametrize(
    "text",
    [
        "retrain: {compile: true, drop_path: 0.2}",
        "retrain: {compile: true}\ntrain: {auxiliary: 0.4}",  # Which retraining takes over.
    ],
)
def test_what_cannot_be_compiled_is_refused_before_the_search(folder: Path, text: str) -> None:
    message = refusal(folder, f"study: a\ndata: digits\nspace: cell\nsampler: random\n{text}\n")
    rule = "`compile` must be false with `drop_path` and with `auxiliary`."
    assert message == f"study.yaml:5: retrain.compile: {rule}"


def test_the_final_training_has_one_cycle_whatever_the_search_has(folder: Path) -> None:
    text = "study: a\ndata: digits\nsampler: random\ntrain: {epochs: 20, cycles: 2, lr: 0.5}\n"
    study = load(folder, text)
    recipe = study.retrain.recipe(study.train)
    assert (recipe.cycles, recipe.epochs, recipe.lr) == (1, 600, 0.5)
    study = load(folder, text + "retrain: {epochs: 8, cycles: 4, lr: 0.1}\n")
    recipe = study.retrain.recipe(study.train)
    assert (recipe.cycles, recipe.epochs, recipe.lr) == (4, 8, 0.1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "study.yaml: the file is empty; `optnas init`"),
        ("# only a comment\n", "study.yaml: the file is empty; `optnas init`"),
        ("- study", "study.yaml:1: expected keys and values such as 'study: digits' (found "),
        ("digits", "study.yaml:1: expected keys and values such as 'study: digits' (found "),
        ("a: b: c", "study.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a: 1\n\tb: 2", "study.yaml:2: a tab; indent and separate with spaces"),
        ("a: 'x", "study.yaml:1: not valid YAML: found unexpected end of stream"),
        ("a: 1\n---\nb: 2", "study.yaml:2: not valid YAML: but found another document"),
        (b"a: 1\nb: \xff\xfe", "study.yaml:2: not UTF-8 text; save the file as UTF-8"),
        ("study: ü\n".encode("utf-16"), "study.yaml:1: not UTF-8 text; save the file as UTF-8"),
        (b"a: 1\nb: \x00", "study.yaml:2: a control character, so not a text file"),
        ("a: &x [1]\nb: *x", "study.yaml:1: anchors (&) and aliases (*) are not supported"),
        ("a: 1\nb: *x", "study.yaml:2: anchors (&) and aliases (*) are not supported"),
        ("[" * 10_000, "study.yaml:1: nested more than 20 levels deep"),
        ("a: {" * 10_000, "study.yaml:1: nested more than 20 levels deep"),
        ("a: " + "x" * (1 << 20), "study.yaml: larger than 64 KiB, so not a study file"),
        ("study: a\n1: 2", "study.yaml:2: every key must be a string (found 1)"),
        ("train: {true: 2}", "study.yaml:1: train: every key must be a string (found true)"),
        ("? [a]\n: 1", "study.yaml:1: every key must be a string (found a collection)"),
        ("a: !!python/object:os.x 1", "study.yaml:1: a: the tag "),
        ("a: !!int x", "study.yaml:1: a: not int as YAML writes it (found 'x')"),
        ("seed: " + "9" * 5000, "study.yaml:1: seed: not int as YAML writes it"),
        ("sudy: a\ndata: digits", "study.yaml:1: sudy: unknown key; did you mean 'study'?"),
        ("data: digits", "study.yaml:1: study: this key is required. The study's name"),
        ("\n\nstudy: a", "study.yaml:3: data: this key is required. The images to learn"),
        ("study: a\ndata: {root: x}", "study.yaml:2: data.name: this key is required."),
        ("study: a\ndata: {nam: x}", "study.yaml:2: data.nam: unknown key; did you mean 'name'?"),
        ("study:\ndata: digits", "study.yaml:1: study: expected a string (found null)"),
        ("study: 5\ndata: digits", "study.yaml:1: study: expected a string (found 5)"),
        ("study: ''\ndata: digits", "study.yaml:1: study: expected a string of at least 1 char"),
        ("study: a/b\ndata: digits", "study.yaml:1: study: expected a name without control char"),
        ('study: "\\ud800"\ndata: digits', "study.yaml:1: study: expected text without lone surr"),
        ('study: "a\\nb"\ndata: digits', "study.yaml:1: study: expected a name without control"),
        (f"study: {'a' * 201}\ndata: digits", "study.yaml:1: study: expected a string of at most"),
        (f"study: {'ü' * 150}\ndata: digits", "study.yaml:1: study: expected at most 200 bytes"),
        ("study: a\ndata: digts", "study.yaml:2: data: unknown data set 'digts'; did you mean 'd"),
        (
            "study: a\ndata:\n  name: mnits",
            "study.yaml:3: data.name: unknown data set 'mnits'; did you mean 'kmnist'?",
        ),
        (
            "study: a\ndata: {name: digits, validation: tset}",
            "study.yaml:2: data.validation: expected an integer or a number or 'test' "
            "(found 'tset'); did you mean 'test'?",
        ),
        (
            "study: a\ndata:\n  name: digits\n  augment:\n    - crop\n    - filp",
            "study.yaml:6: data.augment[1]: expected 'crop', 'flip', 'cutout', 'resized_crop' or "
            "'jitter' (found 'filp'); "
            "did you mean 'flip'?",
        ),
        ("study: a\ndata: digits\nsampler: tep", "study.yaml:3: sampler: unknown sampler 'tep'"),
        (
            "study: a\ndata: digits\nsampler: optuna.samplers:GridSampler",
            "study.yaml:3: sampler: GridSampler cannot be used here: its constructor needs "
            "`search_space`",
        ),
        (
            "study: a\ndata: digits\nsampler: {name: nsgaii, population_size: 1}",
            "study.yaml:3: sampler.population_size: `population_size` must be greater than or "
            "equal to 2 (found 1)",
        ),
        (
            "study: a\ndata: digits\nsampler:\n  name: optnas_test_strategy:Strategy\n"
            "  width_step: 0",
            "study.yaml:5: sampler.width_step: `width_step` must be greater than or equal to 1 "
            "(found 0)",
        ),
        (
            "study: a\ndata: digits\nsampler:\n  name: optnas_test_strategy:Strategy\n"
            "  width_stp: 1",
            "study.yaml:5: sampler.width_stp: unknown key; did you mean 'width_step'? "
            "Valid keys: name, width_step, epochs",
        ),
        (
            "study: a\ndata: digits\nsampler: {name: tpe, seed: 1}",
            "study.yaml:3: sampler.seed: unknown key",
        ),
        (
            "study: a\ndata: digits\nsampler: optnas_test_strategy:Picky",
            "study.yaml:3: sampler: Picky cannot search a ChainSpace; it needs a CellSpace.",
        ),
        (
            "study: a\ndata: digits\nsampler: optnas_test_strategy:Broken",
            "study.yaml:3: sampler: cannot be made: RuntimeError: no licence",
        ),
        (
            "study: a\ndata: digits\nsampler: optnas_test_strategy:Pick",
            "study.yaml:3: sampler: the module 'optnas_test_strategy' has no 'Pick'; "
            "did you mean 'Picky'?",
        ),
    ],
)
def test_mistakes_in_a_file(folder: Path, text: str | bytes, expected: str) -> None:
    message = refusal(folder, text)
    assert message.startswith(expected), message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"none\.yaml: no such file; `optnas init`"):
        load_study_file(tmp_path / "none.yaml")
    with pytest.raises(StudyFileError, match="expected a file, but this is a folder"):
        load_study_file(tmp_path)
    with pytest.raises(StudyFileError, match="cannot be read"):
        load_study_file("a\0b")


def test_a_byte_order_mark_and_windows_lines_are_fine(folder: Path) -> None:
    text = "\ufeff" + SMALLEST.replace("\n", "\r\n")
    assert load(folder, text).study == "digits"


@pytest.mark.parametrize("name", ["no", "off", "None", "12:30", "2020-01-01", "1e5x", "ü"])
def test_words_that_old_yaml_converted_are_strings(folder: Path, name: str) -> None:
    assert load(folder, f"study: {name}\nsampler: random\ndata: digits").study == name


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("sqlite:///x.db", "sqlite:///{folder}/x.db"),
        ("sqlite:///sub/../x.db?timeout=9", "sqlite:///{folder}/x.db?timeout=9"),
        ("sqlite+pysqlite:////abs/x.db", "sqlite+pysqlite:////abs/x.db"),
        ("journal:///x.log", "journal:///{folder}/x.log"),
        ("mysql+pymysql://u@h/d", "mysql+pymysql://u@h/d"),
        ("grpc://localhost:13000", "grpc://localhost:13000"),
    ],
)
def test_storage_paths_start_beside_the_file(folder: Path, storage: str, expected: str) -> None:
    study = load(folder, SMALLEST + f"storage: {storage}")
    assert study.storage == expected.format(folder=folder)


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("sqlite:////abs/x.db", "/abs/digits.artifacts"),
        ("journal:///sub/x.log", "{folder}/sub/digits.artifacts"),
        ("postgresql://u@h/d", "{folder}/digits.artifacts"),
    ],
)
def test_artifacts_lie_beside_the_storage(folder: Path, storage: str, expected: str) -> None:
    study = load(folder, SMALLEST + f"storage: {storage}")
    assert study.artifacts == expected.format(folder=folder)


def test_a_name_that_is_no_file_name_has_a_storage(folder: Path) -> None:
    study = load(folder, "study: 'who? me:*'\nsampler: random\ndata: digits")
    assert study.storage == f"sqlite:///{folder}/who_ me__.db"


def test_relative_files_and_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, SMALLEST)
    monkeypatch.chdir(folder)
    assert load_study_file("study.yaml").storage == f"sqlite:///{folder}/digits.db"
    study = study_from_dict({"study": "digits", "sampler": "random", "data": "digits"})
    assert study == load_study_file("study.yaml")


def test_data_and_plugins_of_ones_own(folder: Path) -> None:
    study = load(folder, OURS.replace("data: digits", "data: my_data:load"))
    assert study.data.name == "my_data:load"
    space = study.make_space()
    sampler: Any = study.make_sampler(space, in_channels=1, classes=7, seed=3)
    assert sampler.arguments == (space, 1, 7, 2, 10, 5, 3)


def test_makers_give_what_the_file_says(folder: Path) -> None:
    study = load(
        folder,
        "study: a\ndata: digits\nspace: {width: [4, 8]}\npruner: {name: median}\n"
        "sampler: {name: nsgaii, population_size: 7}\n",
    )
    space = study.make_space()
    assert isinstance(space, ChainSpace)
    assert space.width == (4, 8)
    sampler = study.make_sampler(space, in_channels=1, classes=2, seed=0)
    assert isinstance(sampler, optuna.samplers.NSGAIISampler)
    assert isinstance(study.make_pruner(), optuna.pruners.MedianPruner)


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"study": "a", "data": "digts"}, "data: unknown data set 'digts'"),
        ({"study": "a", "data": "digits", "train": {"lr": "x"}}, "train.lr: expected a number"),
        ({"study": "a", "data": {1: 2}}, "data: every key must be a string (found 1)"),
        ({"study": "a", "data": {"name": object}}, "data.name: expected a string, a number"),
        ([], "expected keys and values"),
    ],
)
def test_python_values_get_the_same_messages(mapping: Any, expected: str, folder: Path) -> None:
    with pytest.raises(StudyFileError) as caught:
        study_from_dict(mapping, folder)
    assert str(caught.value).startswith(expected)


def test_python_values_that_yaml_does_not_have(folder: Path) -> None:
    data = {"name": "digits", "root": folder / "x", "augment": ("crop",)}
    study = study_from_dict({"study": "a", "sampler": "random", "data": data}, folder)
    assert study.data.root == str(folder / "x")
    assert study.data.augment == ("crop",)
    endless: dict[str, Any] = {}
    endless["train"] = endless
    with pytest.raises(StudyFileError, match="nested more than"):
        study_from_dict(endless, folder)


@pytest.mark.parametrize("text", [SMALLEST, OURS, SMALLEST + "space: {preset: mobile}\nseed: 4"])
def test_resolved_rebuilds_the_study(folder: Path, text: str) -> None:
    study = load(folder, text)
    stored = json.loads(json.dumps(study.resolved()))
    assert "storage" not in stored
    again = from_resolved(stored, study.storage, references(stored).values())
    assert again == study
    assert again.resolved() == stored
    assert identity_of(stored) == study.identity()


def test_a_stored_configuration_that_does_not_fit(folder: Path) -> None:
    study = load(folder, SMALLEST)
    stored = study.resolved()
    stored["train"]["lrr"] = 1
    with pytest.raises(
        StudyFileError, match=r"^the stored configuration: train\.lrr: unknown key"
    ):
        from_resolved(stored, study.storage)
    with pytest.raises(StudyFileError, match=r"^the stored configuration: folder: expected a str"):
        from_resolved({}, study.storage)
    with pytest.raises(
        StudyFileError, match=r"^the stored configuration: storage: expected a URL"
    ):
        from_resolved(study.resolved(), "study.db")


def test_identity_leaves_out_what_may_change(folder: Path) -> None:
    before = load(folder, SMALLEST).identity()
    more = "storage: sqlite:///y.db\nartifacts: y\nbudget: {trials: 3}\nretrain: {epochs: 1}\n"
    changed = load(
        folder,
        SMALLEST.replace("data: digits", "data: {name: digits, root: z, download: true}")
        + more
        + "max_retries: 1\n",
    )
    assert differences(before, changed.identity()) == []
    spelled = load(folder, SMALLEST + "space: {depth: [10, 100]}\ntrain: {lr: 0.025}\n")
    assert spelled.identity() == before


def test_differences_name_the_key_and_both_values(folder: Path) -> None:
    stored = load(folder, OURS).identity()
    text = OURS.replace(
        "sampler: optnas_test_strategy:Strategy",
        "sampler: {name: optnas_test_strategy:Strategy, epochs: 12}",
    )
    new = load(folder, text + "space: {depth: [10, 50]}\nseed: 1\n").identity()
    assert differences(stored, new) == [
        "seed: stored null, file says 1",
        "space.depth: stored [10, 100], file says [10, 50]",
        "sampler.epochs: stored 10, file says 12",
    ]
    lines = differences(stored, load(folder, SMALLEST).identity())
    assert "sampler.name: stored optnas_test_strategy:Strategy, file says random" in lines
    assert "sampler.width_step: stored 2, not in the file" in lines
    assert "train.epochs: stored null, file says 20" in lines
    assert differences({}, {"a": {"b": 1}}) == ["a.b: not stored, file says 1"]


def nodes(value: Any) -> list[dict[str, Any]]:
    children = value.values() if isinstance(value, dict) else value
    inner = children if isinstance(value, (dict, list)) else []
    return [
        *([value] if isinstance(value, dict) else []),
        *(n for child in inner for n in nodes(child)),
    ]


def test_the_schema_describes_every_key() -> None:
    result = json.loads(json.dumps(schema()))
    assert result["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(result["required"]) == {"study"}
    assert set(result["properties"]) == set(StudyFile.model_fields)
    for node in nodes(result):
        for key, value in node.get("properties", {}).items():
            assert value.get("description"), key
        if "$ref" in node:
            assert node["$ref"].removeprefix("#/$defs/") in result["$defs"]


def test_the_schema_knows_names_and_options() -> None:
    properties = schema()["properties"]
    sampler, objects = properties["sampler"]["anyOf"][0], properties["sampler"]["anyOf"][1:]
    assert sampler["anyOf"][0]["enum"] == plugins.names("sampler")
    options = {item["properties"]["name"].get("const"): item for item in objects}
    assert "n_startup_trials" in options["tpe"]["properties"]
    assert options["tpe"]["required"] == ["name"]
    assert options["tpe"]["additionalProperties"] is False
    deep = [i for i in properties["space"]["anyOf"] if "depth" in i.get("properties", {})]
    (chain,) = [i for i in deep if i["properties"]["name"]["const"] == "chain"]
    assert "required" not in chain
    assert properties["data"]["anyOf"][0]["anyOf"][0]["enum"] == plugins.names("data")


@pytest.mark.parametrize("data", [*plugins.names("data"), "my_data:load"])
@pytest.mark.parametrize("sampler", ["macro_micro", "tpe", "optnas_test_strategy:Strategy"])
def test_the_template_loads(folder: Path, data: str, sampler: str) -> None:
    text = template("my study: 1", data, sampler)
    study = load(folder, text)
    assert (study.study, study.data.name, study.sampler.name) == ("my study: 1", data, sampler)
    smallest = study_from_dict({"study": "my study: 1", "data": data, "sampler": sampler}, folder)
    assert study == smallest
    # What is commented out is the default, so that taking a '#' away changes nothing.
    everything = re.sub(r"^( *)#(?=\w)", r"\1", text, flags=re.MULTILINE)
    assert everything.count("#") < text.count("#")
    assert load(folder, everything) == smallest


@pytest.mark.parametrize("study", ["true", "007", "a: b", "# x", '"', "ü 🙂", "null", "1e3", "-"])
def test_the_template_quotes_names(folder: Path, study: str) -> None:
    assert load(folder, template(study, "digits", "random")).study == study


def test_the_template_needs_a_known_sampler() -> None:
    with pytest.raises(plugins.PluginError, match="did you mean 'tpe'"):
        template("a", "digits", "tep")
