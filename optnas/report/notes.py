"""Notes for the dashboard: on the study, and on every trial."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial
from optuna_dashboard._note import get_note_from_system_attrs, save_note_with_version

from optnas.config import plugins
from optnas.pages.markdown import plain
from optnas.report.text import best_text, status_text
from optnas.spaces.words import in_words
from optnas.study.budget import trial_epochs
from optnas.study.networks import params_of
from optnas.study.opening import OpenStudy, is_counted
from optnas.study.record import metric_of
from optnas.trials.attributes import FAILURE_REASON, PHASE, STEP
from optnas.trials.outcomes import outcome
from optnas.units import count, duration, plural

SIGNED = "*Written by `optnas dashboard`; without this line it stays as it is.*"
"""The last line of a note that may be written again."""
AT_ONCE = 50
"""Notes written before somebody else has a turn at the storage."""


class Notes:
    """The notes of a study, where the dashboard finds them.

    A note that somebody has written or signed off is left alone.

    Args:
        handle: The study.
        target: How commands name it.
    """

    def __init__(self, handle: OpenStudy, target: str) -> None:
        self._handle = handle
        self._target = target
        self._done: set[int] = set()

    def refresh(self, trials: Sequence[FrozenTrial]) -> bool:
        """Write what is new, newest first; whether there is more to write."""
        study = self._handle.study
        attrs = study._storage.get_study_system_attrs(study._study_id)
        self._write(attrs, None, study_note(self._handle, self._target))
        left = [t for t in reversed(trials) if _has_ended(t) and t.number not in self._done]
        for trial in left[:AT_ONCE]:
            self._write(attrs, trial._trial_id, trial_note(self._handle, trial))
            self._done.add(trial.number)
        return len(left) > AT_ONCE

    def _write(self, attrs: Mapping[str, Any], trial_id: int | None, body: str) -> None:
        before = get_note_from_system_attrs(dict(attrs), trial_id)
        known = before["body"].rstrip()
        if (known and not known.endswith(SIGNED)) or known == body:
            return
        study = self._handle.study
        version = before["version"] + 1
        save_note_with_version(study._storage, study._study_id, trial_id, version, body)


def study_note(handle: OpenStudy, target: str) -> str:
    """What runs, what was found, what comes next, and the configuration, in Markdown."""
    config = handle.config
    summary = (plugins.load("sampler", config.sampler.name, config.folder).__doc__ or "").strip()
    rows = _flat(config.resolved())
    table = [f"| `{key}` | {_cell(value)} |" for key, value in rows.items()]
    return "\n".join(
        [
            f"## {plain(handle.study.study_name)}",
            plain(f"{config.sampler.name}: {summary.partition(chr(10))[0]}"),
            "### Where it is",
            _preformatted(status_text(handle, target)),
            "### What was found",
            _preformatted(best_text(handle, target)),
            "### Configuration",
            "| key | value |",
            "| --- | --- |",
            *table,
            "",
            SIGNED,
        ]
    )


def trial_note(handle: OpenStudy, trial: FrozenTrial) -> str:
    """A trial's network in words, what it is for and what became of it, in Markdown."""
    attrs, metric = trial.user_attrs, metric_of(handle.study)
    phase, step = attrs.get(PHASE), attrs.get(STEP)
    ended = [outcome(trial)]
    if epochs := trial_epochs(trial):
        ended.append(f"after {plural(epochs, 'epoch')}")
    if trial.value is not None:
        ended.append(f"with {metric.name} {trial.value:.4f}")
    if isinstance(seconds := attrs.get("train_seconds"), int | float):
        ended.append(f"in {duration(seconds)}")
    lines = [f"**{plain(str(step or phase or 'trial'))}**" + (f" ({phase})" if step else "")]
    lines += ["", " ".join(ended)]
    if attrs.get(FAILURE_REASON):
        lines[-1] += f": {plain(str(attrs[FAILURE_REASON]))}"
    architecture = handle.config.search_space.named_by(trial)
    if architecture is not None:
        params = params_of(handle, architecture, attrs)
        words = in_words(architecture)
        if params is not None:
            words[0] += f"; {plural(params, 'parameter')}"
        if isinstance(adds := attrs.get("multiply_adds"), int):
            words[0] += f", {count(adds)} multiply-adds"
        lines += ["", *(f"- {plain(line)}" for line in words)]
    return "\n".join([*lines, "", SIGNED])


def _has_ended(trial: FrozenTrial) -> bool:
    return is_counted(trial) or (trial.state.is_finished() and bool(trial.params))


def _flat(keys: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keys of a configuration that say something, with dots between their parts."""
    rows: dict[str, Any] = {}
    for key, value in keys.items():
        if isinstance(value, Mapping) and value:
            rows |= _flat(value, f"{prefix}{key}.")
        elif value not in (None, {}, [], ()):
            rows[f"{prefix}{key}"] = value
    return rows


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return plain(text).replace("|", "\\|")


def _preformatted(text: str) -> str:
    """Lines that stay as they are; none of them may end the block."""
    return "```\n" + text.replace("```", "'''") + "\n```"
