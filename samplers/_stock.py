"""Optuna's own samplers by name and options, for the strategies that let one draw."""

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import SimpleNamespace
from typing import Any

from optuna.samplers import BaseSampler

from optnas.samplers._base import StrategySampler
from optnas.samplers._options import Rule, check, rule_of

GROUP = "optnas.samplers"
"""The entry points of samplers."""


def stock_sampler(option: str, named: str | Mapping[str, Any]) -> Callable[[int], BaseSampler]:
    """What makes a sampler from a seed.

    Args:
        option: The option that names it, for messages.
        named: A name (an entry point, or ``module:Name``), or a mapping of its ``name`` and its
            options.

    Raises:
        ValueError: If there is no such sampler, it takes no such options, or has a space of its
            own to search.
    """
    rule = f"`{option}` must name a sampler of Optuna's and its options"
    options = {"name": named} if isinstance(named, str) else dict(named)
    if "name" not in options:
        raise ValueError(f"{rule}: there is no `name` in {named!r}.")
    try:
        cls = _load(str(options.pop("name")))
        if issubclass(cls, StrategySampler):
            raise ValueError(f"{cls.__name__} is a strategy.")
        _check_options(cls, options)
        # A list, as in a file, is as good as a tuple.
        options = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
        cls(**options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{rule}: {error}") from None
    takes_seed = "seed" in inspect.signature(cls.__init__).parameters
    return lambda seed: cls(**options, **({"seed": seed} if takes_seed else {}))


def _load(name: str) -> type[BaseSampler]:
    if ":" in name:
        found = EntryPoint(name, name, GROUP).load()
    else:
        known = {entry.name: entry for entry in entry_points(group=GROUP)}
        if name not in known:
            match = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.5)
            hint = f"; did you mean {match[0]!r}?" if match else "."
            raise ValueError(f"unknown sampler {name!r}{hint} Known: {', '.join(sorted(known))}")
        found = known[name].load()
    if not (isinstance(found, type) and issubclass(found, BaseSampler)):
        raise ValueError(f"{name!r} is no sampler.")
    return found


def _check_options(cls: type[BaseSampler], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(cls.__init__).parameters
    rules = {name: _rule(cls, parameters[name]) for name in parameters if name != "seed"}
    known = {name: rule for name, rule in rules.items() if rule is not None}
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"{cls.__name__} has no option {name!r} here; it has {', '.join(sorted(known))}."
            )
        check(name, known[name], value)


def _rule(cls: type[BaseSampler], parameter: inspect.Parameter) -> Rule | None:
    """The rule of an option; None for what no text can say, such as a function."""
    # One by one: Optuna imports some types only for type checkers, so a few names are unknown.
    holder = SimpleNamespace(__annotations__={"it": parameter.annotation})
    scope = getattr(inspect.unwrap(cls.__init__), "__globals__", {})
    try:
        hint = typing.get_type_hints(holder, globalns=scope, include_extras=True)["it"]
    except (NameError, TypeError):
        return None
    return rule_of(hint | None if parameter.default is None else hint)
