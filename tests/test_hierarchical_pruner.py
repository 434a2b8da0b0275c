"""The hierarchical pruner: rungs, ranks, age, several workers, resumption, real curves."""

import time

import numpy as np
import optuna
import pytest
from conftest import SHARED
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from optnas.objectives.tabular import Tabular
from optnas.samplers import HierarchicalPruner
from optnas.spaces import RowSpace
from optnas.trials.attributes import RUNG


def study_with(pruner, **options):
    return optuna.create_study(
        sampler=RandomSampler(0), pruner=pruner, **({"direction": "maximize"} | options)
    )


def train(study, *curves):
    """Run a trial per curve of accuracies; how many epochs each trained."""

    def objective(trial):
        curve = curves[trial.number - before]
        for epoch, accuracy in enumerate(curve, start=1):
            trial.report(accuracy, epoch)
            if epoch < len(curve) and trial.should_prune():
                raise optuna.TrialPruned
        return max(curve)

    before = len(study.trials)
    study.optimize(objective, n_trials=len(curves))
    return [len(trial.intermediate_values) for trial in study.trials[before:]]


def test_a_trial_goes_on_if_it_ranks_in_the_promoted_share():
    flat = [[a] * 6 for a in (0.5, 0.4, 0.6, 0.55, 0.45, 0.7)]
    # At 2 epochs: 1 of 1, 2 of 2, 1 of 3, 2 of 4, 4 of 5, 1 of 6. Places: half, at least one.
    # At 4 epochs: 1 of 1, 1 of 2, 2 of 3, 1 of 4.
    assert train(study_with(HierarchicalPruner(2)), *flat) == [6, 2, 6, 4, 2, 6]


def test_the_rung_is_written_and_nothing_between_rungs(monkeypatch):
    study = study_with(HierarchicalPruner(3))
    written = []
    write = study._storage.set_trial_system_attr

    def record(trial_id, key, value):
        written.append((study.trials[-1].last_step, key, value))
        write(trial_id, key, value)

    monkeypatch.setattr(study._storage, "set_trial_system_attr", record)
    train(study, [0.5] * 9)
    assert written == [(3, RUNG, 1), (6, RUNG, 2)]
    train(study, [0.4] * 9)
    assert study.trials[1].state == TrialState.PRUNED
    assert study.trials[1].system_attrs == {RUNG: 1}


def test_between_rungs_the_storage_is_not_read(monkeypatch):
    study = study_with(HierarchicalPruner(5))
    trial = study.ask()
    for epoch in range(1, 5):
        trial.report(0.5, epoch)
    monkeypatch.setattr(study._storage, "get_all_trials", None)
    frozen = study._storage.get_trial(trial._trial_id)
    assert study.pruner.prune(study, frozen) is False


def test_the_rank_is_of_the_best_accuracy_so_far():
    peak_then_drop, steady = [0.9, 0.1, 0.1], [0.5, 0.5, 0.5]
    study = study_with(HierarchicalPruner(2, (0.5,)))
    assert train(study, [0.6, 0.6, 0.6], steady, peak_then_drop) == [3, 2, 3]


def test_of_equal_trials_the_earlier_ranks_higher():
    assert train(study_with(HierarchicalPruner(1)), *[[0.5] * 3] * 4) == [3, 1, 1, 1]


def test_a_minimising_study_promotes_the_least():
    study = study_with(HierarchicalPruner(1), direction="minimize")
    assert train(study, [0.5] * 3, [0.6] * 3, [0.4] * 3) == [3, 1, 3]


def test_trials_die():
    pruner = HierarchicalPruner(1, (1 / 2,), max_age=2, cycle=2)
    study = study_with(pruner)
    high, low = [0.9] * 2, [0.1] * 2
    # The high ones are rivals of the next three trials and no longer.
    assert train(study, high, high, [0.3] * 2, [0.2] * 2, low, [0.25] * 2) == [2, 1, 1, 1, 1, 2]


def test_lost_trials_are_no_rivals_and_shift_nobodys_age():
    study = study_with(HierarchicalPruner(1, (1 / 2,), max_age=1, cycle=3))
    assert train(study, [0.5] * 2) == [2]
    for _ in range(5):
        trial = study.ask()
        trial.report(0.9, 1)
        study.tell(trial, state=TrialState.FAIL)
    assert train(study, [0.4] * 2) == [1]


def test_a_continued_trial_is_judged_at_the_rung_where_it_was_cut_off():
    study = study_with(HierarchicalPruner(2))
    train(study, [0.5] * 6)
    trial = study.ask()
    for epoch in (1, 2):
        trial.report(0.4, epoch)
    assert trial.should_prune()
    assert trial.should_prune()
    trial = study.ask()
    for epoch in (1, 2, 3):  # The same, gone on from a rung: it was promoted there.
        trial.report(0.4, epoch)
    assert not trial.should_prune()


def test_the_share_holds_when_every_trial_is_better_than_the_last():
    rising = [[accuracy] * 3 for accuracy in np.linspace(0.1, 0.9, 100)]
    falling = rising[::-1]
    assert train(study_with(HierarchicalPruner(1)), *falling) == [3, *[1] * 99]
    # Each is the best so far, so that each goes on.
    assert train(study_with(HierarchicalPruner(1)), *rising) == [3] * 100


def test_a_surplus_makes_the_pruner_stricter():
    """Each trial ranks third of the living, and six places are to be had."""
    accuracies = [0.1 * rank for rank in range(12)]
    curves = [[a] * 2 for a in accuracies]  # All of them rise, so all of them go on.
    study = study_with(HierarchicalPruner(1, (1 / 2,)))
    assert train(study, *curves) == [2] * 12
    # 13 rivals, 6 places, 12 gone on: rank 3 is not in the upper half of the places.
    assert train(study, [0.1 * 8.5] * 2) == [1]
    assert train(study, [0.1 * 9.5] * 2) == [2]


