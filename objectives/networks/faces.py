"""The residual networks of face recognition: images in, embeddings out."""

from typing import Any

import torch
from torch import Tensor, nn

from optnas.objectives.networks.cell_operations import convolutions
from optnas.spaces import FaceArchitecture
from optnas.spaces.face_architecture import reduced_size


class FaceNetwork(nn.Module):
    """An IR network: a stem, four stages of residual blocks, and a linear map to an embedding.

    The output is the embedding before it is normalised: its norm says how sure the network is.
    Margins (:mod:`optnas.objectives.margins`) hold the vectors of the identities, so the number
    of these changes nothing here.

    Source: ArcFace (Deng et al. 2019), section 3.1, and the code of AdaFace (Kim et al. 2022).

    Args:
        architecture: The network's structure.
        in_channels: Channels of the images.
        classes: Number of identities to learn from; unused.
        size: Height and width of the images.
        dropout: Share of the last features that are left out while training, in [0, 1).

    Raises:
        ValueError: If ``dropout`` is out of range.
    """

    def __init__(
        self,
        architecture: FaceArchitecture,
        in_channels: int,
        classes: int,
        size: tuple[int, int] = (112, 112),
        *,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        width, last = architecture.width, 8 * architecture.width
        height, length = reduced_size(size)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
        )
        # Named by their stages: a block more leaves the others' names as they are.
        blocks = iter(architecture.layers)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(*(FaceBlock(*next(blocks)) for _ in range(number)))
                for number in architecture.stages
            )
        )
        self.normalisation = nn.BatchNorm2d(last)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(last * height * length, architecture.embedding)
        self.embedding = nn.BatchNorm1d(architecture.embedding, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (N, E), not normalised, of normalised images (N, C, H, W)."""
        features = self.normalisation(self.blocks(self.stem(images)))
        result: Tensor = self.embedding(self.linear(self.dropout(features).flatten(1)))
        return result

    @staticmethod
    def draw_weights(part: nn.Conv2d | nn.Linear, generator: torch.Generator | None) -> None:
        """Draw a layer's weights: those of He et al. 2015, by what goes out; no biases."""
        nn.init.kaiming_normal_(part.weight, mode="fan_out", generator=generator)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


class FaceBlock(nn.Module):
    """Two convolutions beside a shortcut, without an activation after their sum.

    Args:
        before: Channels of what comes in.
        after: Channels of what goes out.
        stride: Of the second convolution and of the shortcut.
        operation: ``"conv"`` or ``"separable"``.
        kernel: Side of both convolutions' kernels.
    """

    def __init__(self, before: int, after: int, stride: int, operation: str, kernel: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(before),
            *convolutions(operation, before, after, kernel, 1),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            *convolutions(operation, after, after, kernel, stride),
            nn.BatchNorm2d(after),
        )
        self.stride = stride
        self.shortcut = (
            None
            if before == after
            else nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, after, H / stride, W / stride) of features (N, before, H, W)."""
        residual: Tensor = self.residual(features)
        if self.shortcut is None:
            return residual + features[:, :, :: self.stride, :: self.stride]
        shortcut: Tensor = self.shortcut(features)
        return residual + shortcut


class Dropout(nn.Module):
    """Dropout whose draws follow a generator on the CPU, so that a training can be repeated.

    Of ``generator`` comes one number per batch, which seeds a generator of the features' device.

    Args:
        rate: Share of the features that are set to zero while training; the others are scaled up.

    Attributes:
        generator: The source; None is torch's global generator. Whoever trains sets it.

    Raises:
        ValueError: If the share is not in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"`dropout` must be in [0, 1): {rate}.")
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        if not self.training or self.rate == 0:
            return features
        options: dict[str, Any] = {"generator": self.generator}
        seed = int(torch.randint(2**62, (), **options))
        local = torch.Generator(features.device).manual_seed(seed)
        drawn = torch.rand(features.shape, generator=local, device=features.device)
        return features * (drawn >= self.rate) / (1 - self.rate)
