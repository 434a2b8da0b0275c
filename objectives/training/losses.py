"""The loss of a batch, with as much weight for every class as is asked for."""

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """The mean over the images, in float32 at least.

    Args:
        logits: (N, classes).
        labels: int64 (N,), or the probabilities of the classes (N, classes).
        weights: (classes,) by which the images of a class count; their mean over the training
            images is 1, so that the parts of a batch add up to the whole. An image of several
            classes counts by their mean. None is 1 for all.
        smoothing: Share of the target that all classes are given alike.
    """
    logits = precise(logits)
    if weights is None:
        return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    counts = weights[labels] if labels.ndim == 1 else labels @ weights
    return (losses * counts).mean()


def precise(logits: Tensor) -> Tensor:
    """Logits in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """float32 (classes,): all classes count alike, whatever number of images they have."""
    counts = torch.bincount(labels, minlength=classes)
    return (len(labels) / (counts.count_nonzero() * counts.clamp(min=1))).float()
