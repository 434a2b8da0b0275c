"""Losses that learn embeddings: softmax with a margin for an image's own identity.

Each is a module that turns embeddings into logits, to be given to cross entropy; it holds a
vector per identity, and is trained and kept together with the network.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-3
"""How far cosines stay from -1 and 1, and angles from 0 and pi."""
LEAST_NORM, GREATEST_NORM = 0.001, 100.0
"""Between which norms count as qualities."""


class Margin(nn.Module):
    """What all have in common: logits are ``s`` times cosines, changed for the true identity.

    Args:
        classes: Number of identities, at least 2.
        dim: Size of the embeddings, at least 1.
        m: The margin, at least 0.
        s: The scale of the logits, above 0.

    Attributes:
        weight: A vector per identity, (classes, dim); only their directions matter.

    Raises:
        ValueError: If a value is out of range.
    """

    weight: nn.Parameter

    def __init__(self, classes: int, dim: int, m: float = 0.5, s: float = 64.0) -> None:
        super().__init__()
        if classes < 2 or dim < 1:
            raise ValueError(
                f"`classes` must be 2 or more and `dim` 1 or more: classes={classes}, dim={dim}."
            )
        if not 0 <= m < math.pi or not 0 < s < math.inf:
            raise ValueError(f"`m` must be in [0, pi) and `s` above 0: m={m}, s={s}.")
        self.classes, self.dim, self.m, self.s = classes, dim, m, s
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the identities' vectors, of length 1.

        Args:
            generator: The source; None is torch's global generator.
        """
        with torch.no_grad():
            self.weight.uniform_(-1, 1, generator=generator)
            self.weight.copy_(functional.normalize(self.weight, dim=1))

    def forward(self, embeddings: Tensor, norms: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, classes).

        Args:
            embeddings: Of unit length, (N, dim).
            norms: Their lengths before that, (N,).
            labels: The true identities, int64 (N,).
        """
        cosines = functional.linear(embeddings, functional.normalize(self.weight, dim=1))
        return self.logits(cosines, norms, labels)

    def logits(self, cosines: Tensor, norms: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, classes) of cosines (N, classes) between embeddings and identities."""
        # In float32 at least: an angle near 0 has no gradient to speak of in half precision.
        cosines = cosines.to(torch.promote_types(cosines.dtype, torch.float32))
        cosines = cosines.clamp(-1 + EPSILON, 1 - EPSILON)
        true = cosines.gather(1, labels[:, None]).squeeze(1)
        changed = self._with_margin(true, norms.detach().to(cosines.dtype))
        return self.s * cosines.scatter(1, labels[:, None], changed[:, None])

    def _with_margin(self, true: Tensor, norms: Tensor) -> Tensor:
        """What takes the place of the true identities' cosines (N,)."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.classes}, {self.dim}, m={self.m}, s={self.s}"


class AdaFace(Margin):
    """A margin that adapts to the quality of an image, which the norm of its embedding tells.

    Of images that are better than most, hard ones count most; of worse ones, easy ones. ``z``, the
    quality in [-1, 1], is how far the norm lies from the running mean, in running standard
    deviations over ``h``. An additive angle ``-m z`` and a cosine margin ``m + m z`` are applied
    to the true identity: at z = -1 it is ArcFace, at 0 CosFace.

    Source: *AdaFace: Quality Adaptive Margin for Face Recognition* (Kim, Jain and Liu 2022),
    section 3.3; running statistics, clipping and defaults as the authors' scripts have them.

    Args:
        classes: Number of identities, at least 2.
        dim: Size of the embeddings, at least 1.
        m: The margin.
        h: How strongly the quality counts, at least 0.
        s: The scale of the logits.
        t: Weight of a batch in the running statistics, in [0, 1].

    Attributes:
        mean: Running mean of the norms, (): 20 at first.
        std: Running standard deviation of the norms, (): 100 at first.

    Raises:
        ValueError: If a value is out of range.

    Differences from the paper:
        A batch of one image, which has no standard deviation, changes the mean alone. In
        evaluation mode nothing is updated.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classes: int,
        dim: int,
        m: float = 0.4,
        h: float = 0.333,
        s: float = 64.0,
        t: float = 0.01,
    ) -> None:
        if not 0 <= h < math.inf or not 0 <= t <= 1:
            raise ValueError(f"`h` must be 0 or more and `t` in [0, 1]: h={h}, t={t}.")
        super().__init__(classes, dim, m, s)
        self.h, self.t = h, t

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the identities' vectors, and begin the running statistics anew."""
        super().reset_parameters(generator)
        for name, start in (("mean", 20.0), ("std", 100.0)):
            value = torch.full((), start, dtype=torch.float64, device=self.weight.device)
            self.register_buffer(name, value)

    def quality(self, norms: Tensor) -> Tensor:
        """``z`` (N,) in [-1, 1] of norms (N,), by the running statistics."""
        norms = norms.detach().clamp(LEAST_NORM, GREATEST_NORM)
        z = self.h * (norms.to(self.mean) - self.mean) / (self.std + EPSILON)
        return z.clamp(-1, 1).to(norms.dtype)

    def _with_margin(self, true: Tensor, norms: Tensor) -> Tensor:
        if self.training:
            self._update(norms.clamp(LEAST_NORM, GREATEST_NORM))
        z = self.quality(norms)
        angles = (true.acos() - self.m * z).clamp(EPSILON, math.pi - EPSILON)
        return angles.cos() - (self.m + self.m * z)

    @torch.no_grad()
    def _update(self, norms: Tensor) -> None:
        norms = norms.to(self.mean)
        self.mean.lerp_(norms.mean(), self.t)
        if len(norms) > 1:
            self.std.lerp_(norms.std(), self.t)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, h={self.h}, t={self.t}"


