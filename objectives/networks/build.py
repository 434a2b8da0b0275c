"""Networks of architectures: building, initialising and counting them."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

from optnas.objectives.networks.cells import CellNetwork
from optnas.objectives.networks.faces import FaceNetwork
from optnas.objectives.networks.growth import Gate, GrowthNetwork
from optnas.objectives.networks.mixtures import ArchitectureWeights
from optnas.objectives.networks.nasbench201 import NasBench201Network
from optnas.objectives.networks.stages import stage_network
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
Network = TypeVar("Network", bound=nn.Module)

# What `initialise` can draw and `count_multiply_adds` can count. Normalisation, gates, the slopes
# of activations and the weights of a mixture have no multiply-adds by convention: most fold into
# the convolutions.
_WEIGHTED = (nn.Conv2d, nn.Linear)
_SCALING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.PReLU, Gate)


class ChainNetwork(nn.Module):
    """A stem, pre-activation layers and a linear classifier on globally pooled features.

    Source: Efficient Global NAS, section 3.1; the layers' order (ReLU, convolution, batch
    normalisation; none after the last) is that of the authors' code.

    Args:
        architecture: The chain.
        in_channels: Channels of the images.
        classes: Number of classes.
    """

    def __init__(self, architecture: ChainArchitecture, in_channels: int, classes: int) -> None:
        super().__init__()
        channels = architecture.channels()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(channels[0]),
        )
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
    padding = kernel // 2
    if operation == "conv":
        convolutions = [nn.Conv2d(before, after, kernel, stride, padding, bias=False)]
    else:
        convolutions = [
            nn.Conv2d(before, before, kernel, stride, padding, groups=before, bias=False),
            nn.Conv2d(before, after, 1, bias=False),
        ]
    return nn.Sequential(nn.ReLU(), *convolutions, nn.BatchNorm2d(after))


# A builder per kind of architecture, called with (architecture, in_channels, classes, **options).
BUILDERS: dict[type[Architecture], Builder] = {
    ChainArchitecture: ChainNetwork,
    CellArchitecture: CellNetwork,
    FaceArchitecture: FaceNetwork,
    GrowthArchitecture: GrowthNetwork,
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
    builder = BUILDERS.get(type(architecture))
    if builder is None:
        known = ", ".join(kind.__name__ for kind in BUILDERS)
        raise TypeError(f"No network for {type(architecture).__name__}; known: {known}.")
    if isinstance(
        architecture, FaceArchitecture
    ):  # Its linear layer takes features that were not pooled.
        options["size"] = tuple(input_shape[1:])
    build = functools.partial(builder, architecture, **options)
    return _built(build, input_shape, classes, generator)


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
    build: Callable[[int, int], Network],
    input_shape: tuple[int, int, int],
    classes: int,
    generator: torch.Generator | None,
) -> Network:
    if len(input_shape) != 3 or any(type(n) is not int or n < 1 for n in input_shape):
        raise ValueError(
            "`input_shape` must hold three positive integers (channels, height, width): "
            f"{input_shape!r}."
        )
    if classes < 2:
        raise ValueError(f"`classes` must be greater than or equal to 2: {classes}.")
    # On the meta device the layers draw nothing, so the global generator stays untouched.
    with torch.device("meta"):
        model = build(input_shape[0], classes)
    # As `to_empty` does, which imports half of torch's compiler to copy meta tensors' layouts.
    model._apply(  # type: ignore[no-untyped-call]
        lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype)
    )
    initialise(model, generator)
    return model


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Set all weights and statistics as PyTorch's constructors do, drawn from ``generator``.

    Args:
        module: Changed in place; its submodules are visited in the order of their construction.
            If it has a method ``draw_weights(layer, generator)``, that draws the weights of its
            convolutions and linear layers.
        generator: The source of the weights. Default: torch's global generator.

    Raises:
        TypeError: If a module with parameters or buffers of its own is of an unknown type.
    """
    draw_weights = getattr(module, "draw_weights", _draw_weights)
    for name, part in module.named_modules():
        if isinstance(part, _WEIGHTED):
            draw_weights(part, generator)
        elif isinstance(part, _SCALING):
            part.reset_parameters()  # constants: nothing is drawn
        elif isinstance(part, ArchitectureWeights):
            part.reset_parameters(generator)
        elif _own_state(part):
            raise TypeError(f"Cannot initialise `{name}` of type {type(part).__name__}.")


def _draw_weights(part: nn.Conv2d | nn.Linear, generator: torch.Generator | None) -> None:
    nn.init.kaiming_uniform_(part.weight, a=math.sqrt(5), generator=generator)
    if part.bias is not None:
        bound = 1 / math.sqrt(part.weight[0].numel())
        nn.init.uniform_(part.bias, -bound, bound, generator=generator)


def count_params(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@dataclasses.dataclass(frozen=True)
class ForwardCosts:
    """What it takes to classify one image.

    Args:
        multiply_adds: Each counted as one. Convolutions and linear layers count; biases,
            normalisation, activations and pooling do not.
        memory_bytes: Of parameters, statistics, the image and what every operation puts out, all
            in float32. It is the memory of Stage-Wise NAS (table III), where nothing is freed.
    """

    multiply_adds: int
    memory_bytes: int


def count_multiply_adds(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of one image's forward pass; see :func:`forward_costs`."""
    return forward_costs(model, input_shape).multiply_adds


@torch.no_grad()
def forward_costs(model: nn.Module, input_shape: tuple[int, int, int]) -> ForwardCosts:
    """What one image's forward pass in evaluation mode takes.

    Args:
        model: Left as it was, training mode included.
        input_shape: Channels, height and width of the image.

    Raises:
        TypeError: If the model has parameters in a module whose operations would not be counted.
    """
    for name, part in model.named_modules():
        known = isinstance(part, (*_WEIGHTED, *_SCALING, ArchitectureWeights))
        if not known and any(True for _ in part.parameters(recurse=False)):
            raise TypeError(
                f"Cannot count the multiply-adds of `{name}` of type {type(part).__name__}."
            )
    modes = {part: part.training for part in model.modules()}
    reference = next(model.parameters())
    image = torch.zeros(1, *input_shape, device=reference.device, dtype=reference.dtype)
    counter = _Counter()
    model.eval()
    try:
        with counter:
            model(image)
    finally:
        for part, training in modes.items():
            part.training = training
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    held = sum(tensor.numel() for tensor in (image, *model.parameters(), *statistics))
    return ForwardCosts(counter.multiply_adds, 4 * (held + counter.outputs))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what operations put out, and by the formulas of torch's flop counter.

    Those count two per multiply-add.

    `FlopCounterMode` itself hooks the modules of the whole process, so it would trip over the
    training in other threads; a dispatch mode sees its own thread only.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # To skip torch's compiler it would have to be imported.

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds: int = 0
        self.outputs: int = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        formula = flop_counter.flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.multiply_adds += formula(*args, **(kwargs or {}), out_val=result) // 2
        # The first result is what comes out; it is no memory of its own if it is a view.
        returned = func._schema.returns
        first = result[0] if isinstance(result, tuple | list) and result else result
        if returned and returned[0].alias_info is None and isinstance(first, Tensor):
            self.outputs += first.numel()
        return result


def _own_state(part: nn.Module) -> bool:
    return any(True for _ in part.parameters(recurse=False)) or any(
        True for _ in part.buffers(recurse=False)
    )
