"""EcoNAS: populations, tournaments, both orders, restarts, and real tables."""

import collections
import dataclasses
import time

import numpy as np
import optuna
import pytest
from conftest import SHARED
from optuna.storages import InMemoryStorage
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import TrialState, create_trial
from scipy.stats import chisquare, mannwhitneyu

from optnas.objectives.tabular import Tabular
from optnas.samplers import EcoNASSampler, HierarchicalPruner, Result, SynchronousEcoNASSampler
from optnas.samplers._populations import Member, by_rung, shares, tournament
from optnas.spaces import CellSpace, GrowthSpace, NasBench201Space
from optnas.trials.attributes import RUNG
from optnas.trials.claims import Claim
from optnas.trials.failures import mark_failure

SPACE = CellSpace()
NASBENCH = SHARED / "data" / "nasbench201_cifar10.npz"


def study_with(sampler, **options):
    return optuna.create_study(
        sampler=sampler, **({"direction": "maximize", "study_name": "cells"} | options)
    )


def score(architecture) -> float:
    """An accuracy without meaning, the same for the same architecture."""
    return hash_of(str(dataclasses.astuple(architecture)))


def hash_of(text: str) -> float:
    return np.random.default_rng(list(text.encode())).random()


def objective(trial):
    return score(SPACE.suggest(trial))


def in_rungs(trial):
    """Trains one rung of the schedule, as the synchronous orders ask for."""
    accuracy = score(SPACE.suggest(trial))
    trial.suggest_int("epochs", 1, 10**6)
    return accuracy


def params_of(study):
    return [trial.params for trial in study.trials if trial.params]


# Populations and parents.


def test_a_tournament_prefers_the_best_as_often_as_it_should():
    members = [Member(number, value=number / 16, rung=1) for number in range(16)]
    rng = np.random.default_rng(0)
    draws = 20_000
    won = collections.Counter(tournament(members, rng).number for _ in range(draws))
    # The best of five: rank r from the worst wins if all five are at most r, and one is r.
    chances = [((rank + 1) / 16) ** 5 - (rank / 16) ** 5 for rank in range(16)]
    assert chances[15] == pytest.approx(0.2758, abs=1e-4)
    assert chances[0] == 16**-5
    low = 6  # Pooled, because expected counts should not be small.
    observed = [sum(won[r] for r in range(low)), *(won[r] for r in range(low, 16))]
    expected = [sum(chances[:low]) * draws, *(c * draws for c in chances[low:])]
    assert chisquare(observed, expected).pvalue > 0.001


def test_an_empty_population_lends_its_parents():
    first, third = Member(0, 0.5, 1), Member(1, 0.5, 3)
    assert [c[0].rung for c in shares(by_rung([first, third], 3), (6, 5, 5))] == [1] * 6 + [3] * 5
    assert shares(by_rung([third], 3), (6, 5, 0)) == [[third]]
    assert shares(by_rung([], 3), (6, 5, 5)) == []


def add(study, architecture, value, state=TrialState.COMPLETE, rung=None):
    study.add_trial(
        create_trial(
            params=SPACE.to_params(architecture),
            distributions=SPACE.distributions(),
            value=value,
            state=state,
            intermediate_values={1: value},
            system_attrs={} if rung is None else {RUNG: rung},
        )
    )


def differences(params, other):
    return sum(params[name] != other[name] for name in other)


def test_parents_come_from_the_rungs_in_their_shares():
    """Three networks far apart, one at each rung: a child is nearest to its parent."""
    sampler = EcoNASSampler(SPACE, initial=1, seed=0, max_age=100, unique=False)
    study = study_with(sampler)
    rng = np.random.default_rng(0)
    networks = [SPACE.random(rng) for _ in range(3)]
    add(study, networks[0], 0.9, TrialState.PRUNED, rung=1)
    add(study, networks[1], 0.8, TrialState.PRUNED, rung=2)
    add(study, networks[2], 0.7)
    parents = []

    def fail(trial):  # So that no child is ever a parent.
        params = SPACE.to_params(SPACE.suggest(trial))
        away = [differences(params, SPACE.to_params(network)) for network in networks]
        parents.append(away.index(1) if 1 in away else None)
        return float("nan")

    study.optimize(fail, n_trials=1 + 5 * 16)
    assert collections.Counter(parents[1:]) == {0: 30, 1: 25, 2: 25}


