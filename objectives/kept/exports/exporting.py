"""From a kept network to a file that other programs run, compared with it before it is kept."""

import dataclasses
import json
import keyword
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optnas._version import __version__
from optnas.errors import UserError
from optnas.objectives.kept import ensembles
from optnas.objectives.kept.descriptions import Description, describe
from optnas.objectives.kept.embedders import Embedder
from optnas.objectives.kept.exports import forms
from optnas.objectives.kept.exports.forms import FORMS, NAMES, Form
from optnas.objectives.kept.exports.quantised import quantise
from optnas.objectives.kept.exports.real_images import COMPARED, RealImages, images_in, images_of
from optnas.objectives.kept.exports.served import Kept, given_to, served

GREATEST_DIFFERENCE = 1e-4
"""What an export may differ in from its network; more is not kept."""
_TIMED = 20
_PIECE = 256


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export is and how near it is to its network.

    Args:
        files: Its files.
        form: Its form.
        images: How many real images both have seen.
        difference: The greatest difference of any answer; of logits relative to the largest.
        bytes: The size of all files.
        milliseconds: For one image, on one thread of this CPU; ExecuTorch's own threads.
        accuracy: Of the network on labelled test images, where it is quantised.
        quantised_accuracy: That of the export, on the same.
        agreement: The share of images that both call the same, where it is quantised.
        notes: What else there is to know.
    """

    files: tuple[str, ...]
    form: str
    images: int
    difference: float
    bytes: int
    milliseconds: float
    accuracy: float | None = None
    quantised_accuracy: float | None = None
    agreement: float | None = None
    notes: tuple[str, ...] = ()


def export(
    folder: str | Path,
    form: str,
    output: Path | None = None,
    *,
    images: Path | None = None,
    raw: bool = False,
    int8: bool = False,
) -> Exported:
    """Write a kept network in another form, run both beside each other, and keep what agrees.

    Args:
        folder: The network, the face network, or the ensemble.
        form: One of `FORMS`.
        output: The file. Default: one in the folder, named after the form.
        images: A folder of images to run both on; None takes those of the training's data set.
        raw: Whether it takes normalised float32 images and gives logits, instead of uint8 images
            and probabilities or embeddings.
        int8: Whether an ONNX file is quantised, calibrated on training images.

    Raises:
        UserError: If it cannot be written so, differs by more than 1e-4, or there are no images.
    """
    chosen = _form(form, int8)
    forms.check_installed(chosen)
    folder = Path(folder)
    kept = ensembles.load(folder)
    if int8 and isinstance(kept, Embedder):
        raise UserError("--int8 is for classifiers: what it costs a face network is not measured")
    description = _description(folder)
    model = _served(kept, raw)
    real = (
        images_of(description, unchanged=int8)
        if images is None
        else images_in(images, kept.reader)
    )
    path = output or folder / _name(chosen, raw, int8)
    if path.suffix != Path(NAMES[chosen]).suffix:
        raise UserError(f"--output must end with {Path(NAMES[chosen]).suffix}: {path}")
    if chosen == "python" and (not path.stem.isidentifier() or keyword.iskeyword(path.stem)):
        raise UserError(f"--output: nobody can import a module of the name {path.stem!r}")
    about = _about(description, kept, folder.resolve().name, raw)
    with _beside(path) as place:
        exported = _written(chosen, model, kept, real, place, about, int8)
        _keep(chosen, place, path)
    files = tuple(str(each) for each in forms.files_of(chosen, path))
    return dataclasses.replace(exported, files=files)


def _form(form: str, int8: bool) -> Form:
    for known in FORMS:
        if known == form:
            if int8 and known != "onnx":
                raise UserError("--int8 is for --to onnx")
            return known
    raise UserError(f"--to must be one of {', '.join(FORMS)}: {form!r}")


def _name(form: Form, raw: bool, int8: bool) -> str:
    stem, _, suffix = NAMES[form].partition(".")
    between = "_" if form == "python" else "-"  # The name of a module has no hyphen.
    said = [stem, *["raw"] * raw, *["int8"] * int8]
    return f"{between.join(said)}.{suffix}"


def _served(kept: Kept, raw: bool) -> nn.Module:
    try:
        return served(kept, raw=raw)
    except ValueError as error:
        raise UserError(str(error)) from None


def _description(folder: Path) -> Description:
    """That of a network, or of an ensemble's first."""
    description = describe(folder) or describe(folder / "1")
    assert description is not None  # It was loaded.
    return description


