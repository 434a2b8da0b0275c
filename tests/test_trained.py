"""Trained networks in folders: resumable, tested once, and refused when they were changed."""

import hashlib
import io
import itertools
import json
import math
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

import optnas
from optnas.config.settings import DataSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.data.images import load_images
from optnas.objectives.kept import trained as networks
from optnas.objectives.kept.descriptions import describe
from optnas.objectives.networks.sizes import channels_of, with_channels
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import CellArchitecture, ChainArchitecture, GrowthSpace
from optnas.trials import pulse

CHAIN = ChainArchitecture(2, 8)
FILES = ["README.md", "mistakes.png", "network.json", "weights.safetensors"]


@pytest.fixture(scope="module")
def images():
    return load_images(DataSettings(name="digits", classes=(0, 1, 7)), seed=0)


def retrain(images, folder: Path, architecture=CHAIN, **options):
    options = {"seed": 0, "train": TrainSettings(epochs=4, lr=0.1), "network": {}} | options
    return networks.retrain(
        architecture,
        images,
        folder=folder,
        origin={"study": "digits", "trial": 7},
        device=torch.device("cpu"),
        **options,
    )


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    retrain(images, folder)
    return folder


@pytest.fixture
def network(finished, tmp_path) -> Path:
    """A copy of its own, to be spoilt."""
    folder = tmp_path / "network"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes((finished / name).read_bytes())
    return folder


def interrupt_after(epoch: int):
    def on_epoch(finished: int, *_) -> None:
        if finished == epoch:
            raise KeyboardInterrupt

    return on_epoch


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        optnas.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_a_network_learns_and_is_described(images, finished):
    assert names(finished) == FILES
    description = describe(finished)
    assert description.test_accuracy > 0.9
    assert description.test_images == len(images.test_labels)
    assert description.train_images == len(images.train_labels) + len(images.validation_labels)
    assert description.params == CHAIN.num_params(1, 3)
    assert description.class_names == images.class_names
    assert description.origin == {"study": "digits", "trial": 7}
    card = (finished / "README.md").read_text()
    assert f"{description.test_accuracy:.4f}" in card
    assert "| trial | 7 |" in card


def test_the_loaded_model_has_the_same_test_accuracy(images, finished):
    model = optnas.load(finished)
    description = describe(finished)
    assert not model.training
    with torch.inference_mode():
        logits = model(images.test_images)
        floats = model(images.test_images.float() / 255)
    accuracy = (logits.argmax(1) == images.test_labels).float().mean().item()
    assert accuracy == pytest.approx(description.test_accuracy)
    assert logits.shape == (len(images.test_labels), 3)
    torch.testing.assert_close(floats, logits, rtol=1e-3, atol=1e-3)


