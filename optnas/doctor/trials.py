"""What may be wrong with a study's trials: without a worker, run twice, never run, unlike."""

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from optnas._version import __version__
from optnas.running.loop import is_abandoned
from optnas.study.budget import may_start
from optnas.study.opening import OpenStudy
from optnas.trials.attributes import CONTINUES, EPOCHS_TRAINED, LEASE, LOST
from optnas.trials.claims import Claim
from optnas.trials.failures import explain_loss, fail_as_lost, is_lost
from optnas.trials.leases import is_local, lease_expired, worker_is_dead

SILENCE = datetime.timedelta(hours=24)
"""A trial that promises nothing may be silent for so long, and ten times as long as any other."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong with a study.

    Args:
        kind: Its kind, in a word.
        what: What is wrong: a sentence without its full stop.
        cure: What ``mend`` comes to, or else what a person can do.
        mend: Puts it right, unless that is no longer called for; None if nothing can.
        trials: Numbers of the trials concerned.
    """

    kind: str
    what: str
    cure: str
    mend: Callable[[], None] | None = None
    trials: tuple[int, ...] = ()


def without_worker(handle: OpenStudy) -> Iterator[Finding]:
    """Trials that are running, but whose worker is gone or has forgotten them."""
    study, max_retries = handle.study, handle.config.max_retries
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        reason = abandonment(trial, trials)
        if reason is None:
            continue
        kind, cause = explain_loss(trial, trials, max_retries, reason)
        if kind != LOST:
            cure = f"recorded as failed: {cause}"
        elif Claim.of(trial) is None and not trial.params:
            cure = "recorded as lost; it had not begun"
        else:
            cure = "recorded as lost, so that the search goes on with it"
        what = f"trial {trial.number} is running, but {reason}"
        mend = functools.partial(_lose, study, trial.number, max_retries)
        yield Finding("running", what, cure, mend, (trial.number,))


