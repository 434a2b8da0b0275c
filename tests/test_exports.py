"""Kept networks in other forms, run in their own runtimes beside the network itself."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from runtimes import NEEDS, fresh, needs
from torch import nn

import optnas
from optnas.config.settings import DataSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.data.images import load_images
from optnas.objectives.kept import trained
from optnas.objectives.kept.exports import exporting, forms
from optnas.objectives.kept.exports.exporting import export
from optnas.objectives.kept.exports.real_images import images_of
from optnas.objectives.networks.build import BUILDERS
from optnas.spaces import (
    SPACES,
    CellSpace,
    ChainArchitecture,
    ChainSpace,
    GrowthSpace,
    NasBench201Architecture,
    StageArchitecture,
)


def _grown():
    space = GrowthSpace(cells=3, channels=4)
    return space.grow(space.initial(), 0, increments=1)


FAMILIES = {
    "chain": lambda: (ChainArchitecture(3, 6, ("conv", "separable", "separable"), (3, 5, 7)), {}),
    "cell": lambda: (
        CellSpace().random(np.random.default_rng(0)),
        {"cells": 3, "channels": 4},
    ),
    "nasbench201": lambda: (
        NasBench201Architecture(
            (
                *("nor_conv_3x3", "avg_pool_3x3", "skip_connect"),
                *("nor_conv_1x1", "none", "nor_conv_3x3"),
            )
        ),
        {"cells": 3, "channels": 4},
    ),
    "growth": lambda: (_grown(), {"gate": True}),
    "basic": lambda: (StageArchitecture((1, 1)), {}),
    "bottleneck": lambda: (StageArchitecture((1, 1), block="bottleneck"), {}),
    "nasnet": lambda: (StageArchitecture((1, 1), block="nasnet"), {}),
}


@pytest.fixture(scope="module")
def images():
    return load_images(DataSettings(name="digits"), seed=0)


@pytest.fixture(scope="module")
def networks(images, tmp_path_factory):
    """The folder of a kept network of every family, made when it is asked for."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            architecture, options = FAMILIES[family]()
            made[family] = tmp_path_factory.mktemp(family)
            trained.retrain(
                architecture,
                images,
                TrainSettings(epochs=1, lr=0.05),
                made[family],
                network=options,
                seed=0,
                origin={"study": "digits", "trial": 3},
                device=torch.device("cpu"),
            )
        return made[family]

    return of


