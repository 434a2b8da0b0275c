"""RandGrow: the hull, parents and children, lost weights, restarts."""

import collections
import threading
import time
from fractions import Fraction

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import TrialState, create_trial
from scipy.stats import chisquare

from optnas.errors import UserError
from optnas.hull import lower_hull, parent_probabilities
from optnas.samplers import RandGrowSampler
from optnas.spaces import CellSpace, GrowthArchitecture, GrowthSpace
from optnas.trials.attributes import ARCHITECTURE
from optnas.trials.claims import Claim
from optnas.trials.failures import mark_failure
from optnas.trials.hull import hull_of
from optnas.trials.lineage import record_without_weights

SPACE = GrowthSpace(cells=1, channels=4)

# The hull.

EXAMPLE = [(10, 10), (20, 7), (30, 6.5), (40, 6.4), (50, 5), (60, 5.5)]
COLLINEAR = [(60, 4.6), (70, 4.4), (80, 4.2), (100, 3.8)]


@pytest.mark.parametrize(
    ("points", "hull", "probabilities"),
    [
        (EXAMPLE, [0, 1, 4], [0.125, 0.375, 0.5]),
        ([(60, 4.6)], [0], [1]),
        ([(60, 4.6), (80, 4.2)], [0, 1], [0.5, 0.5]),
        (COLLINEAR, [0, 3], [0.5, 0.5]),
        ([(10, 0.4), (20, 0.3), (30, 0.2)], [0, 2], [0.5, 0.5]),  # Below the line as floats.
        ([(50, 5), (10, 10), (20, 7)], [1, 2, 0], [0.125, 0.375, 0.5]),
        ([(10, 5), (10, 4), (20, 3), (20, 2)], [1, 3], [0.5, 0.5]),
        ([(30, 1), (20, 1), (10, 4), (40, 1)], [2, 1], [0.5, 0.5]),
        ([(10, 4), (20, 1), (10, 4), (20, 1)], [0, 1], [0.5, 0.5]),
        ([(10, 1), (20, 2)], [0], [1]),
        ([(0, 0.0), (5, 0.0)], [0], [1]),
        ([], [], []),
    ],
)
def test_hulls_and_probabilities(points, hull, probabilities):
    cost, error = [c for c, _ in points], [e for _, e in points]
    assert lower_hull(cost, error) == hull
    assert parent_probabilities([cost[i] for i in hull]).tolist() == probabilities


def hull_by_definition(cost, error):
    """The points below every line between others and better than all that cost no more."""
    points = [(Fraction(c), Fraction(e)) for c, e in zip(cost, error, strict=True)]

    def is_beaten(number, c, e):
        return any(
            x <= c and y <= e and ((x, y) != (c, e) or other < number)
            for other, (x, y) in enumerate(points)
        )

    def is_on_a_line(c, e):
        left = [(x, y) for x, y in points if x < c]
        right = [(x, y) for x, y in points if x > c]
        return any(e >= y + (v - y) * (c - x) / (u - x) for x, y in left for u, v in right)

    hull = [n for n, p in enumerate(points) if not is_beaten(n, *p) and not is_on_a_line(*p)]
    return sorted(hull, key=lambda number: points[number])


POINTS = {
    "ties": lambda rng, n: (rng.integers(1, 8, n), rng.integers(0, 8, n)),
    "floats": lambda rng, n: (rng.random(n), rng.random(n)),
    "networks": lambda rng, n: (rng.integers(1, 10**12, n), rng.integers(0, 3000, n) / 3000),
    "scales": lambda rng, n: (10 ** rng.uniform(-150, 150, n), 10 ** rng.uniform(-150, 150, n)),
}


@pytest.mark.parametrize("kind", POINTS)
def test_2500_hulls_each_are_what_the_definition_says_in_any_unit(kind):
    rng = np.random.default_rng(0)
    for _ in range(2500):
        cost, error = POINTS[kind](rng, int(rng.integers(1, 13)))
        hull = lower_hull(cost, error)
        assert hull == hull_by_definition(cost.tolist(), error.tolist())
        probabilities = parent_probabilities(cost[hull])
        assert np.random.default_rng(0).choice(len(hull), p=probabilities) in range(len(hull))
        for unit in (2.0**-60, 3, 0.1, 1 / 3):
            assert lower_hull(cost * unit, error) == hull
        assert lower_hull(cost, error * 7.3) == hull
        assert abs(parent_probabilities(cost[hull] * 7.3) - probabilities).max() < 1e-12


