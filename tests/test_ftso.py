"""FTSO and DARTS: what they read from weights, and their trials; no network is trained here."""

import math
import random
import time

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from optnas.errors import UserError
from optnas.samplers import DARTSSampler, FTSOSampler
from optnas.samplers.ftso import topology
from optnas.spaces import CellSpace, ChainSpace, NasBench201Space, Topology, TopologySpace
from optnas.spaces.cell import OPERATIONS
from optnas.spaces.nasbench201 import OPERATIONS as NASBENCH201
from optnas.trials.attributes import PHASES
from optnas.trials.failures import mark_failure

WEIGHTS = [
    [0.10, 0.30],
    [-0.05, -0.20, 0.40],
    [0.0, 0.6, 0.2, 0.6],
    [-0.1, 0.2, 0.3, 0.1, 0.25],
]
KEPT = [(0, 1), (0, 2), (1, 3), (2, 4)]
REDUCE = [[0.0, 0.0], [0.5, 0.2, 0.2], [1.0, 2.0, 3.0, 4.0], [5.0, 4.0, 3.0, 2.0, 1.0]]
REDUCE_KEPT = [(0, 1), (0, 1), (2, 3), (0, 1)]


# The topology of weights.


@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        (WEIGHTS, KEPT),
        (REDUCE, REDUCE_KEPT),
        ([[0.5, 0.2, 0.2]], [(0, 1)]),
        ([[0.2, 0.5, 0.2]], [(0, 1)]),
        ([[0.2, 0.2, 0.2, 0.2]], [(0, 1)]),
        ([[0.2, 0.1, 0.2, 0.5]], [(0, 3)]),
        ([[1.0], [1.0, 2.0], [3.0, 1.0, 2.0]], [(0,), (0, 1), (0, 2)]),
        ([[-math.inf, 0.0, math.inf]], [(1, 2)]),
        ([[0.0, -0.0, 0.0]], [(0, 1)]),
        ([np.array([1, 3, 2])], [(1, 2)]),
        ([], []),
    ],
)
def test_the_two_strongest_predecessors_are_kept(weights, kept):
    assert topology(weights) == kept


@pytest.mark.parametrize(
    "weights",
    [
        [[0.1, math.nan]],
        [[0.1, 0.2], []],
        [[0.1, None]],
        [0.1, 0.2],
        {"normal": [[0.1, 0.2]]},
    ],
)
def test_weights_that_say_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="one or more numbers other than NaN"):
        topology(weights)


NODES = st.lists(st.lists(st.integers(-3, 3).map(lambda n: n / 4), min_size=1, max_size=6))


@given(NODES)
def test_kept_are_as_many_as_there_are_up_to_two_and_none_is_stronger(weights):
    for node, kept in zip(weights, topology(weights), strict=True):
        assert kept == tuple(sorted(set(kept)))
        assert len(kept) == min(2, len(node))
        others = [(node[i], -i) for i in range(len(node)) if i not in kept]
        assert all((node[i], -i) > other for i in kept for other in others)


@given(NODES)
def test_a_softmax_changes_nothing(weights):
    softmaxed = [(np.exp(node) / np.exp(node).sum()).tolist() for node in weights]
    # Equal weights stay equal: the exponentials and their sum are those of the same numbers.
    assert topology(softmaxed) == topology(weights)


# The topologies of a space.


@pytest.mark.parametrize(
    ("space", "choices"),
    [
        (CellSpace(), [1, 3, 6, 10] * 2),
        (CellSpace(nodes=2, none=False), [1, 3] * 2),
        (NasBench201Space(), [1, 1, 3]),
    ],
)
def test_every_topology_is_there_once(space, choices):
    topologies = TopologySpace(space)
    assert [len(values) for values in topologies.choices.values()] == choices
    rng = np.random.default_rng(0)
    for _ in range(10):
        edges = topologies.random(rng)
        assert topologies.from_params(topologies.to_params(edges)) == edges
        assert Topology.from_json(edges.to_json()) == edges
        known, unknown = topologies.split_params(edges)
        assert known.keys() | set(unknown) == space.distributions().keys()
        architecture = topologies.architecture(edges, "skip_connect")
        params = space.to_params(architecture)
        assert {name: params[name] for name in known} == known
        assert {params[name] for name in unknown} == {"skip_connect"}
        assert topologies.architecture(edges, ["skip_connect"] * len(unknown)) == architecture


