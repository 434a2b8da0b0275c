"""Cell architectures, those of NAS-Bench-201, and their spaces."""

import collections
import dataclasses
import json
import math

import numpy as np
import optuna
import pytest
from conftest import SHARED
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial
from scipy.stats import chisquare

from optnas.spaces import (
    SPACES,
    CellArchitecture,
    CellSpace,
    NasBench201Architecture,
    NasBench201Space,
)
from optnas.spaces import cell as cells
from optnas.spaces import nasbench201 as bench
from optnas.spaces.cell import loose_ends

SKIPS = ((("skip_connect", 0), ("skip_connect", 1)),)


@st.composite
def cell_architectures(draw, nodes: int = 4) -> CellArchitecture:
    def cell():
        return tuple(
            tuple(
                (draw(st.sampled_from(cells.OPERATIONS)), draw(st.integers(0, i + 1)))
                for _ in "ab"
            )
            for i in range(nodes)
        )

    return CellArchitecture(normal=cell(), reduce=cell())


bench_architectures = st.builds(
    NasBench201Architecture,
    st.lists(st.sampled_from(bench.OPERATIONS), min_size=6, max_size=6),
)
members = st.one_of(
    st.tuples(st.just(CellSpace()), cell_architectures()),
    st.tuples(st.just(CellSpace(nodes=2)), cell_architectures(nodes=2)),
    st.tuples(st.just(NasBench201Space()), bench_architectures),
)
spaces = pytest.mark.parametrize(
    "space",
    [CellSpace(), CellSpace(nodes=2), CellSpace(none=False), NasBench201Space()],
    ids=repr,
)


def p_value(counts: dict, expected: dict) -> float:
    """Of Pearson's test that ``counts`` follow the probabilities ``expected``."""
    assert counts.keys() <= expected.keys()
    total = sum(counts.values())
    assert math.isclose(sum(expected.values()), 1)
    observed = [counts.get(outcome, 0) for outcome in expected]
    return float(chisquare(observed, [total * p for p in expected.values()]).pvalue)


def differences(space, before, after) -> list[str]:
    params, changed = space.to_params(before), space.to_params(after)
    return [name for name in params if params[name] != changed[name]]


@given(members)
def test_architecture_survives_json(member):
    _, architecture = member
    kind = type(architecture)
    assert kind.from_json(architecture.to_json()) == architecture
    assert kind(**json.loads(json.dumps(dataclasses.asdict(architecture)))) == architecture
    assert hash(kind.from_json(architecture.to_json())) == hash(architecture)


@given(members)
def test_params_say_the_architecture(member):
    space, architecture = member
    params = space.to_params(architecture)
    assert space.from_params(params) == architecture
    assert space.from_params({**params, "epochs": 3}) == architecture
    assert space.suggest(FixedTrial(params)) == architecture
    assert list(params) == list(space.distributions())
    for name, value in params.items():
        distribution = space.distributions()[name]
        assert distribution._contains(distribution.to_internal_repr(value))


def test_params_have_the_documented_names():
    assert list(NasBench201Space().distributions()) == [
        "edge_1_0", "edge_2_0", "edge_2_1", "edge_3_0", "edge_3_1", "edge_3_2",
    ]  # fmt: skip
    assert set(CellSpace().distributions()) == {
        f"{kind}_{what}_{i}_{a}"
        for kind in ("normal", "reduce")
        for what in ("op", "in")
        for i in range(4)
        for a in range(2)
    }


def test_params_name_the_cell_the_node_and_the_edge():
    architecture = CellArchitecture(
        normal=[[["none", 0], ["max_pool_3x3", 1]]], reduce=[[["sep_conv_5x5", 1], ["none", 1]]]
    )
    assert CellSpace(nodes=1).to_params(architecture) == {
        "normal_op_0_0": "none",
        "normal_in_0_0": 0,
        "normal_op_0_1": "max_pool_3x3",
        "normal_in_0_1": 1,
        "reduce_op_0_0": "sep_conv_5x5",
        "reduce_in_0_0": 1,
        "reduce_op_0_1": "none",
        "reduce_in_0_1": 1,
    }


def test_the_spaces_have_the_published_sizes():
    assert math.prod(map(len, NasBench201Space().choices.values())) == 15_625
    assert math.prod(map(len, CellSpace().choices.values())) == 491_520**4


@spaces
def test_random_architectures_follow_the_generator_and_are_uniform(space):
    rng = np.random.default_rng(0)
    drawn = [space.to_params(space.random(rng)) for _ in range(2000)]
    for name, values in space.choices.items():
        counts = collections.Counter(params[name] for params in drawn)
        assert p_value(counts, {v: 1 / len(values) for v in values}) > 1e-4, name
    again = np.random.default_rng(0)
    assert drawn[:50] == [space.to_params(space.random(again)) for _ in range(50)]


@spaces
def test_stock_samplers_search_the_space(space):
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
    found = []
    study.optimize(lambda trial: found.append(space.suggest(trial)) or len(found), n_trials=12)
    assert found == [space.from_params(trial.params) for trial in study.trials]
    assert all(space.suggest(FixedTrial(space.to_params(a))) == a for a in found)


@given(members, st.integers(0, 2**32 - 1))
def test_a_mutation_changes_exactly_one_value(member, seed):
    space, parent = member
    child = space.mutate(parent, np.random.default_rng(seed))
    assert len(differences(space, parent, child)) == 1
    assert child == space.mutate(parent, np.random.default_rng(seed))
    assert space.suggest(FixedTrial(space.to_params(child))) == child


