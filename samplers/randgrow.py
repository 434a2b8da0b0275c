"""RandGrow: grow the most cost-efficient networks at random, from their parents' weights."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas.errors import UserError
from optnas.hull import lower_hull, parent_probabilities
from optnas.samplers._base import StrategySampler
from optnas.samplers._batches import Candidate, Step
from optnas.samplers._history import History, Result
from optnas.samplers._options import Count, Positive
from optnas.samplers._outlook import Course
from optnas.samplers._randgrow_outlook import LATEST, Grown, RandGrowOutlook
from optnas.spaces import GrowthArchitecture, GrowthSpace
from optnas.spaces.growth import GROWTH_SEED, INCREMENTS
from optnas.trials.attributes import ARCHITECTURE, MULTIPLY_ADDS, PARENT
from optnas.trials.claims import Claim
from optnas.trials.failures import is_lost
from optnas.trials.hull import cost_of, hull_of, remembered_hull
from optnas.trials.lineage import parent_of

# With the names that version 0.1.0 had here.
__all__ = [
    "MULTIPLY_ADDS",
    "RandGrowSampler",
    "hull_of",
    "lower_hull",
    "parent_probabilities",
]


_GROWTH_SEEDS = 2**31


@dataclasses.dataclass(frozen=True)
class FinishedNetwork:
    """What counts of a finished trial.

    Args:
        trial: The trial.
        point: Its multiply-adds and its value.
        may_grow: Whether it may have children, if its weights exist.
    """

    trial: FrozenTrial
    point: tuple[float, float]
    may_grow: bool


@dataclasses.dataclass(eq=False)
class RandGrowSampler(StrategySampler[GrowthArchitecture]):
    """Sampler using RandGrow, of *Macro Neural Architecture Search Revisited*.

    The first trial trains the initial network, and every other worker waits for it. Each later
    trial is a child: a parent is drawn from the finished networks on the lower convex hull of cost
    against error, and increments are added to it at random. The most accurate network is drawn
    with ``best_probability``, the others in proportion to the gap in cost to the next one. The
    search has no end of its own.

    A child starts from its parent's weights, so that a parent is a complete trial whose weights
    exist. If none is left, the initial network is trained again, at most ``max_retries`` times.
    The search ends if the initial network fails, is pruned, or may have no children.

    The objective suggests the parameters of the space, ``parent`` (a trial's number; -1 for the
    initial network) and ``growth_seed``, and records the user attribute ``multiply_adds``, the
    cost; its value is the held-out accuracy, a fraction. Where the trial comes from is in its user
    attributes: ``parent``, ``architecture`` and, if the sampler says so, ``increments``.

    Source: Hu, Langford, Caruana, Horvitz and Dey, *Macro Neural Architecture Search Revisited*,
    section 2.

    Example:

        .. code-block:: python

            sampler = RandGrowSampler(GrowthSpace(cells=6, channels=32))
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.optimize(objective, n_trials=100)
            print(sampler.found(study))

    Args:
        space: The space of networks that grow.
        increments: Increments that a child adds; in cell search, to each kind of cell. None adds
            as many as the initial network has cells; in cell search, one.
        best_probability: Probability with which the most accurate network is the parent, while
            there are others on the hull.
        max_growths: Rounds of growth after which a network has no children; None for no limit.
        max_cost: Multiply-adds beyond which a network has no children; None for no limit.

    Raises:
        TypeError: If ``space`` is not a space of networks that grow.
        ValueError: If a number is out of range.
        UserError: Later, if the initial network's trial does not have the attributes named above.

    Differences from the paper:
        The probabilities of all but the most accurate network sum to the rest, which the paper
        leaves open; a point on the line between two others is not on the hull. Cost is counted in
        multiply-adds. A child's increments are drawn with a seed that its trial records. The
        initial network is trained as any other, on the training images alone: the paper trains it
        as a final model, and its children would have seen the validation images. Images are
        normalised per channel, not per pixel.
    """

    searches = (GrowthSpace,)

    space: GrowthSpace
    _: KW_ONLY
    increments: Positive | None = None
    best_probability: Annotated[float, Ge(0), Le(1), "be a probability, from 0 to 1"] = 0.5
    max_growths: Positive | None = None
    max_cost: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._read: dict[int, FinishedNetwork] = {}

    @property
    def has_end(self) -> bool:
        return False

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        initial = Candidate({PARENT: -1}, phase="initial", step="the initial network")
        result = history.result(initial.params)
        if result is None:
            return Step.WAIT if history.is_running(initial.params) else initial
        _check_recorded(history, result)
        hull = self._hull(history)
        if hull:
            return self._child(hull, history.claims, rng)
        if history.waits:
            return Step.WAIT
        return initial if self._begins_again(history) else Step.DONE

    def candidates(self, study: Study) -> list[tuple[int, GrowthArchitecture, float]]:
        """Trial number, architecture and value of the finished networks, best first."""
        trained: dict[GrowthArchitecture, FrozenTrial] = {}
        for trial in self._ranked(self._history(study)):
            trained.setdefault(self.space.from_trial(trial), trial)
        return [(trial.number, a, trial.values[0]) for a, trial in trained.items()]

    def weights_needed(self, study: Study) -> Collection[int]:
        """The hull: one of these trials is the parent of the next child."""
        return self.parent_probabilities(study).keys()

    def parent_probabilities(self, study: Study) -> dict[int, float]:
        """The trials on the hull, by cost, and with which probability each is the next parent."""
        hull = self._hull(self._history(study))
        numbers = [network.trial.number for network in hull]
        return dict(zip(numbers, self._probabilities(hull).tolist(), strict=True))

    def ways_ahead(self, study: Study, number: int, rng: np.random.Generator) -> Sequence[Course]:
        """Children of the hull and of their children, each a little better than its parent."""
        history = self._history(study)
        values = {each.trial.number: each.point[1] for each in self._networks(history)}
        pairs = [
            (values.get(parent_of(history.trials[child]) or 0), values[child])
            for child in list(values)[-LATEST:]
            if parent_of(history.trials[child]) is not None
        ]
        parents = [
            Grown(
                self.space.from_trial(each.trial),
                *each.point,
                _growths(history.trials, each.trial),
            )
            for each in self._hull(history)
        ]
        ahead = RandGrowOutlook(
            self.space,
            self.increments,
            lambda costs: parent_probabilities(costs, self.best_probability),
            self._may_have_children,
        )
        return ahead.drawn(parents, pairs, number, rng)

    def _hull(self, history: History) -> list[FinishedNetwork]:
        """The networks that the next child's parent is drawn from, by cost."""
        gone = history.without_weights
        networks = self._networks(history)
        parents = [each for each in networks if each.may_grow and each.trial.number not in gone]
        # One decision after the other asks for the same hull.
        return [parents[i] for i in remembered_hull(tuple([each.point for each in parents]))]

    def _networks(self, history: History) -> list[FinishedNetwork]:
        """What counts of every result: found out once for each, as finished trials stay."""
        networks = []
        for result in history.results:
            assert result.number is not None  # Only guesses have none.
            network = self._read.get(result.number)
            if network is None or network.trial is not history.trials[result.number]:
                network = self._read[result.number] = self._network(history.trials, result)
            networks.append(network)
        return networks

    def _network(self, trials: Sequence[FrozenTrial], result: Result) -> FinishedNetwork:
        assert result.number is not None
        trial = trials[result.number]
        cost = cost_of(trial)
        may_grow = (
            self._is_trained(trial, result)
            and cost is not None
            and self._may_have_children(cost, _growths(trials, trial))
        )
        return FinishedNetwork(trial, (cost or 0.0, result.value), may_grow)

    def _may_have_children(self, cost: float, growths: int) -> bool:
        return (self.max_cost is None or cost <= self.max_cost) and (
            self.max_growths is None or growths < self.max_growths
        )

    def _child(
        self, hull: Sequence[FinishedNetwork], number: int, rng: np.random.Generator
    ) -> Candidate:
        parent = hull[rng.choice(len(hull), p=self._probabilities(hull))].trial.number
        attrs = {PARENT: parent}
        if self.increments is not None:
            attrs[INCREMENTS] = self.increments
        params = {PARENT: parent, GROWTH_SEED: int(rng.integers(_GROWTH_SEEDS))}
        step = f"child {number}, of trial {parent}"
        return Candidate(params, phase="growth", attrs=attrs, step=step)

    def _probabilities(self, hull: Sequence[FinishedNetwork]) -> NDArray[np.floating]:
        return parent_probabilities([network.point[0] for network in hull], self.best_probability)

    def _is_trained(self, trial: FrozenTrial, result: Result) -> bool:
        """Whether a trial is complete, feasible, and says what its network is."""
        complete = trial.state == TrialState.COMPLETE and math.isfinite(result.value)
        return complete and self.space.is_said_by(trial)

    def _ranked(self, history: History) -> list[FrozenTrial]:
        """The finished networks, best first, then by number."""
        ranked = sorted(history.results, key=lambda result: -result.value)
        trials = [(history.trials[r.number], r) for r in ranked if r.number is not None]
        return [trial for trial, result in trials if self._is_trained(trial, result)]

    def _begins_again(self, history: History) -> bool:
        """Whether the initial network lacks nothing but its weights, and may be trained again."""
        attempts = _attempts_at_initial(history)
        may_grow = {each.trial.number for each in self._networks(history) if each.may_grow}
        return len(attempts) <= self.max_retries and not may_grow.isdisjoint(attempts[-1:])


