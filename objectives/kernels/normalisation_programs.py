"""What one program of batch normalisation with a ReLU computes, in Triton: forward and backward.

Features are matrices, as in `depthwise_programs`. ``real`` is the number of rows that count: what
comes after them is padding. Sums over rows are made in two stages in a fixed order: one kernel
leaves a part for every chunk of rows, and each program of the next one joins all of them.
"""

import triton
import triton.language as tl

_SIZES = [
    "rows",
    "real",
    "per_chunk",
    "chunks",
    "per_program",
    "units",
    "x_units",
    "dy_units",
    "eps",
    "momentum",
]


@triton.jit(do_not_specialize=_SIZES)
def batch_norm_statistics(
    x,
    partial,
    real,
    per_chunk,
    units,
    x_units,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The means of a chunk of rows, and the sums of squared deviations from them.

    ``partial`` has the shape (chunks, 2, channels). Every place of a tile keeps a running mean, as
    of Welford, so that large means cost no digits of the variance.
    """
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    present = channel < units * ALIGN
    first = tl.program_id(0) * per_chunk
    last = tl.minimum(first + per_chunk, real)
    mean = tl.zeros((ROWS, CHANNELS), tl.float32)
    squares = tl.zeros((ROWS, CHANNELS), tl.float32)
    seen = tl.zeros((ROWS,), tl.float32)
    for begin in range(first, last, ROWS):
        row = begin + tl.arange(0, ROWS)
        start = row.to(tl.int64) * (x_units * ALIGN)
        mask = (row < last)[:, None] & present[None, :]
        value = tl.load(x + start[:, None] + channel[None, :], mask=mask, other=0.0)
        value = value.to(tl.float32)
        seen += (row < last).to(tl.float32)
        before = value - mean
        share = 1.0 / tl.maximum(seen, 1.0)
        mean += tl.where(mask, before * share[:, None], 0.0)
        squares += tl.where(mask, before * (value - mean), 0.0)
    count = (last - first).to(tl.float32)
    joined = tl.sum(mean * seen[:, None], axis=0) / count
    away = mean - joined[None, :]
    spread = tl.sum(squares + away * away * seen[:, None], axis=0)
    place = partial + tl.program_id(0) * 2 * (units * ALIGN) + channel
    tl.store(place, joined, mask=present)
    tl.store(place + units * ALIGN, spread, mask=present)


@triton.jit
def _joined(partial, channel, present, channels, real, per_chunk, chunks, CHUNKS: tl.constexpr):
    """The mean and the variance (not corrected) of all rows, by those of their chunks."""
    chunk = tl.arange(0, CHUNKS)
    counts = tl.maximum(tl.minimum(real - chunk * per_chunk, per_chunk), 0).to(tl.float32)
    place = partial + (chunk * 2 * channels)[:, None] + channel[None, :]
    mask = (chunk < chunks)[:, None] & present[None, :]
    means = tl.load(place, mask=mask, other=0.0)
    spreads = tl.load(place + channels, mask=mask, other=0.0)
    mean = tl.sum(means * counts[:, None], axis=0) / real
    away = means - mean[None, :]
    return mean, tl.sum(spreads + away * away * counts[:, None], axis=0) / real


@triton.jit
def _totals(partial, channel, present, channels, chunks, CHUNKS: tl.constexpr):
    """Both sums of all rows, by those of their chunks."""
    chunk = tl.arange(0, CHUNKS)
    place = partial + (chunk * 2 * channels)[:, None] + channel[None, :]
    mask = (chunk < chunks)[:, None] & present[None, :]
    plain = tl.load(place, mask=mask, other=0.0)
    weighted = tl.load(place + channels, mask=mask, other=0.0)
    return tl.sum(plain, axis=0), tl.sum(weighted, axis=0)


@triton.jit
def _learnt(weight, bias, channel, present, AFFINE: tl.constexpr):
    """Scales and shifts; ones and zeros where there are none."""
    if AFFINE:
        scale = tl.load(weight + channel, mask=present, other=0.0)
        shift = tl.load(bias + channel, mask=present, other=0.0)
    else:
        scale = tl.where(present, 1.0, 0.0)
        shift = tl.where(present, 0.0, 0.0)
    return scale, shift


@triton.jit(do_not_specialize=_SIZES)
def batch_norm_forward(
    x,
    y,
    partial,
    saved,
    weight,
    bias,
    running_mean,
    running_var,
    batches,
    rows,
    real,
    per_chunk,
    chunks,
    per_program,
    units,
    x_units,
    eps,
    momentum,
    TRAINING: tl.constexpr,
    COUNTED: tl.constexpr,
    AFFINE: tl.constexpr,
    RELU: tl.constexpr,
    ALIGN: tl.constexpr,
    CHUNKS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Some tiles of the normalised features.

    ``saved`` (2, channels) receives the mean and the reciprocal of the standard deviation. The
    first program of every block of channels moves the running statistics on.
    """
    channels = units * ALIGN
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    present = channel < channels
    if TRAINING:
        mean, variance = _joined(
            partial, channel, present, channels, real, per_chunk, chunks, CHUNKS
        )
        inverse = 1.0 / tl.sqrt(variance + eps)
        if tl.program_id(0) == 0:
            tl.store(saved + channel, mean, mask=present)
            tl.store(saved + channels + channel, inverse, mask=present)
            kept = tl.load(running_mean + channel, mask=present)
            moved = (1.0 - momentum) * kept + momentum * mean
            tl.store(running_mean + channel, moved, mask=present)
            kept = tl.load(running_var + channel, mask=present)
            corrected = variance * (real / tl.maximum(real - 1.0, 1.0))
            moved = (1.0 - momentum) * kept + momentum * corrected
            tl.store(running_var + channel, moved, mask=present)
            if COUNTED:
                tl.store(batches, tl.load(batches) + 1, mask=tl.program_id(1) == 0)
    else:
        mean = tl.load(running_mean + channel, mask=present, other=0.0)
        inverse = 1.0 / tl.sqrt(tl.load(running_var + channel, mask=present, other=1.0) + eps)
    scale, shift = _learnt(weight, bias, channel, present, AFFINE)
    scale = inverse * scale
    first = tl.program_id(0) * per_program
    last = tl.minimum(first + per_program, rows)
    for begin in range(first, last, ROWS):
        row = begin + tl.arange(0, ROWS)
        place = row.to(tl.int64)[:, None]
        mask = (row < last)[:, None] & present[None, :]
        value = tl.load(x + place * (x_units * ALIGN) + channel[None, :], mask=mask, other=0.0)
        # A channel that is constant, such as one of zeros, gives its shift exactly.
        result = (value.to(tl.float32) - mean[None, :]) * scale[None, :] + shift[None, :]
        if RELU:
            result = tl.where(result <= 0.0, 0.0, result)  # Leaves NaN as it is.
        tl.store(y + place * channels + channel[None, :], result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _gradient(
    x, dy, row, channel, mask, x_step, dy_step, mean, inverse, scale, shift, RELU: tl.constexpr
):
    """A tile of the normalised features, and of the gradient of what is made of them linearly."""
    place = row.to(tl.int64)[:, None]
    value = tl.load(x + place * x_step + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    gradient = tl.load(dy + place * dy_step + channel[None, :], mask=mask, other=0.0)
    gradient = gradient.to(tl.float32)
    away = value - mean[None, :]
    if RELU:
        result = away * (inverse * scale)[None, :] + shift[None, :]
        gradient = tl.where(result <= 0.0, 0.0, gradient)
    return tl.where(mask, away * inverse[None, :], 0.0), gradient


@triton.jit(do_not_specialize=_SIZES)
def batch_norm_gradient_sums(
    x,
    dy,
    partial,
    saved,
    weight,
    bias,
    real,
    per_chunk,
    units,
    x_units,
    dy_units,
    AFFINE: tl.constexpr,
    RELU: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The gradients of bias and weight, as far as they come from a chunk of rows."""
    channels = units * ALIGN
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    present = channel < channels
    mean = tl.load(saved + channel, mask=present, other=0.0)
    inverse = tl.load(saved + channels + channel, mask=present, other=0.0)
    scale, shift = _learnt(weight, bias, channel, present, AFFINE)
    x_step = x_units * ALIGN
    dy_step = dy_units * ALIGN
    first = tl.program_id(0) * per_chunk
    last = tl.minimum(first + per_chunk, real)
    plain = tl.zeros((ROWS, CHANNELS), tl.float32)
    weighted = tl.zeros((ROWS, CHANNELS), tl.float32)
    for begin in range(first, last, ROWS):
        row = begin + tl.arange(0, ROWS)
        mask = (row < last)[:, None] & present[None, :]
        normal, gradient = _gradient(
            x, dy, row, channel, mask, x_step, dy_step, mean, inverse, scale, shift, RELU
        )
        plain += gradient
        weighted += gradient * normal
    place = partial + tl.program_id(0) * 2 * channels + channel
    tl.store(place, tl.sum(plain, axis=0), mask=present)
    tl.store(place + channels, tl.sum(weighted, axis=0), mask=present)


@triton.jit(do_not_specialize=_SIZES)
def batch_norm_input_gradient(
    x,
    dy,
    dx,
    partial,
    saved,
    weight,
    bias,
    dweight,
    dbias,
    rows,
    real,
    chunks,
    per_program,
    units,
    x_units,
    dy_units,
    AFFINE: tl.constexpr,
    RELU: tl.constexpr,
    ALIGN: tl.constexpr,
    CHUNKS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Some tiles of the input's gradient, zero in the padding; weight's and bias's, once."""
    channels = units * ALIGN
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    present = channel < channels
    plain, weighted = _totals(partial, channel, present, channels, chunks, CHUNKS)
    mean = tl.load(saved + channel, mask=present, other=0.0)
    inverse = tl.load(saved + channels + channel, mask=present, other=0.0)
    scale, shift = _learnt(weight, bias, channel, present, AFFINE)
    x_step = x_units * ALIGN
    dy_step = dy_units * ALIGN
    if AFFINE:
        once = present & (tl.program_id(0) == 0)
        tl.store(dweight + channel, weighted, mask=once)
        tl.store(dbias + channel, plain, mask=once)
    plain = plain / real
    weighted = weighted / real
    first = tl.program_id(0) * per_program
    last = tl.minimum(first + per_program, rows)
    for begin in range(first, last, ROWS):
        row = begin + tl.arange(0, ROWS)
        mask = (row < last)[:, None] & present[None, :]
        counted = (row < real)[:, None] & mask
        normal, gradient = _gradient(
            x, dy, row, channel, counted, x_step, dy_step, mean, inverse, scale, shift, RELU
        )
        result = (inverse * scale)[None, :] * (
            gradient - plain[None, :] - normal * weighted[None, :]
        )
        result = tl.where(counted, result, 0.0).to(dx.dtype.element_ty)
        place = dx + row.to(tl.int64)[:, None] * channels + channel[None, :]
        tl.store(place, result, mask=mask)
