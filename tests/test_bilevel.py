"""The alternating training of super-networks: what moves, by which gradient, on which images."""

import copy
import dataclasses
import io

import numpy as np
import pytest
import torch
from torch.nn import functional
from trainings import some

from optnas.config.settings import DataSettings, TrainSettings
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import DataError, Images, load_images
from optnas.objectives.data.splits import draw_shares
from optnas.objectives.networks.build import build_supernet
from optnas.objectives.training.bilevel import BilevelTrainer, SearchRecipe
from optnas.objectives.training.hessian import hessian_eigenvalue
from optnas.spaces import CellSpace, NasBench201Space

SPACE = CellSpace(nodes=2)
# So small a step that no weight in float32 is moved by it.
STILL = 1e-30
MIXED = ("skip_connect", "sep_conv_3x3", "avg_pool_3x3")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits() -> Images:
    return load_images(DataSettings(name="digits"), seed=0)


@pytest.fixture(scope="module")
def few(digits) -> Images:
    """Some of the digits, with every augmentation."""
    return some(digits, 150, 40, augmentation=Augmentation(padding=1, flip=True, cutout=2))


def trainer(
    images: Images,
    *,
    space=SPACE,
    network: dict | None = None,
    recipe: dict | None = None,
    epochs: int = 2,
    seed: int = 0,
    **train,
) -> BilevelTrainer:
    options = {"cells": 3, "channels": 4, **(network or {})}
    generator = torch.Generator().manual_seed(seed)
    model = build_supernet(space, images.input_shape, images.classes, generator, **options)
    settings = TrainSettings(**{"batch_size": 32, **train})
    search = SearchRecipe(**(recipe or {}))
    return BilevelTrainer(model, images, settings, search, epochs=epochs, seed=seed)


def architecture(subject: BilevelTrainer) -> torch.Tensor:
    """All architecture parameters in one vector, a copy."""
    parts = subject.model.architecture_parameters()
    return torch.cat([part.detach().flatten() for part in parts]).clone()


def weights(subject: BilevelTrainer) -> torch.Tensor:
    parts = subject.model.weight_parameters()
    return torch.cat([part.detach().flatten() for part in parts]).clone()


def muddled(images: Images, share: torch.Tensor) -> Images:
    """The images of a share with the labels of others of it: their statistics stay the same."""
    mixed = images.train_images.clone()
    mixed[share] = mixed[share.roll(1)]
    return dataclasses.replace(images, train_images=mixed)


def test_an_epoch_moves_both_and_learns(digits):
    subject = trainer(digits, epochs=2, network={"channels": 8}, lr=0.1)
    before = architecture(subject), weights(subject)
    first, last = subject.train_epoch(), subject.train_epoch()
    assert not torch.equal(architecture(subject), before[0])
    assert not torch.equal(weights(subject), before[1])
    assert last.train_loss < first.train_loss
    assert last.validation_accuracy > 0.3
    assert 0 < last.train_accuracy <= 1


def test_in_a_warm_up_the_weights_learn_alone(few):
    subject = trainer(few, recipe={"warmup_epochs": 1}, network={"partial": 2})
    before = architecture(subject), weights(subject)
    subject.train_epoch()
    assert torch.equal(architecture(subject), before[0])
    assert not torch.equal(weights(subject), before[1])
    subject.train_epoch()
    assert not torch.equal(architecture(subject), before[0])
    with pytest.raises(ValueError, match="`warmup_epochs` must not be negative"):
        SearchRecipe(warmup_epochs=-1)


def test_the_architecture_learns_from_its_own_share_alone(few):
    still = {"lr": STILL, "weight_decay": 0.0}
    subject = trainer(few, **still)
    mine, others = subject._architecture_share, subject._weight_share
    subject.train_epoch()
    muddles = {"weights": muddled(few, others), "architecture": muddled(few, mine)}
    found = {}
    for name, images in muddles.items():
        other = trainer(images, **still)
        other.train_epoch()
        found[name] = torch.equal(architecture(other), architecture(subject))
    assert found == {"weights": True, "architecture": False}


