"""The objective of face recognition: train embeddings, judge them by people held out."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from optnas.config.settings import DataSettings, Settings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import Images
from optnas.objectives.faces.images import HELD_OUT, FaceImages, load_faces
from optnas.objectives.faces.recognition import identify, verify
from optnas.objectives.faces.testing import PEOPLE, load_test_set, tested
from optnas.objectives.faces.trainer import FaceRecipe, FaceTrainer, Metric, face_metric
from optnas.objectives.margins import make_margin
from optnas.objectives.training.trainer import Trainer
from optnas.objectives.verification import unit
from optnas.spaces import FaceSpace, Space


class MarginSettings(Settings):
    """With which margin embeddings are learnt."""

    name: Literal["adaface", "arcface", "cosface", "softmax"] = Field(
        "adaface", description="The margin; `softmax` has none."
    )
    m: float | None = Field(None, ge=0, lt=math.pi, description="The margin's size.")
    s: float | None = Field(None, gt=0, description="The scale of the logits.")
    h: float | None = Field(None, ge=0, description="How much quality counts, for `adaface`.")
    t: float | None = Field(
        None, ge=0, le=1, description="Weight of a batch in the statistics of `adaface`."
    )


class FaceRecognition(Classification):
    """Objective that trains a face network with a margin and returns its verification accuracy.

    Candidates are judged by people that none of them has learnt from, ``data.validation`` of them
    (a number or a fraction, by default a fifth): the value is the best over
    the epochs of the mean accuracy of ten folds on pairs of their images, a fraction. A pair's
    images and their mirror images are embedded together. In all else it is
    :class:`optnas.objectives.classification.Classification`: the accuracy in training is that of
    telling the people apart who are learnt from, with the margin.

    A network that is trained fully learns from the people that candidates were judged by, too,
    and is tested with those who remain and with the test sets.

    Source: Efficient Global NAS (Siddiqui, Kyrkou and Theocharides), section 4.2; the training
    and the tests are those of AdaFace (Kim, Jain and Liu 2022).

    Args:
        space: The space of face networks.
        images: The faces, nobody held out yet.
        margin: With which margin embeddings are learnt.
        metric: What candidates are judged by: ``"accuracy"`` on pairs, ``"rank1"``
            identification with one image of everybody as the gallery, or ``"tar"``, the true
            accept rate at ``far``.
        far: The false accept rate of ``"tar"``.
        pairs: Most pairs that accuracy is told from.
        degrade: Probability of each of the three ways in which training images are made worse.
        test_identities: Number or fraction of the people that trained networks are tested with,
            the last ones of the data set. Default: a fifth, or none where there are
            ``test_sets``.
        test_sets: Test sets of trained networks: ``.bin`` files, lists of pairs, or folders of
            IJB-B and IJB-C.
        options: What `Classification` takes.

    Raises:
        TypeError: If ``space`` is not a space of face networks.
        UserError: If too few people are left, or an option is not as it should be.

    Differences from the paper:
        The paper does not say how candidates are judged, nor whether they learn with a margin.
    """

    reference = None  # type: ignore[assignment]
    """Known networks classify: they embed no faces."""

    def __init__(
        self,
        space: Space[Any],
        images: FaceImages,
        *,
        margin: MarginSettings = MarginSettings(),  # noqa: B008 (it is frozen)
        metric: Metric = "accuracy",
        far: Annotated[float, Field(gt=0, le=1)] = 0.01,
        pairs: Annotated[int, Field(ge=20)] = 6000,
        degrade: Annotated[float, Field(ge=0, le=1)] = 0.2,
        test_identities: Annotated[int, Field(ge=0)]
        | Annotated[float, Field(ge=0, lt=1)]
        | None = None,
        test_sets: tuple[Path, ...] = (),
        seed: int | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(space, FaceSpace):
            raise TypeError(f"FaceRecognition trains networks of a FaceSpace, not {space!r}.")
        if test_identities is None:
            test_identities = 0.0 if test_sets else HELD_OUT
        self.faces = FaceRecipe(
            margin.name,
            margin.model_dump(exclude_none=True, exclude={"name"}),
            degrade,
            metric,
            far,
            pairs,
        )
        self._embedding = space.embedding
        self._test_sets = test_sets
        split = images.split(test=test_identities, seed=seed or 0)
        super().__init__(space, split, seed=seed, **options)
        self._check(space, split)

    @staticmethod
    def _load(
        data: DataSettings, seed: int, folder: Path | None, known: Mapping[str, Any] | None
    ) -> FaceImages:
        """Nobody is held out yet, and people are split by their numbers alone, not as recorded."""
        return load_faces(data, seed, folder)

    verify = staticmethod(verify)
    identify = staticmethod(identify)

    def ensemble(self, members: Any, folder: Path) -> Any:
        """Refuse: embeddings of different networks cannot be averaged.

        Raises:
            UserError: Always.
        """
        raise UserError("there are no ensembles of face networks; leave out --ensemble")

    def _trainer(
        self, model: nn.Module, images: Images, settings: TrainSettings, **options: Any
    ) -> Trainer:
        assert isinstance(images, FaceImages)
        return FaceTrainer(
            model, images, settings, faces=self.faces, embedding=self._embedding, **options
        )

    def _measured(self, trainer: Trainer, images: Images) -> dict[str, Any]:
        assert isinstance(trainer, FaceTrainer)
        assert isinstance(images, FaceImages)
        channels, side, _ = images.input_shape
        sets = [load_test_set(p, channels=channels, size=side) for p in self._test_sets]
        answers, thresholds = tested(trainer.features, images, sets, self.faces)
        first = next(iter(answers.values()))
        number = len(images.test_labels) or len(sets[0].images)
        return {
            "test_accuracy": first.get("accuracy", math.nan),
            "test_images": number,
            "verification": answers,
            "thresholds": thresholds,
        }

    def _further_identity(self) -> dict[str, Any]:
        faces = self.faces
        margin = {"name": faces.margin, **faces.options}
        return {"margin": margin, "degrade": faces.degrade, "pairs": faces.pairs}

    def _check(self, space: FaceSpace, images: FaceImages) -> None:
        """Refuse at once what would come out after the first epoch, or after the last.

        Raises:
            UserError: Saying what.
        """
        height, width = images.input_shape[1:]
        if self._shown is self.images and space.size != height:
            raise UserError(
                f"space.size: the faces have {height} x {width} pixels, so write `size: {height}` "
                f"there; it is {space.size}."
            )
        try:
            make_margin(self.faces.margin, images.classes, space.embedding, self.faces.options)
            labels = images.validation_labels.cpu().numpy()
            face_metric(unit([[1.0]] * len(labels)), labels, self.faces)
        except ValueError as error:
            raise UserError(f"objective: {error}") from None
        if not len(images.test_labels) and not self._test_sets:
            raise UserError(
                "objective: a trained network is tested: give `test_identities` or `test_sets`."
            )
        for path in self._test_sets:
            if not path.exists():
                raise UserError(f"objective.test_sets: {path} does not exist.")


__all__ = ["PEOPLE", "FaceRecognition", "MarginSettings"]
