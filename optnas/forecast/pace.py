"""How long an epoch of a network takes, from those that were measured."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from scipy.optimize import nnls

from optnas.config.contract import Stretch, count_params, described, strategy_of
from optnas.spaces import Architecture, Space
from optnas.study.budget import trial_epochs
from optnas.study.opening import OpenStudy
from optnas.study.record import RECORD
from optnas.trials.attributes import PHASE, TRAIN_SECONDS

PRIOR = (0.1, 0.2, 0.5, 0.2)
"""Shares of a middling network's time that are believed beforehand: whatever it is, per layer, per
number that passes between layers, and per parameter."""
OFF = 1.25
"""How far the time of a network may be from what many others took, either way."""
FEW = 2
"""Of so many networks twice as far, as a logarithm."""
LATEST = 5
"""So many networks tell how fast the machine is now: others may have come, or gone."""
DRAWN, BEFOREHAND = 15, 2
"""Networks that are drawn from the space, and as how many trained ones they count."""
BELIEF = 0.3
"""How much that counts beside one measured network."""


@dataclasses.dataclass(frozen=True)
class Timed:
    """A network whose epochs were timed.

    Args:
        depth: Its layers; 1 where nobody counts them.
        params: Its parameters.
        seconds: Of an epoch.
    """

    depth: float
    params: float
    seconds: float

    @property
    def features(self) -> tuple[float, float, float, float]:
        """What its time depends on. A layer of w channels has about w squared parameters."""
        return (1.0, self.depth, math.sqrt(self.depth * self.params), self.params)


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds of an epoch, by network.

    Args:
        per_feature: Seconds for each of a network's features.
        per_layer: Seconds of a network without layers, and for each layer.
        typical: Seconds of a network that nobody knows.
        phases: Seconds and epochs of trials that train something else than a network of the
            space, by phase.
        shape: Channels of the images and number of classes.
        space: Of the networks.
        off: How far the time of a network may be from this, either way.
        seen: Networks that were timed; 0 where they were chosen to be timed.
        spread: How far apart their times are: the deviation of the logarithm.
    """

    per_feature: tuple[float, ...]
    per_layer: tuple[float, float]
    typical: float
    phases: Mapping[str, tuple[float, int]]
    shape: tuple[int, int]
    space: Space[Any] = dataclasses.field(repr=False)
    off: float = OFF
    seen: int = 0
    spread: float = 0.0

    def epoch(self, architecture: Architecture | None) -> float:
        """Seconds of an epoch of a network."""
        depth = described(architecture).depth
        if architecture is None:
            return self.typical
        params = count_params(self.space, architecture, *self.shape)
        if params is None and depth is None:
            return self.typical
        return self.of(depth or 1, params)

    def of(self, depth: float, params: float | None) -> float:
        """Seconds of an epoch of a network with so many layers, and parameters if known."""
        if params is None:
            return self.per_layer[0] + self.per_layer[1] * depth
        return float(np.dot(self.per_feature, Timed(depth, params, 0.0).features))

    def trial(self, trial: FrozenTrial, epochs: float) -> float:
        """Seconds of a trial that trains for so many epochs."""
        phase, params = trial.user_attrs.get(PHASE, ""), trial.user_attrs.get("params")
        if phase in self.phases:
            each, epochs = self.phases[phase]
            return epochs * each
        if not isinstance(params, int) or params <= 0:
            return epochs * self.epoch(self.space.named_by(trial))
        return epochs * self.of(described(self.space.named_by(trial)).depth or 1, params)

    def unsure(self, trials: int) -> float:
        """How far the mean of so many networks to come may be from that of those seen."""
        if not self.seen:
            return 1.0
        return math.exp(self.spread * math.sqrt(1 / max(trials, 1) + 1 / self.seen))

    def as_lately(self, timed: Sequence[Timed]) -> "Pace":
        """The same on a machine that is as fast as it was for these networks."""
        told = [float(np.dot(self.per_feature, each.features)) for each in timed]
        ratios = [each.seconds / t for each, t in zip(timed, told, strict=True) if t > 0]
        factor = float(np.exp(np.mean(np.log(ratios)))) if ratios else 1.0
        scaled = tuple(factor * seconds for seconds in self.per_feature)
        return dataclasses.replace(self, per_feature=scaled)

    def course(self, course: Iterable[Stretch], per_trial: float) -> float:
        """Seconds of a course.

        Args:
            course: What is trained.
            per_trial: Epochs of a trial, where the strategy leaves them open.
        """
        seconds = 0.0
        for stretch in course:
            if stretch.phase in self.phases:
                each, epochs = self.phases[stretch.phase]
                seconds += stretch.trials * epochs * each
            else:
                each = self.epoch(stretch.architecture)
                seconds += stretch.trials * (stretch.epochs or per_trial) * each
        return seconds


