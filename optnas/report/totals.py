"""What a search and its final training took together: hours, energy, emissions."""

import dataclasses
from collections.abc import Iterable, Sequence

from optnas.pages.content import Block, Column, Facts, Paragraph, Table
from optnas.report.costs import Footprint, NetworkCosts
from optnas.report.table import digits, spelled
from optnas.report.tested import Kept
from optnas.study.networks import StudyNetwork
from optnas.trials.attributes import TRAIN_SECONDS


@dataclasses.dataclass
class Spent:
    """What trainings on one device took.

    Args:
        networks: How many were trained.
        seconds: For how long in all.
        watt_hours: Their energy, as far as it is known.
        grams: Their emissions, in CO2-equivalent.
        estimated: Whether the energy of some was estimated.
    """

    networks: int = 0
    seconds: float = 0.0
    watt_hours: float = 0.0
    grams: float = 0.0
    estimated: bool = False


def spent_by_device(networks: Iterable[StudyNetwork], footprint: Footprint) -> dict[str, Spent]:
    """What a search took, by the device of its trainings, where they say it.

    Args:
        networks: The networks of a study.
        footprint: How energy and emissions are reckoned.
    """
    found: dict[str, Spent] = {}
    for network in networks:
        device, seconds = network.trial.user_attrs.get("device"), network.attribute(TRAIN_SECONDS)
        if not isinstance(device, str) or seconds is None:
            continue
        spent, energy = found.setdefault(device, Spent()), footprint.of(network)
        spent.networks += 1
        spent.seconds += seconds
        spent.watt_hours += energy["energy_wh"] or 0.0
        spent.grams += energy["co2e_g"] or 0.0
        spent.estimated |= energy["energy"] != "measured"
    return found


def is_gpu(device: str) -> bool:
    """Whether a device, as trials name it, is no CPU."""
    return not device.startswith("cpu")


def what_it_took(
    networks: Sequence[StudyNetwork], costs: NetworkCosts, kept: Sequence[Kept]
) -> list[Block]:
    """The cost of a search and of the final trainings.

    Args:
        networks: The networks of the study.
        costs: How it is reckoned.
        kept: The networks that were trained and tested.
    """
    searched = spent_by_device(networks, costs.footprint)
    if not searched:
        return [Paragraph(_elsewhere(networks))]
    total = Spent(
        sum(each.networks for each in searched.values()),
        sum(each.seconds for each in searched.values()),
        sum(each.watt_hours for each in searched.values()),
        sum(each.grams for each in searched.values()),
        any(each.estimated for each in searched.values()),
    )
    hours = {
        name: sum(each.seconds for device, each in searched.items() if is_gpu(device) == gpu)
        for name, gpu in (("GPU time", True), ("CPU time", False))
    }
    how = "estimated" if total.estimated else "measured"
    facts = [
        (name, spelled(seconds), "of the search") for name, seconds in hours.items() if seconds
    ]
    facts += [
        ("Energy", f"{_energy(total.watt_hours)}", f"{how}; the training device's"),
        ("CO2e", f"{_mass(total.grams)}", f"at {costs.footprint.carbon_intensity:g} g per kWh"),
    ]
    rows = [_row(f"search, {device}", spent) for device, spent in searched.items()]
    rows += [
        _training_row(each, costs.footprint)
        for each in kept
        if each.first.train_seconds is not None
    ]
    headings = ["networks", "hours", "energy (Wh)", "CO2e (g)"]
    columns = [Column("what", text=True), *map(Column, headings), Column("energy is", text=True)]
    table = Table("What it took", columns, rows)
    return [Facts(facts), table, Paragraph(costs.reckoning)]


def _elsewhere(networks: Sequence[StudyNetwork]) -> str:
    """What is said where no trial says on what device it ran."""
    seconds = sum(network.attribute(TRAIN_SECONDS) or 0.0 for network in networks)
    if not seconds:
        return "Nobody has measured what the search took."
    return (
        "Nothing was trained here: the results were known before. To train these networks took "
        f"{spelled(seconds)} elsewhere."
    )


def _row(name: str, spent: Spent) -> list[str]:
    numbers = (spent.seconds / 3600, spent.watt_hours, spent.grams)
    how = "estimated" if spent.estimated else "measured"
    return [name, f"{spent.networks:,}", *map(digits, numbers), how]


def _training_row(kept: Kept, footprint: Footprint) -> list[str]:
    seconds = sum(training.train_seconds or 0.0 for training in kept.trainings)
    device, number = kept.first.device, len(kept.trainings)
    name = f"final training, {kept.name}"
    if not device:
        return [name, f"{number}", digits(seconds / 3600), "", "", "not known"]
    joules = seconds * footprint.watts(device)
    spent = Spent(number, seconds, joules / 3600, footprint.grams(joules), estimated=True)
    return _row(f"{name}, {device}", spent)


def _energy(watt_hours: float) -> str:
    if watt_hours < 1000:
        return f"{digits(watt_hours)} Wh"
    return f"{digits(watt_hours / 1000)} kWh"


def _mass(grams: float) -> str:
    return f"{digits(grams)} g" if grams < 1000 else f"{digits(grams / 1000)} kg"
