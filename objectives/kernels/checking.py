"""Whether the kernels compute on a device what they should, tried once in a process."""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.kernels.convolution import depthwise
from optnas.objectives.kernels.normalisation import batch_norm_relu

# Of what comes out and of every gradient, relative to its norm: far above rounding.
_TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}


@functools.cache
def fault(device: torch.device) -> str | None:
    """Why kernels are not to be used on a device; None if nothing speaks against it.

    A small layer is computed beside torch's operations in float64 on the CPU, forward and
    backward, in the type that trainings have on that device: another would take its seconds to
    compile. What a driver, a GPU or a version of Triton does not take shows here, before a
    training is spoilt by it.

    Args:
        device: Where the kernels are to run.
    """
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.bfloat16 if fast else torch.float32
    try:
        agrees = _agrees(device, dtype)
    except Exception as error:  # Triton's own, a compiler's or the driver's.
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None if agrees else f"wrong results in {dtype}"


def _agrees(device: torch.device, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 16, 6, 5), (16, 1, 3, 3), (16,), (16,), (4, 16, 6, 5)]
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    # Features are rounded as they are on the device.
    values[0], values[-1] = values[0].to(dtype), values[-1].to(dtype)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        found = _layer([value.to(device) for value in values], own=True)
        expected = _layer([value.double() for value in values], own=False)
    return all(
        bool((own.double().cpu() - other).norm() <= _TOLERANCES[dtype] * other.norm())
        for own, other in zip(found, expected, strict=True)
    )


def _layer(values: list[Tensor], *, own: bool) -> list[Tensor]:
    """A layer's output, gradients and running statistics."""
    *inputs, gradient = values
    inputs = [value.detach().requires_grad_() for value in inputs]
    x, weight, scale, shift = inputs
    norm = nn.BatchNorm2d(len(scale), affine=False).to(scale)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    statistics = (norm.running_mean, norm.running_var)
    if own:
        y = depthwise(x, weight, 1, 1, relu=True)
        y = batch_norm_relu(y, scale, shift, *statistics, training=True)
    else:
        y = functional.conv2d(x.relu(), weight, None, 1, 1, groups=len(scale))
        y = functional.batch_norm(y, *statistics, scale, shift, training=True).relu()
    return [y.detach(), *torch.autograd.grad(y, inputs, gradient), *statistics]
