"""optnas's own kernels beside cuDNN's and torch's, on CUDA: what a new shape costs, and a step.

    python benchmarks/kernels.py [--batch 64] [--json] [--blocks]

Every line is one layer, forward and backward in bfloat16, its features channels last. *first* is
the first time that its shape was seen in the process, in milliseconds, in which libraries make
kernels for it; *then* is one of a hundred replays of both as a CUDA graph, in microseconds.
``--blocks`` tries other sizes of tiles for the layers of our own.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from _harness import about
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.kernels import Blocks, convolution, normalisation, use_kernels

Layer = Callable[[Tensor], Tensor]
SHAPES = [(64, 32), (64, 16), (128, 16), (128, 8), (62, 16), (58, 8), (256, 4)]
"""Channels and sides: those of chains of width 64 on CIFAR-10, then others."""
REPLAYS = 100


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer.

    Args:
        layer: Its kind and its sizes.
        kernels: Whose they are.
        first: Milliseconds of the first forward and backward of the shape.
        then: Microseconds of one replayed.
    """

    layer: str
    kernels: str
    first: float
    then: float


def seconds(work: Callable[[], object]) -> float:
    """Seconds of some work and of what it left to the device."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def measured(
    name: str,
    kernels: str,
    layer: Layer,
    shape: tuple[int, ...],
    parameters: Iterable[Tensor] = (),
) -> Row:
    """What a layer costs on features of one shape, with the gradients of its parameters."""
    x = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()

    subjects = [x, *parameters]

    def step() -> tuple[Tensor, ...]:
        y = layer(x)
        return torch.autograd.grad(y, subjects, torch.ones_like(y))

    first = seconds(step)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream):
        step()
    graph.replay()
    then = seconds(lambda: [graph.replay() for _ in range(REPLAYS)]) / REPLAYS
    return Row(name, kernels, 1000 * first, 1e6 * then)


def convolutions(batch: int) -> Iterator[Row]:
    """Depthwise convolutions, of cuDNN, of torch without it, and ours."""
    for (channels, side), (kernel, stride) in itertools.product(
        SHAPES, ((3, 1), (3, 2), (5, 1), (7, 1))
    ):
        if kernel > 3 and (channels, side) != (64, 32):
            continue
        name = f"depthwise {kernel}x{kernel} / {stride}, {channels} at {side}x{side}"
        shape = (batch, channels, side, side)
        for kind in ("cudnn", "aten", "triton"):
            conv = nn.Conv2d(
                channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
            ).cuda()
            layer = use_kernels(nn.Sequential(conv), torch.device("cuda"), depthwise=kind)  # type: ignore[arg-type]  # one of them
            if kind == "cudnn":  # In its own type, as autocast has it; the others cast nothing.
                layer = layer.bfloat16()
            layer = layer.to(memory_format=torch.channels_last)
            yield measured(name, kind, layer, shape, layer.parameters())


def normalisations(batch: int) -> Iterator[Row]:
    """Batch normalisations with a ReLU, of torch and ours."""
    for channels, side in SHAPES:
        name = f"batch norm and ReLU, {channels} at {side}x{side}"
        shape = (batch, channels, side, side)
        norm = nn.BatchNorm2d(channels).cuda()
        for kind, layer in (("torch", _theirs(norm)), ("triton", _ours(norm))):
            yield measured(name, kind, layer, shape, norm.parameters())


def _theirs(norm: nn.BatchNorm2d) -> Layer:
    return lambda x: functional.relu(norm(x))


def _ours(norm: nn.BatchNorm2d, blocks: Blocks | None = None) -> Layer:
    return lambda x: normalisation.batch_norm_relu(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,  # type: ignore[arg-type]  # it has them
        norm.running_var,  # type: ignore[arg-type]
        training=True,
        blocks=blocks,
    )


def tiles(batch: int) -> Iterator[Row]:
    """Our layers with other tiles, at the sizes of the first and the last layers of a chain."""
    for (channels, side), rows, across, warps in itertools.product(
        ((64, 32), (256, 4)), (32, 64, 128), (32, 64), (4, 8)
    ):
        blocks = Blocks(rows=rows, channels=across, warps=warps)
        shape = (batch, channels, side, side)
        weight = torch.randn(channels, 1, 3, 3, device="cuda", requires_grad=True)
        kind = f"{rows} x {across}, {warps} warps"
        depthwise = functools.partial(convolution.depthwise, weight=weight, padding=1)
        layers: dict[str, Layer] = {
            "depthwise 3x3, without its weight's gradient": functools.partial(
                depthwise, blocks=blocks
            ),
            "depthwise 3x3": functools.partial(depthwise, gradient_blocks=blocks),
            "batch norm and ReLU": _ours(nn.BatchNorm2d(channels).cuda(), blocks),
        }
        for name, layer in layers.items():
            learnt = [weight] if name == "depthwise 3x3" else []
            where = f"{name}, {channels} at {side}x{side}"
            yield measured(where, kind, layer, shape, learnt)


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--blocks", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/kernels.py needs a GPU: without one there is nothing to see.")
    measured("", "", nn.Conv2d(8, 8, 1).cuda().bfloat16(), (8, 8, 8, 8))  # What starts once.
    rows = itertools.chain(convolutions(options.batch), normalisations(options.batch))
    if options.blocks:
        rows = itertools.chain(rows, tiles(options.batch))
    if options.json:
        print(json.dumps({**about(), "rows": [dataclasses.asdict(row) for row in rows]}))
        return
    print(", ".join(f"{name} {value}" for name, value in about().items()), "\n")
    print("| layer | kernels | first, ms | then, us |\n|---|---|---|---|")
    for row in rows:
        line = f"| {row.layer} | {row.kernels} | {row.first:.1f} | {row.then:.1f} |"
        print(line, flush=True)


if __name__ == "__main__":
    main()
