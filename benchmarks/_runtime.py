"""An exported network in its own runtime, in a process that has no optnas.

    python benchmarks/_runtime.py FORM FILE IMAGES.npy ANSWERS.npy [REPEATS]

The images are what the network takes. Its answers to all of them, and to the first one alone, are
written; with repeats, the milliseconds that it takes for one on one thread are printed: the least
of so many, which is what other programs disturb least.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

DEVICE_BATCH = 64
"""What an ExecuTorch file takes at once."""
Run = Callable[[np.ndarray], np.ndarray]


def onnx(path: str) -> Run:
    """ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return lambda images: session.run(None, {"images": images})[0]


def torch(path: str) -> Run:
    """torch.export."""
    import torch

    torch.set_num_threads(1)
    network = torch.export.load(path).module()
    return lambda images: network(torch.from_numpy(images)).detach().numpy()


def openvino(path: str) -> Run:
    """OpenVINO, on the CPU."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    network = openvino.Core().compile_model(path, "CPU", options)
    return lambda images: np.array(network(images)[0])


def executorch(path: str) -> Run:
    """ExecuTorch, as its Python package runs it."""
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(1)
    network = Runtime.get().load_program(path).load_method("forward")

    def run(images: np.ndarray) -> np.ndarray:
        pieces = torch.split(torch.from_numpy(images), DEVICE_BATCH)
        return np.concatenate([network.execute([piece])[0].numpy().copy() for piece in pieces])

    return run


def python(path: str) -> Run:
    """The module itself, with torch and safetensors."""
    import importlib.util

    import torch

    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("exported", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.load()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return run


FORMS = {each.__name__: each for each in (onnx, torch, openvino, executorch, python)}


def milliseconds(run: Run, image: np.ndarray, repeats: int) -> float:
    """The least of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    """Answer, and print a JSON object."""
    sys.modules["optnas"] = None  # type: ignore[assignment]
    form, path, given, target = sys.argv[1:5]
    images = np.load(given)
    run = FORMS[form](path)
    np.save(Path(target), np.concatenate([np.asarray(run(images)), np.asarray(run(images[:1]))]))
    repeats = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    if repeats:
        print(json.dumps({"milliseconds": milliseconds(run, images[:1], repeats)}))


if __name__ == "__main__":
    main()
