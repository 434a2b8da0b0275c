"""Face architectures and their space."""

import dataclasses
import json

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from optnas.spaces import SPACES, FaceArchitecture, FaceSpace

IDENTITIES = 10_572  # of CASIA-WebFace


@st.composite
def architectures(draw):
    stages = draw(st.tuples(*[st.integers(1, 4)] * 4))
    blocks = sum(stages)
    return FaceArchitecture(
        draw(st.integers(1, 80)),
        stages,
        draw(st.integers(1, 600)),
        draw(st.lists(st.sampled_from(["conv", "separable"]), min_size=blocks, max_size=blocks)),
        draw(st.lists(st.sampled_from([3, 5, 7]), min_size=blocks, max_size=blocks)),
    )


@pytest.mark.parametrize(
    ("width", "stages", "backbone", "with_classifier"),
    [
        (64, (2, 2, 2, 2), 24_020_352, 29_433_216),  # The paper's 29.4 M.
        (64, (3, 4, 6, 3), 34_134_080, 39_546_944),
        (64, (3, 4, 14, 3), 43_585_600, 48_998_464),  # The paper's 49.0 M.
        (32, (7, 7, 7, 7), 17_071_456, 22_484_320),
        (64, (4, 4, 4, 4), 36_567_552, 41_980_416),
        # Three that have the 37.1 M of the paper's medium network; whether it is one is unknown.
        (64, (2, 4, 8, 2), None, 37_113_472),
        (64, (2, 8, 3, 3), None, 37_111_680),
        (64, (6, 3, 4, 3), None, 37_110_784),
    ],
)
def test_parameters_are_those_of_the_published_networks(width, stages, backbone, with_classifier):
    architecture = FaceArchitecture(width, stages)
    assert architecture.num_params(3, IDENTITIES) == with_classifier
    assert architecture.num_params() == (backbone or with_classifier - 512 * IDENTITIES)


@pytest.mark.parametrize(
    ("architecture", "in_channels", "size", "expected"),
    [
        (FaceArchitecture(8, (1, 1, 1, 1), 64), 1, 64, 143_192),
        (FaceArchitecture(8, (2, 2, 2, 2), 64), 1, 64, 241_952),
        (FaceArchitecture(16, (1, 2, 1, 2), 128), 3, (112, 112), 1_425_712),
    ],
)
def test_parameters_of_small_networks(architecture, in_channels, size, expected):
    assert architecture.num_params(in_channels, size=size) == expected


@given(architectures())
def test_an_architecture_survives_json(architecture):
    assert FaceArchitecture.from_json(architecture.to_json()) == architecture
    assert FaceArchitecture(**json.loads(json.dumps(dataclasses.asdict(architecture)))) == (
        architecture
    )
    assert isinstance(hash(architecture), int)


def test_nothing_said_is_plain_throughout():
    plain = FaceArchitecture(8, (1, 2, 1, 1), 16, ("conv",) * 5, (3,) * 5)
    assert FaceArchitecture(8, (1, 2, 1, 1), 16) == plain
    assert (plain.blocks, plain.depth) == (5, 12)


@given(st.integers(4, 49), st.integers(0, 2**32), st.tuples(*[st.integers(1, 30)] * 4))
def test_params_say_the_architecture(blocks, seed, shares):
    depth = 2 * blocks + 2
    space = FaceSpace((depth, depth), (1, 80), embedding=64, stages=shares)
    architecture = space.random(np.random.default_rng(seed))
    params = space.to_params(architecture)
    assert architecture.depth == depth
    assert space.from_params(params | {"epochs": 3}) == architecture
    assert space.suggest(FixedTrial(params)) == architecture
    for name, value in params.items():
        distribution = space.distributions()[name]
        assert distribution._contains(distribution.to_internal_repr(value))


@pytest.mark.parametrize(
    ("blocks", "stages"),
    [
        (4, (1, 1, 1, 1)),
        (5, (1, 1, 2, 1)),
        (6, (1, 2, 2, 1)),
        (7, (1, 2, 2, 2)),
        (8, (2, 2, 2, 2)),
        (30, (7, 8, 8, 7)),
    ],
)
def test_blocks_are_split_evenly_and_what_is_left_over_goes_to_the_middle(blocks, stages):
    assert FaceSpace().split(2 * blocks + 2) == stages


@given(st.tuples(*[st.integers(1, 30)] * 4), st.integers(4, 48))
def test_a_split_is_exact_where_it_can_be_and_grows_by_one_stage_at_a_time(shares, blocks):
    space = FaceSpace(stages=shares)
    assert space.split(2 * sum(shares) + 2) == shares
    before, after = space.split(2 * blocks + 2), space.split(2 * blocks + 4)
    assert sum(before) == blocks
    assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0, 0, 0, 1]


