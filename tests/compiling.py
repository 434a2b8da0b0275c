"""Compiles kernels for a GPU that is not there: what the interpreter takes, a compiler may not.

    TRITON_INTERPRET=0 python tests/compiling.py [--all]

Layers of many shapes are called as ever, but a launch only compiles what it would launch. A line
of JSON for every kind that was compiled: its name, what it is for, its loads and stores, and the
bytes of local memory that it spills. It is a process of its own, where Triton compiles.
"""

import argparse
import collections
import itertools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

SHAPES = [(1, 1, 1), (2, 1, 47), (16, 33, 16), (65, 7, 9)]
"""Images, heights and widths: one, multiples of 16 and others, which Triton tells apart."""


class Absent:
    """An H100, as far as compiling needs it."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def without_launching() -> None:
    """Have every launch compile alone."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    driver.set_active(Absent())
    launch = JITFunction.run

    def compiling(self: Any, *args: Any, **keys: Any) -> Any:
        return launch(self, *args, **{**keys, "warmup": True})

    JITFunction.run = compiling


def call(
    kernel: int,
    stride: int,
    dtype: torch.dtype,
    widths: tuple[int, ...],
    affine: tuple[bool, ...] = (True,),
) -> None:
    """Depthwise convolutions and normalisations of many shapes, forward and backward."""
    from optnas.objectives.kernels import batch_norm_relu, depthwise

    for (images, height, width), channels, relu in itertools.product(SHAPES, widths, (0, 1)):
        x = torch.zeros(images + 1, channels, height, width, dtype=dtype).requires_grad_()
        weight = torch.zeros(channels, 1, kernel, kernel, requires_grad=True)
        dilation = 1 + images % 2
        y = depthwise(x, weight, stride, kernel // 2 * dilation, dilation, relu=bool(relu))
        y.backward(y)
        depthwise(x.detach(), weight, stride, kernel // 2 * dilation, dilation).sum().backward()
        for learns, training in itertools.product(affine, (True, False)):
            norm = torch.nn.BatchNorm2d(channels, affine=learns).train(training)
            learnt, statistics = (norm.weight, norm.bias), (norm.running_mean, norm.running_var)
            batches = norm.num_batches_tracked if training else None
            with torch.set_grad_enabled(training):
                y = batch_norm_relu(
                    x, *learnt, *statistics, training, relu=bool(relu), batches=batches
                )
            if training:
                y.backward(y)


def compiled() -> Iterator[dict[str, Any]]:
    """What was compiled."""
    from triton.runtime.jit import JITFunction

    from optnas.objectives.kernels import depthwise_programs, normalisation_programs

    for module in (depthwise_programs, normalisation_programs):
        for name, program in vars(module).items():
            if not isinstance(program, JITFunction) or name.startswith("_"):
                continue
            for made in program.device_caches[0][0].values():
                pieces = made.src.constants.items()
                kind = {program.arg_names[place]: value for (place,), value in pieces}
                moves = re.findall(r"(?:ld|st)\.global[.\w]*", made.asm["ptx"])
                yield {
                    "program": name,
                    "type": made.src.signature.get("x", made.src.signature.get("dy")),
                    "kind": kind,
                    "moves": collections.Counter(moves),
                    "spilled": spilled(made.asm["cubin"]),
                }


def spilled(binary: bytes) -> int:
    """Bytes of local memory of a thread."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sum(int(n) for n in re.findall(r"(?:STACK|LOCAL):(\d+)", text))


def main() -> None:
    """Compile some kinds, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every kind that there is, a minute")
    everything = parser.parse_args().all
    without_launching()
    if everything:
        types = (torch.bfloat16, torch.float32)
        for kernel, stride, dtype in itertools.product((3, 5, 7), (1, 2), types):
            call(kernel, stride, dtype, (64, 56, 36, 62, 1), (True, False))
    else:
        call(3, 1, torch.bfloat16, (64, 56))
    for line in compiled():
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