@pytest.mark.parametrize("space", [CellSpace(), CellSpace(nodes=2, none=False)], ids=repr)
def test_cell_mutations_have_the_probabilities_of_the_paper(space):
    rng = np.random.default_rng(0)
    parent = space.random(rng)
    # Operation or connection, normal or reduction cell, edge, then any other value: node 0 has
    # one other input, an edge has seven other operations (six without `none`).
    before = space.to_params(parent)
    expected = {
        (name, value): 1 / (2 * 2 * 2 * space.nodes) / (len(values) - 1)
        for name, values in space.choices.items()
        for value in values
        if value != before[name]
    }
    counts: collections.Counter = collections.Counter()
    for _ in range(20_000):
        child = space.mutate(parent, rng)
        (name,) = differences(space, parent, child)
        counts[name, space.to_params(child)[name]] += 1
    assert p_value(counts, expected) > 1e-3
    assert {value for name, value in expected if name == "normal_in_0_0"} == {
        1 - before["normal_in_0_0"]
    }


def test_bench_mutations_reach_every_neighbour_alike():
    space, rng = NasBench201Space(), np.random.default_rng(0)
    parent = space.random(rng)
    counts = collections.Counter(space.mutate(parent, rng) for _ in range(10_000))
    assert len(counts) == 24
    assert p_value(counts, dict.fromkeys(counts, 1 / 24)) > 1e-3


def test_without_none_the_operation_is_never_drawn_but_may_be_mutated_away():
    space, rng = CellSpace(nodes=1, none=False), np.random.default_rng(0)
    assert not any("none" in space.random(rng).to_json() for _ in range(100))
    parent = CellArchitecture([[["none", 0], ["none", 1]]], [[["none", 0], ["none", 1]]])
    operations = collections.Counter(
        operation
        for _ in range(100)
        for cell in dataclasses.astuple(space.mutate(parent, rng))
        for node in cell
        for operation, _ in node
    )
    assert operations["none"] < 400
    assert operations.keys() == set(cells.OPERATIONS)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (((0, 1), (0, 1), (0, 1), (0, 1)), (2, 3, 4, 5)),
        (((0, 1), (1, 2), (2, 3), (3, 4)), (5,)),
        (((0, 1), (2, 2), (0, 0), (4, 2)), (3, 5)),
        (((1, 0), (2, 0), (3, 1), (0, 0)), (4, 5)),
        (((0, 0),), (2,)),
    ],
)
def test_loose_ends_are_the_unused_nodes(inputs, expected):
    cell = tuple((("none", a), ("skip_connect", b)) for a, b in inputs)
    assert loose_ends(cell) == expected


@given(cell_architectures())
def test_there_is_always_a_loose_end_and_never_an_input(architecture):
    for cell in (architecture.normal, architecture.reduce):
        assert loose_ends(cell)[-1] == 5
        assert min(loose_ends(cell)) >= 2


def test_bench_string_of_one_architecture():
    architecture = NasBench201Architecture(
        ("nor_conv_3x3", "avg_pool_3x3", "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    )
    assert str(architecture) == (
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    )
    assert NasBench201Space().to_params(architecture)["edge_3_1"] == "nor_conv_1x1"


def test_bench_strings_are_those_of_the_table():
    path = SHARED / "data" / "nasbench201_cifar10.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with np.load(path) as table:
        names = table["operation_names"].tolist()
        assert tuple(names) == bench.OPERATIONS
        for operations, text in zip(table["operations"], table["arch"], strict=True):
            assert str(NasBench201Architecture([names[i] for i in operations])) == text


def cell_with(*pairs):
    return CellArchitecture((pairs,), SKIPS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cell_with(("pool", 0), ("none", 1)), "`normal` must hold two"),
        (lambda: cell_with(("none", 2), ("none", 1)), "`normal` must hold two"),
        (lambda: cell_with(("none", -1), ("none", 1)), "`normal` must hold two"),
        (lambda: cell_with(("none", 0.0), ("none", 1)), "`normal` must hold two"),
        (lambda: cell_with(("none", True), ("none", 1)), "`normal` must hold two"),
        (lambda: cell_with(("none", 0)), "`normal` must hold two"),
        (lambda: cell_with(("none", 0), ("none", 0), ("none", 0)), "`normal` must hold two"),
        (lambda: CellArchitecture((), ()), "`normal` must hold two"),
        (lambda: CellArchitecture(SKIPS, 3), "`reduce` must hold two"),
        (lambda: CellArchitecture(SKIPS, "none"), "`reduce` must hold two"),
        (lambda: CellArchitecture(SKIPS, SKIPS * 2), "the same number of nodes: 1 and 2"),
        (lambda: CellArchitecture.from_json('{"normal": []}'), "Not a CellArchitecture"),
        (lambda: CellSpace(nodes=0), "`nodes` must be greater"),
        (lambda: CellSpace(nodes=1).from_params({"normal_op_0_0": "none"}), "normal_in_0_0"),
        (lambda: NasBench201Architecture(("none",) * 5), "`operations` must hold 6"),
        (lambda: NasBench201Architecture(("none",) * 5 + ("pool",)), "`operations` must hold 6"),
        (lambda: NasBench201Space().from_params({}), "edge_1_0, edge_2_0"),
    ],
)
def test_bad_values_are_refused_with_the_rule(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_study_files_know_the_spaces_by_name():
    assert SPACES["cell"] is CellSpace
    assert SPACES["nasbench201"] is NasBench201Space
