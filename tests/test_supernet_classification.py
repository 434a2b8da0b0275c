"""The objective of searches on super-networks, on real images."""

import math

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

import optnas
from optnas.config.file import study_from_dict
from optnas.config.messages import StudyFileError
from optnas.config.settings import DataSettings, NetworkSettings, SearchSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.data.images import load_images
from optnas.objectives.networks.build import build_supernet
from optnas.objectives.supernet_classification import SupernetClassification
from optnas.report.text import best_fields
from optnas.running.retraining import retrain_found
from optnas.samplers import DARTSSampler, FTSOSampler
from optnas.samplers.ftso import topology
from optnas.spaces import CellSpace, ChainSpace, NasBench201Space
from optnas.storage.checkpoints import Checkpoints
from optnas.study.networks import networks_of

SPACE = CellSpace(nodes=2)
DATA = DataSettings(name="digits", classes=(0, 1, 2, 3), samples=0.4)
SEARCH = {"cells": 3, "channels": 4, "batch_size": 64}
FILE = {
    "study": "small",
    "space": {"name": "cell", "nodes": 2},
    "sampler": "ftso",
    "objective": {"name": "supernet_classification", "search": SEARCH},
    "data": {"name": "digits", "classes": [0, 1, 2, 3], "samples": 0.4},
    "network": {"cells": 3, "channels": 4},
    "train": {"epochs": 1, "lr": 0.1},
    "seed": 0,
}


def objective_with(space=SPACE, *, search=None, **options) -> SupernetClassification:
    return SupernetClassification(
        space,
        load_images(DATA, 0),
        search=SearchSettings.model_validate(SEARCH | (search or {})),
        train=TrainSettings(epochs=1, lr=0.1),
        network=NetworkSettings(cells=3, channels=4),
        seed=0,
        device="cpu",
        **options,
    )


def run(objective, sampler, storage=None, **options):
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler,
        storage=storage,
        study_name="small",
        load_if_exists=True,
    )
    study.optimize(objective, **options)
    return study


def ftso(space=SPACE, **options):
    return FTSOSampler(space, seed=0, **options)


def test_a_study_file_searches_trains_and_finds(tmp_path):
    outcome = optnas.run(FILE | {"storage": f"sqlite:///{tmp_path}/small.db"})
    assert outcome.ending == "finished"
    first, second = outcome.study.trials
    assert (first.state, second.state) == (TrialState.PRUNED, TrialState.COMPLETE)
    weights = first.user_attrs["edge_weights"]
    assert {kind: list(map(len, nodes)) for kind, nodes in weights.items()} == {
        "normal": [2, 3],
        "reduce": [2, 3],
    }
    # The accuracy of the super-network is reported, as that of every epoch.
    assert list(first.intermediate_values) == [1]
    found = outcome.best
    assert (found.number, found.settled) == (1, True)
    kept = topology(weights["normal"])
    assert found.architecture.normal == tuple(
        tuple(("sep_conv_3x3", source) for source in pair) for pair in kept
    )
    assert best_fields(outcome.opened)["best_trial"]["number"] == 1
    states = [(n.number, n.state, n.phase) for n in networks_of(outcome.study.trials)]
    assert states == [(0, "pruned", "topology"), (1, "complete", "architecture")]


def test_operators_are_learnt_on_the_edges_that_are_left():
    study = run(objective_with(search={"operator_epochs": 2}), ftso(operators="gradient"))
    topology, operators, architecture = study.trials
    assert set(operators.params) == {"phase"} | {
        f"{kind}_pair_{state}" for kind in ("normal", "reduce") for state in (2, 3)
    }
    weights = operators.user_attrs["operation_weights"]
    assert [len(edges) for kind in weights.values() for edges in kind] == [2, 2, 2, 2]
    for edge in (edge for kind in weights.values() for edges in kind for edge in edges):
        assert len(edge) == 8
        assert sum(edge) == pytest.approx(1)
    assert len(operators.intermediate_values) == 2
    assert "operation_weights" not in topology.user_attrs
    assert architecture.value == study.best_value


