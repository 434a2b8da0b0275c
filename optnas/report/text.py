"""What commands print about studies: as text for people, as fields for programs."""

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from optnas.config import plugins
from optnas.config.contract import count_params, data_set
from optnas.extensions.importing import load_entry
from optnas.spaces import SPACES
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import UNNEEDED, checkpoint_of
from optnas.storage.retention import needed
from optnas.storage.urls import StorageError
from optnas.study.budget import used_budget
from optnas.study.data import seen_fields, seen_lines
from optnas.study.folders import network_folder
from optnas.study.opening import Conclusion, OpenStudy, conclusions, counted_trials
from optnas.study.record import RECORD, metric_of
from optnas.trials.attributes import PHASE
from optnas.trials.chance import is_chance
from optnas.trials.lineage import without_weights
from optnas.trials.metric import Metric
from optnas.units import size

if TYPE_CHECKING:
    from optnas.running.runner import Outcome

SHOWN = 5
"""How many networks are shown, best first."""


def status_fields(handle: OpenStudy) -> dict[str, Any]:
    """How far a search is."""
    study = handle.study
    trials = study.get_trials(deepcopy=False)
    ended = counted_trials(study)
    running = [t for t in trials if t.state == TrialState.RUNNING]
    best = _best_trial(handle)
    return {
        "study": study.study_name,
        "sampler": handle.config.sampler.name,
        "finished": handle.is_finished,
        "trials": dict(Counter(trial.state.name.lower() for trial in trials)),
        "phases": dict(Counter(trial.user_attrs.get(PHASE, "-") for trial in ended)),
        "running": [
            {
                "number": trial.number,
                "phase": trial.user_attrs.get(PHASE),
                "epochs": len(trial.intermediate_values),
            }
            for trial in running
        ],
        "used": vars(used_budget(study)),
        "budget": handle.config.budget.model_dump(),
        "metric": metric_of(study).key,
        "best_value": None if best is None else best["value"],
        "weights": _weights_fields(handle),
        "data": seen_fields(study),
    }


def status_text(handle: OpenStudy) -> str:
    """The same, as a table."""
    fields = status_fields(handle)
    spent, budget = fields["used"], fields["budget"]
    best = fields["best_value"]
    rows = {
        "study": f"{fields['study']} ({fields['sampler']})",
        "state": "finished" if fields["finished"] else "not finished",
        "trials": _counts(fields["trials"]),
        "phases": _counts(fields["phases"]),
        "running": ", ".join(
            f"trial {r['number']} ({r['phase']}, {r['epochs']} epochs)" for r in fields["running"]
        )
        or "nothing",
        "used": ", ".join(
            f"{_amount(spent[name])}{f' of {budget[name]}' if budget[name] else ''} {name}"
            for name in ("trials", "epochs", "hours")
        ),
        "best": "-" if best is None else f"{metric_of(handle.study).name} {best:.4f}",
        "weights": _weights_text(fields["weights"]),
    }
    lines = seen_lines(handle.study)
    if lines:
        rows["data"] = f"\n{'':<9}".join(lines)
    return "\n".join(f"{name:<8} {value}" for name, value in rows.items())


def best_fields(handle: OpenStudy) -> dict[str, Any]:
    """The network found, and the trial with the best value."""
    found = conclusions(handle, SHOWN)
    return {
        "study": handle.study.study_name,
        "finished": handle.is_finished,
        "found": [_conclusion_fields(handle, conclusion) for conclusion in found],
        "best_trial": _best_trial(handle),
    }


def best_text(handle: OpenStudy, target: str) -> str:
    """The same, with how to train and load it.

    Args:
        handle: The study.
        target: How commands name this study.
    """
    found, best = conclusions(handle, SHOWN), _best_trial(handle)
    if not found:
        why = "" if best is None else f": trial {best['number']} names no architecture"
        return f"No network has been trained yet{why}. Next: optnas run {target}"
    first = found[0]
    lines = [_headline(handle, first), _describe(handle, first)]
    for other in found[1:]:
        lines += ["", f"Next, from trial {other.number}:", _describe(handle, other)]
    if best is not None and best["number"] not in {c.number for c in found}:
        value = f"{best['value']:.4f} (trial {best['number']}"
        trial = handle.study.get_trials(deepcopy=False)[best["number"]]
        named = handle.config.search_space.named_by(trial) is not None
        value += ")" if named else ", which names no architecture)"
        lines += ["", f"The best value of any trial is {value}."]
    lines += [
        "",
        f"train it: optnas retrain {target}",
        f"load it:  model = optnas.load({str(network_folder(handle))!r})",
    ]
    return "\n".join(lines)


def ending_text(outcome: "Outcome", command: str) -> str:
    """What a run says at its end."""
    handle = outcome.opened
    endings = {
        "finished": "The search is finished.",
        "budget": "The budget is used up"
        f"{' before the search is finished' if handle.has_end else ''}; "
        f"raise it and run `{command}` to go on.",
        "interrupted": f"Interrupted; nothing is lost. `{command}` goes on.",
        "terminated": f"Terminated; nothing is lost. `{command}` goes on.",
    }
    text = endings[outcome.ending]
    if outcome.ending not in ("finished", "budget"):
        return text
    if outcome.best is None and outcome.ending == "budget":
        return f"{text} No network has been trained yet."
    if outcome.best is None:
        return f"{text} No network could be trained: see the reasons above."
    command = command.removeprefix("optnas run ").removeprefix("optnas resume ")
    return f"{text}\n\n{best_text(handle, command)}"


