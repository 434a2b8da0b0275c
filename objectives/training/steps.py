"""What a training does with one batch: the step, eagerly or from a CUDA graph."""

import contextlib
import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from optnas.config.settings import TrainSettings
from optnas.objectives.data.batches import batch_bounds
from optnas.objectives.data.images import Images
from optnas.objectives.training import cuda_graphs, padding
from optnas.objectives.training.acceleration import accelerated, is_accelerated
from optnas.objectives.training.alignment import aligned_shapes
from optnas.objectives.training.averaging import moving_average
from optnas.objectives.training.flat import FlatParameters, separated
from optnas.objectives.training.losses import balanced_weights, cross_entropy, precise
from optnas.objectives.training.mixing import mixing_of
from optnas.objectives.training.optimizers import make_optimizer
from optnas.objectives.training.precision import autocast_dtype


class BatchTrainer:
    """Trains a network on batches, whoever chooses them.

    Where the recipe lets it, the last, smaller batch of an epoch and the images that are judged
    are filled up to the size of the others: see `padding` and `acceleration`.

    Args:
        model: The network; it is moved to the images' device and trained in place.
        images: The images, already on the device.
        settings: The recipe.
        seed: Decides everything random.
    """

    def __init__(
        self, model: nn.Module, images: Images, settings: TrainSettings, *, seed: int
    ) -> None:
        self.device = images.train_images.device
        model = model.to(self.device).to(memory_format=torch.channels_last)
        self.model = accelerated(model, settings, self.device)
        self.images = images
        self.settings = settings
        self.accumulation = 1
        self._class_weights: Tensor | None = None
        if settings.class_weights == "balanced":
            self._class_weights = balanced_weights(images.train_labels, images.classes)
        self._mixing = mixing_of(settings, images.classes)
        self._average = moving_average(self.model, settings.ema)
        self._generator = torch.Generator().manual_seed(seed)
        self._parameters = self._trained()
        self._optimizer = make_optimizer(self._parameters, settings, self.model)
        self._dtype = autocast_dtype(settings.precision, self.device)
        self._flat: FlatParameters | None = None
        kinds = {parameter.dtype for parameter in self._parameters}
        self._can_flatten = settings.optimizer == "sgd" and kinds == {torch.float32}
        # Graphs of full batches, of the last one, and of the images that are judged.
        self._staged: cuda_graphs.StagedStep | None = None
        self._staged_last: cuda_graphs.StagedStep | None = None
        self._staged_answer: cuda_graphs.StagedStep | None = None
        # On CUDA a tensor, captured or not: both paths round it alike.
        self._rate: Tensor | None = None
        if cuda_graphs.are_supported(self.device):
            self._rate = torch.zeros((), dtype=torch.float32, device=self.device)

    @property
    def eager_reason(self) -> str | None:
        """Why steps are not replayed from a CUDA graph.

        None if they are, if the settings do not ask for it, elsewhere than on CUDA, and before the
        first epoch.
        """
        return None if self._staged is None else self._staged.eager_reason

    @property
    def judged(self) -> nn.Module:
        """The network that is judged, and kept: that of the averaged weights, if there are any."""
        average: nn.Module | None = None if self._average is None else self._average.module
        return self.model if average is None else average

    def _trained(self) -> list[nn.Parameter]:
        """The parameters that the optimiser trains."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def _trained_on(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The outputs on a batch that is trained on."""
        targets = labels
        if self._mixing is not None:
            inputs, targets = self._mixing(inputs, labels, self._generator)
        if self._fills:
            inputs = padding.filled(inputs, self._full)
        outputs = self._step(inputs, targets)
        if self._average is not None:
            self._average.update_parameters(self.model)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    @property
    def _fills(self) -> bool:
        """Whether batches are filled up to the size of the first one."""
        if not is_accelerated(self.settings, self.device) or self.accumulation > 1:
            return False
        # What is compiled sees no hooks that come later.
        return self.model._compiled_call_impl is None

    def _step(self, inputs: Tensor, labels: Tensor) -> list[Tensor]:
        """As `_train_batch`, from a graph where there is one."""
        is_last = self._staged_last is not None and len(labels) != self._full
        staged = self._staged_last if is_last else self._staged
        if staged is None:
            return self._train_batch(inputs, labels)
        return staged(self._train_batch, inputs, labels)

    def _sizes(self) -> list[int]:
        """How many images every batch of an epoch has."""
        bounds = batch_bounds(len(self.images.train_images), self.settings.batch_size)
        return [stop - start for start, stop in bounds]

    @functools.cached_property
    def _full(self) -> int:
        """How many images the first batch of an epoch has, and most of the others."""
        return self._sizes()[0]

    def _stage(self, epochs: int) -> None:
        """Make ready the graphs of so many epochs; what captures them are their steps."""
        sizes = self._sizes()
        others = [size for size in sizes if size != self._full]
        reason = self._eager_reason(epochs * (len(sizes) - len(others)))
        self._staged = cuda_graphs.StagedStep(self._full, self.device, reason)
        if not self._fills:
            return
        if others:
            self._staged_last = cuda_graphs.StagedStep(
                others[0],
                self.device,
                reason or cuda_graphs.too_few(epochs * len(others), 1),
                warm_up=1,
                beside=self._staged,
            )
        pieces = epochs * math.ceil(len(self.images.validation_images) / self._full)
        self._staged_answer = cuda_graphs.StagedStep(
            self._full, self.device, cuda_graphs.too_few(pieces), beside=self._staged
        )

    def _reloaded(self) -> None:
        """Go on with what the optimiser keeps once that has become other tensors.

        Graphs would go on with those of before.
        """
        if self._flat is not None:
            self._flat.adopt()
        self._staged = self._staged_last = self._staged_answer = None

    def _eager_reason(self, steps: int) -> str | None:
        """Why ``steps`` steps of this training cannot be a graph, or should not."""
        if self.settings.drop_path or getattr(self.model, "drop_path", 0):
            return "drop_path draws on the host in every step"
        if self.accumulation > 1:
            return "memory does not suffice for whole batches"
        return cuda_graphs.too_few(steps)

    def _train_batch(self, inputs: Tensor, labels: Tensor) -> list[Tensor]:
        """One step of the optimiser; the logits of the batch's parts."""
        flat = self._flattened()
        if flat is not None:
            flat.zero_grad()
            outputs = self._backward(inputs, labels)
            flat.step(self.settings.clip)
            return outputs
        self._optimizer.zero_grad(set_to_none=True)
        outputs = self._backward(inputs, labels)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.settings.clip)
        self._optimizer.step()
        return outputs

    def _flattened(self) -> FlatParameters | None:
        """All parameters side by side, where the recipe and the optimiser let them."""
        flattens = self._fills and self._can_flatten
        if flattens and self._flat is None:
            shapes = aligned_shapes(self.model)
            self._flat = FlatParameters(self.model, self._optimizer, self._dtype, shapes)
        elif not flattens and self._flat is not None:
            self._flat.dissolve()
            self._flat = None
        return self._flat

    def _lent(self) -> contextlib.AbstractContextManager[Any]:
        """Have the network compute with the parameters that lie side by side, if any do."""
        return contextlib.nullcontext() if self._flat is None else self._flat.lent()

    def _own(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state that can be kept: none of its tensors is a part of a larger one."""
        own: dict[str, Any] = state if self._flat is None else separated(state)
        return own

    def _backward(
        self, inputs: Tensor, labels: Tensor, parameters: list[nn.Parameter] | None = None
    ) -> list[Tensor]:
        """Add the gradient of a batch's loss to that of ``parameters``; the parts' logits.

        All parameters are better left unnamed: that saves a small network a few per cent.
        """
        outputs = []
        for part in self._parts(0, len(inputs)):
            logits, loss = self._forward(inputs[part], labels[part])
            share = len(logits) / len(labels)
            torch.autograd.backward(loss if share == 1 else loss * share, inputs=parameters)
            outputs.append(logits)
        return outputs

    def _parts(self, start: int, stop: int) -> list[slice]:
        """What of a batch is trained on at once."""
        # Batch normalisation needs two images.
        size = max(2, math.ceil((stop - start) / self.accumulation))
        bounds = batch_bounds(stop - start, size)
        return [slice(start + first, start + last) for first, last in bounds]

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, without their gradient, and the loss; of as many images as labels."""
        weight, count = self.settings.auxiliary, len(labels)
        with self._precision(), padding.counting(self.model, count, len(inputs)), self._lent():
            if weight:
                with_auxiliary: Any = self.model.with_auxiliary
                logits, auxiliary = with_auxiliary(inputs)
            else:
                logits = self.model(inputs)
        logits = precise(padding.counted(logits, count))
        loss = self._loss(logits, labels)
        if weight:
            loss = loss + weight * self._loss(padding.counted(auxiliary, count), labels)
        return logits.detach().float(), loss

    def _answers(self, inputs: Tensor) -> Tensor:
        """Logits of the network that is judged, which is in evaluation mode."""
        if not self._fills:
            return self._answer(inputs)[0]
        logits: list[Tensor] = []
        for batch in torch.split(inputs, self._full):
            batch = padding.filled(batch, self._full)
            staged = self._staged_answer
            logits += self._answer(batch) if staged is None else staged(self._answer, batch)
        return padding.counted(torch.cat(logits), len(inputs))

    def _answer(self, inputs: Tensor) -> list[Tensor]:
        own = self._lent() if self._average is None else contextlib.nullcontext()
        with self._precision(), own:
            return [self.judged(inputs)]

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.settings.label_smoothing
        return cross_entropy(logits, labels, self._class_weights, smoothing)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._dtype)
