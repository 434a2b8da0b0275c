"""The images of a network's worst mistakes, small and one below another."""

import io
from collections.abc import Sequence

import torch

from optnas.objectives.data.image_files import Pixels
from optnas.objectives.kept.judgement import Judgement

MISTAKES = "mistakes.png"
"""The file of a network's folder that they are in."""
SIDE = 96
"""Pixels of an image at most; a smaller one stays as it is."""


def mistakes_png(judgement: Judgement, images: Pixels, names: Sequence[str] | None) -> bytes:
    """The images of the mistakes, in their order, each in a square of the same size.

    Args:
        judgement: What was judged; it has mistakes.
        images: The images that were, uint8 (N, C, H, W).
        names: Their names; None where the mistakes have numbers.

    Returns:
        A PNG as wide as one image.
    """
    from PIL import Image

    places = {} if names is None else {name: place for place, name in enumerate(names)}
    chosen = [places.get(str(m.image), m.image) for m in judgement.mistakes]
    pixels = images[torch.tensor(chosen)].cpu()
    side = min(SIDE, max(pixels.shape[2:]))
    sheet = Image.new("RGBA", (side, side * len(chosen)))  # Nothing is around an image.
    for place, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        channels = image.shape[2]
        seen = image[..., :3] if channels >= 3 else image[..., 0]  # Nobody sees more than three.
        picture = Image.fromarray(seen).convert("RGB")
        picture.thumbnail((side, side))
        left, top = (side - picture.width) // 2, (side - picture.height) // 2
        sheet.paste(picture, (left, place * side + top))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