def test_large_integers_are_exact():
    large = 10**17
    assert lower_hull([large, 2 * large, 3 * large + 1], [3, 2, 1]) == [0, 1, 2]
    assert lower_hull([large, 2 * large, 3 * large], [3, 2, 1]) == [0, 2]


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        ([1, 2], [1], "must be of equal length: 2 and 1"),
        ([1, float("nan")], [1, 2], "`cost` must hold finite numbers from 0 upwards"),
        ([1, 2], [1, float("inf")], "`error` must hold finite numbers from 0 upwards"),
        ([-1, 2], [1, 2], "`cost` must hold finite numbers from 0 upwards"),
        ([1, 2], [-1, 2], "`error` must hold finite numbers from 0 upwards"),
        ([[1, 2]], [[1, 2]], "`cost` must be a 1-d array of numbers"),
        (["a"], [1], "`cost` must be a 1-d array of numbers"),
        (3, 4, "`cost` must be a 1-d array of numbers"),
    ],
)
def test_bad_points_are_refused(cost, error, message):
    with pytest.raises(ValueError, match=message):
        lower_hull(cost, error)


@pytest.mark.parametrize(
    ("cost", "best", "message"),
    [
        ([2, 1], 0.5, "`cost` must rise, as along a hull"),
        ([1, 1], 0.5, "`cost` must rise"),
        ([1, float("nan")], 0.5, "`cost` must hold finite numbers"),
        ([1, 2], 1.5, "`best_probability` must be a probability, from 0 to 1: 1.5"),
        ([1, 2], float("nan"), "`best_probability` must be a probability"),
    ],
)
def test_bad_hulls_are_refused(cost, best, message):
    with pytest.raises(ValueError, match=message):
        parent_probabilities(cost, best)


def test_the_most_accurate_may_have_another_probability():
    assert parent_probabilities([10, 20, 50], 0.2).tolist() == pytest.approx([0.2, 0.6, 0.2])
    assert parent_probabilities([10], 0.2).tolist() == [1]


# Studies.


def study_with(sampler=None, **options):
    return optuna.create_study(
        sampler=sampler or RandGrowSampler(SPACE, seed=0),
        **({"direction": "maximize", "study_name": "grown"} | options),
    )


def cost_of(architecture) -> int:
    sizes = {"sep_conv_3x3": 30, "sep_conv_5x5": 50, "identity": 2}
    operations = [name for i in architecture.increments for name in i.operations]
    return 1000 + sum(sizes.get(name, 5) for name in operations)


def accuracy_of(architecture) -> float:
    """Grows with the network, and is the same for the same one."""
    noise = np.random.default_rng(list(architecture.to_json().encode())).random()
    return 0.5 + 0.4 * (1 - 1000 / cost_of(architecture)) + 0.1 * noise


def objective(trial):
    architecture = SPACE.suggest(trial)
    trial.set_user_attr("multiply_adds", cost_of(architecture))
    return accuracy_of(architecture)


def networks(study):
    """Every complete network with that of its parent, in the order of their claims."""
    trials = study.trials

    def architecture(number):
        return trials[number].user_attrs[ARCHITECTURE] if number >= 0 else None

    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    complete.sort(key=lambda trial: Claim.of(trial).index)
    return [(architecture(t.number), architecture(t.user_attrs["parent"])) for t in complete]


def add(study, cost, value, parent=-1, **options):
    """A finished trial, of a network of its own."""
    seed = len(study.trials)
    architecture = SPACE.grow(SPACE.initial(), seed) if seed else SPACE.initial()
    params = {"parent": parent} | ({"growth_seed": seed} if parent >= 0 else {})
    attrs = {"architecture": architecture.to_json(), "multiply_adds": cost, "parent": parent}
    study.add_trial(
        create_trial(
            params=params,
            distributions={name: SPACE.distributions()[name] for name in params},
            value=value,
            user_attrs={k: v for k, v in attrs.items() if v is not None},
            **options,
        )
    )


def drawn(study, draws=1000):
    """How often each trial is proposed as a parent."""
    sampler, history = study.sampler, study.sampler._history(study)
    steps = [sampler.propose(history, np.random.default_rng(seed)) for seed in range(draws)]
    return collections.Counter(step.params["parent"] for step in steps)


def lose_weights(study, *numbers):
    record_without_weights(study._storage, study._study_id, numbers, "a test")