def test_a_topology_says_its_edges():
    topologies = TopologySpace(CellSpace())
    edges = topologies.topology([KEPT, REDUCE_KEPT])
    assert str(edges) == "normal 0+1 0+2 1+3 2+4; reduce 0+1 0+1 2+3 0+1"
    assert sum(len(kept) for _, nodes in edges.cells for kept in nodes) == 2 * 8
    assert sum(len(kept) for _, nodes in topologies.whole.cells for kept in nodes) == 2 * 14
    with pytest.raises(TypeError, match="topologies of a CellSpace or NasBench201Space"):
        TopologySpace(ChainSpace())


# The trials.


class Toy:
    """An objective with weights that are given, and a network's accuracy from its operations."""

    def __init__(self, space=None, jitter: float = 0.0, **weights):
        self.space = space or CellSpace()
        self.topologies = TopologySpace(self.space)
        self.jitter = jitter
        self.calls: list[tuple[str, ...]] = []
        self.edge_weights = weights.get("edge_weights", {"normal": WEIGHTS, "reduce": REDUCE})
        self.operation_weights = weights.get("operation_weights")

    def __call__(self, trial: optuna.Trial) -> float:
        phase = trial.suggest_categorical("phase", PHASES)
        time.sleep(self.jitter * random.random())
        if phase == "architecture":
            architecture = self.space.suggest(trial)
            self.calls.append((phase, architecture))
            return quality(architecture)
        pairs = trial.relative_params
        edges = self.topologies.suggest(trial) if pairs else None
        self.calls.append((phase, edges))
        if phase == "topology" and edges is not None:
            return sum(sum(kept) for _, cell in edges.cells for kept in cell) / 100
        name = "edge_weights" if phase == "topology" else "operation_weights"
        trial.set_user_attr(name, getattr(self, name))
        trial.report(0.5, 1)
        raise optuna.TrialPruned


def quality(architecture) -> float:
    """How often the operation is a separable convolution of 5x5, or a convolution."""
    operations = getattr(architecture, "operations", None) or [
        operation
        for cell in (architecture.normal, architecture.reduce)
        for node in cell
        for operation, _ in node
    ]
    return sum(o in ("sep_conv_5x5", "nor_conv_3x3") for o in operations) / len(operations)


def search(toy, sampler=FTSOSampler, *, n_jobs: int = 1, storage=None, **options):
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler(toy.space, **{"seed": 0, **options}),
        storage=storage,
        study_name="toy",
        load_if_exists=True,
    )
    study.optimize(toy, n_jobs=n_jobs)
    return study


def cell(kept, operation):
    return tuple(tuple((operation, source) for source in pair) for pair in kept)


@pytest.mark.parametrize("replace", [None, "sep_conv_5x5"])
def test_the_topology_is_searched_and_its_operations_replaced(replace):
    toy = Toy()
    study = search(toy, replace=replace)
    found = study.sampler.found(study)
    operation = replace or "sep_conv_3x3"
    assert found.normal == cell(KEPT, operation)
    assert found.reduce == cell(REDUCE_KEPT, operation)
    assert [(t.params["phase"], t.user_attrs["phase"], t.state) for t in study.trials] == [
        ("topology", "topology", TrialState.PRUNED),
        ("architecture", "architecture", TrialState.COMPLETE),
    ]
    assert next(iter(study.trials[1].params)) == "phase"
    assert len(study.trials[1].params) == 33
    assert study.best_trial.number == 1
    assert study.sampler.candidates(study) == [(1, found, quality(found))]
    assert study.sampler.is_finished(study)