def test_the_weights_learn_from_their_own_share_alone(few):
    still = {"recipe": {"lr": STILL, "weight_decay": 0.0}}
    subject = trainer(few, **still)
    mine, others = subject._weight_share, subject._architecture_share
    subject.train_epoch()
    muddles = {"weights": muddled(few, mine), "architecture": muddled(few, others)}
    found = {}
    for name, images in muddles.items():
        other = trainer(images, **still)
        other.train_epoch()
        found[name] = torch.equal(weights(other), weights(subject))
    assert found == {"weights": False, "architecture": True}


def test_the_validation_split_only_judges(few):
    fooled = dataclasses.replace(few, validation_labels=0 * few.validation_labels)
    subject, other = trainer(few), trainer(fooled)
    for each in (subject, other):
        each.train_epoch()
    assert torch.equal(architecture(subject), architecture(other))
    assert torch.equal(weights(subject), weights(other))
    judged = other.evaluate(few.validation_images, few.validation_labels)
    assert judged == subject.history[0].validation_accuracy


@pytest.mark.parametrize("second_order", [False, True])
def test_equal_seeds_are_equal_and_an_interrupted_search_goes_on(few, second_order):
    recipe = {"second_order": second_order, "eigenvalue": not second_order}
    whole, again = (trainer(few, recipe=recipe) for _ in range(2))
    for each in (whole, again):
        each.train_epoch()
    buffer = io.BytesIO()
    torch.save(again.state_dict(), buffer)
    buffer.seek(0)
    resumed = trainer(few, recipe=recipe)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for each in (whole, resumed):
        each.train_epoch()
    assert torch.equal(architecture(whole), architecture(resumed))
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.history == resumed.history
    assert whole.eigenvalues == resumed.eigenvalues
    assert len(whole.eigenvalues) == (0 if second_order else 2)
    assert whole.model.edge_weights() == resumed.model.edge_weights()
    finished = whole.state_dict()
    assert finished["optimizer"] is None
    assert finished["architecture_optimizer"] is None
    other = trainer(few, recipe=recipe, seed=1)
    other.train_epoch()
    assert not torch.equal(architecture(other), architecture(again))


@pytest.mark.parametrize("network", [{}, {"operations": MIXED}])
def test_the_first_step_of_adam_is_as_long_as_the_learning_rate(few, network):
    recipe = {"iterations": 1, "weight_decay": 0.0, "lr": 6e-4}
    subject = trainer(few, network=network, recipe=recipe)
    before = architecture(subject)
    subject.train_epoch()
    moved = (architecture(subject) - before).abs()
    assert torch.allclose(moved, torch.full_like(moved, 6e-4), rtol=0.02)


@pytest.mark.parametrize(("iterations", "steps"), [(None, 3), (1, 1), (2, 2), (3, 3), (7, 7)])
def test_an_epoch_is_a_pass_or_so_many_iterations(few, iterations, steps):
    subject = trainer(few, recipe={"iterations": iterations, "architecture_share": 0.2})
    sizes = []
    subject.model.register_forward_pre_hook(
        lambda model, args: sizes.append(len(args[0])) if model.training else None
    )
    subject.train_epoch()
    # Of 75 images for the weights and of 30 for the architecture, in turn.
    passes = [32, 32, 11] * 3
    assert sizes == [size for weight in passes[:steps] for size in (30, weight)]
    assert subject._optimizer.state[subject._parameters[0]]["momentum_buffer"] is not None


def test_the_recipe_of_the_weights_decides_their_rate(few):
    subject = trainer(few, epochs=2, lr=0.1)
    rates = []
    for _ in range(2):
        subject.train_epoch()
        rates.append(subject._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.05])
    assert subject._architecture_optimizer.param_groups[0]["lr"] == 6e-4


