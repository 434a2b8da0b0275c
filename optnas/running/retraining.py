"""From a search to a trained network: which one, on what, and where it goes."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optnas.config.contract import Objective, strategy_of
from optnas.config.file import StudyFile
from optnas.config.settings import DataSettings, NetworkSettings, RetrainSettings
from optnas.errors import UserError
from optnas.running.retrain_reports import (
    RetrainReport,
    comparison_report,
    ensemble_report,
    networks_report,
    repeats_report,
    training_report,
)
from optnas.running.runner import warn_of_kept_settings
from optnas.spaces import Architecture
from optnas.study.data import SeenData, check_same, data_seen_by_study, record_data
from optnas.study.folders import mark_network, network_folder
from optnas.study.objectives import ObjectiveMaker
from optnas.study.opening import OpenStudy, conclusions
from optnas.study.record import metric_of
from optnas.trials.metric import ACCURACY

__all__ = ["RetrainReport", "retrain_found", "retrain_together"]

OnEpoch = Callable[[int, int, float, float], None]


def retrain_found(
    handle: OpenStudy,
    *,
    epochs: int | None = None,
    top: int | None = None,
    repeats: int | None = None,
    trial: int | None = None,
    channels: int | None = None,
    network: NetworkSettings | None = None,
    batch_size: int | None = None,
    data: DataSettings | None = None,
    ensemble: bool = False,
    every: bool = False,
    references: str | None = None,
    output: Path | None = None,
    device: str | None = None,
    accept_changed_data: bool = False,
    local_norms: bool = False,
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
        network: The network's size otherwise, where it is neither as it was found nor as
            ``retrain.network`` of the study file says.
        batch_size: Images per step; None takes the study file's.
        data: Images to train on and to test with; None takes ``retrain.data`` of the study file,
            or the study's.
        ensemble: Whether to make an ensemble of all that was trained, which is kept in a folder
            whose name ends with ``-ensemble``. Then ``top`` is all networks by default.
        every: Whether all networks are trained by default, though there is no ensemble of them.
        references: Known networks to train beside, by the same recipe on the same images, as
            ``timm:NAME[@FILE][,NAME...]``; the file has weights that the network starts from.
        output: The network's folder; None puts it beside the storage, named after the study, and
            after ``data``, ``network`` and ``channels`` if they are given. A second network goes
            into a folder whose name ends with ``-2``, its third training into ``-2-repeat-3``,
            and so on.
        device: A torch device; None takes CUDA where there is one.
        accept_changed_data: Whether to train on other images than the study has seen, which is
            recorded.
        local_norms: Whether batch normalisation sees the images of one GPU alone, if several
            train together; what the study file says counts, too.
        on_epoch: Called after every epoch with the epoch, the number of epochs, the training
            accuracy and the seconds of the epoch.

    Yields:
        A report for every training, as soon as it is done, best network of the search first; one
        of all trainings of a network, where there are several; one of the ensemble, or else of all
        networks, likewise; and one that sets known networks beside those found.

    Raises:
        UserError: If there is no network yet, the folder holds another one, the network cannot
            be of that size, or the data cannot be had.
    """
    warn_of_kept_settings(handle.config)
    options = {"epochs": epochs, "top": top, "repeats": repeats, "batch_size": batch_size}
    options["local_norms"] = local_norms or None
    settings = handle.config.retrain.model_copy(
        update={key: value for key, value in options.items() if value is not None}
    )
    other = data or settings.data
    full = handle.config.model_copy(update={"proxy": None, "data": other or handle.config.data})
    chosen = _chosen(handle, trial, settings.top, full.data, every=ensemble or every)
    seen = None if other is not None else data_seen_by_study(handle)
    objective = _objective(handle, full, seen, device, accept_changed_data)
    retrain, combine = objective.retrain, objective.ensemble
    if retrain is None or (ensemble and combine is None):
        raise UserError(f"the objective {full.objective.name!r} trains nothing; use another one")
    known = _known(objective, references)
    base = _folder(handle, data, network, channels) if output is None else str(output)
    after_epoch = on_epoch if output is not None else _marking(handle, Path(base), on_epoch)
    sized = {"channels": channels, **({} if network is None else {"network": network})}
    done = _Trainings(base, settings, after_epoch)
    for rank, (architecture, origin) in enumerate(chosen, start=1):
        train = functools.partial(retrain, architecture, **sized)
        try:
            yield from done.of_network("" if rank == 1 else f"-{rank}", train, origin)
        except KeyboardInterrupt:
            if output is None:  # It may have been left before an epoch was over.
                mark_network(handle, Path(base))
            raise
    if ensemble and combine is not None:
        own = Path(f"{base}-ensemble")
        yield ensemble_report(own, combine(done.members, own))
    elif len(chosen) > 1:
        yield networks_report(base, list(done.networks.values()))
    for reference in known:
        yield from done.of_reference(reference, objective)
    if known:
        yield done.compared(objective)