def _about(description: Description, kept: Kept, name: str, raw: bool) -> str:
    """What is known of the network, for the metadata."""
    channels, height, width = kept.input_shape
    shape = f"(N, {channels}, {height}, {width})"
    return json.dumps(
        {
            **_kind(kept, name, raw),
            "input": f"float32 {shape}, normalised" if raw else f"uint8 {shape}",
            "preprocessing": {
                **dataclasses.asdict(kept.preprocessing),
                "mean": list(description.mean),
                "std": list(description.std),
            },
            "provenance": {
                "origin": {key: str(value) for key, value in description.origin.items()},
                "space": description.space,
                "weights_sha256": description.weights_sha256,
                "data_sha256": description.data_sha256,
                "test_accuracy": description.test_accuracy,
                "test_images": description.test_images,
                "versions": {**description.versions, "exported by optnas": __version__},
            },
        }
    )


def _kind(kept: Kept, name: str, raw: bool) -> dict[str, Any]:
    """What a network gives."""
    if isinstance(kept, Embedder):
        return {
            "title": f"{name}: a face network found by architecture search",
            "output": "embeddings (N, E), of any length"
            if raw
            else "embeddings (N, E) of length 1",
            "thresholds": kept.thresholds,
        }
    return {
        "title": f"{name}: an image classifier found by architecture search",
        "output": "logits (N, classes)" if raw else "probabilities (N, classes)",
        "class_names": list(kept.class_names),
    }


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A place for the file until it has been compared."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=".export-", dir=path.parent)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name another file with --output") from None
    try:
        yield Path(folder) / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(form: Form, place: Path, path: Path) -> None:
    pairs = zip(forms.files_of(form, place), forms.files_of(form, path), strict=True)
    for source, target in reversed(list(pairs)):  # The first file comes last: it names the others.
        os.replace(source, target)


def _written(
    form: Form,
    model: nn.Module,
    kept: Kept,
    real: RealImages,
    place: Path,
    about: str,
    int8: bool,
) -> Exported:
    tests = given_to(model, real.tests[:COMPARED], kept)
    example = tests[:1].repeat(2, 1, 1, 1)
    with _single_thread():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of torch's own exporters, about themselves.
                forms.write(form, model, example, place, about)
                difference = _difference(model, forms.runner(form, place), tests)
        except Exception as error:  # whatever a converter says of a network that it cannot take
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"this network cannot be written for {form}: {reason}") from error
        if not difference <= GREATEST_DIFFERENCE:
            raise UserError(
                f"the {form} file differs from the network by {difference:.2g} on {len(tests)} "
                f"images, more than {GREATEST_DIFFERENCE:g}: it was not kept"
            )
        further: dict[str, Any] = {}
        if int8:
            quantise(place, place, given_to(model, real.training, kept).numpy())
            further = _cost(model, forms.runner(form, place), real, kept)
        run = forms.runner(form, place)
        milliseconds = _milliseconds(run, tests[:1].numpy())
    sizes = [each.stat().st_size for each in forms.files_of(form, place)]
    notes = _notes(form, model)
    return Exported(
        (), form, len(tests), difference, sum(sizes), milliseconds, notes=notes, **further
    )


@torch.inference_mode()
def _difference(model: nn.Module, run: forms.Runner, images: Tensor) -> float:
    """The greatest difference, of one image alone and of all at once."""
    expected = model(images).numpy()
    found = [run(images.numpy()), run(images[:1].numpy())]
    scale = max(1.0, float(np.abs(expected).max()))
    pairs = zip(found, (expected, expected[:1]), strict=True)
    return max(float(np.abs(ours - theirs).max()) / scale for ours, theirs in pairs)


@torch.inference_mode()
def _cost(model: nn.Module, run: forms.Runner, real: RealImages, kept: Kept) -> dict[str, Any]:
    """What quantisation costs on all test images."""
    images = given_to(model, real.tests, kept)
    pieces = [images[start : start + _PIECE] for start in range(0, len(images), _PIECE)]
    before = np.concatenate([model(piece).numpy().argmax(1) for piece in pieces])
    after = np.concatenate([run(piece.numpy()).argmax(1) for piece in pieces])
    costs: dict[str, Any] = {"agreement": float((before == after).mean())}
    if real.labels is not None:
        labels = real.labels.numpy()
        costs["accuracy"] = float((before == labels).mean())
        costs["quantised_accuracy"] = float((after == labels).mean())
    return costs


def _milliseconds(run: forms.Runner, image: np.ndarray) -> float:
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def _notes(form: Form, model: nn.Module) -> tuple[str, ...]:
    """What a runtime is known to handle badly."""
    wide = any(
        isinstance(part, nn.Conv2d) and part.groups > 1 and max(part.kernel_size) >= 7
        for part in model.modules()
    )
    notes = []
    if form == "executorch":
        notes.append(f"it takes at most {forms.DEVICE_BATCH} images at once")
        if wide:
            notes.append(
                "XNNPACK takes 23 to 42 times as long for depthwise convolutions of 7x7 as for "
                "those of 3x3, and this network has some"
            )
    return tuple(notes)


@contextmanager
def _single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
