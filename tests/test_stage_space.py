"""Stage architectures and their space."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from optnas.spaces import SPACES, StageArchitecture, StageSpace


@st.composite
def members(draw):
    least = draw(st.integers(1, 4))
    space = StageSpace(
        stages=draw(st.integers(1, 5)),
        block=draw(st.sampled_from(("basic", "bottleneck", "nasnet"))),
        modules=(least, least + draw(st.integers(0, 30))),
    )
    seed = draw(st.integers(0, 2**32 - 1))
    return space, space.random(np.random.default_rng(seed))


@given(members())
def test_parameters_and_json_say_the_whole_architecture(member):
    space, architecture = member
    params = space.to_params(architecture)
    assert list(params) == [f"modules_{i}" for i in range(1, space.stages + 1)]
    assert params.keys() == space.distributions().keys()
    assert space.from_params(params | {"epochs": 3}) == architecture
    assert space.suggest(FixedTrial(params)) == architecture
    assert StageArchitecture.from_json(architecture.to_json()) == architecture
    assert all(space.modules[0] <= m <= space.modules[1] for m in architecture.modules)
    assert architecture.stages == space.stages


def test_sequences_become_tuples_and_numbers_stay_equal_in_hash():
    architecture = StageArchitecture(**json.loads('{"modules": [6, 8, 6]}'))
    assert architecture == StageArchitecture((6, 8, 6), "basic")
    assert hash(architecture) == hash(StageArchitecture((6, 8, 6)))


def test_random_members_reach_the_whole_range():
    space, rng = StageSpace(modules=(2, 5)), np.random.default_rng(0)
    drawn = np.array([space.random(rng).modules for _ in range(200)])
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [[2, 3, 4, 5]] * 3


@pytest.mark.parametrize(
    ("modules", "block", "depth"),
    [
        ((6, 6, 6), "basic", 39),
        ((6, 8, 6), "basic", 43),
        ((10, 14, 8), "basic", 67),
        ((2, 4, 4), "basic", 23),
        ((4, 6, 4), "basic", 31),
        ((10, 10, 10), "basic", 63),
        ((10, 10, 12), "basic", 67),
        ((6, 8, 10), "basic", 51),
        ((6, 10, 14), "basic", 63),
        ((2, 3, 2), "nasnet", 109),
        ((3, 3, 2), "nasnet", 121),
        ((3, 4, 2), "nasnet", 133),
        ((4, 4, 3), "nasnet", 157),
        ((5, 4, 4), "nasnet", 181),
        ((6, 5, 4), "nasnet", 205),
        ((4, 4, 4), "nasnet", 169),
        ((5, 5, 5), "nasnet", 205),
        ((6, 6, 6), "nasnet", 241),
    ],
)
def test_depths_are_the_published_ones(modules, block, depth):
    assert StageArchitecture(modules, block).depth == depth


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StageArchitecture(()), "`modules` must hold one integer from 1"),
        (lambda: StageArchitecture((1, 0)), "`modules` must hold one integer from 1"),
        (lambda: StageArchitecture((1, 2.0)), "`modules` must hold one integer from 1"),
        (lambda: StageArchitecture((1, True)), "`modules` must hold one integer from 1"),
        (lambda: StageArchitecture((1,), "wide"), "`block` must be one of"),
        (lambda: StageArchitecture.from_json("{}"), "Not a StageArchitecture"),
        (lambda: StageSpace(stages=0), "`stages` must be greater than or equal to 1"),
        (lambda: StageSpace(block="wide"), "`block` must be one of"),
        (lambda: StageSpace(modules=(0, 3)), "`modules` must be two integers"),
        (lambda: StageSpace(modules=(3, 2)), "`modules` must be two integers"),
        (lambda: StageSpace(modules=(3,)), "`modules` must be two integers"),
        (lambda: StageSpace(modules=()), "or such a pair for each of the 3 stages"),
        (lambda: StageSpace(modules=((1, 2), (1, 3))), "a pair for each of the 3 stages"),
        (lambda: StageSpace(2, modules=((1, 2), (3, 2))), "a pair for each of the 2 stages"),
        (lambda: StageSpace().from_params({"modules_1": 3}), "modules_2, modules_3"),
    ],
)
def test_bad_values_are_refused_with_the_rule(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_stage_may_have_a_range_of_its_own():
    space = StageSpace(2, modules=((1, 3), (2, 9)))
    assert space.ranges == ((1, 3), (2, 9))
    assert StageSpace(2, modules=(2, 5)).ranges == ((2, 5), (2, 5))
    drawn = np.array([space.random(np.random.default_rng(seed)).modules for seed in range(200)])
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [
        [1, 2, 3],
        [2, 3, 4, 5, 6, 7, 8, 9],
    ]
    assert {name: (d.low, d.high) for name, d in space.distributions().items()} == {
        "modules_1": (1, 3),
        "modules_2": (2, 9),
    }


def test_study_files_know_the_space_by_name():
    assert SPACES["stage"] is StageSpace
