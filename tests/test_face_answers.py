"""Kept face networks out in the world: embeddings of what people have, and other forms."""

import json

import numpy as np
import pytest
import torch
from manual import ROOT, blocks
from PIL import Image
from runtimes import NEEDS, fresh, needs

import optnas
from optnas import cli
from optnas.config.settings import DataSettings, RetrainSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.faces.images import load_faces
from optnas.objectives.faces.objective import FaceRecognition
from optnas.objectives.kept.exports import forms
from optnas.objectives.kept.exports.exporting import export
from optnas.spaces import FaceArchitecture, FaceSpace

PEOPLE, SHOTS = 8, 14


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder per person, of pictures of many sizes."""
    root, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for person in range(PEOPLE):
        folder = root / f"person {person}"
        folder.mkdir()
        pattern = rng.integers(40, 216, (4, 4, 3))
        for shot in range(SHOTS):
            side = int(rng.integers(4, 9))
            pixels = pattern.repeat(side, 0).repeat(side, 1)
            noisy = np.clip(pixels + rng.integers(-30, 30, pixels.shape), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{shot}.png")
    return root


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory):
    """A kept face network of them."""
    data = DataSettings(name="images", root=str(photos), size=16, resize="pad", validation=2)
    images = load_faces(data, 0)
    objective = FaceRecognition(
        FaceSpace((10, 12), (2, 4), embedding=8, size=16),
        images,
        train=TrainSettings(lr=0.1, batch_size=16),
        test_identities=2,
        seed=0,
        device="cpu",
    )
    place = tmp_path_factory.mktemp("face.network")
    settings = RetrainSettings(epochs=2)
    objective.retrain(FaceArchitecture(3, (1, 1, 1, 1), 8), place, settings, origin={"trial": 3})
    return place


@pytest.fixture(scope="module")
def model(folder):
    return optnas.load(folder)


def test_a_face_becomes_what_it_was_in_training(photos, folder, model):
    """Pictures, arrays and files, at any size, by the rules of the data."""
    assert model.preprocessing.resize == "pad"
    file = photos / "person 1" / "3.png"
    answer = model.predict(file)
    assert np.linalg.norm(answer.vector) == pytest.approx(1)
    picture = Image.open(file)
    for other in (str(file), picture, np.asarray(picture), np.asarray(picture) / 255):
        assert model.predict(other).vector == pytest.approx(answer.vector, abs=1e-6)
    data = DataSettings(name="images", root=str(photos), size=16, resize="pad")
    seen = load_faces(data, 0).train_images[SHOTS : 2 * SHOTS]
    every = np.array([each.vector for each in model.predict(photos / "person 1")])
    assert every.shape == (SHOTS, 8)
    nearest = (model.embeddings(seen).numpy() @ every.T).max(1)
    assert nearest == pytest.approx(np.ones(SHOTS), abs=1e-6)


def test_two_faces_are_compared_at_the_kept_threshold(photos, folder, model):
    one, other = photos / "person 1/3.png", photos / "person 2/3.png"
    known = json.loads((folder / "network.json").read_text())["thresholds"]
    found = model.similarity(one, Image.open(other))
    assert found.score == pytest.approx(np.dot(*(model.predict(p).vector for p in (one, other))))
    assert (found.threshold, found.far) == (known["0.01"], 0.01)
    assert model.similarity(one, one).same
    assert model.similarity(one, other, far=0.1).threshold == known["0.1"]
    for arguments, said in (
        ((photos, one), "no folders and no lists"),
        ((one, photos / "none.png"), "none.png cannot be read"),
    ):
        with pytest.raises(UserError, match=said):
            model.similarity(*arguments)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 16, 16, dtype=torch.int16),
        torch.full((2, 3, 16, 16), 255.0),
        torch.zeros(2, 3, 20, 20, dtype=torch.uint8),
        torch.zeros(3, 16, 16, dtype=torch.uint8),
    ],
)
def test_other_tensors_are_refused(model, images):
    with pytest.raises(ValueError, match=r"takes uint8, or floats in \[0, 1\], of shape"):
        model(images)


def test_the_command_prints_embeddings(photos, folder, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    given = [str(folder), str(photos / "person 1/3.png"), str(tmp_path / "broken.png")]

    def printed(*options):
        with pytest.raises(SystemExit) as end:
            cli.app(["predict", *given, *options])
        assert end.value.code == 1
        return capsys.readouterr().out

    assert "3.png: embedding of 8 numbers: " in printed()
    first, second = map(json.loads, printed("--json").splitlines())
    assert len(first["embedding"]) == 8
    assert second["error"] == "it is no image of a known format"
    heading, row, last = printed("--csv").splitlines()
    assert heading.split(",") == ["file", *(f"e{n}" for n in range(1, 9)), "error"]
    assert float(row.split(",")[1]) == pytest.approx(first["embedding"][0], abs=1e-6)
    assert len(last.split(",")) == 10
    with pytest.raises(UserError, match="names no classes"):
        cli.app(["predict", *given, "--top", "3"], standalone_mode=False)


@pytest.mark.parametrize("form", NEEDS)
def test_every_form_embeds_as_the_network(photos, folder, model, tmp_path, form):
    needs(form)
    made = export(folder, form, tmp_path / forms.NAMES[form])
    assert made.difference <= 1e-4
    assert made.images == 100
    data = DataSettings(name="images", root=str(photos), size=16, resize="pad")
    real = load_faces(data, 0).train_images[:60]
    np.save(tmp_path / "x.npy", real.numpy())
    answers = fresh(form, made.files[0], tmp_path / "x.npy")
    expected = model.embeddings(real).numpy()
    assert np.abs(answers[:60] - expected).max() <= 1e-4
    assert np.abs(answers[60:] - expected[:1]).max() <= 1e-4


def test_an_export_says_its_thresholds_and_no_names_of_people(folder, tmp_path):
    made = export(folder, "python", tmp_path / "model.py")
    text = (tmp_path / "model.py").read_text()
    assert "THRESHOLDS = {'0.1': " in text
    assert "person 1" not in text
    raw = export(folder, "torch", tmp_path / "raw.pt2", raw=True)
    assert raw.difference <= 1e-4 >= made.difference
    with pytest.raises(UserError, match="--int8 is for classifiers"):
        export(folder, "onnx", tmp_path / "m.onnx", int8=True)


def test_the_pages_about_faces_and_predictions_run(photos, folder, tmp_path, monkeypatch, capsys):
    """The Python of docs/faces.md and docs/predict.md that is about faces."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orl-faces.network").symlink_to(folder)
    for name, place in (("face", "1/3"), ("a", "1/4"), ("b", "2/3")):
        (tmp_path / f"{name}.png").symlink_to(photos / f"person {place}.png")
    rng = np.random.default_rng(0)
    known = {"optnas": optnas, "distances": rng.random(60), "same": np.arange(60) % 2 == 0}
    known |= {"genuine": rng.random(90), "impostor": rng.random(10_000)}
    (measures,) = blocks(ROOT / "docs" / "faces.md", "python")
    _, embedding = blocks(ROOT / "docs" / "predict.md", "python")
    exec(measures.text + embedding.text, known)
    assert 0 <= known["accuracy"] <= 1
    assert str(known["found"].score) in capsys.readouterr().out
