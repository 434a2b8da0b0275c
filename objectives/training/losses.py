"""The loss of a batch, with as much weight for every class as is asked for."""

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the images, in float32 at least.

    Args:
        logits: (N, classes).
        labels: int64 (N,).
        weights: (classes,) by which the images of a class count; their mean over the training
            images is 1, so that the parts of a batch add up to the whole. None is 1 for all.
    """
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if weights is None:
        return functional.cross_entropy(precise, labels)
    losses = functional.cross_entropy(precise, labels, reduction="none")
    return (losses * weights[labels]).mean()


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """float32 (classes,): all classes count alike, whatever number of images they have."""
    counts = torch.bincount(labels, minlength=classes)
    return (len(labels) / (counts.count_nonzero() * counts.clamp(min=1))).float()