def test_children_grow_from_networks_on_the_hull():
    study = study_with()
    study.optimize(objective, n_trials=40)
    first, *children = study.trials
    assert first.params == {"parent": -1}
    assert SPACE.from_trial(first) == SPACE.initial()
    assert [t.user_attrs["phase"] for t in study.trials] == ["initial"] + ["growth"] * 39
    for child in children:
        hull = [trial.number for trial in hull_of(study.trials[: child.number])]
        assert child.params["parent"] in hull
        parent = SPACE.from_trial(study.trials[child.params["parent"]])
        assert SPACE.from_trial(child) == SPACE.grow(parent, child.params["growth_seed"])
    assert max(len(SPACE.from_trial(t).increments) for t in children) >= 3 * 5


def test_the_same_history_gives_the_same_proposal():
    study = study_with()
    study.optimize(objective, n_trials=10)
    sampler, other = (RandGrowSampler(SPACE, seed=0) for _ in range(2))
    steps = [s._decide(study, s._history(study)) for s in (sampler, sampler, other)]
    assert steps[0] == steps[1] == steps[2]
    another = RandGrowSampler(SPACE, seed=1)
    assert another._decide(study, another._history(study)) != steps[0]


def test_parents_are_drawn_as_often_as_they_should():
    study = study_with()
    for cost, error in EXAMPLE:
        add(study, cost, 1 - error / 20)
    counts = drawn(study, 4000)
    assert set(counts) == {0, 1, 4}
    observed = [counts[number] for number in (0, 1, 4)]
    assert chisquare(observed, [500, 1500, 2000]).pvalue > 0.001
    study.sampler = RandGrowSampler(SPACE, best_probability=1.0)
    assert set(drawn(study)) == {4}


def test_percentages_do_as_well():
    study = study_with()
    for cost, error in EXAMPLE:
        add(study, cost, 100 - error)
    assert list(study.sampler.weights_needed(study)) == [0, 1, 4]


def test_everyone_waits_for_the_initial_network():
    study = study_with()
    others = []

    def first_alone(trial):
        value = objective(trial)
        if trial.number == 0:
            while len(study.trials) < 4:
                time.sleep(0.001)
            others.extend(study.trials[1:])
        return value

    study.optimize(first_alone, n_trials=24, n_jobs=4)
    assert len(others) == 3
    assert [Claim.of(trial) for trial in others] == [None] * 3
    assert [trial.params["parent"] == -1 for trial in study.trials] == [True] + [False] * 23
    assert sorted(Claim.of(trial).index for trial in study.trials) == list(range(24))


def test_four_workers_are_busy_together():
    together = threading.Barrier(4)
    study = study_with()
    study.optimize(objective, n_trials=1)

    def meet(trial):
        value = objective(trial)
        together.wait(timeout=60)
        return value

    study.optimize(meet, n_trials=4, n_jobs=4)
    assert len({trial.user_attrs[ARCHITECTURE] for trial in study.trials}) == 5


def test_on_sqlite_restarted_after_every_trial(tmp_path):
    once = study_with()
    once.optimize(objective, n_trials=7)
    options = {"storage": f"sqlite:///{tmp_path}/study.db", "load_if_exists": True}
    for _ in range(7):
        study_with(**options).optimize(objective, n_trials=1)
    assert networks(study_with(**options)) == networks(once)


def test_lost_anywhere_it_grows_the_same_networks_from_the_same_parents():
    once = study_with()
    once.optimize(objective, n_trials=30)
    killed = study_with()

    def mortal(trial):
        before = trial.number in (4, 9)
        value = 0.0 if before else objective(trial)
        trial.relative_params  # noqa: B018  # The claim, before any parameter is written.
        if before or trial.number in (0, 7, 8, 20, 21):
            mark_failure(trial, "lost", "a test")
            return float("nan")
        return value

    killed.optimize(mortal, n_trials=37)
    assert sum(trial.state == TrialState.FAIL for trial in killed.trials) == 7
    assert networks(killed) == networks(once)


def test_without_the_weights_that_nobody_needs_it_grows_the_same():
    for options in ({}, {"max_growths": 2}, {"max_cost": 1600}):
        once = study_with(RandGrowSampler(SPACE, seed=0, **options))
        once.optimize(objective, n_trials=40)

        def collect(study, trial):
            kept = study.sampler.weights_needed(study)
            lose_weights(study, *(t.number for t in study.trials if t.number not in kept))

        collected = study_with(RandGrowSampler(SPACE, seed=0, **options))
        collected.optimize(objective, n_trials=40, callbacks=[collect])
        assert networks(collected) == networks(once)


