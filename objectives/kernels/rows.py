"""Features as matrices, a row for every pixel, and how the work on them is divided."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

_LAUNCHING = threading.RLock()


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How much one program works on at once; powers of 2. Results depend on it by rounding alone.

    Args:
        rows: Pixels of a tile.
        channels: Channels of a tile.
        chunks: Into how many parts, at most, pixels are divided where they are summed up.
        warps: Warps of a program.
    """

    rows: int = 128
    channels: int = 32
    chunks: int = 128
    warps: int = 8

    def divided(self, rows: int) -> tuple[int, int]:
        """The number of chunks of ``rows`` rows, none of them empty, and the rows of each."""
        tiles = -(-rows // self.rows)
        per_chunk = self.rows * -(-tiles // min(tiles, self.chunks))
        return -(-rows // per_chunk), per_chunk


def as_rows(features: Tensor) -> tuple[Tensor, int]:
    """Features (N, C, H, W) such that pixels follow one another at equal distances.

    Returns:
        The features themselves, if they are channels last or a slice of the channels of such ones,
        or a copy; and the distance between pixels, in elements.
    """
    _, channels, height, width = features.shape
    by_image, _, by_line, by_pixel = features.stride()
    pitch = by_pixel if width > 1 else by_line if height > 1 else by_image
    expected = (height * width * pitch, 1, width * pitch, pitch)
    followed = all(
        stride == wanted or size == 1
        for size, stride, wanted in zip(features.shape, features.stride(), expected, strict=True)
    )
    if followed and pitch >= channels:
        return features, pitch
    return features.contiguous(memory_format=torch.channels_last), channels


def empty_rows(features: Tensor, height: int, width: int) -> Tensor:
    """Room for features (N, C, height, width), channels last, of the type of ``features``."""
    shape = (len(features), features.shape[1], height, width)
    return torch.empty(
        shape, dtype=features.dtype, device=features.device, memory_format=torch.channels_last
    )


def alignment(*sizes: int) -> int:
    """What channels and distances are multiples of, as far as kernels tell: 8, 4 or 1."""
    return next(unit for unit in (8, 4, 1) if not any(size % unit for size in sizes))


@contextlib.contextmanager
def device_of(tensor: Tensor) -> Iterator[None]:
    """The tensor's device as the current one, on which Triton launches, for one thread at a time.

    Of threads that begin together the first one compiles, which takes seconds, and the others
    find it done; what Triton's interpreter runs is in variables of the process. Steps that are
    replayed launch nothing here.
    """
    current = torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
    with _LAUNCHING, current:
        yield
