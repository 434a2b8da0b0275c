"""From a search to a trained network: which one, on what, and where it goes."""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optnas.config.contract import Objective, strategy_of
from optnas.config.file import StudyFile
from optnas.config.settings import DataSettings
from optnas.errors import UserError
from optnas.running.runner import warn_of_kept_settings
from optnas.spaces import Architecture
from optnas.study.data import SeenData, check_same, data_seen_by_study, record_data
from optnas.study.folders import mark_network, network_folder
from optnas.study.objectives import ObjectiveMaker
from optnas.study.opening import OpenStudy, conclusions
from optnas.study.record import metric_of
from optnas.trials.metric import ACCURACY, Metric, metric

OnEpoch = Callable[[int, int, float, float], None]


@dataclasses.dataclass(frozen=True)
class RetrainReport:
    """What a training, or several of one network, came to, for programs and for people."""

    fields: dict[str, Any]
    text: str


def retrain_found(
    handle: OpenStudy,
    *,
    epochs: int | None = None,
    top: int | None = None,
    repeats: int | None = None,
    trial: int | None = None,
    channels: int | None = None,
    data: DataSettings | None = None,
    ensemble: bool = False,
    output: Path | None = None,
    device: str | None = None,
    accept_changed_data: bool = False,
    on_epoch: OnEpoch | None = None,
) -> Iterator[RetrainReport]:
    """Train the networks that a search found, on training and validation images; test each once.

    They are trained in the full setting, whatever proxy judged them. Whatever was interrupted
    goes on where it stood when it is asked for again, and what is done is not repeated.

    Args:
        handle: The study.
        epochs: Number of epochs; None takes the study file's.
        top: Number of networks; None takes the study file's, or what the strategy says.
        repeats: Trainings of each network, with seeds of their own; None takes the study file's.
            The first is the one that there is without repeats.
        trial: Number of a trial whose network is trained instead.
        channels: Channels of the network's first layers; None leaves those it was found with.
        data: Images to train on and to test with instead of the study's.
        ensemble: Whether to make an ensemble of all that was trained, which is kept in a folder
            whose name ends with ``-ensemble``. Then ``top`` is all networks by default.
        output: The network's folder; None puts it beside the storage, named after the study, and
            after ``data`` and ``channels`` if they are given. A second network goes into a folder
            whose name ends with ``-2``, its third training into ``-2-repeat-3``, and so on.
        device: A torch device; None takes CUDA where there is one.
        accept_changed_data: Whether to train on other images than the study has seen, which is
            recorded.
        on_epoch: Called after every epoch with the epoch, the number of epochs, the training
            accuracy and the seconds of the epoch.

    Yields:
        A report for every training, as soon as it is done, best network of the search first; one
        of all trainings of a network, where there are several; and one of the ensemble.

    Raises:
        UserError: If there is no network yet, the folder holds another one, the network has no
            channels to choose, or the data cannot be had.
    """
    warn_of_kept_settings(handle.config)
    options = {"epochs": epochs, "top": top, "repeats": repeats}
    settings = handle.config.retrain.model_copy(
        update={key: value for key, value in options.items() if value is not None}
    )
    full = handle.config.model_copy(update={"proxy": None, "data": data or handle.config.data})
    chosen = _chosen(handle, trial, settings.top, full.data, every=ensemble)
    seen = None if data is not None else data_seen_by_study(handle)
    objective = _objective(handle, full, seen, device, accept_changed_data)
    retrain, combine = objective.retrain, objective.ensemble
    if retrain is None or (ensemble and combine is None):
        raise UserError(f"the objective {full.objective.name!r} trains nothing; use another one")
    base = _folder(handle, data, channels) if output is None else str(output)
    after_epoch = on_epoch if output is not None else _marking(handle, Path(base), on_epoch)
    members: list[Path] = []
    for rank, (architecture, origin) in enumerate(chosen, start=1):
        folder = base if rank == 1 else f"{base}-{rank}"
        trainings = []
        for repeat in range(1, settings.repeats + 1):
            own = Path(folder if repeat == 1 else f"{folder}-repeat-{repeat}")
            description = retrain(
                architecture,
                own,
                settings,
                channels=channels,
                repeat=repeat,
                origin=origin if repeat == 1 else {**origin, "repeat": repeat},
                on_epoch=after_epoch,
            )
            trainings.append(description)
            members.append(own)
            yield _report(own, description, origin["trial"])
        if settings.repeats > 1:
            yield _summary(folder, trainings, origin["trial"])
    if ensemble and combine is not None:
        own = Path(f"{base}-ensemble")
        yield _ensemble_report(own, combine(members, own))