def test_networks_die():
    best = SPACE.random(np.random.default_rng(99))
    with_child: list[int] = []
    for seed in range(20):
        sampler = EcoNASSampler(SPACE, initial=1, parents=(0, 0, 4), max_age=1, seed=seed)
        study = study_with(sampler)
        add(study, best, 0.99)
        study.optimize(lambda trial: 0.5 * objective(trial), n_trials=8)
        assert sampler.found(study) == best
        params = params_of(study)
        for number in range(1, 9):
            near = [n for n in range(number) if differences(params[number], params[n]) == 1]
            with_child += [number] if near == [0] else []
    # It lives while it is among the last four: beside a random network and two children.
    assert set(with_child) == {2, 3, 4}


def test_without_reports_everything_is_in_the_last_population():
    study = study_with(EcoNASSampler(SPACE, initial=4, seed=1))
    study.optimize(objective, n_trials=40)
    phases = [trial.user_attrs["phase"] for trial in study.trials]
    assert phases == ["initial"] * 4 + ["child"] * 36
    params = params_of(study)
    for number in range(4, 40):
        assert 1 in {differences(params[number], other) for other in params[:number]}


def test_no_network_is_tried_twice_unless_wanted():
    space = NasBench201Space()
    flat = {"direction": "maximize"}

    def constant(trial):
        return 0.0 * len(space.suggest(trial).operations)

    for unique in (True, False):
        study = optuna.create_study(
            sampler=EcoNASSampler(space, seed=0, max_age=1, unique=unique), **flat
        )
        study.optimize(constant, n_trials=300)
        distinct = len({tuple(params.values()) for params in params_of(study)})
        assert (distinct == 300) == unique


def test_it_ends_after_its_cycles():
    study = study_with(EcoNASSampler(SPACE, initial=5, parents=(2, 1, 1), cycles=3, seed=0))
    study.optimize(objective)
    assert len(study.trials) == 5 + 3 * 4
    assert study.sampler.is_finished(study)


def test_failed_networks_have_no_children():
    sampler = EcoNASSampler(SPACE, initial=4, seed=0)
    study = study_with(sampler)
    study.optimize(lambda trial: float("nan") * objective(trial), n_trials=12)
    assert {trial.user_attrs["phase"] for trial in study.trials} == {"initial"}
    assert sampler.found(study) is None
    assert sampler.candidates(study) == []


def test_candidates_are_the_five_best_of_those_trained_longest():
    study = study_with(EcoNASSampler(SPACE, seed=0))
    rng = np.random.default_rng(0)
    for value, state, rung in [
        (0.9, TrialState.PRUNED, 1),
        (0.8, TrialState.PRUNED, 2),
        (0.6, TrialState.COMPLETE, 2),
        (0.7, TrialState.COMPLETE, 2),
        (0.95, TrialState.PRUNED, None),
        (0.5, TrialState.PRUNED, 2),
    ]:
        add(study, SPACE.random(rng), value, state, rung)
    found = [(number, value) for number, _, value in study.sampler.candidates(study)]
    assert found == [(3, 0.7), (2, 0.6), (1, 0.8), (5, 0.5), (4, 0.95)]
    assert study.sampler.found(study) == SPACE.from_params(study.trials[3].params)


# With the hierarchical pruner.