def known_fields() -> dict[str, dict[str, str]]:
    """Everything that a study file can name, with one line each."""
    fields = {
        f"{kind}s": {name: _summary(plugins.load(kind, name)) for name in plugins.names(kind)}
        for kind in ("sampler", "pruner", "objective")
    }
    fields["spaces"] = {name: _summary(space) for name, space in SPACES.items()}
    fields["data"] = {
        name: data_set(load_entry("data set", "optnas.data", name)).description
        for name in plugins.names("data")
    }
    return fields


def known_text(fields: dict[str, dict[str, str]]) -> str:
    """The same, as tables."""
    tables = []
    for title, rows in fields.items():
        tables.append("\n".join([title, *(f"  {name:<20} {line}" for name, line in rows.items())]))
    return "\n\n".join(tables)


def _summary(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _headline(handle: OpenStudy, conclusion: Conclusion) -> str:
    name = handle.study.study_name
    if conclusion.settled:
        return f"The search of {name!r} has found (trial {conclusion.number}):"
    why = "the search is not finished" if handle.has_end else "this sampler has no end of its own"
    return f"The best network of {name!r} so far (trial {conclusion.number}; {why}):"


def _describe(handle: OpenStudy, conclusion: Conclusion) -> str:
    fields = _conclusion_fields(handle, conclusion)
    architecture = ", ".join(f"{k} {_short(v)}" for k, v in fields["architecture"].items())
    cost = "" if fields["params"] is None else f", {fields['params']:,} parameters"
    metric = metric_of(handle.study).name
    guess = "; a guess could have it" if fields["is_chance"] else ""
    return (
        f"  {architecture}{cost}\n"
        f"  validation {metric} {conclusion.value:.4f} after {fields['epochs']} epochs of search"
        f"{guess}"
    )


def _short(value: Any) -> str:
    """A sequence as runs: ``separable x4, conv x2``."""
    if not isinstance(value, tuple):
        return str(value)
    if value and isinstance(value[0], dict):  # Too much for a line: `--json` tells.
        return f"({len(value)})"
    runs: list[tuple[Any, int]] = []
    for item in value:
        if runs and runs[-1][0] == item:
            runs[-1] = (item, runs[-1][1] + 1)
        else:
            runs.append((item, 1))
    return "(" + ", ".join(f"{v} x{n}" if n > 1 else str(v) for v, n in runs) + ")"


def _weights_fields(handle: OpenStudy) -> dict[str, Any]:
    """The disk space of the training states, whose stay, and whose weights are lost and why."""
    study = handle.study
    trials = study.get_trials(deepcopy=False)
    gone = without_weights(study._storage, study._study_id)
    stay = needed(study, trials, handle.keep) - gone.keys()
    return {
        "bytes": _used_bytes(handle),
        "trials": sorted(n for n in stay if checkpoint_of(trials[n]) is not None),
        "lost": {str(n): why for n, why in sorted(gone.items()) if why != UNNEEDED},
    }


def _used_bytes(handle: OpenStudy) -> int | None:
    """Bytes of the study's training states; None if the place cannot be read at present."""
    try:
        store = open_artifacts(handle.config.artifacts, create=False)
        return handle.checkpoints(store).used_bytes()
    except (StorageError, OSError):
        return None


def _weights_text(fields: dict[str, Any]) -> str:
    space = "unknown space" if fields["bytes"] is None else size(fields["bytes"])
    number = len(fields["trials"])
    lost = f"; lost: {', '.join(fields['lost'])}" if fields["lost"] else ""
    return f"{space}, of {number} trial{'' if number == 1 else 's'}{lost}"


def _conclusion_fields(handle: OpenStudy, conclusion: Conclusion) -> dict[str, Any]:
    record = handle.study.user_attrs[RECORD]
    trial = handle.study.get_trials(deepcopy=False)[conclusion.number]
    metric = metric_of(handle.study)
    return {
        "architecture": dataclasses.asdict(conclusion.architecture),
        "params": count_params(
            handle.config.search_space,
            conclusion.architecture,
            record["in_channels"],
            record["classes"],
        ),
        "trial": conclusion.number,
        "value": conclusion.value,
        "epochs": len(trial.intermediate_values) or trial.user_attrs.get("epochs_trained", 0),
        "settled": conclusion.settled,
        "metric": metric.key,
        "is_chance": _is_chance(handle, metric, conclusion.value),
    }


def _is_chance(handle: OpenStudy, metric: Metric, value: float | None) -> bool | None:
    """Whether a guess could have such a validation metric; None where nobody can tell."""
    counts = (seen_fields(handle.study) or {}).get("counts") or {}
    judgement = next((c for c in map(counts.get, ("validation", "test")) if c and sum(c)), None)
    if value is None or not judgement or not 0 <= value <= 1:
        return None
    return is_chance(value, judgement, metric.key)


def _best_trial(handle: OpenStudy) -> dict[str, Any] | None:
    try:
        trial = handle.study.best_trial
    except ValueError:  # None is complete and feasible.
        return None
    return {"number": trial.number, "value": trial.value, "params": trial.params}


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"


def _amount(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}"
