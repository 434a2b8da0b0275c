"""Kept networks answer to files, folders, pictures and arrays as in training, or say what not."""

import csv
import dataclasses
import io
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import optnas
from optnas.config.settings import DataSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.data.images import load_images
from optnas.objectives.kept import trained
from optnas.objectives.kept.descriptions import describe
from optnas.spaces import ChainArchitecture

PER_CLASS = 12


def picture(kind: int, rng: np.random.Generator) -> Image.Image:
    """A disc, bars or noise, of any size and mode."""
    height, width = rng.integers(24, 90, 2)
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    shade = (
        (y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.1 if kind == 0 else (x * 6).astype(int) % 2
    ) * 200.0
    pixels = np.clip(shade[..., None] + rng.normal(20, 25, (height, width, 3)), 0, 255)
    image = Image.fromarray(pixels.astype(np.uint8))
    mode = ("RGB", "L", "RGBA", "P")[rng.integers(4)]
    if mode == "RGBA":
        image.putalpha(Image.fromarray((y > 0.2).astype(np.uint8) * 255))
        return image
    return image.convert(mode)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Photos of two classes, with test images of their own."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split in ("train", "test"):
        for kind, name in enumerate(("disc", "bars")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(PER_CLASS):
                picture(kind, rng).save(folder / f"{index:02}.png")
    return root


def kept(folder: Path, **data):
    images = load_images(DataSettings(name="images", size=16, **data), 0)
    trained.retrain(
        ChainArchitecture(2, 8),
        images,
        TrainSettings(epochs=6, lr=0.1, batch_size=8),
        folder,
        network={},
        seed=0,
        origin={},
        device=torch.device("cpu"),
    )
    return optnas.load(folder)


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("network")
    kept(place, root=str(photos))
    return place


@pytest.fixture(scope="module")
def model(folder):
    return optnas.load(folder)


READINGS = {
    "as it is": {},
    "cropped": {"resize": "crop"},
    "padded with red": {"resize": "pad", "background": "#ff0000"},
    "gray": {"channels": 1},
    "streamed": {"stream": True, "channels": 1},
    "as version 0.1 read": {"reading": 1},
}


@pytest.mark.parametrize("reading", READINGS)
def test_the_accuracy_on_the_files_is_that_of_retrain(photos, tmp_path, reading):
    model = kept(tmp_path, root=str(photos), **READINGS[reading])
    answers = model.predict(photos / "test")
    assert len(answers) == 2 * PER_CLASS
    correct = sum(answer.label == Path(answer.source).parent.name for answer in answers)
    assert correct / len(answers) == describe(tmp_path).test_accuracy


@pytest.mark.parametrize("reading", READINGS)
def test_files_become_the_very_pixels_of_training(photos, tmp_path, reading):
    settings = DataSettings(name="images", size=16, root=str(photos), **READINGS[reading])
    images = load_images(settings, 0)
    preprocessing = trained.preprocessing_of(images.reading.preparation)
    ours = {
        preprocessing.read(path, images.input_shape).tobytes()
        for path in photos.glob("test/*/*.png")
    }
    assert ours == {image.numpy().tobytes() for image in images.test_images[:]}


def test_pictures_arrays_and_tensors_are_what_the_file_is(photos, model):
    path = next(photos.glob("test/disc/*.png"))
    image = Image.open(path).convert("RGB")
    image.save(path.parents[2] / "one.png")
    file = path.parents[2] / "one.png"
    hwc = np.asarray(image)
    chw = np.moveaxis(hwc, 2, 0)
    expected = model.predict(file, top=2)
    assert expected.labels == model.predict(path.parents[2] / "one.png", top=9).labels
    assert sum(expected.probabilities) == pytest.approx(1)
    many = {
        "list": [image],
        "NHWC": hwc[None],
        "NCHW": chw[None],
        "NCHW tensor": torch.from_numpy(chw.copy())[None],
        "list of paths": [str(file)],
    }
    for name, given in many.items():
        answers = model.predict(given, top=2)
        assert isinstance(answers, list), name
        assert [a.probabilities for a in answers] == [expected.probabilities], name
    single = {
        "picture": image,
        "HWC": hwc,
        "CHW": chw,
        "tensor": torch.from_numpy(chw.copy()),
        "floats": hwc / 255,
        "uint16": hwc.astype(np.uint16) * 257,
        "text": str(file),
    }
    for name, given in single.items():
        assert model.predict(given, top=2).probabilities == expected.probabilities, name
    gray = np.asarray(image.convert("L"))
    same = model.predict(image.convert("L"), top=2).probabilities
    assert model.predict(gray, top=2).probabilities == same
    assert model.predict(gray[None], top=2).probabilities == same
    assert model.predict(np.stack([gray, gray, gray, gray, gray]))[4].label in model.class_names
    assert model.predict(gray[..., None], top=2).probabilities == same


WRONG = {
    "another size": (torch.zeros(2, 3, 20, 16, dtype=torch.uint8), "(2, 3, 20, 16)"),
    "other channels": (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), "(2, 1, 16, 16)"),
    "channels last": (torch.zeros(2, 16, 16, 3, dtype=torch.uint8), "(2, 16, 16, 3)"),
    "no batch": (torch.zeros(3, 16, 16, dtype=torch.uint8), "(3, 16, 16)"),
    "int64": (torch.zeros(2, 3, 16, 16, dtype=torch.int64), "int64"),
    "uint16": (torch.zeros(2, 3, 16, 16, dtype=torch.uint16), "uint16"),
    "bool": (torch.zeros(2, 3, 16, 16, dtype=torch.bool), "bool"),
    "0 to 255": (torch.full((2, 3, 16, 16), 255.0), "values from 255 to 255"),
    "normalised": (torch.linspace(-2, 2, 1536).view(2, 3, 16, 16), "values from -2 to 2"),
    "no number": (torch.full((2, 3, 16, 16), torch.nan), "nan"),
    "one byte": (torch.zeros(2, 3, 16, 16).to(torch.float8_e4m3fn), "float8_e4m3fn"),
    "sparse": (torch.zeros(2, 3, 16, 16).to_sparse(), "sparse_coo float32"),
    "an array": (np.zeros((2, 3, 16, 16), np.uint8), "got a ndarray"),
    "half, too large": (torch.full((2, 3, 16, 16), 3, dtype=torch.float16), "float16"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_was_not_trained_on_is_refused_with_what_it_is(model, name):
    images, said = WRONG[name]
    with pytest.raises(ValueError, match=r"takes uint8, or floats in \[0, 1\], of shape") as got:
        model(images)
    assert said in str(got.value)
    assert "(N, 3, 16, 16)" in str(got.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_in_the_unit_interval_are_taken(model, dtype):
    images = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    expected = model(images.byte()).softmax(1)
    torch.testing.assert_close(
        model((images / 255).to(dtype)).softmax(1).float(), expected, atol=0.05, rtol=0.05
    )
    assert model(images.byte()[:0]).shape == (0, 2)


def test_the_checks_stay_outside_what_is_exported(model):
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    text = torch.export.export(model, (images,)).graph_module.code
    assert "aminmax" not in text
    assert "item" not in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((16, 16), np.int64), "must be uint8, uint16, or floats"),
        (np.full((16, 16), 255.0), "values from 255 to 255"),
        (np.zeros((5, 5, 5, 5, 5), np.uint8), "is no image"),
        (np.zeros((0, 16), np.uint8), "is no image"),
        (np.ma.masked_equal(np.eye(16, dtype=np.uint8), 0), "masked values are no image"),
        ({"a": 1}, "a dict is no image"),
        (b"bytes", "a bytes is no image"),
        (7, "a int is no image"),
        (np.array([[1, None], [3, 4]]), r"uint8, uint16, or floats in \[0, 1\]: object"),
        (np.zeros((9, 9), "M8[s]"), "datetime64"),
        (torch.zeros(3, 16, 16).to_sparse(), "a tensor that is no array"),
        (torch.zeros(3, 16, 16, device="meta"), "a tensor that is no array"),
        (Image.new("RGB", (0, 5)), "0 x 5 pixels shows nothing"),
        ("nowhere.png", "No such file"),
    ],
)
def test_what_is_no_image_is_refused(model, given, said):
    with pytest.raises(UserError, match=said):
        model.predict(given)


def test_a_bad_file_is_named_and_the_rest_is_predicted(photos, model, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image")
    good = tmp_path / "below" / "b.png"
    good.parent.mkdir()
    good.write_bytes(next(photos.glob("test/bars/*.png")).read_bytes())
    with pytest.warns(UserWarning, match=r"left out: .*\.hidden\.png; .*notes\.txt"):
        bad, fine = model.predict(tmp_path)
    assert (Path(bad.source).name, bad.label, bad.probability) == ("a.png", None, None)
    assert "no image of a known format" in bad.error
    assert fine.label in ("disc", "bars")
    with pytest.raises(UserError, match=r"a\.png: it is no image"):
        model.predict(tmp_path / "a.png")
    with pytest.raises(UserError, match="holds no images"):
        model.predict(_empty(tmp_path))


def test_folders_are_walked_as_those_of_the_training(photos, model, tmp_path):
    (tmp_path / "linked").symlink_to(photos / "test" / "bars")
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "@eaDir" / "0.png").write_bytes(b"no image")
    (tmp_path / "linked.png").symlink_to("linked.png")
    with pytest.warns(UserWarning, match=r"\(1\): @eaDir; links .* linked\.png"):
        found = model.predict(tmp_path, batch_size=10**30)
    assert [Path(each.source).name for each in found] == [f"{i:02}.png" for i in range(PER_CLASS)]
    assert not any(each.error for each in found)


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_the_command_prints_text_json_and_tables(photos, folder, tmp_path, optnas_command):
    place = photos / "test"
    code, out, err = optnas_command("predict", folder, place, "--top", 2)
    assert code == 0
    assert len(out.splitlines()) == 2 * PER_CLASS
    assert err == f"Next: optnas export {folder} --to onnx\n"
    code, out, _ = optnas_command("predict", folder, place, "--json", "--batch-size", 5)
    lines = [json.loads(line) for line in out.splitlines()]
    expected = optnas.load(folder).predict(place)
    assert [line["predictions"][0]["label"] for line in lines] == [e.label for e in expected]
    assert all(line["error"] is None for line in lines)
    bad = tmp_path / "bad,name.png"
    bad.write_text("<svg/>")
    code, out, err = optnas_command("predict", folder, bad, place, "--csv", "--top", 9)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert "bad,name.png: it is text" in err
    assert f"1 of {2 * PER_CLASS + 1} cannot be read" in err
    assert rows[0]["file"] == str(bad)
    assert rows[0]["error"].startswith("it is text")
    assert {row["label"] for row in rows[1:]} <= {"disc", "bars"}
    assert float(rows[1]["probability"]) >= float(rows[1]["probability_2"])


def test_the_command_refuses_what_is_not_there(folder, tmp_path, optnas_command):
    assert optnas_command("predict", folder, tmp_path / "no")[0] == 2
    assert optnas_command("predict", tmp_path, tmp_path)[0] == 2
    assert optnas_command("predict", folder, folder, "--csv", "--json")[0] == 2
    code, _, err = optnas_command("predict", folder, tmp_path, "--device", "nowhere")
    assert code == 2
    assert "nowhere" in err


def test_a_network_of_version_0_1_says_what_it_lacks(folder, photos, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    fields = json.loads((tmp_path / "network.json").read_text())
    for key in ("preprocessing",):
        del fields[key]
    (tmp_path / "network.json").write_text(json.dumps(fields))
    with pytest.warns(UserWarning, match=r"as it was kept by version 0\.1"):
        old = optnas.load(tmp_path)
    assert old.preprocessing.reading == 1
    assert len(old.predict(photos / "test")) == 2 * PER_CLASS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optnas.load(folder)


def test_networks_of_images_that_are_not_square_take_pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        "    r = np.random.default_rng(0)\n"
        "    x = r.integers(0, 256, (40, 8, 12), dtype=np.uint8)\n"
        "    y = np.arange(40) % 2\n"
        "    return x[:30], y[:30], x[30:], y[30:]\n"
    )
    images = load_images(DataSettings(name="own:data"), 0, tmp_path)
    place = tmp_path / "network"
    trained.retrain(
        ChainArchitecture(1, 4),
        images,
        TrainSettings(epochs=1),
        place,
        network={},
        seed=0,
        origin={},
        device=torch.device("cpu"),
    )
    model = optnas.load(place)
    assert model.input_shape == (1, 8, 12)
    picture = Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8))
    assert model.predict(picture).label in model.class_names
    pixels = images.test_images[0, 0].numpy()
    assert model.predict(pixels).probability == model.predict(Image.fromarray(pixels)).probability


