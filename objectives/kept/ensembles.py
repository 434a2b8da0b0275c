"""Several trained networks as one: the mean of their probabilities."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from optnas._version import __version__
from optnas.errors import UserError
from optnas.objectives.data.images import Images
from optnas.objectives.kept import trained
from optnas.objectives.kept.cards import ensemble_card
from optnas.objectives.kept.classifiers import Classifier, Ensemble
from optnas.objectives.kept.descriptions import (
    ENSEMBLE,
    EnsembleDescription,
    describe,
    describe_ensemble,
)
from optnas.objectives.kept.embedders import Embedder
from optnas.objectives.kept.judgement import judge
from optnas.storage.files import write_whole


def combine(
    members: Sequence[Path], images: Images, folder: Path, device: torch.device
) -> EnsembleDescription:
    """Make an ensemble of networks that were retrained, test it once, and keep it.

    The members are copied, so that the folder can be moved.

    Args:
        members: Folders that `optnas retrain` wrote, of the same images.
        images: The images.
        folder: Where the ensemble goes.
        device: A torch device.

    Raises:
        UserError: If the folder holds another ensemble or cannot be written to.
    """
    described = [d for d in map(describe, members) if d is not None]
    checksums = tuple(description.weights_sha256 for description in described)
    done = describe_ensemble(folder)
    if done is not None:
        if done.weights_sha256 != checksums:
            raise UserError(
                f"{folder} holds another ensemble; name another folder with --output, or remove "
                "it."
            )
        return done
    ensemble = Ensemble([_classifier(member) for member in members]).to(device).eval()
    judgement = judge(
        ensemble,
        images.test_images,
        images.test_labels,
        images.class_names,
        names=images.test_names,
        device=device,
    )
    description = EnsembleDescription(
        weights_sha256=checksums,
        member_accuracies=tuple(d.test_accuracy for d in described),
        test_accuracy=judgement.accuracy,
        judgement=judgement,
        test_images=len(images.test_labels),
        params=sum(d.params for d in described),
        multiply_adds=sum(d.multiply_adds for d in described),
        data_sha256=described[0].data_sha256,
        chosen_by_test=any(d.chosen_by_test for d in described),
        versions={"optnas": __version__, "torch": torch.__version__},
    )
    _keep(folder, members, description)
    return description


def load(
    folder: str | Path, device: str | torch.device = "cpu"
) -> Classifier | Embedder | Ensemble:
    """The network or the ensemble that was kept in a folder, ready to classify images.

    Args:
        folder: The folder.
        device: A torch device.

    Raises:
        UserError: If the folder holds nothing complete, or what it holds was changed.
    """
    folder = Path(folder)
    description = describe_ensemble(folder)
    if description is None:
        return trained.load(folder, device)
    members = []
    for number, checksum in enumerate(description.weights_sha256, start=1):
        own = describe(folder / str(number))
        if own is None or own.weights_sha256 != checksum:
            raise UserError(
                f"{folder} holds no whole ensemble: the folder {number} in it is not the network "
                f"that {ENSEMBLE} describes."
            )
        members.append(_classifier(folder / str(number), device))
    return Ensemble(members).eval()


def _classifier(folder: Path, device: str | torch.device = "cpu") -> Classifier:
    found = trained.load(folder, device)
    if not isinstance(found, Classifier):
        raise UserError(f"{folder} holds a face network; ensembles are of classifiers.")
    return found


def _keep(folder: Path, members: Sequence[Path], description: EnsembleDescription) -> None:
    """Write the ensemble; its description comes last and makes it complete."""
    try:
        for number, member in enumerate(members, start=1):
            shutil.copytree(member, folder / str(number), dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder} cannot be written: {reason}; name another folder.") from None
    text = ensemble_card(folder.resolve().name, description)
    write_whole(folder / trained.CARD, text.encode(errors="backslashreplace"))
    fields = dataclasses.asdict(description)
    write_whole(folder / ENSEMBLE, json.dumps(fields, indent=1).encode())