def test_edges_are_learnt_with_several_operations_at_once():
    search = {"operation": ("max_pool_3x3", "skip_connect", "none")}
    objective = objective_with(search=search)
    mixed = objective._supernet("topology", None, 0)
    assert [len(edges) for edges in mixed.operation_weights()["normal"]] == [2, 3]
    assert {len(edge) for edges in mixed.operation_weights()["normal"] for edge in edges} == {3}
    study = run(objective, ftso())
    first, last = study.trials
    assert (first.state, last.state) == (TrialState.PRUNED, TrialState.COMPLETE)
    weights = first.user_attrs["edge_weights"]
    assert [len(edges) for edges in weights["normal"]] == [2, 3]
    # What settles the operations comes afterwards: one for all the edges that are kept.
    found = SPACE.from_trial(last)
    assert {o for node in found.normal for o, _ in node} == {"sep_conv_3x3"}
    kept = topology(weights["normal"])
    assert [tuple(s for _, s in node) for node in found.normal] == list(map(tuple, kept))


def test_topologies_are_judged_by_the_networks_they_make():
    sampler = ftso(topology_search="discrete", topology_trials=2)
    study = run(objective_with(search={"operation": "max_pool_3x3"}), sampler)
    assert [t.state for t in study.trials] == [TrialState.PRUNED] * 2 + [TrialState.COMPLETE]
    # They are networks: they have a cost, and no weights of edges.
    assert all(t.user_attrs["params"] > 0 for t in study.trials)
    assert not any("edge_weights" in t.user_attrs for t in study.trials)


@pytest.mark.parametrize("second_order", [False, True])
def test_darts_learns_all_at_once(second_order):
    search = {"partial": 1, "edge_weights": False, "second_order": second_order}
    study = run(
        objective_with(search=search | {"operator_epochs": 1, "batch_size": 128}),
        DARTSSampler(SPACE, seed=0),
    )
    assert [t.params["phase"] for t in study.trials] == ["operators", "architecture"]
    weights = study.trials[0].user_attrs["operation_weights"]
    assert [len(edges) for edges in weights["normal"]] == [2, 3]
    assert study.trials[0].user_attrs["edge_weights"]["normal"] == [[0.0] * 2, [0.0] * 3]


def test_one_step_differs_from_an_epoch_and_eigenvalues_are_recorded():
    attrs = [
        run(objective_with(search=search), ftso(), n_trials=1).trials[0].user_attrs
        for search in ({"epochs": 1}, {"iterations": 1, "eigenvalue": True})
    ]
    assert attrs[0]["edge_weights"] != attrs[1]["edge_weights"]
    assert "eigenvalues" not in attrs[0]
    (eigenvalue,) = attrs[1]["eigenvalues"]
    assert math.isfinite(eigenvalue)


def test_an_interrupted_search_goes_on_from_its_checkpoint(tmp_path):
    search = {"epochs": 3}
    alone = run(objective_with(search=search), ftso(), n_trials=1).trials[0]
    store = optuna.artifacts.FileSystemArtifactStore(str(tmp_path))
    storage = optuna.storages.InMemoryStorage()
    seen = []

    def interrupt(progress):
        seen.append((progress.epoch, progress.epochs))
        if len(seen) == 2:
            raise KeyboardInterrupt

    objective = objective_with(search=search, on_epoch=interrupt)
    objective.checkpoints = Checkpoints(store, storage, "small")
    with pytest.raises(KeyboardInterrupt):
        run(objective, ftso(), storage)
    study = run(objective, ftso(), storage, n_trials=1)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    lost, resumed = study.trials
    assert lost.user_attrs["failure"] == "lost"
    assert resumed.user_attrs["continues"] == 0
    assert resumed.user_attrs["epochs_trained"] == 1
    assert resumed.user_attrs["edge_weights"] == alone.user_attrs["edge_weights"]
    assert resumed.intermediate_values == alone.intermediate_values


