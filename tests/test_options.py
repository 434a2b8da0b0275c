"""The rules of options, read from their annotations."""

import dataclasses
import math
from dataclasses import KW_ONLY
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Gt, Interval, Lt, MinLen

from optnas.config import plugins
from optnas.config.keys import SUPPLIED
from optnas.samplers import Candidate, ReplaySampler
from optnas.samplers._options import check_options, rule_of
from optnas.spaces import ChainSpace

Share = Annotated[float, Gt(0), Lt(1)]


@pytest.mark.parametrize(
    ("hint", "good", "bad", "text"),
    [
        (Annotated[int, Ge(1)], [1, np.int64(7)], [0, 1.0, True, "1", None], "integer, 1 or more"),
        (int, [-3], [2.5], "be an integer"),
        (Annotated[float, Ge(0)], [0, 0.5, np.float32(1), math.inf], [-1, math.nan, True, "1"],
         "be greater than or equal to 0"),
        (Share, [0.5], [0, 1], "be greater than 0 and less than 1"),
        (Annotated[float, Interval(ge=0, le=1)], [0, 1], [1.5], "less than or equal to 1"),
        (bool, [True], [1, "yes"], "be true or false"),
        (Literal["a", "b"], ["a"], ["c", 1], "be one of ('a', 'b')"),
        (Annotated[int, Ge(1)] | None, [None, 1], [0], "be an integer, 1 or more or None"),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), (1, "2"), 1], "hold 2 values"),
        (Annotated[tuple[Share, ...], MinLen(1)], [(0.5,), (0.1, 0.9)], [(), (0.5, 1)], "hold"),
        (Annotated[tuple[Share, ...], "hold shares"], [()], [(2,)], "hold shares"),
        (str | dict[str, Any], ["tpe", {}], [1, None], "be a string or a mapping"),
    ],
)  # fmt: skip
def test_an_annotation_is_a_rule(hint: Any, good: list[Any], bad: list[Any], text: str) -> None:
    rule = rule_of(hint)
    assert rule is not None
    assert text in rule.text
    assert [value for value in good if not rule.holds(value)] == []
    assert [value for value in bad if rule.holds(value)] == []


@pytest.mark.parametrize("hint", [object, Any, ChainSpace, list[int], int | ChainSpace])
def test_other_annotations_say_nothing(hint: Any) -> None:
    assert rule_of(hint) is None


@dataclasses.dataclass(eq=False)
class Mine(ReplaySampler[Any]):
    """A strategy of somebody's own.

    Args:
        size: How much of it.
    """

    _: KW_ONLY
    size: Annotated[int, Ge(2)] = 3

    def search(self):  # type: ignore[no-untyped-def]
        yield Candidate({}, phase="")


class Derived(Mine):
    """No dataclass, and with a name that is for type checkers alone."""

    other: "Missing"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("cls", [Mine, Derived])
def test_own_strategies_are_checked_and_described(cls: type[Mine]) -> None:
    assert cls(ChainSpace(), size=2).size == 2
    with pytest.raises(ValueError, match="`size` must be an integer, 2 or more: 1"):
        cls(ChainSpace(), size=1)
    with pytest.raises(ValueError, match="`patience` must be greater than or equal to 0"):
        cls(ChainSpace(), patience=-1)
    schema = plugins.options_model(cls, SUPPLIED["sampler"]).model_json_schema()["properties"]
    assert schema["size"]["minimum"] == 2
    assert schema["size"]["description"] == "How much of it."
    assert schema["patience"]["minimum"] == 0
    assert schema["patience"]["description"].startswith("Seconds after which a running trial")


def test_every_option_of_every_strategy_has_a_rule_and_a_text() -> None:
    for name in plugins.names("sampler"):
        cls = plugins.load("sampler", name)
        if not issubclass(cls, ReplaySampler.__mro__[1]):
            continue
        described = plugins.argument_docs(cls)
        for field in dataclasses.fields(cls):
            assert field.name in described, (name, field.name)
            assert field.name == "space" or rule_of(field.type) is not None, (name, field.name)


def test_checked_once_made() -> None:
    sampler = Mine(ChainSpace())
    sampler.size = 0
    with pytest.raises(ValueError, match="`size`"):
        check_options(sampler)
