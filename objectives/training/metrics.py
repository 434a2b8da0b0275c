"""What a search can maximise on the validation images, computed where they are."""

from typing import Literal

import torch
from torch import Tensor

from optnas.errors import UserError

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "top_5"]
_TOP = 5


def check_metric(metric: Metric, classes: int) -> None:
    """Refuse a metric that says nothing of so many classes.

    Raises:
        UserError: If every network would have 1.
    """
    if metric == "top_5" and classes <= _TOP:
        raise UserError(
            f"objective.metric: top_5 of {classes} classes is always 1; take accuracy, "
            "balanced_accuracy or macro_f1."
        )


def counted(metric: Metric, logits: Tensor, labels: Tensor) -> Tensor:
    """What `measured` needs of some answers, in float64; that of more answers is the sum.

    Args:
        metric: What is wanted.
        logits: (N, classes).
        labels: int64 (N,).
    """
    if metric in ("balanced_accuracy", "macro_f1"):
        return confusion_of(labels, logits.argmax(1), logits.shape[1]).double()
    count = 1 if metric == "accuracy" else _TOP
    hits = (logits.topk(count, 1).indices == labels[:, None]).sum().double()
    return torch.stack((hits, hits.new_full((), len(labels))))


def measured(metric: Metric, counts: Tensor) -> Tensor:
    """The metric, a scalar on the device."""
    if metric == "balanced_accuracy":
        return balanced_accuracy(counts)
    if metric == "macro_f1":
        return macro_f1(counts)
    return counts[0] / counts[1].clamp(min=1)


def confusion_of(labels: Tensor, answers: Tensor, classes: int) -> Tensor:
    """How often each class (row) was taken for which (column): int64 (classes, classes)."""
    pairs = labels * classes + answers
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def precision_recall_f1(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Those of every class, (classes,) in float64; 0 where there is nothing to divide by."""
    counts = confusion.double()
    right, predicted, true = counts.diagonal(), counts.sum(0), counts.sum(1)
    return (
        right / predicted.clamp(min=1),
        right / true.clamp(min=1),
        2 * right / (predicted + true).clamp(min=1),
    )


def balanced_accuracy(confusion: Tensor) -> Tensor:
    """The mean recall of the classes that there are images of."""
    present = confusion.sum(1) > 0
    return (precision_recall_f1(confusion)[1] * present).sum() / present.sum().clamp(min=1)


def macro_f1(confusion: Tensor) -> Tensor:
    """The mean F1 of the classes that there are images of, or that were named."""
    present = (confusion.sum(1) + confusion.sum(0)) > 0
    return (precision_recall_f1(confusion)[2] * present).sum() / present.sum().clamp(min=1)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of the images (N,) are classified correctly by logits (N, classes); float64."""
    return (logits.argmax(1) == labels).sum().double()