def curve(trial):
    accuracy = score(SPACE.suggest(trial))
    for epoch in range(1, 7):
        trial.report(accuracy * epoch / 6, epoch)
        if epoch < 6 and trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def hierarchical(**options):
    sampler = EcoNASSampler(SPACE, initial=16, seed=0)
    return study_with(sampler, pruner=HierarchicalPruner(2), **options)


def test_with_the_pruner_trials_end_at_rungs_and_restarts_change_nothing():
    study = hierarchical()
    study.optimize(curve, n_trials=80)
    epochs = collections.Counter(len(trial.intermediate_values) for trial in study.trials)
    assert set(epochs) == {2, 4, 6}
    assert epochs[2] > epochs[4]
    storage = InMemoryStorage()
    while len((again := hierarchical(storage=storage, load_if_exists=True)).trials) < 80:
        again.optimize(curve, n_trials=7 if len(again.trials) < 77 else 80 - len(again.trials))
    assert params_of(again) == params_of(study)


def test_killed_anywhere_it_proposes_the_same():
    study = hierarchical()
    study.optimize(curve, n_trials=40)
    killed = hierarchical()
    kill_after = [4, 1, 3, 2, 5, 2]

    def mortal(trial):
        accuracy = score(SPACE.suggest(trial))
        for epoch in range(1, 7):
            trial.report(accuracy * epoch / 6, epoch)
            if trial.number % 2 and kill_after and epoch == kill_after[-1]:
                kill_after.pop()
                mark_failure(trial, "lost", "a test")
                return float("nan")
            if epoch < 6 and trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    killed.optimize(mortal, n_trials=46)
    lost = [trial for trial in killed.trials if trial.state == TrialState.FAIL]
    assert len(lost) == 6
    kept = [trial for trial in killed.trials if trial.state != TrialState.FAIL]
    assert [(t.params, t.value) for t in kept] == [(t.params, t.value) for t in study.trials]


def test_threads_never_try_a_network_twice():
    study = study_with(EcoNASSampler(SPACE, initial=8, seed=0), pruner=HierarchicalPruner(2))

    def slow(trial):
        time.sleep(0.002)
        return curve(trial)

    study.optimize(slow, n_trials=60, n_jobs=4)
    indices = sorted(Claim.of(trial).index for trial in study.trials)
    assert indices == list(range(60))
    assert len({tuple(params.values()) for params in params_of(study)}) == 60


# The synchronous orders.


def run_in_cycles(order, cycles, **options):
    sampler = SynchronousEcoNASSampler(
        SPACE, order=order, cycles=cycles, epochs=20, seed=0, **options
    )
    study = study_with(sampler)
    study.optimize(in_rungs)
    return study


