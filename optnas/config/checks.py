"""The checks of a study file that look beyond one key: names, plugins' options, contradictions."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from optnas.config import plugins
from optnas.config.contract import Strategy, objective_class, pruning_of, spelled_out, strategy_of
from optnas.config.keys import (
    DEFAULT_EPOCHS,
    OPTIONAL_BLOCKS,
    PLUGINS,
    SUPPLIED,
    Choice,
    StudyKeys,
)
from optnas.config.messages import Source, found, problem
from optnas.config.paths import absolute
from optnas.config.plugins import Kind
from optnas.config.settings import TrainSettings, check_compile, check_cycles
from optnas.config.yaml import KeyPath
from optnas.extensions.importing import REFERENCE, PluginError, unknown

M = TypeVar("M", bound=pydantic.BaseModel)

_LARGEST = 1 << 63
"""No database stores such a number, and no tensor."""
BLOCKS = (*PLUGINS, "data")
"""The blocks that a name alone may stand for."""


def expand(
    data: Mapping[str, Any], stored: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], frozenset[str]]:
    """``data`` with every block as a mapping with its name, and the keys that were only a name.

    Args:
        data: What was written.
        stored: The configuration whose names stand for those that were not written, instead of
            the defaults.
    """
    expanded = dict(data)
    shorthand = frozenset(key for key in BLOCKS if isinstance(data.get(key), str))
    expanded.update((key, {"name": data[key]}) for key in shorthand)
    expanded.update((key, {}) for key in OPTIONAL_BLOCKS if key in data and data[key] is None)
    for key in PLUGINS:
        if isinstance(data.get(key), dict):
            default = (
                StudyKeys.model_fields[key].default.name if stored is None else stored[key]["name"]
            )
            expanded[key] = {"name": default, **data[key]}
    return expanded, shorthand


def validated(model: type[M], data: Any, source: Source, prefix: KeyPath = ()) -> M:
    """``data`` as a ``model``: strict, but as JSON, where lists are tuples.

    Raises:
        StudyFileError: If something is wrong, about the first thing that is.
    """
    for path, number in _integers(data):
        if abs(number) >= _LARGEST:
            text = f"expected a number between -2**63 and 2**63 {found(number)}"
            raise source.error((*prefix, *path), text)
    try:
        return model.model_validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        path, text = problem(error, data, model)
        if path in {(key,) for key in BLOCKS} and not prefix and path[0] in data:
            text = f"expected a name or a mapping of keys {found(data[str(path[0])])}"
        raise source.error((*prefix, *path), text) from None


def _integers(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    """The integers that are written anywhere, and where."""
    if isinstance(data, int):
        yield path, data
    entries = data.items() if isinstance(data, Mapping) else ()
    for key, value in enumerate(data) if isinstance(data, list) else entries:
        yield from _integers(value, (*path, key))


def check_data(study: StudyKeys, source: Source) -> None:
    """Refuse a data set that is neither known nor ``module:function``, and none at all."""
    if study.data is None:
        return  # Whether the objective needs one is asked when its name has been checked.
    name = study.data.name
    known = plugins.names("data")
    if name not in known and not REFERENCE.fullmatch(name):
        text = unknown("data set", name, known, hint=" (or `module:function`)")
        raise source.error(("data", "name"), text)


def checked_plugins(study: StudyKeys, folder: Path, source: Source) -> dict[str, Any]:
    """Construct everything once, before any data is touched, to have bad options refused.

    Returns:
        The fields of ``study`` with the plugins' defaults spelled out, and the epochs.

    Raises:
        StudyFileError: If a plugin does not exist, or refuses its options or the space.
    """
    check = _PluginCheck(folder, source)
    space_choice, space = check("space", study.space)
    # Sizes as of small colour images: only to see whether the options are good.
    stand_ins: dict[str, Any] = {"in_channels": 3, "classes": 10, "seed": None}
    if study.seed is not None:
        stand_ins["seed"] = study.seed % 2**32  # Optuna's own samplers take no more.
    stand_ins["max_retries"] = study.max_retries
    sampler_choice, sampler = check("sampler", study.sampler, {"space": space, **stand_ins})
    pruner_choice, pruner = check("pruner", study.pruner)
    strategy = strategy_of(sampler)
    inherits = space.inherits or (strategy.inherits and not strategy.sets_epochs)
    if study.train.initial_epochs is not None and not inherits:
        text = "in this study no network starts from another's weights; remove this key"
        raise source.error(("train", "initial_epochs"), text)
    train = _checked_epochs(study, sampler_choice, strategy, source)
    final = study.retrain.recipe(train)
    _check_cycles("retrain", final, study.retrain.epochs, source)
    if study.retrain.compile:
        try:
            check_compile(final)
        except ValueError as error:
            raise source.error(("retrain", "compile"), str(error)) from None
    whole = pruning_of(pruner).whole_training
    if None not in (whole, train.epochs) and train.epochs != whole:
        key = "epochs" if pruner_choice.options.get("first") is None else "first"
        text = f"this pruner is for trainings of {whole} epochs, not {train.epochs}"
        raise source.error(("pruner", key), f"{text}: change this key or train.epochs")
    return {
        "space": _spelled_out(space_choice, space),
        "sampler": sampler_choice,
        "pruner": pruner_choice,
        "objective": _checked_objective(study, strategy.needs_objective, check),
        "train": train,
    }


class _PluginCheck:
    def __init__(self, folder: Path, source: Source) -> None:
        self.folder = folder
        self.source = source

    def model(self, kind: Kind, choice: Choice) -> tuple[type[Any], plugins.Options]:
        try:
            cls = plugins.load(kind, choice.name, self.folder)
            model = plugins.options_model(cls, SUPPLIED[kind])
        except PluginError as error:
            raise self.source.error((kind, "name"), str(error)) from error
        return cls, validated(model, choice.options, self.source, (kind,))

    def __call__(
        self, kind: Kind, choice: Choice, supplied: Mapping[str, Any] | None = None
    ) -> tuple[Choice, Any]:
        cls, options = self.model(kind, choice)
        try:
            with warnings.catch_warnings():
                # The construction that counts will warn.
                warnings.simplefilter("ignore")
                instance = cls(**plugins.accepted(cls, supplied or {}), **dict(options))
        except Exception as error:
            raise self._refused(kind, options, error) from error
        return _with_options(choice, options), instance

    def _refused(self, kind: Kind, options: plugins.Options, error: Exception) -> Exception:
        """The constructor's own words, at the first of its options that they name in quotes."""
        text = str(error)
        if not isinstance(error, (ValueError, TypeError)):
            text = f"cannot be made: {type(error).__name__}: {error}"
        for name in re.findall(r"[`'\"](\w+)[`'\"]", text):
            if name in type(options).model_fields:
                value = options.model_dump(mode="json")[name]
                return self.source.error((kind, name), f"{text.rstrip('.')} {found(value)}")
        return self.source.error((kind,), text)