def operation_weights(chosen, kinds=("normal", "reduce"), operations=OPERATIONS):
    """Weights in which ``chosen``, a list per node, is second to ``"none"`` alone."""
    second = {"none": 0.5}
    return {
        kind: [
            [[second.get(o, 0.3 if o == c else 0.01) for o in operations] for c in node]
            for node in chosen
        ]
        for kind in kinds
    }


def test_operators_are_searched_for_on_the_topology():
    chosen = [("skip_connect", "sep_conv_5x5")] * 3 + [("dil_conv_3x3", "max_pool_3x3")]
    toy = Toy(operation_weights=operation_weights(chosen))
    study = search(toy, operators="gradient")
    found = study.sampler.found(study)
    expected = [
        tuple(zip(operations, pair, strict=True))
        for operations, pair in zip(chosen, KEPT, strict=True)
    ]
    assert found.normal == tuple(expected)
    assert [t.params["phase"] for t in study.trials] == list(PHASES)
    edges = toy.topologies.topology([KEPT, REDUCE_KEPT])
    assert toy.calls == [("topology", None), ("operators", edges), ("architecture", found)]
    assert study.trials[1].params == {
        "phase": "operators",
        **{"normal_pair_2": "0,1", "normal_pair_3": "0,2"},
        **{"normal_pair_4": "1,3", "normal_pair_5": "2,4"},
        **{"reduce_pair_2": "0,1", "reduce_pair_3": "0,1"},
        **{"reduce_pair_4": "2,3", "reduce_pair_5": "0,1"},
    }


def test_nasbench201_drops_one_edge_of_its_last_node():
    toy = Toy(NasBench201Space(), edge_weights={"cell": [[0.0], [0.1, 0.2], [0.3, 0.1, 0.2]]})
    study = search(toy)
    convolution = "nor_conv_3x3"
    expected = (convolution,) * 4 + ("none", convolution)
    assert study.sampler.found(study).operations == expected
    study = search(toy := Toy(NasBench201Space()), keep_all=True)
    assert study.sampler.found(study).operations == (convolution,) * 6
    assert len(study.trials) == 1


def test_operators_of_nasbench201_are_searched_for_on_five_edges():
    toy = Toy(
        NasBench201Space(),
        edge_weights={"cell": [[0.0], [0.1, 0.2], [0.1, 0.3, 0.2]]},
        operation_weights=operation_weights(
            [("avg_pool_3x3",), ("skip_connect",) * 2, ("nor_conv_1x1",) * 2],
            ("cell",),
            NASBENCH201,
        ),
    )
    study = search(toy, operators="gradient")
    assert study.sampler.found(study).operations == (
        *["avg_pool_3x3", "skip_connect", "skip_connect"],
        *["none", "nor_conv_1x1", "nor_conv_1x1"],
    )


# Phases in which a sampler draws.


def test_operators_are_drawn_on_fixed_inputs():
    toy = Toy()
    study = search(toy, operators="discrete", operator_trials=40)
    drawn = [t for t in study.trials if t.params["phase"] == "architecture"]
    assert len(drawn) == 40
    architectures = [toy.space.from_params(t.params) for t in drawn]
    assert len(set(architectures)) == 40
    for architecture in architectures:
        inputs = [[tuple(i for _, i in node) for node in c] for c in vars(architecture).values()]
        assert inputs == [KEPT, REDUCE_KEPT]
        assert not any(o == "none" for c in vars(architecture).values() for n in c for o, _ in n)
    best = max(architectures, key=quality)
    assert quality(study.sampler.found(study)) == quality(best)
    values = [value for _, _, value in study.sampler.candidates(study)]
    assert values == sorted(values, reverse=True)
    assert len(values) == 40
    # The sampler learns: the later half is better than the first one, drawn at random.
    assert np.mean(values_of(drawn[20:])) > np.mean(values_of(drawn[:10]))


def values_of(trials):
    return [trial.value for trial in trials]


