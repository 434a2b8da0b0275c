"""What one does after an experiment: the command that searches by what it showed."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from optnas.config.file import StudyFile
from optnas.config.variants import written_block
from optnas.experiments.contenders import Contender, sets_epochs
from optnas.experiments.ranking_report import is_shown_to_rank


def command_after_ranking(config: StudyFile, file: str, fields: Mapping[str, Any]) -> str:
    """The search in the reduced setting that ranks best, if the strategy leaves epochs open.

    In the full setting where none is shown to rank at all.

    Args:
        config: The study.
        file: Its file.
        fields: The ranking's.
    """
    ranked = list(filter(is_shown_to_rank, fields["settings"]))
    if not ranked or sets_epochs(config, config.sampler.name):
        return _run(file)
    best = max(ranked, key=lambda row: (row["rho"], row["speedup"] or 0))
    return _run(file, f"proxy={best['setting']}", *_without_epochs(config))


def command_after_comparison(
    config: StudyFile, file: str, contenders: Sequence[Contender], fields: Mapping[str, Any]
) -> str:
    """The search by whoever leads; by the file's own strategy where that cannot be told from it.

    Args:
        config: The study.
        file: Its file.
        contenders: What was compared.
        fields: The comparison's.
    """
    by_label = {contender.label: contender for contender in contenders}
    tied = [by_label[row["label"]] for row in fields["ranking"] if row["tied"]]
    own = [each for each in tied if each.sampler == config.resolved()["sampler"]]
    if any(each.pruner is None for each in own):
        return _run(file)
    leader = by_label[fields["ranking"][0]["label"]]
    said = [f"sampler={_block(leader.sampler)}"]
    if leader.pruner is not None:
        said.append(f"pruner={_block(leader.pruner)}")
    if sets_epochs(config, leader.sampler["name"]):
        said += _without_epochs(config)
    return _run(file, *said)


def _without_epochs(config: StudyFile) -> list[str]:
    """What takes a file's epochs back, where something else decides them."""
    return ["train.epochs=null"] if "epochs" in written_block(config, "train") else []


def _run(file: str, *changes: str) -> str:
    return shlex.join(["optnas", "run", file, *(f"--set={change}" for change in changes)])


def _block(options: Mapping[str, Any]) -> str:
    """A block as a study file has it in a line: its name alone where that is all."""
    return str(options["name"]) if len(options) == 1 else json.dumps(options)
