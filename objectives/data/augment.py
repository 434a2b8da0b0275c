"""Random crop, flip and cutout of whole batches of images, with one draw per image.

What is random is drawn first (`draw`) and applied afterwards (`augment_and_normalise`): draws
come from a generator on the CPU, so that every device sees the same ones, and the images may be
processed in pieces of any size with the same result.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from optnas.objectives.data import jitter

NAMES = ("crop", "flip", "cutout", "resized_crop", "jitter")

# Columns of a draw: offset of the crop (rows, columns), flip (0 or 1), centre of the cutout.
DRAWS = 5
JITTER = 0.4
"""How much brightness, contrast and saturation change at most."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to a training image: crop, flip, jitter, normalise, cutout, resize.

    Args:
        padding: Black pixels added on each side before a window is cropped at random.
        size: Height and width of the window. Default: those of the image.
        flip: Whether half of the images are mirrored left to right.
        cutout: Side in pixels of a square that is set to the channel means, centred on a random
            pixel and cut off at the border (DeVries and Taylor 2017, section 3.2). 0: none.
        resize: Height and width to which the window is resized in the end. Default: its own.
        resized_crop: Whether a window of any size and shape is cropped first, and resized to the
            size of the images: see `optnas.objectives.data.crops`.
        jitter: How much brightness, contrast, saturation and, by half as much, hue change at
            most, in [0, 1]; see `optnas.objectives.data.jitter`.

    Raises:
        ValueError: If a number is out of range.
    """

    padding: int = 0
    size: int | None = None
    flip: bool = False
    cutout: int = 0
    resize: tuple[int, int] | None = None
    resized_crop: bool = False
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.padding < 0 or self.cutout < 0 or (self.size is not None and self.size < 1):
            raise ValueError(
                f"`padding` and `cutout` must not be negative and `size` must be positive: {self}."
            )
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"`jitter` must be in [0, 1]: {self.jitter}.")

    @property
    def draws_more(self) -> bool:
        """Whether a draw has the columns of further augmentations."""
        return self.resized_crop or self.jitter > 0

    def said(self) -> dict[str, Any]:
        """The fields; what came later is not said where it is off."""
        later = {name for name in ("resized_crop", "jitter") if not getattr(self, name)}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in later}

    def restricted(self, names: Collection[str], side: int) -> "Augmentation":
        """Only the named ones of `NAMES`.

        Args:
            names: The augmentations to use. One that is off here is switched on with a value
                that suits ``side``.
            side: Height or width of the images in pixels.

        Raises:
            ValueError: If a name is unknown.
        """
        if unknown := set(names) - set(NAMES):
            raise ValueError(f"Augmentations must be some of {NAMES}: {sorted(unknown)}.")
        crop = "crop" in names
        if crop and "resized_crop" in names:
            raise ValueError("Augmentations must be one of crop and resized_crop, not both.")
        return dataclasses.replace(
            self,
            padding=(self.padding or max(1, side // 8)) if crop else 0,
            size=self.size if crop else None,
            flip="flip" in names,
            cutout=(self.cutout or max(1, side // 2)) if "cutout" in names else 0,
            resized_crop="resized_crop" in names,
            jitter=(self.jitter or JITTER) if "jitter" in names else 0.0,
        )

    def output_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the window, which are those of augmented images without ``resize``.

        Raises:
            ValueError: If the window is larger than the padded image.
        """
        if self.size is None:
            return height, width
        if self.size > min(height, width) + 2 * self.padding:
            raise ValueError(
                f"A crop of {self.size} pixels does not fit into {height}x{width} images with "
                f"{self.padding} pixels of padding."
            )
        return self.size, self.size


def draw(
    count: int, height: int, width: int, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """Everything random about ``count`` images of one size.

    Every column is drawn whether it is used or not: leaving out one augmentation does not change
    the others. Only the columns of `resized_crop` and of `jitter` are missing without both.

    Returns:
        Integers (count, DRAWS) on the CPU; with further augmentations a seed follows, and what
        `jittered` takes.
    """
    out_height, out_width = augmentation.output_shape(height, width)
    bounds = [
        height + 2 * augmentation.padding - out_height + 1,
        width + 2 * augmentation.padding - out_width + 1,
        2,
        out_height,
        out_width,
    ]
    if augmentation.draws_more:
        bounds += [2**62, *(jitter.STEPS,) * jitter.DRAWS]
    return torch.stack(
        [torch.randint(bound, (count,), generator=generator) for bound in bounds], dim=1
    )


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Float32 images of mean 0 and standard deviation 1 per channel, in the same layout.

    Args:
        images: uint8 (N, C, H, W), or floats of the same range.
        mean: Mean per channel of intensities in [0, 1].
        std: Standard deviation per channel, of the same.
    """
    scale = _per_channel([1 / (255 * s) for s in std], images.device)
    shift = _per_channel([-m / s for m, s in zip(mean, std, strict=True)], images.device)
    # Two roundings, not a fused one: the same result for every size of batch and device.
    return images.to(torch.float32).mul_(scale).add_(shift)


def augment_and_normalise(
    images: Tensor,
    draws: Tensor,
    augmentation: Augmentation,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Augmented and normalised images.

    Args:
        images: uint8 (N, C, H, W), windows already if there are resized crops.
        draws: Rows of `draw`, one per image, on the device of the images.
        augmentation: What to do.
        mean: Mean per channel of intensities in [0, 1].
        std: Standard deviation per channel, of the same.

    Returns:
        Float32 (N, C, h, w), h and w being `Augmentation.resize` or the window's, channels last
        in memory.
    """
    height, width = augmentation.output_shape(images.shape[2], images.shape[3])
    if augmentation.padding or augmentation.size is not None or augmentation.flip:
        images = _crop_and_flip(images, draws, augmentation, height, width)
    if augmentation.jitter:
        images = jitter.jittered(images, draws[:, DRAWS + 1 :], augmentation.jitter)
    result = normalise(images, mean, std).contiguous(memory_format=torch.channels_last)
    if augmentation.cutout:
        result.masked_fill_(_cutout_mask(draws, augmentation.cutout, height, width), 0.0)
    return result if augmentation.resize is None else resized(result, augmentation.resize)


def resized(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Float images (N, C, H, W) at another height and width, smoothed before they shrink."""
    return functional.interpolate(images, shape, mode="bilinear", antialias=True).contiguous(
        memory_format=torch.channels_last
    )


def _crop_and_flip(
    images: Tensor, draws: Tensor, augmentation: Augmentation, height: int, width: int
) -> Tensor:
    padded = functional.pad(images, (augmentation.padding,) * 4)
    rows = torch.arange(height, device=images.device) + draws[:, 0, None]
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    if augmentation.flip:
        columns = torch.where(draws[:, 2, None] == 1, width - 1 - columns, columns)
    columns = columns + draws[:, 1, None]
    samples = torch.arange(len(images), device=images.device)
    # Indexing puts the channels last: (N, h, w, C) in memory, which is what training wants.
    picked = padded[samples[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def _cutout_mask(draws: Tensor, side: int, height: int, width: int) -> Tensor:
    inside = []
    for column, length in ((3, height), (4, width)):
        start = draws[:, column, None] - side // 2
        position = torch.arange(length, device=draws.device)
        inside.append((position >= start) & (position < start + side))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _per_channel(values: list[float], device: torch.device) -> Tensor:
    return (
        torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1).to(device, non_blocking=True)
    )
