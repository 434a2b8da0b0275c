"""Macro-micro search: grow depth, prune width, then operations and kernels per layer."""

import dataclasses
import functools
import math
from collections.abc import Generator
from dataclasses import KW_ONLY
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from optuna.study import Study

from optnas.samplers._batches import Candidate
from optnas.samplers._history import Result
from optnas.samplers._macro_micro_outlook import MacroMicroOutlook
from optnas.samplers._options import Count, Positive
from optnas.samplers._outlook import Outlook
from optnas.samplers._replay import ReplaySampler, Search
from optnas.spaces import ChainArchitecture, ChainSpace, FaceArchitecture, FaceSpace
from optnas.trials.attributes import PARENT, TRAIN_ACCURACY

LayeredArchitecture = ChainArchitecture | FaceArchitecture

EPSILON = 1e-6
"""Accuracies closer than this are equal: they come from float32 and from printed figures."""


@dataclasses.dataclass(eq=False)
class MacroMicroSampler(ReplaySampler[LayeredArchitecture]):
    """Sampler using the macro-micro strategy of *Efficient Global Neural Architecture Search*.

    The macro search grows the depth at full width, layer by layer (a face network block by block),
    with an epoch more for every step, until accuracy drops three times; then prunes the width,
    with two epochs more for every step, while accuracy holds. The micro search trains every
    candidate equally briefly: it replaces the operation of one layer after the other, then its
    kernel, keeps what improves, and narrows every candidate until its size is that of the macro
    network.

    Every decision depends on the result before it. Several workers are kept busy with the
    candidates that come next if a layer more is accepted, a narrower network is kept and a micro
    change is rejected; unless networks inherit weights: then nothing is known before the result.

    The objective suggests the parameters of the space and ``epochs``; its value is the best
    held-out accuracy over the epochs, a fraction. The user attribute ``train_accuracy``, if set,
    is the best training accuracy. A failed or infeasible candidate is a strike, or a rejection.

    Source: Siddiqui, Kyrkou and Theocharides, *Efficient Global Neural Architecture Search*,
    sections 3.2 and 3.3, algorithm 1; thresholds from section 3.3 and the authors' code.

    Example:

        .. code-block:: python

            space = ChainSpace(depth=(10, 100), width=(16, 64))
            sampler = MacroMicroSampler(space, in_channels=3, classes=10)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.optimize(objective)
            print(sampler.found(study))

    Args:
        space: The space of chains or of face networks to search.
        in_channels: Channels of the images, to count parameters.
        classes: Number of classes, to count parameters.
        width_step: Channels taken off in one step of the width phase.
        epochs: Epochs of the first candidate.
        micro_epochs: Epochs of every candidate of the micro search.
        gain: Least gain of accuracy with which a deeper network is accepted.
        drop: Greatest loss of accuracy with which growing goes on without a strike.
        strikes: Strikes that end the depth phase, and the width phase.
        target_accuracy: Accuracy with which growing ends.
        stop_train_accuracy: Growing ends when the best network's training accuracy exceeds
            this; None never does.
        params_tolerance: Parameters by which a micro candidate may exceed the network it is
            compared with.
        operation: Operation of every layer at the start; the micro search tries the other one.
            Default: ``"separable"`` for chains, ``"conv"`` for face networks.
        kernel: Kernel size of every layer at the start; the micro search tries 5, where the space
            has it. A chain space has 7 if its ``kernels`` say so.
        evaluation: ``"dynamic"`` trains as described; ``"static"`` trains every candidate for
            ``epochs`` epochs.
        micro: Whether there is a micro search. Default: for chains, not for face networks, as in
            the paper's section 4.2.
        search_operations: Whether the micro search tries operations, before kernels.
        final_width: ``"macro"`` gives the found network the width of the macro search; ``"micro"``
            the width to which its last accepted change was narrowed.
        inherit: Whether a network starts from the weights of the one that it was derived from,
            the last one accepted, whose trial is its user attribute ``parent``. Later networks
            are then trained longer in total, and there is never work for a second worker.

    Raises:
        TypeError: If ``space`` is neither a chain space nor a face space.
        ValueError: If a number is out of range, or the space has not what a search begins with.

    Differences from the paper:
        Candidates are judged on held-out training images; the authors' code uses the test set.
        The learning rate steps after the epoch, so that the last epoch still learns. What the
        paper leaves open follows the authors' code: the third strike ends a phase, an accepted
        network clears the strikes and a neutral one does not; the width phase accepts ties and
        goes on with the last epochs of the depth phase; the final network has the macro width.
        The width phase never leaves the space's range, and no width falls below 1. Accuracies
        closer than 1e-6 are equal. The paper trains every network from random weights, as is the
        default.
    """

    sets_epochs = True
    compares_fractions = True
    searches = (ChainSpace, FaceSpace)

    space: Any  # Neither of the two is a space of both kinds of network.
    _: KW_ONLY
    in_channels: Positive
    classes: Positive
    width_step: Positive = 2
    epochs: Positive = 10
    micro_epochs: Positive = 2
    gain: Annotated[float, Ge(0)] = 0.001
    drop: Annotated[float, Ge(0)] = 0.0005
    strikes: Positive = 3
    target_accuracy: Annotated[float, Ge(0)] = 0.999
    stop_train_accuracy: Annotated[float, Ge(0)] | None = 0.995
    params_tolerance: Count = 10_000
    operation: Literal["separable", "conv"] | None = None
    kernel: Literal[3, 7] = 3
    evaluation: Literal["dynamic", "static"] = "dynamic"
    micro: bool | None = None
    search_operations: bool = True
    final_width: Literal["macro", "micro"] = "macro"
    inherit: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.operation = self.operation or self.space.operation
        self.micro = self.space.micro if self.micro is None else self.micro
        if isinstance(self.space, ChainSpace):
            for name, start in (("operations", self.operation), ("kernels", self.kernel)):
                choices = getattr(self.space, name)
                if start not in choices:
                    raise ValueError(
                        f"`{name.removesuffix('s')}` must be one of the space's `{name}`, "
                        f"{choices}: {start!r}."
                    )

    @property
    def inherits(self) -> bool:
        return self.inherit

    @property
    def epochs_range(self) -> tuple[int, int]:
        if self.evaluation == "static":
            return self.epochs, self.epochs
        (depth, deepest), (narrowest, widest) = self.space.depth, self.space.width
        most = self.epochs + (deepest - depth) // self.space.depth_step
        most += 2 * ((widest - narrowest) // self.width_step)
        least = min(self.epochs, self.micro_epochs) if self.micro else self.epochs
        return least, max(most, self.micro_epochs if self.micro else 0)

    @property
    def changes(self) -> list[tuple[str, str | int]]:
        """What the micro search tries in every layer, as far as the space has it."""
        other = "conv" if self.operation == "separable" else "separable"
        changes: list[tuple[str, str | int]] = [("operations", other)]
        changes = [*(changes if self.search_operations else []), ("kernels", 5)]
        if not isinstance(self.space, ChainSpace):
            return changes
        return [
            (field, choice) for field, choice in changes if choice in getattr(self.space, field)
        ]

    def search(self) -> Search[LayeredArchitecture]:
        depth, epochs, best = yield from self._grow()
        width, best = yield from self._prune(depth, epochs, best)
        architecture = self._uniform(depth, width)
        if not self.micro:
            return architecture
        step = "what the micro search begins with"
        best = yield self._candidate(
            architecture, self.micro_epochs, "baseline", step, guess=math.inf, parent=best
        )
        for field, choice in self.changes:
            architecture, best = yield from self._change(field, choice, architecture, best)
        if self.final_width == "macro":
            architecture = dataclasses.replace(architecture, width=width)
        return architecture

    def _grow(self) -> Generator[Candidate, Result, tuple[int, int, Result]]:
        """Deepen at full width. Returns the depth, the epochs reached, and the best result."""
        (depth, deepest), step = self.space.depth, self.space.depth_step
        width, epochs, strikes = self.space.width[1], self.epochs, 0
        bound = f"of at most {deepest}"
        best = yield self._candidate(
            self._uniform(depth, width), epochs, "depth", f"depth {depth} {bound}", guess=0.0
        )
        for tried in range(depth + step, deepest + 1, step):
            if self._has_learnt(best):
                break
            epochs += 1
            result = yield self._candidate(
                self._uniform(tried, width),
                epochs,
                "depth",
                f"depth {tried} {bound}, accepted {depth}",
                guess=best.value + self.gain,
                parent=best,
            )
            if _at_least(result.value, best.value + self.gain):
                best, depth, strikes = result, tried, 0
            elif not _at_least(result.value, best.value - self.drop):
                strikes += 1
                if strikes == self.strikes:
                    break
        return depth, epochs, best

    def _has_learnt(self, best: Result) -> bool:
        if best.number is None:
            return False  # A guess has not learnt anything.
        limit = self.stop_train_accuracy
        learnt = limit is not None and best.attrs.get(TRAIN_ACCURACY, 0.0) > limit + EPSILON
        return learnt or _at_least(best.value, self.target_accuracy)

    def _prune(
        self, depth: int, epochs: int, best: Result
    ) -> Generator[Candidate, Result, tuple[int, Result]]:
        """Narrow while accuracy holds. Returns the width and its result."""
        narrowest, width = self.space.width
        strikes = 0
        for tried in range(width - self.width_step, narrowest - 1, -self.width_step):
            epochs += 2
            step = f"width {tried} of at least {narrowest}, accepted {width}"
            result = yield self._candidate(
                self._uniform(depth, tried), epochs, "width", step, guess=best.value, parent=best
            )
            if _at_least(result.value, best.value):
                best, width, strikes = result, tried, 0
            else:
                strikes += 1
                if strikes == self.strikes:
                    break
        return width, best

    def _change(
        self, field: str, choice: Any, start: LayeredArchitecture, best: Result
    ) -> Generator[Candidate, Result, tuple[LayeredArchitecture, Result]]:
        """Try ``choice`` in one layer after the other, at the size of ``start``."""
        accepted = start
        limit = start.num_params(*self._shape) + self.params_tolerance
        layers, kept = len(start.kernels or ()), 0
        for layer in range(layers):
            choices = getattr(accepted, field)
            choices = (*choices[:layer], choice, *choices[layer + 1 :])
            fields: dict[str, Any] = {field: choices, "width": start.width}
            changed = _narrowed(dataclasses.replace(accepted, **fields), limit, *self._shape)
            step = f"{field}: {choice} in layer {layer + 1} of {layers}, accepted {kept}"
            result = yield self._candidate(
                changed, self.micro_epochs, field, step, guess=best.value, parent=best
            )
            if result.value > best.value + EPSILON:
                accepted, best, kept = changed, result, kept + 1
        return accepted, best

    def candidates(self, study: Study) -> list[tuple[int, LayeredArchitecture, float]]:
        """Trial number, architecture and value of what would be trained fully, best first.

        The found network comes first, with the trial that settled it; then the macro network.
        Before the end of the search, it is the best macro network so far.
        """
        replay = self.replay(self._history(study))
        macro: list[tuple[int, LayeredArchitecture, float]] = []
        micro: list[tuple[int, LayeredArchitecture, float]] = []
        baseline = None if self.micro else replay.conclusion
        for candidate, result in replay.path:
            architecture = self.space.from_params(candidate.params)
            if candidate.phase == "baseline":
                baseline = architecture
            if result.number is not None and not result.failed:
                phase = macro if candidate.phase in ("depth", "width") else micro
                phase.append((result.number, architecture, result.value))
        found = replay.conclusion
        if found is None:
            return sorted(macro, key=lambda trained: -trained[2])[:1]
        answer = [trained for trained in macro if trained[1] == baseline]
        if found == baseline:
            return answer
        # The micro search trained the found operations and kernels at a width of its own.
        settled = [
            (number, found, value)
            for number, tried, value in micro
            if (tried.operations, tried.kernels) == (found.operations, found.kernels)
        ]
        return settled[:1] + answer

    def outlook(self, study: Study, rng: np.random.Generator) -> Outlook:
        return MacroMicroOutlook(self, self.replay(self._history(study))).drawn(rng)

    def default_params(self) -> dict[str, Any]:
        depth, width = self.space.depth[1], self.space.width[1]
        params: dict[str, Any] = self.space.to_params(self._uniform(depth, width))
        return params | {"depth": self.space.depth[0], "epochs": self.epochs}

    def _candidate(
        self,
        architecture: LayeredArchitecture,
        epochs: int,
        phase: str,
        step: str,
        guess: float,
        parent: Result | None = None,
    ) -> Candidate:
        if self.evaluation == "static":
            epochs = self.epochs
        params = self.space.to_params(architecture) | {"epochs": epochs}
        if not self.inherit:
            return Candidate(params, phase=phase, guess=guess, step=step)
        if parent is None or parent.failed or parent.number is None:
            return Candidate(params, phase=phase, step=step)
        return Candidate(params, phase=phase, attrs={PARENT: parent.number}, step=step)

    def _uniform(self, depth: int, width: int) -> LayeredArchitecture:
        network: LayeredArchitecture = self.space.uniform(
            depth, width, self.operation, self.kernel
        )
        return network

    @property
    def _shape(self) -> tuple[int, ...]:
        """What parameters are counted for."""
        size = (self.space.size,) if isinstance(self.space, FaceSpace) else ()
        return (self.in_channels, self.classes, *size)


@functools.lru_cache(maxsize=4096)
def _narrowed(architecture: LayeredArchitecture, limit: int, *shape: int) -> LayeredArchitecture:
    """The widest network not wider than ``architecture`` with at most ``limit`` parameters.

    Width 1, if every width has more. The number of parameters grows with the width.
    """
    fitting, too_wide = 1, architecture.width + 1
    while too_wide - fitting > 1:
        width = (fitting + too_wide) // 2
        narrower = dataclasses.replace(architecture, width=width)
        if narrower.num_params(*shape) <= limit:
            fitting = width
        else:
            too_wide = width
    return dataclasses.replace(architecture, width=fitting)


def _at_least(accuracy: float, bound: float) -> bool:
    return accuracy > -math.inf and accuracy >= bound - EPSILON
