"""Depthwise convolutions of features whose channels lie side by side."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional

from optnas.objectives.kernels import depthwise_programs as programs
from optnas.objectives.kernels.rows import Blocks, alignment, as_rows, device_of, empty_rows

KERNELS = (3, 5, 7)
STRIDES = (1, 2)
DTYPES = (torch.bfloat16, torch.float32)
BLOCKS = Blocks(rows=64, channels=32, warps=4)
# A tile of the weight's gradient is as many times as large as a line of the kernel is long.
GRADIENT_BLOCKS = Blocks(rows=32, channels=32, warps=4)
SUMS = {"CHUNKS": 32, "COLUMNS": 32}
"""Of how many weights, and how many parts of each, a program makes the sums at once."""


def depthwise(
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    *,
    relu: bool = False,
    blocks: Blocks | None = None,
    gradient_blocks: Blocks | None = None,
) -> Tensor:
    """A depthwise convolution, every channel with a kernel of its own, of features or their ReLU.

    Products are summed in float32. The weight stays as it is, also where ``x`` is bfloat16; its
    gradient is of its own type. Equal inputs give equal bits. A gradient that is to be
    differentiated again is computed by torch.

    Args:
        x: Features (N, C, H, W), bfloat16 or float32; any layout, channels last without a copy.
        weight: Kernels (C, 1, K, K), K one of 3, 5 and 7.
        stride: 1 or 2.
        padding: Zeros around the images, on each side.
        dilation: Distance of the kernel's pixels.
        relu: Whether a ReLU comes before, in the same kernels.
        blocks: How the output and the input's gradient are divided; `BLOCKS` by default.
        gradient_blocks: The same of the weight's gradient; `GRADIENT_BLOCKS` by default.

    Returns:
        Features (N, C, H', W') of the type of ``x``, channels last.

    Raises:
        ValueError: If that is another convolution, or nothing would come out.
    """
    size = weight.shape[-1]
    if (
        tuple(weight.shape) != (x.shape[1], 1, size, size)
        or size not in KERNELS
        or stride not in STRIDES
        or x.dtype not in DTYPES
    ):
        raise ValueError(
            f"`depthwise` takes {DTYPES} (N, C, H, W), kernels (C, 1, K, K) with K of {KERNELS} "
            f"and strides of {STRIDES}: {x.dtype} {tuple(x.shape)}, {tuple(weight.shape)}, "
            f"stride {stride}."
        )
    shape = _Shape(x.shape, size, stride, padding, dilation, relu)
    if min(shape.out) < 1:
        raise ValueError(f"Images of {tuple(x.shape[2:])} pixels are too small for {shape}.")
    work = (blocks or BLOCKS, gradient_blocks or GRADIENT_BLOCKS)
    result: Tensor = _Depthwise.apply(x, weight, shape, *work)
    return result


class _Shape:
    """The sizes of a convolution, and whether a ReLU comes before."""

    def __init__(
        self,
        features: torch.Size,
        kernel: int,
        stride: int,
        padding: int,
        dilation: int,
        relu: bool,
    ) -> None:
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        self.relu = relu
        self.images, self.channels, *self.sides = features
        reach = dilation * (kernel - 1) + 1
        self.out = [(side + 2 * padding - reach) // stride + 1 for side in self.sides]

    def __repr__(self) -> str:
        return (
            f"a kernel of {self.kernel} with padding {self.padding}, dilation {self.dilation} "
            f"and stride {self.stride}"
        )


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, shape: _Shape, blocks: Blocks, gradient_blocks: Blocks
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape, ctx.blocks, ctx.gradient_blocks = shape, blocks, gradient_blocks
        return _forward(x, weight, shape, blocks)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # Gradients of gradients are wanted.
            return (*_differentiable(dy, x, weight, ctx.shape), None, None, None)
        wants_x, wants_weight, *_ = ctx.needs_input_grad
        dw = partial = None
        if wants_weight:
            dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
            partial = _weight_gradients(dy, x, ctx.shape, ctx.gradient_blocks)
        if wants_x:
            dx = _input_gradient(dy, x, weight, ctx.shape, ctx.blocks, partial, dw)
            return dx, dw, None, None, None
        if dw is not None:
            _sum_up(partial, dw)
        return None, dw, None, None, None


def _forward(x: Tensor, weight: Tensor, shape: _Shape, blocks: Blocks) -> Tensor:
    y = empty_rows(x, *shape.out)
    x, pitch = as_rows(x)
    align = alignment(shape.channels, pitch)
    rows = y.numel() // max(1, shape.channels)
    with device_of(x):
        programs.depthwise_forward[_grid(rows, shape.channels, blocks)](
            x,
            weight.contiguous(),
            y,
            rows,
            *shape.sides,
            *shape.out,
            shape.channels // align,
            pitch // align,
            shape.padding,
            shape.dilation,
            **_kind(shape, align, blocks),
        )
    return y


def _input_gradient(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    shape: _Shape,
    blocks: Blocks,
    partial: Tensor | None,
    dw: Tensor | None,
) -> Tensor:
    """The input's gradient; in the same kernel ``dw`` becomes what its parts sum up to."""
    dx = empty_rows(x, *shape.sides)
    x, pitch = as_rows(x)
    dy, dy_pitch = as_rows(dy)
    align = alignment(shape.channels, pitch, dy_pitch)
    rows = dx.numel() // max(1, shape.channels)
    weight = weight.contiguous()
    sums = (weight, weight, 0, 0)
    if partial is not None and dw is not None:
        sums = (partial, dw, *partial.shape[:2])
    with device_of(x):
        programs.depthwise_input_gradient[_grid(rows, shape.channels, blocks)](
            x,
            dy,
            weight,
            dx,
            *sums,
            rows,
            *shape.sides,
            *shape.out,
            shape.channels // align,
            pitch // align,
            dy_pitch // align,
            shape.padding,
            shape.dilation,
            **SUMS,
            **_kind(shape, align, blocks),
        )
    return dx


