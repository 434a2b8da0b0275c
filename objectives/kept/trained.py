"""Trained networks in folders: weights, architecture, and a card that says what they are."""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from optnas._version import __version__
from optnas.config.settings import TrainSettings, check_compile, said_of
from optnas.devices.ranks import join
from optnas.errors import UserError
from optnas.objectives.data.image_files import digest_of_parts
from optnas.objectives.data.images import Images
from optnas.objectives.kept.bounds import check_images_of, check_sizes, check_weights
from optnas.objectives.kept.cards import card
from optnas.objectives.kept.classifiers import Classifier
from optnas.objectives.kept.descriptions import NETWORK, Description, describe
from optnas.objectives.kept.embedders import Embedder
from optnas.objectives.kept.judgement import judge
from optnas.objectives.kept.mistakes import MISTAKES, mistakes_png
from optnas.objectives.kept.preprocessing import Preprocessing, preprocessing_of
from optnas.objectives.kept.unfinished import TRAINING, go_on, train_to_end
from optnas.objectives.networks.build import build_model
from optnas.objectives.networks.costs import count_multiply_adds, count_params
from optnas.objectives.networks.known import LIBRARY, KnownArchitecture
from optnas.objectives.training.allocator import kept_memory
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.memory import reset_peak_memory
from optnas.objectives.training.records import device_name
from optnas.objectives.training.trainer import Trainer
from optnas.seeds import derive_seed
from optnas.spaces import SPACES, Architecture
from optnas.storage.files import write_whole

WEIGHTS = "weights.safetensors"
CARD = "README.md"
_NOT_WHOLE = (
    *(OSError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError),
    safetensors.SafetensorError,
)


def retrain(
    architecture: Architecture,
    images: Images,
    train: TrainSettings,
    folder: Path,
    *,
    network: dict[str, Any],
    seed: int,
    origin: dict[str, Any],
    device: torch.device,
    compiled: bool = False,
    on_epoch: Callable[[int, int, float, float], None] | None = None,
    make_trainer: Callable[..., Trainer] = Trainer,
    measure: "Callable[[Trainer, Images], dict[str, Any]] | None" = None,
    further_identity: Mapping[str, Any] | None = None,
) -> Description:
    """Train a network on the training and validation images, test it once, and keep it.

    A training that was cut off goes on from its last epoch, and one that was left between two
    batches from there; one that is done is not repeated.

    Args:
        architecture: What to train.
        images: The images, split.
        train: How to train, and for how many epochs.
        folder: Where the network goes.
        network: Options of its builder, such as its number of cells.
        seed: Seed of the training.
        origin: Where the architecture comes from, for the card.
        device: A torch device.
        compiled: Whether the network is compiled with ``torch.compile`` first.
        on_epoch: Called after every epoch with the epoch, the number of epochs, the training
            accuracy and the seconds of the epoch.
        make_trainer: Makes the training, of what `Trainer` takes.
        measure: What is said of the trained network; see `tested`, the default.
        further_identity: What else makes the training another one, for its description.

    Raises:
        UserError: If the folder holds another network or cannot be written to, or the loss is
            not finite, or there is not enough memory for a batch.
        ValueError: If the recipe has no epochs, or networks of it cannot be compiled.
        Paused: If somebody asked for it (`optnas.trials.pulse.pause`); the training is kept.
    """
    if train.epochs is None:
        raise ValueError("`train.epochs` must be the number of epochs.")
    if compiled:
        check_compile(train)
    torch.set_num_threads(train.threads)
    chosen_by_test = images.validates_on_test
    images = images.with_validation_in_training().to(device)
    identity = _identity(architecture, images, train, network, seed)
    identity["train"] |= further_identity or {}
    training_seed = derive_seed("retrain", identity)
    # Ways of computing the same training, unsaid where they are the usual ones, for that reason.
    if not train.graphs:
        identity["train"]["graphs"] = False
    if compiled:
        identity["train"]["compile"] = True
    ranks = join(device.type)
    done = _done(folder, identity)
    if done is not None:
        return done
    _make(folder)
    trainer = _trainer(architecture, images, train, network, training_seed, make_trainer)
    go_on(trainer, folder, identity)
    reset_peak_memory(device)  # Which says whether there is memory for a graph.
    if compiled:
        trainer.model.compile()
    with deterministic_algorithms(train.deterministic), kept_memory():
        train_to_end(trainer, folder, identity, ranks, on_epoch)
        if ranks.leads:
            measured = (measure or tested)(trainer, images)
            said = {**identity, **measured, "origin": origin, "chosen_by_test": chosen_by_test}
            done = _kept(trainer, architecture, images, network, folder, said)
    ranks.wait()
    done = done or _done(folder, identity)
    if done is None:
        raise UserError(f"{folder} must be a folder that all the processes share.")
    return done


