"""How good a network is on images that it has not seen: by image, by class, and where it errs."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optnas.objectives.data.image_files import Pixels
from optnas.objectives.training.memory import in_pieces
from optnas.objectives.training.metrics import (
    balanced_accuracy,
    confusion_of,
    macro_f1,
    precision_recall_f1,
)
from optnas.objectives.training.trainer import EVALUATION_IMAGES, EVALUATION_PIXELS
from optnas.trials.chance import chance_level, interval, is_chance

TOP = 5
MISTAKES = 20
Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How good a network is at one class.

    Args:
        name: The class.
        images: How many images are of it.
        named: How many it named so.
        precision: The share of these that are; 0 if there are none.
        recall: The share of the images of the class that it found; 0 if there are none.
        f1: The harmonic mean of both.
        recall_interval: The 95 % interval of the recall; None without images.
    """

    name: str
    images: int
    named: int
    precision: float
    recall: float
    f1: float
    recall_interval: Interval | None


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image that was taken for another class, by a number or a file.

    Args:
        image: The file, or the number among the test images.
        label: Its class.
        named: What it was taken for.
        probability: How sure the network was of that.
    """

    image: str | int
    label: str
    named: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Judgement:
    """How good a network is; shares have 95 % intervals (Wilson).

    Args:
        images: How many were looked at.
        accuracy: The share whose class was the most probable.
        accuracy_interval: Its interval.
        top_5: The share whose class was among the five most probable; None of five classes.
        top_5_interval: Its interval.
        balanced_accuracy: The mean recall of the classes that there are images of.
        macro_f1: The mean F1 of the classes that there are images of, or that were named.
        chance: The accuracy of who always names the largest class.
        is_chance: Whether a guess could have this accuracy.
        classes: Every class.
        confusion: How often each class (row) was taken for which (column).
        mistakes: The worst ones, the surest first.
    """

    images: int
    accuracy: float
    accuracy_interval: Interval
    top_5: float | None
    top_5_interval: Interval | None
    balanced_accuracy: float
    macro_f1: float
    chance: float
    is_chance: bool
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]

    def value(self, metric: str) -> float | None:
        """What a search can maximise, of these images; None if it is none of theirs."""
        found = {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "top_5": self.top_5,
        }
        return found.get(metric)


def judge(
    model: Callable[[Tensor], Tensor],
    images: Pixels,
    labels: Tensor,
    class_names: Sequence[str],
    *,
    names: Sequence[str] | None,
    device: torch.device,
) -> Judgement:
    """Have a network look at images once.

    Args:
        model: Gives logits (N, classes) of uint8 images (N, C, H, W).
        images: Those, in memory or in files.
        labels: int64 (N,).
        class_names: The names of the classes.
        names: Those of the images; None counts them from 0.
        device: Where the model is.
    """
    shares = _answers(model, images, device)
    return judgement(shares, labels.cpu(), class_names, names)


def judgement(
    probabilities: Tensor, labels: Tensor, class_names: Sequence[str], names: Sequence[str] | None
) -> Judgement:
    """How good answers (N, classes) are, on the CPU."""
    count, classes = probabilities.shape
    sure, answers = probabilities.max(1)
    confusion = confusion_of(labels, answers, classes)
    right = int(confusion.diagonal().sum())
    hits = None
    if classes > TOP:
        hits = int((probabilities.topk(TOP, 1).indices == labels[:, None]).sum())
    counts = confusion.sum(1).tolist()
    return Judgement(
        images=count,
        accuracy=right / count,
        accuracy_interval=interval(right, count),
        top_5=None if hits is None else hits / count,
        top_5_interval=None if hits is None else interval(hits, count),
        balanced_accuracy=balanced_accuracy(confusion).item(),
        macro_f1=macro_f1(confusion).item(),
        chance=chance_level(counts),
        is_chance=bool(is_chance(right / count, counts)),
        classes=_by_class(confusion, class_names),
        confusion=tuple(map(tuple, confusion.tolist())),
        mistakes=_mistakes(sure, answers, labels, class_names, names),
    )


def _by_class(confusion: Tensor, class_names: Sequence[str]) -> tuple[ClassScore, ...]:
    precision, recall, f1 = (values.tolist() for values in precision_recall_f1(confusion))
    images, named = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    right = confusion.diagonal().tolist()
    return tuple(
        ClassScore(
            name,
            images[place],
            named[place],
            precision[place],
            recall[place],
            f1[place],
            interval(right[place], images[place]) if images[place] else None,
        )
        for place, name in enumerate(class_names)
    )


def _mistakes(
    sure: Tensor,
    answers: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    names: Sequence[str] | None,
) -> tuple[Mistake, ...]:
    wrong = torch.nonzero(answers != labels).flatten()
    worst = wrong[sure[wrong].argsort(descending=True, stable=True)][:MISTAKES].tolist()
    return tuple(
        Mistake(
            index if names is None else names[index],
            class_names[int(labels[index])],
            class_names[int(answers[index])],
            float(sure[index]),
        )
        for index in worst
    )


@torch.inference_mode()
def _answers(model: Callable[[Tensor], Tensor], images: Pixels, device: torch.device) -> Tensor:
    """Probabilities (N, classes) in float64, on the CPU."""

    def answer(start: int, stop: int) -> Tensor:
        return model(images[start:stop].to(device)).double().softmax(1).cpu()

    size = max(1, min(EVALUATION_IMAGES, EVALUATION_PIXELS // math.prod(images.shape[2:])))
    return torch.cat(list(in_pieces(answer, len(images), size, device)))
