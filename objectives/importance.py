"""How important the features of a network's stages are for telling the classes apart."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.cross_decomposition import PLSRegression
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.augment import normalise, resized
from optnas.objectives.data import Images
from optnas.objectives.feature_selection import (
    Array,
    checked_features,
    checked_labels,
    infinite_feature_selection,
    infinite_in_place,
    infinite_latent_feature_selection,
)
from optnas.objectives.memory import in_pieces
from optnas.objectives.splits import draw_stratified
from optnas.objectives.stages import StageNetwork

__all__ = [
    "infinite_feature_selection",
    "infinite_latent_feature_selection",
    "pls_vip",
    "stage_importance",
]

Chunks = Iterable[tuple[Tensor, Tensor]]
"""Samples in pieces: features (n, p), and labels (n,) from 0 to the number of classes - 1."""

Criterion = Literal["pls", "inf_fs", "il_fs"]

POOL = 8
"""Side in pixels of the windows over which a stage's features are averaged."""

# Wide networks need kilobytes per pixel: images are looked at in batches of so many pixels.
_BATCH_PIXELS = 2**17
_ROWS = 1024
# Correlations below this are rounding: nothing is left to explain.
_NOTHING = 1e-12


def pls_vip(features: ArrayLike, labels: ArrayLike, components: int = 2) -> Array:
    """Variable importance in projection (VIP) of partial least squares.

    A partial least squares regression of the one-hot labels on the features, both standardised,
    projects the features on a few components. A feature's importance is the root mean square of
    its weights, each component counting as much as it explains of the labels. The mean square
    over the features is always 1: a high mean says that importance is spread evenly.

    Source: Mehmood et al. 2012, section 2.2; Stage-Wise NAS, section III and its code.

    Args:
        features: Shape (n, p), n at least 2.
        labels: Shape (n,): integers, of at least two classes.
        components: Number of components, at least 1. Fewer are used where no correlation is left.

    Returns:
        Shape (p,). Constant features have 0, but count as features of the projection; without any
        correlation all others are equal.

    Raises:
        ValueError: If a shape or value is out of range or not finite.
    """
    values = checked_features(features)
    classes, indices = checked_labels(labels, len(values))
    rows = [slice(i, i + _ROWS) for i in range(0, len(values), _ROWS)]
    chunks = ((torch.tensor(values[r]), torch.tensor(indices[r])) for r in rows)
    return _pls_vip(chunks, classes, components)


def stage_importance(
    model: nn.Module,
    images: Images,
    criterion: Criterion = "pls",
    *,
    samples: int | None = None,
    seed: int = 0,
) -> list[float]:
    """The mean importance of the features of every stage, on training images.

    The features are those of a stage's last block before its ReLU, averaged over windows of
    8 x 8 pixels, or over all where there are fewer; images are not augmented. For ``"pls"`` they
    are streamed: memory grows with the square of the number of features, not with the number of
    images. The others hold the features of one stage at a time. With 50,000 images and the 3,072
    features of NASNet's first stage a process took 1.4 GiB for ``"pls"``, 1.9 for ``"inf_fs"``.

    Source: Stage-Wise NAS, section III; pooling as in the authors' code.

    Args:
        model: A trained network of a `StageArchitecture`, on the images' device; left as it was.
        images: The images; the training split is looked at.
        criterion: ``"pls"``: :func:`pls_vip`; ``"inf_fs"``: :func:`infinite_feature_selection`;
            ``"il_fs"``: :func:`infinite_latent_feature_selection`.
        samples: Number of images, chosen at random but in the shares of the classes; None or
            more than there are takes all.
        seed: Decides which images are chosen.

    Returns:
        One number per stage.

    Raises:
        TypeError: If the network has no stages.
        ValueError: If the criterion is unknown or a feature is not finite.
        DataError: If there are fewer samples than classes.
    """
    if not isinstance(model, StageNetwork):
        raise TypeError(f"The importance of stages needs a StageNetwork: {type(model).__name__}.")
    if criterion not in get_args(Criterion):
        raise ValueError(f"`criterion` must be one of {get_args(Criterion)}: {criterion!r}.")
    labels = images.train_labels
    chosen = torch.arange(len(labels))
    if samples is not None and samples < len(labels):
        chosen = draw_stratified(labels.cpu(), samples, seed)
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        result = []
        for stage in range(len(model.stages)):
            chunks = _stage_chunks(model, stage, images, chosen)
            scores = _scores(criterion, chunks, len(chosen), images.classes)
            result.append(float(scores.mean()))
        return result
    finally:
        for part, training in modes.items():
            part.training = training


def _scores(criterion: Criterion, chunks: Chunks, count: int, classes: int) -> Array:
    """The importance of each feature of ``count`` samples."""
    if criterion == "pls":
        return _pls_vip(chunks, classes)
    values, labels = _collected(chunks, count)
    if criterion == "inf_fs":
        return infinite_in_place(values, ranks=values, alpha=0.5, factor=0.9)
    return infinite_latent_feature_selection(values, labels)


