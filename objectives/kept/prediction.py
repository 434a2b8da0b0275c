"""Answers of a kept network to what people have: files, folders, pictures, arrays, tensors."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from optnas.errors import UserError
from optnas.objectives.data.decoding import suffixes
from optnas.objectives.data.listing import left_out_lines, walk
from optnas.objectives.kept.preprocessing import Preprocessing, single_images

BATCH = 64
_READERS = 8


class Answer(Protocol):
    """What a kept network says of one image."""

    @property
    def source(self) -> str | None:
        """The file, or None of what was no file."""

    @property
    def error(self) -> str | None:
        """Why it cannot be read; None if it can."""


A = TypeVar("A", bound=Answer)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Args:
        source: The file, or None of what was no file.
        labels: The names of the most probable classes, the most probable first; none if the image
            cannot be read.
        probabilities: Theirs.
        error: Why it cannot be read; None if it can.
    """

    source: str | None
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class."""
        return self.labels[0] if self.labels else None

    @property
    def probability(self) -> float | None:
        """That of the most probable class."""
        return self.probabilities[0] if self.probabilities else None

    def fields(self) -> dict[str, Any]:
        """The same as JSON values."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        found = [{"label": label, "probability": share} for label, share in pairs]
        return {"file": self.source, "predictions": found, "error": self.error}

    def text(self) -> str:
        """The same in a line."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        return ", ".join(f"{name} {share:.4f}" for name, share in pairs)

    def cells(self) -> list[str]:
        """The labels and probabilities of a table's row."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        return [cell for label, share in pairs for cell in (label, f"{share:.6f}")]


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """Makes of one thing what a network takes.

    Args:
        preprocessing: How it was done in training.
        shape: Channels, height and width.
    """

    preprocessing: Preprocessing
    shape: tuple[int, int, int]

    def __call__(self, source: Any) -> np.ndarray:
        """One image as uint8 (C, H, W).

        Raises:
            OSError: If a file cannot be read.
            ValueError: If it is no image that the network can take.
        """
        if isinstance(source, str | Path):
            return self.preprocessing.read(source, self.shape)
        if isinstance(source, np.ndarray):
            return self.preprocessing.array(source, self.shape)
        return self.preprocessing.picture(source, self.shape)

    def sources(self, given: Any) -> tuple[list[Any], bool]:
        """The single images in something, and whether it is several by its kind.

        Raises:
            UserError: If it is nothing that holds images.
        """
        if isinstance(given, str | Path):
            path = Path(given)
            return (image_files(path), True) if path.is_dir() else ([path], False)
        if isinstance(given, Tensor | np.ndarray):
            is_tensor = isinstance(given, Tensor)
            try:
                if np.ma.is_masked(given):
                    raise ValueError(
                        "masked values are no image: say what is there by `.filled()`"
                    )
                values = _numbers(given) if isinstance(given, Tensor) else given
                images = single_images(values, self.shape, first=is_tensor)
            except ValueError as error:
                raise UserError(f"{error}; this network takes {self._wanted()}.") from None
            return (images, True) if isinstance(images, list) else ([images], False)
        if hasattr(given, "convert") and hasattr(given, "getbands"):  # a picture of Pillow's
            return [given], False
        if isinstance(given, Iterable) and not isinstance(given, bytes | dict):
            return [each for part in given for each in self.sources(part)[0]], True
        raise UserError(
            f"a {type(given).__name__} is no image: give a path, a folder, a PIL image, an array, "
            "a tensor, or a list of these."
        )

    def _wanted(self) -> str:
        return f"images of {self.shape[0]} channels, {self.shape[1]} x {self.shape[2]} pixels"


