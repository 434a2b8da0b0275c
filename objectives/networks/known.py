"""Networks that people designed, by their names in timm, with fresh weights."""

import dataclasses
import difflib
import re
from typing import Any

import torch
from torch import nn

from optnas.errors import UserError
from optnas.spaces import Architecture

LIBRARY = "timm"


@dataclasses.dataclass(frozen=True)
class KnownArchitecture(Architecture):
    """A network of timm.

    Args:
        name: Its name there, such as ``resnet18``; never an address to load something from.

    Raises:
        ValueError: If it is no name.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"`name` must be that of a network of timm: {self.name!r}.")


def check_known(name: str) -> KnownArchitecture:
    """The network of this name.

    Raises:
        UserError: If timm is not here, or has no such network.
    """
    library = _timm()
    try:
        architecture = KnownArchitecture(name)
    except ValueError as error:
        raise UserError(f"--reference: {error}") from None
    if not library.is_model(name):
        close = difflib.get_close_matches(name, library.list_models(), n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UserError(f"--reference: timm has no network {name!r}{hint}")
    return architecture


def known_network(
    architecture: KnownArchitecture, in_channels: int, classes: int, *, size: tuple[int, int]
) -> nn.Module:
    """The network of an architecture; nothing is downloaded.

    Args:
        architecture: What to build.
        in_channels: Channels of the images.
        classes: Number of classes.
        size: Height and width of the images, for networks that are made for one size.

    Raises:
        UserError: If timm is not here, or has no such network.
    """
    if torch.get_default_device().type == "meta":
        raise NotImplementedError("It draws its own weights.")
    check_known(architecture.name)
    library = _timm()
    config: Any = library.get_pretrained_cfg(architecture.name)
    sized = {"img_size": size} if config is not None and config.fixed_input_size else {}
    network: nn.Module = library.create_model(
        architecture.name,
        pretrained=False,
        in_chans=in_channels,
        num_classes=classes,
        **sized,
    )
    return network


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise UserError("--reference needs timm: pip install 'optnas[timm]'") from None
    return timm
