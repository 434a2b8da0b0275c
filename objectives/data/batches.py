"""The batches of an epoch: shuffled and augmented on the device, in large pieces.

For small images the fixed cost of an operation is most of its time, so a piece holds many batches
and is augmented at once: all of an epoch of 8x8 digits takes half a millisecond.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from optnas.objectives.data.augment import DRAWS, augment_and_normalise, draw
from optnas.objectives.data.image_files import pieces
from optnas.objectives.data.images import Images

# Augmented images are made in pieces of at most this many bytes of float32.
CHUNK_BYTES = 64 * 2**20


def augmented_chunks(
    images: Images,
    batch_size: int,
    generator: torch.Generator,
    *,
    subset: Tensor | None = None,
    batches: int | None = None,
    first: Callable[[Tensor, slice], Tensor] | None = None,
    own: Callable[[int, int], tuple[int, int]] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of the training split in a random order, in pieces of whole batches.

    Everything random is drawn at once, so the memory budget does not change the images.

    Args:
        images: The images, on any device.
        batch_size: Images per batch; see `batch_bounds`.
        generator: The source of the order and the augmentation, on the CPU.
        subset: Indices (M,) of the training images to take, on the CPU. Default: all.
        batches: Number of batches after which to stop, at least 1. Default: all.
        first: What else is done to the pixels before all other augmentation, called with the
            images of a piece and where in the epoch they are.
        own: Where the wanted part begins and ends of the batch that begins and ends there; then
            the pieces are these parts, and nothing else is read. Default: whole batches.

    Yields:
        Augmented and normalised float32 images (N, C, h, w) and their labels (N,).
    """
    recipe = images.augmentation
    count, channels, height, width = images.train_images.shape
    if subset is None:
        order = torch.randperm(count, generator=generator)
    else:
        order = subset[torch.randperm(len(subset), generator=generator)]
    if batches is not None:
        order = order[: batch_bounds(len(order), batch_size)[:batches][-1][1]]
    count = len(order)
    draws = draw(count, height, width, recipe, generator)
    # One transfer for everything random about the epoch.
    plan = torch.cat((order[:, None], draws), dim=1).to(images.train_images.device)
    out_height, out_width = recipe.output_shape(height, width)
    if own is not None:
        bounds = [own(start, stop) for start, stop in batch_bounds(count, batch_size)]
    else:
        bounds = chunk_bounds(count, batch_size, 4 * channels * out_height * out_width)
    chunks = [plan[start:stop] for start, stop in bounds]
    seeds = (chunk[:, 1 + DRAWS] for chunk in chunks) if recipe.resized_crop else None
    pixels = pieces(images.train_images, (chunk[:, 0] for chunk in chunks), seeds)
    for (start, stop), chunk, chosen in zip(bounds, chunks, pixels, strict=True):
        if first is not None:
            chosen = first(chosen, slice(start, stop))
        inputs = augment_and_normalise(chosen, chunk[:, 1:], recipe, images.mean, images.std)
        yield inputs, images.train_labels[chunk[:, 0]]


def batch_bounds(count: int, size: int) -> list[tuple[int, int]]:
    """Where batches begin and end: all images are used, the last batch may be smaller.

    A last batch of one image would have no variance to normalise by (PyTorch refuses it at a
    resolution of 1x1) and a step as large as the others': it joins the batch before it.
    """
    starts = list(range(0, count, size))
    if size > 1 and count % size == 1 and len(starts) > 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))


def chunk_bounds(count: int, batch_size: int, image_bytes: int) -> list[tuple[int, int]]:
    """Where pieces of whole batches begin and end; at least one batch, at most `CHUNK_BYTES`."""
    batches = batch_bounds(count, batch_size)
    per_chunk = max(1, CHUNK_BYTES // (image_bytes * batch_size))
    groups = [batches[i : i + per_chunk] for i in range(0, len(batches), per_chunk)]
    return [(group[0][0], group[-1][1]) for group in groups]
