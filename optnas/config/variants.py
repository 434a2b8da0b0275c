"""Studies that are like another one, but for some keys."""

from typing import Any

from optnas.config.file import StudyFile, study_from_dict
from optnas.seeds import named_seed


def experiment_seed(config: StudyFile) -> int:
    """A seed that all studies of an experiment share, though their names differ."""
    return named_seed(config.study, config.seed) % 2**32


def variant(config: StudyFile, suffix: str, **changes: Any) -> StudyFile:
    """A study like ``config``, in its storage, with a name and keys of its own.

    What ``config`` leaves open it leaves open, too, and blocks that do not differ are as written.

    Args:
        config: The configuration.
        suffix: What is added to its name.
        **changes: Keys of a study file that differ; a block is replaced as a whole.

    Raises:
        UserError: If the changed configuration is wrong.
    """
    keys = {
        **config.written.keys,
        "study": f"{config.study}-{suffix}",
        "storage": config.storage,
        "artifacts": config.artifacts,
        "seed": experiment_seed(config),
    }
    blocks = config.resolved()
    differing = {key: value for key, value in changes.items() if value != blocks.get(key)}
    return study_from_dict(keys | differing, config.folder)


def written_block(config: StudyFile, key: str) -> dict[str, Any]:
    """A block as its author wrote it: as a mapping, nothing filled in."""
    block = config.written.keys.get(key)
    return {"name": block} if isinstance(block, str) else dict(block or {})
