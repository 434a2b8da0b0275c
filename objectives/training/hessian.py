"""How sharply the loss of a super-network bends in its architecture parameters."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.networks.supernet import MixedNetwork


def hessian_eigenvalue(
    model: MixedNetwork,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> float:
    """The largest eigenvalue of the loss's Hessian with respect to the architecture parameters.

    Power iteration on Hessian-vector products finds the eigenvalue of largest magnitude. If that
    is negative, a second iteration on the Hessian shifted by it finds the largest one. The loss
    is the mean cross entropy in training mode, that is with the statistics of these images; the
    running statistics stay as they were.

    An early stop where it rises: Understanding and robustifying differentiable architecture
    search (Zela et al. 2020), section 4; FTSO, figure 3 g and h.

    Args:
        model: The super-network, in training mode.
        images: Normalised images (N, C, H, W), of the share that the architecture learns from.
        labels: int64 (N,).
        generator: Draws the first vector, on the CPU.
        iterations: Hessian-vector products at most, of each of the two iterations.
        tolerance: Relative change of the estimate at which an iteration ends.
    """
    parameters = model.architecture_parameters()
    with _restored_statistics(model):
        loss = functional.cross_entropy(model(images), labels)
        gradient = _flat(
            torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        )

        def product(vector: Tensor) -> Tensor:
            rows = torch.autograd.grad(
                gradient, parameters, vector, retain_graph=True, materialize_grads=True
            )
            return _flat(rows)

        start = torch.randn(len(gradient), generator=generator, dtype=gradient.dtype)
        start = start.to(gradient.device)
        dominant = _dominant_eigenvalue(product, start, iterations, tolerance)
        if dominant >= 0:
            return dominant
        return dominant + _dominant_eigenvalue(
            lambda vector: product(vector) - dominant * vector, start, iterations, tolerance
        )


def _dominant_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Tensor, iterations: int, tolerance: float
) -> float:
    """The eigenvalue of largest magnitude of a symmetric matrix, by power iteration."""
    vector = start / start.norm()
    before = float("inf")
    for _ in range(iterations):
        image = product(vector)
        estimate = float(vector @ image)
        if abs(estimate - before) <= tolerance * abs(estimate):
            break
        before = estimate
        # A matrix of zeros has no direction to follow.
        vector = image / image.norm().clamp_min(torch.finfo(image.dtype).tiny)
    return estimate


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


@contextlib.contextmanager
def _restored_statistics(model: nn.Module) -> Iterator[None]:
    """The model's running statistics are as before afterwards."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