def test_topologies_are_drawn_and_the_best_is_given_operators():
    toy = Toy()
    study = search(toy, topology_search="discrete", topology_trials=15)
    phases = [t.params["phase"] for t in study.trials]
    assert phases == ["topology"] * 15 + ["architecture"]
    best = max(study.trials[:15], key=lambda t: t.value)
    edges = toy.topologies.from_params(best.params)
    found = study.sampler.found(study)
    assert [tuple(i for _, i in node) for node in found.normal] == list(
        dict(edges.cells)["normal"]
    )
    assert study.sampler.candidates(study) == [(15, found, quality(found))]


def test_no_more_is_drawn_than_there_is():
    toy = Toy(NasBench201Space())
    study = search(toy, topology_search="discrete")
    assert [t.params["phase"] for t in study.trials] == ["topology"] * 3 + ["architecture"]
    pairs = {t.params["cell_pair_3"] for t in study.trials[:3]}
    assert pairs == {"0,1", "0,2", "1,2"}
    assert study.sampler.found(study).operations[3] == "none"


@pytest.mark.parametrize(
    "sampler",
    [
        *["random", "brute_force", "qmc", "nsgaii", "optuna.samplers:CmaEsSampler"],
        {"name": "tpe", "multivariate": True, "n_startup_trials": 3},
    ],
)
def test_any_stock_sampler_draws(sampler):
    toy = Toy()
    study = search(toy, operators="discrete", operator_sampler=sampler, operator_trials=6)
    assert len(study.trials) == 7
    assert len(study.sampler.candidates(study)) == 6


# However it is interrupted.


OPTIONS = [
    {},
    {"operators": "gradient"},
    {"operators": "discrete", "operator_trials": 6},
    {"topology_search": "discrete", "topology_trials": 5},
    {"topology_search": "discrete", "operators": "discrete"}
    | {"topology_trials": 4, "operator_trials": 4},
]
CHOSEN = operation_weights([("skip_connect", "sep_conv_5x5")] * 4)


@pytest.mark.parametrize("options", OPTIONS)
def test_restarted_after_every_trial_it_is_the_same_search(options, tmp_path):
    undisturbed = search(Toy(operation_weights=CHOSEN), **options)
    toy = Toy(operation_weights=CHOSEN)
    storage = InMemoryStorage() if options else f"sqlite:///{tmp_path}/toy.db"
    while True:
        study = optuna.create_study(
            study_name="toy",
            storage=storage,
            load_if_exists=True,
            direction="maximize",
            sampler=FTSOSampler(toy.space, seed=0, **options),
        )
        if study.sampler.is_finished(study):
            break
        assert study.sampler.found(study) is None
        study.optimize(toy, n_trials=1)
    assert described(study) == described(undisturbed)
    assert study.sampler.found(study) == undisturbed.sampler.found(undisturbed)


def described(study):
    return [(t.params, t.value, t.state) for t in study.trials if t.state != TrialState.FAIL]


@pytest.mark.parametrize("options", OPTIONS)
def test_lost_trials_change_nothing(options):
    """Every trial is lost once, and adopted by the next."""
    undisturbed = search(Toy(operation_weights=CHOSEN), **options)
    toy = Toy(operation_weights=CHOSEN)
    lost = set()

    def objective(trial):
        key = tuple(sorted(trial.relative_params.items()))
        if (trial.suggest_categorical("phase", PHASES), key) not in lost:
            lost.add((trial.params["phase"], key))
            mark_failure(trial, "lost", "for the test")
            return math.nan
        return toy(trial)

    objective.space = toy.space
    study = search(objective, **options)
    assert described(study) == described(undisturbed)
    assert len(study.trials) == 2 * len(undisturbed.trials)
    assert [t.user_attrs.get("continues") for t in study.trials[1::2]] == [
        *range(0, len(study.trials), 2)
    ]


@pytest.mark.parametrize("options", OPTIONS[:2])
@pytest.mark.parametrize("n_jobs", [2, 3])
def test_workers_find_the_same_and_waste_nothing(options, n_jobs):
    alone = search(Toy(operation_weights=CHOSEN), **options)
    toy = Toy(operation_weights=CHOSEN, jitter=0.02)
    study = search(toy, n_jobs=n_jobs, **options)
    assert study.sampler.found(study) == alone.sampler.found(alone)
    assert len(toy.calls) == len(alone.trials)


