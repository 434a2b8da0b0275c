"""The space of residual networks for faces: depth, width, an operation and a kernel per block."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from optnas.spaces.base import ParamValue
from optnas.spaces.face_architecture import OPERATIONS, FaceArchitecture, four_stages
from optnas.spaces.layered import (
    KERNELS,
    LayeredSpace,
    checked_choices,
    checked_positive,
    layer_params,
)

_ORDER = (2, 1, 3, 0)
"""The stages in the order in which they get a block that none has more right to."""


class FaceSpace(LayeredSpace[FaceArchitecture]):
    """IR networks: depth, width, and per block an operation and a kernel.

    A trial's parameters are ``depth`` (layers: two per block and two more, so it is even),
    ``width``, and ``op_{i}`` and ``kernel_{i}`` for every block ``i``. A proposed width may lie
    below the range or between its steps, as in :class:`optnas.spaces.ChainSpace`.

    Source: Efficient Global NAS, section 4.2. The paper does not say how layers are shared among
    the stages.

    Args:
        depth: Least and greatest number of layers, even numbers from 10 upwards.
        width: Least and greatest number of channels of the first stage.
        embedding: Size of the embedding.
        stages: Shares of the four stages: as many blocks as they add up to are split exactly so,
            others in proportion, each stage with one at least. By default they are equal, and
            what is left over goes to the third stage, then to the second, then to the fourth.
        size: Side of the images in pixels, to count parameters.
        kernels: The kernel sizes of a block, some of 3, 5 and 7.
        width_step: Channels between two widths, counted from the greatest.
        preset: ``"small"`` or ``"medium"``, the two settings of the paper; a range given beside
            it wins.

    Raises:
        ValueError: If a value is out of range, or the preset is unknown.
    """

    architecture_class: ClassVar[type[FaceArchitecture]] = FaceArchitecture
    kind = "face network"
    operations = OPERATIONS
    operation = OPERATIONS[0]
    depth_step = 2  # A block.
    micro = False

    PRESETS: ClassVar[dict[str, dict[str, tuple[int, int]]]] = {
        "small": {"depth": (10, 100), "width": (16, 32)},
        "medium": {"depth": (10, 100), "width": (16, 64)},
    }

    def __init__(
        self,
        depth: tuple[int, int] | None = None,
        width: tuple[int, int] | None = None,
        *,
        embedding: int = 512,
        stages: tuple[int, int, int, int] = (1, 1, 1, 1),
        size: int = 112,
        kernels: tuple[int, ...] = (3, 5),
        width_step: int = 2,
        preset: str = "medium",
    ) -> None:
        ranges = self._ranges(preset)
        self.depth = _range("depth", depth or ranges["depth"], least=10, step=2)
        self.width = _range("width", width or ranges["width"])
        self.embedding = checked_positive("embedding", embedding)
        self.size = checked_positive("size", size)
        self.stages = four_stages(stages)
        self.kernels = checked_choices("kernels", kernels, KERNELS)
        self.width_step = checked_positive("width_step", width_step)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(depth={self.depth}, width={self.width}, "
            f"embedding={self.embedding}, stages={self.stages}, size={self.size}, "
            f"kernels={self.kernels}, width_step={self.width_step})"
        )

    def split(self, depth: int) -> tuple[int, ...]:
        """Number of blocks of every stage of a network of ``depth`` layers.

        A block more never takes one from a stage (the divisor method of Adams).

        Raises:
            ValueError: If no network has so many layers.
        """
        if type(depth) is not int or depth < 10 or depth % 2:
            raise ValueError(f"`depth` must be an even number of layers, 10 or more: {depth!r}.")
        return _split(depth // 2 - 1, self.stages)

    def choosing(self, depth: int) -> int:
        return sum(self.split(depth))

    def uniform(
        self, depth: int, width: int, operation: str = "conv", kernel: int = 3
    ) -> FaceArchitecture:
        """A network of the space with the same operation and kernel in every block."""
        stages = self.split(depth)
        blocks = sum(stages)
        inside = ((operation,) * blocks, (kernel,) * blocks)
        return self.architecture_class(width, stages, self.embedding, *inside)

    def extremes(self) -> tuple[FaceArchitecture, FaceArchitecture]:
        (shallow, deep), (narrow, wide) = self.depth, self.width
        least = self.uniform(shallow, narrow, "separable", min(self.kernels))
        return least, self.uniform(deep, wide, "conv", max(self.kernels))

    def num_params(self, architecture: FaceArchitecture, in_channels: int, classes: int) -> int:
        """Parameters of a network for the faces of this space, without the identities' vectors."""
        return architecture.num_params(in_channels, None, self.size)

    def to_params(self, architecture: FaceArchitecture) -> dict[str, ParamValue]:
        same = self.uniform(architecture.depth, architecture.width)
        if (architecture.stages, architecture.embedding) != (same.stages, same.embedding):
            raise ValueError(
                f"This space has the stages {same.stages} and embeddings of {same.embedding}: "
                f"{architecture}."
            )
        inside = (architecture.operations, architecture.kernels)
        return layer_params(architecture.depth, architecture.width, *inside)

    def _network(
        self, depth: int, width: int, operations: tuple[str, ...], kernels: tuple[int, ...]
    ) -> FaceArchitecture:
        stages = self.split(depth)
        return self.architecture_class(width, stages, self.embedding, operations, kernels)

    def mutate(self, architecture: FaceArchitecture, rng: np.random.Generator) -> FaceArchitecture:
        """``architecture`` with another value of one parameter, uniform over the other values.

        A block that is added at the end is plain; one that is taken away is the last.
        """
        params = self.to_params(architecture)
        depths = range(self.depth[0], self.depth[1] + 1, 2)
        choices: dict[str, Sequence[Any]] = {"depth": depths, "width": self.widths}
        choices |= dict(self._choices(architecture.depth))
        choices = {name: [v for v in c if v != params[name]] for name, c in choices.items()}
        names = [name for name, others in choices.items() if others]
        name = names[int(rng.integers(len(names)))]
        params[name] = choices[name][int(rng.integers(len(choices[name])))]
        plain = self.to_params(self.uniform(int(params["depth"] or 0), architecture.width))
        return self.from_params(plain | params)

    def baselines(self) -> Mapping[str, FaceArchitecture]:
        blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 101: (3, 13, 30, 3)}
        return {
            f"IR-{layers}": FaceArchitecture(64, stages, self.embedding)
            for layers, stages in blocks.items()
        }


@functools.lru_cache(maxsize=1024)
def _split(blocks: int, shares: tuple[int, ...]) -> tuple[int, ...]:
    """``blocks`` among stages in proportion to their shares, one at least to each."""
    split = [1] * len(shares)
    for _ in range(blocks - len(shares)):
        # The first of equal ones: fractions are compared exactly.
        best = _ORDER[0]
        for stage in _ORDER[1:]:
            if shares[stage] * split[best] > shares[best] * split[stage]:
                best = stage
        split[best] += 1
    return tuple(split)


def _range(
    name: str, bounds: tuple[int, int], *, least: int = 1, step: int = 1
) -> tuple[int, int]:
    integers = all(type(bound) is int and bound % step == 0 for bound in bounds)
    if len(bounds) != 2 or not integers or not least <= bounds[0] <= bounds[1]:
        what = "integers" if step == 1 else "even integers"
        raise ValueError(
            f"`{name}` must be two {what}, the least and the greatest, from {least} upwards: "
            f"{tuple(bounds)}."
        )
    return (bounds[0], bounds[1])
