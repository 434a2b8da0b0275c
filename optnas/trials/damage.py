"""What is wrong with a trial that a storage shows: values that nobody could have written.

A storage may be damaged, edited by hand, or come from elsewhere. Everything of a trial that is
relied on is checked here, once, before anybody reads it.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optnas.errors import UserError
from optnas.trials import attributes

CHECKPOINT_ID = re.compile(r"[0-9a-f]{12}-(\d{1,10})-(\d{1,10})(-[0-9a-f]{8})?\.pt", re.ASCII)
"""The name of a training state: whose, of which trial, after how many epochs, and a checksum."""
MAX_NUMBERS = 100_000
"""How many numbers a list on a trial has at most."""

VALUE = "one number, which a complete trial has"
"""What is expected of a trial's value."""
REPORT = "a number, at a whole step"
"""What is expected of an intermediate value."""


class DamagedError(UserError):
    """Something stored cannot be what optnas or Optuna wrote; the message says what and where."""


def check(trial: FrozenTrial) -> None:
    """Refuse a trial with something wrong.

    Raises:
        DamagedError: About the first of it, with the trial and the key.
    """
    for key, expected in damages(trial):
        raise DamagedError(damage_text(trial.number, key, expected))


def damage_text(number: int, key: str, expected: str) -> str:
    """One line about something wrong with a trial."""
    return (
        f"trial {number}: what is stored as {key!r} is damaged: expected {expected}; "
        "`optnas doctor` lists everything of that kind"
    )


def damages(trial: FrozenTrial) -> Iterator[tuple[str, str]]:
    """The keys of a trial with something wrong, and what was expected of each."""
    if trial.state == TrialState.COMPLETE and not _is_value(trial.values):
        yield "value", VALUE
    for name, distribution in trial.distributions.items():
        if not fits(distribution, trial.params.get(name)):
            yield f"parameter {name}", f"a value of {distribution}"
    for step, reported in trial.intermediate_values.items():
        if not is_report(step, reported):
            yield f"report {step}", REPORT
    for attrs, rules in ((trial.system_attrs, SYSTEM), (trial.user_attrs, USER)):
        for key, (holds, expected) in rules.items():
            if key in attrs and not holds(attrs[key], trial):
                yield key, expected


def without(trial: FrozenTrial, key: str) -> None:
    """Leave something wrong out of a trial; without its value it counts as failed."""
    if key == "value":
        trial.state, trial.values = TrialState.FAIL, None
    elif key.startswith("parameter "):
        name = key.removeprefix("parameter ")
        trial._params = {k: v for k, v in trial.params.items() if k != name}
        trial._distributions = {k: v for k, v in trial.distributions.items() if k != name}
    elif key.startswith("report "):
        reports = trial.intermediate_values.items()
        trial.intermediate_values = {s: v for s, v in reports if is_report(s, v)}
    elif key in SYSTEM:
        trial.system_attrs = {k: v for k, v in trial.system_attrs.items() if k != key}
    else:
        trial.user_attrs = {k: v for k, v in trial.user_attrs.items() if k != key}


def is_report(step: Any, value: Any) -> bool:
    """Whether this can be what a trial reported; it need not be finite."""
    return isinstance(step, int) and is_number(value)


