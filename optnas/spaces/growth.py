"""The space of networks that grow, a child from its parent."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import numpy as np
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState

from optnas.spaces.base import ParamValue, Space, proposal
from optnas.spaces.growth_architecture import (
    INPUTS,
    OPERATIONS,
    GrowthArchitecture,
    Increment,
    Mode,
)
from optnas.trials.attributes import ARCHITECTURE, PARENT
from optnas.trials.claims import is_feasible
from optnas.trials.lineage import ancestors, without_weights

GROWTH_SEED = "growth_seed"
"""Parameter: what the increments of a child are drawn with."""
INCREMENTS = "increments"
"""User attribute: number of increments that a child adds, where a sampler says it."""

_LARGEST = 2**31 - 1


class GrowthSpace(Space[GrowthArchitecture]):
    """Networks that grew from an initial one, a child from its parent by random increments.

    A trial's parameters are ``parent``, the number of the trial that the network grew from (-1:
    it is the initial network) and, unless that is -1, ``growth_seed``, which its increments are
    drawn with. They do not say the whole network: the user attribute ``architecture`` does.

    A parent must be complete and feasible, with weights to inherit. In the place of another the
    nearest one with a lower number is taken, the initial network if there is none; the user
    attribute ``parent`` says which one it was.

    Source: RandGrow, section 2.

    Differences from the paper: it leaves open whether an increment may take another of the same
    round; here it may not.

    Args:
        cells: Normal cells of each of the three blocks.
        channels: Channels of the first block.
        mode: ``"macro"``: every increment is for one cell; ``"cell"``: for all normal or for all
            reduction cells.

    Raises:
        ValueError: If a number is below 1 or the mode is unknown.
    """

    architecture_class: ClassVar[type[GrowthArchitecture]] = GrowthArchitecture
    inherits: ClassVar[bool] = True

    def __init__(self, cells: int = 6, channels: int = 32, mode: Mode = "macro") -> None:
        self._initial = GrowthArchitecture(cells, channels, mode)

    def __repr__(self) -> str:
        initial = self._initial
        return (
            f"{type(self).__name__}(cells={initial.cells}, channels={initial.channels}, "
            f"mode={initial.mode!r})"
        )

    def initial(self) -> GrowthArchitecture:
        """The network that all others grow from."""
        return self._initial

    def extremes(self) -> tuple[GrowthArchitecture, None]:
        return self._initial, None  # It grows for ever.

    def grow(
        self, parent: GrowthArchitecture, growth_seed: int, increments: int | None = None
    ) -> GrowthArchitecture:
        """A child of ``parent``: the same for the same arguments.

        Targets are uniform over the cells of the initial network. The first input of an increment
        is the cell before; the two others are uniform, with replacement, over all layers of the
        parent before the target. Operations are uniform.

        Args:
            parent: An architecture of this space.
            growth_seed: Seed of the draws.
            increments: How many are added, at least 1. Default: as many as there are cells. In
                mode ``"cell"``: how many to each kind of cell, 1 by default.

        Raises:
            ValueError: If there is nothing to add, or the parent is of another space.
        """
        initial = self._initial
        if not self._holds(parent):
            raise ValueError(f"The parent must be an architecture of {self!r}: {parent}.")
        if increments is not None and increments < 1:
            raise ValueError(f"`increments` must be greater than or equal to 1: {increments}.")
        rng = np.random.default_rng(growth_seed)
        if initial.mode == "cell":
            targets = [target for target in initial.targets for _ in range(increments or 1)]
        else:
            number = increments or initial.depth
            targets = [int(t) for t in rng.integers(1, initial.depth, number, endpoint=True)]
        added = tuple(_drawn(parent, target, rng) for target in targets)
        return dataclasses.replace(parent, increments=parent.increments + added)

    def mutate(
        self, architecture: GrowthArchitecture, rng: np.random.Generator
    ) -> GrowthArchitecture:
        """A child of ``architecture``."""
        return self.grow(architecture, int(rng.integers(_LARGEST, endpoint=True)))

    def random_params(self, rng: np.random.Generator) -> dict[str, ParamValue]:
        """Those of the initial network, which needs no other trial."""
        return {PARENT: -1}

    def mutated_params(
        self, trial: FrozenTrial, rng: np.random.Generator
    ) -> dict[str, ParamValue]:
        """Those of a child that ``trial`` is the parent of."""
        return {
            PARENT: trial.number,
            GROWTH_SEED: int(rng.integers(_LARGEST, endpoint=True)),
        }

    def suggest(self, trial: BaseTrial) -> GrowthArchitecture:
        """Suggest the parameters of a network and record the network on ``trial``.

        Raises:
            ValueError: If there is a parent, but no study that it could be read from.
        """
        proposed = proposal(trial).get(PARENT, -1)
        # A proposed parent may be younger than a trial that waited for its turn.
        highest = max(trial.number - 1, proposed) if isinstance(trial, Trial) else _LARGEST
        parent = trial.suggest_int(PARENT, -1, highest)
        architecture = self._initial
        if parent >= 0:
            growth_seed = trial.suggest_int(GROWTH_SEED, 0, _LARGEST)
            if not isinstance(trial, Trial):
                raise ValueError(
                    f"The parent, trial {parent}, is read from a study, but a "
                    f"{type(trial).__name__} has none: use `parent=-1`, or `from_trial`."
                )
            parent, architecture = self._child(trial, parent, growth_seed)
        trial.set_user_attr(PARENT, parent)
        trial.set_user_attr(ARCHITECTURE, architecture.to_json())
        return architecture

    def _child(
        self, trial: Trial, parent: int, growth_seed: int
    ) -> tuple[int, GrowthArchitecture]:
        """Number of the parent that is taken, and the network."""
        study_id = trial.study._study_id
        trials = trial.storage.get_all_trials(study_id, deepcopy=False)
        for lost in ancestors(trials, trial):
            if ARCHITECTURE in lost.user_attrs:
                # What was being trained goes on, whatever became of its parent.
                return lost.user_attrs[PARENT], self.from_trial(lost)
        gone = without_weights(trial.storage, study_id)
        for other in reversed(trials[: parent + 1]):
            if (
                other.state == TrialState.COMPLETE
                and other.number not in gone
                # What breaks a limit was never trained.
                and is_feasible(other)
                and self.is_said_by(other)
            ):
                increments = trial.user_attrs.get(INCREMENTS)
                return other.number, self.grow(self.from_trial(other), growth_seed, increments)
        return -1, self._initial

    def to_params(self, architecture: GrowthArchitecture) -> NoReturn:
        """Not possible: the parameters name a trial of a study."""
        raise NotImplementedError(
            "A network that grew has no parameters outside its study: store `to_json()`."
        )

    def from_params(self, params: Mapping[str, Any]) -> NoReturn:
        """Not possible: the parameters name a trial of a study."""
        raise NotImplementedError(
            "The parameters of a network that grew name only its parent: use `from_trial`."
        )

    def from_trial(self, trial: FrozenTrial) -> GrowthArchitecture:
        text = trial.user_attrs.get(ARCHITECTURE)
        if not isinstance(text, str):
            raise ValueError(
                f"Trial {trial.number} has no user attribute `{ARCHITECTURE}`: its objective did "
                "not call `suggest`, or did not get so far."
            )
        return _parsed(text)

    def is_said_by(self, trial: FrozenTrial) -> bool:
        """Whether a trial names an architecture of this space: people may add any trial."""
        try:
            return self._holds(self.from_trial(trial))
        except (ValueError, RecursionError):  # Of JSON that is nested too deeply.
            return False

    def _holds(self, architecture: GrowthArchitecture) -> bool:
        return dataclasses.replace(architecture, increments=()) == self._initial

    def distributions(self) -> dict[str, BaseDistribution]:
        return {
            PARENT: IntDistribution(-1, _LARGEST),
            GROWTH_SEED: IntDistribution(0, _LARGEST),
        }

    def random(self, rng: np.random.Generator) -> GrowthArchitecture:
        """The initial network after up to three rounds of growth, each number equally likely."""
        architecture = self._initial
        for _ in range(int(rng.integers(4))):
            architecture = self.grow(architecture, int(rng.integers(_LARGEST, endpoint=True)))
        return architecture


def _drawn(parent: GrowthArchitecture, target: int, rng: np.random.Generator) -> Increment:
    layers = parent.layers_before(target)
    second, third = (layers[int(i)] for i in rng.integers(len(layers), size=2))
    a, b, c = (OPERATIONS[int(i)] for i in rng.integers(len(OPERATIONS), size=INPUTS))
    return Increment(target, (parent.predecessor(target), second, third), (a, b, c))


@functools.lru_cache(maxsize=32)
def _parsed(text: str) -> GrowthArchitecture:
    """The architecture that ``text`` says. A deep one takes milliseconds, again and again."""
    return GrowthArchitecture.from_json(text)
