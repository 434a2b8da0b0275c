"""Steps of a training as CUDA graphs: captured once, then replayed with one launch per batch.

A step of a small network is hundreds of short operations, and replaying spares the host the launch
of each. What is computed stays the same: the graph holds the operations of the very step that
would run otherwise.

Source: PyTorch's notes on CUDA semantics, "CUDA Graphs": whole-network capture.
"""

import contextlib
import gc
import threading
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import ClassVar

import torch
from torch import Tensor

from optnas.objectives.training.memory import CAPTURING, is_out_of_memory
from optnas.objectives.training.neighbours import here

Step = Callable[..., list[Tensor]]
"""Trains on a batch, inputs (N, C, H, W) and labels (M,), M at most N, or answers inputs alone;
returns logits on the device."""

WARM_UP = 3
"""Steps before the capture, as many as PyTorch takes."""
LEAST_STEPS = 10 * WARM_UP
"""Steps from which a training captures: the warm-up is at most a tenth of them."""
TOO_LITTLE_MEMORY = "there is too little memory for a graph beside the steps without one"

# Streams that nobody has, by device. A graph has one for itself as long as it lives: PyTorch
# keeps a workspace of cuBLAS for every stream, and some versions free it with any graph that was
# captured there. A new stream every time would leave the workspace of each behind, and PyTorch
# makes 32 at most: those after them are the first ones again.
_idle: defaultdict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)


def _borrowed(device: torch.device) -> torch.cuda.Stream:
    """A stream that nobody has; whoever has it puts it back into ``_idle``."""
    with contextlib.suppress(IndexError):  # Of a list that another thread was faster with.
        return _idle[device].pop()
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """What a thread does inside on a GPU goes to a stream of its own, beside those of others.

    The main thread stays on the device's default stream, as everything elsewhere than on CUDA.
    """
    if device.type != "cuda" or threading.current_thread() is threading.main_thread():
        yield
        return
    stream = _borrowed(device)
    stream.wait_stream(torch.cuda.default_stream(device))  # What all share was made there.
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        stream.synchronize()
        _idle[device].append(stream)


def are_supported(device: torch.device) -> bool:
    """Whether steps on ``device`` can be captured at all."""
    return device.type == "cuda"


def too_few(steps: int, warm_up: int = WARM_UP) -> str | None:
    """Why so many steps are not captured: the warm-up would be more than a tenth of them."""
    few = f"{steps} steps are too few to pay for a capture"
    return few if steps * WARM_UP < LEAST_STEPS * warm_up else None


class StagedStep:
    """Trains on batch after batch: on the first ones eagerly, then by replaying a graph.

    Every batch is trained on once, in the order in which they come. The first ones of the captured
    size run eagerly where the step is captured afterwards: libraries load their kernels and
    reserve memory, and the optimiser makes its state. Capturing executes nothing, so the batch
    that it was done with is replayed then. Batches of other sizes run eagerly at any time, on the
    same weights and the same state of the optimiser.

    A graph holds addresses: begin anew when a parameter, or what the optimiser keeps, has become
    another tensor. The step must do the same operations every time, on the device alone.

    Args:
        size: Number of images that count in the batches that are captured.
        device: Where they are.
        eager_reason: Why nothing can be captured; None if it can.
        warm_up: How many run eagerly first; at most a tenth of all, so that a capture pays.
        beside: Another step of the same training, whose memory this one's graph shares: no two
            steps of one training run at once, and what one puts out is copied before the next.

    Attributes:
        eager_reason: Why all steps run eagerly; None if they do not, or it is not known yet.
        failure: Why a capture failed in this process, which goes on without graphs then: PyTorch
            before 2.12 never gets back the memory of a capture that broke.
    """

    failure: ClassVar[str | None] = None

    def __init__(
        self,
        size: int,
        device: torch.device,
        eager_reason: str | None = None,
        *,
        warm_up: int = WARM_UP,
        beside: "StagedStep | None" = None,
    ) -> None:
        self.eager_reason = eager_reason or StagedStep.failure
        self._size = size
        self._warm_up = warm_up
        self._warmed = 0
        self._graph: StepGraph | None = None
        if not self.eager_reason:
            other = None if beside is None else beside._graph
            self._graph = StepGraph(device) if other is None else StepGraph(device, other)

    def __call__(self, step: Step, *batch: Tensor) -> list[Tensor]:
        """Train on a batch, or answer it; what ``step``, the same every time, returns.

        Args:
            step: What is done.
            batch: Its inputs and, if there are any, its labels, which tell its size then.

        Raises:
            RuntimeError: As of ``step``; not if memory does not suffice for its graph.
        """
        if self._graph is None or len(batch[-1]) != self._size:
            return step(*batch)
        if self._warmed < self._warm_up:
            self._warmed += 1
            return self._graph.warm_up(step, *batch)
        if not self._graph.is_captured:
            self.eager_reason = _capture(self._graph, step, *batch)
            if self.eager_reason is not None:
                self._graph = None
                return step(*batch)
        return self._graph.replay(*batch)