def _is_value(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 1 and is_number(values[0])


def fits(distribution: Any, value: Any) -> bool:
    """Whether a parameter of this distribution can have a value."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError, IndexError, OverflowError):
        return False


def is_number(value: Any, *_: Any) -> bool:
    """Whether something is a number, finite or not; no integer that is too large for a float."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, float)


def _is_count(value: Any, *_: Any) -> bool:
    return is_number(value) and isinstance(value, int) and 0 <= value < 1 << 63


def _is_finite(value: Any, *_: Any) -> bool:
    return is_number(value) and math.isfinite(value) and value >= 0


def _are_seconds(value: Any, *_: Any) -> bool:
    return _is_finite(value) and value < 1e12  # 30,000 years


def _is_text(value: Any, *_: Any) -> bool:
    return isinstance(value, str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def _is_earlier(value: Any, trial: FrozenTrial) -> bool:
    return _is_count(value) and value < trial.number


def _is_claim(value: Any, trial: FrozenTrial) -> bool:
    if not _is_named(value) or not value.keys() <= {"index", "params", "attrs", "continues"}:
        return False
    params, continues = value.get("params"), value.get("continues")
    return (
        _is_count(value.get("index"))
        and _is_named(params)
        and all(map(_is_scalar, params.values()))
        and _attrs_hold(value.get("attrs", {}), trial)
        and (continues is None or _is_earlier(continues, trial))
    )


def _attrs_hold(attrs: Any, trial: FrozenTrial) -> bool:
    return _is_named(attrs) and all(
        holds(attrs[key], trial) for key, (holds, _) in USER.items() if key in attrs
    )


def _is_lease(value: Any, *_: Any) -> bool:
    if not _is_named(value) or not isinstance(value.get("host"), str):
        return False
    until, started = value.get("until"), value.get("started")
    return (
        _is_count(value.get("pid"))
        and value["pid"] < 1 << 31
        and (until is None or _is_finite(until))
        and (started is None or isinstance(started, str))
        and _is_count(value.get("thread", 0))
        and isinstance(value.get("decides", False), bool)
        and all(isinstance(value.get(key, ""), str) for key in ("boot", "card"))
    )


def _is_checkpoint(value: Any, *_: Any) -> bool:
    if not _is_named(value) or not isinstance(value.get("id"), str):
        return False
    return (
        CHECKPOINT_ID.fullmatch(value["id"]) is not None
        and isinstance(value.get("sha256"), str)
        and _is_count(value.get("bytes"))
        and _is_count(value.get("epoch", 0))
    )


def _are_numbers(value: Any, *_: Any) -> bool:
    """Numbers, or lists or mappings of these, not too many."""
    left, pending = MAX_NUMBERS, [value]
    while pending and left > 0:
        item, left = pending.pop(), left - 1
        if isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif not is_number(item) or not math.isfinite(item):
            return False
    return left > 0 and isinstance(value, list | Mapping)


def _is_architecture(value: Any, *_: Any) -> bool:
    try:
        return isinstance(value, str) and isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


Rules = Mapping[str, tuple[Callable[[Any, FrozenTrial], bool], str]]
_EARLIER = "the number of an earlier trial"
SYSTEM: Rules = {
    attributes.CLAIM: (_is_claim, "a candidate: `index`, `params`, `attrs` and `continues`"),
    attributes.LEASE: (_is_lease, "a lease: `host`, `pid`, `started`, `until` and `decides`"),
    attributes.RUNG: (_is_count, "a number of rungs"),
    attributes.CHECKPOINT: (
        _is_checkpoint,
        "a training state: `id` (as optnas names them), `sha256`, `bytes` and `epoch`",
    ),
    "fixed_params": (lambda value, _: _is_named(value), "parameters by name"),
}
USER: Rules = {
    attributes.CONTINUES: (_is_earlier, _EARLIER),
    attributes.PHASE: (_is_text, "a text"),
    attributes.FAILURE: (_is_text, "a text"),
    attributes.FAILURE_REASON: (_is_text, "a text"),
    attributes.ARCHITECTURE: (_is_architecture, "an architecture as JSON"),
    attributes.TRAIN_SECONDS: (_are_seconds, "a number of seconds"),
    attributes.SCHEDULE: (_is_count, "a number of epochs"),
    attributes.EPOCHS_TRAINED: (_is_count, "a number of epochs"),
    attributes.ACCUMULATION: (_is_count, "a number of parts"),
    attributes.EDGE_WEIGHTS: (_are_numbers, "lists of numbers"),
    attributes.OPERATION_WEIGHTS: (_are_numbers, "lists of numbers"),
}
