"""The objective of the stage-wise search: training, then the importance of every stage."""

from typing import Annotated, Any

from optuna.trial import Trial
from pydantic import Field

from optnas.objectives.classification import Classification
from optnas.objectives.data import Images
from optnas.objectives.importance import Criterion, stage_importance
from optnas.objectives.training import Trainer
from optnas.objectives.trial_training import FIRST_LEASE, CandidateFailure
from optnas.seeds import study_seed
from optnas.spaces import Space, StageSpace
from optnas.trials import STAGE_IMPORTANCE, renew_lease


class StageClassification(Classification):
    """Objective that trains a network of stages and records how important each stage is.

    In all else it is :class:`optnas.objectives.classification.Classification`. The user attribute
    ``stage_importance`` holds one number per stage, of the network after its last epoch; see
    :func:`optnas.objectives.importance.stage_importance`. Every network of a study is scored on
    the same images.

    Args:
        space: The space of stages.
        images: The images, split.
        criterion: How importance is measured: ``"pls"``, ``"inf_fs"`` or ``"il_fs"``.
        samples: Training images that networks are scored on; None takes all.
        options: What `Classification` takes.

    Raises:
        TypeError: If ``space`` is not a space of stages.
    """

    def __init__(
        self,
        space: Space[Any],
        images: Images,
        *,
        criterion: Criterion = "pls",
        samples: Annotated[int, Field(ge=1)] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(space, StageSpace):
            raise TypeError(f"StageClassification trains networks of a StageSpace, not {space!r}.")
        super().__init__(space, images, **options)
        self.criterion = criterion
        self.samples = samples

    def trained(self, trial: Trial, trainer: Trainer) -> None:
        # Nobody knows how long scoring takes: it may be longer than an epoch.
        renew_lease(trial.storage, trial._trial_id, FIRST_LEASE)
        try:
            importance = stage_importance(
                trainer.model,
                trainer.images,
                self.criterion,
                samples=self.samples,
                seed=study_seed(trial.study, self._seed),
            )
        except ValueError as error:
            raise CandidateFailure(str(error)) from error
        trial.set_user_attr(STAGE_IMPORTANCE, importance)
