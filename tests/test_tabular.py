"""Looking accuracies up: tables, curves, costs, limits and clear refusals."""

import subprocess
import sys
from itertools import product

import numpy as np
import optuna
import pytest
from conftest import SHARED
from optuna.pruners import NopPruner
from optuna.samplers import BruteForceSampler, RandomSampler
from optuna.trial import TrialState

from optnas.errors import UserError
from optnas.objectives.tabular import Tabular
from optnas.samplers import EcoNASSampler, HierarchicalPruner, SynchronousEcoNASSampler
from optnas.spaces import NasBench201Architecture, NasBench201Space, RowSpace
from optnas.spaces.nasbench201 import OPERATIONS

CURVE = np.array([[0.1, 0.3, 0.2], [0.2, 0.4, 0.6], [0.1, np.nan, 0.9]])


@pytest.fixture
def write(tmp_path):
    def save(**arrays):
        path = tmp_path / "table.npz"
        np.savez(path, **arrays)
        return path

    return save


@pytest.fixture
def curves(write):
    return write(
        curve=CURVE,
        epoch=np.array([1, 2, 3]),
        train_seconds_30ep=np.array([30.0, 60.0, 90.0]),
        params=np.array([100, 200, 300]),
    )


def evaluated(objective, *rows, **options):
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(0), **options)
    for row in rows:
        study.enqueue_trial({"row": row})
    study.optimize(objective, n_trials=len(rows))
    return study.trials


def test_a_curve_is_reported_epoch_by_epoch_and_costs_what_it_costs(curves):
    first, second = evaluated(Tabular(RowSpace(3), curves, "curve"), 0, 1)
    assert first.intermediate_values == {1: 0.1, 2: 0.3, 3: 0.2}
    assert (first.value, second.value) == (0.3, 0.6)
    assert second.user_attrs == {"params": 200, "epochs_trained": 3, "train_seconds": 6.0}


def test_fewer_epochs_are_the_beginning_of_the_curve(curves):
    (trial,) = evaluated(Tabular(RowSpace(3), curves, "curve", epochs=2), 1)
    assert (trial.value, trial.last_step) == (0.4, 2)
    assert trial.user_attrs["train_seconds"] == 4.0


def test_a_pruned_training_costs_its_epochs(curves):
    objective = Tabular(RowSpace(3), curves, "curve")
    trial = evaluated(objective, 1, 0, pruner=HierarchicalPruner(1))[1]
    assert trial.state == TrialState.PRUNED
    assert (trial.last_step, trial.user_attrs["train_seconds"]) == (1, 1.0)


def test_a_network_without_a_value_fails(curves):
    (trial,) = evaluated(Tabular(RowSpace(3), curves, "curve"), 2)
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["failure"] == "candidate"


def test_a_broken_limit_is_a_violated_constraint(curves):
    trials = evaluated(Tabular(RowSpace(3), curves, "curve", limits={"params": 150}), 0, 1)
    assert [trial.value for trial in trials] == [0.3, 0.0]
    assert [trial.constraints for trial in trials] == [{"params": -50.0}, {"params": 50.0}]


def test_progress_is_told_after_every_epoch(curves):
    reports = []
    evaluated(Tabular(RowSpace(3), curves, "curve", on_epoch=reports.append), 0)
    assert [(p.epoch, p.epochs, p.accuracy, p.seconds) for p in reports] == [
        (1, 3, 0.1, 1.0),
        (2, 3, 0.3, 2.0),
        (3, 3, 0.3, 3.0),
    ]


def test_percent_become_fractions_and_the_name_says_the_epochs(write):
    table = write(val_12ep=np.array([50.0, 90.0]), train_seconds_200ep=np.array([400.0, 200.0]))
    (trial,) = evaluated(Tabular(RowSpace(2), table, "val_12ep"), 1)
    assert (trial.value, trial.intermediate_values) == (0.9, {})
    assert trial.user_attrs == {"epochs_trained": 12, "train_seconds": 12.0}


def test_networks_go_by_their_names(write):
    space = NasBench201Space()
    rng = np.random.default_rng(0)
    networks = [space.random(rng) for _ in range(5)]
    table = write(arch=np.array([str(n) for n in networks]), accuracy=np.linspace(0.1, 0.5, 5))
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(0))
    objective = Tabular(space, table, "accuracy")
    for network in networks:
        study.enqueue_trial(space.to_params(network))
    study.optimize(objective, n_trials=5)
    assert [trial.value for trial in study.trials] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    with pytest.raises(UserError, match=r"table\.npz: the table has no network '\|"):
        study.optimize(objective, n_trials=1)


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not here")
def test_nasbench201_has_every_architecture_of_its_space():
    path = SHARED / "data" / "nasbench201_cifar10.npz"
    space, table = NasBench201Space(), np.load(path)
    objective = Tabular(space, path, "val_200ep")
    study = optuna.create_study(direction="maximize", sampler=EcoNASSampler(space, seed=0))
    study.optimize(objective, n_trials=100)
    for trial in study.trials:
        row = table["arch"].tolist().index(str(space.from_params(trial.params)))
        assert trial.value == pytest.approx(table["val_200ep"][row] / 100)
        assert trial.user_attrs["params"] == table["params"][row]
        seconds = pytest.approx(float(table["train_seconds_200ep"][row]))
        assert trial.user_attrs["train_seconds"] == seconds


