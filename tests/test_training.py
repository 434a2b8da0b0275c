"""The training loop: what it learns, and that it can be repeated and interrupted."""

import dataclasses
import math
import os
import threading

import pytest
import torch
from torch import nn
from trainings import same, some, train

from optnas.config.settings import DataSettings, TrainSettings
from optnas.objectives.data import batches
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.networks.build import build_model
from optnas.objectives.training import trainer as training
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.trainer import (
    NonFiniteLoss,
    Trainer,
    learning_rate,
)
from optnas.spaces import ChainArchitecture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits() -> Images:
    return load_images(DataSettings(name="digits"), seed=0)


@pytest.fixture(scope="module")
def few(digits) -> Images:
    """A tenth of the digits with every augmentation, for what is not about learning."""
    return some(digits, 130, 40, augmentation=Augmentation(padding=1, flip=True, cutout=2))


def trainer(images: Images, *, seed: int = 0, epochs: int = 4, **keys) -> Trainer:
    model = build_model(
        ChainArchitecture(3, 8),
        images.input_shape,
        images.classes,
        torch.Generator().manual_seed(seed),
    )
    return Trainer(model, images, TrainSettings(**keys), epochs=epochs, seed=seed)


def test_a_small_chain_learns_digits(digits):
    subject = train(trainer(digits, epochs=6, lr=0.1), 6)
    assert subject.history[-1].validation_accuracy > 0.9
    assert subject.history[-1].train_loss < subject.history[0].train_loss
    assert subject.history[-1].train_accuracy > subject.history[0].train_accuracy
    assert subject.evaluate(digits.test_images, digits.test_labels) > 0.85
    validation = subject.evaluate(digits.validation_images, digits.validation_labels)
    assert validation == subject.history[-1].validation_accuracy


@pytest.mark.parametrize("keys", [{}, {"optimizer": "adamw", "lr": 0.002}, {"clip": None}])
def test_equal_seeds_give_bitwise_equal_runs(few, keys):
    first, again = (train(trainer(few, **keys), 2) for _ in range(2))
    assert same(first, again)
    assert not same(first, train(trainer(few, seed=1, **keys), 2))


@pytest.mark.parametrize(
    "keys", [{}, {"optimizer": "adamw", "lr": 0.002}, {"momentum": 0.0}, {"precision": "bfloat16"}]
)
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_saved_and_resumed_is_bitwise_undisturbed(few, tmp_path, keys, stop):
    undisturbed = train(trainer(few, **keys), 4)
    torch.save(train(trainer(few, **keys), stop).state_dict(), tmp_path / "state.pt")
    resumed = trainer(few, seed=0, **keys)
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            parameter.zero_()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.epoch == stop
    assert same(train(resumed, 4 - stop), undisturbed)


def test_a_state_taken_over_in_memory_is_not_shared(few):
    first = train(trainer(few), 1)
    second = trainer(few)
    second.load_state_dict(first.state_dict())
    train(first, 1)
    train(second, 1)
    assert same(first, second)


def test_runs_in_threads_do_not_disturb_each_other_nor_the_global_generator(few):
    expected = [train(trainer(few, seed=seed), 2) for seed in range(3)]
    before = torch.random.get_rng_state()
    found: list[Trainer] = [trainer(few, seed=seed) for seed in range(3)]
    threads = [threading.Thread(target=train, args=(subject, 2)) for subject in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_size_of_the_pieces_does_not_matter(few, monkeypatch):
    whole = train(trainer(few, batch_size=32), 2)
    monkeypatch.setattr(batches, "CHUNK_BYTES", 1)
    pieces = train(trainer(few, batch_size=32), 2)
    for a, b in zip(whole.model.parameters(), pieces.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert pieces.history[-1].train_accuracy == whole.history[-1].train_accuracy
    assert pieces.history[-1].train_loss == pytest.approx(whole.history[-1].train_loss)


def test_cosine_is_stepped_after_the_epoch():
    recipe = TrainSettings(lr=0.025)
    assert [learning_rate(recipe, e, 2) for e in range(2)] == pytest.approx([0.025, 0.0125])
    assert learning_rate(recipe, 3, 10) == 0.025 * (1 + math.cos(math.pi * 0.3)) / 2
    assert learning_rate(TrainSettings(lr=0.1, schedule="constant"), 7, 10) == 0.1


def test_every_cycle_begins_anew():
    recipe = TrainSettings(lr=0.025, cycles=2)
    rates = [learning_rate(recipe, epoch, 160) for epoch in range(160)]
    assert rates[0] == rates[80] == 0.025
    assert 0 < rates[79] == rates[159] < 1e-5
    assert rates[:80] == rates[80:]
    assert rates[:80] == [learning_rate(TrainSettings(lr=0.025), e, 80) for e in range(80)]


def test_cycles_are_trained_and_resumed(few):
    undisturbed, rates = trainer(few, cycles=2), []
    for _ in range(4):
        undisturbed.train_epoch()
        rates.append(undisturbed._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.025, 0.0125, 0.025, 0.0125])
    first = train(trainer(few, cycles=2), 3)
    second = trainer(few, cycles=2)
    second.load_state_dict(first.state_dict())
    assert same(train(second, 1), undisturbed)
    assert not same(undisturbed, train(trainer(few), 4))


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ({"cycles": 3}, "`cycles` must divide the 4 epochs: 3"),
        ({"cycles": 8}, "`cycles` must divide the 4 epochs: 8"),
        ({"cycles": 2, "schedule": "constant"}, "`cycles` are for the cosine schedule"),
    ],
)
def test_cycles_that_cannot_be_are_refused(few, keys, rule):
    with pytest.raises(ValueError, match=rule):
        trainer(few, **keys)


