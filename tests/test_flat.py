"""Parameters side by side, and channels filled up: what is learnt stays what it was."""

import collections
import dataclasses
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from trainings import difference, same, some, train

from optnas.config.settings import DataSettings, TrainSettings
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.inheritance.adapters import inherit
from optnas.objectives.networks.build import build_model
from optnas.objectives.networks.costs import count_params, forward_costs
from optnas.objectives.training import steps
from optnas.objectives.training.alignment import aligned_shapes
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.flat import FlatParameters
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import CellSpace, ChainArchitecture, StageArchitecture

pytestmark = pytest.mark.usefixtures("one_thread")

ODD = ChainArchitecture(4, 11, ("separable", "conv", "separable", "separable"), (3, 5, 3, 3))
EVEN = dataclasses.replace(ODD, width=8)
RECIPES = [
    {},
    {"momentum": 0.0, "clip": None},
    {"nesterov": True, "decay_norms": False, "decay_biases": False},
]


@pytest.fixture(scope="module")
def digits() -> Images:
    found = load_images(DataSettings(name="digits", validation=45), seed=0)
    return some(found, 70, augmentation=Augmentation(padding=1, flip=True))


@pytest.fixture(autouse=True)
def accelerated(monkeypatch) -> None:
    """As if the CPU were a GPU that optnas computes on in its own ways."""
    monkeypatch.setattr(steps, "is_accelerated", lambda settings, device: True)


@pytest.fixture
def plainly(monkeypatch):
    """Has a training keep its parameters as they are."""

    def make(*args, **keys) -> Trainer:
        subject = trainer(*args, **keys)
        subject._flattened = lambda: None
        return subject

    return make


def network(architecture, images: Images, **options) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return build_model(architecture, images.input_shape, images.classes, generator, **options)


def trainer(images: Images, architecture=EVEN, *, epochs: int = 6, **keys) -> Trainer:
    recipe = TrainSettings(**{"batch_size": 16, **keys})
    return Trainer(network(architecture, images), images, recipe, epochs=epochs, seed=0)


def assert_close(own: Trainer, expected: Trainer, **tolerances: float) -> None:
    states = own.model.state_dict(), expected.model.state_dict()
    assert list(states[0]) == list(states[1])
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], **tolerances)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("keys", RECIPES)
def test_a_step_for_all_is_the_step_of_each(digits, plainly, keys, precision):
    flat = train(trainer(digits, precision=precision, **keys), 3)
    plain = train(plainly(digits, precision=precision, **keys), 3)
    assert isinstance(flat._flat, FlatParameters)
    if keys.get("clip", 5.0) is None:
        assert difference(flat, plain) == ""
    else:  # The norm of all is summed up in another order.
        assert_close(flat, plain, rtol=1e-3, atol=1e-4)
    unclipped = [
        train(make(digits, precision=precision, **{**keys, "clip": None}), 1)
        for make in (trainer, plainly)
    ]
    assert difference(*unclipped) == ""


