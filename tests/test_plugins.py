import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import optuna
import pydantic
import pytest

from optnas.config.plugins import argument_docs, check_name, load, names, options_model
from optnas.extensions.importing import PluginError
from optnas.spaces import ChainSpace


class Example:
    """An example.

    More text: not an argument.

    Args:
        space: Supplied.
        step: Channels taken away
            in one step.
        width (tuple): Least and greatest; see :class:`~optuna.samplers.TPESampler`.

            A second paragraph.
        old:
            .. warning::
                Deprecated in v4.3.0.

    Raises:
        ValueError: Never.
    """

    def __init__(
        self,
        space: object,
        step: int = 2,
        *args: int,
        width: tuple[int, int] | None = None,
        operation: Literal["separable", "conv"] = "separable",
        gain: float = 0.5,
        seed: int = None,  # type: ignore[assignment]  # noqa: RUF013
        callback: Callable[[int], int] | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
        unknown: "Missing" = None,  # type: ignore[name-defined]  # noqa: F821
        sentinel: int = object(),  # type: ignore[assignment]
        old: bool = True,
        untyped=3,  # type: ignore[no-untyped-def]
        **kwargs: Any,
    ) -> None:
        pass


def fields_of(cls: type[Any], *exclude: str) -> set[str]:
    return set(options_model(cls, exclude).model_fields)


def test_names_are_those_of_the_entry_points_and_spaces() -> None:
    assert {"macro_micro", "random", "tpe", "nsgaii"} <= set(names("sampler"))
    assert {"none", "median", "hyperband"} <= set(names("pruner"))
    assert {"classification", "stage_classification"} <= set(names("objective"))
    assert {"chain", "cell", "nasbench201"} <= set(names("space"))


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("sampler", "tpe", optuna.samplers.TPESampler),
        ("sampler", "optuna.samplers:CmaEsSampler", optuna.samplers.CmaEsSampler),
        ("pruner", "none", optuna.pruners.NopPruner),
        ("space", "chain", ChainSpace),
        ("space", "optnas.spaces:ChainSpace", ChainSpace),
    ],
)
def test_load_by_name_and_by_reference(kind: Any, name: str, expected: type) -> None:
    assert load(kind, name) is expected


@pytest.mark.parametrize(
    ("kind", "name", "parts"),
    [
        ("sampler", "tep", ["unknown sampler 'tep'", "did you mean 'tpe'?", "randgrow, random, "]),
        ("sampler", "Macro-Micro", ["did you mean 'macro_micro'?"]),
        ("sampler", "zzzzzz", ["unknown sampler 'zzzzzz'. Known: baselines"]),
        ("space", "chian", ["did you mean 'chain'?"]),
        ("pruner", "medain", ["did you mean 'median'?"]),
        ("objective", "clasification", ["did you mean 'classification'?"]),
        ("sampler", "optuna.samplers:TPESamplr", ["did you mean 'TPESampler'?"]),
        ("sampler", "optuna.pruners:NopPruner", ["must be a subclass of", "BaseSampler"]),
        ("sampler", "optuna.samplers:__name__", ["must be a subclass of"]),
        ("pruner", "optnas_no_such_module:X", ["no module 'optnas_no_such_module'"]),
        ("pruner", "a b:X", ["not of the form `module:Name`"]),
        ("pruner", "optuna.pruners:", ["not of the form `module:Name`"]),
    ],
)
def test_load_refuses_with_the_nearest_name(kind: Any, name: str, parts: list[str]) -> None:
    with pytest.raises(PluginError) as caught:
        load(kind, name)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_modules_in_the_folder_are_found(tmp_path: Path) -> None:
    (tmp_path / "optnas_test_beside.py").write_text(
        "from optuna.samplers import RandomSampler\nclass Mine(RandomSampler): pass\n"
    )
    assert load("sampler", "optnas_test_beside:Mine", tmp_path).__name__ == "Mine"


def test_a_module_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "optnas_test_broken.py").write_text("1 / 0\n")
    with pytest.raises(PluginError, match="ZeroDivisionError: division by zero"):
        load("sampler", "optnas_test_broken:Mine", tmp_path)


