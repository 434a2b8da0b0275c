"""What a network costs: parameters, multiply-adds and memory of one image."""

import dataclasses
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

# They multiply and add, and torch's flop counter has no formula for them.
_UNCOUNTED = {
    "_native_multi_head_attention": "attention in one piece",
    "_scaled_dot_product_attention_math": "attention in one piece",
    "_scaled_dot_product_fused_attention_overrideable": "attention in one piece",
    "_transformer_encoder_layer_fwd": "a transformer's layer in one piece",
    "mkldnn_rnn_layer": "recurrent layers",
    "_cudnn_rnn": "recurrent layers",
    "miopen_rnn": "recurrent layers",
    "_thnn_fused_lstm_cell": "recurrent layers",
    "_trilinear": "bilinear layers",
    "_cdist_forward": "distances",
    "_fft_c2c": "Fourier transforms",
    "_fft_r2c": "Fourier transforms",
    "_fft_c2r": "Fourier transforms",
    "mv": "products of matrices and vectors",
    "addmv": "products of matrices and vectors",
    "dot": "products of vectors",
}


def count_params(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@dataclasses.dataclass(frozen=True)
class ForwardCosts:
    """What it takes to classify one image.

    Args:
        multiply_adds: Each counted as one. Convolutions, linear layers and products of matrices
            count; biases, normalisation, activations and pooling do not.
        memory_bytes: Of parameters, statistics, the image and what every operation puts out, all
            in float32. It is the memory of Stage-Wise NAS (table III), where nothing is freed.
    """

    multiply_adds: int
    memory_bytes: int


def count_multiply_adds(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of one image's forward pass; see :func:`forward_costs`."""
    return forward_costs(model, input_shape).multiply_adds


@torch.no_grad()
def forward_costs(model: nn.Module, input_shape: tuple[int, int, int]) -> ForwardCosts:
    """What one image's forward pass in evaluation mode takes.

    Args:
        model: Left as it was, training mode included.
        input_shape: Channels, height and width of the image.

    Warns:
        UserWarning: If the network does what nobody counts, in one line that names it.
    """
    modes = {part: part.training for part in model.modules()}
    reference = next(model.parameters())
    image = torch.zeros(1, *input_shape, device=reference.device, dtype=reference.dtype)
    counter = _Counter()
    model.eval()
    try:
        with counter:
            model(image)
    finally:
        for part, training in modes.items():
            part.training = training
    if counter.uncounted:
        what = " and ".join(sorted(counter.uncounted))
        warnings.warn(
            f"{type(model).__name__}: the multiply-adds of {what} are not counted.", stacklevel=2
        )
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    held = sum(tensor.numel() for tensor in (image, *model.parameters(), *statistics))
    return ForwardCosts(counter.multiply_adds, 4 * (held + counter.outputs))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what operations put out, and by the formulas of torch's flop counter.

    Those count two per multiply-add.

    `FlopCounterMode` itself hooks the modules of the whole process, so it would trip over the
    training in other threads; a dispatch mode sees its own thread only.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # To skip torch's compiler it would have to be imported.

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds: int = 0
        self.outputs: int = 0
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        formula = flop_counter.flop_registry.get(func._overloadpacket)
        if func._opname == "_scaled_dot_product_flash_attention_for_cpu":
            formula = _attention
        if formula is not None:
            self.multiply_adds += formula(*args, **(kwargs or {}), out_val=result) // 2
        elif func._opname in _UNCOUNTED:
            self.uncounted.add(_UNCOUNTED[func._opname])
        # The first result is what comes out; it is no memory of its own if it is a view.
        returned = func._schema.returns
        first = result[0] if isinstance(result, tuple | list) and result else result
        if returned and returned[0].alias_info is None and isinstance(first, Tensor):
            self.outputs += first.numel()
        return result


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> int:
    """Floating-point operations of attention where there is no formula of torch's, on the CPU."""
    count: Any = flop_counter.sdpa_flop_count
    flops: int = count(query.shape, key.shape, value.shape)
    return flops
