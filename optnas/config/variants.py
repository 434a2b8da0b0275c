"""Studies that are like another one, but for some keys."""

from typing import Any

from optnas.config.file import StudyFile, study_from_dict
from optnas.seeds import named_seed


def experiment_seed(config: StudyFile) -> int:
    """A seed that all studies of an experiment share, though their names differ."""
    return named_seed(config.study, config.seed) % 2**32


def variant(config: StudyFile, suffix: str, **changes: Any) -> StudyFile:
    """A study like ``config``, in its storage, with a name and keys of its own.

    Args:
        config: The configuration.
        suffix: What is added to its name.
        **changes: Keys of a study file that differ.

    Raises:
        UserError: If the changed configuration is wrong.
    """
    keys = config.resolved() | {"storage": config.storage, "seed": experiment_seed(config)}
    folder = keys.pop("folder")
    return study_from_dict(keys | {"study": f"{config.study}-{suffix}"} | changes, folder)
