"""ONNX in 8 bits: static quantisation per channel, calibrated on training images."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_PIECE = 16
_QUANTISED = ["Conv", "Gemm", "MatMul"]


def quantise(source: Path, target: Path, images: np.ndarray) -> None:
    """Write an ONNX file with int8 weights, per channel, and int8 activations.

    Args:
        source: The file in float32.
        target: The file in 8 bits.
        images: What the network takes, of its training, (N, C, H, W).
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    properties = {each.key: each.value for each in onnx.load(source).metadata_props}
    logging.getLogger().addFilter(_no_advice)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            ready = Path(folder) / "ready.onnx"
            quant_pre_process(source, ready)
            quantize_static(
                ready,
                target,
                _reader(images, ready),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_QUANTISED,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        logging.getLogger().removeFilter(_no_advice)
    made = onnx.load(target)
    onnx.helper.set_model_props(made, properties)
    target.write_bytes(made.SerializeToString())


def _no_advice(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING


def _reader(images: np.ndarray, path: Path) -> Any:
    """What gives the calibration its images, piece by piece."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    name = onnx.load(path).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(np.array_split(images, max(1, len(images) // _PIECE)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            piece = next(self._left, None)
            return None if piece is None else {name: piece}

    return Reader()