def retrain_together(
    handles: Sequence[OpenStudy], *, output: Path | None = None, **options: Any
) -> Iterator[RetrainReport]:
    """Train what several searches found, and make one ensemble of it all.

    Source: Stage-Wise NAS, section IV, whose ensemble joins residual networks and those of cells.

    Args:
        handles: The studies, of the same classes and the same test images.
        output: A folder for all networks; None puts them beside their storages.
        options: What else `retrain_found` takes, for each.

    Yields:
        What `retrain_found` yields for each, and the report of the ensemble, which is kept in a
        folder named after the studies.

    Raises:
        UserError: As `retrain_found`, or if their test images differ.
    """
    names = [handle.study.study_name for handle in handles]
    combine = _combining(handles, options.get("data"), options.get("device"))
    members: list[Path] = []
    for handle, name in zip(handles, names, strict=True):
        place = None if output is None else output / name
        for report in retrain_found(handle, every=True, output=place, **options):
            if report.kept:
                members.append(Path(report.kept))
            yield report
    beside = Path(network_folder(handles[0], "")).parent if output is None else output
    own = beside / f"{'-and-'.join(names)}.network-ensemble"
    yield ensemble_report(own, combine(members, own))


def _combining(
    handles: Sequence[OpenStudy], data: DataSettings | None, device: str | None
) -> Callable[..., Any]:
    """What makes an ensemble for all these studies.

    Raises:
        UserError: If their networks cannot answer together.
    """
    objectives: list[Any] = []
    for handle in handles:
        config = handle.config
        images = data or config.retrain.data or config.data
        full = config.model_copy(update={"proxy": None, "data": images})
        objectives.append(ObjectiveMaker(full, device=device).make())
    combine: Callable[..., Any] | None = objectives[0].ensemble
    if any(objective.ensemble is None for objective in objectives) or combine is None:
        raise UserError("one of these objectives trains no classifiers")
    if len({objective.test_digest() for objective in objectives}) > 1:
        raise UserError(
            "an ensemble needs networks of the same classes, tested on the same images: these "
            "studies have others"
        )
    return combine


@dataclasses.dataclass
class _Trainings:
    """What has been trained so far: descriptions by network, and all folders."""

    base: str
    settings: RetrainSettings
    on_epoch: OnEpoch | None
    networks: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    members: list[Path] = dataclasses.field(default_factory=list)
    folders: dict[str, Path] = dataclasses.field(default_factory=dict)

    def of_network(
        self, suffix: str, train: Callable[..., Any], origin: Mapping[str, Any]
    ) -> Iterator[RetrainReport]:
        """All trainings of a network that was found."""
        trial = origin["trial"]
        trainings = self.networks[f"found{suffix} (trial {trial})"] = []
        for repeat, own in self._places(f"{self.base}{suffix}"):
            said = origin if repeat == 1 else {**origin, "repeat": repeat}
            made = train(own, self.settings, repeat=repeat, origin=said, on_epoch=self.on_epoch)
            trainings.append(made)
            self.members.append(own)
            yield training_report(own, made, trial)
        self.folders[f"found{suffix} (trial {trial})"] = Path(f"{self.base}{suffix}")
        if len(trainings) > 1:
            yield repeats_report(f"{self.base}{suffix}", trainings, trial)

    def of_reference(self, reference: Any, objective: Objective) -> Iterator[RetrainReport]:
        """All trainings of a known network."""
        train: Any = objective.reference
        trainings = self.networks[reference.name] = []
        self.folders[reference.name] = Path(f"{self.base}-reference-{reference.name}")
        for repeat, own in self._places(str(self.folders[reference.name])):
            made = train(reference, own, self.settings, repeat=repeat, on_epoch=self.on_epoch)
            trainings.append(made)
            yield training_report(own, made, None)

    def compared(self, objective: Any) -> RetrainReport:
        """All networks in a table."""
        times = {n: objective.inference_milliseconds(f) for n, f in self.folders.items()}
        sizes = {
            n: sum(file.stat().st_size for file in f.glob("*.safetensors"))
            for n, f in self.folders.items()
        }
        return comparison_report(self.networks, times, sizes)

    def _places(self, folder: str) -> Iterator[tuple[int, Path]]:
        for repeat in range(1, self.settings.repeats + 1):
            yield repeat, Path(folder if repeat == 1 else f"{folder}-repeat-{repeat}")


def _known(objective: Any, text: str | None) -> list[Any]:
    """The known networks that are asked for.

    Raises:
        UserError: If the objective knows none.
    """
    if text is None:
        return []
    if objective.reference is None:
        raise UserError("--reference: this objective trains no known networks; leave it out")
    found: list[Any] = objective.references(text)
    return found


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


def _folder(
    handle: OpenStudy,
    data: DataSettings | None,
    network: NetworkSettings | None,
    channels: int | None,
) -> str:
    parts = []
    if data is not None:
        parts.append(f"-{data.name.replace(':', '.')}")
    for name, value in (network or NetworkSettings()).model_dump(exclude_none=True).items():
        parts.append(f"-{value}-{name}")
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
    found = conclusions(handle, top or default)
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
