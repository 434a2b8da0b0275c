"""Alternating training of a super-network: its architecture, then its weights, step by step."""

import copy
import dataclasses
import itertools
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from optnas.config.settings import TrainSettings
from optnas.objectives.data.batches import augmented_chunks, batch_bounds
from optnas.objectives.data.images import Images
from optnas.objectives.data.splits import draw_shares
from optnas.objectives.networks.supernet import MixedNetwork
from optnas.objectives.training.cuda_graphs import StagedStep, are_supported, too_few
from optnas.objectives.training.epochs import EpochResult
from optnas.objectives.training.hessian import hessian_eigenvalue
from optnas.objectives.training.optimizers import without_compiling
from optnas.objectives.training.padding import filled
from optnas.objectives.training.trainer import Trainer
from optnas.seeds import derive_seed

ADAM_BETAS = (0.5, 0.999)
"""Of the architecture parameters' optimiser, as in the code of DARTS and PC-DARTS."""

_Adam = without_compiling(torch.optim.Adam)


@dataclasses.dataclass(frozen=True)
class SearchRecipe:
    """How the architecture parameters of a super-network are trained.

    Args:
        iterations: Steps of an epoch; None is one pass over the images of the weights.
        weight_share: Fraction of the training split that the weights learn from.
        architecture_share: Fraction of the training split, disjoint from the first, that the
            architecture parameters learn from.
        lr: Learning rate of Adam for the architecture parameters.
        weight_decay: Weight decay of the same.
        second_order: Whether their gradient looks one step of the weights ahead.
        eigenvalue: Whether the largest eigenvalue of the loss's Hessian with respect to them is
            measured after every epoch.
        warmup_epochs: Epochs in which the weights are trained alone.

    Raises:
        ValueError: If a value is out of range.
    """

    iterations: int | None = None
    weight_share: float = 0.5
    architecture_share: float = 0.5
    lr: float = 6e-4
    weight_decay: float = 1e-3
    second_order: bool = False
    eigenvalue: bool = False
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise ValueError(
                f"`iterations` must be greater than or equal to 1: {self.iterations}."
            )
        shares = (self.weight_share, self.architecture_share)
        if not min(shares) > 0 or not sum(shares) <= 1 + 1e-9:
            raise ValueError(
                "`weight_share` and `architecture_share` must be positive and together at most 1: "
                f"{shares[0]} and {shares[1]}."
            )
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise ValueError(
                "`lr` must be positive and `weight_decay` must not be negative: "
                f"{self.lr} and {self.weight_decay}."
            )
        if self.warmup_epochs < 0:
            raise ValueError(f"`warmup_epochs` must not be negative: {self.warmup_epochs}.")


