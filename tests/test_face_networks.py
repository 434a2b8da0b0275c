"""Face networks: their counts, weights and dropout."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optnas.objectives.models import build_model, count_multiply_adds, count_params
from optnas.objectives.networks.faces import Dropout, FaceNetwork
from optnas.spaces import FaceArchitecture, FaceSpace

SMALL = FaceArchitecture(4, (1, 2, 1, 1), 8)


@pytest.mark.parametrize(
    ("stages", "multiply_adds"),
    [
        ((2, 2, 2, 2), 2_597_109_760),
        ((3, 4, 6, 3), 4_446_797_824),
        ((3, 4, 14, 3), 6_296_485_888),
    ],
)
def test_published_networks_have_their_counts(stages, multiply_adds):
    architecture = FaceArchitecture(64, stages)
    with torch.device("meta"):
        model = FaceNetwork(architecture, 3, 10_572)
    assert count_params(model) == architecture.num_params()
    assert count_multiply_adds(model, (3, 112, 112)) == multiply_adds


@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.tuples(*[st.integers(1, 3)] * 4),
)
def test_the_closed_form_counts_what_is_built(seed, in_channels, size, shares):
    space = FaceSpace((10, 16), (1, 8), embedding=1 + seed % 20, stages=shares)
    architecture = space.random(np.random.default_rng(seed))
    model = build_model(architecture, (in_channels, *size), 5)
    assert count_params(model) == architecture.num_params(in_channels, size=size)
    outputs = model.eval()(torch.zeros(2, in_channels, *size))
    assert outputs.shape == (2, architecture.embedding)


def test_weights_follow_the_generator_and_are_he_normal_by_what_goes_out():
    one, two, other = (
        build_model(SMALL, (1, 32, 32), 3, torch.Generator().manual_seed(seed)).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])
    wide = build_model(FaceArchitecture(64, (1, 1, 1, 1)), (3, 16, 16), 3).state_dict()
    deviation = wide["blocks.3.0.residual.4.weight"].std()
    torch.testing.assert_close(float(deviation), (2 / (9 * 512)) ** 0.5, rtol=0.01, atol=0)
    assert torch.equal(wide["stem.2.weight"], torch.full((64,), 0.25))
    assert not wide["linear.bias"].any()


def test_dropout_follows_its_generator_and_is_off_in_evaluation():
    layer, features = Dropout(0.4), torch.ones(200, 50)
    layer.generator = torch.Generator().manual_seed(0)
    first, second = layer(features), layer(features)
    layer.generator = torch.Generator().manual_seed(0)
    assert torch.equal(layer(features), first)
    assert not torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    assert abs(float((first == 0).double().mean()) - 0.4) < 0.02
    assert torch.equal(layer.eval()(features), features)
    with pytest.raises(ValueError, match="`dropout` must be in"):
        Dropout(1.0)
