"""Compiles kernels for a GPU that is not there: what the interpreter takes, a compiler may refuse.

    TRITON_INTERPRET=0 python tests/compiling.py [--all]

Prints a line of JSON for each: its name, what it was compiled for, its loads and stores, and the
bytes of local memory that it spills. It runs in a process of its own, where Triton compiles.
"""

import argparse
import collections
import importlib.util
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parents[1] / "objectives" / "kernels"
FEATURES = ("x", "y", "dy", "dx")
SCALARS = {"eps": "fp32", "momentum": "fp32", "batches": "*i64"}


def programs(name: str) -> Any:
    """A module of programs, without its package, which imports torch."""
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def depthwise(everything: bool) -> Iterator[tuple[Any, str, dict[str, int]]]:
    """The kinds of programs of depthwise convolutions."""
    module = programs("depthwise_programs")
    kinds = [(3, 1, "bf16", 8), (5, 2, "fp32", 1)]
    if everything:
        kinds = list(itertools.product((3, 5, 7), (1, 2), ("bf16", "fp32"), (1, 8)))
    for kernel, stride, dtype, align in kinds:
        kind = {"KERNEL": kernel, "STRIDE": stride, "ALIGN": align, "ROWS": 64, "CHANNELS": 32}
        yield module.depthwise_forward, dtype, kind
        yield module.depthwise_input_gradient, dtype, kind
        taps = 2 ** (kernel - 1).bit_length()
        yield module.depthwise_weight_gradient, dtype, {**kind, "ROWS": 32, "TAPS": taps}
        yield (
            module.depthwise_sum_of_chunks,
            dtype,
            {"TAPS": kernel**2, "CHUNKS": 32, "CHANNELS": 32},
        )


def normalisation(everything: bool) -> Iterator[tuple[Any, str, dict[str, int]]]:
    """The kinds of programs of batch normalisation."""
    module = programs("normalisation_programs")
    kinds = [("bf16", 8, True, True), ("fp32", 1, False, False)]
    if everything:
        kinds = list(itertools.product(("bf16", "fp32"), (1, 8), (False, True), (False, True)))
    for dtype, align, affine, relu in kinds:
        kind = {"ALIGN": align, "ROWS": 128, "CHANNELS": 32}
        flags = {**kind, "AFFINE": affine, "RELU": relu}
        yield module.batch_norm_statistics, dtype, kind
        yield module.batch_norm_gradient_sums, dtype, flags
        yield module.batch_norm_input_gradient, dtype, {**flags, "CHUNKS": 128}
        for training in (False, True):
            further = {"CHUNKS": 128, "TRAINING": training, "COUNTED": training}
            yield module.batch_norm_forward, dtype, {**flags, **further}


def compiled(program: Any, dtype: str, kind: dict[str, int]) -> dict[str, Any]:
    """What a program comes to on an H100."""
    import triton
    from triton.backends.compiler import GPUTarget

    def type_of(parameter: Any) -> str:
        if parameter.is_constexpr:
            return "constexpr"
        if parameter.name in FEATURES:
            return f"*{dtype}"
        number = parameter.do_not_specialize  # as all sizes are.
        return SCALARS.get(parameter.name, "i32" if number else "*fp32")

    signature = {parameter.name: type_of(parameter) for parameter in program.params}
    aligned = [["tt.divisibility", 16]]
    pointers = {(i,): aligned for i, t in enumerate(signature.values()) if t.startswith("*")}
    source = triton.compiler.ASTSource(program, signature, kind, pointers)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    moves = collections.Counter(re.findall(r"(?:ld|st)\.global[.\w]*", made.asm["ptx"]))
    return {
        "program": program.__name__,
        "type": dtype,
        **kind,
        "moves": moves,
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
    """Compile some, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every kind that there is, a minute")
    everything = parser.parse_args().all
    for case in itertools.chain(depthwise(everything), normalisation(everything)):
        print(json.dumps(compiled(*case)), flush=True)


if __name__ == "__main__":
    main()
