"""One clear message for whatever is wrong with a study file."""

import dataclasses
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
from pydantic_core import ErrorDetails

from optnas.config.plugins import Options
from optnas.config.yaml import KeyPath
from optnas.errors import UserError
from optnas.extensions.importing import nearest


class StudyFileError(UserError):
    """Something in a study file is wrong; the message says where, and what was expected."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a configuration came from, to say so in messages.

    Args:
        name: The file, or what else it is; empty if there is nothing to name.
        lines: The line of every key; empty if it is not a file.
        shorthand: The keys that were given as a name instead of a mapping with a name.
        elsewhere: The keys that were not said there, and where they were.
    """

    name: str = ""
    lines: Mapping[KeyPath, int] = dataclasses.field(default_factory=dict)
    shorthand: frozenset[str] = frozenset()
    elsewhere: Mapping[KeyPath, str] = dataclasses.field(default_factory=dict)

    def error(self, path: KeyPath, text: str) -> StudyFileError:
        """The error that says ``text`` about the key at ``path``."""
        if len(path) == 2 and path[1] == "name" and path[0] in self.shorthand:
            path = path[:1]
        shorter = [path[:length] for length in range(len(path), -1, -1)]
        said = next((p for p in shorter if p in self.lines or p in self.elsewhere), None)
        if said is not None and said in self.elsewhere:
            place = self.elsewhere[said]
        else:
            place = self.name if said is None else f"{self.name}:{self.lines[said]}"
        return StudyFileError(": ".join(part for part in (place, key_text(path), text) if part))


def key_text(path: KeyPath) -> str:
    """The path of a key as one reads it: ``data.augment[1]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def found(value: Any) -> str:
    """A value as an error message shows it: as in YAML, and short."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=repr)
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+,\d+(e[-+]?\d+)?", value):
        return f"(found {text}; a number has a point where this has a comma)"
    return f"(found {text if len(text) <= 60 else text[:57] + '...'})"


def problem(
    error: pydantic.ValidationError, data: Any, model: type[pydantic.BaseModel]
) -> tuple[KeyPath, str]:
    """The key of the first thing that is wrong and a sentence about it.

    Unknown keys come first: a misspelt key is also a missing one.

    Args:
        error: What ``model`` raised.
        data: What it was given: dicts, lists and scalars.
        model: The model.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_data_path(detail, data), []).append(detail)
    path = min(by_path, key=lambda key: by_path[key][0]["type"] != "extra_forbidden")
    details = by_path[path]
    if details[0]["type"] == "extra_forbidden":
        return path, _unknown_key(str(path[-1]), _keys_at(model, path[:-1]), model)
    if details[0]["type"] == "missing" and _at(data, path) is None:
        description = _model_at(model, path[:-1]).model_fields[str(path[-1])].description
        return path, f"this key is required. {description}"
    return path, _expectation(details, _at(data, path))


def _expectation(details: Sequence[ErrorDetails], value: Any) -> str:
    own = [detail for detail in details if detail["type"] == "value_error"]
    if own:
        return f"{own[0]['msg'].removeprefix('Value error, ')} {found(value)}"
    # The branches of a union each say what they expected.
    phrases = dict.fromkeys(map(_phrase, details))
    choices = [
        choice
        for detail in details
        if detail["type"] == "literal_error"
        for choice in re.findall(r"'([^']*)'", detail["ctx"]["expected"])
    ]
    match = nearest(value, choices) if isinstance(value, str) else None
    suggestion = f"; did you mean {match!r}?" if match else ""
    return f"expected {' or '.join(phrases)} {found(value)}{suggestion}"


_PHRASES = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "none_required": "null",
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "greater_than_equal": "at least {ge}",
    "greater_than": "a number greater than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "a number less than {lt}",
    "literal_error": "{expected}",
    "string_too_short": "a string of at least {min_length} character(s)",
    "string_too_long": "a string of at most {max_length} characters",
    "too_short": "a list of at least {min_length} values",
    "too_long": "a list of at most {max_length} values",
}


def _phrase(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        # A tuple of fixed length that ends too early: the place is the first one missing.
        return f"a list of at least {int(detail['loc'][-1]) + 1} values"
    phrase = _PHRASES.get(detail["type"])
    return phrase.format(**detail.get("ctx", {})) if phrase else f"other ({detail['msg']})"


_SAID_OTHERWISE = {
    "learning_rate": "lr",
    "batch": "batch_size",
    "dataset": "data",
    "strategy": "sampler",
    "algorithm": "sampler",
    "search_space": "space",
    "path": "root",
    "folder": "root",
}
"""What other programs call a key."""


def _unknown_key(key: str, valid: Sequence[str], model: type[pydantic.BaseModel]) -> str:
    other = _SAID_OTHERWISE.get(key.casefold().replace("-", "_"), key)
    # A key that is known elsewhere is misplaced rather than misspelt.
    matches = [other] if other in valid else _blocks_with(model, other)
    if not matches and (match := nearest(key, valid)):
        matches = [match]
    suggestion = f"; did you mean {' or '.join(map(repr, matches))}?" if matches else "."
    keys = f"Valid keys: {', '.join(valid)}" if valid else "There are no keys here"
    return f"unknown key{suggestion} {keys}"


def _blocks_with(model: type[pydantic.BaseModel], key: str) -> list[str]:
    """The blocks of a study file that have a key, with it: ``train.lr``."""
    blocks = [(name, inner_model(model, name)) for name in model.model_fields]
    return [f"{name}.{key}" for name, block in blocks if block and key in block.model_fields]


def _data_path(detail: ErrorDetails, data: Any) -> KeyPath:
    """The place of an error in the data: pydantic's without the names of a union's branches."""
    path: list[str | int] = []
    for piece in detail["loc"]:
        if isinstance(data, dict):
            known = piece in data
        else:
            known = isinstance(data, list) and isinstance(piece, int) and piece < len(data)
        if known:
            data = data[piece]
        if known or (detail["type"] == "missing" and isinstance(data, dict)):
            path.append(piece)
    return tuple(path)


def _at(data: Any, path: KeyPath) -> Any:
    for piece in path:
        data = data.get(piece) if isinstance(data, dict) else data[piece]
    return data


def _model_at(model: type[pydantic.BaseModel], path: KeyPath) -> type[pydantic.BaseModel]:
    for piece in path:
        inner = inner_model(model, str(piece))
        assert inner is not None
        model = inner
    return model


def inner_model(model: type[pydantic.BaseModel], key: str) -> type[pydantic.BaseModel] | None:
    """The model of what stands under a key; None if that is no mapping of keys."""
    field = model.model_fields.get(key)
    # A block that may be absent is a union of its model and None.
    kinds = () if field is None else typing.get_args(field.annotation) or (field.annotation,)
    models = (k for k in kinds if isinstance(k, type) and issubclass(k, pydantic.BaseModel))
    return next(models, None)


def _keys_at(model: type[pydantic.BaseModel], path: KeyPath) -> list[str]:
    keys = list(_model_at(model, path).model_fields)
    # The options of a plugin stand beside its name, which is no field of their model.
    return ["name", *keys] if issubclass(model, Options) else keys
