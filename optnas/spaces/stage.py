"""Networks of stages: blocks of one kind, how many of them in each resolution."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from optnas.spaces.base import Architecture, ParamValue
from optnas.spaces.choices import ChoiceSpace

Block = Literal["basic", "bottleneck", "nasnet"]
BLOCKS: tuple[str, ...] = get_args(Block)

# Networks with as many stages as these, by the kind of their modules. Those with the names of
# NASNets are the ones of Stage-Wise NAS, table IV, named after their depth.
_HUMAN_DESIGNED: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "basic": {"ResNet-44": (7, 7, 7), "ResNet-56": (9, 9, 9), "ResNet-110": (18, 18, 18)},
    "bottleneck": {
        "ResNet-50": (3, 4, 6, 3),
        "ResNet-101": (3, 4, 23, 3),
        "ResNet-152": (3, 8, 36, 3),
    },
    "nasnet": {"NASNet-169": (4, 4, 4), "NASNet-205": (5, 5, 5), "NASNet-241": (6, 6, 6)},
}

Range = tuple[int, int]
"""Least and greatest number of modules of a stage."""


@dataclasses.dataclass(frozen=True)
class StageArchitecture(Architecture):
    """Stages of modules: every stage halves the resolution and doubles the channels.

    Source: Stage-Wise NAS (Jordao et al. 2020), section III.

    Args:
        modules: Number of modules of every stage, each at least 1.
        block: What a module is: ``"basic"``, the residual block of two convolutions;
            ``"bottleneck"``, that of three, for large images; ``"nasnet"``, a normal cell of
            NASNet-A, with a reduction cell before every stage but the first.

    Raises:
        ValueError: If a number is below 1, there is none, or the block is unknown.
    """

    modules: tuple[int, ...]
    block: Block = "basic"

    def __post_init__(self) -> None:
        modules = tuple(self.modules)
        if not modules or any(type(number) is not int or number < 1 for number in modules):
            raise ValueError(
                f"`modules` must hold one integer from 1 upwards per stage: {modules}."
            )
        if self.block not in BLOCKS:
            raise ValueError(f"`block` must be one of {BLOCKS}: {self.block!r}.")
        object.__setattr__(self, "modules", modules)

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.modules)

    @property
    def depth(self) -> int:
        """Number of convolutions, as the paper counts it.

        A separable convolution counts as one, projections count too, the classifier does not.
        """
        total, reductions = sum(self.modules), self.stages - 1
        if self.block == "basic":
            return 1 + 2 * total + reductions
        if self.block == "bottleneck":
            return 1 + 3 * total + self.stages
        # Twelve per cell, but the first two need no projection of the stem, and the one after a
        # reduction cell reduces its older input with two convolutions instead of one.
        return 12 * (total + reductions) + reductions - (self.modules[0] > 1)


class StageSpace(ChoiceSpace[StageArchitecture]):
    """The depths of the stages of a residual or NASNet network.

    A trial's parameters are the numbers of modules ``modules_1`` to ``modules_S``.

    Source: Stage-Wise NAS (Jordao et al. 2020), section III.

    Args:
        stages: Number of stages: 3 for small images, 4 for bottleneck modules on images of
            224 x 224 pixels.
        block: The kind of module; see :class:`StageArchitecture`.
        modules: Least and greatest number of modules of a stage: ``(1, 30)`` for every stage, or
            one such pair for each, as in ``((1, 3), (1, 8), (1, 36), (1, 3))``.

    Attributes:
        ranges: Least and greatest number of modules, a pair for each stage.

    Raises:
        ValueError: If there is no stage, the block is unknown, or a range is empty or begins
            below 1.
    """

    architecture_class: ClassVar[type[StageArchitecture]] = StageArchitecture

    def __init__(
        self, stages: int = 3, block: Block = "basic", modules: Range | tuple[Range, ...] = (1, 30)
    ) -> None:
        if stages < 1:
            raise ValueError(f"`stages` must be greater than or equal to 1: {stages}.")
        if block not in BLOCKS:
            raise ValueError(f"`block` must be one of {BLOCKS}: {block!r}.")
        self.stages = stages
        self.block = block
        self.ranges = _ranges(modules, stages)
        self.modules = tuple(modules)
        super().__init__(
            {
                f"modules_{stage}": range(least, greatest + 1)
                for stage, (least, greatest) in enumerate(self.ranges, start=1)
            }
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(stages={self.stages}, block={self.block!r}, "
            f"modules={self.modules})"
        )

    def to_params(self, architecture: StageArchitecture) -> dict[str, ParamValue]:
        return dict(zip(self.choices, architecture.modules, strict=True))

    def extremes(self) -> tuple[StageArchitecture, StageArchitecture]:
        least, most = zip(*self.ranges, strict=True)
        return StageArchitecture(least, self.block), StageArchitecture(most, self.block)

    def baselines(self) -> Mapping[str, StageArchitecture]:
        return {
            name: StageArchitecture(modules, self.block)
            for name, modules in _HUMAN_DESIGNED[self.block].items()
            if len(modules) == self.stages
        }

    def _build(self, params: Mapping[str, Any]) -> StageArchitecture:
        return StageArchitecture(tuple(params[name] for name in self.choices), self.block)


def _ranges(modules: Range | tuple[Range, ...], stages: int) -> tuple[Range, ...]:
    """A pair for each stage."""
    pairs: Any = modules
    if len(modules) and isinstance(modules[0], int):
        pairs = (modules,) * stages
    if len(pairs) != stages or any(len(p) != 2 or not 1 <= p[0] <= p[1] for p in pairs):
        raise ValueError(
            "`modules` must be two integers, the least and the greatest, from 1 upwards, or such "
            f"a pair for each of the {stages} stages: {modules!r}."
        )
    return tuple((least, greatest) for least, greatest in pairs)
