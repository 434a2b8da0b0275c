"""Batch normalisation, with a ReLU or without, of features whose channels lie side by side."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional

from optnas.objectives.kernels import normalisation_programs as programs
from optnas.objectives.kernels.rows import Blocks, alignment, as_rows, device_of, empty_rows

DTYPES = (torch.bfloat16, torch.float32)
BLOCKS = Blocks(rows=128, channels=32, chunks=128, warps=8)


def batch_norm_relu(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    relu: bool = True,
    count: int | None = None,
    *,
    batches: Tensor | None = None,
    blocks: Blocks | None = None,
) -> Tensor:
    """Batch normalisation, and a ReLU of its result in the same kernel.

    Two kernels forward and two backward. Statistics and sums are float32, whatever the type of
    ``x``. Equal inputs give equal bits. A gradient that is to be differentiated again, and one in
    evaluation, is computed by torch.

    Args:
        x: Features (N, C, H, W), bfloat16 or float32; any layout, channels last without a copy.
        weight: Scales (C,), float32; None, as ``bias`` then, for none.
        bias: Shifts (C,), float32.
        running_mean: Means (C,), float32, moved on while training and taken otherwise.
        running_var: The same of variances.
        training: Whether the batch's own statistics are taken.
        momentum: Share of the batch in the running statistics.
        eps: Added to variances.
        relu: Whether a ReLU follows.
        count: The images that count are the first so many, if not all: the others, padding, take
            no part in statistics and gradients, and get a gradient of zero.
        batches: A number () of batches that is counted up while training.
        blocks: How the work is divided; `BLOCKS` by default.

    Returns:
        Features of the shape and the type of ``x``, channels last.

    Raises:
        ValueError: If the type is another one, ``count`` is out of range, or there is only one
            value per channel to train on.
    """
    if x.dtype not in DTYPES or (weight is None) != (bias is None):
        raise ValueError(f"`batch_norm_relu` takes {DTYPES}, with weight and bias or neither.")
    count = len(x) if count is None else count
    if not 1 <= count <= len(x):
        raise ValueError(f"`count` must be from 1 to {len(x)}, the images there are: {count}.")
    if training and count * x.shape[2] * x.shape[3] == 1:
        raise ValueError(f"Training needs more than one value per channel: {tuple(x.shape)}.")
    options = _Options(running_mean, running_var, training, momentum, eps, relu, count)
    options.batches, options.blocks = batches, blocks or BLOCKS
    if not training and torch.is_grad_enabled() and _any_learns(x, weight, bias):
        return _reference(x, weight, bias, options)
    result: Tensor = _BatchNormReLU.apply(x, weight, bias, options)
    return result


class _Options:
    """What is no subject of gradients."""

    batches: Tensor | None
    blocks: Blocks

    def __init__(
        self,
        running_mean: Tensor,
        running_var: Tensor,
        training: bool,
        momentum: float,
        eps: float,
        relu: bool,
        count: int,
    ) -> None:
        self.running_mean, self.running_var = running_mean, running_var
        self.training, self.momentum, self.eps = training, float(momentum), float(eps)
        self.relu, self.count = relu, count


class _BatchNormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, options: _Options
    ) -> Tensor:
        y, saved = _forward(x, weight, bias, options)
        ctx.save_for_backward(x, weight, bias, saved)
        ctx.options = options
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # Gradients of gradients are wanted.
            return (*_differentiable(dy, x, weight, bias, ctx.options), None)
        return (*_backward(dy, x, weight, bias, saved, ctx.options), None)


class _Work:
    """How the work on features is divided."""

    def __init__(self, x: Tensor, options: _Options) -> None:
        images, self.channels, height, width = x.shape
        self.rows, self.real = images * height * width, options.count * height * width
        blocks = options.blocks
        self.across = triton.cdiv(self.channels, blocks.channels)
        self.chunks, self.per_chunk = blocks.divided(self.real)
        self.programs, self.per_program = blocks.divided(self.rows)

    def partial(self, x: Tensor) -> Tensor:
        """Room for what every chunk comes to."""
        return x.new_empty((self.chunks, 2, self.channels), dtype=torch.float32)


def _forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, options: _Options
) -> tuple[Tensor, Tensor]:
    work, y = _Work(x, options), empty_rows(x, *x.shape[2:])
    x, pitch = as_rows(x)
    align = alignment(work.channels, pitch)
    units, kind = (work.channels // align, pitch // align), _kind(align, options.blocks)
    partial = saved = x.new_empty((2, work.channels), dtype=torch.float32)
    learnt = (saved, saved) if weight is None or bias is None else (weight, bias)
    batches = options.batches
    with device_of(x):
        if options.training:
            partial = work.partial(x)
            programs.batch_norm_statistics[work.chunks, work.across](
                x, partial, work.real, work.per_chunk, *units, **kind
            )
        programs.batch_norm_forward[work.programs, work.across](
            x,
            y,
            partial,
            saved,
            *learnt,
            options.running_mean,
            options.running_var,
            saved if batches is None else batches,
            work.rows,
            work.real,
            work.per_chunk,
            work.chunks,
            work.per_program,
            *units,
            options.eps,
            options.momentum,
            TRAINING=options.training,
            COUNTED=batches is not None,
            CHUNKS=options.blocks.chunks,
            **_flags(weight, options),
            **kind,
        )
    return y, saved


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    saved: Tensor,
    options: _Options,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    work, dx = _Work(x, options), empty_rows(x, *x.shape[2:])
    x, pitch = as_rows(x)
    dy, dy_pitch = as_rows(dy)
    align = alignment(work.channels, pitch, dy_pitch)
    units = (work.channels // align, pitch // align, dy_pitch // align)
    kind = {**_flags(weight, options), **_kind(align, options.blocks)}
    partial = work.partial(x)
    learnt = (saved, saved) if weight is None or bias is None else (weight, bias)
    dweight, dbias = (None if part is None else torch.empty_like(part) for part in (weight, bias))
    with device_of(x):
        programs.batch_norm_gradient_sums[work.chunks, work.across](
            x, dy, partial, saved, *learnt, work.real, work.per_chunk, *units, **kind
        )
        programs.batch_norm_input_gradient[work.programs, work.across](
            x,
            dy,
            dx,
            partial,
            saved,
            *learnt,
            saved if dweight is None else dweight,
            saved if dbias is None else dbias,
            work.rows,
            work.real,
            work.chunks,
            work.per_program,
            *units,
            CHUNKS=options.blocks.chunks,
            **kind,
        )
    return dx, dweight, dbias


def _flags(weight: Tensor | None, options: _Options) -> dict[str, bool]:
    return {"AFFINE": weight is not None, "RELU": options.relu}


def _kind(align: int, blocks: Blocks) -> dict[str, int]:
    """What a kernel is compiled for, beside its flags."""
    return {
        "ALIGN": align,
        "ROWS": blocks.rows,
        "CHANNELS": blocks.channels,
        "num_warps": blocks.warps,
    }


def _any_learns(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _differentiable(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, options: _Options
) -> tuple[Tensor | None, ...]:
    """The gradients by torch's operations, which have gradients of their own."""
    real = x[: options.count]
    subjects = (real, weight, bias)
    wanted = [part for part in subjects if part is not None and part.requires_grad]
    result = _reference(real, weight, bias, options)
    given = iter(torch.autograd.grad(result, wanted, dy[: options.count], create_graph=True))
    dx, *others = (
        next(given) if part is not None and part.requires_grad else None for part in subjects
    )
    if dx is not None:
        dx = functional.pad(dx, (0, 0) * 3 + (0, len(x) - options.count))
    return dx, *others


def _reference(x: Tensor, weight: Tensor | None, bias: Tensor | None, options: _Options) -> Tensor:
    """The result by torch's operations, which leave the running statistics as they are."""
    values = x.float()
    if options.training:
        variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
    else:
        mean, variance = options.running_mean, options.running_var
    scale = (variance + options.eps).rsqrt()
    scale = scale if weight is None else scale * weight
    result = (values - mean[:, None, None]) * scale[:, None, None]
    result = result if bias is None else result + bias[:, None, None]
    return (functional.relu(result) if options.relu else result).to(x.dtype)
