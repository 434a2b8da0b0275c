"""The networks that grow: residual cells, and increments that are added to their outputs."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.networks.cell_operations import FactorizedReduction, convolution, operation
from optnas.objectives.networks.stems import Stem, check_stem, stem_layers
from optnas.spaces import GrowthArchitecture
from optnas.spaces.growth_architecture import Increment

_Scales = Iterator[Tensor] | None


class GrowthNetwork(nn.Module):
    """A stem, residual cells, the increments of each, a linear classifier on pooled features.

    ``cells[i]`` computes layer i + 1 of the unrolled architecture and ``increments[i][j]`` what is
    added to it, in the order in which it was added. So a network has every tensor of those that
    it grew from, by the same name and of the same shape.

    Drop-path zeroes the result of an operation for single images while training and scales the
    others up. ``drop_path`` is the fraction that is dropped in the last cell and its increments;
    it falls linearly to the first. Identities and shortcuts are spared. It may be set at any
    time; the draws come from ``generator``, a generator on the CPU, or from torch's global one
    where that is None.

    Source: RandGrow (Macro Neural Architecture Search Revisited), section 2; what the paper
    leaves open (the stem, how resolutions are matched, gates, drop-path) is that of Petridish,
    the code of its authors.

    Args:
        architecture: The initial network and its increments.
        in_channels: Channels of the images.
        classes: Number of classes.
        gate: Whether an increment is multiplied by a learnt number that is zero at first, so that
            a child with its parent's weights computes what its parent computes.
        drop_path: See above, in [0, 1).
        stem: ``"small"`` is for images such as those of CIFAR; ``"large"`` and ``"7x7"``, for
            those of ImageNet, halve the resolution three times and twice before the cells.

    Raises:
        ValueError: If ``drop_path`` is out of range, or there is no such stem.
    """

    def __init__(
        self,
        architecture: GrowthArchitecture,
        in_channels: int,
        classes: int,
        *,
        gate: bool = False,
        drop_path: float = 0.0,
        stem: Stem = "small",
    ) -> None:
        super().__init__()
        check_stem(stem, architecture.channels)
        if not 0 <= drop_path < 1:
            raise ValueError(f"`drop_path` must be in [0, 1): {drop_path}.")
        self.drop_path = drop_path
        self.generator: torch.Generator | None = None
        macro = architecture.unrolled()
        channels = [macro.layer_channels(layer) for layer in range(macro.depth + 1)]
        self.stem = nn.Sequential(*stem_layers(stem, in_channels, channels[0]))
        self.cells = nn.ModuleList(
            ResidualCell(channels[cell - 1], channels[cell], cell in macro.reductions)
            for cell in range(1, macro.depth + 1)
        )
        increments: list[list[nn.Module]] = [[] for _ in self.cells]
        # For every cell: the layers that its increments take and make, and how many operations
        # drop-path may drop, its own among them.
        self._layers: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in self.cells]
        self._droppable = [1] * macro.depth
        for layer, increment in enumerate(macro.increments, start=macro.depth + 1):
            index = increment.target - 1
            increments[index].append(_increment(macro, increment, gate))
            self._layers[index].append((increment.inputs, layer))
            self._droppable[index] += sum(name != "identity" for name in increment.operations)
        self.increments = nn.ModuleList(nn.ModuleList(modules) for modules in increments)
        self._last_uses = _last_uses(macro)
        self.normalisation = nn.BatchNorm2d(channels[-1])
        self.classifier = nn.Linear(channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        layers = {0: self.stem(images)}
        scales = self._scales(layers[0])
        for index, (cell, increments) in enumerate(zip(self.cells, self.increments, strict=True)):
            output = cell(layers[index], scales)
            wiring = zip(self._layers[index], increments, strict=True)  # type: ignore[call-overload]  # a ModuleList
            for (inputs, layer), increment in wiring:
                layers[layer] = increment([layers[i] for i in inputs], scales)
                output = output + layers[layer]
            layers[index + 1] = output
            for layer in self._last_uses[index]:
                del layers[layer]
        features = functional.relu(self.normalisation(output))
        # A plain mean: the backward pass of adaptive pooling is not deterministic on CUDA.
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits

    def _scales(self, features: Tensor) -> _Scales:
        """What the operations' results are multiplied by, (N, 1, 1, 1) each; None for nothing."""
        if not self.training or self.drop_path == 0:
            return None
        # One draw and one transfer for all operations.
        rates = torch.tensor(
            [
                self.drop_path * number / len(self.cells)
                for number, droppable in enumerate(self._droppable, start=1)
                for _ in range(droppable)
            ]
        ).view(-1, 1, 1, 1, 1)
        shape = (len(rates), len(features), 1, 1, 1)
        kept = torch.rand(shape, generator=self.generator) >= rates
        return iter((kept / (1 - rates)).to(features, non_blocking=True).unbind())