@pytest.mark.parametrize("options", OPTIONS[2:])
@pytest.mark.parametrize("n_jobs", [2, 3])
def test_workers_share_what_is_drawn(options, n_jobs):
    toy = Toy(operation_weights=CHOSEN, jitter=0.02)
    study = search(toy, n_jobs=n_jobs, **options)
    alone = search(Toy(operation_weights=CHOSEN), **options)
    assert len(toy.calls) == len(set(toy.calls)) == len(alone.trials)
    assert study.sampler.found(study) is not None


def test_what_is_drawn_does_not_wait():
    toy = Toy()
    sampler = FTSOSampler(toy.space, topology_search="discrete", topology_trials=3)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    asked = [study.ask() for _ in range(3)]
    values = [toy(trial) for trial in asked]
    assert len(set(toy.calls)) == 3
    for trial, value in zip(asked, values, strict=True):
        assert not [phase for phase, _ in toy.calls if phase == "architecture"]
        study.tell(trial, value)
    toy(study.ask())
    assert toy.calls[3][0] == "architecture"


def test_a_result_of_somebody_else_counts():
    toy = Toy()
    sampler = FTSOSampler(toy.space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {"phase": optuna.distributions.CategoricalDistribution(PHASES)}
    study.add_trial(
        create_trial(
            params={"phase": "topology"},
            distributions=distributions,
            state=TrialState.PRUNED,
            user_attrs={"edge_weights": toy.edge_weights},
        )
    )
    study.optimize(toy)
    assert [phase for phase, _ in toy.calls] == ["architecture"]
    assert sampler.found(study).normal == cell(KEPT, "sep_conv_3x3")


def test_a_queued_architecture_is_trained_beside_the_search():
    toy = Toy()
    study = optuna.create_study(direction="maximize", sampler=FTSOSampler(toy.space))
    own = toy.space.random(np.random.default_rng(0))
    study.enqueue_trial(toy.space.to_params(own))
    study.optimize(toy)
    assert [phase for phase, _ in toy.calls] == ["architecture", "topology", "architecture"]
    assert toy.calls[0] == ("architecture", own)
    assert [number for number, _, _ in study.sampler.candidates(study)] == [2]


def test_an_objective_may_know_its_phases_alone():
    toy = Toy()

    def objective(trial):
        trial.suggest_categorical("phase", ("topology", "architecture"))
        return Toy.__call__(toy, Renamed(trial))

    class Renamed:
        def __init__(self, trial):
            self.trial = trial

        def __getattr__(self, name):
            return getattr(self.trial, name)

        def suggest_categorical(self, name, choices):
            if name == "phase":
                return self.trial.params["phase"]
            return self.trial.suggest_categorical(name, choices)

    objective.space = toy.space
    study = search(objective)
    assert [t.params["phase"] for t in study.trials] == ["topology", "architecture"]


# What goes wrong.


@pytest.mark.parametrize("phase", ["topology", "operators", "architecture"])
def test_a_failed_phase_ends_the_search(phase):
    toy = Toy(operation_weights=CHOSEN)

    def objective(trial):
        if trial.suggest_categorical("phase", PHASES) == phase:
            return math.nan
        return toy(trial)

    objective.space = toy.space
    study = search(objective, operators="gradient")
    assert len(study.trials) == 1 + PHASES.index(phase)
    assert study.sampler.is_finished(study)
    assert study.sampler.candidates(study) == []
    # What an architecture is does not depend on how its training ended.
    assert (study.sampler.found(study) is None) == (phase != "architecture")


@pytest.mark.parametrize(
    "weights",
    [
        None,
        [WEIGHTS, REDUCE],
        {"normal": WEIGHTS},
        {"normal": WEIGHTS, "reduce": REDUCE[:3]},
        {"normal": WEIGHTS, "reduce": [*REDUCE[:3], [1.0, 2.0]]},
        {"normal": WEIGHTS, "reduce": [*REDUCE[:3], [1.0, 2.0, 3.0, 4.0, math.nan]]},
        {"normal": WEIGHTS, "reduce": [*REDUCE[:3], [1.0, 2.0, 3.0, 4.0, "a"]]},
        {"normal": WEIGHTS, "reduce": "abcd"},
    ],
)
def test_weights_that_are_none_are_an_error_with_the_rule(weights):
    with pytest.raises(UserError, match="Trial 0 must have the user attribute `edge_weights`"):
        search(Toy(edge_weights=weights))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topology_search": "random"}, "`topology_search` must be one of"),
        ({"operators": "keep"}, "`operators` must be one of"),
        ({"replace": "nor_conv_3x3"}, "`replace` must be one of"),
        ({"replace": "none"}, "`replace` must be one of"),
        ({"keep_all": True}, "`keep_all` must be false"),
        ({"operator_trials": 0}, "`operator_trials` must be an integer, 1 or more"),
        ({"topology_trials": 1.5}, "`topology_trials` must be an integer, 1 or more"),
        ({"operator_sampler": "tpee"}, "`operator_sampler` must name a sampler.*'tpe'"),
        ({"operator_sampler": {"name": "tpe", "gamm": 1}}, "`operator_sampler` must name.*gamm"),
        ({"topology_sampler": {"gamma": 1}}, "`topology_sampler` must name.*no `name` in"),
        ({"topology_sampler": {"name": "tpe", "seed": 1}}, "`topology_sampler` must name.*seed"),
        ({"operator_sampler": "ftso"}, "`operator_sampler` must name a sampler of Optuna's"),
        ({"max_retries": -1}, "`max_retries` must be"),
    ],
)
def test_bad_options_are_refused_with_the_rule(options, message):
    with pytest.raises(ValueError, match=message):
        FTSOSampler(CellSpace(), **options)