def test_a_second_call_trains_and_tests_nothing(images, network, monkeypatch):
    monkeypatch.setattr(Trainer, "train_epoch", None)
    monkeypatch.setattr(Trainer, "evaluate", None)
    before = {name: (network / name).read_bytes() for name in FILES}
    assert retrain(images, network) == describe(network)
    assert before == {name: (network / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("epoch", [1, 4])
def test_an_interrupted_training_goes_on_and_ends_bitwise_the_same(
    images, finished, tmp_path, epoch
):
    seen = []
    with pytest.raises(KeyboardInterrupt):
        retrain(images, tmp_path, on_epoch=interrupt_after(epoch))
    assert names(tmp_path) == ["training.pt"]
    with pytest.raises(UserError, match="no trained network"):
        optnas.load(tmp_path)
    retrain(images, tmp_path, on_epoch=lambda *progress: seen.append(progress))
    assert [progress[:2] for progress in seen] == [(e, 4) for e in range(epoch + 1, 5)]
    assert names(tmp_path) == FILES
    weights = [(folder / FILES[-1]).read_bytes() for folder in (tmp_path, finished)]
    assert weights[0] == weights[1]
    ours, theirs = describe(tmp_path), describe(finished)
    assert ours.test_accuracy == theirs.test_accuracy
    assert ours.train_accuracy == theirs.train_accuracy


@pytest.mark.parametrize("after", [0, 9, 25])
def test_a_training_left_between_two_batches_ends_bitwise_the_same(
    images, finished, tmp_path, monkeypatch, after
):
    checked = itertools.count()

    def check(self: pulse.Pulse) -> None:
        if next(checked) == after:
            assert pulse.running() == [self]  # So that a signal finds it.
            raise pulse.Paused

    monkeypatch.setattr(pulse.Pulse, "check", check)
    with pytest.raises(pulse.Paused, match=r"keeps [\d.]+ of 4 epochs") as left:
        retrain(images, tmp_path)
    batches = math.ceil(describe(finished).train_images / TrainSettings().batch_size)
    kept = float(str(left.value).split()[-4])
    assert kept == pytest.approx(after / batches, abs=0.01)
    assert names(tmp_path) == ["training.pt"]
    retrain(images, tmp_path)
    weights = [(folder / FILES[-1]).read_bytes() for folder in (tmp_path, finished)]
    assert weights[0] == weights[1]


OTHERWISE = {
    "architecture": {"architecture": ChainArchitecture(2, 9)},
    "epochs": {"train": TrainSettings(epochs=5, lr=0.1)},
    "seed": {"seed": 1},
    "train": {"train": TrainSettings(epochs=4, lr=0.01)},
}


@pytest.mark.parametrize("options", OTHERWISE.values(), ids=OTHERWISE)
def test_a_folder_with_another_network_is_refused(images, network, tmp_path, options):
    before = {path: path.read_bytes() for path in network.iterdir()}
    with pytest.raises(UserError, match="holds another network"):
        retrain(images, network, **options)
    assert before == {path: path.read_bytes() for path in network.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        retrain(images, tmp_path / "begun", on_epoch=interrupt_after(1))
    with pytest.raises(UserError, match="belongs to another network"):
        retrain(images, tmp_path / "begun", **options)


def test_a_network_kept_before_there_were_cycles_is_known(images, network):
    train = TrainSettings(epochs=4, lr=0.1, initial_epochs=9)
    description = retrain(images, network, train=train)
    assert description == describe(network)
    assert description.train.keys().isdisjoint({"cycles", "graphs"})
    with pytest.raises(UserError, match="holds another network"):
        retrain(images, network, train=train.model_copy(update={"cycles": 2}))


def test_other_images_make_another_network(network):
    others = load_images(DataSettings(name="digits", classes=(0, 1, 8)), seed=0)
    with pytest.raises(UserError, match="holds another network"):
        retrain(others, network)


def test_changed_weights_are_refused(network):
    path = network / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "weights.safetensors is not the file" in refusal(network)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, pickle.dumps({"a": 1})])
def test_files_that_are_no_weights_are_refused(network, content):
    (network / "weights.safetensors").write_bytes(content)
    refusal(network)


def test_missing_weights_are_refused(network):
    (network / "weights.safetensors").unlink()
    assert "weights.safetensors" in refusal(network)


@pytest.mark.parametrize("weights", [{}, {"stem.0.weight": torch.zeros(2)}])
def test_weights_of_another_network_are_refused(network, weights):
    """Even where the description was changed to fit."""
    path = network / "weights.safetensors"
    path.write_bytes(safetensors.torch.save(weights))
    fields = json.loads((network / "network.json").read_text())
    fields["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (network / "network.json").write_text(json.dumps(fields))
    refusal(network)


@pytest.mark.parametrize(
    "change",
    [
        {"space": "nowhere"},
        {"architecture": {}},
        {"architecture": {"depth": 2, "width": "8"}},
        {"architecture": {"depth": 3, "width": 8}},
        {"architecture": [1, 2]},
        {"architecture": {"__reduce__": "os.system"}},
        {"class_names": ["0", "1"]},
        {"input_shape": [1, 8]},
        {"input_shape": "wide"},
        {"mean": ["a"]},
        {"epochs": None},
    ],
    ids=str,
)
def test_a_changed_description_is_refused(network, change):
    path = network / "network.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refusal(network)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", "[" * 100_000, "\ud800"])
