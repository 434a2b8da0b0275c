"""The stage-wise strategy: its growth, its trials, and the objective that feeds it."""

import itertools
import random
import time

import optuna
import pytest
from optuna.trial import create_trial

from optnas.config.settings import DataSettings, NetworkSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.data.images import load_images
from optnas.objectives.stage_classification import StageClassification
from optnas.samplers import StageWiseSampler
from optnas.spaces import ChainSpace, StageArchitecture, StageSpace

# The networks of the authors' files, and the temporary ones between them.
CANDIDATES = [(6, 6, 6), (6, 8, 6), (8, 10, 6), (10, 12, 6), (10, 12, 8), (10, 14, 8)]
PUBLISHED = [CANDIDATES[0]]
for before, after in itertools.pairwise(CANDIDATES):
    PUBLISHED += [tuple(m + 2 for m in before), after]
# The fourth candidate is the temporary network of the third iteration, trained already.
TRAINED = list(dict.fromkeys(PUBLISHED))


def leading_to(path) -> dict[tuple[int, ...], list[float]]:
    """Importances with which the search takes a path of initial, temporary, candidate, ..."""
    scores = {path[0]: [0.90, 0.88, 0.91]}
    for before, temporary, after in zip(path[:-2:2], path[1::2], path[2::2], strict=True):
        known = scores[before]
        gains = [0.01 if a > b else -0.01 for b, a in zip(before, after, strict=True)]
        # What is trained already keeps its importances.
        scores.setdefault(temporary, [k + g for k, g in zip(known, gains, strict=True)])
        scores.setdefault(after, [0.90, 0.88, 0.91])
    return scores


class Table:
    """An objective that looks importances up; a deeper network is better."""

    def __init__(self, scores, jitter: float = 0.0, **options) -> None:
        self.space = StageSpace(**options)
        self.scores = scores
        self.jitter = jitter
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, trial: optuna.Trial) -> float:
        modules = self.space.suggest(trial).modules
        self.calls.append(modules)
        time.sleep(self.jitter * random.random())
        trial.set_user_attr("stage_importance", list(self.scores[modules]))
        return sum(modules) / 100


def search(table, *, n_jobs: int = 1, **options):
    sampler = StageWiseSampler(table.space, **options)
    study = optuna.create_study(
        direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner()
    )
    study.optimize(table, n_jobs=n_jobs)
    return study


def modules(found):
    return None if found is None else found.modules


class Tuned(Table):
    """Scores by parameters: "one" grows the first stage, "two" the second, "none" nothing."""

    def __init__(self, accuracies, **options) -> None:
        super().__init__({}, **options)
        self.accuracies = accuracies

    def __call__(self, trial: optuna.Trial) -> float:
        modules = self.space.suggest(trial).modules
        self.calls.append(modules)
        a, b = modules
        scores = {"one": [a / 99, 0.5], "two": [0.5, b / 99], "none": [0.5, 0.5]}
        trial.set_user_attr("tuned_importance", scores)
        trial.set_user_attr("stage_importance", scores["none"])
        return self.accuracies.get(modules, 0.1)


def test_parameters_are_chosen_by_what_they_grow_in_the_first_iteration():
    table = Tuned({(1, 2): 0.9, (2, 1): 0.8}, stages=2)
    study = search(table, initial=1, growth=1, iterations=3)
    # What nobody grows is the network that is there; then "two" decides alone.
    assert set(table.calls[:4]) == {(1, 1), (2, 2), (2, 1), (1, 2)}
    assert table.calls[4:] == [(2, 3), (1, 3), (2, 4), (1, 4)]
    phases = [trial.user_attrs["phase"] for trial in study.trials]
    assert sorted(phases[2:4]) == ["tuning", "tuning"]
    assert modules(study.sampler.found(study)) == (1, 4)
    assert study.sampler.candidates(study)[0][1].modules == (1, 4)


def test_parameters_that_grow_nothing_may_win():
    table = Tuned({(1, 1): 0.9}, stages=2)
    study = search(table, initial=1, growth=1, iterations=3)
    assert modules(study.sampler.found(study)) == (1, 1)
    assert len(table.calls) == 4


def test_the_published_path_is_taken():
    table = Table(leading_to(PUBLISHED))
    study = search(table)
    assert len(PUBLISHED) == 2 * 5 + 1
    assert table.calls == TRAINED
    assert len(study.trials) == 10
    assert [t.user_attrs["phase"] for t in study.trials] == [
        *["initial", "temporary", "candidate", "temporary", "candidate"],
        *["temporary", "candidate", "temporary", "temporary", "candidate"],
    ]
    assert study.sampler.found(study) == StageArchitecture((10, 14, 8))
    # The last one, and the others by their value.
    expected = [(TRAINED.index(m), m, sum(m) / 100) for m in CANDIDATES[1:]]
    expected = expected[-1:] + sorted(expected[:-1], key=lambda entry: -entry[2])
    assert [_plain(entry) for entry in study.sampler.candidates(study)] == expected


