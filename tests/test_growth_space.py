"""Architectures that grow, and their space."""

import collections
import dataclasses
import graphlib
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial, TrialState, create_trial
from scipy.stats import chisquare

from optnas.samplers._base import Candidate, StrategySampler
from optnas.spaces import SPACES, GrowthArchitecture, GrowthSpace, Increment
from optnas.spaces.growth_architecture import OPERATIONS
from optnas.trials.failures import fail_as_lost
from optnas.trials.lineage import record_without_weights

modes = pytest.mark.parametrize("mode", ["macro", "cell"])
IDENTITIES = ("identity",) * 3
SMALL = GrowthSpace(cells=1, channels=4)


@st.composite
def grown(draw, rounds: int = 3) -> tuple[GrowthSpace, list[GrowthArchitecture]]:
    """A space, and a chain from its initial network, every one the parent of the next."""
    space = GrowthSpace(
        draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.sampled_from(["macro", "cell"]))
    )
    chain = [space.initial()]
    for _ in range(draw(st.integers(0, rounds))):
        seed = draw(st.integers(0, 2**31 - 1))
        chain.append(space.grow(chain[-1], seed, draw(st.none() | st.integers(1, 12))))
    return space, chain


def dependencies(macro: GrowthArchitecture) -> dict[int, set[int]]:
    """What every layer of a macro architecture is computed from."""
    cells = 3 * macro.cells + 2
    graph: dict[int, set[int]] = {0: set(), **{cell: {cell - 1} for cell in range(1, cells + 1)}}
    for layer, increment in enumerate(macro.increments, start=cells + 1):
        graph[layer] = set(increment.inputs)
        graph[increment.target].add(layer)
    return graph


def needs(graph: dict[int, set[int]], layer: int) -> set[int]:
    """The layer itself, and everything that it is computed from."""
    found, open_ends = set(), {layer}
    while open_ends:
        found |= open_ends
        open_ends = set().union(*(graph[i] for i in open_ends)) - found
    return found


# Architectures.


def test_the_space_is_known_by_name():
    assert SPACES["growth"] is GrowthSpace
    assert GrowthSpace.inherits


@settings(max_examples=40, deadline=None)
@given(grown())
def test_an_architecture_survives_json(member):
    _, chain = member
    for architecture in chain:
        again = GrowthArchitecture.from_json(architecture.to_json())
        assert again == architecture
        assert hash(again) == hash(architecture)
        assert GrowthArchitecture(**json.loads(architecture.to_json())) == architecture


@settings(max_examples=40, deadline=None)
@given(grown())
def test_the_graph_has_no_cycle_and_grows_at_initial_cells_alone(member):
    space, chain = member
    cells = 3 * space.initial().cells + 2
    for architecture in chain:
        macro = architecture.unrolled()
        order = list(graphlib.TopologicalSorter(dependencies(macro)).static_order())
        assert len(order) == 1 + cells + len(macro.increments)
        assert all(1 <= increment.target <= cells for increment in macro.increments)
        assert all(i.inputs[0] == i.target - 1 for i in macro.increments)
        # Everything is a part of the network: the last cell needs it.
        assert needs(dependencies(macro), cells) == set(order)


@settings(max_examples=40, deadline=None)
@given(grown())
def test_no_increment_feeds_another_of_its_round(member):
    space, chain = member
    initial = space.initial()
    for parent, child in itertools.pairwise(chain):
        before = len(parent.increments)
        assert child.increments[:before] == parent.increments
        added = child.increments[before:]
        assert added
        if initial.mode == "macro":
            known = 1 + initial.depth + before
            assert all(layer < known for increment in added for layer in increment.inputs)
            continue
        assert collections.Counter(i.target for i in added)[0] == len(added) / 2
        for increment in added:
            kind = [i for i in parent.increments if i.target == increment.target]
            assert all(layer < 2 + len(kind) for layer in increment.inputs)


@settings(max_examples=40, deadline=None)
@given(grown())
def test_inputs_may_be_all_layers_that_do_not_need_the_target(member):
    _, chain = member
    macro = chain[-1].unrolled()
    graph = dependencies(macro)
    needed = {layer: needs(graph, layer) for layer in sorted(graph)}
    for target in range(1, 3 * macro.cells + 3):
        expected = [layer for layer in needed if target not in needed[layer]]
        assert list(macro.layers_before(target)) == expected