def _numbers(tensor: Tensor) -> np.ndarray:
    """A tensor as an array, which has no bfloat16."""
    try:
        tensor = tensor.detach().cpu()
        return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    except (TypeError, RuntimeError) as error:  # sparse, quantised, without data
        raise ValueError(f"a tensor that is no array is no image: {error}") from None


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and in those below it, in the order of their names.

    A warning says what was left out, by the rules of training's folders.

    Raises:
        UserError: If there is none, or a folder cannot be read.
    """
    left_out: dict[str, list[str]] = {}
    found = sorted(Path(path) for path, _ in walk(folder, left_out).every())
    lines = "; ".join(left_out_lines(left_out))
    if not found:
        known = ", ".join(sorted(suffixes()))
        raise UserError(
            f"{folder} holds no images: expected files {known} in it or below."
            + (f" Left out: {lines}." if lines else "")
        )
    if lines:
        warnings.warn(f"{folder}: left out: {lines}", stacklevel=3)
    return found


class KeptNetwork(nn.Module):
    """What answers images of the size of its training.

    Args:
        input_shape: Channels, height and width of the images.
        preprocessing: How they were made of files.
    """

    def __init__(self, input_shape: tuple[int, int, int], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.preprocessing = preprocessing

    @property
    def reader(self) -> Reader:
        """Makes of files, pictures and arrays what the network takes."""
        return Reader(self.preprocessing, self.input_shape)

    @torch.inference_mode()
    def _judged(self, images: Tensor) -> Tensor:
        """What ``forward`` says when nothing is learnt, in float64."""
        was_training = self.training
        self.eval()
        try:
            found: Tensor = self(images.to(next(self.parameters()).device))
            return found.double()
        finally:
            self.train(was_training)


def predictions(
    answer: Callable[[Tensor], Tensor],
    reader: Reader,
    sources: Sequence[Any],
    class_names: Sequence[str],
    *,
    top: int = 1,
    batch_size: int = BATCH,
) -> Iterator[Prediction]:
    """What a network says of every image, one after the other.

    Args:
        answer: Probabilities (N, classes) on the CPU of uint8 images (N, C, H, W).
        reader: Makes these images.
        sources: Single images; files are read side by side.
        class_names: The names of the classes.
        top: How many classes are named.
        batch_size: How many images are answered at once.

    Raises:
        UserError: If a number is out of range.
    """
    if top < 1:
        raise UserError(f"`top` must be greater than or equal to 1: {top}.")
    count = min(top, len(class_names))
    for file, row in answered(answer, reader, sources, batch_size):
        if isinstance(row, str):
            yield Prediction(file, error=row)
        else:
            shares, places = row.topk(count)
            names = tuple(class_names[place] for place in places.tolist())
            yield Prediction(file, names, tuple(shares.tolist()))


def answered(
    answer: Callable[[Tensor], Tensor], reader: Reader, sources: Sequence[Any], batch_size: int
) -> Iterator[tuple[str | None, Tensor | str]]:
    """The file of every image, if it is one, and its answer, or why it cannot be read.

    Args:
        answer: Answers (N, ...) on the CPU to uint8 images (N, C, H, W).
        reader: Makes these images.
        sources: Single images; files are read side by side.
        batch_size: How many images are answered at once.

    Raises:
        UserError: If a number is out of range.
    """
    if batch_size < 1:
        raise UserError(f"`batch_size` must be greater than or equal to 1: {batch_size}.")
    left, batch_size = iter(sources), min(batch_size, len(sources))
    with ThreadPoolExecutor(_READERS, thread_name_prefix="optnas-predict") as readers:
        while chunk := list(islice(left, batch_size)):
            read = list(readers.map(lambda source: _read(reader, source), chunk))
            images = [pixels for pixels in read if isinstance(pixels, np.ndarray)]
            rows = iter(answer(torch.from_numpy(np.stack(images))) if images else ())
            for source, pixels in zip(chunk, read, strict=True):
                file = str(source) if isinstance(source, str | Path) else None
                yield file, pixels if isinstance(pixels, str) else next(rows)


def single(answers: list[A], is_several: bool) -> A | list[A]:
    """The answers, or the only one, of what was one image.

    Raises:
        UserError: If that image cannot be read.
    """
    if is_several:
        return answers
    (answer,) = answers
    if answer.error is not None:
        raise UserError(": ".join(filter(None, (answer.source, answer.error))))
    return answer


def _read(reader: Reader, source: Any) -> np.ndarray | str:
    """The pixels, or why there are none."""
    try:
        return reader(source)
    except (OSError, ValueError) as error:
        reasons = (getattr(e, "reason", None) for e in (error, error.__cause__))
        reason = next(filter(None, reasons), None) or getattr(error, "strerror", None) or error
        return str(reason).partition("\n")[0]