def test_a_file_that_is_no_description_is_refused(network, content):
    (network / "network.json").write_bytes(content.encode(errors="surrogatepass"))
    assert "network.json: not the description of a network" in refusal(network)


class Harmful:
    """A pickle that leaves a trace when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_changed_training_state_is_refused_and_executes_nothing(images, tmp_path):
    folder = tmp_path / "network"
    with pytest.raises(KeyboardInterrupt):
        retrain(images, folder, on_epoch=interrupt_after(1))
    path, trace = folder / "training.pt", tmp_path / "executed"
    good = path.read_bytes()
    torch.save({"identity": Harmful(trace)}, tmp_path / "harmful.pt")
    harmful = (tmp_path / "harmful.pt").read_bytes()
    pickled = pickle.dumps(Harmful(trace), protocol=2)
    identity = torch.load(io.BytesIO(good[32:]), weights_only=True)["identity"]
    torch.save({"identity": identity, "state": {"model": 1}}, tmp_path / "hollow.pt")
    hollow = (tmp_path / "hollow.pt").read_bytes()
    bad = [
        b"",
        good[:-1],
        good[:40] + b"?" + good[41:],
        *(hashlib.sha256(b).digest() + b for b in (harmful, pickled, hollow, b"", b"state")),
    ]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"training\.pt is damaged") as caught:
            retrain(images, folder)
        assert "\n" not in str(caught.value)
    assert not trace.exists()
    path.write_bytes(good)
    retrain(images, folder)
    assert names(folder) == FILES


def test_a_loss_that_is_not_finite_is_explained(images, tmp_path):
    with pytest.raises(UserError, match="not finite in epoch 1: lower the learning rate"):
        retrain(images, tmp_path / "new", train=TrainSettings(epochs=2, lr=1e9, clip=None))


def test_a_folder_that_cannot_be_made_is_refused(images, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="name another folder"):
            retrain(images, folder)


@pytest.mark.parametrize("make", [lambda p: None, Path.touch, Path.mkdir])
def test_loading_from_nowhere_is_refused(tmp_path, make):
    make(tmp_path / "folder")
    with pytest.raises(UserError):
        optnas.load(tmp_path / "folder")


def test_a_cell_network_is_kept_without_its_auxiliary_head(images, tmp_path):
    cell = ((("sep_conv_3x3", 0), ("skip_connect", 1)),) * 4
    train = TrainSettings(epochs=2, auxiliary=0.4, drop_path=0.3)
    size = {"cells": 3, "channels": 4, "concat": "all"}
    architecture = CellArchitecture(normal=cell, reduce=cell)
    description = retrain(images, tmp_path, architecture, train=train, network=size)
    loaded = networks.load(tmp_path)
    assert not any("aux" in name for name in loaded.state_dict())
    assert description.params == sum(p.numel() for p in loaded.parameters())
    logits = loaded(images.test_images)
    accuracy = (logits.argmax(1) == images.test_labels).float().mean().item()
    assert accuracy == pytest.approx(description.test_accuracy, abs=1e-6)


def test_a_grown_network_is_trained_with_drop_path_and_made_wider(images, tmp_path):
    space = GrowthSpace(cells=1, channels=4)
    grown = space.grow(space.initial(), 7, increments=2)
    wider, size = with_channels(grown, {"gate": True}, 6)
    assert (channels_of(grown, {}), channels_of(wider, size)) == (4, 6)
    assert (wider.increments, size) == (grown.increments, {"gate": True})
    train = TrainSettings(epochs=2, drop_path=0.4)
    plain = retrain(
        images,
        tmp_path / "plain",
        wider,
        train=train.model_copy(update={"drop_path": 0.0}),
        network=size,
    )
    dropped = retrain(images, tmp_path / "dropped", wider, train=train, network=size)
    assert plain.params == dropped.params
    assert plain.weights_sha256 != dropped.weights_sha256
    logits = optnas.load(tmp_path / "dropped")(images.test_images)
    accuracy = (logits.argmax(1) == images.test_labels).float().mean().item()
    assert accuracy == pytest.approx(dropped.test_accuracy, abs=1e-6)


def test_drop_path_needs_a_network_with_paths(images, tmp_path):
    with pytest.raises(UserError, match="`drop_path`: a ChainNetwork has none; leave it out"):
        retrain(images, tmp_path, train=TrainSettings(epochs=2, drop_path=0.3))


def test_a_compiled_network_learns_the_same_and_is_kept_as_any_other(
    images, finished, tmp_path, monkeypatch
):
    backends = []
    compiling = torch.nn.Module.compile

    def compile_quickly(self):
        # Everything but the generation of code, which takes half a minute.
        backends.append("aot_eager")
        compiling(self, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_quickly)
    compiled = retrain(images, tmp_path, compiled=True)
    assert backends == ["aot_eager"]
    assert names(tmp_path) == FILES
    kept, plain = (
        safetensors.torch.load_file(folder / "weights.safetensors")
        for folder in (tmp_path, finished)
    )
    assert kept.keys() == plain.keys()
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, plain[name])
    assert retrain(images, tmp_path, compiled=True) == compiled
    assert backends == ["aot_eager"]
    with pytest.raises(UserError, match="another"):
        retrain(images, tmp_path)


@pytest.mark.parametrize("keys", [{"drop_path": 0.2}, {"auxiliary": 0.4}])
def test_what_cannot_be_compiled_is_refused_before_anything_is_made(images, tmp_path, keys):
    folder = tmp_path / "network"
    train = TrainSettings(epochs=4, **keys)
    with pytest.raises(ValueError, match="`compile` must be false"):
        retrain(images, folder, train=train, compiled=True)
    assert not folder.exists()


EDITS = {
    "a deviation of 0": ({"std": [0.0]}, "`std` must hold a positive number for each of 1"),
    "a mean too many": ({"mean": [0.5, 0.5]}, "`mean` must hold a number for each of 1 channels"),
    "images beyond any": ({"input_shape": [1, 10**5, 10**5]}, "`input_shape` must be of 1 to"),
    "a depth of 0": ({"preprocessing": {"integers": 0}}, "`preprocessing` has a number out of"),
    "no colour": ({"preprocessing": {"background": [999, 0, 0]}}, "`preprocessing` has a number"),
    "a later rule": ({"preprocessing": {"sharpen": 1}}, "preprocessing: sharpen: Unexpected"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_description_of_no_images_is_refused(network, edit):
    fields, said = EDITS[edit]
    known = json.loads((network / "network.json").read_text())
    (network / "network.json").write_text(json.dumps(known | fields))
    assert said in refusal(network)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda tensor: torch.full_like(tensor, torch.nan), "not finite"),
        (lambda tensor: tensor.half(), "torch.float16, not torch.float32"),
        (lambda tensor: tensor[:1], "size mismatch"),
    ],
)
def test_weights_of_no_training_are_refused(network, damage, said):
    state = safetensors.torch.load_file(network / "weights.safetensors")
    state = {name: damage(t) if t.is_floating_point() else t for name, t in state.items()}
    content = safetensors.torch.save(state)
    (network / "weights.safetensors").write_bytes(content)
    known = json.loads((network / "network.json").read_text())
    known["weights_sha256"] = hashlib.sha256(content).hexdigest()
    (network / "network.json").write_text(json.dumps(known))
    assert said in refusal(network)


def test_a_description_of_gigabytes_is_not_read(network):
    os.truncate(network / "network.json", 2**34)
    assert "it has 17,179,869,184 bytes" in refusal(network)
