"""One training on several processes, a GPU each: that of one process with the same batches."""

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from optnas.config.settings import TrainSettings
from optnas.devices.ranks import Ranks
from optnas.objectives.data.batches import augmented_chunks, batch_bounds
from optnas.objectives.data.images import Images
from optnas.objectives.training.epochs import BegunEpoch
from optnas.objectives.training.synchronised import (
    Span,
    SynchronisedBatchNorm2d,
    synchronise,
)
from optnas.objectives.training.trainer import Trainer
from optnas.seeds import derive_seed

_KEYS = inspect.signature(DistributedDataParallel.__init__).parameters
_SYNC = "forward_sync_buffers" if "forward_sync_buffers" in _KEYS else "broadcast_buffers"
"""Whether statistics are those of the first process: torch 2.14 calls it otherwise."""


class DistributedTrainer(Trainer):
    """A `Trainer` of which there is one in each of several processes.

    Every process draws the whole epoch, and reads, augments and trains on its share of each
    batch; gradients are the mean over all images of the batch. So weights are those of one
    process, but for the order in which numbers are added, if batch normalisation is synchronised.
    What a network or a batch draws for itself (``drop_path``, ``mixup``, ``cutmix``) is drawn by
    each process for its share, and differs from what one process draws. Kernels are PyTorch's,
    whatever the recipe says: ours see the images of one process alone.

    Args:
        model: As of `Trainer`.
        images: As of `Trainer`; the same in all processes.
        settings: As of `Trainer`; ``batch_size`` is that of all processes together.
        ranks: The processes.
        local_norms: Whether batch normalisation sees the images of its process alone.
        options: What else `Trainer` takes.

    Raises:
        ValueError: As `Trainer`, or if a batch has less than two images for each process.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Images,
        settings: TrainSettings,
        *,
        ranks: Ranks,
        local_norms: bool = False,
        **options: Any,
    ) -> None:
        settings = settings.model_copy(update={"kernels": "torch"})
        super().__init__(model, images, settings, **options)
        if ranks.is_whole(settings.batch_size):
            raise ValueError(
                f"`batch_size` is {settings.batch_size}: {ranks.count} processes need at least "
                f"{2 * ranks.count}."
            )
        self._ranks = ranks
        self._seed = options["seed"]
        self._share = 1.0
        self._span = Span() if local_norms else synchronise(self.model)
        if not local_norms:
            _warn_of_other_norms(self.model)
        outputs = _Outputs(self.model, bool(settings.auxiliary))
        sync: dict[str, Any] = {_SYNC: local_norms}
        self._together = DistributedDataParallel(outputs, **sync)
        self._draws = torch.Generator()
        if (mixing := self._mixing) is not None:
            self._mixing = lambda inputs, labels, _shared: mixing(inputs, labels, self._draws)

    def _eager_reason(self, steps: int) -> str | None:
        return "several processes train together"

    def _prepare(self) -> None:
        super()._prepare()
        self._draws.manual_seed(
            derive_seed("share", self._seed, self.epoch, self._ranks.number) % 2**63
        )
        if self.settings.drop_path:
            vars(self.model).update(generator=self._draws)

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of every batch."""
        size, ranks = self.settings.batch_size, self._ranks
        shares = augmented_chunks(self.images, size, self._generator, own=ranks.share)
        bounds = batch_bounds(len(self.images.train_images), size)
        for (start, stop), (inputs, labels) in zip(bounds, shares, strict=True):
            is_whole = ranks.is_whole(stop - start)
            self._span.is_open = not is_whole
            # Gradients are averaged over the processes, whatever share each has.
            self._share = 1.0 if is_whole else len(labels) * ranks.count / (stop - start)
            epoch = self.begun
            assert epoch is not None
            sums, images = epoch.sums.clone(), epoch.images
            yield inputs, labels
            if is_whole and not ranks.leads:  # Each image counts once.
                epoch.sums, epoch.images = sums, images

    def _train_epoch(self, epoch: BegunEpoch) -> None:
        super()._train_epoch(epoch)
        count = torch.full((1,), epoch.images, dtype=epoch.sums.dtype, device=self.device)
        totals = torch.cat((epoch.sums, count))
        self._ranks.add(totals)
        epoch.sums, epoch.images = totals[:-1], int(totals[-1])

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with self._precision():
            logits, *auxiliary = self._together(inputs)
        loss = self._loss(logits, labels)
        for other in auxiliary:
            loss = loss + self.settings.auxiliary * self._loss(other, labels)
        return logits.detach().float(), loss * self._share


class _Outputs(nn.Module):
    """A network, called once for everything that its loss needs."""

    def __init__(self, network: nn.Module, is_auxiliary: bool) -> None:
        super().__init__()
        self.network = network
        self._is_auxiliary = is_auxiliary

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        if self._is_auxiliary:
            with_auxiliary: Any = self.network.with_auxiliary
            logits, auxiliary = with_auxiliary(inputs)
            return logits, auxiliary
        return (self.network(inputs),)


def _warn_of_other_norms(model: nn.Module) -> None:
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    kinds = {type(m).__name__ for m in norms if not isinstance(m, SynchronisedBatchNorm2d)}
    if kinds:
        warnings.warn(
            f"{', '.join(sorted(kinds))} is not synchronised: it sees the images of each process",
            stacklevel=3,
        )