def test_no_parent_is_without_weights():
    study = study_with()
    for cost, error in EXAMPLE:
        add(study, cost, 1 - error / 20)
    lose_weights(study, 1, 4)
    assert list(study.sampler.weights_needed(study)) == [0, 2, 5]
    assert set(drawn(study)) == {0, 2, 5}


def test_when_all_weights_are_lost_it_begins_again():
    study = study_with()
    study.optimize(objective, n_trials=5)
    lose_weights(study, *range(5))
    study.optimize(objective, n_trials=3)
    assert [t.user_attrs["phase"] for t in study.trials[5:]] == ["initial", "growth", "growth"]
    assert study.trials[6].params["parent"] == 5
    assert [number for number, *_ in study.sampler.candidates(study)].count(5) == 0


def test_weights_that_are_never_saved_end_the_search():
    study = study_with(RandGrowSampler(SPACE, seed=0, max_retries=2))
    study.optimize(objective, callbacks=[lambda study, trial: lose_weights(study, trial.number)])
    assert [trial.user_attrs["phase"] for trial in study.trials[:-1]] == ["initial"] * 3
    assert study.trials[-1].state == TrialState.PRUNED
    assert study.sampler.is_finished(study)


@pytest.mark.parametrize("how", ["failed", "infeasible", "pruned", "lost", "expensive"])
def test_without_an_initial_network_there_is_no_search(how):
    def hopeless(trial):
        value = objective(trial)
        if how == "infeasible":
            trial.set_constraint("params", 1.0)
        elif how == "pruned":
            raise optuna.TrialPruned
        elif how == "lost":
            mark_failure(trial, "lost", "a test")
        return float("nan") if how in ("failed", "lost") else value

    max_cost = 10 if how == "expensive" else None
    study = study_with(RandGrowSampler(SPACE, max_retries=2, max_cost=max_cost))
    study.optimize(hopeless)
    assert len(study.trials) == (3 if how == "lost" else 1)
    assert study.sampler.is_finished(study)
    assert (study.sampler.found(study) is None) == (how != "expensive")


def test_children_that_fail_have_no_children():
    study = study_with()

    def fragile(trial):
        value = objective(trial)
        if trial.number % 3 == 1:
            return float("nan")
        trial.set_constraint("params", float(trial.number % 3 - 1))
        return value

    study.optimize(fragile, n_trials=30)
    parents = {trial.params["parent"] for trial in study.trials}
    assert len(parents) > 3
    assert {parent % 3 for parent in parents if parent >= 0} == {0}


def test_networks_without_a_cost_have_no_children():
    study = study_with()
    for cost, value in [(10, 0.5), (None, 0.9), ("much", 0.9), (float("nan"), 0.9), (20, 0.6)]:
        add(study, cost, value)
    assert set(drawn(study)) == {0, 4}
    assert [number for number, *_ in study.sampler.candidates(study)] == [1, 2, 3, 4, 0]


@pytest.mark.parametrize("text", ["{", GrowthSpace(cells=2, channels=4).initial().to_json()])
def test_networks_of_other_spaces_have_no_children(text):
    study = study_with()
    study.enqueue_trial({"parent": -1})
    study.optimize(objective, n_trials=1)
    attrs = {"architecture": text, "multiply_adds": 2000}
    params = {"parent": 0, "growth_seed": 0}
    distributions = SPACE.distributions()
    study.add_trial(
        create_trial(params=params, distributions=distributions, value=0.99, user_attrs=attrs)
    )
    study.optimize(objective, n_trials=5)
    assert 1 not in {trial.params["parent"] for trial in study.trials}
    assert 1 not in {number for number, *_ in study.sampler.candidates(study)}


def test_rounds_of_growth_are_counted_over_younger_parents_too():
    """A trial that waited for its turn may start from one that began after it."""
    study = study_with(RandGrowSampler(SPACE, seed=0, max_growths=2))
    add(study, 1000, 0.5)
    add(study, 3000, 0.9, parent=2)
    add(study, 2000, 0.8, parent=0)
    assert study.sampler.parent_probabilities(study).keys() == {0, 2}


def test_a_value_that_is_no_number_is_on_no_hull():
    study = study_with()
    add(study, 1000, 0.5)
    add(study, 2000, float("inf"), parent=0)
    assert [trial.number for trial in hull_of(study.trials)] == [0]