def _objective(
    handle: OpenStudy, config: StudyFile, seen: SeenData | None, device: str | None, accept: bool
) -> Objective:
    """The objective, if its images are what the study has seen; or others, which is recorded."""
    maker = ObjectiveMaker(config, device=device, seen=seen)
    changes = check_same(seen, maker.reading, accept=accept)
    objective = maker.make()
    if changes:
        record_data(handle.study, maker.reading, seen, changes, config.artifacts)
    return objective


def _marking(handle: OpenStudy, folder: Path, on_epoch: OnEpoch | None) -> OnEpoch:
    """``on_epoch``, and the study's mark in its folder, which is there by then."""

    def after_epoch(epoch: int, epochs: int, accuracy: float, seconds: float) -> None:
        mark_network(handle, folder)
        if on_epoch is not None:
            on_epoch(epoch, epochs, accuracy, seconds)

    return after_epoch


def _report(folder: Path, description: Any, trial: int) -> RetrainReport:
    sets = getattr(description, "verification", {})
    searched = _searched(description)
    first = "" if searched is None else f"{searched[0].name} {searched[1]:.4f}, "
    text = (
        f"test {first}accuracy {description.test_accuracy:.4f} on {description.test_images} "
        f"images ({description.params:,} parameters, {description.epochs} epochs, trial {trial})\n"
        + _judged(description)
        + "".join(f"{name}: {_answers(answers)}\n" for name, answers in sets.items())
        + f"kept in {folder}; load it with optnas.load({str(folder)!r})"
    )
    return RetrainReport({"folder": str(folder), **dataclasses.asdict(description)}, text)


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


def _summary(folder: str, trainings: Sequence[Any], trial: int) -> RetrainReport:
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


def _ensemble_report(folder: Path, description: Any) -> RetrainReport:
    alone = description.member_accuracies
    text = (
        f"ensemble of {len(alone)}: test accuracy {description.test_accuracy:.4f} on "
        f"{description.test_images} images ({description.params:,} parameters; alone "
        f"{min(alone):.4f} to {max(alone):.4f})\n"
        f"{_judged(description)}"
        f"kept in {folder}; load it with optnas.load({str(folder)!r})"
    )
    return RetrainReport({"folder": str(folder), **dataclasses.asdict(description)}, text)


def _folder(handle: OpenStudy, data: DataSettings | None, channels: int | None) -> str:
    parts = []
    if data is not None:
        parts.append(f"-{data.name.replace(':', '.')}")
    if channels is not None:
        parts.append(f"-{channels}-channels")
    return network_folder(handle, "".join(parts))


def _chosen(
    handle: OpenStudy,
    trial: int | None,
    top: int | None,
    data: DataSettings | None,
    *,
    every: bool,
) -> list[tuple[Architecture, dict[str, Any]]]:
    """The architectures to train, best first, and where each comes from."""
    study = handle.study
    origin = {"study": study.study_name, "strategy": handle.config.sampler.name}
    searched = handle.config.data
    searched_by = metric_of(study)
    if searched_by != ACCURACY:
        origin["metric"] = searched_by.key
    if data is not None:
        origin["data"] = data.name
    if searched is not None and searched != data:
        origin["found on"] = searched.name
    if trial is not None:
        trials = study.get_trials(deepcopy=False)
        if not 0 <= trial < len(trials) or not trials[trial].params:
            raise UserError(f"there is no trial {trial} with a network; see `optnas status`")
        try:
            architecture = handle.config.search_space.from_trial(trials[trial])
        except ValueError:
            raise UserError(f"trial {trial} has not named a whole network") from None
        return [(architecture, origin | {"trial": trial, "chosen": "by hand"})]
    default = None if every else strategy_of(study.sampler).retrained
    found = conclusions(handle)[: top or default]
    if not found:
        raise UserError("no network has been trained yet; run the search first")
    return [
        (
            best.architecture,
            origin
            | {
                "trial": best.number,
                "chosen": "found by the search" if best.settled else "the best so far",
            },
        )
        for best in found
    ]