def test_a_worse_candidate_is_found_nevertheless():
    scores = {(1,): [0.1], (2,): [0.2], (3,): [0.3], (4,): [0.4]}
    table = Table(scores, stages=1)
    worse = {(1,): 0.6, (2,): 0.7, (3,): 0.8, (4,): 0.5}

    def objective(trial):
        table(trial)
        return worse[table.calls[-1]]

    objective.space = table.space
    study = search(objective, initial=1, growth=1, iterations=3)
    assert modules(study.sampler.found(study)) == (4,)
    assert [_plain(entry) for entry in study.sampler.candidates(study)] == [
        (3, (4,), 0.5),
        (2, (3,), 0.8),
        (1, (2,), 0.7),
    ]


def test_equal_importance_does_not_grow():
    scores = {(6, 6, 6): [0.90, 0.88, 0.91], (8, 8, 8): [0.89, 0.90, 0.91], (6, 8, 6): [0, 0, 0]}
    study = search(Table(scores), iterations=1)
    assert modules(study.sampler.found(study)) == (6, 8, 6)
    assert len(study.trials) == 3


def test_on_sqlite_restarted_after_every_trial(tmp_path):
    table = Table(leading_to(PUBLISHED))
    while True:
        study = optuna.create_study(
            study_name="restarted",
            storage=f"sqlite:///{tmp_path}/study.db",
            load_if_exists=True,
            direction="maximize",
            sampler=StageWiseSampler(table.space),
            pruner=optuna.pruners.NopPruner(),
        )
        if study.sampler.found(study) is not None:
            break
        assert not study.sampler.is_finished(study)
        study.optimize(table, n_trials=1)
    assert table.calls == TRAINED
    assert study.sampler.is_finished(study)
    assert modules(study.sampler.found(study)) == (10, 14, 8)


@pytest.mark.parametrize("n_jobs", [2, 3])
@pytest.mark.parametrize("jitter", [0.0, 0.02])
def test_threads_find_the_same_and_waste_nothing(jitter, n_jobs):
    table = Table(leading_to(PUBLISHED), jitter)
    study = search(table, n_jobs=n_jobs)
    assert modules(study.sampler.found(study)) == (10, 14, 8)
    assert sorted(table.calls) == sorted(TRAINED)
    assert {m for _, m, _ in map(_plain, study.sampler.candidates(study))} == set(CANDIDATES[1:])


def _plain(entry):
    return entry[0], entry[1].modules, entry[2]


def test_a_network_and_the_deeper_one_train_at_the_same_time():
    table = Table({})
    sampler = StageWiseSampler(table.space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    asked = [study.ask() for _ in range(2)]
    assert [table.space.suggest(trial).modules for trial in asked] == [(6, 6, 6), (8, 8, 8)]
    assert sampler.found(study) is None
    assert not sampler.is_finished(study)
    # The deeper one may be done first.
    asked[1].set_user_attr("stage_importance", [0.5, 0.5, 0.5])
    study.tell(asked[1], 0.9)
    asked[0].set_user_attr("stage_importance", [0.6, 0.4, 0.6])
    study.tell(asked[0], 0.9)
    assert table.space.suggest(study.ask()).modules == (6, 8, 6)


def test_a_candidate_equal_to_the_temporary_network_is_not_trained_again():
    scores = {(m, m): [m, m] for m in range(1, 9)}
    table = Table(scores, stages=2)
    study = search(table, initial=1, growth=1, iterations=4)
    assert table.calls == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]
    assert modules(study.sampler.found(study)) == (5, 5)
    assert [number for number, _, _ in study.sampler.candidates(study)] == [4, 3, 2, 1]


def test_the_search_ends_when_no_stage_grows():
    scores = {(6, 6, 6): [0.9, 0.9, 0.9], (8, 8, 8): [0.9, 0.8, 0.9]}
    study = search(Table(scores))
    assert len(study.trials) == 2
    assert modules(study.sampler.found(study)) == (6, 6, 6)
    assert [_plain(entry) for entry in study.sampler.candidates(study)] == [(0, (6, 6, 6), 0.18)]


def test_no_stage_grows_beyond_the_space():
    class Rising(dict):
        def __missing__(self, key):
            return list(key)

    table = Table(Rising(), modules=(1, 9))
    study = search(table, initial=6, growth=2)
    assert table.calls == [(6, 6, 6), (8, 8, 8), (9, 9, 9)]
    assert modules(study.sampler.found(study)) == (9, 9, 9)
    assert study.sampler.is_finished(study)


