"""The versions that every node of a cluster must have alike."""

import platform
from collections.abc import Mapping
from importlib.metadata import version

from optnas._version import __version__
from optnas.errors import UserError


def versions() -> dict[str, str]:
    """What every node must have alike, and in which version."""
    return {
        "optnas": __version__,
        "torch": version("torch"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def check_versions(wanted: Mapping[str, str], node: str) -> None:
    """Refuse to train with other versions than the study is run with.

    Raises:
        UserError: If one differs.
    """
    here = versions()
    other = [name for name in wanted if here[name] != wanted[name]]
    if other:
        has = ", ".join(f"{name} {here[name]}" for name in other)
        needs = ", ".join(f"{name} {wanted[name]}" for name in other)
        raise UserError(f"node {node} has {has}, and the run {needs}: install the same everywhere")