def test_all_edges_are_kept_or_searched_for():
    with pytest.raises(ValueError, match="`keep_all` must be false with `topology_search"):
        FTSOSampler(NasBench201Space(), keep_all=True, topology_search="discrete")


@pytest.mark.parametrize("sampler", [FTSOSampler, DARTSSampler])
def test_other_spaces_are_refused(sampler):
    with pytest.raises(TypeError, match="searches a CellSpace or NasBench201Space"):
        sampler(ChainSpace())


# DARTS.


def test_darts_keeps_the_edges_with_the_strongest_operations():
    toy = Toy(CellSpace(nodes=2))
    strength = {0: 0.2, 1: 0.4, 2: 0.3}
    toy.operation_weights = {
        kind: [
            [
                [0.5 if o == "none" else strength[e] * (o == "avg_pool_3x3") for o in OPERATIONS]
                for e in range(states)
            ]
            for states in (2, 3)
        ]
        for kind in ("normal", "reduce")
    }
    study = search(toy, DARTSSampler)
    assert [phase for phase, _ in toy.calls] == ["operators", "architecture"]
    assert study.trials[0].params == {"phase": "operators"}
    assert study.sampler.found(study).normal == cell([(0, 1), (1, 2)], "avg_pool_3x3")

    def weighed(trial):
        trial.set_user_attr("edge_weights", {k: [[0, 0], [2, 0, 1]] for k in toy.edge_weights})
        return toy(trial)

    weighed.space = toy.space
    study = search(weighed, DARTSSampler)
    assert study.sampler.found(study).normal == cell([(0, 1), (0, 2)], "avg_pool_3x3")


def test_darts_may_find_nothing_on_an_edge_of_nasbench201():
    weights = operation_weights(
        [("skip_connect",), ("skip_connect",) * 2, ("skip_connect",) * 3], ("cell",), NASBENCH201
    )
    weights["cell"][2][1][0] = 0.1
    toy = Toy(NasBench201Space(), operation_weights=weights)
    study = search(toy, DARTSSampler)
    assert study.sampler.found(study).operations == (*["none"] * 4, "skip_connect", "none")
