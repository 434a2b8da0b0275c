"""How many kernels a training step has on a GPU, counted without one.

    python benchmarks/kernel_count.py [--depth 10] [--width 64] [--precision bfloat16]

A step of a chain is done on the CPU as on CUDA, and what it would launch is counted: one kernel
for every operation of PyTorch that is no view and does more than reserve memory, two for a
convolution's backward (the gradients of its input and of its weight), and one for every launch of
a kernel of our own, which does nothing here. So it is what the step asks for: libraries may take
several kernels for an operation, such as one that brings features into another layout.
"""

import argparse
import collections
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from optnas.config.settings import TrainSettings
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import Images
from optnas.objectives.kernels import convolution, networks, normalisation
from optnas.objectives.networks.build import build_model
from optnas.objectives.training import acceleration, steps
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import ChainArchitecture

# What reserves memory, or looks at a tensor, and launches nothing.
_SILENT = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach"}
_SILENT |= {"promote_types"}
Counts = collections.Counter[str]


class _Operations(TorchDispatchMode):
    """Counts PyTorch's operations inside that launch something."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        space, _, name = operation._schema.name.partition("::")
        returned = operation._schema.returns
        is_view = returned and returned[0].alias_info and not returned[0].alias_info.is_write
        if space == "aten" and name not in _SILENT and not is_view:
            gradients = sum(args[-1][:2]) if name == "convolution_backward" else 1
            self._counts[name] += gradients
        return operation(*args, **(kwargs or {}))


class _Program:
    """A kernel of our own that is counted instead of run."""

    def __init__(self, name: str, counts: Counts) -> None:
        self._name, self._counts = name, counts

    def __getitem__(self, _: Any) -> Callable[..., None]:
        def launch(*_: Any, **__: Any) -> None:
            self._counts[self._name] += 1

        return launch


@contextlib.contextmanager
def _as_on_cuda(counts: Counts, *, own: bool) -> Iterator[None]:
    """Trainings on the CPU run as on CUDA inside, with kernels of our own that only count."""
    with contextlib.ExitStack() as changed:
        for where, name, value in (
            (acceleration, "is_accelerated", own),
            (steps, "is_accelerated", own),
            (networks, "are_supported", own),
            (networks, "fault", None),
            # They stand aside where operations are counted: not here.
            (networks, "_get_current_dispatch_mode", None),
        ):
            changed.enter_context(mock.patch.object(where, name, return_value=value))
        for programs in (convolution.programs, normalisation.programs):
            for name in [n for n in vars(programs) if n.startswith(("depthwise_", "batch_norm_"))]:
                changed.enter_context(mock.patch.object(programs, name, _Program(name, counts)))
        yield


def counted(depth: int, width: int, *, kernels: str, precision: str = "bfloat16") -> Counts:
    """The kernels of a step of a chain, by name.

    Args:
        depth: Its depth.
        width: Its width.
        kernels: As in `train`: ``auto`` or ``torch``.
        precision: As in `train`.
    """
    pixels = torch.zeros((8, 3, 16, 16), dtype=torch.uint8)  # However many, and however large.
    labels = torch.arange(8) % 2
    split = (pixels, labels)
    images = Images(*split, *split, *split, ("a", "b"), Augmentation())
    architecture = ChainArchitecture(depth, width, ("separable",) * depth, (3,) * depth)
    model = build_model(architecture, (3, 16, 16), 2, torch.Generator().manual_seed(0))
    counts: Counts = collections.Counter()
    with _as_on_cuda(counts, own=kernels == "auto"):
        recipe = TrainSettings(batch_size=8, kernels=kernels, precision=precision)
        trainer = Trainer(model, images, recipe, epochs=9, seed=0)
        inputs, targets = next(iter(trainer._chunks()))
        trainer.model.train()
        trainer._step(inputs, targets)  # The optimiser makes its state.
        counts.clear()
        with _Operations(counts):
            trainer._step(inputs, targets)
    return counts


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    shape = options.depth, options.width
    found = {
        kernels: counted(*shape, kernels=kernels, precision=options.precision)
        for kernels in ("torch", "auto")
    }
    print(f"kernels of a step of chain {shape}, {options.precision}, counted on the CPU\n")
    print("| kernel | `kernels: torch` | `kernels: auto` |\n|---|---|---|")
    for name in sorted(found["torch"] | found["auto"]):
        print(f"| {name} | {found['torch'][name]} | {found['auto'][name]} |")
    print(f"| all | {found['torch'].total()} | {found['auto'].total()} |")


if __name__ == "__main__":
    sys.exit(main())
