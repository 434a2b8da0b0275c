"""What a search costs beside its training: deciding, claiming, storing, keeping leases.

    python benchmarks/orchestration.py [--storage URL] [--quick] [--output FILE]

Deciding: the time of a trial of a strategy in memory, from asking for it to telling its value,
beside one of TPE on the same space with as many trials before it. All of Optuna's own work for a
trial is in both. Running: the time of a whole trial of `optnas run` whose objective does nothing
but report, on a storage with trials in it, beside plain Optuna with the same parameters, reports
and storage.
"""

import functools
import itertools
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from _harness import Cases, Row, Turn, arguments, measure, row, timed
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState, create_trial

from optnas.config.file import study_from_dict
from optnas.running.runner import run
from optnas.samplers import (
    EcoNASSampler,
    FTSOSampler,
    HierarchicalPruner,
    MacroMicroSampler,
    RandGrowSampler,
    StageWiseSampler,
)
from optnas.spaces import (
    Architecture,
    CellSpace,
    ChainSpace,
    GrowthSpace,
    NasBench201Space,
    Space,
    StageSpace,
    proposal,
)
from optnas.spaces.topology import Topology, TopologySpace
from optnas.storage.opening import open_storage
from optnas.trials.attributes import PHASE, TOPOLOGY_PHASE

MEASURED = 20
"""The last trials, which are timed."""
FEW = 4
"""The same where it must be quick."""


class Edges:
    """The edges of a DARTS cell, for which FTSO has a sampler search in its first phase."""

    def __init__(self) -> None:
        self.cells = CellSpace()
        self._topologies = TopologySpace(self.cells)

    def suggest(self, trial: Trial) -> Topology:
        """The edges of a trial."""
        trial.suggest_categorical(PHASE, (TOPOLOGY_PHASE,))
        return self._topologies.suggest(trial)


def _macro_micro(space: Space[Any]) -> BaseSampler:
    return MacroMicroSampler(space, in_channels=3, classes=10, seed=0)


def _ftso(edges: Edges) -> BaseSampler:
    options: dict[str, Any] = {"topology_sampler": "random", "topology_trials": 10**6}
    return FTSOSampler(edges.cells, topology_search="discrete", seed=0, **options)


STRATEGIES: dict[str, tuple[Callable[[], Any], Callable[[Any], BaseSampler]]] = {
    "macro-micro": (ChainSpace, _macro_micro),
    "RandGrow": (GrowthSpace, lambda space: RandGrowSampler(space, seed=0)),
    # Deep enough for as many trials as are measured.
    "stage-wise": (
        lambda: StageSpace(modules=(1, 200)),
        lambda space: StageWiseSampler(space, iterations=100, seed=0),
    ),
    "EcoNAS": (CellSpace, lambda space: EcoNASSampler(space, seed=0)),
    "FTSO": (Edges, _ftso),
}


def accuracy(architecture: Architecture | Topology) -> float:
    """A made-up accuracy: deeper is better, the rest is as good as random."""
    depth = getattr(architecture, "depth", 0)
    rest = np.random.default_rng(abs(hash(architecture.to_json())) % 2**32).random()
    return float(1 - 0.95 ** (depth / 4 + rest))


def study_of(space: Any, sampler: BaseSampler, trials: int) -> optuna.Study:
    """A study in memory with complete trials that others made."""
    pruner = HierarchicalPruner(epochs=1) if isinstance(sampler, EcoNASSampler) else None
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(0), pruner=pruner)
    for _ in range(trials):
        play(study, space)
    study.sampler = sampler
    return study


def play(study: optuna.Study, space: Any) -> bool:
    """One trial; whether there was another."""
    trial = study.ask()
    try:
        architecture = space.suggest(trial)
        if "epochs" in proposal(trial):
            trial.suggest_int("epochs", 1, 10**6)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return False
    value = accuracy(architecture)
    for name, attr in _attrs(value).items():
        trial.set_user_attr(name, attr)
    trial.report(value, 1)
    study.tell(trial, value)
    return True


def _attrs(value: float) -> dict[str, Any]:
    return {
        "multiply_adds": int(1000 / (1.01 - value)),
        "train_accuracy": value,
        "stage_importance": [value, 0.5, 1 - value],
    }


def decided(strategy: str, trials: int, measured: int) -> Row:
    """A strategy's trials beside TPE's, and by how much they are longer than random ones."""
    make_space, make_sampler = STRATEGIES[strategy]
    space = make_space()
    samplers = (make_sampler(space), TPESampler(seed=0), RandomSampler(1))
    ours, theirs, random = (_turns(space, sampler, trials, measured) for sampler in samplers)
    own = statistics.median(turn.work or 0.0 for turn in ours)
    own -= statistics.median(turn.work or 0.0 for turn in random)
    return row(ours, theirs, own=f"{1000 * own:.1f} ms of processor time")


