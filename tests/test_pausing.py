"""Trainings left in the middle of an epoch: gone on with, they end as if nobody had come."""

import functools
import io

import numpy as np
import pytest
import torch
from trainings import some

from optnas.config.settings import DataSettings, TrainSettings
from optnas.objectives.data import batches
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.faces.images import FaceImages
from optnas.objectives.faces.trainer import FaceRecipe, FaceTrainer
from optnas.objectives.networks.build import build_model, build_supernet
from optnas.objectives.training.bilevel import BilevelTrainer, SearchRecipe
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import (
    CellArchitecture,
    CellSpace,
    ChainArchitecture,
    FaceArchitecture,
    NasBench201Space,
)
from optnas.trials import pulse
from tests.trainings import same, train

pytestmark = pytest.mark.usefixtures("one_thread")

PAIR = (("sep_conv_3x3", 1), ("skip_connect", 0))


@pytest.fixture(scope="module")
def few() -> Images:
    digits = load_images(DataSettings(name="digits"), seed=0)
    return some(digits, 130, 40, augmentation=Augmentation(padding=1, flip=True, cutout=2))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def chain(images: Images) -> Trainer:
    model = build_model(ChainArchitecture(3, 8), images.input_shape, 10, seeded())
    return Trainer(model, images, TrainSettings(batch_size=16), epochs=3, seed=0)


def dropping(images: Images) -> Trainer:
    """Its network draws from the training's generator in every step."""
    cells = CellArchitecture(normal=(PAIR,), reduce=(PAIR,))
    options = {"cells": 3, "channels": 4, "drop_path": 0.5}
    model = build_model(cells, images.input_shape, 10, seeded(), **options)
    settings = TrainSettings(batch_size=16, drop_path=0.5)
    return Trainer(model, images, settings, epochs=3, seed=0)


def supernet(images: Images) -> Trainer:
    model = build_supernet(
        CellSpace(nodes=2), images.input_shape, 10, seeded(), cells=3, channels=4
    )
    settings = TrainSettings(batch_size=16)
    return BilevelTrainer(model, images, settings, SearchRecipe(), epochs=3, seed=0)


def warming_supernet(images: Images) -> Trainer:
    """In its first epoch it draws nothing for the architecture."""
    model = build_supernet(
        NasBench201Space(), images.input_shape, 10, seeded(), cells=3, channels=4
    )
    settings = TrainSettings(batch_size=16)
    recipe = SearchRecipe(warmup_epochs=1)
    return BilevelTrainer(model, images, settings, recipe, epochs=3, seed=0)


def long_supernet(images: Images) -> Trainer:
    """An epoch of several passes over both shares."""
    model = build_supernet(
        NasBench201Space(), images.input_shape, 10, seeded(), cells=3, channels=4
    )
    recipe = SearchRecipe(iterations=12, weight_share=0.3, architecture_share=0.2)
    settings = TrainSettings(batch_size=16)
    return BilevelTrainer(model, images, settings, recipe, epochs=3, seed=0)


def faces(_: Images) -> Trainer:
    """Its images are degraded by draws of their own."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (84, 1, 16, 16), dtype=np.uint8))
    none = pixels[:0], torch.zeros(0, dtype=torch.int64)
    names = tuple(f"p{number}" for number in range(14))
    people = FaceImages(
        pixels, torch.arange(84) % 14, *none, *none, names, Augmentation(flip=True), held_out=4
    )
    model = build_model(FaceArchitecture(3, (1, 1, 1, 1), 8), (1, 16, 16), 7, seeded())
    settings = TrainSettings(lr=0.1, batch_size=8, decay_norms=False)
    return FaceTrainer(
        model,
        people.split(test=3, seed=0),
        settings,
        faces=FaceRecipe(degrade=0.5),
        embedding=8,
        epochs=3,
        seed=5,
    )


KINDS = (chain, dropping, supernet, warming_supernet, long_supernet, faces)


class Stopping(pulse.Pulse):
    """Asks to pause before the n-th batch, or piece to be judged, that is counted from 0."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def check(self) -> None:
        self.pausing = self.left == 0
        self.left -= 1
        super().check()


@pytest.fixture(scope="module")
def undisturbed(few):
    """What comes of each kind; made where there is one thread."""
    return functools.cache(lambda kind: train(kind(few), 2))


@pytest.mark.parametrize("after", [0, 2, 5, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_and_gone_on_with_ends_the_same(few, kind, after, undisturbed, monkeypatch):
    # Pieces of a few batches, so that some are whole and one is not.
    monkeypatch.setattr(batches, "CHUNK_BYTES", 3 * 16 * 4 * 64)
    left = kind(few)
    left.pulse = Stopping(after)
    with pytest.raises(pulse.Paused):
        train(left, 2)
    file = io.BytesIO()
    torch.save(left.state_dict(), file)
    file.seek(0)
    other = kind(few)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same(train(other, 2 - other.epoch), undisturbed(kind))
    left.pulse.left = -1
    assert same(train(left, 2 - left.epoch), undisturbed(kind))  # The very one, too.


def test_an_epoch_is_left_twice(few):
    undisturbed, state = train(chain(few), 1), None
    for after in (2, 3):
        subject = chain(few)
        if state is not None:
            subject.load_state_dict(state)
        subject.pulse = Stopping(after)
        with pytest.raises(pulse.Paused):
            subject.train_epoch()
        state = subject.state_dict()
    last = chain(few)
    last.load_state_dict(state)
    assert last.begun.batches == 5
    assert same(train(last, 1), undisturbed)
    assert last.history[-1].seconds > state["begun"]["seconds"] > 0


def test_the_pulse_counts_batches_and_is_asked_from_outside(few):
    subject, seen = chain(few), []
    subject.pulse.check = lambda: seen.append((subject.pulse.batch, len(pulse.running())))
    assert not pulse.pause()
    with pulse.beating(subject.pulse):
        subject.train_epoch()
        assert pulse.pause()
    assert seen == [(n, 1) for n in range(10)]  # The last before it is judged.
    assert subject.batches == 9
    assert subject.pulse.pausing
    assert not pulse.running()
