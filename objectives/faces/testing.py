"""What test sets say of a trained face network, and which scores tell people apart."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import Pixels
from optnas.objectives.faces.images import FaceImages
from optnas.objectives.faces.pair_sets import PairSet, load_bin, load_pairs
from optnas.objectives.faces.templates import TemplateSet, is_template_set, load_templates
from optnas.objectives.faces.trainer import FaceRecipe, face_metric, pair_scores, rank_rates
from optnas.objectives.verification import (
    Floats,
    pooled_templates,
    squared_distances,
    tar_at_far,
    ten_fold_accuracy,
    unit,
)

FARS = (0.1, 0.01, 0.001, 0.0001)
"""False accept rates of which test sets tell as many as their impostor pairs can support."""
PEOPLE = "held-out people"
"""What the set of the data's own test people is called."""

Features = Callable[[Pixels], Floats]
Answers = dict[str, float]


def load_test_set(path: Path, *, channels: int, size: int) -> PairSet | TemplateSet:
    """A test set: a ``.bin`` file, a list of pairs, or a folder of templates.

    Args:
        path: The file or the folder.
        channels: Channels that are wanted.
        size: Height and width that are wanted.

    Raises:
        DataError: If it is none of these, or cannot be read.
    """
    if path.is_dir():
        if is_template_set(path):
            return load_templates(path, channels=channels, size=size)
        raise DataError(f"{path} is no test set: it has no meta/ijbb_face_tid_mid.txt or ijbc's.")
    if not path.is_file():
        raise DataError(f"{path}, a test set, does not exist.")
    load = load_bin if path.suffix == ".bin" else load_pairs
    return load(path, channels=channels, size=size)


def tested(
    features: Features,
    images: FaceImages,
    sets: Sequence[PairSet | TemplateSet],
    recipe: FaceRecipe,
) -> tuple[dict[str, Answers], Answers]:
    """What every test set says of a network, and the thresholds that the first one sets.

    Args:
        features: Embeds images and their mirror images, added.
        images: The faces; those of the test people are the first set, if there are any.
        sets: Further test sets.
        recipe: How accuracy on people is told.

    Returns:
        Answers by the names of the sets, and least scores by false accept rates.
    """
    answers: dict[str, Answers] = {}
    thresholds: Answers = {}
    if len(images.test_labels):
        labels = images.test_labels.cpu().numpy()
        embeddings = unit(features(images.test_images))
        scores = pair_scores(embeddings, labels)
        ranks = rank_rates(embeddings, labels, (1, 5))
        found = {f"rank{rank}": rate for rank, rate in ranks.items()}
        accuracy = {"accuracy": face_metric(embeddings, labels, FaceRecipe(pairs=recipe.pairs))}
        answers[PEOPLE], thresholds = accuracy | found | _rates(*scores), _thresholds(*scores)
    for each in sets:
        if isinstance(each, PairSet):
            answers[each.name], scores = _pairs(features, each)
        else:
            answers[each.name], scores = _templates(features, each)
        thresholds = thresholds or _thresholds(*scores)
    return answers, thresholds


def _pairs(features: Features, pairs: PairSet) -> tuple[Answers, tuple[Floats, Floats]]:
    embeddings = unit(features(pairs.images))
    first, second = embeddings[pairs.pairs[:, 0]], embeddings[pairs.pairs[:, 1]]
    result = ten_fold_accuracy(squared_distances(first, second), pairs.same)
    scores = (first * second).sum(1)
    answers = {
        "accuracy": result.mean,
        "deviation": result.deviation,
        "threshold": 1 - float(np.mean(result.thresholds)) / 2,
    }
    genuine, impostor = scores[pairs.same], scores[~pairs.same]
    return answers | _rates(genuine, impostor), (genuine, impostor)


def _templates(features: Features, each: TemplateSet) -> tuple[Answers, tuple[Floats, Floats]]:
    names, vectors = pooled_templates(features(each.images), each.templates, each.media)
    rows = np.searchsorted(names, each.pairs)
    pieces = np.array_split(rows, max(1, len(rows) // 100_000))
    scores = np.concatenate([(vectors[p[:, 0]] * vectors[p[:, 1]]).sum(1) for p in pieces])
    genuine, impostor = scores[each.same], scores[~each.same]
    return _rates(genuine, impostor), (genuine, impostor)


def _rates(genuine: Floats, impostor: Floats) -> Answers:
    """TAR at every FAR that so many pairs can support."""
    if not len(genuine):
        return {}
    supported = [far for far in FARS if far * len(impostor) >= 1]
    return {f"tar@{far:g}": tar_at_far(genuine, impostor, far).tar for far in supported}


def _thresholds(genuine: Floats, impostor: Floats) -> Answers:
    if not len(genuine):
        return {}
    supported = [far for far in FARS if far * len(impostor) >= 1]
    points = {f"{far:g}": tar_at_far(genuine, impostor, far) for far in supported}
    return {far: p.threshold for far, p in points.items() if np.isfinite(p.threshold)}
