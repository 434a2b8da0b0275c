"""A database read by rows and written in single statements, beside Optuna's own class."""

import math
import random

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from optnas.storage.opening import open_storage
from optnas.trials.attributes import LEASE
from optnas.trials.writing import write_attrs

NUMBERS = (1.5, math.nan, math.inf, -math.inf)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    return str(request.getfixturevalue(request.param).new_database())


@pytest.fixture
def study(url) -> optuna.Study:
    return optuna.create_study(storage=open_storage(url), study_name="a")


def fill(study: optuna.Study) -> None:
    rng = random.Random(0)
    for number in range(12):
        trial = study.ask()
        trial.set_user_attr("later", {"a": [1, None, "ü"]})
        trial.set_user_attr("earlier", number)
        trial.set_user_attr("later", -number)
        trial.suggest_categorical("choice", ["x", None, 3, True])
        trial.suggest_float("share", 0, 1)
        for step in rng.sample(range(5), 3):
            trial.report(rng.choice(NUMBERS), step)
        trial.storage.set_trial_system_attr(trial._trial_id, "system", [1, {"y": 2}])
        study.get_trials()
        if number % 3:
            study.tell(trial, rng.choice((1.0, math.inf)))
        elif number % 2:
            study.tell(trial, state=TrialState.FAIL)
    study.enqueue_trial({"share": 0.5})


def in_words(trial: FrozenTrial) -> dict[str, str]:
    """What a trial says, one NaN being like another."""
    return {
        name: repr(sorted(value.items(), key=str) if isinstance(value, dict) else value)
        for name, value in vars(trial).items()
    }


def test_trials_are_those_that_optuna_reads(study, url):
    fill(study)
    backend = study._storage._backend
    expected = RDBStorage(url)._get_trials(study._study_id, None, set(), -1)
    assert len(expected) == 13
    for read in (study.get_trials(), [backend.get_trial(t._trial_id) for t in expected]):
        assert list(map(in_words, read)) == list(map(in_words, expected))
        assert [list(trial.params) for trial in read] == [list(t.params) for t in expected]
    some = {expected[3]._trial_id, expected[-1]._trial_id}
    found = backend._get_trials(study._study_id, None, some, expected[9]._trial_id)
    assert [trial.number for trial in found] == [3, 10, 11, 12]
    with pytest.raises(KeyError):
        backend.get_trial(10**6)


def test_a_running_trial_is_read_anew_where_it_changed(study):
    first, second = study.ask(), study.ask()
    before = study.get_trials(deepcopy=False)
    second.report(0.5, 1)
    after = study.get_trials(deepcopy=False)
    assert after[0] is before[0]
    assert after[1].intermediate_values == {1: 0.5}
    assert before[1].intermediate_values == {}
    study.tell(first, 1.0)
    assert study.get_trials(deepcopy=False)[0].value == 1.0


def test_an_entry_is_made_where_the_trial_runs(study):
    fill(study)
    backend, trials = study._storage._backend, study.get_trials()
    running = next(t for t in trials if t.state == TrialState.RUNNING)
    ended = next(t for t in trials if t.state == TrialState.COMPLETE)
    share = ended.distributions["share"]
    entries = [
        lambda trial_id: backend.set_trial_user_attr(trial_id, "new", 1),
        lambda trial_id: backend.set_trial_system_attr(trial_id, "new", 1),
        lambda trial_id: backend.set_trial_intermediate_value(trial_id, 9, 0.5),
        lambda trial_id: backend._set_trial_param(trial_id, "share", 0.25, share, share),
        lambda trial_id: backend.set_trial_attrs(
            trial_id, [("user", "one", 1), ("system", "two", 2)]
        ),
    ]
    for make in entries:
        for _ in range(2):  # The answer to the first may have been lost.
            make(running._trial_id)
        with pytest.raises(UpdateFinishedTrialError):
            make(ended._trial_id)
        with pytest.raises(KeyError):
            make(10**6)
    trial = backend.get_trial(running._trial_id)
    assert (trial.user_attrs["new"], trial.system_attrs["new"]) == (1, 1)
    assert (trial.user_attrs["one"], trial.system_attrs["two"]) == (1, 2)
    assert trial.intermediate_values[9] == 0.5
    assert trial.params == running.params  # Which do not change.
    assert repr(backend.get_trial(ended._trial_id)) == repr(ended)


def test_attributes_are_set_together_or_not_at_all(study):
    trial = study.ask()
    frozen = study._storage.get_trial(trial._trial_id)
    engine = study._storage._backend.engine

    @sqlalchemy.event.listens_for(engine, "before_cursor_execute")
    def fail(_connection, _cursor, statement, *_) -> None:
        if "INTO trial_system_attributes" in statement:
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        write_attrs(study._storage, frozen, [("user", "a", 1), ("system", LEASE, {})])
    sqlalchemy.event.remove(engine, "before_cursor_execute", fail)
    read = study._storage.get_trial(trial._trial_id)
    assert (read.user_attrs, read.system_attrs) == ({}, {})
    assert (frozen.user_attrs, frozen.system_attrs) == ({}, {})


def test_an_entry_of_a_trial_is_one_statement(study):
    trial, said = study.ask(), []
    trial.suggest_float("x", 0, 1)
    engine = study._storage._backend.engine
    sqlalchemy.event.listen(
        engine, "before_cursor_execute", lambda _c, _u, statement, *_: said.append(statement)
    )
    trial.set_user_attr("a", 1)
    trial.report(0.5, 1)
    words = [statement.split()[0] for statement in said]
    assert [word for word in words if word != "BEGIN"] == ["INSERT", "INSERT"]
