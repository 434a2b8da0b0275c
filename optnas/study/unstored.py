"""Studies in memory: to ask a strategy, or to search in a table. Nothing is stored."""

import optuna

from optnas._version import __version__
from optnas.config.file import StudyFile
from optnas.study.opening import OpenStudy, prepared
from optnas.study.record import RECORD


def unstored(config: StudyFile, *, in_channels: int, classes: int) -> OpenStudy:
    """A study as `create_or_open` would make it, in memory.

    Args:
        config: The configuration.
        in_channels: Channels of the images.
        classes: Number of classes.
    """
    record = {
        "config": config.resolved(),
        "version": __version__,
        "in_channels": in_channels,
        "classes": classes,
    }
    study = optuna.create_study(study_name=config.study, direction="maximize")
    study.set_user_attr(RECORD, record)
    return prepared(config, study, record)