def populations(study):
    """How many networks were trained last for 20, 40 and 60 epochs, whatever their age."""
    trained = collections.Counter(trial.params["epochs"] // 20 for trial in study.trials)
    return trained[1] - trained[2], trained[2] - trained[3], trained[3]


@pytest.mark.parametrize(
    ("cycles", "sizes"),
    [(1, (14, 8, 0)), (2, (17, 12, 4)), (3, (25, 16, 8)), (4, (33, 20, 12))],
)
def test_the_flow_of_the_authors_code(cycles, sizes):
    assert populations(run_in_cycles("code", cycles, initial=16)) == sizes


def test_the_flow_of_the_papers_order():
    study = run_in_cycles("paper", 2, initial=50)
    epochs = [trial.params["epochs"] for trial in study.trials]
    assert epochs == [20] * 50 + 2 * ([20] * 16 + [40] * 8 + [60] * 4)
    phases = [trial.user_attrs["phase"] for trial in study.trials]
    assert phases == ["initial"] * 50 + 2 * (["child"] * 16 + ["promotion"] * 12)


def test_promotions_are_of_the_best_and_point_to_what_they_continue():
    study = run_in_cycles("paper", 1, initial=20)
    trials = study.trials
    ranked = sorted(trials[:36], key=lambda trial: -trial.value)
    promoted = [trial for trial in trials if trial.params["epochs"] == 40]
    assert [t.user_attrs["continues"] for t in promoted] == [t.number for t in ranked[:8]]
    for trial in trials[36:]:
        before = trials[trial.user_attrs["continues"]]
        assert SPACE.from_params(trial.params) == SPACE.from_params(before.params)
        assert trial.params["epochs"] == before.params["epochs"] + 20
    assert {trial.user_attrs["schedule_epochs"] for trial in trials} == {60}


def yielded(**options):
    """The trainings that a search asks for at once when the accuracies are random."""
    search = SynchronousEcoNASSampler(SPACE, **options).search()
    rng, trained = np.random.default_rng(0), 0
    try:
        batch = next(search)
        while True:
            yield [drawing.args[0] for drawing in batch.drawings]
            numbers = range(trained, trained + batch.number)
            trained += batch.number
            batch = search.send([Result(rng.random(), number) for number in numbers])
    except StopIteration:
        return


def test_the_papers_search_trains_57000_epochs():
    """50 + 100 cycles of 16 children, 8 and 4 promotions: 2,850 trainings of 20 epochs."""
    tasks = list(yielded(initial=50, order="paper"))
    assert 20 * sum(map(len, tasks)) == 57_000


def test_the_authors_search_trains_1601_models_and_settles():
    first, *cycles = yielded(initial=16, order="code")
    models = [task for tasks in [first, *cycles] for task in tasks if task.promotes is None]
    assert len(models) == 1601
    assert 20 * sum(map(len, [first, *cycles])) == 55_940
    # Of a cycle's children, the 1st, 7th and 12th have their parents in the three populations.
    # At the end of the cycle there are the children and the promoted besides.
    sizes = [[len(tasks[child].among) for child in (0, 6, 11)] for tasks in cycles[30:]]
    ends = np.mean(sizes, axis=0) + np.array([8, 4, 4])
    assert ends == pytest.approx([96, 52, 40], rel=0.15)


@pytest.mark.parametrize("order", ["paper", "code"])
def test_a_failed_promotion_leaves_the_populations(order):
    sampler = SynchronousEcoNASSampler(SPACE, order=order, cycles=2, initial=10, seed=0)
    study = study_with(sampler)

    def fragile(trial):
        value = in_rungs(trial)
        return float("nan") if trial.params["epochs"] > 20 else value

    study.optimize(fragile)
    continued = [t.user_attrs["continues"] for t in study.trials if "continues" in t.user_attrs]
    assert len(continued) == len(set(continued)) == 16
    assert study.sampler.is_finished(study)


@pytest.mark.parametrize("order", ["paper", "code"])
def test_cycles_in_threads_and_after_losses_are_the_same(order):
    options = {"order": order, "cycles": 2, "initial": 10, "epochs": 5, "seed": 0}
    once = study_with(SynchronousEcoNASSampler(SPACE, **options))
    once.optimize(in_rungs)
    threads = study_with(SynchronousEcoNASSampler(SPACE, **options))
    threads.optimize(in_rungs, n_jobs=3)
    lossy = study_with(SynchronousEcoNASSampler(SPACE, **options))

    def lose(trial):
        value = in_rungs(trial)
        if trial.number % 7 == 3:
            mark_failure(trial, "lost", "a test")
            return float("nan")
        return value

    lossy.optimize(lose)
    for study in (threads, lossy):
        done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
        done.sort(key=lambda trial: Claim.of(trial).index)
        assert len(done) == len(once.trials)
        if study is lossy:  # In threads, children know what else is running.
            assert [trial.params for trial in done] == params_of(once)
    adopters = [t for t in lossy.trials if Claim.of(t).continues is not None]
    assert adopters
    assert {trial.user_attrs["schedule_epochs"] for trial in adopters} == {15}


# On tables of trained networks.


@pytest.mark.skipif(not NASBENCH.exists(), reason=f"{NASBENCH} is not here")
@pytest.mark.parametrize(
    ("column", "trials", "evolution"),
    # What regularized evolution (population 50, tournament 10) reaches in the mean.
    [("val_12ep", 100, 94.04), ("val_12ep", 400, 94.32), ("val_200ep", 100, 94.13)],
)
def test_it_beats_random_search_and_keeps_up_with_evolution(column, trials, evolution):
    table = np.load(NASBENCH)
    test = dict(zip(table["arch"].tolist(), table["test_200ep"].tolist(), strict=True))
    space = NasBench201Space()
    tabular = Tabular(space, NASBENCH, column)
    econas, random = [], []
    for seed in range(20):
        sampler = EcoNASSampler(space, initial=50, seed=seed)  # The paper's, for long searches.
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(tabular, n_trials=trials)
        econas.append(test[str(sampler.found(study))])
        drawn = np.random.default_rng(seed).integers(len(test), size=trials)
        random.append(table["test_200ep"][max(drawn, key=table[column].__getitem__)])
    assert mannwhitneyu(econas, random, alternative="greater").pvalue < 0.001
    assert np.mean(econas) >= evolution


# Misuse.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 0}, "`initial` must be an integer, 1 or more"),
        ({"parents": (0, 0, 0)}, r"`sum\(parents\)` must be greater than or equal to 1"),
        ({"parents": (6, 5)}, "`parents` must hold 3 integers from 0 upwards"),
        ({"parents": (6, 5, -1)}, "`parents` must hold 3 integers"),
        ({"promote": (8,)}, "`promote` must hold 2 integers"),
        ({"max_age": 0}, "`max_age`"),
        ({"epochs": 0}, "`epochs`"),
        ({"cycles": -1}, "`cycles`"),
        ({"order": "sideways"}, "`order` must be one of"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SynchronousEcoNASSampler(SPACE, **options)


@pytest.mark.parametrize("sampler", [EcoNASSampler, SynchronousEcoNASSampler])
def test_networks_that_descend_from_others_are_refused(sampler):
    with pytest.raises(TypeError, match="name only what a network descends from"):
        sampler(GrowthSpace())


def test_with_more_rungs_than_three_the_whole_training_stands_above_all_others():
    """The rungs between the first and the last are one population, in which the higher wins."""
    sampler = EcoNASSampler(SPACE, initial=12, seed=0)
    pruner = HierarchicalPruner(first=1, factor=2, promote=(1 / 2,) * 4)
    study = study_with(sampler, pruner=pruner)

    def curve(trial):
        accuracy = score(SPACE.suggest(trial))
        for epoch in range(1, 17):
            # The first epochs look best: only the rung says who was trained to the end.
            trial.report(accuracy * (1 if epoch < 4 else 0.5), epoch)
            if epoch < 16 and trial.should_prune():
                raise optuna.TrialPruned
        return accuracy * 0.5

    study.optimize(curve, n_trials=60)
    rungs = {
        trial.system_attrs[RUNG] for trial in study.trials if trial.state == TrialState.PRUNED
    }
    assert len(rungs) >= 3
    states = [study.trials[number].state for number, _, _ in sampler.candidates(study)]
    complete = sum(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert states[: min(complete, 5)] == [TrialState.COMPLETE] * min(complete, 5)
    first, middle, last = by_rung([Member(n, 0.5, r) for n, r in enumerate((1, 2, 3, 4, 9))], 9)
    assert [len(first), len(middle), len(last)] == [1, 3, 1]
    won = {tournament(middle, np.random.default_rng(seed)).rung for seed in range(50)}
    assert won == {2, 3, 4}
    assert tournament(middle * 40, np.random.default_rng(0)).rung == 4


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestConformance(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's own cases."""

    @pytest.fixture
    def sampler(self):
        return lambda: EcoNASSampler(CellSpace())
