"""What is said of the time left of searches that are simulated: by a clock of their own.

    python benchmarks/forecast_simulated.py [--only NAME ...] [--output FILE] [--show]

Nothing is trained. Three macro-micro searches have the accuracies that their authors published;
those of the others are made up. An epoch takes as long as its network's multiply-adds and layers
say, and up to a fifth more or less; the first one longer. The strategies, the studies and the
display are the real ones: what the display would have said, at 60 moments of every search, is set
beside what was left then. Takes some minutes of one core.
"""

import argparse
import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from _simulated import Simulated, Training
from forecast import DURING, MOSTLY, during, held, moments_of
from optuna.trial import Trial

from optnas.config.contract import count_params, described, strategy_of
from optnas.config.file import study_from_dict
from optnas.seeds import derive_seed
from optnas.study.opening import OpenStudy
from optnas.study.unstored import unstored
from optnas.trials.attributes import (
    MULTIPLY_ADDS,
    STAGE_IMPORTANCE,
)

TRACES = Path(__file__).parents[1] / "tests" / "data" / "macro_micro_traces.json"
MOMENTS = 60
"""Moments of a search at which it is asked what is left, about."""
OFF = 0.1
"""How far the time of a network is from what it should be: the deviation of its logarithm."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """How long an epoch takes.

    Args:
        per_multiply_add: Seconds for a billion multiply-adds of an image.
        per_layer: Seconds for a layer.
        first: How many times as long the first epoch of a run takes.
    """

    per_multiply_add: float
    per_layer: float
    first: float = 1.5

    def epoch(self, multiply_adds: float, depth: int) -> float:
        """Seconds of an epoch."""
        return 5 + self.per_multiply_add * multiply_adds / 1e9 + self.per_layer * depth


BUSY_CORES = Machine(per_multiply_add=3000, per_layer=1)
"""What it takes grows with multiply-adds, as on a CPU."""
IDLE_GPU = Machine(per_multiply_add=100, per_layer=5)
"""What it takes grows with layers: their kernels are started one by one."""


class Made:
    """Trainings of the networks of a study, of made-up accuracy.

    Args:
        handle: The study.
        machine: How long epochs take.
        pixels: Of an image's side.
        seed: Of all that is drawn.
    """

    def __init__(self, handle: OpenStudy, machine: Machine, pixels: int, seed: int) -> None:
        self._config = handle.config
        self._machine = machine
        record = handle.study.user_attrs["optnas"]
        self._shape = (record["in_channels"], pixels, pixels)
        self._classes = record["classes"]
        self._seed = seed

    def __call__(self, trial: Trial) -> Training:
        network = self._config.search_space.suggest(trial)
        epochs = self._config.train.epochs
        if strategy_of(trial.study.sampler).sets_epochs:
            epochs = trial.suggest_int("epochs", 1, 10_000)
        assert epochs is not None
        rng = np.random.default_rng(derive_seed("simulated", self._seed, trial.number))
        params, multiply_adds = self._counted(network)
        depth = described(network).depth or 10
        each = self._machine.epoch(multiply_adds, depth) * math.exp(OFF * rng.standard_normal())
        times = [each * rng.uniform(0.95, 1.05) for _ in range(epochs)]
        if trial.number == 0:
            times[0] *= self._machine.first
        accuracies, train_accuracy = self._accuracies(trial, network, params, epochs, rng)
        attrs: dict[str, Any] = {"params": params, MULTIPLY_ADDS: multiply_adds}
        if hasattr(network, "modules"):
            attrs[STAGE_IMPORTANCE] = [float(10 * rng.random()) for _ in network.modules]
        return Training(tuple(accuracies), tuple(times), attrs, train_accuracy)

    def _accuracies(
        self, trial: Trial, network: Any, params: int, epochs: int, rng: np.random.Generator
    ) -> tuple[list[float], float]:
        """The larger a network and the longer its training, the better; 1,000 images judge it."""
        final = 0.02 + 0.4 * (params / 1000) ** -0.35 * math.exp(0.1 * rng.standard_normal())
        errors = [min(0.9, final * (1 + 2 * (epoch + 1) ** -0.7)) for epoch in range(epochs)]
        right = [rng.binomial(1000, 1 - error) / 1000 for error in errors]
        return right, 1 - 0.6 * errors[-1]

    def _counted(self, network: Any) -> tuple[int, float]:
        """Parameters and multiply-adds."""
        known = count_params(self._config.search_space, network, self._shape[0], self._classes)
        return _counted(network, self._shape, self._classes, known)


class Published(Made):
    """Trainings of a published search: its accuracies."""

    def __init__(self, handle: OpenStudy, machine: Machine, name: str, seed: int) -> None:
        super().__init__(handle, machine, 28 if "MNIST" in name else 32, seed)
        evaluations = json.loads(TRACES.read_text())[name]["evaluations"]
        self._known = {_key(**each): each for each in evaluations}

    def _accuracies(
        self, trial: Trial, network: Any, params: int, epochs: int, rng: np.random.Generator
    ) -> tuple[list[float], float]:
        conv = [n for n, operation in enumerate(network.operations) if operation == "conv"]
        k5 = [n for n, kernel in enumerate(network.kernels) if kernel == 5]
        known = self._known.get(_key(network.depth, network.width, epochs, conv, k5))
        if known is None:  # Several workers train what the search did not ask for.
            return super()._accuracies(trial, network, params, epochs, rng)
        value = known["val_acc"] / 100
        return [value] * epochs, known["train_acc"] / 100


def _key(depth: int, width: int, epochs: int, conv: Any, k5: Any, **_: Any) -> Any:
    return depth, width, epochs, tuple(conv), tuple(k5)


@functools.cache
def _counted(
    network: Any, shape: tuple[int, int, int], classes: int, known: int | None
) -> tuple[int, float]:
    from optnas.objectives.networks.build import build_on_meta, count_params, forward_costs

    model = build_on_meta(network, shape, classes)
    return known or count_params(model), forward_costs(model, shape).multiply_adds


@dataclasses.dataclass(frozen=True)
class Case:
    """A search to simulate.

    Args:
        keys: What its study file says.
        machine: What trains it.
        published: The name of the published search; None makes accuracies up.
        pixels: Of an image's side.
        workers: How many train.
        halves: Whether it is stopped in the middle and goes on in another run.
        seed: Of all that is drawn.
    """

    keys: dict[str, Any]
    machine: Machine = BUSY_CORES
    published: str | None = None
    pixels: int = 32
    workers: int = 1
    halves: bool = False
    seed: int = 0

    def _simulated(self) -> tuple[OpenStudy, Callable[[Trial], Training]]:
        name = self.published or ""
        keys = {"study": "simulated", "data": "digits", "seed": self.seed, **self.keys}
        handle = unstored(
            study_from_dict(keys, Path.cwd()),
            in_channels=1 if "MNIST" in name else 3,
            classes=100 if "CIFAR100" in name else 10,
        )
        if self.published:
            return handle, Published(handle, self.machine, name, self.seed)
        return handle, Made(handle, self.machine, self.pixels, self.seed)

    def found(self) -> dict[str, Any]:
        """How long it took, and what was said."""
        whole = Simulated(*self._simulated(), self.workers)
        whole.run()
        every = whole.seconds / MOMENTS
        handle, training = self._simulated()
        if self.halves:
            Simulated(handle, training, self.workers).run(most=whole.seconds / 2)
        search = Simulated(handle, training, self.workers)
        moments = search.run(every)
        return {
            "seconds": search.seconds,
            "trials": len(handle.study.trials),
            "moments": [dataclasses.asdict(moment) for moment in moments],
        }


def published(name: str, **keys: Any) -> Case:
    """A published macro-micro search."""
    widest = json.loads(TRACES.read_text())[name]["w_max"]
    space = {"name": "chain", "depth": [10, 100], "width": [16, widest]}
    return Case({"space": space, "sampler": "macro_micro"}, published=name, **keys)


_CHAIN = {"name": "chain", "depth": [2, 12], "width": [8, 32]}
_GROWTH = {"name": "growth", "cells": 3, "channels": 8}
CASES = {
    "macro_micro, CIFAR-10": published("CIFAR10-tiny"),
    "macro_micro, CIFAR-100": published("CIFAR100-tiny"),
    "macro_micro, Fashion-MNIST": published("FashionMNIST-mobile"),
    "macro_micro, CIFAR-10, per layer": published("CIFAR10-tiny", machine=IDLE_GPU, seed=1),
    "macro_micro, CIFAR-100, two runs": published("CIFAR100-tiny", halves=True, seed=2),
    "macro_micro, Fashion-MNIST, 4 workers": published("FashionMNIST-mobile", workers=4, seed=3),
    "macro_micro, made up": Case(
        {"space": _CHAIN, "sampler": {"name": "macro_micro", "epochs": 4}}, seed=4
    ),
    "macro_micro, made up, per layer": Case(
        {"space": _CHAIN, "sampler": {"name": "macro_micro", "epochs": 2, "micro_epochs": 4}},
        machine=IDLE_GPU,
        seed=5,
    ),
    "random, 4 workers": Case(
        {
            "space": _CHAIN,
            "sampler": "random",
            "train": {"epochs": 10},
            "budget": {"trials": 50},
        },
        workers=4,
    ),
    "regularized_evolution, epochs": Case(
        {
            "space": _CHAIN,
            "sampler": "regularized_evolution",
            "train": {"epochs": 5},
            "budget": {"epochs": 150},
        },
    ),
    "econas, rungs": Case(
        {
            "space": "cell",
            "sampler": {"name": "econas", "initial": 12, "cycles": 3},
            "pruner": {"name": "hierarchical", "epochs": 2},
            "train": {"epochs": 6},
        },
    ),
    "stage_wise": Case(
        {
            "space": {"name": "stage", "stages": 3, "block": "basic"},
            "sampler": {"name": "stage_wise", "initial": 2, "growth": 1, "iterations": 5},
            "objective": "stage_classification",
            "train": {"epochs": 20},
        },
    ),
    "randgrow": Case(
        {
            "space": _GROWTH,
            "sampler": "randgrow",
            "train": {"epochs": 10},
            "budget": {"trials": 20},
        },
    ),
    "randgrow, hours, 2 workers": Case(
        {
            "space": _GROWTH,
            "sampler": "randgrow",
            "train": {"epochs": 10},
            "budget": {"hours": 3},
        },
        workers=2,
        seed=1,
    ),
}
"""By name."""

HEADINGS = ("search", "hours", *DURING)


def line(name: str, found: dict[str, Any]) -> str:
    """A search as a line of a Markdown table."""
    hours = f"{found['seconds'] / 3600:.1f}"
    return f"| {' | '.join([name, hours, *during(name, found)])} |"


def show(found: dict[str, Any]) -> None:
    """Every moment of a search."""
    for moment in moments_of(found):
        truth = found["seconds"] - moment.seconds
        side = "above" if truth > moment.high else "below" if truth < moment.low else ""
        print(
            f"{moment.seconds:9.0f} s {moment.trials:4} trials {moment.low:9.0f} to "
            f"{moment.high:9.0f}; {truth:9.0f} were left {side}"
        )


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=list(CASES), help="Names of searches.")
    parser.add_argument("--show", action="store_true", help="Every moment.")
    parser.add_argument("--output", type=Path, help="JSON file.")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|", flush=True)
    rows: dict[str, dict[str, Any]] = {}
    for name in options.only:
        rows[name] = CASES[name].found()
        print(line(name, rows[name]), flush=True)
        if options.show:
            show(rows[name])
    if options.output is not None:
        options.output.write_text(json.dumps(rows) + "\n")
    number = sum(map(held, rows.values()))
    print(
        f"\nThe time left held in {number} of {len(rows)}, for {MOSTLY:.0%} of the time or more."
    )


if __name__ == "__main__":
    main()
