"""Margins against worked numbers, their relations and their gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from optnas.objectives.margins import MARGINS, AdaFace, ArcFace, CosFace, Softmax, make_margin

COSINES = [[0.7, 0.1, -0.2], [0.2, 0.5, 0.3], [-0.1, 0.4, 0.6], [0.9, 0.0, 0.1]]
NORMS = [10.0, 20.0, 30.0, 40.0]
LABELS = torch.tensor([0, 1, 2, 0])


def close(actual, expected, tolerance=1e-9):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def adaface_at(z: float, m: float = 0.4, classes: int = 3) -> AdaFace:
    """AdaFace for which images of the norm 20 have the quality ``z``."""
    margin = AdaFace(classes, 4, m=m).double().eval()
    margin.h = 1.0
    margin.mean.fill_(20.0 - z)
    margin.std.fill_(1 - 1e-3)
    return margin


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        (-1.0, 0.3666423737661168),
        (0.0, 0.3),
        (1.0, 0.1228430178379223),
        (-0.333, 0.3321566007280123),
        (0.333, 0.2554421829953304),
    ],
)
def test_the_true_class_loses_what_its_quality_says(z, expected):
    cosines = torch.tensor([[0.7, 0.1, -0.2]], dtype=torch.float64)
    norms = torch.tensor([20.0], dtype=torch.float64)
    logits = adaface_at(z).logits(cosines, norms, torch.tensor([0]))
    close(logits[0] / 64, [expected, 0.1, -0.2])


def test_an_angle_that_would_be_negative_stays_above_zero():
    cosines = torch.tensor([[math.cos(0.2), 0.0, 0.0]], dtype=torch.float64)
    norms = torch.tensor([20.0], dtype=torch.float64)
    logits = adaface_at(1.0).logits(cosines, norms, torch.tensor([0]))
    close(logits[0, 0] / 64, 0.1999995000000416)


@pytest.mark.parametrize(
    ("t", "mean", "std", "after", "qualities", "true", "loss"),
    [
        (
            0.01,
            20.0,
            100.0,
            (20.05, 99.12909944487357),
            (-0.03376018, -0.0001679611, 0.0334242578, 0.0670164767),
            (19.4429890381, 6.4005759923, 12.6254154781, 31.0114165951),
            6.443918987374905,
        ),
        (
            1.0,
            7.0,
            3.0,
            (25.0, 12.909944487358056),
            (-0.3868810686, -0.1289603562, 0.1289603562, 0.3868810686),
            (21.5239983971, 6.8010041965, 12.0874734259, 25.7074191176),
            6.478297075042966,
        ),
        (
            0.01,
            22.0,
            9.0,
            (22.03, 9.03909944487358),
            (-0.443135612, -0.0747768323, 0.2935819474, 0.6619407271),
            (21.7832515431, 6.6423996358, 11.0185779905, 20.347466386),
            6.785171903883818,
        ),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-9), (torch.float32, 1e-6)])
def test_a_batch_of_adaface(t, mean, std, after, qualities, true, loss, dtype, tolerance):
    margin = AdaFace(3, 4, t=t)
    margin.mean.fill_(mean)
    margin.std.fill_(std)
    cosines, norms = torch.tensor(COSINES, dtype=dtype), torch.tensor(NORMS, dtype=dtype)
    logits = margin.logits(cosines, norms, LABELS)
    close(torch.stack((margin.mean, margin.std)), after)
    close(margin.quality(norms), qualities, tolerance)
    close(logits.gather(1, LABELS[:, None]).squeeze(1), true, tolerance)
    expected = 64 * torch.tensor(COSINES, dtype=torch.float64)
    others = functional.one_hot(LABELS, 3) == 0
    close(logits[others], expected[others], tolerance)
    close(functional.cross_entropy(logits, LABELS), loss, tolerance)


cosines = st.lists(st.floats(-0.99, 0.99), min_size=4, max_size=4)


@given(cosines, st.integers(0, 3), st.floats(0.05, 0.8))
def test_adaface_is_arcface_at_the_least_quality_and_cosface_at_the_middle(values, label, m):
    row, labels = torch.tensor([values], dtype=torch.float64), torch.tensor([label])
    norms = torch.tensor([20.0], dtype=torch.float64)
    for z, sibling in ((-1.0, ArcFace), (0.0, CosFace)):
        close(
            adaface_at(z, m, 4).logits(row, norms, labels),
            sibling(4, 4, m=m).double().logits(row, norms, labels).detach(),
        )


@pytest.mark.parametrize("name", MARGINS)
def test_gradients_are_those_of_finite_differences(name):
    generator = torch.Generator().manual_seed(0)
    margin = make_margin(name, 5, 6, {}).double().eval()
    margin.reset_parameters(generator)
    features = torch.randn(7, 6, dtype=torch.float64, generator=generator) * 9
    labels = torch.randint(5, (7,), generator=generator)
    norms = features.norm(dim=1)
    embeddings = (features / norms[:, None]).requires_grad_()

    def loss(embeddings, weight):
        arguments = (embeddings, norms, labels)
        logits = torch.func.functional_call(margin, {"weight": weight}, arguments)
        return functional.cross_entropy(logits, labels)

    assert torch.autograd.gradcheck(loss, (embeddings, margin.weight.detach().requires_grad_()))


def test_a_forward_pass_is_that_of_the_cosines_and_norms_get_no_gradient():
    margin = AdaFace(3, 4).eval()
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    norms = features.norm(dim=1).requires_grad_()
    embeddings = features / norms.detach()[:, None]
    labels = torch.tensor([0, 1, 2, 0, 1])
    logits = margin(embeddings, norms, labels)
    directions = functional.normalize(margin.weight, dim=1)
    close(logits.detach(), margin.logits(embeddings @ directions.T, norms, labels).detach(), 1e-6)
    logits.sum().backward()
    assert norms.grad is None
    assert margin.weight.grad is not None


def test_running_statistics_are_saved_and_move_in_training_alone():
    margin, norms = AdaFace(3, 4, t=0.5), torch.tensor([10.0, 30.0, 20.0, 20.0])
    rows = torch.tensor(COSINES)
    margin.eval().logits(rows, norms, LABELS)
    assert margin.mean == 20
    margin.train().logits(rows, norms, LABELS)
    assert margin.std == (100 + norms.double().std()) / 2
    other = AdaFace(3, 4)
    other.load_state_dict(margin.state_dict())
    assert other.std == margin.std
    assert torch.equal(other.weight, margin.weight)
    margin.logits(rows[:1], norms[:1], LABELS[:1])  # One image has no deviation.
    assert (margin.mean, margin.std) == (15, other.std)


def test_vectors_have_length_one_at_first_and_follow_the_generator():
    margin = CosFace(30, 12)
    close(margin.weight.detach().norm(dim=1), torch.ones(30), 1e-6)
    margin.reset_parameters(torch.Generator().manual_seed(1))
    first = margin.weight.detach().clone()
    margin.reset_parameters(torch.Generator().manual_seed(1))
    assert torch.equal(margin.weight, first)


def test_plain_softmax_is_a_linear_layer():
    margin, features = Softmax(3, 4), torch.tensor([[3.0, 4.0, 0.0, 0.0]])
    norms = features.norm(dim=1)
    expected = features @ margin.weight.T
    close(margin(features / 5, norms, torch.tensor([0])).detach(), expected.detach(), 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaFace(1, 4), "`classes` must be 2 or more"),
        (lambda: ArcFace(2, 0), "`dim` 1 or more"),
        (lambda: CosFace(2, 2, m=-1), "`m` must be in"),
        (lambda: CosFace(2, 2, s=0), "`s` above 0"),
        (lambda: AdaFace(2, 2, h=-1), "`h` must be 0 or more"),
        (lambda: AdaFace(2, 2, t=1.1), r"`t` in \[0, 1\]"),
        (lambda: make_margin("sphereface", 2, 2, {}), "`margin` must be one of adaface"),
        (lambda: make_margin("softmax", 2, 2, {"m": 1.0}), "has no such options"),
    ],
)
def test_bad_values_are_refused_with_the_rule(make, message):
    with pytest.raises(ValueError, match=message):
        make()
