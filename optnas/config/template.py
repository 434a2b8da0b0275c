"""A study file to start from."""

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from optnas.config import plugins
from optnas.config.contract import Strategy, pruning_of, strategy_of
from optnas.config.file import study_from_dict
from optnas.config.keys import DEFAULT_EPOCHS, OPTIONAL_BLOCKS, PLUGINS, SUPPLIED, StudyKeys
from optnas.config.messages import StudyFileError, inner_model
from optnas.config.paths import default_storage, file_name
from optnas.config.plugins import Kind
from optnas.extensions.importing import PluginError

_HEADER = """\
# A study of optnas. A line that begins with '#' and a key shows the default: take the '#'
# away to change it."""


_SHORT_HEADER = """\
# optnas run {file} --dry-run says how long it takes; without --dry-run it searches.
# optnas init --full writes all keys, with their meaning."""
_ENDLESS = "# budget: {trials: 100}  # without one, this strategy goes on until it is stopped"


def template(
    study: str,
    data: str,
    sampler: str,
    *,
    space: str | None = None,
    extent: Mapping[str, Any] | None = None,
    trials: int | None = None,
    root: str | None = None,
    pruner: Mapping[str, Any] | None = None,
    full: bool = True,
) -> str:
    """The text of a study file: every key with its help, the defaults commented out.

    Args:
        study: The study's name.
        data: The data set's name.
        sampler: The sampler's name.
        space: The space's name; None takes one that the sampler can search.
        extent: Keys of the space; None leaves them open.
        trials: The budget of trials; None sets none.
        root: Folder that holds the data set; None leaves it open.
        pruner: The pruner's block; None for none.
        full: Whether all keys are written, or only what one must know.

    Raises:
        StudyFileError: If there is no such sampler, data set or space, or they do not fit.
        PluginError: If a file cannot give the sampler's options.
    """
    fitting = _fitting({"study": study, "data": data, "sampler": sampler}, space)
    place = {} if root is None else {"root": root}
    strategy = strategy_of(plugins.load("sampler", sampler))
    epochs = {} if strategy.sets_epochs else {"epochs": _whole_training(pruner)}
    budget = {} if trials is None else {"trials": trials}
    given: dict[str, Any] = {**fitting, "train": epochs, "budget": budget}
    if not full:
        given["pruner"] = pruner
        if extent is not None:
            given["space"] = {"name": fitting["space"], **extent}
        return _short({**given, "data": {"name": data, **place} if place else data}, strategy)
    hints = {
        "storage": default_storage(study),
        "artifacts": f"{file_name(study)}.artifacts",
    }
    blocks: dict[str, dict[str, Any]] = {
        "data": place,
        "space": dict(extent or {}),
        "pruner": dict(pruner or {}),
    }
    lines = [_HEADER]
    fields = StudyKeys.model_fields
    for key in sorted(fields, key=lambda key: key not in ("study", "data", "sampler")):
        lines += ["", *_comment(fields[key])]
        if key in PLUGINS or key == "data":
            block = blocks.get(key, {})
            name = block.get("name") or given.get(key) or fields[key].default.name
            lines += [
                f"{key}:",
                f"  name: {_scalar(name)}",
                *_block(_options(key, name), block),
            ]
        elif key in OPTIONAL_BLOCKS:
            lines += [f"{key}:", *_block(_nested(key), given.get(key, {}))]
        elif key in given:
            lines.append(f"{key}: {_scalar(given[key])}")
        else:
            lines.append(f"#{key}: {_scalar(hints.get(key, fields[key].default))}")
    return "\n".join([*lines, ""])


def _whole_training(pruner: Mapping[str, Any] | None) -> int:
    """The epochs of a candidate: those of the last rung, if there are rungs."""
    if pruner is None:
        return DEFAULT_EPOCHS
    options = {key: value for key, value in pruner.items() if key != "name"}
    made = plugins.load("pruner", pruner["name"])(**options)
    return pruning_of(made).whole_training or DEFAULT_EPOCHS


def _short(given: dict[str, Any], strategy: Strategy) -> str:
    """A file of what was given, a line a key."""
    lines = [_SHORT_HEADER.format(file=f"{given['study']}.yaml"), ""]
    for key in ("study", "data", "space", "sampler", "pruner", "objective", "train", "budget"):
        value = given.get(key)
        if isinstance(value, dict) and value:
            pairs = ", ".join(f"{name}: {_scalar(of)}" for name, of in value.items())
            lines.append(f"{key}: {{{pairs}}}")
        elif value:
            lines.append(f"{key}: {_scalar(value)}")
    if not strategy.has_end and not given["budget"]:
        lines.append(_ENDLESS)
    return "\n".join([*lines, ""])


def _fitting(keys: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    """The keys with a space that the sampler can search, and the objective that it needs."""
    error = None
    known = (StudyKeys.model_fields["space"].default.name, *plugins.names("space"))
    for space in known if wanted is None else (wanted,):
        filled = {**keys, "space": space}
        try:
            objective = strategy_of(plugins.load("sampler", keys["sampler"])).needs_objective
            if objective is not None:
                filled["objective"] = objective
            study_from_dict(filled)
        except (StudyFileError, PluginError) as refused:
            error = error or refused
        else:
            return filled
    raise error or AssertionError("There are spaces.")


def _block(fields: dict[str, FieldInfo], given: dict[str, Any]) -> list[str]:
    lines = []
    for key, field in fields.items():
        lines += _comment(field, "  ")
        if key in given:
            lines.append(f"  {key}: {_scalar(given[key])}")
        elif field.is_required():
            lines.append(f"  {key}:")
        else:
            default = field.get_default(call_default_factory=True)
            if isinstance(default, BaseModel):
                default = default.model_dump(mode="json")
            lines.append(f"  #{key}: {_scalar(default)}")
    return lines


def _options(key: str, name: str) -> dict[str, FieldInfo]:
    """The keys beside the name; none of an objective, whose import takes seconds."""
    if key == "data":
        return {key: field for key, field in _nested("data").items() if key != "name"}
    if key == "objective":
        return {}
    kind: Kind = next(kind for kind in PLUGINS if kind == key)
    return plugins.options_model(plugins.load(kind, name), SUPPLIED[kind]).model_fields


def _nested(key: str) -> dict[str, FieldInfo]:
    block = inner_model(StudyKeys, key)
    return {} if block is None else dict(block.model_fields)


def _comment(field: FieldInfo, indent: str = "") -> list[str]:
    text = textwrap.shorten(field.description or "", 240, placeholder=" ...")
    return textwrap.wrap(text, 97, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _scalar(value: Any) -> str:
    """JSON is YAML; names that YAML reads as strings go without quotes."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./:-]*\w", value, re.ASCII)
    if plain and value.lower() not in ("true", "false", "null"):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
