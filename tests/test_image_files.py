"""Images that stay in their files: the same as in memory, wherever they are looked at."""

import numpy as np
import pytest
import torch
from PIL import Image

import optnas
from optnas.config.settings import DataSettings, TrainSettings
from optnas.errors import RunError
from optnas.objectives.data.image_files import ImageFiles, joined, pieces, taken
from optnas.objectives.data.images import DataError, load_images
from optnas.objectives.importance.scoring import stage_importance
from optnas.objectives.kept import trained as networks
from optnas.objectives.networks.build import build_model
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import StageArchitecture

CLASSES = ("bricks", "clouds", "waves")
STUDY = """
study: streamed
space: {name: stage, stages: 2, modules: [1, 2]}
sampler: random
objective: stage_classification
data: {name: images, root: photos, size: 10, stream: true, augment: [crop, flip]}
train: {epochs: 1, batch_size: 8}
budget: {trials: 1}
"""


def write_images(root, *, mode="RGB", each=14):
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(each):
            side = 9 + number % 4
            pixels = rng.integers(0, 150, (side, side, 3), dtype=np.uint8)
            pixels[:, :, label] += 100
            Image.fromarray(pixels).convert(mode).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of images of three classes; not to be changed."""
    return write_images(tmp_path_factory.mktemp("images") / "photos")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def both(root, **settings):
    """The same images in files and in memory."""
    common = {"name": "images", "root": str(root), "size": 10, **settings}
    return [load_images(DataSettings(stream=stream, **common), 0) for stream in (True, False)]


PARTS = ("train", "validation", "test")


@pytest.mark.parametrize(
    "settings", [{}, {"classes": (0, 2)}, {"samples": 0.5}, {"validation": 3}, {"size": 7}]
)
def test_they_are_the_images_that_memory_holds(root, settings, monkeypatch):
    monkeypatch.setattr("optnas.objectives.data.images.MOMENT_PIECE", 5)
    streamed, held = both(root, **settings)
    for part in PARTS:
        files, tensor = (getattr(images, f"{part}_images") for images in (streamed, held))
        assert isinstance(files, ImageFiles)
        assert files.shape == tensor.shape
        assert len(files) == len(tensor)
        assert torch.equal(files[:], tensor)
        chosen = torch.tensor([2, 0, 2])
        assert torch.equal(files[chosen], tensor[chosen])
        labels = [getattr(images, f"{part}_labels") for images in (streamed, held)]
        assert torch.equal(*labels)
    assert (streamed.mean, streamed.std) == (held.mean, held.std)
    assert (streamed.input_shape, streamed.classes) == (held.input_shape, held.classes)


def test_parts_and_unions_are_not_read(root, monkeypatch):
    streamed, held = both(root)
    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "_begin", None)
        whole = streamed.with_validation_in_training().to("cpu")
        files = joined(taken(whole.train_images, slice(3)), whole.train_images)
        files = taken(files, torch.arange(len(files)) % 2 == 0)
        assert isinstance(files, ImageFiles)
    both_parts = torch.cat((held.train_images, held.validation_images))
    assert torch.equal(files[:], torch.cat((both_parts[:3], both_parts))[::2])
    assert len(whole.validation_images) == 0
    with pytest.raises(TypeError, match="in memory and images in files cannot be joined"):
        joined(files, both_parts)


def test_the_next_piece_is_read_while_one_is_used(root, monkeypatch):
    streamed, held = both(root)
    begun = []
    begin = ImageFiles._begin

    def spy(files, chosen):
        begun.append(chosen.tolist())
        return begin(files, chosen)

    monkeypatch.setattr(ImageFiles, "_begin", spy)
    choices = [torch.tensor([3, 1]), torch.tensor([0]), torch.tensor([2, 2])]
    for number, piece in enumerate(pieces(streamed.train_images, choices)):
        assert torch.equal(piece, held.train_images[choices[number]])
        assert len(begun) == min(number + 2, 3)
    assert not list(pieces(streamed.train_images, []))


def trained(images):
    generator = torch.Generator().manual_seed(0)
    model = build_model(StageArchitecture((1, 1)), images.input_shape, images.classes, generator)
    train = TrainSettings(lr=0.1, batch_size=8)
    trainer = Trainer(model, images, train, epochs=2, seed=0)
    results = [trainer.train_epoch() for _ in range(2)]
    importance = stage_importance(model, images, samples=20)
    return results, importance, model.state_dict()


def test_a_training_on_files_is_bitwise_one_in_memory(root):
    (results, importance, state), (expected, scores, other) = map(trained, both(root))
    assert results == expected
    assert importance == scores
    assert all(torch.equal(value, other[name]) for name, value in state.items())


def test_the_checksum_of_the_data_knows_the_files(root, tmp_path):
    first = networks.digest(both(root)[0])
    assert first == networks.digest(both(root)[0])
    assert first != networks.digest(both(root, size=11)[0])
    assert first != networks.digest(both(root, classes=(0, 1))[0])
    assert first != networks.digest(both(write_images(tmp_path / "fewer", each=13))[0])


def test_gray_images_have_one_channel_and_mixed_ones_three(tmp_path):
    gray = write_images(tmp_path / "gray", mode="L")
    streamed, held = both(gray)
    assert streamed.in_channels == 1
    assert torch.equal(streamed.train_images[:], held.train_images)
    # The first of a class decides; grayscale ones among them are repeated.
    Image.new("RGB", (9, 9), (255, 0, 0)).save(gray / CLASSES[0] / "00.png")
    streamed, held = both(gray)
    assert streamed.in_channels == 3
    assert torch.equal(streamed.train_images[:], held.train_images)


def test_what_needs_the_images_in_memory_is_refused(root, tmp_path):
    streamed, _ = both(root)
    with pytest.raises(DataError, match="leave out `stream`, or write r0"):
        streamed.reduced(lambda side: side // 2)
    with pytest.raises(DataError, match="`digits` does not take `stream`"):
        load_images(DataSettings(name="digits", stream=True), 0)
    broken = write_images(tmp_path / "broken")
    (broken / CLASSES[1] / "00.png").write_text("nothing")
    with pytest.raises(DataError, match=r"Cannot read the image .*00\.png"):
        both(broken)


def test_a_file_that_cannot_be_read_ends_the_run_and_no_candidate(tmp_path, monkeypatch):
    photos = write_images(tmp_path / "photos")
    (tmp_path / "study.yaml").write_text(STUDY)
    files = sorted(photos.rglob("1*.png"))
    contents = {path: path.read_bytes() for path in files}

    def load_and_lose(*arguments, **options):
        images = load_images(*arguments, **options)
        for path in files:
            path.write_bytes(b"")
        return images

    with monkeypatch.context() as patch:
        patch.setattr("optnas.objectives.classification.load_images", load_and_lose)
        patch.setattr("optnas.running.loop.PATIENCE", 0.0)  # Whoever mends files needs longer.
        message = "could not go on for 0 seconds: OSError: Cannot read the image"
        with pytest.raises(RunError, match=message):
            optnas.run(tmp_path / "study.yaml")
    for path, content in contents.items():
        path.write_bytes(content)
    outcome = optnas.run(tmp_path / "study.yaml")
    *lost, done = outcome.study.trials
    assert {t.state.name for t in lost} == {"FAIL"}
    assert {t.user_attrs["failure"] for t in lost} == {"lost"}
    assert done.state.name == "COMPLETE"
    assert done.user_attrs["continues"] == lost[-1].number
    assert len(done.user_attrs["stage_importance"]) == 2
