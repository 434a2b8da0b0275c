"""Samplers, pruners, objectives, spaces and data by name, and options as pydantic models.

Names come from entry points, or are ``module:Name``. Nothing is imported before it is asked for.
"""

import inspect
import re
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field

from optnas.config.settings import Settings
from optnas.extensions.importing import (
    REFERENCE,
    PluginError,
    entry_names,
    is_entry_imported,
    load_entry,
    load_reference,
    make_importable,
    unknown,
)

Kind = Literal["sampler", "pruner", "objective", "space"]

_GROUPS = {
    "sampler": "optnas.samplers",
    "pruner": "optnas.pruners",
    "objective": "optnas.objectives",
    "data": "optnas.data",
}
# A fixed grid of parameters contradicts spaces that are defined by running them.
_NEVER_OPTIONS = frozenset({"name", "search_space"})


class Options(Settings):
    """The options of a plugin's constructor."""

    model_config = pydantic.ConfigDict(protected_namespaces=())


def names(kind: Kind | Literal["data"]) -> list[str]:
    """The known names of a kind of plugin, sorted."""
    if kind == "space":
        from optnas.spaces import SPACES

        return sorted(SPACES)
    return entry_names(_GROUPS[kind])


def is_imported(kind: Kind, name: str) -> bool:
    """Whether the module of a known name is imported already; to import it may take seconds."""
    return kind == "space" or is_entry_imported(_GROUPS[kind], name)


def load(kind: Kind, name: str, folder: Path | None = None) -> type[Any]:
    """The class of a plugin.

    Args:
        kind: ``"sampler"``, ``"pruner"``, ``"objective"`` or ``"space"``.
        name: A known name or ``module:Name``.
        folder: Where modules are looked for too: the study file's folder.

    Raises:
        PluginError: If there is no such plugin, it cannot be imported, or it is not of the kind.
    """
    if ":" in name:
        found = load_reference(kind, name, folder)
        if folder is not None:
            make_importable(folder)
    elif kind == "space":
        from optnas.spaces import SPACES

        found = SPACES.get(name)
    else:
        found = load_entry(kind, _GROUPS[kind], name)
    if found is None:
        raise PluginError(unknown(kind, name, names(kind), hint=" (or `module:Name`)"))
    base = _base(kind)
    if not isinstance(found, type) or not issubclass(found, base):
        raise PluginError(f"{name!r} must be a subclass of {base.__module__}.{base.__qualname__}")
    return found


def check_name(kind: Kind, name: str) -> None:
    """Refuse a name that ``load`` could not know, without importing anything.

    Raises:
        PluginError: If ``name`` is neither known nor of the form ``module:Name``.
    """
    if not REFERENCE.fullmatch(name) and name not in names(kind):
        raise PluginError(unknown(kind, name, names(kind), hint=" (or `module:Name`)"))


def options_model(cls: type[Any], exclude: Collection[str] = ()) -> type[Options]:
    """A pydantic model of the options that a file can give to a constructor.

    Parameters whose type has no JSON schema (callables, arbitrary objects), deprecated ones and
    ``*args`` and ``**kwargs`` are left out. Where there is a class method ``from_settings``, its
    parameters count instead of the constructor's, or before them if it takes ``**options``.
    Validate as JSON, where lists are tuples.

    Args:
        cls: The class; its Google-style ``Args:`` section describes the options.
        exclude: Parameters that do not come from the file.

    Raises:
        PluginError: If the constructor needs a parameter that a file cannot give.
    """
    described = argument_docs(cls)
    fields: dict[str, Any] = {}
    for parameter in _parameters(cls):
        name, default = parameter.name, parameter.default
        if name in exclude or "Deprecated in v" in described.get(name, ""):
            continue
        annotation = None if name in _NEVER_OPTIONS else _file_type(cls, parameter)
        if annotation is not None:
            text = _plain(described.get(name, "")) or f"Option of {cls.__name__}."
            required = default is inspect.Parameter.empty
            field = Field(description=text) if required else Field(default, description=text)
            fields[name] = (annotation, field)
        elif default is inspect.Parameter.empty:
            raise PluginError(
                f"{cls.__name__} cannot be used here: its constructor needs `{name}`, which a "
                "study file cannot give"
            )
    return pydantic.create_model(f"{cls.__name__}Options", __base__=Options, **fields)