def deep(values: np.ndarray, folder: Path, name: str) -> Path:
    path = folder / name
    Image.fromarray(values).save(path)
    return path


def test_deep_samples_are_read_as_the_training_read_them(photos, model, tmp_path):
    """An array of 16 bits is what its file is; what exceeds the training's depth is refused."""
    gray = np.asarray(Image.open(next(photos.glob("test/disc/*.png"))).convert("L"))
    sixteen = gray.astype(np.uint16) * 257
    file = deep(sixteen, tmp_path, "16.png")
    assert model.predict(file) == dataclasses.replace(model.predict(sixteen), source=str(file))
    coloured = np.repeat(sixteen[..., None], 3, 2)
    assert model.predict(coloured).probability == model.predict(gray).probability
    shallow = trained.classifier_of(describe_with(model, integers=4095.0), model.network)
    twelve = gray.astype(np.uint16) * 16
    assert shallow.predict(twelve).label == model.predict(gray).label
    for given in (sixteen, file, Image.open(file)):
        with pytest.raises(UserError, match=r"its samples go from 0 to .* from 0 to 4095"):
            shallow.predict(given)


def describe_with(model, **preparation):
    """A description of a network whose images were read otherwise."""
    return SimpleNamespace(
        mean=model.mean,
        std=model.std,
        class_names=model.class_names,
        input_shape=model.input_shape,
        preprocessing=dataclasses.replace(model.preprocessing, **preparation),
    )