def test_check_name_imports_nothing() -> None:
    check_name("objective", "classification")
    check_name("objective", "no_such_module:Thing")
    with pytest.raises(PluginError, match="did you mean 'classification'"):
        check_name("objective", "classificatio")


def test_argument_docs_reads_both_layouts() -> None:
    docs = argument_docs(Example)
    assert list(docs) == ["space", "step", "width", "old"]
    assert docs["step"] == "Channels taken away\nin one step."
    docs = argument_docs(optuna.samplers.TPESampler)
    assert docs["n_ei_candidates"].startswith("Number of candidate samples")
    assert argument_docs(object) == {}


def test_options_model_has_what_a_file_can_say() -> None:
    model = options_model(Example, exclude=("space",))
    assert list(model.model_fields) == ["step", "width", "operation", "gain", "seed"]
    assert model.model_fields["step"].description == "Channels taken away in one step."
    description = model.model_fields["width"].description
    assert description == "Least and greatest; see optuna.samplers.TPESampler."
    assert model.model_fields["gain"].description == "Option of Example."
    assert dict(model()) == {
        "step": 2,
        "width": None,
        "operation": "separable",
        "gain": 0.5,
        "seed": None,
    }


@pytest.mark.parametrize(
    "text",
    [
        '{"step": 1.0}',
        '{"step": "1"}',
        '{"step": true}',
        '{"gain": NaN}',
        '{"gain": -Infinity}',
        '{"gain": true}',
        '{"width": [1]}',
        '{"width": [1, 2, 3]}',
        '{"width": ["1", 2]}',
        '{"operation": "separabel"}',
        '{"stepp": 1}',
        '{"callback": null}',
        '{"args": []}',
    ],
)
def test_options_are_strict(text: str) -> None:
    model = options_model(Example, exclude=("space",))
    with pytest.raises(pydantic.ValidationError):
        model.model_validate_json(text)


def test_lists_are_tuples_and_integers_are_numbers() -> None:
    model = options_model(Example, exclude=("space",))
    options = dict(model.model_validate_json('{"width": [1, 2], "gain": 1}'))
    assert options["width"] == (1, 2)
    assert options["gain"] == 1.0


def test_options_of_optunas_own() -> None:
    tpe = fields_of(optuna.samplers.TPESampler, "seed")
    assert {"n_startup_trials", "multivariate", "constant_liar"} <= tpe
    assert tpe.isdisjoint({"gamma", "weights", "seed", "constraints_func", "consider_prior"})
    assert fields_of(optuna.samplers.NSGAIISampler, "seed") >= {"population_size"}
    assert fields_of(optuna.pruners.NopPruner) == set()
    for kind in ("sampler", "pruner"):
        for name in names(kind):  # type: ignore[arg-type]
            cls = load(kind, name)  # type: ignore[arg-type]
            if not cls.__module__.startswith("optuna."):
                continue
            model = options_model(cls)
            assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (optuna.samplers.GridSampler, "search_space"),
        (optuna.samplers.PartialFixedSampler, "base_sampler"),
        (optuna.pruners.PatientPruner, "wrapped_pruner"),
    ],
)
def test_constructors_that_need_more_than_a_file_can_say(cls: type, name: str) -> None:
    with pytest.raises(PluginError, match=f"{cls.__name__} cannot be used here: .* `{name}`"):
        options_model(cls)


class Objective:
    def __init__(self, images: list[int]) -> None:
        pass

    @classmethod
    def from_settings(cls, space: object, *, seed: int, smoothing: float = 0.1) -> "Objective":
        return cls([seed])


def test_objectives_have_the_options_of_from_settings() -> None:
    assert fields_of(Objective, "space", "seed") == {"smoothing"}


def test_importing_is_cheap() -> None:
    code = (
        "import sys, optnas.config.plugins, optnas.config.file, optnas.config.schema\n"
        "assert 'optuna' not in sys.modules, 'optuna'\n"
        "optnas.config.plugins.check_name('objective', 'classification')\n"
        "optnas.config.file.study_from_dict({'study': 'a', 'data': 'digits', 'sampler': 'tpe'})\n"
        "optnas.config.schema.schema()\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
