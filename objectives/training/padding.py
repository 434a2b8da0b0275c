"""Batches that are filled up to one size, so that kernels are made for one shape alone.

The images that fill them count for nothing: normalisations see the others, as do the loss and the
counts, and no gradient comes from them. A network whose images see one another in other ways than
through PyTorch's batch normalisation must not be given such batches.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

# All of torch's batch normalisations are of this class, and those of timm.
_Norm = nn.modules.batchnorm._BatchNorm


def filled(images: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W), and zeros after them where there are fewer than ``size``."""
    missing = size - len(images)
    return images if missing <= 0 else _with_zeros(images, missing)


@contextlib.contextmanager
def counting(model: nn.Module, images: int, size: int) -> Iterator[None]:
    """Have the batch normalisations of a network see the first images of a batch alone.

    What they put out for the others is zero, or nobody looks at it. Those of `optnas.objectives.
    kernels` see to it themselves; the others are called as modules then: what replaces their calls
    by something faster leaves it while they have hooks.

    Args:
        model: The network, in training mode.
        images: How many count.
        size: How many there are.
    """
    norms = [part for part in model.modules() if isinstance(part, _Norm) and images < size]
    counting: list[Any] = [part for part in norms if hasattr(part, "count")]
    hooks: list[Any] = []
    for part in counting:
        part.count = images
    for part in set(norms).difference(counting):
        hooks.append(part.register_forward_pre_hook(lambda _, args: (args[0][:images],)))
        hooks.append(
            part.register_forward_hook(lambda _, __, out: _with_zeros(out, size - images))
        )
    try:
        yield
    finally:
        for part in counting:
            part.count = None
        for hook in hooks:
            hook.remove()


def counted(outputs: Tensor, images: int) -> Tensor:
    """The outputs of the first images of a batch, (images, ...)."""
    return outputs if len(outputs) == images else outputs[:images]


def _with_zeros(images: Tensor, number: int) -> Tensor:
    """So many images of zeros after those of a batch."""
    return functional.pad(images, (0, 0) * (images.ndim - 1) + (0, number))
