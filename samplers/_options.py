"""The options of strategies: an option's annotation is its rule, and all are checked here.

``epochs: Annotated[int, Ge(1)] = 10`` is all that there is to say of an option. The study file and
its JSON schema read the same annotations. A text among them says the rule in other words:
``Annotated[tuple[Count, Count], "hold 2 integers from 0 upwards"]``.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MinLen

Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an option must be.

    Args:
        text: The rule, after "must", such as ``"be an integer, 1 or more"``.
        holds: Whether it holds for a value.
    """

    text: str
    holds: Callable[[Any], bool]


def check_options(instance: object) -> None:
    """Raise ValueError unless every field of a dataclass is what its annotation says.

    Fields whose annotation says nothing that can be checked, a space's for instance, are left out.
    """
    for name, rule in _rules(type(instance)).items():
        check(name, rule, getattr(instance, name))


def check(name: str, rule: Rule, value: Any) -> None:
    """Raise ValueError unless ``rule`` holds for ``value``."""
    if not rule.holds(value):
        raise ValueError(f"`{name}` must {rule.text}: {value!r}.")


def _rules(cls: type[object]) -> Mapping[str, Rule]:
    # A subclass that is no dataclass itself adds no options, and its hints may be for type
    # checkers alone.
    declared = next(base for base in cls.__mro__ if "__dataclass_params__" in vars(base))
    hints = typing.get_type_hints(declared, include_extras=True)
    rules = {field.name: rule_of(hints[field.name]) for field in dataclasses.fields(declared)}
    return {name: rule for name, rule in rules.items() if rule is not None}


def rule_of(hint: Any) -> Rule | None:
    """The rule that an annotation says, or None for one that says nothing of this kind."""
    bounds: list[Any] = []
    if get_origin(hint) is Annotated:
        hint, *metadata = get_args(hint)
        bounds = [b for m in metadata for b in (m if isinstance(m, GroupedMetadata) else [m])]
    if hint in _NUMBERS:
        return _number(*_NUMBERS[hint], bounds)
    if hint in _KINDS:
        kind, text = _KINDS[hint]
        return Rule(f"be {text}", lambda value: isinstance(value, kind))
    origin = get_origin(hint)
    if origin is Literal:
        choices = get_args(hint)
        return Rule(f"be one of {choices}", lambda value: value in choices)
    if origin in (Union, types.UnionType):
        return _union(get_args(hint))
    if dict in (hint, origin):
        return Rule("be a mapping", lambda value: isinstance(value, Mapping))
    return _tuple(get_args(hint), bounds) if origin is tuple else None


_NUMBERS: dict[Any, tuple[type, str]] = {int: (Integral, "an integer"), float: (Real, "a number")}
_KINDS: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    str: (str, "a string"),
    types.NoneType: (types.NoneType, "None"),
}


def _number(kind: type, text: str, bounds: list[Any]) -> Rule:
    def holds(value: Any) -> bool:
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        return is_number and not math.isnan(value) and all(_within(value, b) for b in bounds)

    if kind is Integral:
        # Of whole numbers one says where they begin.
        limits = [
            f"{bound.ge} or more" if isinstance(bound, Ge) else _limit(bound) for bound in bounds
        ]
        return Rule(_words(bounds) or "be " + ", ".join([text, *filter(None, limits)]), holds)
    limits = [limit for bound in bounds if (limit := _limit(bound))]
    return Rule(_words(bounds) or "be " + (" and ".join(limits) or text), holds)


def _within(value: Any, bound: Any) -> bool:
    match bound:
        case Ge():
            return bool(value >= bound.ge)
        case Gt():
            return bool(value > bound.gt)
        case Le():
            return bool(value <= bound.le)
        case Lt():
            return bool(value < bound.lt)
        case MinLen():
            return len(value) >= bound.min_length
    return True


def _limit(bound: Any) -> str:
    match bound:
        case Ge():
            return f"greater than or equal to {bound.ge}"
        case Gt():
            return f"greater than {bound.gt}"
        case Le():
            return f"less than or equal to {bound.le}"
        case Lt():
            return f"less than {bound.lt}"
    return ""


def _words(bounds: list[Any]) -> str:
    return next((bound for bound in bounds if isinstance(bound, str)), "")


def _union(hints: tuple[Any, ...]) -> Rule | None:
    rules = [rule for rule in map(rule_of, hints) if rule is not None]
    if len(rules) < len(hints):
        return None
    first, *others = [rule.text for rule in rules]
    text = " or ".join([first, *(other.removeprefix("be ") for other in others)])
    return Rule(text, lambda value: any(rule.holds(value) for rule in rules))


def _tuple(hints: tuple[Any, ...], bounds: list[Any]) -> Rule | None:
    """Lists are as good as tuples."""
    endless = hints[1:] == (...,)
    rules = [rule for rule in map(rule_of, hints[:1] if endless else hints) if rule is not None]
    if not endless and len(rules) < len(hints):
        return None

    def holds(value: Any) -> bool:
        if not isinstance(value, (tuple, list)) or not all(_within(value, b) for b in bounds):
            return False
        each = rules * len(value) if endless else rules
        pairs = zip(each, value, strict=False)
        return len(each) == len(value) and all(rule.holds(item) for rule, item in pairs)

    number = "one or more" if endless else str(len(rules))
    return Rule(_words(bounds) or f"hold {number} values, each to {rules[0].text}", holds)
