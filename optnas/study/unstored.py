"""Studies in memory: to ask a strategy, or to search in a table. Nothing is stored."""

import optuna

from optnas._version import __version__
from optnas.config import plugins
from optnas.config.contract import strategy_of
from optnas.config.file import StudyFile
from optnas.seeds import named_seed
from optnas.study.opening import OpenStudy
from optnas.study.record import RECORD


def unstored(config: StudyFile, *, in_channels: int, classes: int) -> OpenStudy:
    """A study as `create_or_open` would make it, in memory.

    Args:
        config: The configuration.
        in_channels: Channels of the images.
        classes: Number of classes.
    """
    seed = named_seed(config.study, config.seed)
    if strategy_of(plugins.load("sampler", config.sampler.name, config.folder)).is_stock:
        seed %= 2**32  # They take no more.
    shape = {"in_channels": in_channels, "classes": classes}
    study = optuna.create_study(
        study_name=config.study,
        direction="maximize",
        sampler=config.make_sampler(config.search_space, **shape, seed=seed),
        pruner=config.make_pruner(),
    )
    study.set_user_attr(RECORD, {"config": config.resolved(), "version": __version__, **shape})
    return OpenStudy(config, study)