class StepGraph:
    """A step on batches of one size, on CUDA.

    Its memory is a pool of its own, or another graph's, which is free again once no graph of it
    is left.

    Args:
        device: Where the batches are.
        beside: Another graph, never replayed at the same time, whose pool and stream it shares.
    """

    _stream: torch.cuda.Stream

    def __init__(self, device: torch.device, beside: "StepGraph | None" = None) -> None:
        self._device = device
        self._beside = beside
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: list[Tensor] = []
        if beside is not None:
            self._stream = beside._stream
            return
        self._stream = _borrowed(device)
        weakref.finalize(self, _idle[device].append, self._stream)

    @property
    def is_captured(self) -> bool:
        """Whether there is something to replay."""
        return self._graph is not None

    def fits(self) -> bool:
        """Whether there is memory for the graph, and for a step or an evaluation beside it.

        Beside other trainings nobody knows whose memory it is: there it is tried, and what does
        not fit after all is done again alone.
        """
        if here().is_shared:
            return True
        used = torch.cuda.memory_allocated(self._device)
        step = torch.cuda.max_memory_allocated(self._device) - used
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device) - used >= 2 * step

    def warm_up(self, step: Step, *batch: Tensor) -> list[Tensor]:
        """Run a step eagerly, on the stream of the graph, and on the tensors that it will read.

        Kernels are compiled for how tensors lie in memory, which a capture does not allow.
        """
        self._take(*batch)
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with self._on_device(), torch.cuda.stream(self._stream):
                return step(*self._batch)
        finally:
            # Each waits for the other, so memory may pass between them as on one stream.
            current.wait_stream(self._stream)

    def capture(self, step: Step, *batch: Tensor) -> None:
        """Record a step on batches of this shape and layout, without executing it.

        Raises:
            RuntimeError: If it cannot be captured, or memory does not suffice.
        """
        self._take(*batch)
        graph = torch.cuda.CUDAGraph()
        shared = None if self._beside is None else self._beside._graph
        # The step's error is to be told: leaving a broken capture raises one that says less.
        errors: list[RuntimeError] = []
        # The stream twice: older versions of PyTorch do not switch back when a capture failed.
        with _alone(), self._on_device(), torch.cuda.stream(self._stream):
            try:
                # Only this thread is held to what a capture allows: others may be loading kernels.
                with torch.cuda.graph(
                    graph,
                    pool=None if shared is None else shared.pool(),
                    stream=self._stream,
                    capture_error_mode="thread_local",
                ):
                    try:
                        self._outputs = step(*self._batch)
                    except RuntimeError as error:
                        errors.append(error)
            except RuntimeError as error:
                errors.append(error)
        try:
            if errors:
                raise errors[0]
        finally:
            errors.clear()  # An error that its own frame refers to would keep all of this alive.
        self._graph = graph

    def _on_device(self) -> AbstractContextManager[None]:
        """The device as the current one: leaving a stream makes a context on that one."""
        return torch.cuda.device(self._device)

    def _take(self, *batch: Tensor) -> None:
        """Have the tensors that the step reads be a batch."""
        if not self._batch:
            self._batch = [tensor.clone() for tensor in batch]
            return
        for own, given in zip(self._batch, batch, strict=True):
            own.copy_(given)

    def replay(self, *batch: Tensor) -> list[Tensor]:
        """Execute the step on a batch."""
        assert self._graph is not None
        self._take(*batch)
        self._graph.replay()
        return [logits.clone() for logits in self._outputs]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Nobody else captures meanwhile, and no graph or tensor of a cycle is freed in between."""
    with CAPTURING:
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()


def _capture(graph: StepGraph, step: Step, *batch: Tensor) -> str | None:
    """Capture a step; if that cannot be, why."""
    if not graph.fits():
        return TOO_LITTLE_MEMORY
    try:
        graph.capture(step, *batch)
    except RuntimeError as error:
        if is_out_of_memory(error):  # Of the graph, not of the steps: these have just fitted.
            return TOO_LITTLE_MEMORY
        StagedStep.failure = f"a capture failed: {str(error).partition(chr(10))[0]}"
        warnings.warn(
            "A training step could not be captured as a CUDA graph, so this process trains step "
            f"by step, which is slower ({StagedStep.failure}).",
            stacklevel=2,
        )
        return StagedStep.failure
    return None
