"""Networks of architectures: from what a space names to a module with fresh weights."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from optnas.objectives.networks.cell_operations import convolutions
from optnas.objectives.networks.cells import CellNetwork
from optnas.objectives.networks.faces import FaceNetwork
from optnas.objectives.networks.growth import GrowthNetwork
from optnas.objectives.networks.initialisation import (
    Constructing,
    blank,
    drawn_from,
    has_blanks,
    initialise,
    is_initialised,
    is_lazy,
)
from optnas.objectives.networks.known import KnownArchitecture, known_network
from optnas.objectives.networks.nasbench201 import NasBench201Network
from optnas.objectives.networks.stages import stage_network
from optnas.objectives.networks.stems import Stem, check_stem, stem_layers
from optnas.objectives.networks.supernet import MixedNetwork, supernet_of
from optnas.spaces import (
    Architecture,
    CellArchitecture,
    ChainArchitecture,
    FaceArchitecture,
    GrowthArchitecture,
    NasBench201Architecture,
    Space,
    StageArchitecture,
)

Builder = Callable[..., nn.Module]
NetworkModule = TypeVar("NetworkModule", bound=nn.Module)


class ChainNetwork(nn.Module):
    """A stem, pre-activation layers and a linear classifier on globally pooled features.

    Source: Efficient Global NAS, section 3.1; the layers' order (ReLU, convolution, batch
    normalisation; none after the last) is that of the authors' code.

    Args:
        architecture: The chain.
        in_channels: Channels of the images.
        classes: Number of classes.
        stem: ``"small"``, the paper's, or for images such as those of ImageNet ``"large"`` or
            ``"7x7"``; see `optnas.objectives.networks.stems`.

    Attributes:
        aligns: Each layer takes all that the one before puts out, and nothing else: see
            `optnas.objectives.training.alignment`.

    Raises:
        ValueError: If there is no such stem.
    """

    aligns = True

    def __init__(
        self,
        architecture: ChainArchitecture,
        in_channels: int,
        classes: int,
        *,
        stem: Stem = "small",
    ) -> None:
        channels = architecture.channels()
        check_stem(stem, channels[0])
        super().__init__()
        self.stem = nn.Sequential(*stem_layers(stem, in_channels, channels[0]))
        self.layers = nn.Sequential(
            *(
                _layer(operation, before, after, kernel, 2 if i in architecture.reductions else 1)
                for i, (operation, kernel, before, after) in enumerate(
                    zip(
                        architecture.operations,
                        architecture.kernels,
                        channels[:-1],
                        channels[1:],
                        strict=True,
                    )
                )
            )
        )
        self.classifier = nn.Linear(channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        features = self.layers(self.stem(images))
        # A plain mean: the backward pass of adaptive pooling is not deterministic on CUDA.
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


def _layer(operation: str, before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    layers = convolutions(operation, before, after, kernel, stride)
    return nn.Sequential(nn.ReLU(), *layers, nn.BatchNorm2d(after))


# A builder per kind of architecture, called with (architecture, in_channels, classes, **options).
BUILDERS: dict[type[Architecture], Builder] = {
    ChainArchitecture: ChainNetwork,
    CellArchitecture: CellNetwork,
    FaceArchitecture: FaceNetwork,
    GrowthArchitecture: GrowthNetwork,
    KnownArchitecture: known_network,
    NasBench201Architecture: NasBench201Network,
    StageArchitecture: stage_network,
}


def build_model(
    architecture: Architecture,
    input_shape: tuple[int, int, int],
    classes: int,
    generator: torch.Generator | None = None,
    **options: Any,
) -> nn.Module:
    """The network of an architecture, on the CPU, in training mode, with fresh weights.

    Args:
        architecture: What to build.
        input_shape: Channels, height and width of the images.
        classes: Number of classes, at least 2.
        generator: Draws the initial weights, so that equal states give equal weights. Default:
            torch's global generator.
        options: What else the network takes, for example the ``cells`` and ``channels`` of
            :class:`optnas.objectives.networks.cells.CellNetwork`.

    Raises:
        ValueError: If the shape, the number of classes or an option is out of range.
        TypeError: If no network is known for this kind of architecture, or its network does not
            take an option.
    """
    build = _builder(architecture, input_shape, options)
    return _built(build, input_shape, classes, generator)


def build_on_meta(
    architecture: Architecture, input_shape: tuple[int, int, int], classes: int, **options: Any
) -> nn.Module:
    """The same network without weights, to be counted; on the CPU if it cannot do without.

    Args:
        architecture: What to build.
        input_shape: Channels, height and width of the images.
        classes: Number of classes.
        options: As of `build_model`.
    """
    build = _builder(architecture, input_shape, options)
    try:
        with torch.device("meta"):
            model = build(input_shape[0], classes)
        if not is_lazy(model):
            return model
    except (RuntimeError, NotImplementedError):
        pass
    return _built_at_once(build, input_shape, classes, torch.Generator().manual_seed(0))


def _builder(
    architecture: Architecture, input_shape: tuple[int, int, int], options: dict[str, Any]
) -> Callable[[int, int], nn.Module]:
    """What makes a network, of channels and classes.

    Raises:
        TypeError: If no network is known for this kind of architecture.
    """
    builder = BUILDERS.get(type(architecture))
    if builder is None:
        known = ", ".join(kind.__name__ for kind in BUILDERS)
        raise TypeError(f"No network for {type(architecture).__name__}; known: {known}.")
    if isinstance(architecture, FaceArchitecture | KnownArchitecture):
        # Its linear layer takes features that were not pooled; or it is made for one size.
        options = {**options, "size": tuple(input_shape[1:])}
    return functools.partial(builder, architecture, **options)


def build_supernet(
    space: Space[Any],
    input_shape: tuple[int, int, int],
    classes: int,
    generator: torch.Generator | None = None,
    **options: Any,
) -> MixedNetwork:
    """The super-network of a space, on the CPU, in training mode, with fresh weights.

    Args:
        space: What is searched: a `CellSpace` or a `NasBench201Space`.
        input_shape: Channels, height and width of the images.
        classes: Number of classes, at least 2.
        generator: Draws the architecture parameters, then the initial weights. Default: torch's
            global generator.
        options: What else the super-network takes; see
            :class:`optnas.objectives.networks.supernet.SuperNetwork` and
            :class:`optnas.objectives.networks.supernet.NasBench201SuperNetwork`.

    Raises:
        ValueError: If the shape, the number of classes or an option is out of range.
        TypeError: If no super-network is known for the space, or it does not take an option.
    """
    build = functools.partial(supernet_of, space, **options)
    return _built(build, input_shape, classes, generator)


def _built(
    build: Callable[[int, int], NetworkModule],
    input_shape: tuple[int, int, int],
    classes: int,
    generator: torch.Generator | None,
) -> NetworkModule:
    if len(input_shape) != 3 or any(type(n) is not int or n < 1 for n in input_shape):
        raise ValueError(
            "`input_shape` must hold three positive integers (channels, height, width): "
            f"{input_shape!r}."
        )
    if classes < 2:
        raise ValueError(f"`classes` must be greater than or equal to 2: {classes}.")
    # On the meta device the layers draw nothing, so the global generator stays untouched.
    made_here = getattr(build, "func", build).__module__.startswith("optnas.")
    constructing = Constructing()
    try:
        with torch.device("meta"), contextlib.nullcontext() if made_here else constructing:
            model = build(input_shape[0], classes)
    except (RuntimeError, NotImplementedError):  # A constructor that looks at its own numbers.
        return _built_at_once(build, input_shape, classes, generator)
    if not (is_initialised(model) if made_here else constructing.can_be_repeated(model)):
        return _built_at_once(build, input_shape, classes, generator)
    before = torch.get_rng_state() if generator is None else generator.get_state()
    # As `to_empty` does, which imports half of torch's compiler to copy meta tensors' layouts.
    model._apply(_empty if made_here else blank)  # type: ignore[no-untyped-call]
    initialise(model, generator)
    if not made_here and has_blanks(model):
        torch.set_rng_state(before) if generator is None else generator.set_state(before)
        return _built_at_once(build, input_shape, classes, generator)
    return model


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _built_at_once(
    build: Callable[[int, int], NetworkModule],
    input_shape: tuple[int, int, int],
    classes: int,
    generator: torch.Generator | None,
) -> NetworkModule:
    """A network some of whose weights only its constructor can draw."""
    with drawn_from(generator), torch.device("cpu"):
        model = build(input_shape[0], classes)
        if is_lazy(model):
            with torch.no_grad():
                model.eval()(torch.zeros(1, *input_shape))
            model.train()
    return model