def abandonment(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> str | None:
    """Why a running trial has no worker any more, or None if it may have one.

    A process that has begun another trial since has forgotten this one, if it breaks the promise
    of its lease, or if it promises nothing and the trial is overdue. Nothing else is said against
    a process that lives on this host. Elsewhere, an overdue trial without a promise is given up.

    Args:
        trial: The trial.
        trials: All trials of the study, by number.
    """
    if trial.state != TrialState.RUNNING:
        return None
    if worker_is_dead(trial) or is_abandoned(trial):
        return "its worker is gone"
    overdue, promises = _is_overdue(trial, trials), _promises(trial)
    since = _begun_since(trial, trials)
    if since is not None and not promises and (lease_expired(trial) or overdue):
        return f"its worker has begun trial {since} since"
    if overdue and not promises and not is_local(trial):
        return "nothing was heard of its worker for a day and more"
    return None


def run_twice(handle: OpenStudy) -> Iterator[Finding]:
    """Candidates that were given out twice, and lost trials with which two others go on."""
    trials = handle.study.get_trials(deepcopy=False)
    cure = "Nothing is to be done: the first one counts"
    ended: dict[Any, list[int]] = {}
    continuing: dict[int, list[int]] = {}
    for trial in trials:
        claim, lost = Claim.of(trial), trial.user_attrs.get(CONTINUES)
        if claim is not None and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            ended.setdefault(claim.index, []).append(trial.number)
        # Queued copies end by themselves if they come too late.
        begun = trial.params and not is_lost(trial) and trial.state != TrialState.WAITING
        if begun and lost is not None and is_lost(trials[lost]):
            continuing.setdefault(lost, []).append(trial.number)
    doubles = [numbers for numbers in ended.values() if len(numbers) > 1]
    for numbers in doubles:
        what = f"{trial_list(numbers)} have trained the same candidate to the end"
        yield Finding("duplicate", what, cure, trials=tuple(numbers))
    for lost, numbers in continuing.items():
        if len(numbers) > 1 and numbers not in doubles:
            what = f"{trial_list(numbers)} all go on with trial {lost}, which was lost"
            yield Finding("duplicate", what, cure, trials=tuple(numbers))


def without_network(handle: OpenStudy) -> Iterator[Finding]:
    """Complete trials that were trained, but say no more what; people may add others."""
    for trial in handle.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        trained = EPOCHS_TRAINED in trial.user_attrs or Claim.of(trial) is not None
        if trained and handle.config.search_space.named_by(trial) is None:
            what = f"trial {trial.number} is complete, but its parameters name no network"
            cure = "Restore a copy of the storage: as it is, nothing is learnt from the trial"
            yield Finding("parameters", what, cure, trials=(trial.number,))


def never_started(handle: OpenStudy) -> Iterator[Finding]:
    """Queued trials that nobody will start."""
    study = handle.study
    trials = study.get_trials(deepcopy=False)
    waiting = tuple(t.number for t in trials if t.state == TrialState.WAITING)
    if not waiting:
        return
    subject = f"{trial_list(waiting)} {'waits' if len(waiting) == 1 else 'wait'}"
    if handle.is_finished:
        mend = functools.partial(_end_waiting, study, waiting)
        what = f"{subject}, but the search is finished"
        yield Finding("waiting", what, "ended as pruned, without parameters", mend, waiting)
    elif not may_start(handle.config.budget, trials):
        what = f"{subject}, but the budget is used up"
        yield Finding("waiting", what, "Raise the budget and run the study again", trials=waiting)


def mixed_environments(handle: OpenStudy) -> Iterator[Finding]:
    """Trials that ran with different versions or on different devices, or unlike what is here."""
    trials = handle.study.get_trials(deepcopy=False)
    for package, here in _installed().items():
        used = _grouped((t, t.user_attrs.get("versions", {}).get(package)) for t in trials)
        if any(_release(package, version) != _release(package, here) for version in used):
            what = f"{_shown(used, f'with {package} ')}; here it is {here}"
            yield Finding("versions", what, "Results of different versions may differ")
    devices = _grouped((t, t.user_attrs.get("device")) for t in trials)
    if len(devices) > 1:
        what = _shown(devices, "on ")
        yield Finding("devices", what, "Their results are not comparable to the last digit")


def trial_list(numbers: Sequence[int]) -> str:
    """Trials by number: ``trial 3``, ``trials 0-4, 7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"trial{'' if len(numbers) == 1 else 's'} {', '.join(texts)}"


def _promises(trial: FrozenTrial) -> bool:
    """Whether there is a promise in the trial's lease that is not broken."""
    promised = trial.system_attrs.get(LEASE, {}).get("until") is not None
    return promised and not lease_expired(trial)


def _begun_since(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int | None:
    """Number of a later trial of the same worker process, or None."""
    worker = _worker(trial)
    later = (other.number for other in trials[trial.number + 1 :] if _worker(other) == worker)
    return None if worker is None else next(later, None)


def _worker(trial: FrozenTrial) -> tuple[Any, ...] | None:
    lease = trial.system_attrs.get(LEASE)
    return None if lease is None else (lease["host"], lease["pid"], lease["started"])


def _is_overdue(trial: FrozenTrial, trials: Iterable[FrozenTrial]) -> bool:
    if trial.datetime_start is None:
        return False
    ended = (other for other in trials if other.state in (TrialState.COMPLETE, TrialState.PRUNED))
    zero = datetime.timedelta()
    longest = max((other.duration or zero for other in ended), default=zero)
    return datetime.datetime.now() - trial.datetime_start > max(SILENCE, 10 * longest)


def _lose(study: optuna.Study, number: int, max_retries: int) -> None:
    trials = study.get_trials(deepcopy=False)
    reason = abandonment(trials[number], trials)
    if reason is not None:  # Its worker may have been heard of meanwhile.
        kind, cause = explain_loss(trials[number], trials, max_retries, reason)
        fail_as_lost(study._storage, trials[number], cause, kind)


def _end_waiting(study: optuna.Study, numbers: Iterable[int]) -> None:
    trials = study.get_trials(deepcopy=False)
    for trial_id in (trials[number]._trial_id for number in numbers):
        with contextlib.suppress(UpdateFinishedTrialError):
            # As a worker takes it, so that none does at the same time.
            if study._storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                study._storage.set_trial_state_values(trial_id, TrialState.PRUNED)


def _installed() -> dict[str, str]:
    """Versions of what results depend on; torch is not loaded for that."""
    return {
        "optnas": __version__,
        "optuna": optuna.__version__,
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
    }


def _release(package: str, version: str) -> str:
    """The part of a version that results may depend on: no build, nor a repair of Python."""
    public = version.partition("+")[0]
    return public.rpartition(".")[0] if package == "python" else public


def _grouped(pairs: Iterable[tuple[FrozenTrial, str | None]]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for trial, value in pairs:
        if value is not None:
            groups.setdefault(value, []).append(trial.number)
    return groups


def _shown(groups: dict[str, list[int]], preposition: str) -> str:
    return ", ".join(f"{trial_list(n)} ran {preposition}{value}" for value, n in groups.items())