class Operations(TorchDispatchMode):
    """Counts the operations inside, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.counts[operation.__name__.partition(".")[0]] += 1
        return operation(*args, **(kwargs or {}))


def test_parameters_take_as_many_operations_however_many_there_are(digits):
    counts = []
    for depth in (2, 5):
        subject = trainer(digits, ChainArchitecture(depth, 7), precision="bfloat16")
        inputs, labels = next(iter(subject._chunks()))
        for _ in range(2):
            with Operations() as found:
                subject._train_batch(inputs[:16], labels[:16])
        counts.append(found.counts)
    few, many = counts
    assert few["convolution"] < many["convolution"]
    # Of the images, of the mean's two ends and of its gradient.
    assert few["_to_copy"] == many["_to_copy"] <= 4
    assert few["_foreach_copy_"] == many["_foreach_copy_"] == 2  # Of bfloat16 and of float32.
    for name in ("copy_", "linalg_vector_norm", "mul_", "_fused_sgd_"):
        assert few[name] == many[name] == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_aligned_channels_learn_the_same(digits, plainly, precision):
    subject = train(trainer(digits, ODD, precision=precision), 1)
    plain = train(plainly(digits, ODD, precision=precision), 1)
    assert aligned_shapes(subject.model)
    loose = precision == "bfloat16"
    if loose:
        copies = subject._flat._copies
        used = sum(p.own(copies).count_nonzero() for p in subject._flat._places)
        assert copies.count_nonzero() == used > 0
    assert_close(subject, plain, rtol=1e-2, atol=5e-2 if loose else 1e-4)
    assert subject.history[0].train_loss == pytest.approx(
        plain.history[0].train_loss, rel=3e-2 if loose else 1e-4
    )


def test_one_aligned_gradient_is_that_of_the_network(digits):
    inputs = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    inputs, labels = inputs.contiguous(memory_format=torch.channels_last), torch.arange(16) % 10
    subject, plain = trainer(digits, ODD, precision="float32"), trainer(digits, ODD)
    subject._flattened()
    (logits,), (expected,) = (s._backward(inputs, labels) for s in (subject, plain))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    flat = subject._flat
    found = {id(p.parameter): leaf for p, leaf in zip(flat._places, flat._leaves, strict=True)}
    for own, other in zip(subject.model.parameters(), plain.model.parameters(), strict=True):
        gradient = found[id(own)].grad
        true = gradient[tuple(map(slice, own.shape))]
        torch.testing.assert_close(true, other.grad, rtol=1e-3, atol=1e-5)
        assert gradient.count_nonzero() == true.count_nonzero()


def test_what_fills_channels_up_is_zero_after_two_hundred_steps(digits):
    subject = train(trainer(digits, ODD, epochs=40, lr=0.2), 40)
    flat = subject._flat
    assert sum(result.train_loss > 0 for result in subject.history) == 40
    norms = [part for part in subject.model.modules() if isinstance(part, nn.BatchNorm2d)]
    widths = [len(norm.running_var) for norm in norms]
    filled = 0
    for buffer in (flat._values, flat._gradients, flat._momentum):
        for place in flat._places:
            whole, own = place.computed(buffer), place.own(buffer)
            assert own.count_nonzero() == whole.count_nonzero()
            filled += whole.numel() - own.numel()
        assert buffer.count_nonzero() == sum(
            place.own(buffer).count_nonzero() for place in flat._places
        )
    with flat.lent():
        for norm, width in zip(norms, widths, strict=True):
            assert len(norm.running_var) % 8 == 0
            assert norm.running_var[:width].all()
            assert not norm.running_var[width:].any()
            assert not norm.running_mean[width:].any()
    assert filled > 4000


def test_counts_states_and_children_know_the_true_width(digits):
    subject = train(trainer(digits, ODD), 2)
    fresh = network(ODD, digits)
    assert count_params(subject.model) == count_params(fresh)
    assert forward_costs(subject.model, (1, 8, 8)) == forward_costs(fresh, (1, 8, 8))
    state = subject.state_dict()
    for name, tensor in fresh.state_dict().items():
        assert state["model"][name].shape == tensor.shape
    for tensor in (*state["model"].values(), *_momenta(state)):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
    assert inherit(fresh, state["model"], ODD, ODD) == len(fresh.state_dict())
    narrower = dataclasses.replace(ODD, width=9)
    assert inherit(network(narrower, digits), state["model"], ODD, narrower) > 20


def _momenta(state) -> list[torch.Tensor]:
    return [kept["momentum_buffer"] for kept in state["optimizer"]["state"].values()]


def test_a_state_goes_on_with_and_without(digits, plainly):
    begun, plain = train(trainer(digits, ODD), 2), train(plainly(digits, ODD), 2)
    states = [subject.state_dict() for subject in (begun, plain)]
    for a, b in zip(_momenta(states[0]), _momenta(states[1]), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    buffer = io.BytesIO()
    torch.save(states[0], buffer)
    kept = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    resumed, other = train(trainer(digits, ODD), 1), plainly(digits, ODD)
    for subject in (resumed, other):
        subject.load_state_dict(kept)
    assert same(train(resumed, 2), train(begun, 2))
    assert_close(train(other, 2), begun, rtol=1e-1, atol=1e-1)


def test_what_starts_from_a_parent_computes_with_its_weights(digits):
    parent, child = train(trainer(digits, ODD), 3), trainer(digits, ODD)
    child._flattened()
    inherit(child.model, parent.state_dict()["model"], ODD, ODD)
    images, labels = digits.validation_images, digits.validation_labels
    assert child.evaluate(images, labels) == parent.evaluate(images, labels)


class Half(nn.Module):
    """A network a part of which takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.idle = nn.Linear(64, 16), nn.Linear(16, 16)
        self.last = nn.Linear(16, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(images.flatten(1)))


