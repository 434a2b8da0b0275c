"""Networks that start from the weights of others, of other shapes."""

import dataclasses

import pytest
import torch

from optnas.objectives.inheritance.adapters import inherit
from optnas.objectives.networks.build import build_model
from optnas.spaces import ChainArchitecture

SHAPE = (2, 16, 16)


def network(architecture, seed=0):
    """A network whose statistics and scales are those of some training."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(architecture, SHAPE, 4, generator)
    images = torch.randn(64, *SHAPE, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "classifier" not in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        for _ in range(50):
            model.train()(images)
    return model


def chain(depth=7, width=4, operation="separable", kernel=3):
    return ChainArchitecture.uniform(depth, width, operation, kernel)


def child_of(parent, child, model):
    """The child's network, and how many tensors it took from the parent's."""
    fresh = network(child, seed=1)
    copied = inherit(fresh, model.state_dict(), parent, child)
    return fresh, copied


def outputs(model, seed=5, training=False):
    images = torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model.train(training)(images)


def test_tensors_of_the_same_name_and_shape_are_copied_bitwise():
    parent, child = network(chain()), network(chain(), seed=1)
    copied = inherit(child, parent.state_dict())
    state = child.state_dict()
    assert copied == len(state)
    assert all(torch.equal(state[name], value) for name, value in parent.state_dict().items())


def test_what_the_parent_does_not_have_keeps_its_fresh_values():
    child = network(chain(), seed=1)
    before = {name: value.clone() for name, value in child.state_dict().items()}
    state = {"stem.0.weight": torch.ones(1), "unknown": torch.ones(2)}
    assert inherit(child, state) == 0
    assert all(torch.equal(before[name], value) for name, value in child.state_dict().items())


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        (chain(), chain()),
        (chain(), chain(kernel=5)),
        (chain(), chain(operation="conv")),
        (chain(kernel=5), chain(operation="conv", kernel=7)),
        (chain(6), chain(7)),
        (chain(7), chain(8)),
        (chain(8), chain(9)),
        (chain(6), chain(12)),
        (chain(9, operation="conv"), chain(12, operation="conv")),
    ],
    ids=str,
)
def test_a_child_that_can_computes_what_its_parent_computes(parent, child):
    model = network(parent)
    grown, copied = child_of(parent, child, model)
    assert copied >= len(model.state_dict()) - child.depth
    torch.testing.assert_close(outputs(grown), outputs(model), rtol=1e-3, atol=1e-4)


def test_a_new_layer_changes_little_in_training():
    parent, child = chain(7), chain(8)
    model = network(parent)
    grown, _ = child_of(parent, child, model)
    fresh = network(child, seed=1)
    target = outputs(model, training=True)
    error = (outputs(grown, training=True) - target).norm() / target.norm()
    assert error < 0.25 < (outputs(fresh, training=True) - target).norm() / target.norm()


def test_a_narrower_child_takes_the_first_channels():
    parent, child = chain(width=4), chain(width=3)
    model = network(parent)
    narrowed, copied = child_of(parent, child, model)
    state, theirs = narrowed.state_dict(), model.state_dict()
    assert copied == len(state)
    for name, value in state.items():
        first = theirs[name][tuple(slice(size) for size in value.shape)]
        assert torch.equal(value, first), name


@pytest.mark.parametrize("depths", [(1, 2), (2, 1), (1, 5), (5, 1), (3, 2), (10, 3), (2, 3)])
@pytest.mark.parametrize("widths", [(4, 4), (4, 2), (2, 4)])
def test_any_chain_can_start_from_any_other(depths, widths):
    parent, child = (chain(d, w) for d, w in zip(depths, widths, strict=True))
    child = dataclasses.replace(
        child,
        operations=("conv", *child.operations[1:]),
        kernels=(*child.kernels[1:], 5),
    )
    grown, _ = child_of(parent, child, network(parent))
    assert outputs(grown, training=True).isfinite().all()
    assert outputs(grown).isfinite().all()
