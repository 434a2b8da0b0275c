"""How large the network of an architecture is built: its options, and reduced channels."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from optnas.errors import UserError
from optnas.objectives.models import BUILDERS
from optnas.settings import TrainSettings
from optnas.spaces import Architecture, ChainArchitecture

A = TypeVar("A", bound=Architecture)


def check_options(architecture: Architecture, options: Mapping[str, Any]) -> None:
    """Refuse options that the network of this kind of architecture does not take.

    Raises:
        UserError: Naming the option, and those that there are.
    """
    taken = _options(architecture)
    for name in options:
        if name not in taken:
            raise UserError(
                f"network.{name}: the network of a {type(architecture).__name__} has no such "
                f"option; it takes {', '.join(taken) or 'none'}."
            )


def check_training(architecture: Architecture, train: TrainSettings) -> None:
    """Refuse drop-path and an auxiliary loss where the network has neither.

    Raises:
        UserError: Naming the key.
    """
    for name in ("drop_path", "auxiliary"):
        if getattr(train, name) and name not in _options(architecture):
            raise UserError(
                f"{name}: the network of a {type(architecture).__name__} has none; leave it out."
            )


def with_fewer_channels(
    architecture: A, options: Mapping[str, Any], fewer: Callable[[int], int]
) -> tuple[A, dict[str, Any]]:
    """The architecture and the options of a narrower network with the same structure.

    Args:
        architecture: Its width is reduced, if it has one.
        options: Otherwise ``channels`` is, as given here or by default.
        fewer: The reduced number of channels, of the full one.

    Raises:
        UserError: If the network has no channels to choose.
    """
    if isinstance(architecture, ChainArchitecture):
        return dataclasses.replace(architecture, width=fewer(architecture.width)), dict(options)
    full = options.get("channels", _options(architecture).get("channels"))
    if full is None:
        raise UserError(
            f"proxy: the network of a {type(architecture).__name__} has no channels to reduce; "
            "write c0."
        )
    return architecture, {**options, "channels": fewer(full)}


def _options(architecture: Architecture) -> dict[str, Any]:
    """The options of a network, with their defaults."""
    builder = BUILDERS.get(type(architecture))
    parameters = () if builder is None else inspect.signature(builder).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
