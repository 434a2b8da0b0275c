"""The objective of the stage-wise search: training, then the importance of every stage."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from optuna.trial import Trial
from pydantic import Field

from optnas.objectives.classification import FIRST_LEASE, CandidateFailure, Classification
from optnas.objectives.data import Images
from optnas.objectives.importance import Criterion, stage_importance
from optnas.objectives.training import Trainer
from optnas.proxies import Proxy
from optnas.seeds import study_seed
from optnas.settings import DataSettings, NetworkSettings, TrainSettings
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
        samples: int | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(space, StageSpace):
            raise TypeError(f"StageClassification trains networks of a StageSpace, not {space!r}.")
        super().__init__(space, images, **options)
        self.criterion = criterion
        self.samples = samples

    @classmethod
    def from_settings(
        cls,
        space: Space[Any],
        data: DataSettings,
        *,
        train: TrainSettings,
        network: NetworkSettings | None = None,
        proxy: Proxy | None = None,
        limits: Mapping[str, int],
        seed: int,
        device: str | None,
        criterion: Criterion = "pls",
        samples: Annotated[int, Field(ge=1)] | None = None,
    ) -> Self:
        objective = super().from_settings(
            space,
            data,
            train=train,
            network=network,
            proxy=proxy,
            limits=limits,
            seed=seed,
            device=device,
        )
        objective.criterion = criterion
        objective.samples = samples
        return objective

    def _train(self, trial: Trial, trainer: Trainer, epochs: int) -> None:
        super()._train(trial, trainer, epochs)
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
