"""The network in which NAS-Bench-201 trained its cells."""

from collections.abc import Callable

from torch import Tensor, nn

from optnas.objectives.networks.cell_operations import convolution, operation
from optnas.spaces import NasBench201Architecture
from optnas.spaces.nasbench201 import EDGES


class NasBench201Network(nn.Module):
    """The network of NAS-Bench-201: three stages of cells, residual blocks that reduce between.

    On 32 x 32 images of 10 classes the parameters are those that the benchmark publishes, and
    the multiply-adds 10 fewer: it counts the bias of the classifier as one per class.

    Source: NAS-Bench-201 (Dong and Yang 2020), section 2.1 and its code.

    Args:
        architecture: The cell.
        in_channels: Channels of the images.
        classes: Number of classes.
        cells: Number of cells, a multiple of 3: a third in each stage.
        channels: Channels of the first stage, at least 1; every next stage has twice as many.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        architecture: NasBench201Architecture,
        in_channels: int,
        classes: int,
        *,
        cells: int = 15,
        channels: int = 16,
    ) -> None:
        super().__init__()
        self.stem, self.layers, width = stages(
            lambda channels: _Cell(architecture, channels), in_channels, cells, channels
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        logits: Tensor = self.classifier(self.layers(self.stem(images)).mean((2, 3)))
        return logits


def stages(
    build: Callable[[int], nn.Module], in_channels: int, cells: int, channels: int
) -> tuple[nn.Sequential, nn.Sequential, int]:
    """The stem, and three stages of cells with residual blocks between them.

    Args:
        build: Called for every cell with its number of channels.
        in_channels: Channels of the images.
        cells: Number of cells, a multiple of 3.
        channels: Channels of the first stage.

    Returns:
        The stem; the layers after it, the last normalisation included; the channels they put out.

    Raises:
        ValueError: If a value is out of range.
    """
    if cells < 1 or cells % 3 or channels < 1:
        raise ValueError(
            "`cells` must be a positive multiple of 3 (there are three stages) and `channels` "
            f"greater than or equal to 1: cells={cells}, channels={channels}."
        )
    stem = nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )
    layers: list[nn.Module] = []
    for stage in range(3):
        if stage > 0:
            layers.append(_ResidualReduction(channels))
            channels *= 2
        layers += (build(channels) for _ in range(cells // 3))
    return stem, nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU()), channels


class _Cell(nn.Module):
    def __init__(self, architecture: NasBench201Architecture, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            operation(name, channels, 1) for name in architecture.operations
        )

    def forward(self, features: Tensor) -> Tensor:
        nodes = [features]
        for edge, (node, source) in zip(self.edges, EDGES, strict=True):
            result = edge(nodes[source])
            if node == len(nodes):
                nodes.append(result)
            else:
                nodes[node] = nodes[node] + result
        return nodes[-1]


class _ResidualReduction(nn.Module):
    """Halves the resolution and doubles the channels; the shortcut is pooled, then projected."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *convolution(channels, 2 * channels, 3, stride=2),
            *convolution(2 * channels, 2 * channels, 3),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(channels, 2 * channels, 1, bias=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.shortcut(features) + self.residual(features)
        return result
