"""Searches whose worker processes are killed at random instants, held to undisturbed ones."""

import contextlib
import dataclasses
import math
import multiprocessing
import os
import random
import sys
import time
import warnings
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas.config.file import load_study_file
from optnas.config.keys import Workers
from optnas.doctor.examination import diagnose
from optnas.errors import UserError
from optnas.running.runner import run
from optnas.samplers._replay import ReplaySampler
from optnas.study.opening import OpenStudy, open_existing
from optnas.trials.attributes import EDGE_WEIGHTS, FAILURE, LOST, OPERATION_WEIGHTS
from optnas.trials.claims import Claim
from optnas.trials.lineage import parent_of

# The server imports what searches need, once: a worker is there in milliseconds, so that most
# instants are within a search and not within an import.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "optnas.running.runner",
        "optnas.objectives.stage_classification",
        "optnas.objectives.supernet_classification",
        "optnas.objectives.tabular",
        "optnas.samplers.econas",
        "optnas.samplers.ftso",
        "optnas.samplers.randgrow",
        # What these import when they are used.
        "alembic.command",
        "psycopg",
        "sklearn.datasets",
        "sqlalchemy.dialects.sqlite",
        "torch._dynamo",
        "torch.utils.flop_counter",
    ]
)
PATIENCE = 600.0
"""Seconds after which a search that does not end is stuck."""

# Nobody gives a candidate up, however often it is lost.
COMMON = """\
study: killed
data: {name: digits, classes: [0, 1, 2, 3], samples: 0.4}
max_retries: 1000
"""
STUDIES = {
    "macro-micro": COMMON
    + """\
space: {depth: [2, 3], width: [4, 8]}
sampler: {name: macro_micro, epochs: 3, micro_epochs: 2, patience: 5}
train: {lr: 0.1, batch_size: 32}
""",
    "randgrow": COMMON
    + """\
space: {name: growth, cells: 1, channels: 4}
sampler: {name: randgrow, increments: 1, patience: 5}
train: {lr: 0.1, epochs: 3, initial_epochs: 4}
budget: {trials: 6}
""",
    "econas": COMMON
    + """\
space: {name: cell, nodes: 2}
sampler: {name: econas, initial: 4, cycles: 1, parents: [2, 1, 1], patience: 5}
pruner: {name: hierarchical, epochs: 1}
network: {cells: 3, channels: 4}
proxy: c0r0s0e3
""",
    "ftso": COMMON
    + """\
space: {name: cell, nodes: 2}
sampler: {name: ftso, operators: gradient, patience: 5}
objective:
  name: supernet_classification
  search: {epochs: 3, operator_epochs: 2, cells: 3, channels: 4, batch_size: 32}
network: {cells: 3, channels: 4}
train: {lr: 0.1, epochs: 2}
""",
}
"""Study files of tiny searches on real images."""


class Wrong(AssertionError):
    """A search that was disturbed did not end as it should."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a search ended.

    Args:
        found: The architecture found.
        results: What the strategy asked for and was told, in its order: a candidate's
            architecture, that of its parent, its value and its learning curve.
        seconds: How long it took.
        kills: Workers killed.
        lost: Trials that were lost.
        extra: Candidates trained because a guess did not hold.
        processor: Seconds of processor time of workers that were not killed.
    """

    found: Any
    results: list[tuple[Any, ...]]
    seconds: float
    kills: int = 0
    lost: int = 0
    extra: int = 0
    processor: float = 0.0


def search(file: Path, *, workers: int = 1) -> Ended:
    """Run a search, undisturbed; the time is that of the search alone."""
    server = CONTEXT.Process(target=_begin)
    server.start()
    server.join()
    return Killer(file, random.Random(0), workers=workers).search(kills=0, span=1.0)


def ended(file: Path, seconds: float) -> Ended:
    """How a search ended that ran otherwise.

    Raises:
        Wrong: If something does not hold that holds of every search.
    """
    return Killer(file, random.Random(0))._ended(seconds, 0)