def _turns(space: Any, sampler: BaseSampler, trials: int, measured: int) -> list[Turn]:
    study = study_of(space, sampler, trials - 2 * measured)
    # The first reads all trials, once in a process, and does not count.
    turns = [timed(functools.partial(play, study, space)) for _ in range(2 * measured)]
    assert all(turn.result for turn in turns), f"{sampler} came to its end"
    return turns[measured:]


class Reporting:
    """Objective that reports its epochs and does nothing else.

    Args:
        space: The search space.
        epochs: Number of reports.
    """

    in_channels = 3
    classes = 10
    needs_data = False

    def __init__(self, space: Space[Any], epochs: int) -> None:
        self.space = space
        self.checkpoints: Any = None
        self.on_epoch: Any = None
        self._epochs = epochs

    @classmethod
    def from_settings(cls, space: Space[Any], *, epochs: int) -> "Reporting":
        """The objective of a study file."""
        return cls(space, epochs)

    def __call__(self, trial: Trial) -> float:
        value = accuracy(self.space.suggest(trial))
        for epoch in range(1, self._epochs + 1):
            trial.report(value, epoch)
        return value


def ran(url: str, trials: int, epochs: int) -> Row:
    """`optnas run` with EcoNAS beside plain Optuna with random sampling."""
    with tempfile.TemporaryDirectory() as folder:
        ours = _seconds_of_run(url.format(folder=folder, name="ours"), folder, trials, epochs)
        theirs = _seconds_of_optuna(url.format(folder=folder, name="theirs"), trials, epochs)
    return row(ours, theirs, epochs=epochs)


def _seconds_of_run(url: str, folder: str, trials: int, epochs: int) -> list[Turn]:
    keys = {
        "study": "orchestration",
        "storage": url,
        "artifacts": f"{folder}/artifacts",
        "space": "nasbench201",
        "sampler": "econas",
        "objective": {"name": "orchestration:Reporting", "epochs": epochs},
    }
    counts = (1, trials + 2 * MEASURED)
    configs = [
        study_from_dict({**keys, "budget": {"trials": count}}, Path(__file__).parent)
        for count in counts
    ]
    run(configs[0])  # It makes the study.
    _fill(url, configs[0].make_space(), trials)
    done = run(configs[1]).study.get_trials(deepcopy=False)[-MEASURED - 1 :]
    ends = [trial.datetime_complete.timestamp() for trial in done if trial.datetime_complete]
    return [Turn(after - before) for before, after in itertools.pairwise(ends)]


def _fill(url: str, space: Space[Any], trials: int) -> None:
    study = optuna.load_study(study_name="orchestration", storage=open_storage(url))
    rng = np.random.default_rng(0)
    added = []
    for _ in range(trials):
        architecture = space.random(rng)
        added.append(
            create_trial(
                params=space.to_params(architecture),
                distributions=space.distributions(),
                value=accuracy(architecture),
            )
        )
    study.add_trials(added)


def _seconds_of_optuna(url: str, trials: int, epochs: int) -> list[Turn]:
    space = NasBench201Space()
    study = optuna.create_study(
        study_name="orchestration",
        storage=open_storage(url),
        sampler=RandomSampler(0),
        direction="maximize",
    )
    _fill(url, space, trials)
    turns = []
    for _ in range(2 * MEASURED):
        start = time.perf_counter()
        study.optimize(Reporting(space, epochs), n_trials=1)
        turns.append(Turn(time.perf_counter() - start))
    return turns[MEASURED:]


def cases(*, quick: bool, url: str = "sqlite:///{folder}/{name}.db") -> Cases:
    """Every comparison."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    for trials in (1000,) if quick else (100, 1000, 5000):
        for strategy in STRATEGIES:
            make = functools.partial(decided, strategy, trials, FEW if quick else MEASURED)
            yield f"{strategy}, a trial after {trials}; TPE", make
    kind = url.partition(":")[0]
    for trials in (100,) if quick else (100, 2000):
        for epochs in (1,) if quick else (1, 11):
            make = functools.partial(ran, url, trials, epochs)
            yield f"optnas run, {kind}, {epochs} epochs after {trials} trials; Optuna", make


def main() -> None:
    """Measure, and print a table."""
    parser = arguments(__doc__)
    parser.add_argument("--storage", default="sqlite:///{folder}/{name}.db", help="A URL.")
    options = parser.parse_args()
    measure(cases(quick=options.quick, url=options.storage), options.output)


if __name__ == "__main__":
    main()
