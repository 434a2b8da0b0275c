"""How large the network of an architecture is built: its options, and its channels."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from optnas.config.proxy import Proxy
from optnas.config.settings import TrainSettings
from optnas.errors import UserError
from optnas.objectives.networks.build import BUILDERS, build_on_meta
from optnas.spaces import Architecture

A = TypeVar("A", bound=Architecture)

_WIDTHS = ("width", "channels")
"""The fields by which an architecture itself says how many channels its network has."""


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
    for name in ("drop_path", "auxiliary", "initial_drop_path"):
        if getattr(train, name) and name.removeprefix("initial_") not in _options(architecture):
            raise UserError(
                f"{name}: the network of a {type(architecture).__name__} has none; leave it out."
            )


def check_settings(
    architecture: Architecture,
    options: Mapping[str, Any],
    train: TrainSettings,
    input_shape: tuple[int, int, int],
    classes: int,
) -> None:
    """Refuse what the network of this kind of architecture has not.

    Args:
        architecture: An example.
        options: Options of its network.
        train: How it is trained.
        input_shape: Channels, height and width of the images.
        classes: Number of classes.

    Raises:
        UserError: As `check_options` and `check_training`, or because no network has such values.
    """
    check_options(architecture, options)
    check_training(architecture, train)
    reason = _refusal(architecture, options, input_shape, classes) if options else None
    # A network that cannot be built without them either says nothing of the options.
    if reason is not None and _refusal(architecture, {}, input_shape, classes) is None:
        raise UserError(f"network: {reason}")


def _refusal(
    architecture: Architecture,
    options: Mapping[str, Any],
    input_shape: tuple[int, int, int],
    classes: int,
) -> str | None:
    """Why there is no such network; None if there is one."""
    try:
        build_on_meta(architecture, input_shape, classes, **options)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def candidate_network(
    architecture: A, options: Mapping[str, Any], train: TrainSettings, proxy: Proxy | None
) -> tuple[A, dict[str, Any]]:
    """The architecture and the options of the network that speaks for it in a search.

    Args:
        architecture: What is judged.
        options: Options of its full network.
        train: How it is trained.
        proxy: The reduced setting; None is the full one.

    Raises:
        UserError: If the proxy reduces channels, and the network has none to choose.
    """
    options = {**options, "auxiliary": True} if train.auxiliary else dict(options)
    if proxy is None or proxy.c == 0:
        return architecture, options
    return with_fewer_channels(architecture, options, proxy.channels)


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
    full = channels_of(architecture, options)
    if full is None:
        raise UserError(
            f"proxy: the network of a {type(architecture).__name__} has no channels to reduce; "
            "write c0."
        )
    return with_channels(architecture, options, fewer(full))


def channels_of(architecture: Architecture, options: Mapping[str, Any]) -> int | None:
    """Channels of a network's first layers, or None where nobody can choose them.

    Args:
        architecture: Its own, if it has any.
        options: Otherwise ``channels`` as given here, or by default.
    """
    field = _width_field(architecture)
    default = _options(architecture).get("channels")
    channels: int | None = (
        options.get("channels", default) if field is None else getattr(architecture, field)
    )
    return channels


def with_channels(
    architecture: A, options: Mapping[str, Any], channels: int
) -> tuple[A, dict[str, Any]]:
    """The architecture and the options of a network of the same structure, ``channels`` wide.

    Args:
        architecture: Its own width is replaced, if it has one.
        options: Otherwise ``channels`` is.
        channels: Channels of the first layers.

    Raises:
        UserError: If the network has no channels to choose.
    """
    if channels_of(architecture, options) is None:
        raise UserError(
            f"channels: the network of a {type(architecture).__name__} has none to choose; leave "
            "it out."
        )
    field = _width_field(architecture)
    if field is None:
        return architecture, {**options, "channels": channels}
    return dataclasses.replace(architecture, **{field: channels}), dict(options)


def resized(
    architecture: A, options: Mapping[str, Any], asked: Mapping[str, Any]
) -> tuple[A, dict[str, Any]]:
    """The architecture and the options of a network of the same structure and of another size.

    Args:
        architecture: Its own width is replaced, if it has one, and its own number of cells, if
            every cell of a kind is alike.
        options: Otherwise the options are.
        asked: What is to be otherwise: ``cells``, ``channels``, ``stem`` and other options.

    Raises:
        UserError: If the network has no such option.
    """
    asked, known = dict(asked), _options(architecture)
    channels = asked.pop("channels", None)
    if "cells" in asked and "cells" not in known and getattr(architecture, "mode", "") == "cell":
        changed: Any = {"cells": asked.pop("cells")}
        architecture = dataclasses.replace(architecture, **changed)
    check_options(architecture, asked)
    options = {**options, **asked}
    if channels is None:
        return architecture, options
    return with_channels(architecture, options, channels)


def _width_field(architecture: Architecture) -> str | None:
    fields = {field.name for field in dataclasses.fields(architecture)}
    return next((name for name in _WIDTHS if name in fields), None)


def _options(architecture: Architecture) -> dict[str, Any]:
    """The options of a network, with their defaults."""
    builder = BUILDERS.get(type(architecture))
    parameters = () if builder is None else inspect.signature(builder).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
