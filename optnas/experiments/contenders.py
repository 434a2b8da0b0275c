"""What takes part in a comparison, and what each may spend, as one says it in a command."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import yaml

from optnas.config import plugins
from optnas.config.contract import strategy_of
from optnas.config.file import StudyFile
from optnas.errors import UserError
from optnas.extensions.importing import PluginError

Unit = Literal["epochs", "seconds", "trials"]

BASELINE = "random"
"""The sampler that p-values and relative improvements refer to."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """What takes part in a comparison.

    Args:
        label: Its name in tables and in the names of its studies.
        sampler: The `sampler` block of its studies.
        pruner: The `pruner` block of its studies; None for the file's.
    """

    label: str
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any] | None


def parse_contenders(text: str, config: StudyFile) -> list[Contender]:
    """Contenders as in ``econas+hierarchical,random,{name: tpe, multivariate: true}``.

    A name alone takes the options of the file's block if that has the same name, else the
    defaults; and the file's pruner, unless another one follows a plus sign or is given as the
    key ``pruner``. An empty text names the file's sampler and random search.

    Raises:
        UserError: If this cannot be read, or names one twice.
    """
    if not text.strip():
        text = ",".join(dict.fromkeys((config.sampler.name, BASELINE)))
    try:
        items = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        raise UserError(f"--samplers: expected names with commas between them: {text!r}") from None
    contenders = {
        contender.label: contender for contender in (_contender(item, config) for item in items)
    }
    if not items or len(contenders) < len(items):
        raise UserError(f"--samplers: expected different names with commas between them: {text!r}")
    return list(contenders.values())


def spending(given: Mapping[Unit, float | None], config: StudyFile) -> tuple[Unit, float]:
    """What every study may spend: the one amount that is given, else the file's only budget.

    Raises:
        UserError: If there is none, or there are several.
    """
    budget = config.budget
    hours = None if budget.hours is None else 3600 * budget.hours
    in_file: dict[Unit, float | None] = {
        "epochs": budget.epochs,
        "seconds": hours,
        "trials": budget.trials,
    }
    amounts: list[tuple[Unit, float]]
    for source in (given, in_file):
        amounts = [(unit, amount) for unit, amount in source.items() if amount is not None]
        if len(amounts) == 1:
            return amounts[0]
        if amounts:
            break
    raise UserError(
        "every study needs the same budget, of one kind: give one of --epochs, --seconds and "
        "--trials"
    )


def _contender(item: Any, config: StudyFile) -> Contender:
    """A contender as YAML has it: a name, with or without a pruner, or a mapping."""
    if isinstance(item, str):
        name, plus, pruner_name = item.partition("+")
        pruner = _block(pruner_name, config, "pruner") if plus else None
        return Contender(item, _block(name, config, "sampler"), pruner)
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise UserError(f"--samplers: expected a name or a mapping with a name, not {item!r}")
    options = {key: value for key, value in item.items() if key not in ("name", "pruner")}
    pruner = item.get("pruner")
    if isinstance(pruner, str):
        pruner = _block(pruner, config, "pruner")
    label = item["name"] + "".join(f" {key}={value}" for key, value in options.items())
    if pruner is not None:
        label += f"+{pruner.get('name') if isinstance(pruner, dict) else pruner}"
    return Contender(label, {"name": item["name"], **options}, pruner)


def _block(name: str, config: StudyFile, key: Literal["sampler", "pruner"]) -> dict[str, Any]:
    """The file's block if it has this name, else one without options."""
    block: dict[str, Any] = config.resolved()[key]
    return block if block["name"] == name else {"name": name}


def sets_epochs(config: StudyFile, sampler: str) -> bool:
    """Whether a sampler chooses the epochs of its candidates."""
    try:
        return strategy_of(plugins.load("sampler", sampler, config.folder)).sets_epochs
    except PluginError:
        return False  # The study file's checks say what is wrong.