def test_no_pruner_cuts_a_search_short():
    class Always(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return True

    objective = objective_with(search={"epochs": 2})
    study = optuna.create_study(direction="maximize", sampler=ftso(), pruner=Always())
    study.optimize(objective)
    assert len(study.trials[0].intermediate_values) == 2
    assert study.sampler.found(study) is not None


def test_with_other_samplers_every_trial_is_a_network():
    study = run(objective_with(), optuna.samplers.RandomSampler(0), n_trials=2)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 2
    assert all(set(t.params) == set(SPACE.distributions()) for t in study.trials)


@pytest.mark.parametrize(
    ("operation", "says_nothing"), [("skip_connect", True), ("avg_pool_3x3", False)]
)
def test_with_one_input_skip_connections_say_nothing_of_edges(operation, says_nothing):
    """Every node of a cell of NAS-Bench-201 is then a weighted mean of equal states."""
    generator = torch.Generator().manual_seed(0)
    network = build_supernet(
        NasBench201Space(), (3, 8, 8), 4, generator, cells=3, channels=4, operations=(operation,)
    ).double()
    images = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    before = network(images)
    with torch.no_grad():
        for weights in network.architecture_parameters():
            weights += torch.randn(weights.shape, generator=generator)
    assert torch.allclose(network(images), before) == says_nothing


def test_networks_may_be_looked_up(tmp_path):
    space = NasBench201Space()
    convolutions = dict.fromkeys(space.distributions(), "nor_conv_3x3")
    names = [
        str(space.from_params(convolutions | {f"edge_3_{dropped}": "none"}))
        for dropped in range(3)
    ]
    path = tmp_path / "table.npz"
    np.savez(path, arch=np.array(names), val_200ep=np.array([0.91, 0.92, 0.93]))
    file = FILE | {
        "space": "nasbench201",
        "objective": {
            "name": "supernet_classification",
            "search": SEARCH,
            "table": "table.npz",
            "column": "val_200ep",
        },
        "network": {},
    }
    outcome = optnas.run(study_from_dict(file, tmp_path))
    assert len(outcome.study.trials) == 2
    assert outcome.best.value in (0.91, 0.92, 0.93)
    assert str(outcome.best.architecture) in names
    # What was looked up can be trained nevertheless.
    (report,) = retrain_found(outcome.opened, epochs=1, device="cpu")
    assert report.fields["space"] == "nasbench201"


@pytest.mark.parametrize("curves", [False, True])
def test_topologies_may_be_looked_up(tmp_path, curves):
    space = NasBench201Space()
    names = [str(space.from_params(dict(p))) for p in _all_skips_and_convolutions(space)]
    values = np.linspace(0.1, 0.9, len(names))
    column = np.stack([values / 2, values], axis=1) if curves else values
    np.savez(tmp_path / "table.npz", arch=np.array(names), val=column, epoch=np.array([1, 2]))
    objective = objective_with(space, table=tmp_path / "table.npz", column="val")
    study = run(objective, ftso(space, topology_search="discrete"))
    assert [t.state for t in study.trials] == [TrialState.PRUNED] * 3 + [TrialState.COMPLETE]
    assert [t.value for t in study.trials[:3]] == [
        pytest.approx(values[names.index(str(_skips(space, t.params["cell_pair_3"])))])
        for t in study.trials[:3]
    ]
    best = max(study.trials[:3], key=lambda t: t.value)
    dropped = ({0, 1, 2} - set(map(int, best.params["cell_pair_3"].split(",")))).pop()
    assert study.best_trial.params[f"edge_3_{dropped}"] == "none"


def _skips(space, pair, operation="skip_connect"):
    params = dict.fromkeys(space.distributions(), operation)
    dropped = ({0, 1, 2} - set(map(int, pair.split(",")))).pop()
    return space.from_params(params | {f"edge_3_{dropped}": "none"})


def _all_skips_and_convolutions(space):
    for operation in ("skip_connect", "nor_conv_3x3"):
        for pair in ("1,2", "0,1", "0,2"):
            yield space.to_params(_skips(space, pair, operation))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": {"channels": 5}}, "`channels` must be a positive multiple of `partial`"),
        ({"search": {"operation": "conv"}}, "`operation` must be one of"),
        ({"search": {"operation": "none"}}, "`operation` must be one of"),
        ({"search": {"operation": ("none",)}}, "`operation` must be one of"),
        ({"search": {"operation": ("skip_connect", "skip_connect")}}, "several different ones"),
        ({"search": {"architecture_share": 0.001}}, "Shares of 0.5 and 0.001 of .* every class"),
        ({"space": ChainSpace()}, "CellSpace or NasBench201Space"),
        ({"table": "table.npz"}, "`table` and `column` together"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        objective_with(**options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "classification"}, "needs the objective 'supernet_classification'"),
        ({"space": "chain"}, "searches a CellSpace or NasBench201Space"),
        ({"search": {"epochs": 1, "iterations": 1}}, "give `epochs` or `iterations`, not both"),
        ({"search": {"weight_share": 0.8}}, "must be at most 1 together"),
        ({"search": {"epochs": 0}}, "objective.search.epochs"),
        ({"search": {"cells": 2}}, "objective.search.cells: expected at least 3"),
        ({"search": {"epoch": 1}}, "did you mean 'epochs'"),
    ],
)
def test_study_files_that_cannot_be_are_refused(changes, message):
    changes = dict(changes)
    if "search" in changes:
        changes["objective"] = FILE["objective"] | {"search": changes.pop("search")}
    with pytest.raises(StudyFileError, match=message):
        study_from_dict(FILE | changes)