class ArcFace(Margin):
    """An additive margin on the angle between an embedding and its identity.

    Source: *ArcFace: Additive Angular Margin Loss for Deep Face Recognition* (Deng et al. 2019),
    section 3.1.

    Args:
        classes: Number of identities, at least 2.
        dim: Size of the embeddings, at least 1.
        m: The margin in radians.
        s: The scale of the logits.

    Raises:
        ValueError: If a value is out of range.

    Differences from the paper:
        An angle that would exceed pi stays just below it.
    """

    def _with_margin(self, true: Tensor, norms: Tensor) -> Tensor:
        return (true.acos() + self.m).clamp(EPSILON, math.pi - EPSILON).cos()


class CosFace(Margin):
    """An additive margin on the cosine between an embedding and its identity.

    Source: *CosFace: Large Margin Cosine Loss for Deep Face Recognition* (Wang et al. 2018),
    section 3.1.

    Args:
        classes: Number of identities, at least 2.
        dim: Size of the embeddings, at least 1.
        m: The margin.
        s: The scale of the logits.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(self, classes: int, dim: int, m: float = 0.35, s: float = 64.0) -> None:
        super().__init__(classes, dim, m, s)

    def _with_margin(self, true: Tensor, norms: Tensor) -> Tensor:
        return true - self.m


class Softmax(Margin):
    """Plain softmax, without a margin: a linear layer on the embeddings as they were.

    Args:
        classes: Number of identities, at least 2.
        dim: Size of the embeddings, at least 1.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__(classes, dim, 0.0, 1.0)

    def forward(self, embeddings: Tensor, norms: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, classes); the labels change nothing."""
        return functional.linear(embeddings * norms[:, None], self.weight)

    def logits(self, cosines: Tensor, norms: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, classes) of cosines (N, classes), with the lengths that the vectors have."""
        lengths: Tensor = torch.linalg.vector_norm(self.weight, dim=1)
        return cosines * norms[:, None] * lengths


MARGINS: dict[str, type[Margin]] = {
    "adaface": AdaFace,
    "arcface": ArcFace,
    "cosface": CosFace,
    "softmax": Softmax,
}
"""The margins that study files know by name."""


def make_margin(name: str, classes: int, dim: int, options: dict[str, Any]) -> Margin:
    """A margin by its name.

    Args:
        name: One of ``MARGINS``.
        classes: Number of identities.
        dim: Size of the embeddings.
        options: Its other arguments.

    Raises:
        ValueError: If there is no such margin, it has no such option, or a value is out of range.
    """
    if name not in MARGINS:
        raise ValueError(f"`margin` must be one of {', '.join(MARGINS)}: {name!r}.")
    try:
        return MARGINS[name](classes, dim, **options)
    except TypeError:
        raise ValueError(f"The margin {name} has no such options: {options}.") from None
