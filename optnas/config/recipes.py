"""The recipe of a training: keys, defaults, bounds and help, and what does not go together."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from optnas.trials.attributes import MAX_EPOCHS

Schedule = Literal["cosine", "linear", "polynomial", "step", "constant"]


class Settings(BaseModel):
    """A block of keys: immutable, no unknown keys, no NaN, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class TrainSettings(Settings):
    """How a network is trained."""

    epochs: int | None = Field(
        None,
        ge=1,
        le=MAX_EPOCHS,
        description="Epochs of every candidate, if the sampler does not choose them (default 20).",
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="The optimiser.")
    lr: float = Field(0.025, gt=0, description="Learning rate at the start.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(False, description="Whether it is Nesterov's.")
    weight_decay: float = Field(3e-4, ge=0, description="Weight decay.")
    decay_norms: bool = Field(
        True, description="Whether weight decay is for the normalisations' scales and shifts too."
    )
    decay_biases: bool = Field(True, description="Whether weight decay is for biases too.")
    batch_size: int = Field(64, ge=1, description="Images per step.")
    schedule: Schedule = Field(
        "cosine",
        description="Learning rate over the epochs: as a cosine, a line or a polynomial to "
        "`final_lr`, constant, or in steps, to a tenth after half of the epochs and to a "
        "hundredth after three quarters, or at the `milestones`.",
    )
    final_lr: float = Field(
        0.0, ge=0, description="What a cosine, a line or a polynomial ends at, after the epochs."
    )
    power: float = Field(2.0, gt=0, description="Exponent of the `polynomial` schedule.")
    warmup_epochs: int = Field(
        0,
        ge=0,
        description="Epochs before the schedule, in which the rate rises in equal steps to `lr`; "
        "they are among the epochs.",
    )
    milestones: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        strict=False,
        description="Finished epochs after each of which the `step` schedule divides the rate by "
        "ten.",
    )
    cycles: int = Field(
        1,
        ge=1,
        description="Equal cosine cycles, each from `lr` to zero (SGDR); must divide the epochs.",
    )
    initial_epochs: int | None = Field(
        None,
        ge=1,
        description="Epochs, in one cycle, of a network without a parent, where others start from "
        "their parents' weights. Default: as many as the others.",
    )
    initial_weight_decay: float | None = Field(
        None, ge=0, description="The same network's weight decay. Default: as the others'."
    )
    initial_drop_path: float | None = Field(
        None, ge=0, lt=1, description="The same network's `drop_path`. Default: as the others'."
    )
    clip: float | None = Field(5.0, gt=0, description="Greatest norm of the gradient, or null.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast on CUDA where supported, float32 on CPU."
    )
    threads: int = Field(
        1, ge=1, le=1024, description="CPU threads of one worker; results depend on it."
    )
    deterministic: bool = Field(False, description="Bitwise repeatable on CUDA too, but slower.")
    graphs: bool = Field(
        True,
        description="Replay training steps as CUDA graphs, where they can be; false runs every "
        "operation of its own, slower.",
    )
    kernels: Literal["auto", "torch"] = Field(
        "auto",
        description="auto: on CUDA, kernels of optnas's own where there are any, and shapes that "
        "few kernels have to be made for; results differ in rounding. torch: PyTorch's alone, as "
        "on the CPU in any case.",
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Fraction of paths dropped in the last epoch, growing linearly from zero, in "
        "networks of cells and of increments.",
    )
    auxiliary: float = Field(
        0.0, ge=0, description="Weight of the loss of a cell network's auxiliary head."
    )
    class_weights: Literal["balanced"] | None = Field(
        None,
        description="`balanced`: all classes count alike in the loss, whatever number of images "
        "they have. Default: all images do.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the target that all classes are given alike."
    )
    mixup: float = Field(
        0.0,
        ge=0,
        description="Both parameters of the beta distribution by which two images and their "
        "labels are mixed; 0 mixes none. With `cutmix`, each batch has the one or the other.",
    )
    cutmix: float = Field(
        0.0, ge=0, description="The same, by which a rectangle of another image is pasted in."
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay, per step, of the moving average of the weights that is judged and "
        "kept, such as 0.9999; 0: the weights themselves are.",
    )


def check_milestones(train: TrainSettings) -> None:
    """Refuse milestones that say nothing, or nothing clear.

    Raises:
        ValueError: If the schedule is not in steps, or they do not ascend.
    """
    if train.milestones is None:
        return
    if train.schedule != "step":
        raise ValueError(f"`milestones` are for the step schedule, not {train.schedule!r}.")
    if list(train.milestones) != sorted(set(train.milestones)):
        raise ValueError(f"`milestones` must ascend: {list(train.milestones)}.")


def initial_recipe(train: TrainSettings) -> TrainSettings:
    """How a network without a parent is trained, where others start from their parents'."""
    given = {"weight_decay": train.initial_weight_decay, "drop_path": train.initial_drop_path}
    if train.initial_epochs is not None:
        given |= {"epochs": train.initial_epochs, "cycles": 1}
    return train.model_copy(update={k: v for k, v in given.items() if v is not None})


def check_cycles(train: TrainSettings, epochs: int) -> None:
    """Refuse cycles that a training of ``epochs`` cannot have.

    Raises:
        ValueError: If the cycles would differ in length, the schedule has none, or nothing is left
            after the warm-up.
    """
    if train.cycles > 1 and train.schedule != "cosine":
        raise ValueError(f"`cycles` are for the cosine schedule, not {train.schedule!r}.")
    if train.warmup_epochs >= epochs:
        raise ValueError(
            f"`warmup_epochs` must be fewer than the {epochs} epochs: {train.warmup_epochs}."
        )
    if (epochs - train.warmup_epochs) % train.cycles:
        after = f" after {train.warmup_epochs} of warm-up" if train.warmup_epochs else ""
        raise ValueError(
            f"`cycles` must divide the {epochs - train.warmup_epochs} epochs{after}: "
            f"{train.cycles}."
        )


def check_compile(train: TrainSettings) -> None:
    """Refuse a recipe whose networks cannot be compiled before they are trained.

    Raises:
        ValueError: If it has drop-path, for which a network would be compiled anew in every epoch,
            or the loss of an auxiliary head, which is not part of what is compiled.
    """
    if train.drop_path or train.auxiliary:
        raise ValueError("`compile` must be false with `drop_path` and with `auxiliary`.")


_FIRST = frozenset(
    (
        *("batch_size", "clip", "cycles", "deterministic", "drop_path", "auxiliary", "lr"),
        *("momentum", "optimizer", "precision", "schedule", "threads", "weight_decay"),
    )
)
"""What was always said of a training; what came later is said where it is not the usual."""


def said_of(train: TrainSettings) -> dict[str, Any]:
    """The recipe as JSON values, without what is as it was before it could be otherwise.

    So a training that was described then is known. The number of epochs, and how the training is
    computed, are no part of it.
    """
    unsaid = {"epochs", "graphs", "kernels"}
    unsaid |= {name for name in dict(train) if name.startswith("initial_")}
    unsaid |= {"cycles"} if train.cycles == 1 else set()
    for name, field in TrainSettings.model_fields.items():
        if name not in _FIRST and getattr(train, name) == field.default:
            unsaid.add(name)
    return train.model_dump(mode="json", exclude=unsaid)