@pytest.mark.parametrize("form", NEEDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_in_every_form_answers_as_its_network(
    networks, images, tmp_path, family, form
):
    needs(form)
    folder = networks(family)
    made = export(folder, form, tmp_path / forms.NAMES[form])
    assert made.difference <= 1e-4
    assert made.images == 100
    assert made.bytes == sum(Path(file).stat().st_size for file in made.files) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        Path(file).name for file in made.files
    )
    real = images.test_images[:100]
    np.save(tmp_path / "x.npy", real.numpy())
    answers = fresh(form, made.files[0], tmp_path / "x.npy")
    expected = optnas.load(folder).probabilities(real).numpy()
    assert np.abs(answers[:100] - expected).max() <= 1e-4
    assert np.abs(answers[100:] - expected[:1]).max() <= 1e-4
    assert answers.sum(1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("form", ["python", "torch", "onnx"])
def test_a_raw_export_takes_normalised_images_and_gives_logits(networks, images, tmp_path, form):
    needs(form)
    folder = networks("chain")
    made = export(folder, form, tmp_path / forms.NAMES[form], raw=True)
    model = optnas.load(folder)
    from optnas.objectives.data.augment import normalise

    real = images.test_images[:20]
    run = forms.runner(form, Path(made.files[0]))
    answers = run(normalise(real, model.mean, model.std).numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(answers, model(real).numpy(), atol=1e-4)


def test_onnx_says_its_classes_its_preprocessing_and_where_it_is_from(networks, tmp_path):
    needs("onnx")
    import onnx

    made = export(networks("chain"), "onnx", tmp_path / "m.onnx")
    (entry,) = onnx.load(made.files[0]).metadata_props
    about = json.loads(entry.value)
    assert entry.key == "optnas"
    assert about["class_names"] == [str(n) for n in range(10)]
    assert about["preprocessing"]["resize"] == "squash"
    assert about["provenance"]["origin"] == {"study": "digits", "trial": "3"}
    assert about["input"] == "uint8 (N, 1, 8, 8)"


def test_the_python_form_is_readable_and_needs_no_optnas(networks, tmp_path):
    made = export(networks("cell"), "python", tmp_path / "model.py")
    text = Path(made.files[0]).read_text()
    assert "optnas" not in text.replace("Made by optnas", "")
    assert " = None\n" not in text
    assert "slice(" not in text
    assert max(map(len, text.splitlines())) < 400
    assert "nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)" in text


def test_names_in_a_network_are_no_code(networks, tmp_path):
    """Class names of a network from elsewhere, and the name of its folder."""
    folder = tmp_path / '"""; import os; x = """'
    folder.mkdir()
    for path in networks("chain").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    fields = json.loads((folder / "network.json").read_text())
    evil = "'''\"\"\"\n__import__('os').abort()\n"
    fields["class_names"] = [evil, *fields["class_names"][1:]]
    (folder / "network.json").write_text(json.dumps(fields))
    files = tmp_path / "images"
    files.mkdir()
    from PIL import Image

    Image.new("L", (8, 8)).save(files / "a.png")
    made = export(folder, "python", tmp_path / "out" / "model.py", images=files)
    namespace: dict = {"__file__": made.files[0]}
    exec(compile(Path(made.files[0]).read_text(), "model.py", "exec"), namespace)
    assert namespace["CLASS_NAMES"][0] == evil


def test_eight_bits_are_judged_by_images_that_were_not_trained_on(networks):
    description = trained.describe(networks("basic"))
    others = dataclasses.replace(description, data_sha256="0" * 64)
    assert len(images_of(description, unchanged=True).tests) == len(images_of(others).tests)
    with pytest.raises(UserError, match="the images of 'digits' have become others"):
        images_of(others, unchanged=True)


def test_eight_bits_say_what_they_cost(networks, tmp_path):
    needs("onnx")
    whole = export(networks("basic"), "onnx", tmp_path / "m.onnx")
    small = export(networks("basic"), "onnx", tmp_path / "m8.onnx", int8=True)
    assert 0.9 < small.agreement <= 1
    assert abs(small.accuracy - small.quantised_accuracy) < 0.1
    assert small.accuracy == pytest.approx(trained.describe(networks("basic")).test_accuracy)
    assert small.bytes < 0.6 * whole.bytes
    import onnx

    made = onnx.load(small.files[0])
    assert any(node.op_type == "DequantizeLinear" for node in made.graph.node)
    scales = [t for t in made.graph.initializer if "weight" in t.name and "scale" in t.name]
    assert any(np.prod(t.dims) > 1 for t in scales)  # one for every channel
    assert made.metadata_props[0].key == "optnas"


def test_what_differs_is_not_kept(networks, tmp_path, monkeypatch):
    class Wrong(torch.nn.Module):
        def forward(self, images):
            return images.float().mean((2, 3)).repeat(1, 10)

    def write_another(form, model, example, path, about):
        torch.export.save(forms.exported_program(Wrong(), example), path)

    monkeypatch.setattr(forms, "write", write_another)
    with pytest.raises(UserError, match=r"differs from the network by .* it was not kept"):
        export(networks("chain"), "torch", tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_refused_in_a_line(networks, tmp_path, monkeypatch):
    folder = networks("chain")
    with pytest.raises(UserError, match="--to must be one of onnx, torch"):
        export(folder, "tflite")
    with pytest.raises(UserError, match="--int8 is for --to onnx"):
        export(folder, "torch", int8=True)
    with pytest.raises(UserError, match=r"--output must end with \.pt2"):
        export(folder, "torch", tmp_path / "m.onnx")
    for name in ("class", "my-net"):
        with pytest.raises(UserError, match=f"nobody can import a module of the name '{name}'"):
            export(folder, "python", tmp_path / f"{name}.py")
    with pytest.raises(UserError, match="holds no images"):
        export(folder, "torch", images=tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'optnas\[export-executorch\]'"):
        export(folder, "executorch")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "does not say what images"),
        ({"name": "os:abort", "seed": 0}, "come from a function of your own"),
        ({"name": "cifar10", "root": "/nowhere", "seed": 0}, "cannot be had"),
        ({"name": "digits", "classes": [0, 1], "seed": 0}, "have become others"),
        ({"name": "digits", "seed": 0, "evil": 1}, "cannot be had"),
    ],
)
def test_images_that_are_not_there_are_asked_for(networks, tmp_path, data, said):
    folder = tmp_path / "network"
    folder.mkdir()
    for path in networks("chain").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    fields = json.loads((folder / "network.json").read_text())
    fields["data"] = data
    (folder / "network.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=f"{said}.*--images"):
        export(folder, "torch", tmp_path / "m.pt2")


def test_an_ensemble_is_exported_whole(networks, images, tmp_path):
    from optnas.objectives.kept import ensembles

    folder = tmp_path / "both"
    members = [networks("chain"), networks("basic")]
    ensembles.combine(members, images, folder, torch.device("cpu"))
    made = export(folder, "torch", tmp_path / "m.pt2")
    run = forms.runner("torch", Path(made.files[0]))
    expected = optnas.load(folder).probabilities(images.test_images[:30]).numpy()
    np.testing.assert_allclose(run(images.test_images[:30].numpy()), expected, atol=1e-5)
    with pytest.raises(UserError, match="an ensemble has no single logits"):
        export(folder, "torch", tmp_path / "raw.pt2", raw=True)


def test_the_command_says_how_near_it_is(networks, tmp_path, optnas_command):
    arguments = [networks("chain"), "--to", "python", "--output", tmp_path / "net.py"]
    for further in ([], ["--json"]):
        code, out, _ = optnas_command("export", *arguments, *further)
        assert code == 0
        if further:
            assert json.loads(out)["difference"] < 1e-6
        else:
            assert "greatest difference" in out
            assert "net.safetensors" in out


def test_wide_kernels_on_devices_are_said():
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 7, groups=4))
    assert any("23 to 42 times" in note for note in exporting._notes("executorch", model))
    assert exporting._notes("onnx", model) == ()