@pytest.mark.parametrize("name", ["array", "file"])
def test_what_is_nearly_black_to_the_network_is_said(photos, model, tmp_path, name):
    gray = np.asarray(Image.open(next(photos.glob("test/disc/*.png"))).convert("L"))
    given = gray.astype(np.uint16)
    given = given if name == "array" else deep(given.astype(np.int32), tmp_path, "i.tif")
    with pytest.warns(UserWarning, match="its samples end at .* nearly black"):
        model.predict(given)


def test_floats_of_a_file_that_exceed_the_training_are_refused(photos, model, tmp_path):
    pixels = np.asarray(Image.open(next(photos.glob("test/disc/*.png"))).convert("F"))
    file = deep(pixels, tmp_path, "f.tif")
    with pytest.raises(UserError, match=r"f\.tif: its samples go from .* from 0 to 1: scale"):
        model.predict(file)
    (answer,) = model.predict([file])
    assert answer.error.startswith("its samples go from")


def test_tensors_in_half_precision_are_images(photos, model):
    image = np.asarray(Image.open(next(photos.glob("test/disc/*.png"))).convert("RGB"))
    half = torch.from_numpy(np.moveaxis(image, 2, 0).copy()).bfloat16() / 255
    assert model.predict(half).label == model.predict(image).label
