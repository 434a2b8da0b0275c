"""From a search to a trained network: which one, on what, and where it goes."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optnas.errors import UserError
from optnas.report import network_folder
from optnas.runner import make_objective
from optnas.spaces import Architecture
from optnas.studies import OpenStudy, conclusions


@dataclasses.dataclass(frozen=True)
class Report:
    """What a retraining came to, for programs and for people."""

    fields: dict[str, Any]
    text: str


def retrain_found(
    opened: OpenStudy,
    *,
    epochs: int | None = None,
    top: int | None = None,
    trial: int | None = None,
    output: Path | None = None,
    device: str | None = None,
    on_epoch: Callable[[int, int, float, float], None] | None = None,
) -> Iterator[Report]:
    """Train the networks that a search found, on training and validation images; test each once.

    They are trained in the full setting, whatever proxy judged them.

    Args:
        opened: The study.
        epochs: Number of epochs; None takes the study file's.
        top: Number of networks; None takes the study file's, or what the strategy says.
        trial: Number of a trial whose network is trained instead.
        output: The network's folder; None puts it beside the storage. A second network goes into
            a folder whose name ends with ``-2``, and so on.
        device: A torch device; None takes CUDA where there is one.
        on_epoch: Called after every epoch with the epoch, the number of epochs, the training
            accuracy and the seconds of the epoch.

    Yields:
        A report for every network, as soon as it is trained, best of the search first.

    Raises:
        UserError: If there is no network yet, or the folder holds another one.
    """
    settings = opened.config.retrain
    if epochs is not None:
        settings = settings.model_copy(update={"epochs": epochs})
    chosen = _chosen(opened, trial, top or settings.top)
    full = opened.config.model_copy(update={"proxy": None})
    objective = make_objective(full, device=device)
    if not hasattr(objective, "retrain"):
        raise UserError(f"the objective {full.objective.name!r} trains nothing; use another one")
    base = network_folder(opened) if output is None else str(output)
    for rank, (architecture, origin) in enumerate(chosen, start=1):
        folder = Path(base if rank == 1 else f"{base}-{rank}")
        description = objective.retrain(
            architecture, folder, settings, origin=origin, on_epoch=on_epoch
        )
        fields = {"folder": str(folder), **dataclasses.asdict(description)}
        text = (
            f"test accuracy {description.test_accuracy:.4f} on {description.test_images} images "
            f"({description.params:,} parameters, {description.epochs} epochs, trial "
            f"{origin['trial']})\n"
            f"kept in {folder}; load it with optnas.load({str(folder)!r})"
        )
        yield Report(fields, text)


def _chosen(
    opened: OpenStudy, trial: int | None, top: int | None
) -> list[tuple[Architecture, dict[str, Any]]]:
    """The architectures to train, best first, and where each comes from."""
    study = opened.study
    origin = {"study": study.study_name, "strategy": opened.config.sampler.name}
    if opened.config.data is not None:
        origin["data"] = opened.config.data.name
    if trial is not None:
        trials = study.get_trials(deepcopy=False)
        if not 0 <= trial < len(trials) or not trials[trial].params:
            raise UserError(f"there is no trial {trial} with a network; see `optnas status`")
        try:
            architecture = opened.config.make_space().from_trial(trials[trial])
        except ValueError:
            raise UserError(f"trial {trial} has not named a whole network") from None
        return [(architecture, origin | {"trial": trial, "chosen": "by hand"})]
    found = conclusions(opened)[: top or getattr(study.sampler, "retrained", 1)]
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