def test_what_has_no_gradient_stays(digits, plainly):
    found = []
    for flattens in (True, False):
        torch.manual_seed(0)
        recipe = TrainSettings(batch_size=16, clip=None)
        subject = Trainer(Half(), digits, recipe, epochs=3, seed=0)
        if not flattens:
            subject._flattened = lambda: None
        before = subject.model.idle.weight.clone()
        found.append(train(subject, 2))
        assert torch.equal(subject.model.idle.weight, before)
    assert difference(*found) == ""


def test_the_average_is_that_of_the_weights(digits, plainly):
    subject, plain = (train(make(digits, ema=0.5, clip=None), 2) for make in (trainer, plainly))
    for own, expected in zip(
        subject.judged.state_dict().values(), plain.judged.state_dict().values(), strict=True
    ):
        assert torch.equal(own, expected)
    train(trainer(digits, ODD, ema=0.5), 1)


def test_a_training_in_parts_keeps_its_parameters_as_they_are(digits):
    subject = train(trainer(digits, ODD), 1)
    state = subject.state_dict()
    subject.accumulation = 2
    subject.load_state_dict(state)
    fresh = trainer(digits, ODD)
    fresh.accumulation = 2
    fresh.load_state_dict(state)
    assert same(train(subject, 1), train(fresh, 1))
    assert subject._flat is None
    assert all(
        p.is_contiguous(memory_format=torch.channels_last) or p.ndim < 4
        for p in subject.model.parameters()
    )


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        (EVEN, {}),
        (CellSpace(nodes=2).random(np.random.default_rng(0)), {"cells": 3, "channels": 5}),
        (StageArchitecture((1, 1, 1)), {}),
    ],
    ids=["even chain", "cells", "stages"],
)
def test_channels_that_are_joined_are_left_as_they_are(digits, architecture, options):
    assert not aligned_shapes(network(architecture, digits, **options))


def test_over_five_seeds_accuracies_are_equivalent(monkeypatch):
    """Two one-sided t tests on pairs: the interval of their mean difference lies within 0.01."""
    whole = load_images(DataSettings(name="digits"), seed=0)
    differences = []
    for seed in range(5):
        pair = []
        for accelerates in (True, False):
            monkeypatch.setattr(steps, "is_accelerated", lambda *_, yes=accelerates: yes)
            generator = torch.Generator().manual_seed(seed)
            model = build_model(ChainArchitecture(3, 11), (1, 8, 8), 10, generator)
            subject = train(Trainer(model, whole, TrainSettings(), epochs=5, seed=seed), 5)
            assert (subject._flat is not None) == accelerates
            pair.append(subject.history[-1].validation_accuracy)
        assert min(pair) > 0.6
        differences.append(pair[0] - pair[1])
    spread = 2.132 * np.std(differences, ddof=1) / 5**0.5  # The t of 95 %, one-sided.
    assert abs(np.mean(differences)) + spread < 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_comes_to_the_same_and_resumes_bitwise(digits, monkeypatch):
    images = digits.to("cuda")
    with deterministic_algorithms(True):
        subject, plain = trainer(images, ODD, epochs=12), trainer(images, ODD, epochs=12)
        plain._flattened = lambda: None
        train(subject, 8), train(plain, 8)
        assert subject._staged._graph.is_captured
        assert subject.history[0].train_loss == pytest.approx(
            plain.history[0].train_loss, rel=0.05
        )
        resumed = trainer(images, ODD, epochs=12)
        resumed.load_state_dict(train(trainer(images, ODD, epochs=12), 4).state_dict())
        assert difference(train(resumed, 4), subject) == ""
    for place in subject._flat._places:
        for buffer in (subject._flat._values, subject._flat._momentum):
            assert place.own(buffer).count_nonzero() == place.computed(buffer).count_nonzero()
