"""Residual networks for faces: stages of blocks that end in an embedding."""

import dataclasses
import math
from collections.abc import Sequence

from optnas.spaces.base import Architecture
from optnas.spaces.layered import KERNELS, checked_positive, per_layer, weights

OPERATIONS = ("conv", "separable")
"""Of a block; the first one is what every block has unless it is said otherwise."""
STAGES = 4


@dataclasses.dataclass(frozen=True)
class FaceArchitecture(Architecture):
    """An IR network: a stem, four stages of residual blocks, and a linear map to an embedding.

    Every stage halves the resolution with its first block, the first one too, and has twice the
    channels of the stage before. A block is two convolutions beside a shortcut.

    Source: ArcFace (Deng et al. 2019), section 3.1, and the code of AdaFace (Kim et al. 2022).

    Args:
        width: Channels of the first stage, at least 1; the last one has eight times as many.
        stages: Number of blocks of each of the four stages, at least 1 each.
        embedding: Size of the embedding, at least 1.
        operations: ``"conv"`` or ``"separable"`` per block, for both of its convolutions; None
            means plain ones throughout.
        kernels: 3, 5 or 7 per block, for both of its convolutions; None means all 3.

    Raises:
        ValueError: If a value is out of range or a sequence has not one entry per block.
    """

    width: int = 64
    stages: tuple[int, ...] = (3, 4, 14, 3)
    embedding: int = 512
    operations: tuple[str, ...] | None = None
    kernels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        checked_positive("width", self.width)
        checked_positive("embedding", self.embedding)
        object.__setattr__(self, "stages", four_stages(self.stages))
        for name, choices in (("operations", OPERATIONS), ("kernels", KERNELS)):
            given = getattr(self, name) or ()
            values = per_layer(name, given, choices, self.blocks, "one per block")
            object.__setattr__(self, name, values)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return sum(self.stages)

    @property
    def depth(self) -> int:
        """Number of layers as papers count them: two per block, the stem and the embedding."""
        return 2 * self.blocks + 2

    @property
    def layers(self) -> tuple[tuple[int, int, int, str, int], ...]:
        """Channels before and after, stride, operation and kernel of every block."""
        assert self.operations is not None
        assert self.kernels is not None
        result: list[tuple[int, int, int, str, int]] = []
        before = self.width
        for stage, blocks in enumerate(self.stages):
            for index in range(blocks):
                number, after = len(result), self.width * 2**stage
                inside = (self.operations[number], self.kernels[number])
                result.append((before, after, 1 if index else 2, *inside))
                before = after
        return tuple(result)

    def num_params(
        self,
        in_channels: int = 3,
        classes: int | None = None,
        size: int | tuple[int, int] = 112,
    ) -> int:
        """Number of trainable parameters, in closed form.

        Args:
            in_channels: Channels of the images.
            classes: Number of identities: their vectors, ``embedding`` numbers each, are counted
                too. None leaves them out: the backbone alone.
            size: Height and width of the images in pixels, or the side of square ones.
        """
        width, last = self.width, 8 * self.width
        total = 9 * in_channels * width + 3 * width
        for before, after, _, operation, kernel in self.layers:
            total += weights(operation, before, after, kernel)
            total += weights(operation, after, after, kernel)
            total += 2 * before + 5 * after  # Three normalisations and the slopes.
            if before != after:
                total += before * after + 2 * after
        total += 2 * last + last * math.prod(reduced_size(size)) * self.embedding + self.embedding
        return total + self.embedding * (classes or 0)


def reduced_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of the last stage's features, for images of ``size`` pixels.

    Args:
        size: Height and width, or the side of square images.
    """
    height, width = (size, size) if isinstance(size, int) else size
    return -(-height // 2**STAGES), -(-width // 2**STAGES)


def four_stages(values: Sequence[int]) -> tuple[int, ...]:
    """The option ``stages``: a number for every stage.

    Raises:
        ValueError: If it is none.
    """
    values = tuple(values)
    if len(values) != STAGES or any(type(value) is not int or value < 1 for value in values):
        raise ValueError(f"`stages` must hold {STAGES} integers from 1 upwards: {values}.")
    return values
