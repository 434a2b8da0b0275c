"""Labelled images, and drawing parts of them class by class."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import Pixels
from optnas.objectives.data.shares import held_out, quotas


@dataclasses.dataclass(frozen=True)
class RawImages:
    """A training and a test set as they were found.

    Args:
        train_images: uint8 (N, C, H, W).
        train_labels: int64 (N,), from 0 to the number of classes - 1.
        test_images: uint8 (M, C, H, W).
        test_labels: int64 (M,).
        class_names: One name per class.
    """

    train_images: Pixels
    train_labels: Tensor
    test_images: Pixels
    test_labels: Tensor
    class_names: tuple[str, ...]


def draw_stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """A random choice of ``count`` images that keeps the shares of the classes.

    Every class gets its share of ``count``, rounded by largest remainders, but at least one.

    Args:
        labels: int64 (N,).
        count: Number of images to choose: from the number of classes present to N.
        seed: Decides which; nothing else does.

    Returns:
        Indices (count,), ascending.

    Raises:
        DataError: If ``count`` is less than one image per class or more than there are.
    """
    values, sizes = np.unique(labels.numpy(), return_counts=True)
    shares = quotas(sizes, count)
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.flatnonzero(labels.numpy() == value))[:quota]
        for value, quota in zip(values, shares, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def hold_out(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split off ``count`` images, stratified, with every class on both sides.

    Returns:
        Indices (N - count,) of the images that stay and (count,) of those held out, ascending.

    Raises:
        DataError: If some class has no image left on one side.
    """
    classes, sizes = np.unique(labels.numpy(), return_counts=True)
    held_out(sizes, count, classes.tolist())
    held = draw_stratified(labels, count, seed)
    stays = torch.ones(len(labels), dtype=torch.bool)
    stays[held] = False
    return torch.nonzero(stays).flatten(), held


def draw_shares(
    labels: Tensor, fractions: tuple[float, float], seed: int
) -> tuple[Tensor, Tensor]:
    """Two disjoint shares of the images, stratified, with every class in both.

    Args:
        labels: int64 (N,).
        fractions: The size of each as a fraction of N; together at most 1.
        seed: Decides which; nothing else does.

    Returns:
        The indices of both, ascending.

    Raises:
        DataError: If a share would be too small to have every class.
    """
    # Both together are rounded, so that two halves are everything.
    count = min(round(sum(fractions) * len(labels)), len(labels))
    try:
        drawn = draw_stratified(labels, count, seed)
        kept, held = hold_out(labels[drawn], count - round(fractions[0] * len(labels)), seed)
    except DataError:
        raise DataError(
            f"Shares of {fractions[0]:g} and {fractions[1]:g} of {len(labels)} images cannot both "
            f"have every class, of which there are {len(np.unique(labels.numpy()))}: make the "
            "smaller share larger, or take more images."
        ) from None
    return drawn[kept], drawn[held]