def test_layers_have_the_shapes_of_the_initial_network():
    architecture = GrowthArchitecture(2, 8, increments=[Increment(4, [3, 0, 1], IDENTITIES)])
    assert architecture.depth == 8
    assert architecture.reductions == (3, 6)
    layers = range(10)
    assert [architecture.halvings(layer) for layer in layers] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 1]
    expected = [24, 8, 8, 16, 16, 16, 32, 32, 32, 16]
    assert [architecture.layer_channels(layer) for layer in layers] == expected


@pytest.mark.parametrize(
    ("layer", "target", "expected"),
    [
        (1, 2, []),
        (0, 1, [(24, 8)]),
        (2, 3, [(8, 16)]),
        (0, 3, [(24, 16)]),
        (1, 8, [(8, 16), (16, 32)]),
        (0, 6, [(24, 16), (16, 32)]),
        (5, 5, []),
    ],
)
def test_adapters_halve_once_per_step(layer, target, expected):
    assert GrowthArchitecture(2, 8).adapters(layer, target) == expected


def test_an_increment_of_a_kind_of_cell_belongs_to_each():
    architecture = GrowthArchitecture(
        1,
        4,
        "cell",
        (
            Increment(0, (1, 0, 1), IDENTITIES),
            Increment(1, (1, 1, 0), IDENTITIES),
            Increment(0, (1, 2, 0), IDENTITIES),
        ),
    )
    # Cells 1, 3 and 5 are normal, 2 and 4 reduce; the results of the increments are 6, 7, ...
    assert [(i.target, i.inputs) for i in architecture.unrolled().increments] == [
        (1, (0, 0, 0)),
        (1, (0, 6, 0)),
        (2, (1, 1, 0)),
        (3, (2, 1, 2)),
        (3, (2, 9, 1)),
        (4, (3, 3, 2)),
        (5, (4, 3, 4)),
        (5, (4, 12, 3)),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cells": 0}, "`cells` must be an integer, 1 or more: 0"),
        ({"cells": True}, "`cells` must be an integer"),
        ({"channels": 1.0}, "`channels` must be an integer"),
        ({"mode": "micro"}, "`mode` must be one of"),
        ({"mode": ["cell"]}, "`mode` must be one of"),
        ({"increments": 3}, "`increments` must be a sequence"),
        ({"increments": [3]}, "must be an increment: 3"),
        ({"increments": [{"target": 1}]}, "Not an increment"),
        ({"increments": [(0, (0, 0, 0), IDENTITIES)]}, "must be from 1 to 5"),
        ({"increments": [(6, (5, 0, 0), IDENTITIES)]}, "must be from 1 to 5"),
        ({"increments": [(2, (0, 1, 1), IDENTITIES)]}, "the layer before its target, 1"),
        ({"increments": [(2, (1, 2, 1), IDENTITIES)]}, "must be layers before its target"),
        ({"increments": [(2, (1, -1, 1), IDENTITIES)]}, "must be layers before its target"),
        ({"increments": [(2, (1, 6, 1), IDENTITIES)]}, "or increments before it"),
        (
            {"increments": [(3, (2, 0, 0), IDENTITIES), (2, (1, 6, 1), IDENTITIES)]},
            "or increments before it: increment 1",
        ),
        ({"mode": "cell", "increments": [(2, (1, 0, 0), IDENTITIES)]}, "must be from 0 to 1"),
        ({"mode": "cell", "increments": [(0, (0, 0, 0), IDENTITIES)]}, "before its target, 1"),
        ({"mode": "cell", "increments": [(0, (1, 2, 0), IDENTITIES)]}, "or increments before"),
        (
            {
                "mode": "cell",
                "increments": [(1, (1, 0, 0), IDENTITIES), (0, (1, 2, 0), IDENTITIES)],
            },
            "or increments before it: increment 1",
        ),
        ({"increments": [(2, (1, 0), IDENTITIES)]}, "three integers as `inputs`"),
        ({"increments": [(2, (1, 0, 0.0), IDENTITIES)]}, "three integers as `inputs`"),
        ({"increments": [(2, (1, 0, True), IDENTITIES)]}, "three integers as `inputs`"),
        ({"increments": [(2, (1, 0, 0), ("identity",) * 2)]}, "three `operations`"),
        ({"increments": [(2, (1, 0, 0), ("identity", "identity", "none"))]}, "three `operations`"),
        ({"increments": [(2, (1, 0, 0), "abc")]}, "three `operations`"),
    ],
)
def test_what_is_no_architecture_is_refused_with_the_rule(fields, message):
    names = ("target", "inputs", "operations")
    if isinstance(fields.get("increments"), list):
        fields = {
            **fields,
            "increments": [
                dict(zip(names, i, strict=True)) if isinstance(i, tuple) else i
                for i in fields["increments"]
            ],
        }
    with pytest.raises(ValueError, match=message):
        GrowthArchitecture(**{"cells": 1, "channels": 4, **fields})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(OPERATIONS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
hostile_increments = st.fixed_dictionaries(
    {
        "target": st.integers(-1, 7) | json_values,
        "inputs": st.lists(st.integers(-1, 9), min_size=3, max_size=3) | json_values,
        "operations": st.just(list(IDENTITIES)) | json_values,
    },
    optional={"more": json_values},
)
hostile = st.fixed_dictionaries(
    {},
    optional={
        "cells": st.just(1) | json_values,
        "channels": st.integers(1, 9) | json_values,
        "mode": st.sampled_from(["macro", "cell"]) | json_values,
        "increments": st.lists(hostile_increments, max_size=3) | json_values,
        "more": json_values,
    },
)


@settings(max_examples=300, deadline=None)
@given(hostile | json_values)
def test_hostile_json_is_an_architecture_or_a_value_error(fields):
    try:
        architecture = GrowthArchitecture.from_json(json.dumps(fields))
    except ValueError:
        return
    graphlib.TopologicalSorter(dependencies(architecture.unrolled())).prepare()
    assert GrowthArchitecture.from_json(architecture.to_json()) == architecture


# Growing.


@modes
@pytest.mark.parametrize(("cells", "number"), [(3, 11), (6, 20)])
def test_a_round_has_as_many_increments_as_the_paper_says(cells, number, mode):
    space = GrowthSpace(cells, mode=mode)
    child = space.grow(space.initial(), 0)
    assert len(child.increments) == (2 if mode == "cell" else number)
    assert len(child.unrolled().increments) == number
    more = space.grow(child, 1, 5)
    assert len(more.increments) == len(child.increments) + (10 if mode == "cell" else 5)


def test_draws_are_uniform():
    space = GrowthSpace(cells=2, channels=4)
    parent = space.grow(space.initial(), 0)
    added = [i for seed in range(2000) for i in space.grow(parent, seed).increments[8:]]
    targets = collections.Counter(increment.target for increment in added)
    assert sorted(targets) == list(range(1, 9))
    assert chisquare(list(targets.values())).pvalue > 1e-3
    for position in range(3):
        counts = collections.Counter(increment.operations[position] for increment in added)
        assert sorted(counts) == sorted(OPERATIONS)
        assert chisquare(list(counts.values())).pvalue > 1e-3
    for target in targets:
        layers = parent.layers_before(target)
        counts = collections.Counter(i.inputs[1:] for i in added if i.target == target)
        assert {layer for pair in counts for layer in pair} == set(layers)
        observed = [counts[a, b] for a in layers for b in layers]
        assert chisquare(observed).pvalue > 1e-4


@modes
def test_the_same_seed_gives_the_same_graph_in_another_process(mode):
    code = (
        "from optnas.spaces import GrowthSpace\n"
        f"space = GrowthSpace(mode={mode!r})\n"
        "architecture = space.initial()\n"
        "for seed in (3, 1, 4): architecture = space.grow(architecture, seed)\n"
        "print(architecture.to_json())\n"
    )
    space = GrowthSpace(mode=mode)
    expected = space.initial()
    for seed in (3, 1, 4):
        expected = space.grow(expected, seed)
    for hash_seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.strip() == expected.to_json()
    assert space.grow(space.initial(), 3) != space.grow(space.initial(), 1)


def test_random_architectures_follow_the_generator_and_have_up_to_three_rounds():
    drawn = [SMALL.random(rng) for rng in [np.random.default_rng(0)] for _ in range(400)]
    again = np.random.default_rng(0)
    assert drawn[:20] == [SMALL.random(again) for _ in range(20)]
    rounds = collections.Counter(len(architecture.increments) / 5 for architecture in drawn)
    assert sorted(rounds) == [0, 1, 2, 3]
    assert chisquare(list(rounds.values())).pvalue > 1e-3


def test_a_space_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`cells` must be an integer"):
        GrowthSpace(cells=0)
    with pytest.raises(ValueError, match="`increments` must be greater than or equal to 1: 0"):
        SMALL.grow(SMALL.initial(), 0, 0)
    with pytest.raises(ValueError, match="must be an architecture of GrowthSpace"):
        SMALL.grow(GrowthSpace(cells=2, channels=4).initial(), 0)


# Trials.


def study_of(*states: TrialState, sampler: optuna.samplers.BaseSampler | None = None):
    """A study with a chain of networks, every trial the parent of the next."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    architecture = SMALL.initial()
    for number, state in enumerate(states):
        if number:
            architecture = SMALL.grow(architecture, number)
        study.add_trial(
            create_trial(
                state=state,
                value=0.5 if state == TrialState.COMPLETE else None,
                params={"parent": number - 1, **({"growth_seed": number} if number else {})},
                distributions={
                    name: distribution
                    for name, distribution in SMALL.distributions().items()
                    if number or name == "parent"
                },
                user_attrs={"architecture": architecture.to_json(), "parent": number - 1},
            )
        )
    return study


COMPLETE, FAIL, PRUNED = TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED


@modes
@pytest.mark.parametrize(
    "sampler", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler], ids=["random", "tpe"]
)
def test_stock_samplers_search_the_space(sampler, mode):
    space = GrowthSpace(cells=1, channels=4, mode=mode)
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=0))
    found: list[GrowthArchitecture] = []

    def objective(trial: optuna.Trial) -> float:
        found.append(space.suggest(trial))
        if trial.number % 5 == 3:
            return float("nan")
        return len(found[-1].increments)

    study.optimize(objective, n_trials=30)
    replaced = 0
    for trial, architecture in zip(study.trials, found, strict=True):
        assert space.from_trial(trial) == architecture
        asked, parent = trial.params["parent"], trial.user_attrs["parent"]
        assert -1 <= parent <= asked < trial.number
        assert ("growth_seed" in trial.params) == (asked >= 0)
        replaced += parent != asked
        if parent < 0:
            assert architecture == space.initial()
        else:
            assert study.trials[parent].state == COMPLETE
            assert architecture == space.grow(found[parent], trial.params["growth_seed"])
    assert replaced
    assert {len(a.increments) for a in found} >= {0, 2, 4} if mode == "cell" else {0, 5, 10}


@pytest.mark.filterwarnings("ignore:Fixed parameter parent")
@pytest.mark.parametrize(
    ("states", "gone", "asked", "expected"),
    [
        ((COMPLETE,) * 3, (), 2, 2),
        ((COMPLETE,) * 3, (), 1, 1),
        ((COMPLETE,) * 3, (), -1, -1),
        ((COMPLETE, COMPLETE, FAIL), (), 2, 1),
        ((COMPLETE, PRUNED, FAIL), (), 2, 0),
        ((COMPLETE,) * 3, (2,), 2, 1),
        ((COMPLETE,) * 3, (1,), 2, 2),
        ((COMPLETE,) * 3, (0, 1, 2), 2, -1),
        ((FAIL, FAIL), (), 1, -1),
        ((COMPLETE, COMPLETE), (), 2, 1),  # itself
    ],
)
def test_a_parent_without_weights_is_replaced_by_the_nearest_before_it(
    states, gone, asked, expected
):
    study = study_of(*states)
    record_without_weights(study._storage, study._study_id, gone, "collected")
    study.enqueue_trial({"parent": asked, "growth_seed": 9})
    trial = study.ask()
    architecture = SMALL.suggest(trial)
    assert trial.user_attrs["parent"] == expected
    assert trial.params["parent"] == asked
    if expected < 0:
        assert architecture == SMALL.initial()
    else:
        assert architecture == SMALL.grow(SMALL.from_trial(study.trials[expected]), 9)


def test_a_parent_that_never_named_its_network_is_passed_over():
    study = study_of(COMPLETE)
    study.add_trial(create_trial(value=0.5))
    study.enqueue_trial({"parent": 1, "growth_seed": 9})
    trial = study.ask()
    SMALL.suggest(trial)
    assert trial.user_attrs["parent"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "[" * 100_000,
        '{"cells": 1, "depth": 2}',
        GrowthSpace(cells=2, channels=4).initial().to_json(),
        SMALL.initial().to_json(),  # But it breaks a limit.
    ],
)
def test_a_parent_that_cannot_be_one_is_passed_over(text):
    study = study_of(COMPLETE)
    constraints = {"params": 1.0} if text == SMALL.initial().to_json() else None
    attrs = {"architecture": text}
    study.add_trial(create_trial(value=0.5, user_attrs=attrs, constraints=constraints))
    study.enqueue_trial({"parent": 1, "growth_seed": 9})
    trial = study.ask()
    SMALL.suggest(trial)
    assert trial.user_attrs["parent"] == 0


def test_a_sampler_may_say_how_much_is_added():
    study = study_of(COMPLETE)
    study.enqueue_trial({"parent": 0, "growth_seed": 9}, user_attrs={"increments": 2})
    architecture = SMALL.suggest(study.ask())
    assert architecture == SMALL.grow(SMALL.initial(), 9, 2)
    assert len(architecture.increments) == 2


class Growing(StrategySampler):
    """Every network grows from the trial ``parent``."""

    def __init__(self, parent: int) -> None:
        super().__init__(SMALL, seed=0)
        self.parent = parent

    def propose(self, history, rng):
        params = {"parent": self.parent, "growth_seed": 100 + history.claims}
        return Candidate(params, phase="growth", attrs={"parent": self.parent, "increments": 3})


def lose(study: optuna.Study, number: int) -> None:
    fail_as_lost(study._storage, study.trials[number], "the worker died")


def test_an_adopted_trial_has_the_network_of_the_lost_one_whatever_became_of_its_parent():
    study = study_of(COMPLETE, COMPLETE, sampler=Growing(parent=1))
    lost = study.ask()
    architecture = SMALL.suggest(lost)
    assert architecture == SMALL.grow(SMALL.from_trial(study.trials[1]), 100, 3)
    lose(study, 2)
    record_without_weights(study._storage, study._study_id, [1], "collected")
    study.ask().suggest_int("parent", -1, 2)  # It died before it named its network.
    lose(study, 3)
    adopted = study.ask()
    assert SMALL.suggest(adopted) == architecture
    assert adopted.user_attrs["continues"] == 3
    assert adopted.user_attrs["parent"] == 1
    assert adopted.params == lost.params
    study.tell(adopted, 0.7)
    other = study.ask()
    assert SMALL.suggest(other) == SMALL.grow(SMALL.initial(), 101, 3)
    assert other.user_attrs["parent"] == 0


def test_an_adopted_trial_that_never_began_takes_a_parent_that_is_there():
    study = study_of(COMPLETE, COMPLETE, sampler=Growing(parent=1))
    study.ask().suggest_int("parent", -1, 1)
    lose(study, 2)
    record_without_weights(study._storage, study._study_id, [1], "collected")
    adopted = study.ask()
    assert SMALL.suggest(adopted) == SMALL.grow(SMALL.initial(), 100, 3)
    assert adopted.user_attrs["parent"] == 0


def test_a_proposed_parent_may_be_younger_than_the_trial_that_waited():
    study = study_of(sampler=Growing(parent=1))
    waiting = study.ask()
    study.add_trial(study_of(COMPLETE).trials[0])
    assert SMALL.suggest(waiting) == SMALL.grow(SMALL.initial(), 100, 3)
    assert waiting.params["parent"] == waiting.user_attrs["parent"] == 1


def test_networks_of_a_stored_study_are_read_back(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(
        study_name="s", storage=url, sampler=optuna.samplers.RandomSampler(0)
    )
    found: list[GrowthArchitecture] = []
    study.optimize(lambda trial: found.append(SMALL.suggest(trial)) or 0.5, n_trials=6)
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert [SMALL.from_trial(trial) for trial in trials] == found
    assert any(architecture.increments for architecture in found)


def test_without_a_study_there_is_the_initial_network_alone():
    trial = FixedTrial({"parent": -1})
    assert SMALL.suggest(trial) == SMALL.initial()
    assert trial.user_attrs["parent"] == -1
    with pytest.raises(ValueError, match="trial 3, is read from a study, but a FixedTrial has"):
        SMALL.suggest(FixedTrial({"parent": 3, "growth_seed": 0}))


def test_parameters_alone_say_no_network():
    with pytest.raises(NotImplementedError, match="to_json"):
        SMALL.to_params(SMALL.initial())
    with pytest.raises(NotImplementedError, match="from_trial"):
        SMALL.from_params({"parent": -1})
    with pytest.raises(ValueError, match="has no user attribute `architecture`"):
        SMALL.from_trial(create_trial(value=0.5))
    broken = create_trial(value=0.5, user_attrs={"architecture": '{"cells": 0}'})
    with pytest.raises(ValueError, match="`cells` must be"):
        SMALL.from_trial(broken)


def test_a_network_is_made_wider_by_its_channels():
    child = SMALL.grow(SMALL.initial(), 0)
    assert dataclasses.replace(child, channels=8).increments == child.increments
