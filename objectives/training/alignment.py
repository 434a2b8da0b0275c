"""Channels filled up to multiples of eight while a network computes: matrix kernels want them.

The channels that fill a layer up are zero, and so are their weights, shifts and statistics: no
gradient comes to them, and nothing that is learnt comes from them.
"""

from torch import nn

MULTIPLE = 8
"""Rows of bfloat16 begin at 16 bytes then, which is what tensor cores load at once."""

Shape = tuple[int, ...]


def aligned(channels: int) -> int:
    """The least multiple of eight that holds so many."""
    return -(-channels // MULTIPLE) * MULTIPLE


def aligned_shapes(model: nn.Module) -> dict[nn.Parameter, Shape]:
    """The parameters of a network that are computed with in a larger shape, and that shape.

    Their own numbers are its first ones in every dimension. Only of a network whose attribute
    ``aligns`` says that each of its layers takes all that the one before it puts out, and nothing
    else: elsewhere channels are joined, shared out or shuffled.
    """
    shapes: dict[nn.Parameter, Shape] = {}
    if not getattr(model, "aligns", False):
        return shapes
    is_first = True  # It takes the channels of the images.
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            (weight,) = part.parameters()  # No layer has a bias.
            after, before, *kernel = weight.shape
            stays = is_first or part.groups > 1
            shapes[weight] = (aligned(after), before if stays else aligned(before), *kernel)
            is_first = False
        elif isinstance(part, nn.BatchNorm2d):
            shapes |= {each: (aligned(len(each)),) for each in part.parameters()}
        elif isinstance(part, nn.Linear):
            weight, *_ = part.parameters()
            shapes[weight] = (part.out_features, aligned(part.in_features))
    return {each: shape for each, shape in shapes.items() if shape != each.shape}