def second_order_trainer(few, parts: int = 1) -> BilevelTrainer:
    """A trainer in float64 in the middle of its search, with a momentum."""
    subject = trainer(
        few,
        network={"operations": MIXED, "partial": 2},
        recipe={"second_order": True},
        lr=0.1,
        weight_decay=0.01,
        momentum=0.7,
    )
    subject.model.double()
    subject.accumulation = parts
    generator = torch.Generator().manual_seed(1)
    for parameter in subject._parameters:
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        subject._optimizer.state[parameter]["momentum_buffer"] = 0.01 * noise
        parameter.grad = noise  # of the step before
    return subject


@pytest.mark.parametrize("parts", [1, 2])
def test_the_second_order_is_the_gradient_after_a_step_of_the_weights(few, parts):
    subject = second_order_trainer(few, parts)
    model, rate = subject.model, 0.1
    generator = torch.Generator().manual_seed(2)
    shape = (8, *few.input_shape)
    batches = [
        (torch.randn(shape, generator=generator, dtype=torch.float64), torch.arange(8) % k)
        for k in (4, 3)
    ]

    def mean_loss(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # Batch normalisation sees the parts.
        size = len(inputs) // parts
        losses = [
            functional.cross_entropy(model(x), y)
            for x, y in zip(inputs.split(size), labels.split(size), strict=True)
        ]
        return torch.stack(losses).mean()

    def ahead() -> float:
        """The loss on the second batch after a step of SGD on the first, on a copy."""
        saved = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD(subject._parameters, rate, momentum=0.7, weight_decay=0.01)
        for parameter in subject._parameters:
            buffer = subject._optimizer.state[parameter]["momentum_buffer"]
            optimizer.state[parameter]["momentum_buffer"] = buffer.clone()
        optimizer.zero_grad()
        mean_loss(*batches[0]).backward(inputs=subject._parameters)
        optimizer.step()
        value = mean_loss(*batches[1]).item()
        optimizer.zero_grad()
        model.load_state_dict(saved)
        return value

    before = weights(subject)
    subject._unrolled_backward(batches[0], batches[1])
    gradients = [p.grad.clone() for p in model.architecture_parameters()]
    assert torch.equal(weights(subject), before)
    assert all(p.grad is None for p in subject._parameters)
    first_order = torch.autograd.grad(mean_loss(*batches[1]), model.architecture_parameters())
    assert not torch.allclose(gradients[0], first_order[0], rtol=0.01)
    # Small, as gradients of the weights jump where a ReLU switches.
    step = 1e-7
    for parameter, gradient in zip(model.architecture_parameters(), gradients, strict=True):
        flat = parameter.data.view(-1)
        for index in range(0, len(flat), 4):
            flat[index] += step
            above = ahead()
            flat[index] -= 2 * step
            below = ahead()
            flat[index] += step
            numeric = (above - below) / (2 * step)
            assert gradient.view(-1)[index].item() == pytest.approx(numeric, rel=1e-4, abs=1e-8)


def test_the_second_order_leads_elsewhere(few):
    betas = []
    for second_order in (False, True):
        subject = trainer(few, recipe={"second_order": second_order}, lr=0.5)
        subject.train_epoch()
        betas.append(architecture(subject))
    assert not torch.allclose(*betas, rtol=1e-3, atol=0)


def test_nodes_without_successors_do_not_disturb(few):
    # The second node of NAS-Bench-201 is left without anyone who takes it.
    subject = trainer(
        few,
        space=NasBench201Space(),
        network={
            "topology": {"cell": ((0,), (0, 1), (0, 1))},
            "operations": ("nor_conv_1x1", "skip_connect"),
        },
        recipe={"second_order": True, "eigenvalue": True, "iterations": 2},
    )
    subject.train_epoch()
    assert np.isfinite(subject.eigenvalues).all()
    assert torch.isfinite(architecture(subject)).all()


def bent_network(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    model = build_supernet(SPACE, (1, 8, 8), 3, generator, cells=2, channels=4).double()
    inputs = torch.randn(6, 1, 8, 8, generator=generator, dtype=torch.float64)
    return model, inputs, torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("seed", range(6))
def test_the_eigenvalue_is_the_largest_of_the_whole_hessian(seed):
    model, inputs, labels = bent_network(seed)
    parameters = model.architecture_parameters()
    statistics = [buffer.clone() for buffer in model.buffers()]
    found = hessian_eigenvalue(
        model, inputs, labels, torch.Generator().manual_seed(0), iterations=500, tolerance=1e-9
    )
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), statistics, strict=True))
    assert all(p.grad is None for p in model.parameters())
    loss = functional.cross_entropy(model(inputs), labels)
    first = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    gradient = torch.cat([part.flatten() for part in first])
    rows = [
        torch.cat(
            [
                row.flatten()
                for row in torch.autograd.grad(
                    value, parameters, retain_graph=True, materialize_grads=True
                )
            ]
        )
        for value in gradient
    ]
    eigenvalues = torch.linalg.eigvalsh(torch.stack(rows))
    assert found == pytest.approx(eigenvalues[-1].item(), rel=1e-3, abs=1e-9)


