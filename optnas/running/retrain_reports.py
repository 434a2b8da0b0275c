"""What trainings of found networks came to, in words and as fields."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optnas.trials.metric import Metric, metric
from optnas.units import aligned, plural


@dataclasses.dataclass(frozen=True)
class RetrainReport:
    """What a training, or several of one network, came to, for programs and for people.

    Args:
        fields: For programs.
        text: For people.
        kept: The folder of the network found, or of the ensemble, that came of it; else empty.
    """

    fields: dict[str, Any]
    text: str
    kept: str = ""


def training_report(folder: Path, description: Any, trial: int | None) -> RetrainReport:
    sets = getattr(description, "verification", {})
    searched = _searched(description)
    first = "" if searched is None else f"{searched[0].name} {searched[1]:.4f}, "
    source = description.origin.get("network") if trial is None else f"trial {trial}"
    text = (
        f"test {first}accuracy {description.test_accuracy:.4f} on {description.test_images} "
        f"images ({plural(description.params, 'parameter')}, "
        f"{plural(description.epochs, 'epoch')}, {source})\n"
        + _judged(description)
        + "".join(f"{name}: {_answers(answers)}\n" for name, answers in sets.items())
        + f"kept in {folder}; load it with optnas.load({str(folder)!r})"
    )
    fields = {"folder": str(folder), **dataclasses.asdict(description)}
    return RetrainReport(fields, text, "" if trial is None else str(folder))


def _searched(description: Any) -> tuple[Metric, float] | None:
    """What the search maximised, of the test images, where that is not their accuracy."""
    key = description.origin.get("metric")
    judgement = getattr(description, "judgement", None)
    value = None if judgement is None or key is None else judgement.value(key)
    return None if value is None else (metric(key), value)


def _judged(description: Any) -> str:
    """What else there is to say of a network's answers, in a line; nothing of older networks."""
    judgement = getattr(description, "judgement", None)
    if judgement is None:
        return ""
    low, high = judgement.accuracy_interval
    top = "" if judgement.top_5 is None else f", top-5 {judgement.top_5:.4f}"
    guess = "; a guess could have this accuracy" if judgement.is_chance else ""
    return (
        f"95 % interval {low:.4f} to {high:.4f}{top}, balanced accuracy "
        f"{judgement.balanced_accuracy:.4f}, macro-F1 {judgement.macro_f1:.4f}; always naming the "
        f"largest class has {judgement.chance:.4f}{guess}\n"
    )


def _answers(answers: Mapping[str, float]) -> str:
    """What a set of pairs or of templates gave."""
    return ", ".join(f"{name} {value:.4f}" for name, value in answers.items())


def repeats_report(folder: str, trainings: Sequence[Any], trial: int) -> RetrainReport:
    """All trainings of a network; the deviation is that of a sample (divided by n - 1)."""
    accuracy = _spread([description.test_accuracy for description in trainings])
    fields = {"folder": folder, "trial": trial, "n": len(trainings), **accuracy}
    said = f"accuracy {accuracy['mean']:.4f} +- {accuracy['std']:.4f}"
    searched = [found for found in map(_searched, trainings) if found is not None]
    if len(searched) == len(trainings):
        (known, _), values = searched[0], [value for _, value in searched]
        fields[known.key] = spread = _spread(values)
        said = f"{known.name} {spread['mean']:.4f} +- {spread['std']:.4f}, {said}"
    why = f"(mean and standard deviation of {len(trainings)} trainings, trial {trial})"
    return RetrainReport(fields, f"test {said} {why}")


def _spread(values: list[float]) -> dict[str, Any]:
    return {"mean": statistics.mean(values), "std": statistics.stdev(values), "values": values}


def ensemble_report(folder: Path, description: Any) -> RetrainReport:
    alone = description.member_accuracies
    text = (
        f"ensemble of {len(alone)}: test accuracy {description.test_accuracy:.4f} on "
        f"{description.test_images} images ({description.params:,} parameters; alone "
        f"{min(alone):.4f} to {max(alone):.4f})\n"
        f"{_judged(description)}"
        f"kept in {folder}; load it with optnas.load({str(folder)!r})"
    )
    fields = {"folder": str(folder), **dataclasses.asdict(description)}
    return RetrainReport(fields, text, str(folder))


def networks_report(folder: str, trainings: Sequence[Sequence[Any]]) -> RetrainReport:
    """All networks together: each counts by the mean of its trainings."""
    accuracies = [statistics.mean(d.test_accuracy for d in each) for each in trainings]
    params = [float(each[0].params) for each in trainings]
    fields: dict[str, Any] = {"folder": folder, "networks": len(trainings)}
    for name, values in (("accuracy", accuracies), ("params", params)):
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        fields[name] = {"mean": mean, "std": deviation, "values": values}
    text = (
        f"test accuracy {fields['accuracy']['mean']:.4f} +- {fields['accuracy']['std']:.4f}, "
        f"parameters {fields['params']['mean'] / 1e6:.2f} +- {fields['params']['std'] / 1e6:.2f} "
        f"M (mean and standard deviation of {len(trainings)} networks)"
    )
    return RetrainReport(fields, text)


def comparison_report(
    networks: Mapping[str, Sequence[Any]],
    milliseconds: Mapping[str, float],
    sizes: Mapping[str, int],
) -> RetrainReport:
    """Networks beside one another, trained alike and tested on the same images.

    Args:
        networks: By name the descriptions of all trainings of a network.
        milliseconds: Of one image, by name.
        sizes: Bytes of the weights, by name.
    """
    rows, lines = [], []
    for name, each in networks.items():
        accuracies = [description.test_accuracy for description in each]
        row: dict[str, Any] = {
            "network": name,
            "trainings": len(each),
            "accuracy": statistics.mean(accuracies),
            "std": statistics.stdev(accuracies) if len(each) > 1 else None,
            "interval": each[0].judgement.accuracy_interval if len(each) == 1 else None,
            "values": accuracies,
            "params": each[0].params,
            "multiply_adds": each[0].multiply_adds,
            "milliseconds": milliseconds[name],
            "bytes": sizes[name],
        }
        rows.append(row)
        lines.append(
            [
                name,
                _accuracy(row),
                f"{row['params']:,}",
                f"{row['multiply_adds']:,}",
                f"{row['milliseconds']:.2f}",
                f"{row['bytes'] / 1e6:.2f}",
            ]
        )
    headings = ["network", "test accuracy", "parameters", "multiply-adds", "ms", "MB"]
    note = "ms: one image on one thread of this machine; the same recipe, images and seeds"
    return RetrainReport(
        {"comparison": rows}, "\n".join((*aligned([headings, *lines], left=()), note))
    )


def _accuracy(row: Mapping[str, Any]) -> str:
    if row["std"] is not None:
        return f"{row['accuracy']:.4f} +- {row['std']:.4f} (n = {row['trainings']})"
    low, high = row["interval"]
    return f"{row['accuracy']:.4f} ({low:.4f} to {high:.4f})"
