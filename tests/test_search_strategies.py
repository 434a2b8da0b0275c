"""Local search, regularized evolution and the surrogate: what all three promise on any space."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from conftest import SHARED
from mixed_space import MixedSpace, quality
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import TrialState
from scipy.stats import wilcoxon

from optnas.samplers import LocalSearchSampler, RegularizedEvolutionSampler, SurrogateSampler
from optnas.spaces import (
    CellSpace,
    ChainSpace,
    GrowthSpace,
    NasBench201Space,
    RowSpace,
    StageSpace,
)
from optnas.trials.failures import mark_failure

NASBENCH = SHARED / "data" / "nasbench201_cifar10.npz"
SPACE = NasBench201Space()
MAKERS: dict[str, Callable[..., Any]] = {
    "local_search": LocalSearchSampler,
    "regularized_evolution": lambda space, **options: RegularizedEvolutionSampler(
        space, population=5, tournament=2, **options
    ),
    "surrogate": lambda space, **options: SurrogateSampler(space, initial=5, **options),
}
SPACES: list[tuple[Any, Callable[[Any], float]]] = [
    (MixedSpace(), quality),
    (SPACE, lambda cell: cell.operations.count("nor_conv_3x3") / 6),
    (CellSpace(nodes=2), lambda cell: str(cell).count("skip") / 20),
    (ChainSpace((2, 8), (4, 16)), lambda chain: chain.depth * chain.width / 128),
    (StageSpace(), lambda network: sum(network.modules) / 90),
    (RowSpace(400), lambda row: math.sin(row.row / 400)),
]


def study_with(sampler: Any, **options: Any) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler, study_name="any", **options)


def searched(make: Callable[..., Any], space: Any, value: Any, trials: int = 40) -> optuna.Study:
    study = study_with(make(space, seed=0))
    study.optimize(lambda trial: value(space.suggest(trial)), n_trials=trials)
    return study


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return MAKERS[request.param]


@pytest.mark.parametrize(("space", "value"), SPACES, ids=lambda part: type(part).__name__)
def test_on_any_space_no_network_is_tried_twice_and_the_best_is_found(make, space, value):
    study = searched(make, space, value)
    architectures = [space.from_trial(trial) for trial in study.trials]
    assert len(set(architectures)) == len(architectures) == 40
    values = [value(architecture) for architecture in architectures]
    sampler: Any = study.sampler
    assert sampler.found(study) == architectures[int(np.argmax(values))]
    assert [v for _, _, v in sampler.candidates(study)] == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("space", "value"),
    [SPACES[0], SPACES[1], SPACES[3], SPACES[4]],
    ids=["mixed", "nb", "chain", "stage"],
)
def test_what_is_known_is_made_use_of(make, space, value):
    values = [trial.value or 0.0 for trial in searched(make, space, value, 60).trials]
    assert max(values[20:]) > max(values[:5])
    assert np.mean(values[30:]) > np.mean(values[:5])


def test_the_seed_decides(make):
    studies = [
        [t.params for t in searched(maker, MixedSpace(), quality, 25).trials]
        for maker in (make, make, lambda space, seed: make(space, seed=1))
    ]
    assert studies[0] == studies[1] != studies[2]


def test_killed_anywhere_it_proposes_the_same(make):
    space = MixedSpace()
    undisturbed = searched(make, space, quality, 40)
    storage = optuna.storages.InMemoryStorage()
    study = study_with(make(space, seed=0), storage=storage)

    def mortal(trial: optuna.Trial) -> float:
        architecture = space.suggest(trial)
        if trial.number in (2, 9, 10, 30):
            mark_failure(trial, "lost", "a test")
            raise RuntimeError
        return quality(architecture)

    for _ in range(44):
        # A new process every time: nothing is remembered but what is stored.
        study.sampler = make(space, seed=0)
        study.optimize(mortal, n_trials=1, catch=RuntimeError)
    kept = [t.params for t in study.trials if t.state == TrialState.COMPLETE]
    assert kept == [t.params for t in undisturbed.trials]


def test_workers_are_given_different_networks_and_wait_for_none(make):
    space = MixedSpace()
    study = study_with(make(space, seed=0))
    rng = np.random.default_rng(0)
    running: list[tuple[Any, Any]] = []
    seen = []
    for _ in range(60):
        trial = study.ask()
        running.append((trial, space.suggest(trial)))
        seen.append(running[-1][1])
        if len(running) == 8:
            ended, architecture = running.pop(int(rng.integers(8)))
            study.tell(ended, quality(architecture))
    assert len(set(seen)) == len(seen)


def test_failed_and_infeasible_networks_count_as_the_worst(make):
    def value(trial: optuna.Trial) -> float:
        cell = SPACE.suggest(trial)
        if cell.operations[0] == "none":
            return math.nan
        if cell.operations[1] == "none":
            trial.set_constraint("params", 1.0)
            return 0.99
        return cell.operations.count("nor_conv_3x3") / 10

    study = study_with(make(SPACE, seed=1))
    study.optimize(value, n_trials=60)
    sampler: Any = study.sampler
    found = sampler.found(study)
    assert "none" not in found.operations[:2]
    last = [SPACE.from_params(trial.params) for trial in study.trials[30:]]
    assert sum("none" in cell.operations[:2] for cell in last) < 15  # 11 of 30 at random.


def test_nothing_but_failures_ends_in_no_error(make):
    study = study_with(make(SPACE, seed=0))
    study.optimize(lambda trial: SPACE.suggest(trial) and math.nan, n_trials=15)
    sampler: Any = study.sampler
    assert sampler.found(study) is None


def test_a_space_that_is_used_up_ends_the_study(make):
    space = StageSpace(modules=((1, 3), (1, 2), (1, 2)))
    study = searched(make, space, lambda network: sum(network.modules) / 9, 50)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len({space.from_trial(t) for t in complete}) == len(complete) == 12


def test_what_people_add_is_evidence_and_what_is_foreign_is_ignored(make):
    space = SPACE
    study = study_with(make(space, seed=0))
    study.add_trial(optuna.create_trial(value=5.0))
    best = space.from_params(dict.fromkeys(space.choices, "nor_conv_3x3"))
    study.enqueue_trial(space.to_params(best))
    study.optimize(lambda t: space.suggest(t).operations.count("nor_conv_3x3") / 6, n_trials=20)
    assert [space.from_trial(t) for t in study.trials[2:]].count(best) == 0
    sampler: Any = study.sampler
    assert sampler.found(study) == best


@pytest.mark.parametrize("maker", ["local_search", "regularized_evolution"])
def test_networks_that_grow_have_children(maker):
    space = GrowthSpace(cells=1, channels=4)
    study = study_with(MAKERS[maker](space, seed=0))
    study.optimize(lambda trial: min(1.0, len(space.suggest(trial).increments) / 20), n_trials=12)
    assert study.trials[0].params == {"parent": -1}
    assert {trial.params["parent"] for trial in study.trials[6:]} - {-1, 0}
    sampler: Any = study.sampler
    assert len(sampler.found(study).increments) >= 6


def test_the_surrogate_refuses_networks_that_descend_from_others():
    with pytest.raises(TypeError, match="name only what a network descends from"):
        SurrogateSampler(GrowthSpace())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SurrogateSampler(SPACE, initial=1), "`initial` must be"),
        (lambda: RegularizedEvolutionSampler(SPACE, population=0), "`population` must be"),
        (lambda: RegularizedEvolutionSampler(SPACE, population=4), "`tournament` must be"),
    ],
)
def test_numbers_out_of_range_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_local_search_stands_at_the_best_since_it_started_anew():
    study = searched(LocalSearchSampler, SPACE, lambda cell: hash(cell.operations[0]) % 97, 90)
    phases = [trial.user_attrs["phase"] for trial in study.trials]
    assert phases[0] == "start"
    assert phases.count("start") > 1
    here = None
    for trial, phase in zip(study.trials, phases, strict=True):
        if phase == "start":
            here = trial
            continue
        assert here is not None
        assert sum(here.params[name] != value for name, value in trial.params.items()) == 1
        if trial.value > here.value:
            here = trial


@pytest.mark.parametrize(
    ("space", "neighbours"), [(GrowthSpace(cells=1, channels=4), 20), (RowSpace(400), 10)]
)
def test_local_search_leaves_a_network_that_has_no_end_of_neighbours(space, neighbours):
    study = study_with(LocalSearchSampler(space, seed=0))

    def ever_worse(trial: optuna.Trial) -> float:
        space.suggest(trial)
        return -trial.number

    study.optimize(ever_worse, n_trials=2 * neighbours + 5)
    starts = [t.number for t in study.trials if t.user_attrs["phase"] == "start"]
    assert starts == [0, neighbours + 1, 2 * (neighbours + 1)]


def test_evolution_takes_parents_from_the_living_only():
    study = study_with(RegularizedEvolutionSampler(SPACE, population=6, tournament=3, seed=0))
    # The first are the best by far, but they die.
    study.optimize(
        lambda trial: SPACE.suggest(trial).operations.count("none") / 6 + 1 / (1 + trial.number),
        n_trials=40,
    )
    for child in study.trials[6:]:
        living = study.trials[child.number - 6 : child.number]
        differences = [
            sum(other.params[name] != value for name, value in child.params.items())
            for other in living
        ]
        assert 1 in differences


@pytest.mark.skipif(not NASBENCH.exists(), reason="the table is not here")
@pytest.mark.parametrize("maker", [LocalSearchSampler, SurrogateSampler])
def test_after_50_trials_it_is_ahead_of_random_search(maker):
    table = np.load(NASBENCH)
    values = dict(zip(table["arch"].tolist(), np.nan_to_num(table["val_12ep"]), strict=True))

    def best(sampler: Any) -> float:
        study = study_with(sampler)
        study.optimize(lambda trial: float(values[str(SPACE.suggest(trial))]), n_trials=50)
        return study.best_value

    pairs = [
        (best(maker(SPACE, seed=seed)), best(optuna.samplers.RandomSampler(seed)))
        for seed in range(15)
    ]
    ours, random = zip(*pairs, strict=True)
    assert wilcoxon(ours, random, alternative="greater").pvalue < 0.05


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestConformance(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's own cases."""

    @pytest.fixture(params=[LocalSearchSampler, RegularizedEvolutionSampler, SurrogateSampler])
    def sampler(self, request):
        return lambda: request.param(CellSpace())