class ResidualCell(nn.Module):
    """A 3x3 separable convolution, applied twice, plus a shortcut.

    Where the number of channels changes, a 1x1 convolution comes first, in the old resolution.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        reduction: Whether the resolution is halved.
    """

    def __init__(self, before: int, after: int, reduction: bool) -> None:
        super().__init__()
        self.projection = nn.Identity() if before == after else convolution(before, after, 1)
        self.operation = operation("sep_conv_3x3", after, 2 if reduction else 1)
        self.shortcut = FactorizedReduction(after, after) if reduction else nn.Identity()

    def forward(self, features: Tensor, scales: _Scales = None) -> Tensor:
        features = self.projection(features)
        shortcut: Tensor = self.shortcut(features)
        return shortcut + _dropped(self.operation(features), scales)


class IncrementModule(nn.Module):
    """Operations on several layers, joined and projected.

    Args:
        adapters: What brings each layer to the channels and the resolution of the result.
        operations: The operations, which change neither.
        channels: Channels of the result.
        gate: Whether the result is multiplied by a learnt number.
    """

    def __init__(
        self, adapters: list[nn.Module], operations: list[nn.Module], channels: int, gate: bool
    ) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(adapters)
        self.operations = nn.ModuleList(operations)
        self.projection = convolution(len(operations) * channels, channels, 1)
        self.gate = Gate() if gate else nn.Identity()

    def forward(self, inputs: list[Tensor], scales: _Scales = None) -> Tensor:
        results = []
        for features, adapter, part in zip(inputs, self.adapters, self.operations, strict=True):
            result = part(adapter(features))
            spared = isinstance(part, nn.Identity)
            results.append(result if spared else _dropped(result, scales))
        projected: Tensor = self.gate(self.projection(torch.cat(results, dim=1)))
        return projected


class Gate(nn.Module):
    """Multiplies by one learnt number, zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.scale)

    def forward(self, features: Tensor) -> Tensor:
        return features * self.scale


def _increment(macro: GrowthArchitecture, increment: Increment, gate: bool) -> IncrementModule:
    channels = macro.layer_channels(increment.target)
    adapters = [
        _adapter(
            macro.adapters(layer, increment.target),
            halve=macro.halvings(layer) < macro.halvings(increment.target),
        )
        for layer in increment.inputs
    ]
    operations = [
        nn.Identity() if name == "identity" else operation(name, channels, 1)
        for name in increment.operations
    ]
    return IncrementModule(adapters, operations, channels, gate)


def _adapter(steps: list[tuple[int, int]], halve: bool) -> nn.Module:
    if halve:
        return nn.Sequential(*(FactorizedReduction(*step) for step in steps))
    return nn.Sequential(*(convolution(*step, 1) for step in steps))


def _last_uses(macro: GrowthArchitecture) -> list[list[int]]:
    """For every cell the layers that nothing after it takes, so that they need not be kept."""
    last = {layer: layer + 1 for layer in range(macro.depth)}
    for layer, increment in enumerate(macro.increments, start=macro.depth + 1):
        last[layer] = increment.target
        for taken in increment.inputs:
            last[taken] = max(last[taken], increment.target)
    result: list[list[int]] = [[] for _ in range(macro.depth)]
    for layer, cell in last.items():
        result[cell - 1].append(layer)
    return result


def _dropped(result: Tensor, scales: _Scales) -> Tensor:
    return result if scales is None else result * next(scales)