def fitted(
    timed: Sequence[Timed],
    typical: float,
    space: Space[Any],
    shape: tuple[int, int],
    phases: Mapping[str, tuple[float, int]] | None = None,
) -> Pace:
    """The pace of networks like these, one or more.

    Time grows with each of the features. What few networks leave open is as `PRIOR` says.
    """
    features = np.array([each.features for each in timed])
    seconds = np.array([each.seconds for each in timed])
    per_feature = _fit(features, seconds, PRIOR)
    base, layer = _fit(features[:, :2], seconds, (0.2, 0.8))
    return Pace(tuple(per_feature), (base, layer), typical, phases or {}, shape, space)


def _fit(
    features: NDArray[np.float64], seconds: NDArray[np.float64], prior: Sequence[float]
) -> list[float]:
    """Seconds for each feature, none negative; errors count by their share of a time."""
    middle, time = np.exp(np.log(features).mean(0)), np.exp(np.log(seconds).mean())
    rows = np.vstack([features / seconds[:, None], np.diag(middle / time) * BELIEF])
    weights, _ = nnls(rows, np.concatenate([np.ones(len(seconds)), np.array(prior) * BELIEF]))
    return [float(weight) for weight in weights]


def observed_pace(handle: OpenStudy) -> Pace | None:
    """The pace of the trials of a study; None if none has an epoch."""
    config, study = handle.config, handle.study
    special = strategy_of(study.sampler).phases or ()
    timed, phases = [], dict[str, tuple[float, int]]()
    for trial in study.get_trials(deepcopy=False):
        seconds = epoch_seconds(trial)
        if seconds is None:
            continue
        params, phase = trial.user_attrs.get("params"), trial.user_attrs.get(PHASE, "")
        if isinstance(params, int) and params > 0:
            architecture = config.search_space.named_by(trial)
            timed.append(Timed(described(architecture).depth or 1, params, seconds))
        elif phase in special:
            phases[phase] = (seconds, trial_epochs(trial))
    if not timed:
        return None
    fit = fitted(timed, 0.0, config.search_space, shape_of(handle), phases)
    # The fewer networks, the less is known of others.
    off = OFF ** (1 + FEW / len(timed))
    spread = float(np.std(np.log([each.seconds for each in timed])))
    typical = _typical(fit, timed)
    fit = dataclasses.replace(fit, typical=typical, off=off, seen=len(timed), spread=spread)
    return fit.as_lately(timed[-LATEST:])


def _typical(fit: Pace, timed: Sequence[Timed]) -> float:
    """Seconds of the networks to come: those of the latest, and of the space as far as few are."""
    # A search that gets on trains other networks than at its beginning.
    latest = timed[-max(LATEST, len(timed) // 2) :]
    seconds = [each.seconds for each in latest]
    rng = np.random.default_rng(0)
    drawn = [fit.space.random(rng) for _ in range(DRAWN)]
    if count_params(fit.space, drawn[0], *fit.shape) is not None:
        seconds += [float(np.mean([fit.epoch(network) for network in drawn]))] * BEFOREHAND
    return float(np.mean(seconds))


def epoch_seconds(trial: FrozenTrial) -> float | None:
    """Seconds of an epoch of a trial, or None if it has none."""
    epochs, seconds = trial_epochs(trial), trial.user_attrs.get(TRAIN_SECONDS)
    if not isinstance(seconds, (int, float)) or seconds <= 0 or epochs < 1:
        return None
    return float(seconds) / epochs


def shape_of(handle: OpenStudy) -> tuple[int, int]:
    """Channels of the images of a study, and number of classes."""
    record = handle.study.user_attrs[RECORD]
    return record["in_channels"], record["classes"]