def _stage_chunks(
    model: StageNetwork, stage: int, images: Images, chosen: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """The pooled features of one stage, float32."""
    side = images.train_images.shape[2:]
    size = max(1, _BATCH_PIXELS // side.numel())
    device = images.train_images.device
    chosen = chosen.to(device)

    def look(start: int, stop: int) -> tuple[Tensor, Tensor]:
        indices = chosen[start:stop]
        inputs = normalise(images.train_images[indices], images.mean, images.std)
        if images.augmentation.resize is not None:
            inputs = resized(inputs, images.augmentation.resize)
        with torch.inference_mode():
            outputs = model.stage_outputs(inputs.contiguous(memory_format=torch.channels_last))
            features = next(itertools.islice(outputs, stage, None)).float()
            window = [min(POOL, length) for length in features.shape[2:]]
            features = functional.avg_pool2d(features, window).flatten(1)
        if not features.isfinite().all():
            raise ValueError(f"The features of stage {stage + 1} are not finite.")
        return features, images.train_labels[indices]

    return in_pieces(look, len(chosen), size, device)


def _pls_vip(chunks: Chunks, classes: int, components: int = 2) -> Array:
    if components < 1:
        raise ValueError(f"`components` must be greater than or equal to 1: {components}.")
    triangle, changing = _triangle(chunks, classes)
    features = len(changing) - classes
    # A rotation that keeps all cross-products leaves the regression as it is. The copy with the
    # opposite sign has the same, and makes the means zero, which the regression subtracts.
    table = np.concatenate((triangle, -triangle))[:, changing]
    table /= np.linalg.norm(table, axis=0)
    width = np.count_nonzero(changing[:features])
    x, y = table[:, :width], table[:, width:]
    if not y.shape[1]:
        raise ValueError("`labels` must hold at least two classes.")
    scores = np.zeros(features)
    scores[changing[:features]] = np.sqrt(features * _shares(x, y, components))
    return scores


def _shares(x: Array, y: Array, components: int) -> Array:
    """Each feature's share of the importance, (p,); they sum to 1.

    Args:
        x: Shape (m, p), columns of mean 0 and norm 1.
        y: Shape (m, K), likewise.
        components: Greatest number of components.
    """
    directions: list[Array] = []
    explained: list[float] = []
    # One at a time: scikit-learn divides by zero where no correlation is left.
    while len(explained) < components and np.abs(x.T @ y).max(initial=0.0) > _NOTHING:
        component = PLSRegression(n_components=1, scale=False).fit(x, y)
        score, loading = component.x_scores_, component.y_loadings_
        direction = component.x_weights_[:, 0]
        directions.append(direction**2 / (direction @ direction))
        explained.append(float((score**2).sum() * (loading**2).sum()))
        x, y = x - score @ component.x_loadings_.T, y - score @ loading.T
    if not explained:
        return np.full(x.shape[1], 1 / max(1, x.shape[1]))
    return np.average(directions, axis=0, weights=explained)


def _triangle(chunks: Chunks, classes: int) -> tuple[Array, NDArray[np.bool_]]:
    """A small table with the cross-products of the centred features and one-hot labels.

    It is the triangular factor of the table of all samples, to which a chunk is added by
    factorising it together with the factor so far.

    Returns:
        Shape (at most p + K, p + K), and (p + K,): which columns are not constant.
    """
    rows: list[Tensor] = []
    low = high = torch.empty(0)
    for features, labels in chunks:
        ones = torch.ones(len(features), 1, dtype=torch.float64, device=features.device)
        one_hot = functional.one_hot(labels, classes).double()
        block = torch.cat((ones, features.double(), one_hot), dim=1)
        least, greatest = block.amin(0), block.amax(0)
        low, high = (
            (torch.minimum(low, least), torch.maximum(high, greatest))
            if rows
            else (least, greatest)
        )
        rows.append(block)
        if sum(map(len, rows)) >= 2 * block.shape[1]:
            rows = [torch.linalg.qr(torch.cat(rows), mode="r").R]
    triangle = torch.linalg.qr(torch.cat(rows), mode="r").R
    # The first column is that of the ones: below the first row, the others are centred.
    centred = triangle[1:, 1:].cpu().numpy()
    changing = (high > low)[1:].cpu().numpy() & (np.abs(centred).max(axis=0, initial=0.0) > 0)
    return centred, changing


def _collected(chunks: Chunks, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    values, classes, stop = np.empty((0, 0), np.float32), np.empty(count, np.int64), 0
    for features, labels in chunks:
        if not stop:
            values = np.empty((count, features.shape[1]), np.float32)
        start, stop = stop, stop + len(labels)
        values[start:stop], classes[start:stop] = features.cpu().numpy(), labels.cpu().numpy()
    return values, classes
