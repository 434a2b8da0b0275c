"""What a report says of networks beyond what their trials say: emissions, time, and rivals."""

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from optnas.config import plugins
from optnas.config.contract import objective_class
from optnas.errors import UserError
from optnas.running.baseline_training import open_baselines
from optnas.spaces import Architecture, Space
from optnas.study.networks import StudyNetwork, best_first, network_row, networks_of
from optnas.study.opening import OpenStudy
from optnas.study.record import RECORD, metric_of
from optnas.trials.attributes import HUMAN_DESIGNED, TRAIN_JOULES, TRAIN_SECONDS
from optnas.trials.metric import Metric

CARBON_INTENSITY = 475.0
"""Grams of CO2-equivalent per kWh: the world's mean (IEA, Global Energy & CO2 Status 2019)."""
THREAD_WATTS, GPU_WATTS = 12.0, 250.0
"""Power of a CPU's thread, and of a GPU, where nobody says it: Green Algorithms' core of any CPU
(Lannelongue et al. 2021), and the design power of the GTX 1080 Ti of Stage-Wise NAS."""
TIMED = 12
"""Number of networks whose inference is timed, the best first."""

_CPU = re.compile(r"cpu \((\d+) threads")


@dataclasses.dataclass(frozen=True)
class Footprint:
    """How energy and emissions are reckoned.

    Args:
        carbon_intensity: Grams of CO2-equivalent per kWh.
        power: Watts of the device where its energy was not measured; None takes
            ``THREAD_WATTS`` for every thread of a CPU, and ``GPU_WATTS``.

    Raises:
        UserError: If one is negative, infinite or NaN.
    """

    carbon_intensity: float = CARBON_INTENSITY
    power: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 <= value < math.inf:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be a number from 0 upwards: {value}")

    def of(self, network: StudyNetwork) -> dict[str, Any]:
        """Energy of a network's training (Wh), whether it was measured, and emissions (g)."""
        joules, how = network.attribute(TRAIN_JOULES), "measured"
        seconds, watts = network.attribute(TRAIN_SECONDS), None
        device = network.trial.user_attrs.get("device")
        if isinstance(device, str):  # Else nothing was trained, as with a table.
            watts = self.watts(device)
        if joules is None and seconds is not None and watts is not None:
            joules, how = seconds * watts, "estimated"
        if joules is None:
            return {"energy_wh": None, "energy": "", "co2e_g": None}
        return {"energy_wh": joules / 3600, "energy": how, "co2e_g": self.grams(joules)}

    def grams(self, joules: float) -> float:
        """The emissions of an energy, in CO2-equivalent."""
        return joules / 3.6e6 * self.carbon_intensity

    def watts(self, device: str) -> float:
        """The power of a device whose energy was not measured.

        Args:
            device: What trials call it.
        """
        if self.power is not None:
            return self.power
        threads = _CPU.match(device)
        return GPU_WATTS if threads is None else THREAD_WATTS * int(threads[1])


@dataclasses.dataclass(frozen=True)
class NetworkCosts:
    """What a report adds to what trials say.

    Args:
        footprint: How emissions are reckoned.
        baselines: The networks that people designed, trained beside the study.
        milliseconds: Inference of one image, by architecture.
        processor: The CPU that they were measured on, this machine's.
    """

    footprint: Footprint = Footprint()
    baselines: Sequence[StudyNetwork] = ()
    milliseconds: Mapping[Architecture, float] = dataclasses.field(default_factory=dict)
    processor: str = ""

    def rows(self, networks: Sequence[StudyNetwork], space: Space[Any]) -> list[dict[str, Any]]:
        """A row of JSON values for every network, the best of the complete ones first.

        Args:
            networks: The networks of the study.
            space: The space they are of.
        """
        return [
            network_row(network, space)
            | self.footprint.of(network)
            | {"inference_ms": self._milliseconds(space.named_by(network.trial))}
            for network in best_first([*networks, *self.baselines])
        ]

    def _milliseconds(self, architecture: Architecture | None) -> float | None:
        return None if architecture is None else self.milliseconds.get(architecture)

    @property
    def reckoning(self) -> str:
        """How energy and emissions are reckoned, in sentences."""
        power = self.footprint.power
        watts = f"{THREAD_WATTS:g} W for every CPU thread and {GPU_WATTS:g} W for a GPU"
        return (
            "Energy is that of the training device: measured by its counter, or estimated from "
            f"the time and {watts if power is None else f'{power:g} W'}. Emissions are the energy "
            f"at {self.footprint.carbon_intensity:g} g of CO2-equivalent per kWh."
        )

    def notes(self, metric: Metric) -> list[str]:
        """What the numbers of the rows rest on, in sentences.

        Args:
            metric: What the study maximises.
        """
        notes = [f"{metric.title} is the best on the validation images over the epochs."]
        if self.milliseconds:
            notes.append(
                "Inference is the median for one image, with one thread of the CPU on which this "
                f"report was made: {self.processor}."
            )
        if self.baselines:
            notes.append(
                "Human-designed networks were trained from random weights by the recipe of the "
                "search, and are no trials of it."
            )
        return notes


NO_COSTS = NetworkCosts()


def network_costs(handle: OpenStudy, footprint: Footprint, *, timed: bool = True) -> NetworkCosts:
    """Everything that a report adds.

    Args:
        handle: The study.
        footprint: How emissions are reckoned.
        timed: Whether inference is timed: a second or so for each network.
    """
    baselines = baselines_of(handle)
    if not timed:
        return NetworkCosts(footprint, baselines)
    own = networks_of(handle.study.get_trials(deepcopy=False))
    complete = [network for network in best_first(own) if network.state == "complete"]
    milliseconds, processor = _timed(handle, [*complete[:TIMED], *baselines])
    return NetworkCosts(footprint, baselines, milliseconds, processor)


def baselines_of(handle: OpenStudy) -> list[StudyNetwork]:
    """The human-designed networks that were trained beside a study, with their names."""
    try:
        beside = open_baselines(handle)
    except UserError as error:
        warnings.warn(f"the human-designed networks are left out: {error}", stacklevel=2)
        return []
    if beside is None:
        return []
    networks = networks_of(beside.study.get_trials(deepcopy=False), metric_of(handle.study))
    # Not those that people have added to the study.
    return [
        dataclasses.replace(network, name=str(network.trial.user_attrs[HUMAN_DESIGNED]))
        for network in networks
        if network.state != "running" and HUMAN_DESIGNED in network.trial.user_attrs
    ]


def _timed(
    handle: OpenStudy, networks: Sequence[StudyNetwork]
) -> tuple[Mapping[Architecture, float], str]:
    """Milliseconds of those networks whose trials say of what shape their images were."""
    space, classes = handle.config.search_space, handle.study.user_attrs[RECORD]["classes"]
    shapes = {
        space.named_by(network.trial): network.trial.user_attrs.get("input_shape")
        for network in networks
    }
    known = {a: tuple(s) for a, s in shapes.items() if a is not None and isinstance(s, list)}
    if not known:
        return {}, ""
    config = handle.config
    cls = plugins.load("objective", config.objective.name, config.folder)
    return objective_class(cls).inference_times(
        known, classes, network=config.network, train=config.train, proxy=config.proxy
    )
