"""The objective of the stage-wise search: training, then the importance of every stage."""

import warnings
from pathlib import Path
from typing import Annotated, Any

from optuna.trial import FrozenTrial, Trial
from pydantic import Field

from optnas.errors import UserError
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import Images
from optnas.objectives.importance.scoring import GRID, Criterion, Parameters, stage_importance
from optnas.objectives.inheritance.adapters import inherit
from optnas.objectives.kept import trained
from optnas.objectives.kept.donors import Donor, read_donor
from optnas.objectives.training.trainer import Trainer
from optnas.objectives.training.trial_training import FIRST_LEASE, CandidateFailure, TrialTraining
from optnas.seeds import study_seed
from optnas.spaces import Architecture, Space, StageSpace
from optnas.trials.attributes import (
    HUMAN_DESIGNED,
    INHERITED,
    PHASE,
    STAGE_IMPORTANCE,
    TUNED_IMPORTANCE,
)
from optnas.trials.leases import renew_lease
from optnas.trials.lineage import ancestors

DONOR = "donor_sha256"
"""User attribute: checksum of the weights that networks without a parent start from."""


class StageClassification(Classification):
    """Objective that trains a network of stages and records how important each stage is.

    In all else it is :class:`optnas.objectives.classification.Classification`. The user attribute
    ``stage_importance`` holds one number per stage, of the network after its last epoch; see
    `optnas.objectives.importance.stage_importance`. Every network of a study is scored on
    the same images.

    With ``transfer``, block b of every stage starts from block b of that stage in the donor, and
    the stem, the classifier and all else from what has its name there and its shape. A donor that
    `optnas retrain` trained on this study's images has seen those that candidates are judged by,
    which is warned of: the accuracies of the search are too good then. Recorded as user
    attributes are ``inherited_tensors``, how many were copied, and ``donor_sha256``.

    Args:
        space: The space of stages.
        images: The images, split.
        criterion: How importance is measured: ``"pls"``, ``"inf_fs"`` or ``"il_fs"``.
        samples: Training images that networks are scored on; None takes all.
        transfer: A trained donor, whose weights networks start from that have no parent: a folder
            that `optnas retrain` wrote, or a file of the weights of torchvision's ResNet-50, 101
            or 152 for bottleneck modules. No stage may be deeper than the donor's. Default: random
            weights.
        further_epochs: Epochs for which the strategy's candidates, and networks that people
            designed, are trained on after they were scored; the value is then the best of all
            epochs.
        components: Components of ``"pls"``.
        alpha: Weight of the deviations in an edge of ``"inf_fs"``; the rest is the correlation's.
        factor: Weight of one step more in ``"inf_fs"`` (default 0.9) and ``"il_fs"`` (0.99).
        tune: Whether these parameters are chosen instead, as in the paper: the first iteration
            trains what each would grow, and the best on the validation split decides for all.
            The user attribute ``tuned_importance`` then holds the scores by parameters.
        options: What `Classification` takes.

    Raises:
        TypeError: If ``space`` is not a space of stages.
        UserError: If the donor cannot be read, is of another kind, or is less deep than networks
            of the space may be; or if there are fewer ``samples`` than classes.
    """

    def __init__(
        self,
        space: Space[Any],
        images: Images,
        *,
        criterion: Criterion = "pls",
        samples: Annotated[int, Field(ge=1)] | None = None,
        transfer: Path | None = None,
        further_epochs: Annotated[int, Field(ge=0)] = 0,
        components: Annotated[int, Field(ge=1)] = 2,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
        factor: Annotated[float, Field(gt=0, lt=1)] | None = None,
        tune: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(space, StageSpace):
            raise TypeError(f"StageClassification trains networks of a StageSpace, not {space!r}.")
        super().__init__(space, images, **options)
        if samples is not None and samples < images.classes:
            raise UserError(
                f"objective.samples must be {images.classes} or more, an image of every class: "
                f"{samples}"
            )
        self.criterion = criterion
        self.samples = samples
        self._further_epochs = further_epochs
        self._parameters = Parameters(components, alpha, factor)
        self._tune = tune
        self._donor = None if transfer is None else read_donor(transfer)
        if self._donor is not None:
            self._donor.check(space, self.in_channels)
            _warn_of_validation(self._donor, images)

    def __call__(self, trial: Trial) -> float:
        if self._donor is not None:
            self._check_same_donor(trial, self._donor)
        return super().__call__(trial)

    def further_epochs(self, trial: Trial) -> int:
        attrs = trial.user_attrs
        is_candidate = attrs.get(PHASE) in ("candidate", "tuning") or HUMAN_DESIGNED in attrs
        return self._further_epochs if is_candidate else 0

    def _epochs_of(self, phase: str) -> int | None:
        epochs = super()._epochs_of(phase)
        if epochs is None or phase != "candidate":
            return epochs
        return epochs + self._further_epochs

    def trained(self, trial: Trial, trainer: Trainer) -> None:
        trials = trial.storage.get_all_trials(trial.study._study_id, deepcopy=False)
        for before in ancestors(trials, trial):
            if STAGE_IMPORTANCE in before.user_attrs:
                # It was lost later, and its network may have been trained on.
                for name in (TUNED_IMPORTANCE, STAGE_IMPORTANCE):
                    if name in before.user_attrs:
                        trial.set_user_attr(name, before.user_attrs[name])
                return
        if self._tune:
            grid = GRID[self.criterion]
            scores = {name: self._importance(trial, trainer, each) for name, each in grid.items()}
            trial.set_user_attr(TUNED_IMPORTANCE, scores)
        importance = self._importance(trial, trainer, self._parameters)
        trial.set_user_attr(STAGE_IMPORTANCE, importance)

    def _importance(self, trial: Trial, trainer: Trainer, parameters: Parameters) -> list[float]:
        # Nobody knows how long scoring takes: it may be longer than an epoch.
        renew_lease(trial.storage, trial._trial_id, FIRST_LEASE)
        try:
            return stage_importance(
                trainer.judged,
                trainer.images,
                self.criterion,
                samples=self.samples,
                seed=study_seed(trial.study, self._seed),
                parameters=parameters,
            )
        except ValueError as error:
            raise CandidateFailure(str(error)) from error

    def _lineage(self, parent: FrozenTrial | None) -> list[Any]:
        if parent is None and self._donor is not None:
            return [self._donor.sha256]
        return super()._lineage(parent)

    def _begin(
        self, training: TrialTraining, parent: FrozenTrial | None, child: Architecture
    ) -> None:
        if parent is None and self._donor is not None:
            copied = inherit(training.trainer.model, self._donor.state)
            training.trial.set_user_attr(INHERITED, copied)
        super()._begin(training, parent, child)

    def _check_same_donor(self, trial: Trial, donor: Donor) -> None:
        """Refuse to go on with another donor than the one that earlier trials had.

        Raises:
            UserError: If the donor has changed.
        """
        trials = trial.storage.get_all_trials(trial.study._study_id, deepcopy=False)
        if any(t.user_attrs.get(DONOR, donor.sha256) != donor.sha256 for t in trials):
            raise UserError(
                "the donor has changed since the study began: put it back, or give the study "
                "another name"
            )
        trial.set_user_attr(DONOR, donor.sha256)


def _warn_of_validation(donor: Donor, images: Images) -> None:
    """Warn of a donor that was trained on the images that candidates are judged by."""
    if donor.data_sha256 is None:
        return
    if donor.data_sha256 == trained.digest(images.with_validation_in_training()):
        warnings.warn(
            "The donor was trained on the images that candidates are judged by: the accuracies of "
            "the search are too good to be believed. With `sampler: {name: stage_wise, donor: "
            "true}` a study trains a donor without them.",
            stacklevel=3,
        )