class BilevelTrainer(Trainer):
    """Trains the weights and the architecture parameters of a super-network in turn.

    Every step first moves the architecture parameters by Adam, down the gradient of the loss on
    a batch of their share of the training split, then the weights, as `Trainer` does, on a batch
    of theirs. The shares are disjoint; the validation split takes part in neither. In a warm-up
    the weights move alone. Once all images of its share were used, the architecture goes on with
    a new order. On CUDA both steps are replayed from graphs, unless one looks ahead.

    The second order's gradient is that of the loss after the step of SGD that the weights would
    take on their batch. Its Hessian-vector product is exact, where the code of DARTS takes a
    finite difference.

    Source: FTSO, algorithm 1; PC-DARTS (Xu et al. 2020), section 4 and its code; DARTS (Liu et
    al. 2019), section 2.3, equations 5 to 7.

    Args:
        model: The super-network; it is moved to the images' device and trained in place.
        images: The images, already on the device.
        settings: How the weights are trained; ``batch_size`` is that of both batches.
        recipe: How the architecture parameters are trained.
        epochs: Length of the learning rate's schedule.
        seed: Decides the shares, the order and the augmentation of the images.

    Attributes:
        eigenvalues: The largest eigenvalue of the Hessian after every epoch, on one batch, always
            the same, of the architecture's share; empty unless the recipe asks for it.

    Raises:
        ValueError: As of `Trainer`, or if the second order is asked of another optimiser than SGD.
        DataError: If a share is too small to have every class.
    """

    model: MixedNetwork

    def __init__(
        self,
        model: MixedNetwork,
        images: Images,
        settings: TrainSettings,
        recipe: SearchRecipe | None = None,
        *,
        epochs: int,
        seed: int,
    ) -> None:
        super().__init__(model, images, settings, epochs=epochs, seed=seed)
        self.recipe = recipe or SearchRecipe()
        if self.recipe.second_order and settings.optimizer != "sgd":
            raise ValueError(
                f"`second_order` looks ahead by a step of `optimizer: sgd`: {settings.optimizer}."
            )
        self.eigenvalues: list[float] = []
        self._seed = seed
        self._weight_share, self._architecture_share = draw_shares(
            images.train_labels.cpu(),
            (self.recipe.weight_share, self.recipe.architecture_share),
            derive_seed("shares", seed),
        )
        self._architecture = model.architecture_parameters()
        self._architecture_optimizer = _Adam(
            self._architecture,
            self.recipe.lr,
            betas=ADAM_BETAS,
            weight_decay=self.recipe.weight_decay,
            fused=True,
        )
        self._make_capturable()
        self._architecture_batches: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._staged_architecture: StagedStep | None = None

    def _make_capturable(self) -> None:
        """Have Adam count its steps where they are taken, which a graph needs."""
        for group in self._architecture_optimizer.param_groups:
            group["capturable"] = are_supported(self.device)

    def train_epoch(self) -> EpochResult:
        result = super().train_epoch()
        if self.recipe.eigenvalue:
            start = time.perf_counter()
            self.eigenvalues.append(self._eigenvalue())
            seconds = result.seconds + time.perf_counter() - start
            result = self.history[-1] = dataclasses.replace(result, seconds=seconds)
        return result

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        done = state["optimizer"] is None
        state["architecture_optimizer"] = (
            None if done else self._architecture_optimizer.state_dict()
        )
        state["eigenvalues"] = list(self.eigenvalues)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if state["architecture_optimizer"] is not None:
            optimizer = copy.deepcopy(state["architecture_optimizer"])
            self._architecture_optimizer.load_state_dict(optimizer)
            self._make_capturable()
        self.eigenvalues = list(state["eigenvalues"])

    def _trained(self) -> list[nn.Parameter]:
        return self.model.weight_parameters()

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        a_pass = len(batch_bounds(len(self._weight_share), self.settings.batch_size))
        steps = self.batches
        self._architecture_batches = self._endless_batches(steps)
        for first in range(0, steps, a_pass):
            batches = min(a_pass, steps - first)
            yield from self._passed(self._weight_share, self._generator, batches)

    @property
    def batches(self) -> int:
        size = self.settings.batch_size
        return self.recipe.iterations or len(batch_bounds(len(self._weight_share), size))

    def _pass_over(self, batches: int) -> None:
        for _ in range(0 if self._is_warming_up else batches):
            next(self._architecture_batches)

    @property
    def _is_warming_up(self) -> bool:
        return self.epoch < self.recipe.warmup_epochs

    def _endless_batches(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the architecture's share; of each pass at most ``steps`` are needed."""
        while True:
            for inputs, labels in self._passed(self._architecture_share, self._generator, steps):
                for start, stop in batch_bounds(len(inputs), self.settings.batch_size):
                    yield inputs[start:stop], labels[start:stop]

    def _passed(
        self, share: Tensor, generator: torch.Generator, batches: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.settings.batch_size
        return augmented_chunks(self.images, size, generator, subset=share, batches=batches)

    def _sizes(self) -> list[int]:
        a_pass = _sizes_of(len(self._weight_share), self.settings.batch_size)
        return list(itertools.islice(itertools.cycle(a_pass), self.batches))

    @property
    def _fills(self) -> bool:
        return super()._fills and not self.recipe.second_order

    def _flattened(self) -> None:
        return None  # Gradients of single parameters are asked for.

    def _eager_reason(self, steps: int) -> str | None:
        if self.recipe.second_order:
            return "a step that looks ahead takes both batches"
        return super()._eager_reason(steps)

    def _stage(self, epochs: int) -> None:
        super()._stage(epochs)
        assert self._staged is not None
        size, *_ = _sizes_of(len(self._architecture_share), self.settings.batch_size)
        self._architecture_full = size
        self._staged_architecture = StagedStep(
            size,
            self.device,
            self._staged.eager_reason or too_few(epochs * self.batches),
            beside=self._staged,
        )

    def _reloaded(self) -> None:
        super()._reloaded()
        self._staged_architecture = None

    def _step(self, inputs: Tensor, labels: Tensor) -> list[Tensor]:
        """First a step of the architecture, then one of the weights, each from a graph of its own
        where there is one."""
        if self._is_warming_up:
            return super()._step(inputs, labels)
        given, wanted = next(self._architecture_batches)
        if self.recipe.second_order:
            self._architecture_optimizer.zero_grad(set_to_none=True)
            self._unrolled_backward((inputs, labels), (given, wanted))
            self._architecture_optimizer.step()
        elif self._staged_architecture is None:
            self._train_architecture(given, wanted)
        else:
            if self._fills:
                given = filled(given, self._architecture_full)
            self._staged_architecture(self._train_architecture, given, wanted)
        return super()._step(inputs, labels)

    def _train_architecture(self, inputs: Tensor, labels: Tensor) -> list[Tensor]:
        """One step of the architecture's optimiser, down the gradient on its batch."""
        self._architecture_optimizer.zero_grad(set_to_none=True)
        outputs = self._backward(inputs, labels, self._architecture)
        self._architecture_optimizer.step()
        return outputs

    def _backward(
        self, inputs: Tensor, labels: Tensor, parameters: list[nn.Parameter] | None = None
    ) -> list[Tensor]:
        """As of `Trainer`, of the weights alone unless told otherwise."""
        wanted = self._parameters if parameters is None else parameters
        return super()._backward(inputs, labels, wanted)

    def _unrolled_backward(
        self, training: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]
    ) -> None:
        """Give the architecture parameters the gradient of the loss after the weights' step.

        With w' = w - lr * step(w, a), that gradient is dL_val(w', a)/da minus lr times
        d<dL_train(w, a)/dw, v>/da at v = dL_val(w', a)/dw'; the rest of the step, momentum and
        weight decay, does not depend on a.
        """
        rate = self._optimizer.param_groups[0]["lr"]
        before = [parameter.detach().clone() for parameter in self._parameters]
        self._optimizer.zero_grad(set_to_none=True)
        self._backward(*training)
        with torch.no_grad():
            for parameter, gradient in zip(self._parameters, self._taken(), strict=True):
                step = gradient + self.settings.weight_decay * parameter
                momentum = self._optimizer.state[parameter].get("momentum_buffer")
                if momentum is not None:
                    step += self.settings.momentum * momentum
                parameter.sub_(rate * step)
        self._backward(*validation, [*self._architecture, *self._parameters])
        vector = self._taken()
        with torch.no_grad():
            for parameter, value in zip(self._parameters, before, strict=True):
                parameter.copy_(value)
        inputs, labels = training
        for part in self._parts(0, len(inputs)):
            logits, loss = self._forward(inputs[part], labels[part])
            gradients = torch.autograd.grad(
                loss, self._parameters, create_graph=True, materialize_grads=True
            )
            product = torch.stack(
                [(g * v).sum() for g, v in zip(gradients, vector, strict=True)]
            ).sum()
            share = len(logits) / len(inputs)
            torch.autograd.backward(-rate * share * product, inputs=self._architecture)

    def _taken(self) -> list[Tensor]:
        """The gradients of the weights, zero where there are none, which have none afterwards."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        self._optimizer.zero_grad(set_to_none=True)
        return gradients

    def _eigenvalue(self) -> float:
        generator = torch.Generator().manual_seed(derive_seed("eigenvalue", self._seed))
        inputs, labels = next(self._passed(self._architecture_share, generator, 1))
        self.model.train()
        part = self._parts(0, len(inputs))[0]
        return hessian_eigenvalue(self.model, inputs[part], labels[part], generator)


def _sizes_of(images: int, batch_size: int) -> list[int]:
    """How many images the batches of a pass have."""
    return [stop - start for start, stop in batch_bounds(images, batch_size)]