class Together(nn.Module):
    """A recurrent layer after two that share their weight."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(in_channels, in_channels, 1) for _ in range(2))
        self.second.weight = self.first.weight
        self.read = nn.GRU(8, classes, batch_first=True)

    def forward(self, images):
        return self.read(self.second(self.first(images)).mean(1))[1][0]


class TogetherArchitecture(ChainArchitecture):
    pass


class TogetherSpace(ChainSpace):
    architecture_class = TogetherArchitecture


def test_layers_that_share_a_weight_are_kept_and_what_cannot_be_python_is_said(
    images, tmp_path, monkeypatch
):
    monkeypatch.setitem(BUILDERS, TogetherArchitecture, lambda a, i, c: Together(i, c))
    monkeypatch.setitem(SPACES, "together", TogetherSpace)
    trained.retrain(
        TogetherArchitecture(1, 1),
        images,
        TrainSettings(epochs=1, lr=0.05),
        tmp_path,
        network={},
        seed=0,
        origin={},
        device=torch.device("cpu"),
    )
    network = optnas.load(tmp_path).network
    assert network.first.weight is network.second.weight
    with pytest.raises(UserError, match="cannot be written for python: RNNBase"):
        export(tmp_path, "python")
    assert not (tmp_path / "model.py").exists()