@pytest.mark.parametrize(
    ("failing", "found", "trials"),
    [((6, 6, 6), None, 1), ((8, 8, 8), (6, 6, 6), 2), ((6, 8, 6), (6, 6, 6), 3)],
)
@pytest.mark.parametrize("how", ["nan", "infeasible"])
def test_a_failure_ends_the_search_with_the_network_before(failing, found, trials, how):
    table = Table(leading_to(PUBLISHED))

    def objective(trial):
        value = table(trial)
        if table.calls[-1] != failing:
            return value
        trial.user_attrs.pop("stage_importance")
        if how == "infeasible":
            trial.set_constraint("params", 1.0)
            return 0.0
        trial.set_user_attr("failure", "candidate")
        return float("nan")

    objective.space = table.space
    study = search(objective)
    assert modules(study.sampler.found(study)) == found
    assert len(study.trials) == trials
    assert study.sampler.is_finished(study)


@pytest.mark.parametrize("importance", [None, [0.9, 0.9], 0.9, "abc", [0.9, None, 0.9]])
def test_a_result_without_importances_is_an_error(importance):
    space = StageSpace()

    def objective(trial):
        space.suggest(trial)
        if importance is not None:
            trial.set_user_attr("stage_importance", importance)
        return 0.5

    objective.space = space
    with pytest.raises(
        ValueError, match="Trial 0 must have the user attribute `stage_importance`"
    ):
        search(objective)


def test_results_of_others_count():
    table = Table(leading_to(PUBLISHED))
    sampler = StageWiseSampler(table.space)
    study = optuna.create_study(
        direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner()
    )
    study.add_trial(
        create_trial(
            params={f"modules_{i}": 8 for i in (1, 2, 3)},
            distributions=table.space.distributions(),
            value=0.5,
            user_attrs={"stage_importance": table.scores[8, 8, 8]},
        )
    )
    study.optimize(table)
    assert table.calls == [m for m in TRAINED if m != (8, 8, 8)]
    assert modules(sampler.found(study)) == (10, 14, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 31}, "`initial` must lie in the space's range, from 1 to 30: 31"),
        ({"initial": 0}, "`initial` must be an integer, 1 or more"),
        ({"growth": 0}, "`growth` must be an integer, 1 or more"),
        ({"growth": 1.5}, "`growth` must be an integer, 1 or more"),
        ({"iterations": 0}, "`iterations` must be an integer, 1 or more"),
        ({"max_retries": -1}, "`max_retries` must be"),
    ],
)
def test_bad_options_are_refused_with_the_rule(options, message):
    with pytest.raises(ValueError, match=message):
        StageWiseSampler(StageSpace(), **options)


def test_other_spaces_are_refused():
    with pytest.raises(TypeError, match="searches a StageSpace"):
        StageWiseSampler(ChainSpace())


# The objective.


def objective_with(space=None, **options) -> StageClassification:
    return StageClassification(
        space or StageSpace(stages=2, modules=(1, 3)),
        load_images(DataSettings(name="digits"), 0),
        train=TrainSettings(epochs=1, lr=0.1),
        seed=0,
        device="cpu",
        **options,
    )


def test_digits_are_searched_and_found_the_same_again():
    def outcome(n_jobs):
        study = search(objective_with(), n_jobs=n_jobs, initial=1, growth=1, iterations=2, seed=0)
        # A second thread may have asked for more when the search ended.
        trained = [trial for trial in study.trials if trial.params]
        assert 2 <= len(trained) <= 5
        for trial in trained:
            scores = trial.user_attrs["stage_importance"]
            assert [type(score) for score in scores] == [float] * 2
        return {
            (*t.params.values(), t.value, *t.user_attrs["stage_importance"]) for t in trained
        }, study.sampler.found(study)

    first = outcome(1)
    assert first == outcome(1)
    assert first == outcome(2)


@pytest.mark.parametrize("criterion", ["inf_fs", "il_fs"])
def test_the_criterion_and_the_number_of_samples_are_options(criterion):
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"modules_1": 1, "modules_2": 1})
    study.enqueue_trial({"modules_1": 1, "modules_2": 1})
    study.optimize(objective_with(criterion=criterion), n_trials=1)
    study.optimize(objective_with(criterion=criterion, samples=100), n_trials=1)
    scores = [trial.user_attrs["stage_importance"] for trial in study.trials]
    assert scores[0] != scores[1]


def test_a_study_file_makes_the_objective():
    objective = StageClassification.from_settings(
        StageSpace(stages=2),
        DataSettings(name="digits"),
        criterion="il_fs",
        samples=50,
        train=TrainSettings(epochs=1),
        network=NetworkSettings(),
        proxy=None,
        limits={},
        seed=0,
        device="cpu",
    )
    assert isinstance(objective, StageClassification)
    assert (objective.criterion, objective.samples) == ("il_fs", 50)
    with pytest.raises((TypeError, UserError), match="StageSpace"):
        objective_with(ChainSpace())
