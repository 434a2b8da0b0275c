"""Training a network on images that live on the device.

The loop has no hooks and waits for the device once per epoch: losses and correct answers are
summed there. Measured on one core of an AMD EPYC (AVX-512) with torch 2.15, batch 64, float32,
one thread: channels last made a step 1.5 times as fast (chains of 5 layers on 8x8 and of 10
layers on 32x32 images), and the fused optimiser took a third to a half of the time of foreach.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.config.settings import TrainSettings, check_cycles, check_milestones
from optnas.devices.energy import energy_meter
from optnas.objectives.data.augment import normalise
from optnas.objectives.data.batches import augmented_chunks, batch_bounds
from optnas.objectives.data.image_files import Pixels
from optnas.objectives.data.images import Images
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.epochs import BegunEpoch, EpochResult
from optnas.objectives.training.memory import in_pieces
from optnas.objectives.training.metrics import Metric, count_correct, counted, measured
from optnas.objectives.training.neighbours import here
from optnas.objectives.training.optimizers import set_rate
from optnas.objectives.training.schedules import learning_rate
from optnas.objectives.training.steps import BatchTrainer
from optnas.trials.pulse import Paused, Pulse

__all__ = ["EpochResult", "NonFiniteLoss", "Trainer", "deterministic_algorithms", "learning_rate"]

# Evaluation batches hold at most this many images and pixels: the activations of a wide
# network's first layers, hundreds of bytes per pixel, must fit into memory.
EVALUATION_IMAGES = 1024
EVALUATION_PIXELS = 2**19


class NonFiniteLoss(ArithmeticError):
    """The loss or the outputs of the network became infinite or NaN."""


class Trainer(BatchTrainer):
    """Trains a network epoch by epoch and can be saved after each.

    Everything random (the order and the augmentation of the images) is drawn from one generator
    that belongs to the run. On the CPU, equal seeds and numbers of threads give bitwise equal
    weights, interrupted and resumed or not. On CUDA, steps on full batches are replayed from a
    graph, where they can be: see `cuda_graphs.StagedStep` and `eager_reason`.

    Args:
        model: The network; it is moved to the images' device and trained in place.
        images: The images, already on the device.
        settings: The recipe.
        epochs: Length of the learning rate's schedule.
        further_epochs: Epochs that may come after it; see `learning_rate`.
        seed: Decides the order and augmentation of the images.
        metric: What is measured on the validation images beside accuracy.

    Attributes:
        accumulation: Number of parts in which a batch is trained on, one after the other, for
            want of memory: 1 at first. Gradients are those of the whole batch, except that batch
            normalisation sees the parts.
        pulse: Tells how far the epoch is, batch by batch, and lets it be left between two.
        begun: The epoch that was left, whose state is saved with the rest; None between epochs.

    Raises:
        ValueError: If there are fewer than two training images or no epochs, the cycles do not
            divide the epochs, or the settings ask for drop-path or an auxiliary loss that the
            network does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Images,
        settings: TrainSettings,
        *,
        epochs: int,
        further_epochs: int = 0,
        seed: int,
        metric: Metric = "accuracy",
    ) -> None:
        if epochs < 1:
            raise ValueError(f"`epochs` must be greater than or equal to 1: {epochs}.")
        check_cycles(settings, epochs)
        check_milestones(settings)
        if len(images.train_images) < 2:
            raise ValueError("Training needs at least two images.")
        for setting, part in (("drop_path", "drop_path"), ("auxiliary", "with_auxiliary")):
            if getattr(settings, setting) and not hasattr(model, part):
                raise ValueError(f"`{setting}`: a {type(model).__name__} has none; leave it out.")
        super().__init__(model, images, settings, seed=seed)
        self.epochs = epochs
        self.further_epochs = further_epochs
        self.history: list[EpochResult] = []
        self.pulse = Pulse()
        self.begun: BegunEpoch | None = None
        self._metric = metric
        self._is_plain = metric == "accuracy"
        self._energy = energy_meter(self.device)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    def train_epoch(self) -> EpochResult:
        """One pass over the training split, then the accuracy on the validation split.

        An epoch that was left in its middle is gone on with, and ends as it would have.

        Raises:
            NonFiniteLoss: If the loss or an output was infinite or NaN; the epoch does not count.
            Paused: If the pulse says so.
        """
        start = time.perf_counter()
        self._energy()  # What was used before is nobody's.
        self._prepare()
        epoch = self.begun = self.begun or BegunEpoch.of(self._generator, self.device)
        try:
            self._train_epoch(epoch)
            images = self.images
            validation = self._evaluate(images.validation_images, images.validation_labels)
        except Paused:
            epoch.now = self._generator.get_state()
            epoch.took(time.perf_counter() - start, self._joules())
            raise
        except BaseException:
            self.begun = None  # Nobody knows what of it was done.
            raise
        # The one synchronisation of the epoch.
        loss, correct, validated, finite, *value = torch.cat((epoch.sums, validation)).tolist()
        self.begun = None
        if not (math.isfinite(loss) and finite):
            raise NonFiniteLoss(
                f"The loss is not finite in epoch {self.epoch + 1}: lower the learning rate."
            )
        held_out = len(images.validation_images)
        epoch.took(time.perf_counter() - start, self._joules())
        result = EpochResult(
            train_loss=loss / epoch.images,
            train_accuracy=correct / epoch.images,
            validation_accuracy=validated if held_out else None,
            seconds=epoch.seconds,
            joules=epoch.joules,
            validation_value=value[0] if value and held_out else None,
        )
        self.history.append(result)
        return result

    def _joules(self) -> float | None:
        """Energy since this was asked; unknown where it is that of other threads, too."""
        joules = self._energy()
        return None if here().is_shared else joules

    def evaluate(self, images: Pixels, labels: Tensor) -> float:
        """Fraction of images that are classified correctly.

        Args:
            images: uint8 (N, C, H, W) on the device, or in files, N at least 1.
            labels: int64 (N,) on the device.
        """
        accuracy, *_ = self._evaluate(images, labels).tolist()
        return float(accuracy)

    def state_dict(self) -> dict[str, Any]:
        """Everything a later `load_state_dict` needs: tensors, numbers, strings and containers.

        The tensors are the live ones: write them before the next epoch. `torch.load` reads the
        file with ``weights_only=True``. After the last epoch nobody needs the optimiser's part,
        half of it all, any more. ``begun`` is an epoch that was left in its middle.
        """
        done = self.epoch >= self.epochs + self.further_epochs
        average = {} if self._average is None else {"average": self._average.state_dict()}
        return {
            **average,
            "model": self._own(self.model.state_dict()),
            "optimizer": None if done else self._own(self._optimizer.state_dict()),
            "generator": self._generator.get_state(),
            "history": [dataclasses.asdict(result) for result in self.history],
            "begun": None if self.begun is None else self.begun.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another trainer of the same network and recipe stood."""
        self.model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if state["optimizer"] is not None:
            # A copy: the optimiser would go on in the very tensors of another trainer's state.
            self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._reloaded()
        self._generator.set_state(state["generator"].cpu())
        self.history = [EpochResult(**result) for result in state["history"]]
        begun = state.get("begun")  # Older states have none.
        self.begun = None if begun is None else BegunEpoch.from_state(begun, self.device)

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What an epoch trains on, augmented, in pieces of whole batches."""
        return augmented_chunks(self.images, self.settings.batch_size, self._generator)

    def _prepare(self) -> None:
        """Set what changes from epoch to epoch."""
        rate = learning_rate(self.settings, self.epoch, self.epochs, self.further_epochs)
        set_rate(self._optimizer, rate if self._rate is None else self._rate.fill_(rate))
        if self._rate is not None and self.settings.graphs and self._staged is None:
            self._stage(self.epochs + self.further_epochs - self.epoch)
        self.model.train()
        if self.settings.drop_path:
            rate = self.settings.drop_path * self.epoch / self.epochs
            vars(self.model).update(drop_path=rate, generator=self._generator)

    def _train_epoch(self, epoch: BegunEpoch) -> None:
        """Train on the batches of an epoch that are not done; its sums are complete then."""
        pulse, size = self.pulse, self.settings.batch_size
        pulse.batch = epoch.batches
        for inputs, labels, bounds in epoch.left(
            self._chunks, size, self._generator, self._pass_over
        ):
            for start, stop in bounds:
                pulse.check()
                epoch.logits.append(self._trained_on(inputs[start:stop], labels[start:stop]))
                epoch.batches += 1
                pulse.batch += 1
            # Statistics of the piece at once: per batch they would cost as much as a small layer.
            logits = torch.cat(epoch.logits)
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            epoch.sums += torch.stack((loss.double(), count_correct(logits, labels)))
            epoch.images += len(labels)
            epoch.logits.clear()

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return len(batch_bounds(len(self.images.train_images), self.settings.batch_size))

    def _pass_over(self, batches: int) -> None:
        """Draw what so many batches drew that are trained on already: nothing but their images."""

    @torch.inference_mode()
    def _evaluate(self, images: Pixels, labels: Tensor) -> Tensor:
        """Fraction of correct answers, 1.0 if all outputs are finite; the metric, if another."""
        self.judged.eval()
        result = torch.tensor((0.0, 1.0), dtype=torch.float64).to(self.device, non_blocking=True)
        counts = torch.zeros(1, dtype=torch.float64, device=self.device)

        def judge(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
            self.pulse.check()
            inputs = normalise(images[start:stop], self.images.mean, self.images.std)
            logits = self._answers(inputs.contiguous(memory_format=torch.channels_last))
            correct = count_correct(logits, labels[start:stop])
            seen = correct if self._is_plain else counted(self._metric, logits, labels[start:stop])
            return correct, logits.isfinite().all(), seen

        size = self._evaluated_at_once(images)
        for correct, finite, seen in in_pieces(judge, len(images), size, self.device):
            result[0] += correct
            result[1] *= finite
            counts = counts + seen
        result[0] /= max(1, len(images))
        if self._is_plain:
            return result
        return torch.cat((result, measured(self._metric, counts)[None]))

    def _evaluated_at_once(self, images: Pixels) -> int:
        """How many images are evaluated at once, if memory suffices."""
        fitting = min(EVALUATION_IMAGES, EVALUATION_PIXELS // math.prod(images.shape[2:]))
        size = max(self.settings.batch_size, fitting)
        return max(self._full, size - size % self._full) if self._fills else size
