"""Ensembles of the networks that a search found."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import optnas
from optnas.config.settings import DataSettings
from optnas.errors import UserError
from optnas.objectives.data.images import load_images
from optnas.objectives.kept import ensembles
from optnas.objectives.kept.classifiers import Classifier, Ensemble
from optnas.objectives.kept.descriptions import describe
from optnas.running.retraining import retrain_found
from optnas.study.opening import conclusions, open_existing

STUDY = """
study: found
space: {name: stage, stages: 2, modules: [1, 4]}
sampler: random
budget: {trials: 3}
seed: 0
data: {name: digits, classes: [0, 1, 7], samples: 0.2}
train: {epochs: 1, lr: 0.1}
retrain: {epochs: 1}
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """The folder of a search with an ensemble of what it found; not to be changed."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "found.yaml").write_text(STUDY)
    handle = optnas.run(folder / "found.yaml").opened
    assert len(conclusions(handle)) > 1
    *reports, last = retrain_found(handle, ensemble=True)
    assert len(reports) == len(conclusions(handle))
    (folder / "last.json").write_text(json.dumps({**last.fields, "text": last.text}))
    return folder


@pytest.fixture
def folder(kept, tmp_path) -> Path:
    return shutil.copytree(kept, tmp_path / "study")


def members(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.glob("found.network*")) if (path / "network.json").exists()
    ]


def test_the_ensemble_answers_with_the_mean_of_the_probabilities(kept):
    model = optnas.load(kept / "found.network-ensemble")
    alone = [optnas.load(path) for path in members(kept)]
    assert len(alone) > 1
    images = torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8)
    mean = torch.stack([network(images).softmax(1) for network in alone]).mean(0)
    torch.testing.assert_close(model(images).softmax(1), mean)
    torch.testing.assert_close(model(images).exp(), mean)
    assert model.class_names == ("0", "1", "7")
    assert not model.training


def test_what_is_reported_is_what_was_measured(kept):
    reported = json.loads((kept / "last.json").read_text())
    alone = [describe(path) for path in members(kept)]
    assert reported["member_accuracies"] == [d.test_accuracy for d in alone]
    assert reported["params"] == sum(d.params for d in alone)
    assert reported["multiply_adds"] == sum(d.multiply_adds for d in alone)
    images = load_images(DataSettings(name="digits", classes=(0, 1, 7)), 0)
    model = optnas.load(reported["folder"])
    correct = model(images.test_images).argmax(1) == images.test_labels
    assert reported["test_accuracy"] == pytest.approx(correct.double().mean().item())
    assert reported["test_images"] == len(images.test_labels) == alone[0].test_images
    assert f"ensemble of {len(alone)}: test accuracy" in reported["text"]
    card = (kept / "found.network-ensemble" / "README.md").read_text()
    assert f"**{reported['test_accuracy']:.4f}** on {reported['test_images']} images" in card
    assert f"| [2](2/README.md) | {alone[1].test_accuracy:.4f} |" in card


def test_the_folder_can_be_moved_and_its_members_loaded_alone(kept, tmp_path):
    moved = shutil.copytree(kept / "found.network-ensemble", tmp_path / "moved")
    assert isinstance(optnas.load(moved), Ensemble)
    assert isinstance(optnas.load(moved / "1"), Classifier)


def test_done_again_nothing_is_trained_or_measured_again(folder, monkeypatch):
    monkeypatch.setattr("optnas.objectives.training.trainer.Trainer.train_epoch", None)
    monkeypatch.setattr(ensembles, "judge", None)
    *_, last = retrain_found(open_existing(str(folder / "found.yaml")), ensemble=True)
    assert (
        last.fields["test_accuracy"]
        == json.loads((folder / "last.json").read_text())["test_accuracy"]
    )


def test_a_folder_with_another_ensemble_is_left_alone(folder):
    handle = open_existing(str(folder / "found.yaml"))
    with pytest.raises(UserError, match="holds another ensemble; name another folder"):
        list(retrain_found(handle, ensemble=True, top=1))


def test_a_member_that_was_changed_is_refused(folder):
    ensemble = folder / "found.network-ensemble"
    shutil.rmtree(ensemble / "2")
    shutil.copytree(ensemble / "1", ensemble / "2")
    with pytest.raises(UserError, match="the folder 2 in it is not the network that"):
        optnas.load(ensemble)
    (ensemble / "ensemble.json").write_text('{"weights_sha256": 1}')
    with pytest.raises(UserError, match="not the description of an ensemble"):
        optnas.load(ensemble)


def test_interrupted_while_it_is_written_it_is_made_anew(folder):
    ensemble = folder / "found.network-ensemble"
    (ensemble / "ensemble.json").unlink()
    shutil.rmtree(ensemble / "2")
    *_, last = retrain_found(open_existing(str(folder / "found.yaml")), ensemble=True)
    assert last.fields["folder"] == str(ensemble)
    assert isinstance(optnas.load(ensemble), Ensemble)


def test_the_command_takes_a_number_and_every_repeat(folder, optnas_command, monkeypatch):
    arguments = ["--ensemble", "--top", "1", "--repeats", "2", "--output", "few", "--json"]
    monkeypatch.chdir(folder)
    code, out, _ = optnas_command("retrain", "found.yaml", *arguments)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [Path(line["folder"]).name for line in lines] == [
        "few",
        "few-repeat-2",
        "few",
        "few-ensemble",
    ]
    assert lines[-1]["member_accuracies"] == lines[2]["values"]