def _kept(
    trainer: Trainer,
    architecture: Architecture,
    images: Images,
    network: dict[str, Any],
    folder: Path,
    said: dict[str, Any],
) -> Description:
    """A trained network in its folder, with what is said of it."""
    served = _served(trainer.judged, architecture, images, network)
    # Tensors of their own: safetensors takes none that layers share, nor views.
    state = {name: t.contiguous().clone() for name, t in served.state_dict().items()}
    weights = safetensors.torch.save(state)
    description = Description(
        **said,
        **_costs(served, trainer, images),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        versions={"optnas": __version__, "torch": torch.__version__},
    )
    _keep(folder, weights, description, images)
    return description


def _identity(
    architecture: Architecture,
    images: Images,
    train: TrainSettings,
    network: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """What makes a training another one."""
    return {
        "space": _space_name(architecture),
        "architecture": json.loads(architecture.to_json()),
        "augmentation": images.augmentation.said(),
        "network": network,
        "train": said_of(train),
        "epochs": train.epochs,
        "seed": seed,
        "data_sha256": digest(images),
    }


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; name another folder.") from None


def _served(
    trained: nn.Module, architecture: Architecture, images: Images, network: dict[str, Any]
) -> nn.Module:
    """A trained network on the CPU, without the auxiliary head, which serves training only."""
    served = build_model(architecture, images.input_shape, images.classes, **network)
    state = {
        name: tensor.cpu().contiguous()
        for name, tensor in trained.state_dict().items()
        if "auxiliary" not in name
    }
    served.load_state_dict(state)
    return served


def _data(images: Images) -> dict[str, Any] | None:
    """Where the images came from, for those who look at them again."""
    if images.settings is None:
        return None
    further_identity = images.settings.model_dump(mode="json", exclude_defaults=True)
    return {**further_identity, "seed": images.seed}


def _trainer(
    architecture: Architecture,
    images: Images,
    train: TrainSettings,
    network: dict[str, Any],
    seed: int,
    make: Callable[..., Trainer],
) -> Trainer:
    """A training that has not begun, on the device of the images.

    Raises:
        UserError: If there is no such network, or no such training of it.
    """
    options = {**network, "auxiliary": True} if train.auxiliary else network
    generator = torch.Generator().manual_seed(seed)
    try:
        model = build_model(architecture, images.input_shape, images.classes, generator, **options)
        model = model.to(images.train_labels.device)
        return make(model, images, train, epochs=train.epochs or 0, seed=seed)
    except (TypeError, ValueError) as error:
        raise UserError(f"retrain: {error}") from None


def tested(trainer: Trainer, images: Images) -> dict[str, Any]:
    """What a description says of the test of a trained network, in float32."""
    names = images.class_names
    reads = preprocessing_of(images.preparation)
    model = Classifier(trainer.judged, images.mean, images.std, names, images.input_shape, reads)
    judgement = judge(
        model.eval(),
        images.test_images,
        images.test_labels,
        names,
        names=images.test_names,
        device=trainer.device,
    )
    return {
        "test_accuracy": judgement.accuracy,
        "test_images": judgement.images,
        "judgement": judgement,
    }


def _costs(network: nn.Module, trainer: Trainer, images: Images) -> dict[str, Any]:
    """What a description says of a network, its training and its images."""
    return {
        "input_shape": images.input_shape,
        "class_names": images.class_names,
        "preprocessing": preprocessing_of(images.preparation),
        "data": _data(images),
        "device": device_name(trainer.device, trainer.settings.threads),
        "mean": images.mean,
        "std": images.std,
        "params": count_params(network),
        "multiply_adds": count_multiply_adds(network, images.input_shape),
        "train_accuracy": trainer.history[-1].train_accuracy,
        "train_images": len(images.train_labels),
        "train_seconds": sum(result.seconds for result in trainer.history),
    }


def load(folder: str | Path, device: str | torch.device = "cpu") -> Classifier | Embedder:
    """The network that ``retrain`` kept, ready to classify images, or to embed faces.

    Args:
        folder: The folder.
        device: A torch device.

    Raises:
        UserError: If the folder holds no complete network, or what it holds was changed.
    """
    description, network = read(Path(folder))
    if description.is_face:
        return _embedder(description, network).to(device).eval()
    if description.preprocessing is None:
        warnings.warn(
            f"{folder} does not say how its images were read from files, as it was kept by "
            "version 0.1: they are read as that version read them, squashed to its size.",
            stacklevel=2,
        )
    return classifier_of(description, network).to(device).eval()


def _embedder(description: Description, network: nn.Module) -> Embedder:
    return Embedder(
        network,
        description.mean,
        description.std,
        description.thresholds,
        description.input_shape,
        description.preprocessing or Preprocessing(),
    )


def classifier_of(description: Description, network: nn.Module) -> Classifier:
    """A network with what its description says of its images."""
    return Classifier(
        network,
        description.mean,
        description.std,
        description.class_names,
        description.input_shape,
        description.preprocessing or Preprocessing(reading=1),
    )


def read(folder: Path) -> tuple[Description, nn.Module]:
    """The network that ``retrain`` kept, for normalised images, and what it is.

    Raises:
        UserError: As `load`.
    """
    description = describe(folder)
    if description is None:
        makes = f"`optnas retrain {folder}` makes a folder that does"
        hint = makes if folder.is_file() else "`optnas retrain` makes one"
        raise UserError(f"{folder} holds no trained network; {hint}.")
    try:
        weights = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(weights).hexdigest() != description.weights_sha256:
            raise ValueError(f"{WEIGHTS} is not the file that {NETWORK} describes")
        check_images_of(description)
        check_sizes(description.architecture, description.network, weights)
        network = build_model(
            architecture_of(description),
            description.input_shape,
            len(description.class_names),
            **description.network,
        )
        state = safetensors.torch.load(weights)
        check_weights(state, network.state_dict())
        network.load_state_dict(state)
    except _NOT_WHOLE as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{folder} holds no whole network: {reason}") from None
    return description, network


def _done(folder: Path, identity: dict[str, Any]) -> Description | None:
    description = describe(folder)
    if description is None:
        return None
    known = {name: getattr(description, name) for name in identity}
    if known != identity:
        raise UserError(
            f"{folder} holds another network (or one trained otherwise); name another folder "
            "with --output, or remove it."
        )
    return description


def digest(images: Images) -> str:
    """Checksum of the training and the test images and their labels.

    Of images in files, their names and sizes count instead of what they hold.
    """
    parts = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    return digest_of_parts(parts)


def architecture_of(description: Description) -> Architecture:
    """The architecture of a kept network.

    Raises:
        ValueError: If its space is not known here, or has no such architecture.
    """
    space = SPACES.get(description.space)
    if space is None and description.space != LIBRARY:
        raise ValueError(f"the space {description.space!r} is not known here")
    kind = KnownArchitecture if space is None else space.architecture_class
    return kind.from_json(json.dumps(description.architecture))


def _space_name(architecture: Architecture) -> str:
    for name, space in SPACES.items():
        if type(architecture) is space.architecture_class:
            return name
    return LIBRARY if isinstance(architecture, KnownArchitecture) else type(architecture).__name__


def _keep(folder: Path, weights: bytes, description: Description, images: Images) -> None:
    """Write the network; its description comes last and makes it complete."""
    write_whole(folder / WEIGHTS, weights)
    judged = description.judgement
    if judged is not None and judged.mistakes:
        sheet = mistakes_png(judged, images.test_images, images.test_names)
        write_whole(folder / MISTAKES, sheet)
    page = card(folder.resolve().name, description)
    write_whole(folder / CARD, page.encode(errors="backslashreplace"))
    write_whole(folder / NETWORK, json.dumps(dataclasses.asdict(description), indent=1).encode())
    (folder / TRAINING).unlink(missing_ok=True)
