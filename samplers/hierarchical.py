"""Hierarchical pruner: a training goes on at E and 2E epochs if it ranks high enough there."""

import math
from collections.abc import Iterator, Sequence

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas.samplers._base import check_at_least
from optnas.samplers._turns import all_trials
from optnas.trials.attributes import RUNG

EXCESS = 4
"""Trials by which the promoted share may be exceeded before the pruner becomes stricter."""


class HierarchicalPruner(BasePruner):
    """Pruner using the hierarchical proxy of *EcoNAS: Finding Proxies for Economical NAS*.

    A training has three rungs, at E, 2E and 3E epochs, of one training schedule. At E and 2E it
    goes on if it ranks in the promoted share of the living trials that reached the same rung,
    itself included, and is pruned otherwise; the first to reach a rung always goes on. When four
    trials more than the share have gone on, only the upper half of the share does, so that a
    lucky order, or a search that keeps improving, does not promote nearly everything. Trials rank
    by their best accuracy so far; of equal ones the earlier ranks higher. Alive are the last
    ``max_age * cycle`` trials that reached the first rung.

    The decision is made at once, from what the storage holds, so that it needs no generations
    and works with any sampler and any number of workers. The rung that a trial has reached is
    written to it as the system attribute ``optnas:rung``. Nothing is read or written between
    rungs. The objective reports every epoch, counted from 1, and trains for 3E epochs.

    Source: Zhou et al., *EcoNAS*, section 4.

    Example:

        .. code-block:: python

            study = optuna.create_study(
                direction="maximize",
                sampler=EcoNASSampler(CellSpace()),
                pruner=HierarchicalPruner(epochs=20),
            )

    Args:
        epochs: Epochs E from one rung to the next.
        promote: The share of trials that goes on at each rung; two shares make three rungs.
        max_age: Cycles for which a trial stays alive.
        cycle: Number of trials in a cycle: the sum of the sampler's ``parents``.

    Raises:
        ValueError: If a number is below 1, or a share is not in (0, 1].

    Differences from the paper:
        The paper promotes the best 8 and 4 of a population at the end of every cycle of 16
        trials, older ones too. Here a trial is promoted when it arrives, or never; the shares
        give the same flow of 4 : 2 : 1. Age counts trials instead of cycles, and a promotion
        does not renew it: the rungs follow upon each other.
    """

    def __init__(
        self,
        epochs: int,
        promote: tuple[float, ...] = (1 / 2, 1 / 2),
        *,
        max_age: int = 10,
        cycle: int = 16,
    ) -> None:
        for name, value in {"epochs": epochs, "max_age": max_age, "cycle": cycle}.items():
            check_at_least(name, value, 1)
        if not promote or not all(0 < share <= 1 for share in promote):
            raise ValueError(
                f"`promote` must hold a share in (0, 1] for every rung but the last: {promote}."
            )
        self._epochs = epochs
        self.whole_training = (len(promote) + 1) * epochs
        self._promote = tuple(promote)
        self._lifetime = max_age * cycle

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        rung = self._arrived(trial)
        if rung is None:
            return False
        study._storage.set_trial_system_attr(trial._trial_id, RUNG, rung)
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
        gone_on = sum(max(rival.intermediate_values) > rung * self._epochs for rival in rivals)
        return 2 * rank >= places if gone_on >= places + EXCESS else rank >= places

    def _arrived(self, trial: FrozenTrial) -> int | None:
        """The rung reached with the last report, or None between rungs."""
        steps = sorted(trial.intermediate_values)[-2:]
        if not steps:
            return None
        rung = steps[-1] // self._epochs
        before = steps[0] // self._epochs if len(steps) == 2 else 0
        return rung if rung > before else None

    def _reached(self, trial: FrozenTrial) -> int:
        return max(trial.intermediate_values, default=0) // self._epochs

    def _accuracy(self, trial: FrozenTrial, rung: int, sign: float) -> float:
        """The best report up to the rung, greater being better."""
        return max(
            (
                sign * value
                for step, value in trial.intermediate_values.items()
                if step // self._epochs < rung or step == rung * self._epochs
                if math.isfinite(value)
            ),
            default=-math.inf,
        )

    def _living(self, trials: Sequence[FrozenTrial], trial: FrozenTrial) -> Iterator[FrozenTrial]:
        """The last trials that reached the first rung, but for ``trial`` itself."""
        # Counted from the end, by what reached the rung: lost trials shift no one's age.
        alive = 1
        for rival in reversed(trials):
            if alive == self._lifetime:
                return
            cut_off = rival.state in (TrialState.FAIL, TrialState.WAITING)
            if rival.number != trial.number and not cut_off and self._reached(rival) >= 1:
                alive += 1
                yield rival
