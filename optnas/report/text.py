"""What commands print about studies: as text for people, as fields for programs."""

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from optnas.config import plugins
from optnas.config.contract import data_set
from optnas.errors import UserError
from optnas.extensions.describing import described
from optnas.extensions.importing import load_entry
from optnas.report.meaning import could_be_guessed, remarks
from optnas.spaces import SPACES
from optnas.spaces.words import in_words
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import UNNEEDED, checkpoint_of
from optnas.storage.retention import needed
from optnas.storage.urls import StorageError
from optnas.study.budget import may_start, used_budget
from optnas.study.data import seen_fields, seen_lines
from optnas.study.folders import network_folder
from optnas.study.networks import params_of
from optnas.study.opening import Conclusion, OpenStudy, conclusions, counted_trials, is_counted
from optnas.study.record import metric_of
from optnas.trials.attributes import CONTINUES, PHASE, STEP
from optnas.trials.lineage import without_weights
from optnas.trials.outcomes import epochs_kept, is_interrupted, outcome
from optnas.units import duration, plural, size

if TYPE_CHECKING:
    from optnas.running.runner import Outcome

SHOWN = 5
"""How many networks are shown, best first."""
GOES_ON = "not finished"
"""The state of a search that may go on."""


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
        "outcomes": dict(Counter(map(outcome, trials))),
        "phases": dict(Counter(trial.user_attrs.get(PHASE, "-") for trial in ended)),
        "running": [
            {
                "number": trial.number,
                "phase": trial.user_attrs.get(PHASE),
                "step": trial.user_attrs.get(STEP),
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


def status_text(handle: OpenStudy, target: str = "") -> str:
    """The same, as a table, and the next command.

    Args:
        handle: The study.
        target: How commands name this study; nothing leaves the command out.
    """
    fields = status_fields(handle)
    spent, budget = fields["used"], fields["budget"]
    best = fields["best_value"]
    rows = {
        "study": f"{fields['study']} ({fields['sampler']})",
        "state": state_text(handle),
        "trials": _counts(fields["outcomes"]),
        "phases": _counts(fields["phases"]),
        "running": ", ".join(
            f"trial {r['number']} ({_where(r)}{plural(r['epochs'], 'epoch')})"
            for r in fields["running"]
        )
        or "nothing",
        "used": ", ".join(
            f"{_amount(spent[name])}{f' of {budget[name]}' if budget[name] else ''} {name}"
            if budget[name] or name != "hours"
            else f"{duration(3600 * spent[name])} of training"
            for name in ("trials", "epochs", "hours")
        ),
        "best": "-" if best is None else f"{metric_of(handle.study).name} {best:.4f}",
        "weights": _weights_text(fields["weights"]),
    }
    lines = seen_lines(handle.study)
    if lines:
        rows["data"] = f"\n{'':<9}".join(lines)
    if target:
        rows["next"] = next_command(handle, target)
    return "\n".join(f"{name:<8} {value}" for name, value in rows.items())


def _where(running: dict[str, Any]) -> str:
    """Where a strategy stands with a trial, if it says so."""
    step = running["step"] or running["phase"]
    return f"{step}; " if step else ""


def next_command(handle: OpenStudy, target: str) -> str:
    """What goes on with a study, or shows what a finished one has found.

    Args:
        handle: The study.
        target: How commands name this study.
    """
    goes_on = "resume" if "://" in target else "run"
    return f"optnas {goes_on if state_text(handle) == GOES_ON else 'best'} {target}"


def state_text(handle: OpenStudy) -> str:
    """Whether a search is finished, or may go on."""
    if handle.is_finished:
        return "finished"
    trials = handle.study.get_trials(deepcopy=False)
    runs = any(trial.state == TrialState.RUNNING for trial in trials)
    return GOES_ON if runs or may_start(handle.config.budget, trials) else "budget used up"


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
    lines += ["", *said] if (said := remarks(handle, found[:SHOWN], target)) else []
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


def ending_text(outcome: "Outcome", command: str, target: str) -> str:
    """What a run says at its end.

    Args:
        outcome: How it ended.
        command: The command that goes on with it.
        target: How other commands name the study.
    """
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
        return "\n".join([text, *_kept_lines(handle)])
    if outcome.best is None and outcome.ending == "budget":
        return f"{text} No network has been trained yet."
    if outcome.best is None:
        return f"{text} No network could be trained: see the reasons above."
    return f"{text}\n\n{best_text(handle, target)}"


def _kept_lines(handle: OpenStudy) -> list[str]:
    """What an interrupted study keeps of the trials that were running."""
    trials = handle.study.get_trials(deepcopy=False)
    continued = {trial.user_attrs.get(CONTINUES) for trial in trials}
    kept = []
    for trial in trials:
        if is_interrupted(trial) and trial.number not in continued:
            mark = checkpoint_of(trial)
            epochs = epochs_kept(trial, None if mark is None else mark["epoch"])
            planned = trial.params.get("epochs") or handle.config.train.epochs
            what = f"{epochs:.3g} of {planned} epochs" if planned else f"{epochs:.3g} epochs"
            kept.append(f"trial {trial.number} {f'after {what}' if epochs else 'begins again'}")
    finished = plural(sum(map(is_counted, trials)), "finished trial")
    return [f"Kept: {'; '.join([finished, *kept])}."]


def known_fields() -> dict[str, dict[str, str]]:
    """Everything that a study file can name, with one line each."""
    fields = {
        f"{kind}s": {
            name: described(f"optnas.{kind}s", name) or _summary(plugins.load(kind, name))
            for name in plugins.names(kind)
        }
        for kind in ("sampler", "pruner", "objective")
    }
    fields["spaces"] = {name: _summary(space) for name, space in SPACES.items()}
    fields["data"] = {
        name: described("optnas.data", name)
        or data_set(load_entry("data set", "optnas.data", name)).description
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
    lines = in_words(conclusion.architecture)
    if fields["params"] is not None:
        lines[0] += f"; {plural(fields['params'], 'parameter')}"
    metric = metric_of(handle.study).name
    guess = "; a guess could have it" if fields["is_chance"] else ""
    epochs = plural(fields["epochs"], "epoch")
    lines.append(f"validation {metric} {conclusion.value:.4f} after {epochs} of search{guess}")
    return "\n".join(f"  {line}" for line in lines)


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
    return f"{space}, of {plural(number, 'trial')}{lost}"


def _conclusion_fields(handle: OpenStudy, conclusion: Conclusion) -> dict[str, Any]:
    trial = handle.study.get_trials(deepcopy=False)[conclusion.number]
    metric = metric_of(handle.study)
    return {
        "architecture": dataclasses.asdict(conclusion.architecture),
        "params": params_of(handle, conclusion.architecture, trial.user_attrs),
        "trial": conclusion.number,
        "value": conclusion.value,
        "epochs": len(trial.intermediate_values) or trial.user_attrs.get("epochs_trained", 0),
        "settled": conclusion.settled,
        "metric": metric.key,
        "is_chance": could_be_guessed(handle, conclusion.value),
    }


def _best_trial(handle: OpenStudy) -> dict[str, Any] | None:
    try:
        # A copy would be read whole, and with it every epoch of every trial.
        trial = handle.study._get_best_trial(deepcopy=False)
    except UserError:
        raise
    except ValueError:  # None is complete and feasible.
        return None
    return {"number": trial.number, "value": trial.value, "params": dict(trial.params.items())}


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"


def _amount(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.2f}" if value >= 0.1 or not value else f"{value:.2g}"