class Recorder(nn.Module):
    """A linear network that remembers what it was shown."""

    def __init__(self, classes: int, pixels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, classes)
        self.seen: list[torch.Tensor] = []

    def forward(self, images):
        if self.training:
            self.seen.append(images.detach().clone())
        return self.linear(images.flatten(1))


def test_every_epoch_shows_each_image_once_in_a_new_order(few):
    plain = dataclasses.replace(few, augmentation=Augmentation())
    model = Recorder(10, 64)
    subject = Trainer(model, plain, TrainSettings(batch_size=50), epochs=2, seed=0)
    orders = []
    for _ in range(2):
        model.seen.clear()
        subject.train_epoch()
        assert [len(batch) for batch in model.seen] == [50, 50, 30]
        orders.append(torch.cat(model.seen))
    assert not torch.equal(orders[0], orders[1])
    keys = [sorted(image.numpy().tobytes() for image in order) for order in orders]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 130


def test_one_step_is_the_textbook_one(few):
    plain = dataclasses.replace(few, augmentation=Augmentation())
    model = Recorder(10, 64)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    recipe = TrainSettings(batch_size=130, lr=0.5, momentum=0.9, weight_decay=0.01, clip=0.1)
    subject = Trainer(model, plain, recipe, epochs=1, seed=0)
    result = subject.train_epoch()
    weight, bias = (x.double().requires_grad_() for x in before)
    inputs = model.seen[0].flatten(1).double()
    order = torch.randperm(130, generator=torch.Generator().manual_seed(0))
    loss = nn.functional.cross_entropy(inputs @ weight.T + bias, plain.train_labels[order])
    gradients = torch.autograd.grad(loss, (weight, bias))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > 0.1
    for new, old, gradient in zip(model.parameters(), (weight, bias), gradients, strict=True):
        expected = old - 0.5 * (gradient * 0.1 / norm + 0.01 * old)
        assert torch.allclose(new.double(), expected, atol=1e-6)
    assert result.train_loss == pytest.approx(loss.item(), rel=1e-5)


def test_evaluation_does_not_depend_on_the_batch(few, monkeypatch):
    subject = train(trainer(few), 1)
    whole = subject.evaluate(few.validation_images, few.validation_labels)
    monkeypatch.setattr(training, "EVALUATION_IMAGES", 7)
    subject.settings = TrainSettings(batch_size=1)
    assert subject.evaluate(few.validation_images, few.validation_labels) == whole


def test_without_validation_there_is_no_validation_accuracy(few):
    final = few.with_validation_in_training()
    assert trainer(final).train_epoch().validation_accuracy is None


def test_a_lone_image_at_the_end_is_trained_on(few):
    one_more = dataclasses.replace(
        few, train_images=few.train_images[:65], train_labels=few.train_labels[:65]
    )
    assert 0 <= trainer(one_more).train_epoch().train_accuracy <= 1


def test_a_loss_that_is_not_finite_stops_the_training(few):
    subject = trainer(few)
    subject.train_epoch()
    with torch.no_grad():
        subject.model.classifier.bias.fill_(math.inf)
    with pytest.raises(NonFiniteLoss, match="epoch 2"):
        subject.train_epoch()
    assert subject.epoch == 1


def test_weights_that_break_in_the_last_step_are_noticed(few):
    subject = trainer(few, lr=1e38, clip=None, batch_size=130)
    with pytest.raises(NonFiniteLoss, match="epoch 1"):
        subject.train_epoch()


def test_bfloat16_is_used_on_request_only(few):
    seen = []
    for precision in ("auto", "float32", "bfloat16"):
        subject = trainer(few, precision=precision)
        subject.model.classifier.register_forward_hook(
            lambda module, inputs, output: seen.append(output.dtype)
        )
        subject.train_epoch()
    assert set(seen[: len(seen) // 3 * 2]) == {torch.float32}
    assert set(seen[len(seen) // 3 * 2 :]) == {torch.bfloat16}


def test_enlarged_crops_train_and_evaluate(few):
    enlarged = dataclasses.replace(few, augmentation=Augmentation(padding=2, size=10))
    assert trainer(enlarged).train_epoch().validation_accuracy is not None


def test_bad_arguments_are_refused(few):
    with pytest.raises(ValueError, match="`epochs` must be greater"):
        trainer(few, epochs=0)
    single = dataclasses.replace(few, train_images=few.train_images[:1])
    with pytest.raises(ValueError, match="at least two images"):
        trainer(single)


def test_deterministic_algorithms_are_on_inside_only(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_training_works_with_deterministic_algorithms(few):
    with deterministic_algorithms(True):
        strict = train(trainer(few), 1)
    assert same(strict, train(trainer(few), 1))