def test_the_eigenvalue_is_measured_on_request_and_changes_nothing(few):
    plain, measured = trainer(few), trainer(few, recipe={"eigenvalue": True})
    for each in (plain, measured):
        each.train_epoch()
        each.train_epoch()
    assert torch.equal(architecture(plain), architecture(measured))
    assert torch.equal(weights(plain), weights(measured))
    assert plain.history == measured.history
    assert plain.eigenvalues == []
    assert len(measured.eigenvalues) == 2
    assert measured.history[-1].seconds > 0


@pytest.mark.parametrize(
    ("fractions", "sizes"),
    [((0.5, 0.5), (75, 75)), ((0.1, 0.2), (15, 30)), ((0.7, 0.3), (105, 45))],
)
def test_shares_are_disjoint_and_have_every_class(few, fractions, sizes):
    labels = few.train_labels
    first, second = draw_shares(labels, fractions, seed=3)
    assert (len(first), len(second)) == sizes
    assert not set(first.tolist()) & set(second.tolist())
    everything = labels.bincount(minlength=10)
    for share in (first, second):
        expected = everything * len(share) / len(labels)
        # Two roundings, one after the other.
        assert (labels[share].bincount(minlength=10) - expected).abs().max() < 2
    assert torch.equal(draw_shares(labels, fractions, seed=3)[0], first)
    assert not torch.equal(draw_shares(labels, fractions, seed=4)[0], first)


@pytest.mark.parametrize("count", [20, 21, 22, 23, 103])
def test_two_halves_are_everything(count):
    labels = torch.arange(count) % 5
    first, second = draw_shares(labels, (0.5, 0.5), seed=0)
    assert sorted(torch.cat((first, second)).tolist()) == list(range(count))
    assert abs(len(first) - len(second)) <= 1


def test_shares_that_are_too_small_are_refused(few):
    with pytest.raises(DataError, match="every class"):
        trainer(few, recipe={"architecture_share": 0.02})


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"iterations": 0}, "iterations"),
        ({"weight_share": 0.0}, "weight_share"),
        ({"architecture_share": 0.6}, "together at most 1"),
        ({"weight_share": float("nan")}, "weight_share"),
        ({"lr": 0.0}, "lr"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_impossible_recipes_are_refused(recipe, message):
    with pytest.raises(ValueError, match=message):
        SearchRecipe(**recipe)


def test_the_second_order_needs_sgd(few):
    with pytest.raises(ValueError, match="optimizer: sgd"):
        trainer(few, recipe={"second_order": True}, optimizer="adamw")
