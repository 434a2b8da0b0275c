"""Batches filled up to one size: what is learnt from them is what is learnt without."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from trainings import StandIn, graph_of, same, some, train

from optnas.config.settings import DataSettings, TrainSettings
from optnas.devices.ranks import Ranks
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.batches import augmented_chunks, batch_bounds
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.faces.images import FaceImages
from optnas.objectives.faces.trainer import FaceRecipe, FaceTrainer
from optnas.objectives.networks.build import build_model
from optnas.objectives.training import acceleration, cuda_graphs, padding, steps
from optnas.objectives.training import trainer as trainers
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.distributed import DistributedTrainer
from optnas.objectives.training.synchronised import SynchronisedBatchNorm2d
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import (
    CellSpace,
    ChainArchitecture,
    FaceArchitecture,
    GrowthSpace,
    NasBench201Space,
    StageArchitecture,
)

pytestmark = pytest.mark.usefixtures("one_thread")

GROWTH = GrowthSpace(cells=3, channels=4)
NETWORKS = {
    "chain": (ChainArchitecture(3, 7, ("separable", "conv", "separable"), (3, 5, 3)), {}),
    "cell": (
        CellSpace(nodes=2).random(np.random.default_rng(0)),
        {"cells": 3, "channels": 4, "auxiliary": True},
    ),
    "nasbench201": (
        NasBench201Space().random(np.random.default_rng(3)),
        {"cells": 3, "channels": 4},
    ),
    "growth": (GROWTH.grow(GROWTH.initial(), 0), {}),
    "basic": (StageArchitecture((1, 1, 1)), {}),
    "nasnet": (StageArchitecture((1, 1, 1), block="nasnet"), {}),
}


@pytest.fixture(scope="module")
def digits() -> Images:
    """70 images to learn from and 45 to judge by: batches of 16 leave 6, and 13."""
    found = load_images(DataSettings(name="digits", validation=45), seed=0)
    return some(found, 70, augmentation=Augmentation(padding=1, flip=True, cutout=2))


@pytest.fixture
def accelerated(monkeypatch) -> None:
    """As if the CPU were a GPU that optnas computes on in its own ways."""
    monkeypatch.setattr(steps, "is_accelerated", lambda settings, device: True)


@pytest.fixture
def staged(monkeypatch) -> None:
    """As if the CPU could capture, too."""
    graph_of.clear()
    monkeypatch.setattr(cuda_graphs, "are_supported", lambda device: True)
    monkeypatch.setattr(cuda_graphs, "StepGraph", StandIn)
    monkeypatch.setattr(cuda_graphs.StagedStep, "failure", None)


def network(name: str, images: Images) -> nn.Module:
    architecture, options = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    return build_model(architecture, images.input_shape, images.classes, generator, **options)


def trainer(images: Images, name: str = "chain", *, epochs: int = 12, **keys) -> Trainer:
    recipe = TrainSettings(**{"batch_size": 16, **keys})
    return Trainer(network(name, images), images, recipe, epochs=epochs, seed=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_filled_batch_teaches_what_its_images_teach(digits, name):
    auxiliary = 0.4 if name == "cell" else 0.0
    found = []
    for size in (6, 16):
        subject = trainer(digits, name, auxiliary=auxiliary)
        subject.model.train()
        images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        inputs = padding.filled(images.contiguous(memory_format=torch.channels_last), size)
        assert len(inputs) == size
        (logits,) = subject._backward(inputs, torch.arange(6))
        gradients = [p.grad for p in subject.model.parameters()]
        found.append([logits, *gradients, *subject.model.buffers()])
    assert len(found[0][0]) == 6
    for own, expected in zip(*reversed(found), strict=True):
        if expected is None:
            assert own is None
        else:
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)
    assert not any(part._forward_hooks for part in subject.model.modules())


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("name", ["chain", "cell"])
def test_a_training_on_filled_batches_comes_to_the_same(digits, monkeypatch, name):
    filled = trainer(digits, name, auxiliary=0.4 * (name == "cell"))
    filled._flattened = lambda: None
    train(filled, 2)
    monkeypatch.undo()
    plain = train(trainer(digits, name, auxiliary=0.4 * (name == "cell")), 2)
    assert not same(filled, plain)  # It was another computation.
    for own, expected in zip(filled.history, plain.history, strict=True):
        assert own.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert own.validation_accuracy == pytest.approx(expected.validation_accuracy, abs=0.03)
    state = plain.model.state_dict()
    for key, own in filled.model.state_dict().items():
        torch.testing.assert_close(own, state[key], rtol=1e-2, atol=1e-3)


@pytest.mark.usefixtures("accelerated")
def test_every_batch_has_one_size_and_counts_its_own_images(digits, monkeypatch):
    seen: set[int] = set()
    forward = nn.Conv2d.forward

    def watched(layer, images):
        seen.add(len(images))
        return forward(layer, images)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    subject = trainer(digits)
    result = subject.train_epoch()
    assert seen == {16}
    assert result.train_accuracy * 70 == pytest.approx(round(result.train_accuracy * 70))
    assert result.validation_accuracy * 45 == pytest.approx(round(result.validation_accuracy * 45))
    assert subject.evaluate(digits.test_images[:3], digits.test_labels[:3]) in (0, 1 / 3, 2 / 3, 1)


@pytest.mark.usefixtures("accelerated", "staged")
@pytest.mark.parametrize("keys", [{}, {"ema": 0.9, "mixup": 0.2}, {"optimizer": "adamw"}])
def test_the_last_batch_and_the_judgement_have_graphs_of_their_own(digits, keys):
    eager = train(trainer(digits, graphs=False, **keys), 12)
    assert not graph_of
    replayed = train(trainer(digits, **keys), 12)
    assert same(replayed, eager)
    assert replayed.eager_reason is None
    full, last, answer = graph_of
    assert last.beside is answer.beside is full
    assert full.calls == ["warm up"] * 3 + ["capture"] + ["replay"] * (12 * 4 - 3)
    assert last.calls == ["warm up", "capture"] + ["replay"] * 11
    assert answer.calls == ["warm up"] * 3 + ["capture"] + ["replay"] * (12 * 3 - 3)
    assert [len(graph._buffers[0]) for graph in graph_of] == [16] * 3


@pytest.mark.usefixtures("accelerated", "staged")
def test_what_is_resumed_captures_all_of_it_anew(digits):
    eager = train(trainer(digits, graphs=False, epochs=30), 22)
    begun = train(trainer(digits, epochs=30), 11)
    resumed = trainer(digits, epochs=30)
    resumed.load_state_dict(begun.state_dict())
    assert same(train(resumed, 11), eager)
    assert [graph.is_captured for graph in graph_of] == [True] * 6


@pytest.mark.usefixtures("accelerated", "staged")
def test_few_epochs_leave_the_last_batch_without_a_graph(digits):
    subject = train(trainer(digits, epochs=9), 9)
    assert subject.eager_reason is None
    assert subject._staged_last.eager_reason == "9 steps are too few to pay for a capture"


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("count", [12, 33])
def test_no_batch_is_filled_beyond_the_first(digits, count):
    images = dataclasses.replace(
        digits, train_images=digits.train_images[:count], train_labels=digits.train_labels[:count]
    )
    subject = trainer(images)
    assert subject._full == min(16, count)
    subject.train_epoch()


@pytest.mark.usefixtures("accelerated")
def test_large_images_are_judged_by_the_batch(digits, monkeypatch):
    monkeypatch.setattr(trainers, "EVALUATION_PIXELS", 1)
    images = dataclasses.replace(
        digits, train_images=digits.train_images[:17], train_labels=digits.train_labels[:17]
    )
    subject = trainer(images)
    assert (subject._full, subject._evaluated_at_once(images.validation_images)) == (17, 17)
    subject.train_epoch()


@pytest.mark.usefixtures("accelerated")
def test_what_is_compiled_and_what_is_taught_in_parts_is_not_filled(digits, monkeypatch):
    monkeypatch.setattr(padding, "filled", lambda *_: pytest.fail("a batch was filled"))
    subject = trainer(digits)
    subject.accumulation = 2
    subject.train_epoch()
    other = trainer(digits)
    other.model._compiled_call_impl = other.model._call_impl
    other.train_epoch()


@pytest.mark.usefixtures("accelerated")
def test_a_margin_counts_the_faces_alone(digits):
    none = digits.train_images[:0], digits.train_labels[:0]
    names = tuple(map(str, range(10)))
    recipe = Augmentation()
    images = FaceImages(digits.train_images, digits.train_labels, *none, *none, names, recipe)
    found = []
    for size in (6, 16):
        generator = torch.Generator().manual_seed(0)
        architecture = FaceArchitecture(3, (1, 1, 1, 1), 8)
        model = build_model(architecture, (1, 8, 8), 10, generator, dropout=0.0)
        subject = FaceTrainer(
            model, images, TrainSettings(), faces=FaceRecipe(), embedding=8, epochs=1, seed=0
        )
        inputs = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        logits, loss = subject._forward(padding.filled(inputs, size), torch.arange(6))
        found.append((logits, loss.detach(), *subject.margin.buffers()))
    for own, expected in zip(*found, strict=True):
        torch.testing.assert_close(own, expected)


def test_processes_that_train_together_have_kernels_of_torch_and_shares_as_they_are(
    digits, monkeypatch
):
    for module in (steps, acceleration):
        monkeypatch.setattr(
            module, "is_accelerated", lambda given, device: given.kernels == "auto"
        )
    monkeypatch.setattr(padding, "filled", lambda *_: pytest.fail("a batch was filled"))
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        recipe, model = TrainSettings(batch_size=16), network("chain", digits)
        options = {"epochs": 2, "seed": 0, "ranks": Ranks()}
        together = train(DistributedTrainer(model, digits, recipe, **options), 2)
    finally:
        torch.distributed.destroy_process_group()
    assert isinstance(together.model.stem[1], SynchronisedBatchNorm2d)
    alone = train(trainer(digits, kernels="torch", epochs=2), 2)
    for own, expected in zip(together.history, alone.history, strict=True):
        assert own.train_loss == pytest.approx(expected.train_loss, rel=1e-3)


def plainly(images: Images, name: str, epochs: int) -> tuple[nn.Module, list[float]]:
    """The training as people write it: batch after batch, whatever its size."""
    model = network(name, images).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), 0.025, momentum=0.9, weight_decay=3e-4, fused=True
    )
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(epochs):
        model.train()
        logits, taught = [], []
        for inputs, labels in augmented_chunks(images, 16, generator):
            for start, stop in batch_bounds(len(inputs), 16):
                optimizer.zero_grad()
                logits.append(model(inputs[start:stop]))
                functional.cross_entropy(logits[-1], labels[start:stop]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
            taught.append(labels)
        loss = functional.cross_entropy(torch.cat(logits), torch.cat(taught), reduction="sum")
        losses.append(loss.item() / len(images.train_labels))
    return model, losses


@pytest.mark.parametrize(
    ("name", "kernels"), [*((n, "auto") for n in NETWORKS), ("chain", "torch")]
)
def test_on_the_cpu_nothing_is_filled_and_every_bit_is_torchs(digits, monkeypatch, name, kernels):
    monkeypatch.setattr(padding, "filled", lambda *_: pytest.fail("a batch was filled"))
    subject = train(trainer(digits, name, kernels=kernels, schedule="constant"), 2)
    model, losses = plainly(digits, name, 2)
    assert [result.train_loss for result in subject.history] == losses
    expected = model.state_dict()
    for key, own in subject.model.state_dict().items():
        assert torch.equal(own, expected[key]), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_comes_to_the_same_with_filled_batches(digits):
    with deterministic_algorithms(True):
        filled, plain = (
            train(trainer(digits.to("cuda"), kernels=kernels, precision="float32"), 12)
            for kernels in ("auto", "torch")
        )
    assert filled._staged_last._graph.is_captured
    assert filled._staged_answer._graph.is_captured
    for own, expected in zip(filled.history[:2], plain.history[:2], strict=True):
        assert own.train_loss == pytest.approx(expected.train_loss, rel=1e-2)
