"""Where the files of a study are."""

from optnas.config.paths import absolute, file_name, split_bucket
from optnas.study.opening import OpenStudy


def network_folder(opened: OpenStudy) -> str:
    """Where ``optnas retrain`` puts the network, unless told otherwise."""
    config = opened.config
    if split_bucket(config.artifacts) is not None:
        return absolute(f"{file_name(config.study)}.network", config.folder)
    return config.artifacts.removesuffix(".artifacts") + ".network"
