"""How accurate a search's next networks may be, given those so far: to imagine how it goes on."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWN = 4000
"""Ways of learning that are drawn, before those are chosen that fit what is known."""
LEFT = 100
"""As how many of them the chosen ones must at least count."""
SHARE_OFF = 0.2
"""How far the training error is from a part of the error."""
OFF_AT_FIRST = 0.1
"""How far the first network's error is from the formula, as the logarithm of a factor."""
FINEST = 1e-4
"""The least difference of accuracies that is believed: that of ten thousand images."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network that was trained.

    Args:
        depth: Its layers, relative to the first network's.
        width: Its channels, relative to the first network's.
        epochs: Its epochs, relative to the first network's.
        value: Its accuracy, a fraction.
        train_accuracy: That on the training images, a fraction; None if nobody knows.
    """

    depth: float
    width: float
    epochs: float
    value: float
    train_accuracy: float | None = None


@dataclasses.dataclass(frozen=True)
class Learning:
    """A way in which the error of a network may depend on its size and its epochs.

    The error is ``floor + slope * epochs^-a * depth^-b * width^-c``, all relative to the first
    network. No network learns quite as the formula says: its error is ``exp(off)`` times as large,
    where ``off`` wanders from one network to the next. What is measured is off by ``noise`` too,
    as a count of wrong images is, which the next network does not inherit. The training error is
    a part of the error.
    """

    floor: float
    slope: float
    by_epochs: float
    by_depth: float
    by_width: float
    noise: float
    wandering: float
    training_share: float
    off: float

    def error(self, depth: float, width: float, epochs: float) -> float:
        """The error of a network by the formula."""
        powers = epochs**-self.by_epochs * depth**-self.by_depth * width**-self.by_width
        return float(self.floor + self.slope * powers)

    def next(self, rng: np.random.Generator) -> "Learning":
        """The same for the network after this one."""
        return dataclasses.replace(self, off=self.off + self.wandering * rng.standard_normal())

    def judged(
        self, depth: float, width: float, epochs: float, grain: float, rng: np.random.Generator
    ) -> tuple[float, float]:
        """Accuracy and training accuracy of a network, as they may be measured.

        Args:
            depth: Its layers, relative to the first network's.
            width: Its channels, likewise.
            epochs: Its epochs, likewise.
            grain: What accuracies are multiples of: equal ones decide.
            rng: Draws the noise.
        """
        error = self.error(depth, width, epochs) * math.exp(self.off)
        measured = 1 - error - self.noise * float(_luck(error)) * rng.standard_normal()
        value = float(np.clip(round(measured / grain) * grain, 0, 1))
        return value, float(1 - self.training_share * error)


def grain_of(known: Sequence[Trained]) -> float:
    """What the accuracies are multiples of: a validation image, or some at the beginning."""
    grain = 1.0
    for each in known:
        other = each.value
        while other > FINEST / 2:  # Euclid's algorithm, for numbers that are nearly multiples.
            grain, other = other, grain % other
        grain = 1 / round(1 / grain)
    return FINEST if grain == 1 else max(grain, FINEST)


def likely_ways(known: Sequence[Trained], number: int, rng: np.random.Generator) -> list[Learning]:
    """Ways of learning that fit what is known, each as often as it is likely.

    Args:
        known: What was trained so far.
        number: How many ways.
        rng: Draws them.
    """
    ways = _drawn(rng)
    fit, off, spread = np.zeros(DRAWN), np.zeros(DRAWN), np.full(DRAWN, OFF_AT_FIRST)
    for each in known:
        powers = (
            each.epochs ** -ways["by_epochs"]
            * each.depth ** -ways["by_depth"]
            * each.width ** -ways["by_width"]
        )
        # How far it is off, by an extended Kalman filter for every way.
        spread = np.hypot(spread, ways["wandering"])
        error = (ways["floor"] + ways["slope"] * powers) * np.exp(off)
        noise = ways["noise"] * _luck(error)
        likely = np.hypot(error * spread, noise)
        surprise = 1 - each.value - error
        fit -= (surprise / likely) ** 2 / 2 + np.log(likely)
        off = off + error * (spread / likely) ** 2 * surprise
        spread = spread * noise / likely
        if each.train_accuracy is not None:
            share = (1 - each.train_accuracy) / np.maximum(error, 1e-3)
            fit -= ((share - ways["training_share"]) / SHARE_OFF) ** 2 / 2
    chosen = rng.choice(DRAWN, number, p=_weights(fit))
    ways["off"] = off + spread * rng.standard_normal(DRAWN)
    return [Learning(**{name: float(of[i]) for name, of in ways.items()}) for i in chosen]


def _luck(error: Any) -> Any:
    """The deviation of what one image tells of an error."""
    likely = np.clip(error, FINEST, 1 - FINEST)
    return np.sqrt(likely * (1 - likely))


def _weights(fit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of ways that fit so well, flattened until enough of them are left."""
    while True:
        weights = np.exp(fit - fit.max())
        weights /= weights.sum()
        if 1 / np.sum(weights**2) >= LEFT:
            return np.asarray(weights)
        fit = fit * 0.8


def _drawn(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Ways of learning of which nothing is known."""
    first = np.exp(rng.uniform(np.log(0.02), np.log(0.9), DRAWN))
    floor = first * rng.uniform(0, 0.7, DRAWN)
    return {
        "floor": floor,
        "slope": first - floor,
        "by_epochs": rng.uniform(0.2, 1.5, DRAWN),
        "by_depth": rng.uniform(-0.4, 1.2, DRAWN),
        "by_width": rng.uniform(0.0, 0.6, DRAWN),
        # Of some hundred to some thousand validation images, and of initial weights.
        "noise": np.exp(rng.uniform(np.log(0.01), np.log(0.08), DRAWN)),
        "wandering": np.exp(rng.uniform(np.log(0.02), np.log(0.3), DRAWN)),
        "training_share": rng.uniform(0.1, 1.2, DRAWN),
    }
