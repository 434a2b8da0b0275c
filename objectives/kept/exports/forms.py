"""The forms of an export: how each is written, and how its own runtime runs it."""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from optnas.errors import UserError
from optnas.objectives.kept.exports.source import write_source
from optnas.storage.files import write_whole

Form = Literal["onnx", "torch", "openvino", "executorch", "python"]
FORMS: tuple[Form, ...] = get_args(Form)
Runner = Callable[[np.ndarray], np.ndarray]
ABOUT = "optnas"
"""Under this name every form has what is known of the network, as JSON."""
DEVICE_BATCH = 64
"""The largest batch of a form for devices, which plans its memory beforehand."""

NAMES: Mapping[Form, str] = {
    "onnx": "model.onnx",
    "torch": "model.pt2",
    "openvino": "model.xml",
    "executorch": "model.pte",
    "python": "model.py",
}
_NEEDS: Mapping[Form, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch": (),
    "openvino": ("openvino",),
    "executorch": ("executorch", "torchao"),
    "python": (),
}


def check_installed(form: Form) -> None:
    """Refuse a form whose packages are not here.

    Raises:
        UserError: If one is missing; the message says how to have it.
    """
    missing = [name for name in _NEEDS[form] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--to {form} needs {' and '.join(missing)}: pip install 'optnas[export-{form}]'"
        )


def files_of(form: Form, path: Path) -> list[Path]:
    """All files of an export whose first one is ``path``."""
    others: Mapping[Form, tuple[str, ...]] = {
        "openvino": (".bin",),
        "executorch": (".pte.json",),
        "python": (".safetensors",),
    }
    return [path, *(path.with_suffix(suffix) for suffix in others.get(form, ()))]


def write(form: Form, model: nn.Module, example: Tensor, path: Path, about: str) -> None:
    """Write a module in a form.

    Args:
        form: The form.
        model: What is exported, on the CPU.
        example: Two images as it takes them.
        path: The first file; `files_of` names all.
        about: What is known of the network, as JSON.
    """
    _WRITERS[form](model, example, path, about)


def runner(form: Form, path: Path) -> Runner:
    """Load an export in its own runtime, in float32 on one thread of the CPU.

    ExecuTorch has the threads that it likes: only a function called unsafe changes their number.
    """
    return _RUNNERS[form](path)


def exported_program(
    model: nn.Module, example: Tensor, most: int | None = None
) -> torch.export.ExportedProgram:
    """The graph of a module for any number of images."""
    batch = torch.export.Dim("batch", min=1, max=most)
    return torch.export.export(model, (example,), dynamic_shapes=({0: batch},), strict=False)


def _write_onnx(model: nn.Module, example: Tensor, path: Path, about: str) -> None:
    import onnx

    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=["answers"],
        verbose=False,
    )
    assert program is not None
    made = program.model_proto
    onnx.helper.set_model_props(made, {ABOUT: about})
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


def _run_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    (name,) = (each.name for each in session.get_inputs())
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def _write_torch(model: nn.Module, example: Tensor, path: Path, about: str) -> None:
    torch.export.save(exported_program(model, example), path, extra_files={ABOUT: about})


def _run_torch(path: Path) -> Runner:
    module = torch.export.load(path).module()
    return lambda images: module(torch.from_numpy(images)).detach().numpy()


def _write_openvino(model: nn.Module, example: Tensor, path: Path, about: str) -> None:
    import openvino

    made = openvino.convert_model(exported_program(model, example))
    made.set_rt_info(about, ABOUT)
    openvino.save_model(made, path, compress_to_fp16=False)


def _run_openvino(path: Path) -> Runner:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", options)
    return lambda images: np.array(compiled(images)[0])


def _write_executorch(model: nn.Module, example: Tensor, path: Path, about: str) -> None:
    backend: Any = importlib.import_module(
        "executorch.backends.xnnpack.partition.xnnpack_partitioner"
    )
    exir: Any = importlib.import_module("executorch.exir")
    # Memory is planned for the example, whatever the bounds are.
    largest = example[:1].repeat(DEVICE_BATCH, 1, 1, 1)
    lowered = exir.to_edge_transform_and_lower(
        exported_program(model, largest, DEVICE_BATCH),
        partitioner=[backend.XnnpackPartitioner()],
    )
    path.write_bytes(lowered.to_executorch().buffer)
    path.with_suffix(".pte.json").write_text(about)


def _run_executorch(path: Path) -> Runner:
    runtime: Any = importlib.import_module("executorch.runtime")
    method = runtime.Runtime.get().load_program(path).load_method("forward")

    def run(images: np.ndarray) -> np.ndarray:
        pieces = torch.split(torch.from_numpy(images), DEVICE_BATCH)
        return np.concatenate([method.execute([piece])[0].numpy().copy() for piece in pieces])

    return run


def _write_python(model: nn.Module, example: Tensor, path: Path, about: str) -> None:
    text, weights = write_source(model, tuple(example.shape[1:]), json.loads(about), path)
    write_whole(path.with_suffix(".safetensors"), weights)
    write_whole(path, text.encode())


def _run_python(path: Path) -> Runner:
    name = f"_optnas_export_{os.getpid()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    network = module.load()
    return lambda images: network(torch.from_numpy(images)).detach().numpy()


_WRITERS: Mapping[Form, Callable[[nn.Module, Tensor, Path, str], None]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
    "openvino": _write_openvino,
    "executorch": _write_executorch,
    "python": _write_python,
}
_RUNNERS: Mapping[Form, Callable[[Path], Runner]] = {
    "onnx": _run_onnx,
    "torch": _run_torch,
    "openvino": _run_openvino,
    "executorch": _run_executorch,
    "python": _run_python,
}