def _growths(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """Rounds of growth since the initial network."""
    parent, growths = parent_of(trial), 0
    # Somebody's own trial may name one that does not exist, or itself.
    while parent is not None and parent < len(trials) and growths < len(trials):
        parent, growths = parent_of(trials[parent]), growths + 1
    return growths


def _attempts_at_initial(history: History) -> list[int]:
    """The trials that trained the initial network, whatever came of it, but for lost ones."""
    attempts = []
    for number, trial in enumerate(history.trials):
        claim = Claim.of(trial)
        params = trial.params or (claim.params if claim else {})
        if params.get(PARENT) == -1 and trial.state.is_finished() and not is_lost(trial):
            attempts.append(number)
    return attempts


def _check_recorded(history: History, result: Result) -> None:
    """Raise UserError if the initial network is complete, but does not say what parents must."""
    if result.number is None or result.failed:
        return
    trial = history.trials[result.number]
    recorded = ARCHITECTURE in result.attrs and cost_of(trial) is not None
    if trial.state == TrialState.COMPLETE and not recorded:
        raise UserError(
            f"Trial {result.number} must have the user attributes `{ARCHITECTURE}`, which the "
            f"space's `suggest` writes, and `{MULTIPLY_ADDS}`, a number, which the objective must "
            "write, as `classification` does."
        )
