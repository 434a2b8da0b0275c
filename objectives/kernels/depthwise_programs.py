"""What one program of a depthwise convolution computes, in Triton: forward and both gradients.

Features are matrices: a row for every pixel of every image, a column for every channel. ``units``
is the number of channels, and ``x_units`` and ``dy_units`` are the distances between rows, all in
multiples of ``ALIGN``. So the compiler knows what they are multiples of, and sizes stay arguments
of one compiled kernel.

A weight's gradient is summed in two stages in a fixed order, without atomic additions: one kernel
leaves a part for every chunk of rows, and some programs of the next one sum these up.
"""

import triton
import triton.language as tl

_SIZES = [
    "rows",
    "per_chunk",
    "chunks",
    "height",
    "width",
    "out_height",
    "out_width",
    "taps",
    "units",
    "channels",
    "x_units",
    "dy_units",
    "padding",
    "dilation",
]


@triton.jit(do_not_specialize=_SIZES)
def depthwise_forward(
    x,
    weight,
    y,
    rows,
    height,
    width,
    out_height,
    out_width,
    units,
    x_units,
    padding,
    dilation,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    RELU: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A tile (ROWS, CHANNELS) of the output; of a ReLU of the input, if RELU says so."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    present = channel < units * ALIGN
    top = row // out_width % out_height * STRIDE - padding
    left = row % out_width * STRIDE - padding
    image = row // out_width // out_height
    total = tl.zeros((ROWS, CHANNELS), tl.float32)
    for line in range(KERNEL):
        i = top + line * dilation
        for column in tl.static_range(KERNEL):
            j = left + column * dilation
            inside = (row < rows) & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            start = ((image * height + i) * width + j).to(tl.int64) * (x_units * ALIGN)
            mask = inside[:, None] & present[None, :]
            value = tl.load(x + start[:, None] + channel[None, :], mask=mask, other=0.0)
            if RELU:
                value = tl.where(value <= 0.0, 0.0, value)  # Leaves NaN as it is.
            tap = (channel * KERNEL + line) * KERNEL + column
            factor = tl.load(weight + tap, mask=present, other=0.0)
            total += value.to(tl.float32) * factor.to(tl.float32)[None, :]
    start = row.to(tl.int64) * (units * ALIGN)
    mask = (row < rows)[:, None] & present[None, :]
    tl.store(y + start[:, None] + channel[None, :], total.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _sum_chunks(
    partial, total, chunks, taps, channels, CHUNKS: tl.constexpr, COLUMNS: tl.constexpr
):
    """This program's share of a weight's gradient (channels, taps): the sums of its chunks.

    ``partial`` has the shape (chunks, taps * channels); COLUMNS of it are summed up at once.
    """
    programs = tl.num_programs(0) * tl.num_programs(1)
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    for block in range(program, tl.cdiv(taps * channels, COLUMNS), programs):
        column = block * COLUMNS + tl.arange(0, COLUMNS)
        present = column < taps * channels
        parts = tl.zeros((CHUNKS, COLUMNS), tl.float32)
        for begin in range(0, chunks, CHUNKS):
            chunk = begin + tl.arange(0, CHUNKS)
            place = (chunk * taps * channels)[:, None] + column[None, :]
            mask = (chunk < chunks)[:, None] & present[None, :]
            parts += tl.load(partial + place, mask=mask, other=0.0)
        result = tl.sum(parts, axis=0).to(total.dtype.element_ty)
        tl.store(total + column % channels * taps + column // channels, result, mask=present)


@triton.jit(do_not_specialize=_SIZES)
def depthwise_input_gradient(
    x,
    dy,
    weight,
    dx,
    partial,
    total,
    chunks,
    taps,
    rows,
    height,
    width,
    out_height,
    out_width,
    units,
    x_units,
    dy_units,
    padding,
    dilation,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    RELU: tl.constexpr,
    ALIGN: tl.constexpr,
    CHUNKS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A tile (ROWS, CHANNELS) of the input's gradient: what each output that saw it adds.

    The first programs also sum up the weight's gradient, of which `depthwise_weight_gradient` has
    left ``partial``; where nobody asks for that, ``taps`` is 0.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    present = channel < units * ALIGN
    bottom = row // width % height + padding
    right = row % width + padding
    image = row // width // height
    sums = tl.zeros((ROWS, CHANNELS), tl.float32)
    for line in range(KERNEL):
        i = bottom - line * dilation
        for column in tl.static_range(KERNEL):
            j = right - column * dilation
            inside = (row < rows) & (i >= 0) & (j >= 0)
            if STRIDE > 1:
                inside = inside & (i % STRIDE == 0) & (j % STRIDE == 0)
            inside = inside & (i // STRIDE < out_height) & (j // STRIDE < out_width)
            place = (image * out_height + i // STRIDE) * out_width + j // STRIDE
            start = place.to(tl.int64) * (dy_units * ALIGN)
            mask = inside[:, None] & present[None, :]
            value = tl.load(dy + start[:, None] + channel[None, :], mask=mask, other=0.0)
            tap = (channel * KERNEL + line) * KERNEL + column
            factor = tl.load(weight + tap, mask=present, other=0.0)
            sums += value.to(tl.float32) * factor.to(tl.float32)[None, :]
    start = row.to(tl.int64) * (units * ALIGN)
    mask = (row < rows)[:, None] & present[None, :]
    if RELU:
        start_x = row.to(tl.int64) * (x_units * ALIGN)
        value = tl.load(x + start_x[:, None] + channel[None, :], mask=mask, other=0.0)
        sums = tl.where(value <= 0.0, 0.0, sums)
    tl.store(dx + start[:, None] + channel[None, :], sums.to(dx.dtype.element_ty), mask=mask)
    _sum_chunks(partial, total, chunks, taps, units * ALIGN, CHUNKS, COLUMNS)


@triton.jit(do_not_specialize=_SIZES)
def depthwise_weight_gradient(
    x,
    dy,
    partial,
    rows,
    per_chunk,
    height,
    width,
    out_height,
    out_width,
    units,
    x_units,
    dy_units,
    padding,
    dilation,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    RELU: tl.constexpr,
    ALIGN: tl.constexpr,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """What a chunk of the output's rows adds to one line of the kernel.

    ``partial`` has the shape (chunks, KERNEL * KERNEL, channels). TAPS is a power of 2.
    """
    line = tl.program_id(2)
    tap = tl.arange(0, TAPS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    present = channel < units * ALIGN
    total = tl.zeros((TAPS, ROWS, CHANNELS), tl.float32)
    first = tl.program_id(0) * per_chunk
    last = tl.minimum(first + per_chunk, rows)
    for begin in range(first, last, ROWS):
        row = begin + tl.arange(0, ROWS)
        i = row // out_width % out_height * STRIDE - padding + line * dilation
        j = (row % out_width * STRIDE - padding)[None, :] + (tap * dilation)[:, None]
        image = row // out_width // out_height
        inside = (row < last) & (i >= 0) & (i < height)
        inside = inside[None, :] & (j >= 0) & (j < width) & (tap < KERNEL)[:, None]
        start = (((image * height + i) * width)[None, :] + j).to(tl.int64) * (x_units * ALIGN)
        mask = inside[:, :, None] & present[None, None, :]
        value = tl.load(x + start[:, :, None] + channel[None, None, :], mask=mask, other=0.0)
        if RELU:
            value = tl.where(value <= 0.0, 0.0, value)
        start_y = row.to(tl.int64) * (dy_units * ALIGN)
        mask_y = (row < last)[:, None] & present[None, :]
        gradient = tl.load(dy + start_y[:, None] + channel[None, :], mask=mask_y, other=0.0)
        total += value.to(tl.float32) * gradient.to(tl.float32)[None, :, :]
    place = ((tl.program_id(0) * KERNEL + line) * KERNEL + tap) * (units * ALIGN)
    mask = (tap < KERNEL)[:, None] & present[None, :]
    tl.store(partial + place[:, None] + channel[None, :], tl.sum(total, axis=1), mask=mask)


@triton.jit(do_not_specialize=_SIZES)
def depthwise_sum_of_chunks(
    partial,
    total,
    chunks,
    taps,
    channels,
    CHUNKS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A weight's gradient, where nobody asks for that of the input."""
    _sum_chunks(partial, total, chunks, taps, channels, CHUNKS, COLUMNS)