def accepted(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that the constructor of ``cls`` has a parameter for."""
    known = {parameter.name for parameter in _parameters(cls)}
    return {name: value for name, value in values.items() if name in known}


def argument_docs(cls: type[Any]) -> dict[str, str]:
    """The text of each entry in the ``Args:`` sections of a class and those it is derived from."""
    texts: dict[str, str] = {}
    for base in cls.__mro__:
        texts = _argument_docs(inspect.cleandoc(vars(base).get("__doc__") or "")) | texts
    return texts


def _argument_docs(docstring: str) -> dict[str, str]:
    sections = re.split(r"^Args:[ ]*\n", docstring, maxsplit=1, flags=re.M)
    if len(sections) < 2:
        return {}
    section = re.split(r"^\S", sections[1], maxsplit=1, flags=re.M)[0]
    indent = len(section) - len(section.lstrip(" "))
    entry = re.compile(
        rf"^ {{{indent}}}(\w+)(?: \([^)\n]*\))?:(.*(?:\n(?: {{{indent + 1}}}.*)?)*)", re.M
    )
    return {match[1]: inspect.cleandoc(match[2]) for match in entry.finditer(section)}


def _plain(text: str) -> str:
    """The first paragraph on one line, without the roles and links of reStructuredText."""
    paragraph = " ".join(text.strip().split("\n\n", 1)[0].split())
    return re.sub(r"(?::[\w:]+:|(?<!`))`~?([^`<]+?)(?: <[^`]*>)?`_{0,2}(?!`)", r"\1", paragraph)


def _parameters(cls: type[Any]) -> list[inspect.Parameter]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = dict(inspect.signature(cls.__init__).parameters)
    found.pop("self", None)
    maker = _maker(cls)
    if inspect.ismethod(maker):
        made = dict(inspect.signature(maker).parameters)
        # What else it is given goes to the constructor.
        passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in made.values())
        found = (
            {**made, **{n: p for n, p in found.items() if n not in made}} if passes_on else made
        )
    return [parameter for parameter in found.values() if parameter.kind not in variadic]


def _maker(cls: type[Any]) -> Any:
    """What makes an instance from a study file: objectives have a class method for it."""
    return getattr(cls, "from_settings", cls.__init__)


def _file_type(cls: type[Any], parameter: inspect.Parameter) -> Any:
    """The type of a parameter, or None if a file cannot express its values or its default."""
    if parameter.annotation is inspect.Parameter.empty or parameter.name.startswith("_"):
        return None
    # One by one: Optuna imports some types only for type checkers, so a few names are unknown.
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    scope: dict[str, Any] = {}
    for maker in (cls.__init__, _maker(cls)):
        scope |= getattr(inspect.unwrap(maker), "__globals__", {})
    try:
        hint = typing.get_type_hints(holder, globalns=scope, include_extras=True)["it"]
        if parameter.default is None:
            hint = hint | None
        adapter = pydantic.TypeAdapter(hint)
        adapter.json_schema()
        if parameter.default is not inspect.Parameter.empty:
            adapter.dump_json(parameter.default, warnings="error")
    except (NameError, TypeError, ValueError, AttributeError, pydantic.PydanticUserError):
        return None
    return hint


def _base(kind: Kind) -> type[Any]:
    if kind == "space":
        from optnas.spaces import Space

        return Space
    if kind == "sampler":
        from optuna.samplers import BaseSampler

        return BaseSampler
    if kind == "pruner":
        from optuna.pruners import BasePruner

        return BasePruner
    return object
