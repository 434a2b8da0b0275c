"""What a network costs before it is trained: on the meta device, and by a step of its training."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from optnas.config.proxy import Proxy
from optnas.config.settings import TrainSettings
from optnas.objectives.data.images import Images
from optnas.objectives.networks.build import build_model, build_on_meta
from optnas.objectives.networks.costs import count_params, forward_costs
from optnas.objectives.networks.sizes import candidate_network
from optnas.objectives.training.allocator import kept_memory
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.memory import is_out_of_memory, release
from optnas.objectives.training.rehearsing import timed_epoch
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import Architecture


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What a network costs, as the contract has it.

    Args:
        params: Trainable parameters.
        multiply_adds: Of one image.
        memory_bytes: Of one image, nothing freed.
        state_bytes: Of a checkpoint in the middle of its training.
        epochs: Epochs of its training; None leaves them to the strategy.
        images: How many of these an epoch sees.
        final_images: How many an epoch of `optnas retrain` sees.
        device: Where it is trained.
        seconds: Of an epoch; None if it was not timed, or cannot be trained.
        trouble: Why it cannot be trained, as far as a step shows.
    """

    params: int
    multiply_adds: int
    memory_bytes: int
    state_bytes: int
    epochs: int | None
    images: int
    final_images: int
    device: str
    seconds: float | None = None
    trouble: str | None = None


def _drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Rehearses:
    """An objective that says beforehand what its networks cost; see `Rehearsal`."""

    images: Images
    train: TrainSettings
    device: torch.device
    _shown: Images
    _network: dict[str, Any]
    _proxy: Proxy | None

    def rehearse(
        self,
        architecture: Architecture,
        *,
        phase: str = "",
        seconds: float | None = 0.25,
        images: int | None = None,
        full: bool = False,
    ) -> Rehearsal:
        """What a trial of a network costs. Nothing is kept.

        Args:
            architecture: The network.
            phase: What the trial is for.
            seconds: For how long steps are tried, on the device; None tries none.
            images: Images of that step; fewer than a batch where memory or time is short.
            full: Whether it is the full network on the full images, not in a reduced setting.
        """
        shown = self.images if full else self._shown
        sized, options = candidate_network(
            architecture, self._network, self.train, None if full else self._proxy
        )
        if seconds is None:
            model = build_on_meta(sized, shown.input_shape, shown.classes, **options)
            return self._counted(model, shown, self._epochs_of(phase))
        model = build_model(sized, shown.input_shape, shown.classes, _drawn(), **options)
        counted = self._counted(model, shown, self._epochs_of(phase))

        def begun() -> Trainer:
            epochs = (self.train.epochs or 1) * self.train.cycles
            trainer: Trainer = self._trainer(  # type: ignore[attr-defined]
                model.to(self.device), shown, self.train, epochs=epochs, seed=0
            )
            return trainer

        return self._timed(begun, counted, images, seconds)

    def _epochs_of(self, phase: str) -> int | None:
        """Epochs of a trial that trains a network; None leaves them to the strategy."""
        return self.train.epochs

    def _counted(self, model: nn.Module, shown: Images, epochs: int | None) -> Rehearsal:
        """What is counted of a network; on the meta device that takes no time."""
        params, forward = count_params(model), forward_costs(model, shown.input_shape)
        kept = 2 if self.train.optimizer == "adamw" else int(self.train.momentum > 0)
        held = sum(buffer.numel() for buffer in model.buffers())
        return Rehearsal(
            params=params,
            **vars(forward),
            state_bytes=4 * (params * (1 + kept) + held),
            epochs=epochs,
            images=len(shown.train_images),
            final_images=len(shown.train_images) + len(shown.validation_images),
            device=str(self.device),
        )

    def _timed(
        self, make: Callable[[], Trainer], counted: Rehearsal, images: int | None, seconds: float
    ) -> Rehearsal:
        torch.set_num_threads(self.train.threads)
        try:
            with deterministic_algorithms(self.train.deterministic), kept_memory():
                epoch = timed_epoch(make(), counted.images, images, seconds=seconds)
        except ValueError as error:  # Of layers that such images are too small for.
            return dataclasses.replace(counted, trouble=str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            release(error, self.device)
            return dataclasses.replace(counted, trouble="out of memory")
        return dataclasses.replace(counted, seconds=epoch)