class Killer:
    """Runs a search with several workers, and kills them.

    Args:
        file: The study file; the study is new.
        rng: Says when, and whom.
        workers: How many run at any time: one that is killed is replaced.
        streams: How many trials each trains at once.
    """

    def __init__(
        self, file: Path, rng: random.Random, *, workers: int = 1, streams: int = 1
    ) -> None:
        self._file = file
        self._rng = rng
        self._count = workers
        self._streams = streams
        self._workers: list[BaseProcess] = []
        self._handle: OpenStudy | None = None
        self._finished: dict[int, tuple[TrialState, float | None]] = {}

    def search(self, *, kills: int, span: float) -> Ended:
        """Run the search to its end, killing workers until there were ``kills``, or it ends.

        Args:
            kills: How many workers are killed at most.
            span: Seconds between two kills, at most.

        Raises:
            Wrong: If it ends otherwise than a search should.
        """
        start, killed = time.monotonic(), 0
        try:
            self._workers = [self._start() for _ in range(self._count)]
            while self._workers:
                until = self._rng.uniform(0, span) if killed < kills else None
                wait([w.sentinel for w in self._workers], timeout=1.0 if until is None else until)
                if self._collect() and until is not None and self._workers:
                    self._kill()
                    killed += 1
                if time.monotonic() - start > PATIENCE:
                    raise Wrong(f"{self._file}: stuck for {PATIENCE:.0f} seconds")
        finally:
            for worker in self._workers:
                worker.kill()
                worker.join()
        return self._ended(time.monotonic() - start, killed)

    def _start(self) -> BaseProcess:
        process = CONTEXT.Process(target=_work, args=(str(self._file), self._streams))
        process.start()
        return process

    def _collect(self) -> bool:
        """Take leave of workers that have ended; whether the others are to go on."""
        for worker in [w for w in self._workers if not w.is_alive()]:
            worker.join()
            self._workers.remove(worker)
            if worker.exitcode != 0:
                raise Wrong(f"{self._file}: a worker ended with {worker.exitcode}: {self._log()}")
            self._count = 0  # The search is over: nobody is replaced any more.
        return self._count > 0

    def _kill(self) -> None:
        victim = self._rng.choice(self._workers)
        victim.kill()
        victim.join()
        self._workers.remove(victim)
        self._remember()
        self._workers.append(self._start())

    def _log(self) -> str:
        path = self._file.with_suffix(".log")
        return path.read_text() if path.exists() else ""

    def _remember(self) -> None:
        """What is finished now stays as it is."""
        if self._handle is None:
            with contextlib.suppress(UserError):  # Killed before there was a study.
                self._handle = open_existing(str(self._file))
        trials = self._handle.study.get_trials(deepcopy=False) if self._handle else []
        for trial in trials:
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._finished.setdefault(trial.number, (trial.state, trial.value))

    def _ended(self, seconds: float, killed: int) -> Ended:
        handle = open_existing(str(self._file))
        trials = handle.study.get_trials(deepcopy=False)
        self._check(trials)
        answers = _answers(handle)
        trained = [t for t in trials if t.params and t.user_attrs.get(FAILURE) != LOST]
        return Ended(
            found=handle.study.sampler.found(handle.study),  # type: ignore[attr-defined]
            results=[_result(handle, trial, trials) for trial in answers],
            seconds=seconds,
            kills=killed,
            lost=sum(t.user_attrs.get(FAILURE) == LOST for t in trials),
            extra=len(trained) - len(answers),
            processor=self._processor(),
        )

    def _processor(self) -> float:
        path = self._file.with_suffix(".seconds")
        return math.fsum(map(float, path.read_text().split())) if path.exists() else 0.0

    def _check(self, trials: list[FrozenTrial]) -> None:
        """What holds of every search, whoever was killed."""
        said = self._log()
        if said:
            raise Wrong(f"{self._file}: a worker said {said}")
        running = [t.number for t in trials if not t.state.is_finished()]
        if running:
            raise Wrong(f"{self._file}: trials {running} are left running")
        for number, (state, value) in self._finished.items():
            if (trials[number].state, trials[number].value) != (state, value):
                raise Wrong(f"{self._file}: trial {number} was finished and is not any more")
        claims = [
            claim.index
            for trial in trials
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            and (claim := Claim.of(trial)) is not None
        ]
        if len(set(claims)) != len(claims):
            raise Wrong(f"{self._file}: a candidate was trained twice to the end")
        # States that nobody refers to are all that a killed worker may leave behind. How much room
        # there is on the disk is not the search's doing.
        for fix, allowed in ((True, {"orphans"}), (False, set())):
            left = {treated.finding.kind for treated in diagnose(str(self._file), fix=fix)[1]}
            if not left <= allowed | {"space"}:
                raise Wrong(f"{self._file}: the doctor finds {left}")


def differences(disturbed: Ended, undisturbed: Ended, *, workers: int = 1) -> str | None:
    """How a search differs from the undisturbed one; None if it does not."""
    if disturbed.found != undisturbed.found:
        return f"found {disturbed.found} instead of {undisturbed.found}"
    if disturbed.results != undisturbed.results:
        pairs = zip(disturbed.results, undisturbed.results, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), None)
        lengths = f"{len(disturbed.results)} results instead of {len(undisturbed.results)}"
        return f"{lengths}; the first that differ: {first}"
    if workers == 1 and disturbed.extra:
        return f"{disturbed.extra} candidates more were trained"
    return None


def _answers(handle: OpenStudy) -> list[FrozenTrial]:
    """The trials that answered the strategy, in the order in which it asked for them."""
    study, sampler = handle.study, handle.study.sampler
    trials = study.get_trials(deepcopy=False)
    if isinstance(sampler, ReplaySampler):
        path = sampler.replay(sampler._history(study)).answered
        numbers = dict.fromkeys(result.number for _, result in path)
        return [trials[number] for number in numbers if number is not None]
    by_claim = {
        claim.index: trial
        for trial in trials
        if (claim := Claim.of(trial)) is not None and trial.user_attrs.get(FAILURE) != LOST
    }
    return [by_claim[index] for index in sorted(by_claim)]


def _result(handle: OpenStudy, trial: FrozenTrial, trials: list[FrozenTrial]) -> tuple[Any, ...]:
    """What a trial came to, without the numbers of trials, which losses shift."""
    space, parent = handle.config.make_space(), parent_of(trial)
    before = None if parent is None else space.from_trial(trials[parent])
    architecture: Any = space.named_by(trial)
    if architecture is None:  # It trained a super-network.
        weights = (EDGE_WEIGHTS, OPERATION_WEIGHTS)
        architecture = (trial.params, [trial.user_attrs.get(name) for name in weights])
    return (
        architecture,
        before,
        trial.state,
        trial.value,
        sorted(trial.intermediate_values.items()),
    )


def _begin() -> None:
    """What the first worker does, so that whoever comes next finds the server ready."""


def _work(file: str, streams: int) -> None:
    """What a worker does; whatever it says is kept beside the study file."""
    log = os.open(Path(file).with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stderr.fileno())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    run(load_study_file(file), workers=Workers(count=1, streams=streams))
    with Path(file).with_suffix(".seconds").open("a") as seconds:
        seconds.write(f"{time.process_time()}\n")
