"""Chain architectures and their space."""

import dataclasses
import json

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from optnas.spaces import ChainArchitecture, ChainSpace

chains = st.integers(1, 12).flatmap(
    lambda depth: st.builds(
        ChainArchitecture,
        depth=st.just(depth),
        width=st.integers(1, 128),
        operations=st.lists(
            st.sampled_from(["separable", "conv"]), min_size=depth, max_size=depth
        ),
        kernels=st.lists(st.sampled_from([3, 5, 7]), min_size=depth, max_size=depth),
    )
)


def changed(depth: int, width: int, conv: tuple[int, ...], k5: tuple[int, ...]):
    return ChainArchitecture(
        depth,
        width,
        ["conv" if i in conv else "separable" for i in range(depth)],
        [5 if i in k5 else 3 for i in range(depth)],
    )


@pytest.mark.parametrize(
    ("architecture", "in_channels", "classes", "expected"),
    [
        (ChainArchitecture.uniform(10, 64), 3, 10, 309_450),
        (ChainArchitecture.uniform(11, 64), 3, 10, 327_242),
        (ChainArchitecture.uniform(13, 64), 3, 10, 400_394),
        (ChainArchitecture.uniform(26, 64), 3, 10, 781_962),
        (ChainArchitecture.uniform(26, 46), 3, 10, 413_826),
        (ChainArchitecture.uniform(10, 128), 3, 10, 1_192_330),
        (ChainArchitecture.uniform(10, 64), 1, 10, 307_146),
        (ChainArchitecture.uniform(10, 64), 3, 100, 332_580),
        (changed(26, 46, (0, 2), (13, 17)), 3, 10, 466_312),
        (changed(21, 56, (), (3,)), 3, 100, 488_588),
    ],
)
def test_num_params_equals_the_published_counts(architecture, in_channels, classes, expected):
    assert architecture.num_params(in_channels, classes) == expected


@given(chains)
def test_architecture_survives_json(architecture):
    assert ChainArchitecture.from_json(architecture.to_json()) == architecture
    assert ChainArchitecture(**json.loads(json.dumps(dataclasses.asdict(architecture)))) == (
        architecture
    )
    assert isinstance(hash(architecture), int)


@given(chains)
def test_params_say_the_architecture(architecture):
    space = ChainSpace(depth=(1, 12), width=(1, 128), kernels=(3, 5, 7), width_step=1)
    params = space.to_params(architecture)
    assert space.from_params(params) == architecture
    assert space.suggest(FixedTrial(params)) == architecture
    for name, value in params.items():
        distribution = space.distributions()[name]
        assert distribution._contains(distribution.to_internal_repr(value))


def test_random_architectures_lie_in_the_space_and_follow_the_generator():
    space = ChainSpace(depth=(2, 5), width=(8, 16))
    drawn = [space.random(np.random.default_rng(seed)) for seed in range(200)]
    assert {a.depth for a in drawn} == {2, 3, 4, 5}
    assert {a.width for a in drawn} == {8, 10, 12, 14, 16}
    assert {k for a in drawn for k in a.kernels} == {3, 5}
    assert {o for a in drawn for o in a.operations} == {"separable", "conv"}
    assert drawn == [space.random(np.random.default_rng(seed)) for seed in range(200)]


def test_widths_are_steps_down_from_the_greatest():
    assert list(ChainSpace(width=(8, 15)).widths) == [9, 11, 13, 15]
    assert list(ChainSpace(width=(8, 15), width_step=1).widths) == list(range(8, 16))
    assert list(ChainSpace(width=(8, 9), width_step=9).widths) == [9]


def test_a_layer_is_what_the_space_says():
    space = ChainSpace((2, 5), (8, 16), kernels=[5], operations=["separable"])
    chains = [space.random(np.random.default_rng(seed)) for seed in range(20)]
    assert {(*a.kernels, *a.operations)[:: a.depth] for a in chains} == {(5, "separable")}
    assert not space.distributions()["kernel_0"]._contains(1)


def test_random_networks_are_as_large_as_the_papers():
    """Table 3: ten random networks have 0.77 +- 0.70 M parameters."""
    space, rng = ChainSpace(preset="tiny", operations=["separable"]), np.random.default_rng(0)
    sizes = [space.random(rng).num_params(3, 10) / 1e6 for _ in range(1000)]
    assert 0.72 < np.mean(sizes) < 0.84
    assert 0.6 < np.std(sizes) < 0.75


@pytest.mark.parametrize("width", [7, 3, 16])
def test_a_proposed_width_may_lie_between_the_steps(width):
    space = ChainSpace(depth=(2, 2), width=(8, 16))
    study = optuna.create_study(sampler=Proposes(space.to_params(ChainArchitecture(2, width))))
    trial = study.ask()
    assert space.suggest(trial).width == width


class Proposes(optuna.samplers.RandomSampler):
    """Proposes the same parameters for every trial."""

    def __init__(self, params):
        super().__init__(seed=0)
        self.params = params

    def infer_relative_search_space(self, study, trial):
        return ChainSpace(depth=(2, 2), width=(8, 16)).distributions()

    def sample_relative(self, study, trial, search_space):
        return self.params


def test_stock_samplers_stay_in_the_range():
    space = ChainSpace(depth=(2, 5), width=(8, 16))
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5)
    )
    found = []
    study.optimize(lambda trial: found.append(space.suggest(trial)) or len(found), n_trials=20)
    assert all(2 <= a.depth <= 5 and 8 <= a.width <= 16 for a in found)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChainArchitecture(0, 4), "`depth` and `width` must be"),
        (lambda: ChainArchitecture(2, 0), "`depth` and `width` must be"),
        (lambda: ChainArchitecture(2, 4, ["conv"]), "`operations` must hold 2 values"),
        (lambda: ChainArchitecture(1, 4, ["pool"]), "`operations` must hold 1 values"),
        (lambda: ChainArchitecture(1, 4, ["conv"], [4]), "`kernels` must hold 1 values"),
        (lambda: ChainArchitecture.from_json("[]"), "Expected a JSON object"),
        (lambda: ChainArchitecture.from_json('{"depth": 1}'), "Not a ChainArchitecture"),
        (lambda: ChainSpace(depth=(5, 2)), "`depth` must be two integers"),
        (lambda: ChainSpace(depth=(5, 10**6)), "`depth` must be two integers, .* to 10,000"),
        (lambda: ChainSpace(width=(0, 2)), "`width` must be two integers"),
        (lambda: ChainSpace(kernels=(3, 4)), "`kernels` must be some of \\(3, 5, 7\\)"),
        (lambda: ChainSpace(kernels=()), "`kernels` must be some of"),
        (lambda: ChainSpace(operations=("conv", "conv")), "`operations` must be some of .* once"),
        (lambda: ChainSpace(width_step=0), "`width_step` must be an integer, 1 or more"),
        (lambda: ChainSpace(preset="huge"), "`preset` must be one of"),
        (lambda: ChainSpace().from_params({"depth": 2}), "No chain without the parameter"),
    ],
)
def test_bad_values_are_refused_with_the_rule(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_presets_are_the_papers_settings():
    assert ChainSpace(preset="tiny").width == (16, 64)
    assert ChainSpace(preset="mobile").width == (16, 128)
    assert ChainSpace(depth=(2, 3), preset="mobile").depth == (2, 3)