def test_rungs_of_the_synchronous_orders_are_parts_of_a_curve(write):
    space = NasBench201Space()
    names = [
        str(NasBench201Architecture(operations)) for operations in product(OPERATIONS, repeat=6)
    ]
    curves = np.random.default_rng(0).random((len(names), 6))
    table = write(arch=np.array(names), curve=curves, epoch=np.arange(1, 7))
    sampler = SynchronousEcoNASSampler(space, order="paper", epochs=2, initial=9, cycles=2, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=NopPruner())
    study.optimize(Tabular(space, table, "curve"))
    assert [trial.last_step for trial in study.trials] == [2] * 9 + (
        [2] * 16 + [4] * 8 + [6] * 4
    ) * 2
    for trial in study.trials[25:]:
        if "continues" in trial.user_attrs:
            before = study.trials[trial.user_attrs["continues"]].intermediate_values
            assert trial.intermediate_values.items() > before.items()


def test_row_spaces_can_be_searched_to_their_end(curves):
    objective = Tabular(RowSpace(2), curves, "curve")
    study = optuna.create_study(direction="maximize", sampler=BruteForceSampler())
    study.optimize(objective)
    assert sorted(trial.params["row"] for trial in study.trials) == [0, 1]
    assert RowSpace(2).from_params(study.best_trial.params).row == 1


def from_settings(folder, **options):
    return Tabular.from_settings(RowSpace(3), limits={}, folder=folder, **options)


def test_a_study_files_path_starts_in_its_folder(curves):
    objective = from_settings(curves.parent, table="table.npz", column="curve", epochs=2)
    assert evaluated(objective, 0)[0].value == 0.3


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"a": [0.5]}, {"column": "b"}, "has no column of numbers 'b'; it has a"),
        ({"arch": ["x"]}, {"column": "arch"}, "has no column of numbers 'arch'; it has none"),
        ({"a": [[0.5]]}, {"column": "a"}, "the array `epoch`"),
        ({"a": [[0.5]], "epoch": [0]}, {"column": "a"}, "the array `epoch`"),
        (
            {"a": [[0.5, 0.6]], "epoch": [1, 2]},
            {"column": "a", "epochs": 3},
            "`epochs` must be from 1 to 2: 3",
        ),
        ({"a": [0.5]}, {"column": "a", "epochs": 3}, "has no curves"),
        ({"a": [0.5]}, {"column": "a", "limits": {"params": 1}}, "column of numbers 'params'"),
    ],
)
def test_a_table_without_what_is_needed_is_refused(write, arrays, options, message):
    path = write(**{name: np.array(values) for name, values in arrays.items()})
    with pytest.raises(UserError, match=message):
        Tabular(RowSpace(1), path, **options)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": [0.5, np.inf]}, "'a' has values from 0.5 to inf; expected accuracies"),
        ({"a": [-np.inf, 0.5]}, "'a' has values from -inf to 0.5"),
        ({"a": [12.0, 180.0]}, "'a' has values from 12 to 180"),
        ({"a": [-0.5, 3.0]}, "'a' has values from -0.5 to 3"),
        ({"a": [np.nan, np.nan]}, "'a' is NaN for every network"),
        ({"a": np.zeros(0)}, "the table has no rows"),
        ({"a": [0.5, 0.6], "arch": ["x", "x"]}, "'arch' names the network 'x' more than once"),
        ({"a": [0.5, 0.6], "params": [1.0, np.nan]}, "'params' must be numbers from 0 on"),
        ({"a": [0.5, 0.6], "params": [[1], [2]]}, "'params' must be numbers from 0 on"),
        *(
            ({"a": [0.5, 0.6], "train_seconds_9ep": wrong}, "'train_seconds_9ep' must be numbers")
            for wrong in ([1.0, np.nan], [1.0, -1.0], ["1", "2"], [[1.0], [2.0]])
        ),
    ],
)
def test_a_table_of_what_is_no_accuracy_is_refused(write, arrays, message):
    path = write(**{name: np.array(values) for name, values in arrays.items()})
    with pytest.raises(UserError, match=message):
        Tabular(RowSpace(2), path, "a")


@pytest.mark.parametrize(
    ("values", "greatest"),
    [([0.0, 1.0], 1.0), ([12.0, 100.0], 1.0), ([-3.0, -0.5], -0.5), ([np.nan, 0.25], 0.25)],
)
def test_accuracies_and_negative_losses_are_read(write, values, greatest):
    trials = evaluated(Tabular(RowSpace(2), write(a=np.array(values)), "a"), 0, 1)
    assert max(trial.value for trial in trials if trial.value is not None) == greatest


def test_names_may_be_bytes(write):
    path = write(a=np.array([0.5, 0.25]), arch=np.array([b"0", b"1"]))
    assert [trial.value for trial in evaluated(Tabular(RowSpace(2), path, "a"), 0, 1)] == [
        0.5,
        0.25,
    ]


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such table"):
        Tabular(RowSpace(1), tmp_path / "absent.npz", "a")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(UserError, match="not a table"):
        Tabular(RowSpace(1), tmp_path / "text.npz", "a")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(UserError, match="not a table"):
        Tabular(RowSpace(1), tmp_path / "array.npy", "a")


def test_it_needs_no_torch():
    code = "import optnas.objectives.tabular, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