def test_with_threads_every_trial_ends_at_a_rung():
    study = study_with(HierarchicalPruner(2))

    def objective(trial):
        accuracy = np.random.default_rng(trial.number).random()
        for epoch in range(1, 7):
            time.sleep(0.001)
            trial.report(accuracy, epoch)
            if epoch < 6 and trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    study.optimize(objective, n_trials=80, n_jobs=4)
    epochs = [len(trial.intermediate_values) for trial in study.trials]
    assert set(epochs) == {2, 4, 6}
    assert 0.5 < sum(epochs) / (6 * 80) < 0.68


def test_decisions_come_from_the_storage_alone():
    curves = [[a] * 3 for a in np.random.default_rng(0).random(30)]
    once = train(study_with(HierarchicalPruner(1)), *curves)
    options = {"study_name": "s", "storage": InMemoryStorage(), "load_if_exists": True}
    again = [train(study_with(HierarchicalPruner(1), **options), curve)[0] for curve in curves]
    assert again == once


@pytest.mark.parametrize(("table", "epochs"), [("metaqnn_cifar10", 6), ("naap440", 30)])
@pytest.mark.parametrize(("share", "most"), [(1 / 2, 0.62), (1 / 3, 0.50)])
def test_on_real_curves_it_spends_little_and_keeps_the_best(table, epochs, share, most):
    path = SHARED / "data" / "learning_curves" / f"{table}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    curve = np.load(path)["curve"][:, : 3 * epochs]
    final, rows = curve.max(axis=1), len(curve)
    objective = Tabular(RowSpace(rows), path, "curve", epochs=3 * epochs)
    for seed in range(2):
        study = study_with(HierarchicalPruner(epochs, (share, share)))
        for row in np.random.default_rng(seed).permutation(rows):
            study.enqueue_trial({"row": int(row)})
        study.optimize(objective, n_trials=rows)
        lengths = [len(trial.intermediate_values) for trial in study.trials]
        assert set(lengths) == {epochs, 2 * epochs, 3 * epochs}
        assert sum(lengths) <= most * curve.size
        assert (final > final[study.best_trial.params["row"]]).sum() < rows // 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "`epochs` must be an integer, 1 or more"),
        ({"epochs": 1, "promote": (0.0, 0.5)}, r"`promote` must hold a share in \(0, 1\]"),
        ({"epochs": 1, "promote": (0.5, 1.5)}, r"`promote` must hold a share in \(0, 1\]"),
        ({"epochs": 1, "promote": (float("nan"),)}, r"`promote` must hold a share"),
        ({"epochs": 1, "promote": ()}, "`promote` must hold a share"),
        ({"epochs": 1, "max_age": 0}, "`max_age`"),
        ({"epochs": 1, "cycle": 0}, "`cycle`"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalPruner(**options)


# Where the rungs are.


@pytest.mark.parametrize(
    ("options", "epochs", "shares"),
    [
        ({"epochs": 4}, (4, 8, 12), (1 / 2, 1 / 2)),
        ({"epochs": 2, "promote": (0.3,) * 4}, (2, 4, 6, 8, 10), (0.3,) * 4),
        ({"first": 2}, (2, 6, 18), (1 / 3, 1 / 3)),
        ({"first": 5, "factor": 4}, (5, 20, 80), (1 / 4, 1 / 4)),
        ({"first": 1, "factor": 2, "promote": (1 / 2,) * 5}, (1, 2, 4, 8, 16, 32), (1 / 2,) * 5),
        ({"first": 4, "factor": 1.5}, (4, 6, 9), (2 / 3, 2 / 3)),
    ],
)
def test_rungs_are_equidistant_or_geometric(options, epochs, shares):
    pruner = HierarchicalPruner(**options)
    assert pruner.rungs.epochs == epochs
    assert pruner.whole_training == epochs[-1]
    assert pruner._promote == pytest.approx(shares)


def test_geometric_rungs_are_where_trials_are_compared():
    # Up to epoch 2 the second is worse, up to 6 the third is, at 18 nobody is asked.
    curves = [[0.5] * 18, [0.4] * 18, [0.6] * 5 + [0.6] * 13, [0.7] * 18]
    study = study_with(HierarchicalPruner(first=2, factor=3, promote=(1 / 2, 1 / 2)))
    assert train(study, *curves) == [18, 2, 18, 18]
    assert [trial.system_attrs[RUNG] for trial in study.trials] == [2, 1, 2, 2]


def test_a_report_that_jumps_over_a_rung_arrives_at_the_last_one_reached():
    study = study_with(HierarchicalPruner(first=2, factor=3))
    trial = study.ask()
    trial.report(0.5, 1)
    assert not trial.should_prune()
    trial.report(0.5, 7)
    assert not trial.should_prune()
    assert study.trials[0].system_attrs == {RUNG: 2}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "Say where the rungs are"),
        ({"epochs": 2, "first": 3}, "Say where the rungs are"),
        ({"epochs": 2, "factor": 3}, "Say where the rungs are"),
        ({"factor": 3}, "Say where the rungs are"),
        ({"first": 0}, "`first` must be"),
        ({"first": 2, "factor": 1}, "`factor` must be greater than 1"),
        ({"first": 1, "factor": 1.2}, "`factor` must lead to more epochs"),
    ],
)
def test_rungs_that_cannot_be_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        HierarchicalPruner(**options)