def _with_options(choice: Choice, options: plugins.Options) -> Choice:
    return Choice(name=choice.name, **options.model_dump(mode="json"))


def _spelled_out(choice: Choice, space: Any) -> Choice:
    """Options left to a preset, as the space resolved them in its attributes."""
    options = spelled_out(space, choice.options)
    return Choice(name=choice.name, **json.loads(json.dumps(options)))


def _checked_objective(study: StudyKeys, needed: str | None, check: _PluginCheck) -> Choice:
    choice = study.objective
    if needed is not None and choice.name != needed and ":" not in choice.name:
        text = f"the sampler {study.sampler.name!r} needs the objective {needed!r}"
        raise check.source.error(("objective", "name"), f"{text} {found(choice.name)}")
    try:
        plugins.check_name("objective", choice.name)
    except PluginError as error:
        raise check.source.error(("objective", "name"), str(error)) from None
    if study.data is not None and choice == type(choice)(name="classification"):
        # Importing an objective imports torch, seconds that only options are worth.
        return choice
    cls, options = check.model("objective", choice)
    if study.data is None and objective_class(cls).needs_data:
        text = "this key is required. The images to learn: a data set's name, or its keys."
        raise check.source.error(("data",), text)
    paths = {name: _absolute(value, check.folder) for name, value in options}
    return _with_options(choice, options.model_copy(update=paths))


def _absolute(value: Any, folder: Path) -> Any:
    """An option's value, with its path, or paths, made absolute."""
    if isinstance(value, tuple):
        return tuple(_absolute(each, folder) for each in value)
    return Path(absolute(str(value), folder)) if isinstance(value, Path) else value


def _checked_epochs(
    study: StudyKeys, choice: Choice, strategy: Strategy, source: Source
) -> TrainSettings:
    """The training settings, with the epochs of candidates if the sampler leaves them open."""
    train, proxy = study.train, study.proxy
    if not strategy.sets_epochs:
        epochs = train.epochs or DEFAULT_EPOCHS if proxy is None else proxy.e
        if proxy is not None and train.epochs not in (None, epochs):
            text = f"the proxy {proxy} says {epochs} epochs; remove this key"
            raise source.error(("train", "epochs"), f"{text} {found(train.epochs)}")
        _check_cycles("train", train, epochs, source)
        return train.model_copy(update={"epochs": epochs})
    advice = "use `sampler.epochs` instead" if "epochs" in choice.options else "remove this key"
    chooses = f"the sampler {choice.name!r} chooses each candidate's epochs"
    text = f"{chooses}; {advice}"
    if proxy is not None:
        raise source.error(("proxy",), f"{text} {found(str(proxy))}")
    if train.epochs is not None:
        raise source.error(("train", "epochs"), f"{text} {found(train.epochs)}")
    if train.cycles > 1:
        text = f"{chooses}; remove this key {found(train.cycles)}"
        raise source.error(("train", "cycles"), text)
    return train


def _check_cycles(block: str, train: TrainSettings, epochs: int, source: Source) -> None:
    try:
        check_cycles(train, epochs)
    except ValueError as error:
        raise source.error((block, "cycles"), str(error)) from None