def _weight_gradients(dy: Tensor, x: Tensor, shape: _Shape, blocks: Blocks) -> Tensor:
    """What every chunk of rows adds to the weight's gradient: (chunks, taps, channels)."""
    x, pitch = as_rows(x)
    dy, dy_pitch = as_rows(dy)
    align = alignment(shape.channels, pitch, dy_pitch)
    rows = dy.numel() // shape.channels
    chunks, per_chunk = blocks.divided(rows)
    across = triton.cdiv(shape.channels, blocks.channels)
    partial = x.new_empty((chunks, shape.kernel**2, shape.channels), dtype=torch.float32)
    with device_of(x):
        programs.depthwise_weight_gradient[chunks, across, shape.kernel](
            x,
            dy,
            partial,
            rows,
            per_chunk,
            *shape.sides,
            *shape.out,
            shape.channels // align,
            pitch // align,
            dy_pitch // align,
            shape.padding,
            shape.dilation,
            TAPS=triton.next_power_of_2(shape.kernel),
            **_kind(shape, align, blocks),
        )
    return partial


def _sum_up(partial: Tensor, dw: Tensor) -> None:
    """Have ``dw`` become what its parts sum up to."""
    with device_of(dw):
        programs.depthwise_sum_of_chunks[(triton.cdiv(dw.numel(), SUMS["COLUMNS"]),)](
            partial, dw, *partial.shape, **SUMS
        )


def _grid(rows: int, channels: int, blocks: Blocks) -> tuple[int, int]:
    return triton.cdiv(rows, blocks.rows), triton.cdiv(channels, blocks.channels)


def _kind(shape: _Shape, align: int, blocks: Blocks) -> dict[str, int]:
    """What a kernel is compiled for."""
    return {
        "KERNEL": shape.kernel,
        "STRIDE": shape.stride,
        "RELU": shape.relu,
        "ALIGN": align,
        "ROWS": blocks.rows,
        "CHANNELS": blocks.channels,
        "num_warps": blocks.warps,
    }


def _differentiable(dy: Tensor, x: Tensor, weight: Tensor, shape: _Shape) -> tuple[Tensor, Tensor]:
    """The gradients by operations of torch, which have gradients of their own."""
    with torch.autocast(x.device.type, enabled=False):
        dx, dw, _ = torch.ops.aten.convolution_backward(
            dy,
            functional.relu(x) if shape.relu else x,
            weight.to(x.dtype),
            None,
            [shape.stride] * 2,
            [shape.padding] * 2,
            [shape.dilation] * 2,
            False,
            [0, 0],
            shape.channels,
            [True, True, False],
        )
    return dx * (x > 0) if shape.relu else dx, dw.to(weight.dtype)
