"""Hierarchical pruner: a training goes on from rung to rung if it ranks high enough there."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY
from typing import Annotated

from annotated_types import Gt, Le, MinLen
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas.samplers._options import Positive, check_options
from optnas.samplers._rungs import Rungs, write_rung
from optnas.samplers._turns import all_trials

EXCESS = 4
"""Trials by which the promoted share may be exceeded before the pruner becomes stricter."""

Share = Annotated[float, Gt(0), Le(1)]
Shares = Annotated[
    tuple[Share, ...], MinLen(1), "hold a share in (0, 1] for every rung but the last"
]


@dataclasses.dataclass(eq=False)
class HierarchicalPruner(BasePruner):
    """Pruner using the hierarchical proxy of *EcoNAS: Finding Proxies for Economical NAS*.

    A training has rungs: the paper's, at E, 2E and 3E epochs of one training schedule
    (``epochs=E``), or geometric ones, each ``factor`` times as far as the one before
    (``first=2, factor=3``: 2, 6 and 18 epochs). The last is the whole training. At every other
    it goes on if it ranks in the promoted share of the living trials that reached the same rung,
    itself included, and is pruned otherwise; the first to reach a rung always goes on. When four
    trials more than the share have gone on, only the upper half of the share does, so that a
    lucky order, or a search that keeps improving, does not promote nearly everything. Trials rank
    by their best accuracy so far; of equal ones the earlier ranks higher. Alive are the last
    ``max_age * cycle`` trials that reached the first rung.

    The decision is made at once, from what the storage holds, so that it needs no generations
    and works with any sampler and any number of workers. The rung that a trial has reached is
    written to it as the system attribute ``optnas:rung``. Nothing is read or written between
    rungs. The objective reports every epoch, counted from 1, and trains to the last rung.

    Geometric rungs find more at equal cost: on real learning curves, after what 20 and 80 full
    trainings cost, the pick was worse than 2.8 and 0.7 % of the networks with T/3, 2T/3 and T,
    and than 1.6 and 0.3 % with T/9, T/3 and T (``docs/measurements/search.md``). Where the first
    rung hardly ranks networks as the last does, after 31 batches for example, rungs find less.

    Source: Zhou et al., *EcoNAS*, section 4; for geometric rungs Li et al. 2020, *A System for
    Massively Parallel Hyperparameter Tuning*, algorithm 2.

    Example:

        .. code-block:: python

            study = optuna.create_study(
                direction="maximize",
                sampler=EcoNASSampler(CellSpace()),
                pruner=HierarchicalPruner(epochs=20),
            )

    Args:
        epochs: Epochs E from one rung to the next, as in the paper; or else ``first``.
        promote: The share of trials that goes on at each rung but the last; two shares make
            three rungs. Default: two, of 1/2 each in the paper's way, of ``1 / factor`` else.
        first: Epochs of the first of geometric rungs.
        factor: How many times further the next rung is; default 3 with ``first``.
        max_age: Cycles for which a trial stays alive.
        cycle: Number of trials in a cycle: the sum of the sampler's ``parents``.

    Raises:
        ValueError: If a number is below 1, a share is not in (0, 1], or the rungs are said both
            ways or neither, or do not ascend.

    Differences from the paper:
        The paper promotes the best 8 and 4 of a population at the end of every cycle of 16
        trials, older ones too. Here a trial is promoted when it arrives, or never; the shares
        give the same flow of 4 : 2 : 1. Age counts trials instead of cycles, and a promotion
        does not renew it: the rungs follow upon each other.
    """

    epochs: Positive | None = None
    promote: Shares | None = None
    _: KW_ONLY
    first: Positive | None = None
    factor: Annotated[float, Gt(1)] | None = None
    max_age: Positive = 10
    cycle: Positive = 16

    def __post_init__(self) -> None:
        check_options(self)
        if (self.epochs is None) == (self.first is None) or (self.epochs and self.factor):
            raise ValueError(
                "Say where the rungs are: `epochs` for E, 2E and so on, or `first` and `factor` "
                f"for geometric ones: epochs={self.epochs}, first={self.first}, "
                f"factor={self.factor}."
            )
        factor = self.factor or 3
        self._promote = self.promote or (1 / (factor if self.first else 2),) * 2
        number = len(self._promote) + 1
        self.rungs = (
            Rungs.geometric(self.first, factor, number)
            if self.first
            else Rungs.arithmetic(self.epochs or 1, number)
        )
        if len(set(self.rungs.epochs)) < number:
            raise ValueError(f"`factor` must lead to more epochs each time: {self.rungs.epochs}.")
        self.whole_training = self.rungs.epochs[-1]

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        rung = self.rungs.arrived(tuple(trial.intermediate_values))
        if rung is None:
            return False
        write_rung(study._storage, trial, rung)
        if rung > len(self._promote):
            return False
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        own = self._accuracy(trial, rung, sign)
        living = self._living(all_trials(study), trial)
        rivals = [rival for rival in living if self._reached(rival) >= rung]
        rank = sum(
            (accuracy := self._accuracy(rival, rung, sign)) > own
            or (accuracy == own and rival.number < trial.number)
            for rival in rivals
        )
        # The small number: 0.29 * 100 is below 29.
        places = max(1, math.floor(self._promote[rung - 1] * (len(rivals) + 1) + 1e-9))
        end = self.rungs.epochs[rung - 1]
        gone_on = sum(max(rival.intermediate_values) > end for rival in rivals)
        return 2 * rank >= places if gone_on >= places + EXCESS else rank >= places

    def mean_epochs(self, epochs: int) -> tuple[float, float]:
        """Between the promoted shares alone, and half as many again of who is lucky."""
        mean, share, before = 0.0, 1.0, 0
        for end, promoted in zip(self.rungs.epochs, (*self._promote, 0.0), strict=True):
            mean, share, before = mean + share * (end - before), share * promoted, end
        return mean, min(1.5 * mean, float(self.rungs.epochs[-1]))

    def _reached(self, trial: FrozenTrial) -> int:
        return self.rungs.reached(max(trial.intermediate_values, default=0))

    def _accuracy(self, trial: FrozenTrial, rung: int, sign: float) -> float:
        """The best report up to the rung, greater being better."""
        return max(
            (
                sign * value
                for step, value in trial.intermediate_values.items()
                if self.rungs.belongs(step, rung) and math.isfinite(value)
            ),
            default=-math.inf,
        )

    def _living(self, trials: Sequence[FrozenTrial], trial: FrozenTrial) -> Iterator[FrozenTrial]:
        """The last trials that reached the first rung, but for ``trial`` itself."""
        # Counted from the end, by what reached the rung: lost trials shift no one's age.
        alive = 1
        for rival in reversed(trials):
            if alive == self.max_age * self.cycle:
                return
            cut_off = rival.state in (TrialState.FAIL, TrialState.WAITING)
            if rival.number != trial.number and not cut_off and self._reached(rival) >= 1:
                alive += 1
                yield rival
