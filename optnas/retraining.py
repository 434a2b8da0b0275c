"""From a search to a trained network: which one, on what, and where it goes."""

import dataclasses
from collections.abc import Callable
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


def retrain_best(
    opened: OpenStudy,
    *,
    epochs: int | None = None,
    trial: int | None = None,
    output: Path | None = None,
    device: str | None = None,
    on_epoch: Callable[[int, int, float, float], None] | None = None,
) -> Report:
    """Train the network that a search found, on training and validation images; test it once.

    Args:
        opened: The study.
        epochs: Number of epochs; None takes the study file's.
        trial: Number of a trial whose network is trained instead.
        output: The network's folder; None puts it beside the storage.
        device: A torch device; None takes CUDA where there is one.
        on_epoch: Called after every epoch with the epoch, the number of epochs, the training
            accuracy and the seconds of the epoch.

    Raises:
        UserError: If there is no network yet, or the folder holds another one.
    """
    architecture, origin = _chosen(opened, trial)
    objective = make_objective(opened.config, device=device)
    folder = Path(network_folder(opened)) if output is None else output
    description = objective.retrain(
        architecture,
        folder,
        epochs=epochs or opened.config.retrain.epochs,
        origin=origin,
        on_epoch=on_epoch,
    )
    fields = {"folder": str(folder), **dataclasses.asdict(description)}
    text = (
        f"test accuracy {description.test_accuracy:.4f} on {description.test_images} images "
        f"({description.params:,} parameters, {description.epochs} epochs)\n"
        f"kept in {folder}; load it with optnas.load({str(folder)!r})"
    )
    return Report(fields, text)


def _chosen(opened: OpenStudy, trial: int | None) -> tuple[Architecture, dict[str, Any]]:
    study = opened.study
    origin = {"study": study.study_name, "strategy": opened.config.sampler.name}
    origin["data"] = opened.config.data.name
    if trial is None:
        found = conclusions(opened)
        if not found:
            raise UserError("no network has been trained yet; run the search first")
        best = found[0]
        state = "found by the search" if best.settled else "the best so far"
        return best.architecture, origin | {"trial": best.number, "chosen": state}
    trials = study.get_trials(deepcopy=False)
    if trial >= len(trials) or not trials[trial].params:
        raise UserError(f"there is no trial {trial} with a network; see `optnas status`")
    space = opened.config.make_space()
    return space.from_params(trials[trial].params), origin | {"trial": trial, "chosen": "by hand"}
