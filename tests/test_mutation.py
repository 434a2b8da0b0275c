import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from mixed_space import Mixed, MixedSpace
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial, FixedTrial

from optnas.spaces import (
    CellSpace,
    ChainArchitecture,
    ChainSpace,
    GrowthSpace,
    NasBench201Space,
    RowSpace,
    StageSpace,
    TopologySpace,
)
from optnas.spaces.axes import Axis

SPACES: list[Any] = [
    ChainSpace(depth=(2, 9), width=(4, 12)),
    CellSpace(nodes=2),
    NasBench201Space(),
    RowSpace(7),
    StageSpace(stages=3, modules=((1, 3), (1, 8), (2, 2))),
    TopologySpace(CellSpace()),
    MixedSpace(),
]
DISTRIBUTIONS = [
    CategoricalDistribution((None, True, "a", 2.5)),
    IntDistribution(3, 9),
    IntDistribution(0, 100, step=25),
    IntDistribution(1, 1000, log=True),
    FloatDistribution(-1, 2),
    FloatDistribution(1e-4, 1, log=True),
    FloatDistribution(0, 1, step=0.25),
]


def named(space: Any) -> str:
    """The same name in every process: not every space has a text of its own."""
    text = repr(space)
    return type(space).__name__ if " object at " in text else text


@pytest.mark.parametrize("space", SPACES, ids=named)
def test_a_mutant_differs_in_what_it_says_and_stays_in_the_space(space):
    rng = np.random.default_rng(0)
    distributions = space.distributions()
    architecture = space.random(rng)
    for _ in range(100):
        mutant = space.mutate(architecture, rng)
        params = space.to_params(mutant)
        assert params != space.to_params(architecture)
        assert space.from_params(params) == mutant
        assert space.suggest(FixedTrial(params)) == mutant
        for name, value in params.items():
            assert not math.isnan(Axis(distributions[name]).code(value))
        architecture = mutant


@pytest.mark.parametrize("space", SPACES, ids=named)
def test_a_mutant_is_the_same_for_the_same_generator(space):
    architecture = space.random(np.random.default_rng(1))
    mutants = {space.mutate(architecture, np.random.default_rng(2)) for _ in range(3)}
    assert len(mutants) == 1


@pytest.mark.parametrize("space", [CellSpace(nodes=2), StageSpace(), MixedSpace()], ids=named)
def test_mutation_leads_from_any_architecture_to_every_value(space):
    rng = np.random.default_rng(3)
    seen: dict[str, set[Any]] = {}
    architecture = space.random(rng)
    for _ in range(3000):
        architecture = space.mutate(architecture, rng)
        for name, value in space.to_params(architecture).items():
            seen.setdefault(name, set()).add(value)
    for name, distribution in space.distributions().items():
        size = Axis(distribution).size
        assert len(seen[name]) == size if size else len(seen[name]) > 20, name


def test_without_conditions_one_parameter_changes():
    rng = np.random.default_rng(4)
    space = StageSpace()
    architecture = space.random(rng)
    changed: Counter[str] = Counter()
    for _ in range(300):
        before = space.to_params(architecture)
        after = space.to_params(space.mutate(architecture, rng))
        (name,) = (name for name in before if before[name] != after[name])
        changed[name] += 1
    assert min(changed.values()) > 70  # 100 expected of each of three, with a deviation of 8.


def test_a_deeper_chain_keeps_its_layers():
    rng = np.random.default_rng(5)
    space = ChainSpace(depth=(3, 9), width=(4, 12))
    chain = ChainArchitecture(5, 8, ("conv",) * 5, (5,) * 5)
    deeper = [other for _ in range(300) if (other := space.mutate(chain, rng)).depth > 5]
    assert deeper
    assert all(other.operations[:5] == chain.operations for other in deeper)
    assert len({other.kernels for other in deeper}) > 5  # What is new is drawn.


def test_an_architecture_outside_the_space_is_led_into_it():
    narrow = ChainArchitecture(5, 2)
    mutant = ChainSpace(depth=(3, 9), width=(4, 12)).mutate(narrow, np.random.default_rng(6))
    assert mutant.width >= 4


@pytest.mark.parametrize("space", [RowSpace(1), ChainSpace((1, 1), (1, 2))], ids=named)
def test_a_space_of_one_architecture_says_so(space):
    architecture = space.random(np.random.default_rng(0))
    if isinstance(space, RowSpace):
        with pytest.raises(ValueError, match="no architecture beside"):
            space.mutate(architecture, np.random.default_rng(0))
    else:
        assert space.mutate(architecture, np.random.default_rng(0)) != architecture


def test_a_grown_network_mutates_by_growing():
    space = GrowthSpace(cells=1, channels=4)
    child = space.mutate(space.initial(), np.random.default_rng(0))
    assert len(child.increments) > 0
    assert space.mutate(child, np.random.default_rng(0)).increments[: len(child.increments)] == (
        child.increments
    )


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_codes_say_values_and_changes_differ(distribution: BaseDistribution):
    rng = np.random.default_rng(7)
    axis = Axis(distribution)
    codes = axis.draw(500, rng)
    values = [axis.value(code) for code in codes]
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)
    assert [axis.value(axis.code(value)) for value in values] == pytest.approx(values)
    changed = [axis.value(code) for code in axis.change(codes, rng)]
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in changed)
    same = np.mean([a == b for a, b in zip(values, changed, strict=True)])
    assert same == 0 if axis.size else same < 0.1


@pytest.mark.parametrize("value", ["b", 10, -5, "3", None])
def test_a_value_outside_has_no_code(value):
    assert math.isnan(Axis(IntDistribution(3, 9)).code(value))
    assert math.isnan(Axis(CategoricalDistribution(("a", "c"))).code(value))


def test_what_is_missing_is_drawn_and_what_is_superfluous_ignored():
    rng = np.random.default_rng(8)
    params: Mapping[str, Any] = {"depth": 2, "width": 99, "op_0": "conv", "op_7": "conv"}
    drawn = [ChainSpace(depth=(2, 9), width=(4, 12)).completed(params, rng) for _ in range(50)]
    assert all(chain.depth == 2 and chain.operations[0] == "conv" for chain in drawn)
    assert {chain.width for chain in drawn} == set(range(4, 13, 2))


def test_a_trial_that_draws_answers_the_same_twice():
    class Twice(MixedSpace):
        def suggest(self, trial: BaseTrial) -> Mixed:
            assert super().suggest(trial) == super().suggest(trial)
            return super().suggest(trial)

    space = Twice()
    assert space.completed({}, np.random.default_rng(0)).depth >= 1