def test_random_members_reach_the_whole_range_and_follow_the_generator():
    space = FaceSpace((10, 16), (8, 12))
    drawn = [space.random(np.random.default_rng(seed)) for seed in range(200)]
    assert {a.depth for a in drawn} == {10, 12, 14, 16}
    assert {a.width for a in drawn} == {8, 10, 12}
    assert {k for a in drawn for k in a.kernels} == {3, 5}
    assert {o for a in drawn for o in a.operations} == {"conv", "separable"}
    wide = FaceSpace((10, 16), (7, 12), kernels=(3, 5, 7), width_step=3)
    others = [wide.random(np.random.default_rng(seed)) for seed in range(200)]
    assert {a.width for a in others} == {9, 12}
    assert {k for a in others for k in a.kernels} == {3, 5, 7}
    assert drawn == [space.random(np.random.default_rng(seed)) for seed in range(200)]


@given(st.integers(0, 2**32))
def test_a_mutation_changes_one_parameter(seed):
    space, rng = FaceSpace((10, 14), (8, 12)), np.random.default_rng(seed)
    parent = space.random(rng)
    before, after = space.to_params(parent), space.to_params(space.mutate(parent, rng))
    changed = [n for n in before.keys() & after.keys() if before[n] != after[n]]
    assert len(changed) == 1
    assert before.keys() == after.keys() or changed == ["depth"]
    assert space.depth[0] <= after["depth"] <= space.depth[1]
    assert space.width[0] <= after["width"] <= space.width[1]


def test_stock_samplers_stay_in_the_range():
    space = FaceSpace((10, 16), (8, 16))
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=5)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    found = []
    study.optimize(lambda trial: found.append(space.suggest(trial)) or len(found), n_trials=20)
    assert all(a.depth in (10, 12, 14, 16) and 8 <= a.width <= 16 for a in found)


def test_presets_and_baselines_are_those_of_the_papers():
    assert FaceSpace(preset="small").width == (16, 32)
    assert FaceSpace(preset="medium").width == (16, 64)
    assert FaceSpace(preset="small").depth == (10, 100)
    assert {name: a.depth for name, a in FaceSpace().baselines().items()} == {
        "IR-18": 18,
        "IR-34": 34,
        "IR-50": 50,
        "IR-101": 100,  # One less by this count, as its authors name it.
    }
    assert SPACES["face"] is FaceSpace


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FaceArchitecture(0), "`width` must be an integer"),
        (lambda: FaceArchitecture(embedding=True), "`embedding` must be an integer"),
        (lambda: FaceArchitecture(8, (1, 1, 1)), "`stages` must hold 4 integers"),
        (lambda: FaceArchitecture(8, (1, 1, 1, 0)), "`stages` must hold 4 integers"),
        (lambda: FaceArchitecture(8, (1, 1, 1, 1), 8, ["conv"]), "`operations` must hold 4"),
        (lambda: FaceArchitecture(8, (1, 1, 1, 1), 8, ["pool"] * 4), "`operations` must hold 4"),
        (lambda: FaceArchitecture(8, (1, 1, 1, 1), 8, None, [4] * 4), "`kernels` must hold 4"),
        (lambda: FaceArchitecture.from_json("[]"), "Expected a JSON object"),
        (lambda: FaceSpace((11, 20)), "`depth` must be two even integers"),
        (lambda: FaceSpace((8, 20)), "`depth` must be two even integers, .* from 10"),
        (lambda: FaceSpace(width=(0, 2)), "`width` must be two integers"),
        (lambda: FaceSpace(embedding=0), "`embedding` must be an integer"),
        (lambda: FaceSpace(stages=(1, 2)), "`stages` must hold 4 integers"),
        (lambda: FaceSpace(preset="huge"), "`preset` must be one of"),
        (lambda: FaceSpace(kernels=(3, 4)), "`kernels` must be some of"),
        (lambda: FaceSpace(width_step=0), "`width_step` must be an integer"),
        (lambda: FaceSpace().split(11), "`depth` must be an even number"),
        (lambda: FaceSpace().from_params({"depth": 10}), "No face network without the parameter"),
        (lambda: FaceSpace().to_params(FaceArchitecture()), "This space has the stages"),
    ],
)
def test_bad_values_are_refused_with_the_rule(make, message):
    with pytest.raises(ValueError, match=message):
        make()
