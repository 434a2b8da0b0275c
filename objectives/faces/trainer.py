"""Training embeddings with a margin, and judging them by people who were not learnt from."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.config.settings import TrainSettings
from optnas.objectives.data.augment import normalise
from optnas.objectives.data.batches import augmented_chunks
from optnas.objectives.data.image_files import Pixels
from optnas.objectives.faces import degrading
from optnas.objectives.faces.images import FaceImages
from optnas.objectives.faces.pairs import draw_pairs, fold_pairs
from optnas.objectives.margins import make_margin
from optnas.objectives.networks.faces import Dropout
from optnas.objectives.training import padding
from optnas.objectives.training.memory import in_pieces
from optnas.objectives.training.trainer import Trainer
from optnas.objectives.verification import (
    Floats,
    identification_rate,
    squared_distances,
    tar_at_far,
    ten_fold_accuracy,
    unit,
)
from optnas.seeds import derive_seed

Metric = Literal["accuracy", "rank1", "tar"]
IMPOSTORS = 1_000_000
"""Most pairs of two people that rates of false acceptance are told from."""


@dataclasses.dataclass(frozen=True)
class FaceRecipe:
    """What a training of embeddings has beside what every training has.

    Args:
        margin: Name of the margin; see `optnas.objectives.margins.MARGINS`.
        options: Its other arguments.
        degrade: Probability of each of the three ways in which an image is made worse.
        metric: What judges: ten-fold accuracy on pairs, rank-1 identification, or TAR at a FAR.
        far: That FAR.
        pairs: Most pairs that accuracy is told from.
    """

    margin: str = "adaface"
    options: dict[str, float] = dataclasses.field(default_factory=dict)
    degrade: float = 0.2
    metric: Metric = "accuracy"
    far: float = 0.01
    pairs: int = 6000


class FaceTrainer(Trainer):
    """Trains a network and a margin; judges by pairs of people, images and mirror images added.

    The margin's vectors and statistics belong to the training's state. The dropout of the network
    and the degrading of images draw from the training's generator, too.

    Args:
        model: A network whose outputs are embeddings.
        images: The faces, already on the device.
        settings: The recipe.
        faces: The rest of it.
        embedding: Size of the embeddings.
        options: What `Trainer` takes.

    Raises:
        ValueError: As of `Trainer`; or if the margin cannot be made.
    """

    def __init__(
        self,
        model: nn.Module,
        images: FaceImages,
        settings: TrainSettings,
        *,
        faces: FaceRecipe,
        embedding: int,
        seed: int,
        **options: Any,
    ) -> None:
        self.faces = faces
        self.margin = make_margin(faces.margin, images.classes, embedding, faces.options)
        generator = torch.Generator().manual_seed(derive_seed("margin", seed))
        self.margin.reset_parameters(generator)
        self.margin.to(images.train_labels.device)
        super().__init__(model, images, settings, seed=seed, **options)
        for part in self.model.modules():
            if isinstance(part, Dropout):
                part.generator = self._generator

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"margin": self._own(self.margin.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.margin.load_state_dict(state["margin"])

    def features(self, images: Pixels) -> Floats:
        """Embeddings (N, E) of images (N, C, H, W) and of their mirror images, added."""
        return self._features(images).double().cpu().numpy()

    def judge(self, features: Floats, labels: np.ndarray) -> float:
        """The recipe's metric of embeddings (N, E) of people (N,), a fraction.

        Raises:
            DataError: If there are too few people or images.
        """
        return face_metric(unit(features), labels, self.faces)

    def _trained(self) -> list[nn.Parameter]:
        return [*super()._trained(), *self.margin.parameters()]

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, generator = self.images, self._generator
        draws = degrading.draw(len(images.train_labels), generator)

        def degrade(pixels: Tensor, where: slice) -> Tensor:
            return degrading.degraded(pixels, draws[where], self.faces.degrade)

        return augmented_chunks(images, self.settings.batch_size, generator, first=degrade)

    def _eager_reason(self, steps: int) -> str | None:
        if any(isinstance(part, Dropout) and part.rate for part in self.model.modules()):
            return "dropout draws on the host in every step"
        return super()._eager_reason(steps)

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        count = len(labels)
        with self._precision(), padding.counting(self.model, count, len(inputs)), self._lent():
            features = self.model(inputs)
        features = padding.counted(features, count).float()
        norms = features.norm(dim=1)
        embeddings = features / norms.clamp_min(1e-12)[:, None]
        logits = self.margin(embeddings, norms, labels)
        return logits.detach().float(), functional.cross_entropy(logits, labels)

    @torch.inference_mode()
    def _features(self, images: Pixels) -> Tensor:
        """As `features`, float32 on the device."""
        self.model.eval()

        def embed(start: int, stop: int) -> tuple[Tensor]:
            self.pulse.check()
            inputs = normalise(images[start:stop], self.images.mean, self.images.std)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            with self._precision():
                return (self.model(inputs).float() + self.model(inputs.flip(3)).float(),)

        size = self._evaluated_at_once(images)
        return torch.cat([part for (part,) in in_pieces(embed, len(images), size, self.device)])

    def _evaluate(self, images: Pixels, labels: Tensor) -> Tensor:
        value, finite = 0.0, 1.0
        if len(images):
            features = self.features(images)
            finite = float(np.isfinite(features).all())
            if finite:
                value = self.judge(features, labels.cpu().numpy())
        return torch.tensor((value, finite), dtype=torch.float64).to(self.device)


def face_metric(embeddings: Floats, labels: np.ndarray, recipe: FaceRecipe) -> float:
    """A recipe's metric of unit embeddings (N, E) of people (N,), a fraction.

    The pairs are the same for the same people: every network and every epoch is judged alike.

    Raises:
        DataError: If there are too few people or images.
    """
    if recipe.metric == "rank1":
        return rank_rates(embeddings, labels, (1,))[1]
    if recipe.metric == "tar":
        genuine, impostor = pair_scores(embeddings, labels)
        return tar_at_far(genuine, impostor, recipe.far).tar
    pairs, same = fold_pairs(labels, recipe.pairs, seed=0)
    distances = squared_distances(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]])
    return ten_fold_accuracy(distances, same).mean


def rank_rates(
    embeddings: Floats, labels: np.ndarray, ranks: tuple[int, ...] = (1, 5, 20)
) -> dict[int, float]:
    """Identification rates where the gallery is the first image of everybody."""
    _, first = np.unique(labels, return_index=True)
    probes = np.setdiff1d(np.arange(len(labels)), first)
    scores = embeddings[probes] @ embeddings[first].T
    return identification_rate(scores, labels[probes], labels[first], ranks)


def pair_scores(embeddings: Floats, labels: np.ndarray) -> tuple[Floats, Floats]:
    """Scores of pairs of one person and of two: of all pairs, or of so many drawn."""
    genuine, impostor = draw_pairs(labels, IMPOSTORS, IMPOSTORS, seed=0)
    return _scores(embeddings, genuine), _scores(embeddings, impostor)


def _scores(embeddings: Floats, pairs: np.ndarray) -> Floats:
    """Inner products, of so many pairs at once that they fit into memory."""
    pieces = np.array_split(pairs, max(1, len(pairs) // 50_000))
    return np.concatenate([(embeddings[p[:, 0]] * embeddings[p[:, 1]]).sum(1) for p in pieces])
