"""Weights of one chain for another: deeper, narrower, or with other operations and kernels."""

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from optnas.spaces import ChainArchitecture

Layer = dict[str, Tensor]


def adapt_chain(
    parent: ChainArchitecture, child: ChainArchitecture, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of ``parent`` under the names and in the shapes that ``child`` has.

    In every resolution the first and the last layers correspond. What is new lies before the last
    one and begins as an identity: its input has passed a ReLU, a second one changes nothing.
    A separable convolution becomes the full one that computes the same; a kernel gets zeros
    around it. Where the child is narrower, it takes the first channels; where it is wider, or a
    full convolution becomes separable, tensors are left out.

    Args:
        parent: The trained chain.
        child: The chain that starts from it.
        state: Parameters and statistics of the trained chain, by name.

    Returns:
        Parameters and statistics for the child; those missing keep their fresh values.
    """
    channels = child.channels()
    result = {name: value for name, value in state.items() if not name.startswith("layers.")}
    if "classifier.weight" in result:
        result["classifier.weight"] = _first(result["classifier.weight"], (None, channels[-1]))
    for name, value in list(result.items()):
        if name.startswith("stem."):
            result[name] = _first(value, (channels[0],))
    layer: Layer = {}
    for index, source in enumerate(_sources(parent, child)):
        before, after = channels[index], channels[index + 1]
        if source is None:
            layer = _identity(child, index, layer) if before == after else {}
        else:
            layer = _converted(_layer(parent, state, source), parent, source, child, index)
            layer = {name: _sliced(name, value, before, after) for name, value in layer.items()}
        names = _names(child.operations[index])
        result.update((f"layers.{index}.{names[n]}", value) for n, value in layer.items())
    return result


def _sources(parent: ChainArchitecture, child: ChainArchitecture) -> list[int | None]:
    """For every layer of the child, the parent's layer that it starts from, or None."""
    ours, theirs = _stages(child), _stages(parent)
    if len(ours) != len(theirs):
        return [i if i < parent.depth else None for i in range(child.depth)]
    sources: list[int | None] = []
    for own, other in zip(ours, theirs, strict=True):
        found: list[int | None] = [*other[: len(own)], *[None] * (len(own) - len(other))]
        if len(own) > 1 and len(other) > 1:
            found[min(len(own), len(other)) - 1] = None if len(own) > len(other) else found[-1]
            found[-1] = other[-1]
        sources += found
    return sources


def _stages(chain: ChainArchitecture) -> list[range]:
    """The layers of every resolution."""
    bounds = [0, *chain.reductions, chain.depth]
    return [range(*pair) for pair in itertools.pairwise(bounds)]


# A layer's tensors by what they are, whatever its operation: "depthwise", "pointwise" or
# "full", and those of its normalisation.
_STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _names(operation: str) -> dict[str, str]:
    if operation == "conv":
        names, norm = {"full": "1.weight"}, 2
    else:
        names, norm = {"depthwise": "1.weight", "pointwise": "2.weight"}, 3
    return names | {name: f"{norm}.{name}" for name in _STATISTICS}


def _layer(chain: ChainArchitecture, state: Mapping[str, Tensor], index: int) -> Layer:
    names = {what: f"layers.{index}.{n}" for what, n in _names(chain.operations[index]).items()}
    return {what: state[name] for what, name in names.items() if name in state}


def _converted(
    layer: Layer, parent: ChainArchitecture, source: int, child: ChainArchitecture, index: int
) -> Layer:
    """A layer with the child's operation and kernel."""
    layer = dict(layer)
    kinds = (parent.operations[source], child.operations[index])
    if kinds == ("separable", "conv"):
        layer["full"] = layer.pop("pointwise") * layer.pop("depthwise").squeeze(1)
    elif kinds == ("conv", "separable"):
        return {}
    for what in ("depthwise", "full"):
        if what in layer:
            # Zeros around it, or what is around its centre taken away.
            margin = (child.kernels[index] - layer[what].shape[-1]) // 2
            layer[what] = functional.pad(layer[what], (margin,) * 4)
    return layer


def _sliced(name: str, value: Tensor, before: int, after: int) -> Tensor:
    """The first channels, of ``before`` that come in and ``after`` that go out."""
    if name == "depthwise":
        return _first(value, (before,))
    return _first(value, (after, before) if name in ("pointwise", "full") else (after,))


def _first(value: Tensor, sizes: tuple[int | None, ...]) -> Tensor:
    return value[tuple(slice(size) for size in sizes[: value.ndim])]


def _identity(chain: ChainArchitecture, index: int, before: Layer) -> Layer:
    """A layer that passes on what it gets, in training too.

    Its normalisation undoes itself: scale and shift are the standard deviation and the mean of
    its input, a ReLU of the Gaussian that the normalisation before it puts out.

    Args:
        chain: The chain that the layer belongs to.
        index: The layer, with as many channels before it as after it.
        before: The layer before it.
    """
    channels, kernel = chain.channels()[index], chain.kernels[index]
    centre = torch.zeros(channels, 1, kernel, kernel)
    centre[:, :, kernel // 2, kernel // 2] = 1
    eye = torch.eye(channels)[:, :, None, None]
    if chain.operations[index] == "conv":
        layer = {"full": eye * centre.squeeze(1)}
    else:
        layer = {"depthwise": centre, "pointwise": eye}
    if "weight" not in before:
        return layer
    scale, shift = before["weight"].abs().clamp_min(1e-6), before["bias"]
    ratio = shift / scale
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    share = torch.special.ndtr(ratio)
    mean = shift * share + scale * density
    variance = (shift.square() + scale.square()) * share + shift * scale * density - mean.square()
    variance = variance.clamp_min(1e-4)
    return layer | {
        "weight": (variance + 1e-5).sqrt(),
        "bias": mean,
        "running_mean": mean.clone(),
        "running_var": variance,
    }
