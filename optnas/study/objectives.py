"""From a configuration to its objective: the images first, the objective last."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from optnas.config import plugins
from optnas.config.contract import Objective, objective_class, objective_of
from optnas.config.file import StudyFile
from optnas.config.stored import references
from optnas.extensions.importing import make_importable
from optnas.seeds import named_seed
from optnas.storage.checkpoints import Checkpoints
from optnas.study.data import DataReading, SeenData

OnEpoch = Callable[[Any], None]


class ObjectiveMaker:
    """Makes the objective of a configuration, for which the images are loaded once.

    A study can only be opened when its images are known, and only an open study has checkpoints:
    the images come first, the objective last.

    Args:
        config: The configuration.
        device: A torch device; None takes CUDA where there is one.
        seen: What the study has seen of its data: known images stay in their splits.

    Raises:
        UserError: If the data cannot be had.
    """

    def __init__(
        self, config: StudyFile, *, device: str | None = None, seen: SeenData | None = None
    ) -> None:
        if references(config.resolved()):  # Data may be a function beside the study file.
            make_importable(config.folder)
        self._config = config
        self._class = plugins.load("objective", config.objective.name, config.folder)
        self._made_before: Any = None
        self._supplied = {
            "space": config.search_space,
            "data": config.data,
            "train": config.train,
            "network": config.network,
            "proxy": config.proxy,
            "limits": config.limits.model_dump(exclude_none=True),
            "seed": named_seed(config.study, config.seed),
            "checkpoint": config.checkpoint,
            "device": device,
            "folder": config.folder,
            "known": None if seen is None else seen.record,
        }
        load_images = objective_class(self._class).load_images
        if load_images is not None and config.data is not None and self._takes("images"):
            self._supplied["images"] = load_images(**_taken_by(load_images, self._supplied))

    @property
    def images(self) -> Any:
        """The images; None if the objective loads them by itself, or needs none."""
        return self._supplied.get("images")

    @property
    def reading(self) -> DataReading | None:
        """What was read of the data; None if the images do not say."""
        reading: DataReading | None = getattr(self.images, "reading", None)
        return reading

    def check(self) -> tuple[int, int]:
        """See whether the objective can be made, before anything is created.

        Returns:
            Channels of the images, and the number of classes.

        Raises:
            UserError: If the device cannot be had, or the objective refuses its options.
        """
        if self._sets_attributes:
            made = self._made_before = self._made()
        else:
            with warnings.catch_warnings():
                # The one that counts will warn.
                warnings.simplefilter("ignore")
                made = self._made()
        return made.in_channels, made.classes

    def make(
        self, *, checkpoints: Checkpoints | None = None, on_epoch: OnEpoch | None = None
    ) -> Objective:
        """The objective, with everything that it needs.

        Args:
            checkpoints: Where training state is kept; None keeps none.
            on_epoch: Called after every epoch.

        Raises:
            UserError: As `check`.
        """
        run = {"checkpoints": checkpoints, "on_epoch": on_epoch}
        if not self._sets_attributes:
            return objective_of(self._made(**run))
        objective = self._made_before or self._made()
        for name, value in run.items():
            if value is not None:
                setattr(objective, name, value)
        return objective_of(objective)

    @property
    def _sets_attributes(self) -> bool:
        """Whether the class takes neither, so that it is given them later as attributes."""
        return not (self._takes("checkpoints") or self._takes("on_epoch"))

    def _takes(self, name: str) -> bool:
        return name in inspect.signature(self._class.from_settings).parameters

    def _made(self, **run: Any) -> Any:
        make = self._class.from_settings
        return make(
            **_taken_by(make, self._supplied | run), **self._config.objective_options(self._class)
        )


def _taken_by(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    taken = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in taken}
