"""How important the features of a network's stages are for telling the classes apart."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.data.augment import normalise, resized
from optnas.objectives.data.images import Images
from optnas.objectives.data.splits import draw_stratified
from optnas.objectives.importance.feature_selection import (
    Array,
    infinite_in_place,
    infinite_latent_feature_selection,
)
from optnas.objectives.importance.partial_least_squares import Chunks, Piece, streamed_vip
from optnas.objectives.networks.stages import StageNetwork
from optnas.objectives.training.memory import in_pieces

Criterion = Literal["pls", "inf_fs", "il_fs"]


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What the criteria leave open.

    Args:
        components: Of ``"pls"``, at least 1.
        alpha: Of ``"inf_fs"``, from 0 to 1: the weight of the deviations in an edge.
        factor: Of ``"inf_fs"`` and ``"il_fs"``, in (0, 1): the weight of one step more. None is
            0.9 and 0.99, as in their code.

    Raises:
        ValueError: If a number is out of range.
    """

    components: int = 2
    alpha: float = 0.5
    factor: float | None = None

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(f"`components` must be 1 or more: {self.components}.")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"`alpha` must be from 0 to 1: {self.alpha}.")
        if self.factor is not None and not 0 < self.factor < 1:
            raise ValueError(f"`factor` must be greater than 0 and less than 1: {self.factor}.")


USUAL = Parameters()
GRID: dict[Criterion, dict[str, Parameters]] = {
    "pls": {f"components {n}": Parameters(components=n) for n in (1, 2, 4, 8)},
    "inf_fs": {
        f"alpha {alpha:g}, factor {factor:g}": Parameters(alpha=alpha, factor=factor)
        for alpha in (0.25, 0.5, 0.75)
        for factor in (0.5, 0.9)
    },
    "il_fs": {f"factor {factor:g}": Parameters(factor=factor) for factor in (0.5, 0.9, 0.99)},
}
"""What is tried where the parameters are chosen; the paper does not say what it tried."""

POOL = 8
"""Side in pixels of the windows over which a stage's features are averaged."""

# Wide networks need kilobytes per pixel: images are looked at in batches of so many pixels.
_BATCH_PIXELS = 2**17
# The features of a stage are kept between two passes if they take no more than this; otherwise
# the network is asked again.
_KEPT_BYTES = 3 * 2**28


def stage_importance(
    model: nn.Module,
    images: Images,
    criterion: Criterion = "pls",
    *,
    samples: int | None = None,
    seed: int = 0,
    parameters: Parameters = USUAL,
) -> list[float]:
    """The mean importance of the features of every stage, on training images.

    The features are those of a stage's last block before its ReLU, averaged over windows of
    8 x 8 pixels, or over all where there are fewer; images are not augmented. For ``"pls"`` they
    are streamed: those of a stage that take more than 768 MiB are computed once for each pass.
    The others hold the features of one stage at a time, and matrices of the square of their
    number. With the 12,544 features of 50,000 images in the first stage of a ResNet-50, and
    1,000 classes, the regression of ``"pls"`` took 0.5 GiB.

    Source: Stage-Wise NAS, section III; pooling as in the authors' code.

    Args:
        model: A trained network of a `StageArchitecture`, on the images' device; left as it was.
        images: The images; the training split is looked at.
        criterion: ``"pls"``: :func:`pls_vip`; ``"inf_fs"``: :func:`infinite_feature_selection`;
            ``"il_fs"``: :func:`infinite_latent_feature_selection`.
        samples: Number of images, chosen at random but in the shares of the classes; None or
            more than there are takes all.
        seed: Decides which images are chosen.
        parameters: What the criterion leaves open.

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
            chunks = functools.partial(_stage_chunks, model, stage, images, chosen)
            scores = _scores(criterion, chunks, len(chosen), images.classes, parameters)
            result.append(float(scores.mean()))
        return result
    finally:
        for part, training in modes.items():
            part.training = training


def _scores(
    criterion: Criterion, chunks: Chunks, count: int, classes: int, parameters: Parameters
) -> Array:
    """The importance of each feature of ``count`` samples."""
    if criterion == "pls":
        return streamed_vip(_kept(chunks, count), classes, parameters.components)
    values, labels = _collected(chunks(), count)
    factor = parameters.factor
    if criterion == "inf_fs":
        factor = 0.9 if factor is None else factor
        return infinite_in_place(values, ranks=values, alpha=parameters.alpha, factor=factor)
    return infinite_latent_feature_selection(values, labels, 0.99 if factor is None else factor)


def _stage_chunks(
    model: StageNetwork, stage: int, images: Images, chosen: Tensor
) -> Iterator[Piece]:
    """The pooled features of one stage, float32."""
    side = images.train_images.shape[2:]
    size = max(1, _BATCH_PIXELS // side.numel())
    device = images.train_images.device
    chosen = chosen.to(device)

    def look(start: int, stop: int) -> Piece:
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
        return features.cpu().numpy(), images.train_labels[indices].cpu().numpy()

    return in_pieces(look, len(chosen), size, device)


def _kept(chunks: Chunks, count: int) -> Chunks:
    """The same samples, held in memory if their features are no more than `_KEPT_BYTES`."""
    pieces = iter(chunks())
    first = next(pieces)
    if first[0][0].nbytes * count > _KEPT_BYTES:
        return chunks
    kept = [first, *pieces]
    return lambda: kept


def _collected(
    pieces: Iterable[Piece], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    values, classes, stop = np.empty((0, 0), np.float32), np.empty(count, np.int64), 0
    for features, labels in pieces:
        if not stop:
            values = np.empty((count, features.shape[1]), np.float32)
        start, stop = stop, stop + len(labels)
        values[start:stop], classes[start:stop] = features, labels
    return values, classes