def test_growth_ends_at_its_limits():
    study = study_with(RandGrowSampler(SPACE, seed=0, max_growths=2))
    study.optimize(objective, n_trials=40)
    rounds = collections.Counter(len(SPACE.from_trial(t).increments) // 5 for t in study.trials)
    assert set(rounds) == {0, 1, 2}
    study = study_with(RandGrowSampler(SPACE, seed=0, max_cost=1700))
    study.optimize(objective, n_trials=40)
    costs = [t.user_attrs["multiply_adds"] for t in study.trials]
    parents = {t.params["parent"] for t in study.trials[1:]}
    assert len(parents) > 2
    assert max(costs[parent] for parent in parents) <= 1700 < max(costs)


@pytest.mark.parametrize(("mode", "expected"), [("macro", 3), ("cell", 6)])
def test_children_get_as_many_increments_as_asked_for(mode, expected):
    space = GrowthSpace(cells=1, channels=4, mode=mode)
    study = study_with(RandGrowSampler(space, increments=3))

    def grown(trial):
        trial.set_user_attr("multiply_adds", cost_of(space.suggest(trial)))
        return 0.5

    study.optimize(grown, n_trials=3)
    assert [len(space.from_trial(t).increments) for t in study.trials[1:]] == [expected] * 2
    assert study.trials[1].user_attrs["increments"] == 3


def test_enqueued_trials_are_parents_as_others():
    study = study_with()
    study.enqueue_trial({"parent": -1})
    study.enqueue_trial({"parent": 0, "growth_seed": 7})
    study.enqueue_trial({"parent": 1, "growth_seed": 8})
    study.optimize(objective, n_trials=20)
    assert [Claim.of(trial) for trial in study.trials[:3]] == [None] * 3
    expected = SPACE.grow(SPACE.grow(SPACE.initial(), 7), 8)
    assert SPACE.from_trial(study.trials[2]) == expected
    phases = [trial.user_attrs["phase"] for trial in study.trials[3:]]
    assert phases == ["growth"] * 17  # The initial network was there already.
    assert {1, 2} & {trial.params["parent"] for trial in study.trials[3:]}


def test_found_is_the_best_finished_network():
    study = study_with()
    assert study.sampler.found(study) is None
    for value in (0.5, 0.7, 0.9, 0.7):
        add(study, 10, value)
    add(study, 10, 0.95, constraints={"params": 1.0})
    add(study, 10, 0.99, state=TrialState.PRUNED)
    assert study.sampler.found(study) == SPACE.from_trial(study.trials[2])
    ranked = [(number, value) for number, _, value in study.sampler.candidates(study)]
    assert ranked == [(2, 0.9), (1, 0.7), (3, 0.7), (0, 0.5)]
    assert all(isinstance(a, GrowthArchitecture) for _, a, _ in study.sampler.candidates(study))


def test_storage_alone_keeps_the_state():
    storage = InMemoryStorage()
    study_with(storage=storage).optimize(objective, n_trials=7)
    again = study_with(storage=storage, load_if_exists=True)
    again.optimize(objective, n_trials=7)
    once = study_with()
    once.optimize(objective, n_trials=14)
    assert networks(again) == networks(once)


# Misuse.


def test_an_objective_that_records_no_cost_is_told():
    study = study_with()
    with pytest.raises(UserError, match="`multiply_adds`, a number, which the objective must"):
        study.optimize(lambda trial: accuracy_of(SPACE.suggest(trial)), n_trials=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"increments": 0}, "`increments` must be an integer, 1 or more"),
        ({"max_growths": 0}, "`max_growths` must be an integer, 1 or more"),
        ({"max_cost": -1}, "`max_cost` must be an integer, 0 or more"),
        ({"best_probability": 1.1}, "`best_probability` must be a probability"),
        ({"best_probability": float("nan")}, "`best_probability` must be a probability"),
        ({"max_retries": -1}, "`max_retries` must be an integer, 0 or more"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RandGrowSampler(SPACE, **options)


def test_other_spaces_are_refused():
    with pytest.raises(TypeError, match="searches a GrowthSpace"):
        RandGrowSampler(CellSpace())


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestConformance(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's own cases."""

    @pytest.fixture
    def sampler(self):
        # These objectives never train the initial network: it is proposed over and over.
        return lambda: RandGrowSampler(GrowthSpace(), max_retries=1000)

    def test_nan_objective_value(self, sampler):
        """Does not apply: an initial network that fails ends the search."""
