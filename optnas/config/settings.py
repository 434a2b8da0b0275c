"""What a user can say about data and training: keys, defaults, bounds and help.

The study file is made of these, and the objectives take them, so each key exists once.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Augmentation = Literal["crop", "flip", "cutout"]


class Settings(BaseModel):
    """A block of keys: immutable, no unknown keys, no NaN, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class DataSettings(Settings):
    """Which images to learn, and how they are split and augmented."""

    name: str = Field(
        description="A known data set (`optnas list`) or `module:function` of your own."
    )
    root: str | None = Field(None, description="Folder that holds the data set.")
    download: bool = Field(False, description="Download the data set into `root` if it is absent.")
    validation: (
        Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | Literal["test"] | None
    ) = Field(
        None,
        description="Images held out of the training set to judge candidates: a number or a "
        "fraction. `test` judges by the test set, as some papers do, and warns. Default: the "
        "data set's own.",
    )
    augment: tuple[Augmentation, ...] | None = Field(
        None, strict=False, description="Augmentations in use. Default: the data set's own."
    )
    classes: tuple[Annotated[int, Field(ge=0)] | str, ...] | None = Field(
        None,
        strict=False,
        min_length=2,
        description="Only these classes, by name, or by index from 0; a number is a name where "
        "all names are numbers.",
    )
    samples: float = Field(
        1.0, gt=0, le=1, description="Fraction of the training images to use, drawn per class."
    )
    size: int | None = Field(
        None, ge=4, le=1024, description="Height and width in pixels, for `images` folders."
    )
    stream: bool = Field(
        False,
        description="Read the images of an `images` folder when they are needed, instead of "
        "keeping all of them in memory.",
    )
    labels: str | None = Field(
        None,
        min_length=1,
        description="Table of the classes of an `images` folder, instead of a folder per class: "
        "CSV or JSON lines with the columns file, label and, if wanted, split.",
    )
    resize: Literal["squash", "crop", "pad"] = Field(
        "squash",
        description="How images that are not square become so: both sides are scaled, the middle "
        "is cut out, or the background is added.",
    )
    background: str = Field(
        "white",
        pattern=r"^(#[0-9A-Fa-f]{6}|[A-Za-z]+)$",
        description="Colour below transparent images and around padded ones: a name, or #RRGGBB.",
    )
    unreadable: Literal["leave_out", "refuse"] = Field(
        "leave_out",
        description="What becomes of image files that cannot be read: up to 5 % of a class are "
        "left out and named, or all are refused.",
    )
    layout: Literal["NHW", "NHWC", "NCHW"] | None = Field(
        None,
        description="Order of the axes of the arrays of a `module:function`. Default: told by "
        "where the channels stand.",
    )
    channels: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Channels of the images. Default: 1 or 3, as they are found.",
    )
    reading: Literal[1, 2] = Field(
        2,
        description="Rules by which own images are found, decoded, ordered and split; studies of "
        "version 0.1 have 1.",
    )


class TrainSettings(Settings):
    """How a network is trained."""

    epochs: int | None = Field(
        None,
        ge=1,
        description="Epochs of every candidate, if the sampler does not choose them (default 20).",
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="The optimiser.")
    lr: float = Field(0.025, gt=0, description="Learning rate at the start.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(3e-4, ge=0, description="Weight decay.")
    decay_norms: bool = Field(
        True, description="Whether weight decay is for the normalisations' scales and shifts too."
    )
    batch_size: int = Field(64, ge=1, description="Images per step.")
    schedule: Literal["cosine", "step", "constant"] = Field(
        "cosine",
        description="Learning rate over the epochs: cosine to zero, constant, or in steps, to a "
        "tenth after half of the epochs and to a hundredth after three quarters, or at the "
        "`milestones`.",
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
    clip: float | None = Field(5.0, gt=0, description="Greatest norm of the gradient, or null.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast on CUDA where supported, float32 on CPU."
    )
    threads: int = Field(1, ge=1, description="CPU threads of one worker; results depend on it.")
    deterministic: bool = Field(False, description="Bitwise repeatable on CUDA too, but slower.")
    graphs: bool = Field(
        True,
        description="Replay training steps as CUDA graphs, where they can be; false runs every "
        "operation of its own, slower.",
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


def check_cycles(train: TrainSettings, epochs: int) -> None:
    """Refuse cycles that a training of ``epochs`` cannot have.

    Raises:
        ValueError: If the cycles would differ in length, or the schedule has none.
    """
    if train.cycles > 1 and train.schedule != "cosine":
        raise ValueError(f"`cycles` are for the cosine schedule, not {train.schedule!r}.")
    if epochs % train.cycles:
        raise ValueError(f"`cycles` must divide the {epochs} epochs: {train.cycles}.")


def check_compile(train: TrainSettings) -> None:
    """Refuse a recipe whose networks cannot be compiled before they are trained.

    Raises:
        ValueError: If it has drop-path, for which a network would be compiled anew in every epoch,
            or the loss of an auxiliary head, which is not part of what is compiled.
    """
    if train.drop_path or train.auxiliary:
        raise ValueError("`compile` must be false with `drop_path` and with `auxiliary`.")


class CheckpointSettings(Settings):
    """When training state is saved, and whose stays."""

    every: Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^[1-9]\d*s$")] = Field(
        1,
        description="Epochs between two checkpoints of a training, or seconds as in `60s`; the "
        "last epoch always has one. What lies between is trained again after a loss.",
    )
    keep: Annotated[str, Field(pattern=r"^(hull|all|best:[1-9]\d*)$")] | None = Field(
        None,
        description="Whose weights stay, beyond those that the search may still need: `hull` (the "
        "most cost-efficient networks), `best:K` or `all`. Default: nobody's.",
    )

    def is_due(self, epoch: int, seconds: float) -> bool:
        """Whether to save after ``epoch`` epochs, ``seconds`` after the last time."""
        if isinstance(self.every, int):
            return epoch % self.every == 0
        return seconds >= int(self.every.removesuffix("s"))


class NetworkSettings(Settings):
    """The size of a network, for spaces whose architectures leave it open."""

    cells: int | None = Field(
        None, ge=1, description="Number of cells. Default: the network's own (20 for `cell`)."
    )
    channels: int | None = Field(
        None, ge=1, description="Channels of the first cells. Default: the network's own."
    )
    concat: Literal["loose", "all"] | None = Field(
        None,
        description="Nodes that make a cell's output: the unused ones (the default), or all.",
    )
    stem: Literal["small", "large"] | None = Field(
        None,
        description="The first layers of a network of cells: `large` ones halve the resolution "
        "three times, for images such as those of ImageNet. Default: `small`.",
    )
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of the last features that a face network leaves out in training. "
        "Default: 0.4.",
    )
    gate: bool | None = Field(
        None,
        description="Whether what a growing network adds is multiplied by a learnt number, zero "
        "at first, so that a child begins as its parent. Default: no.",
    )


class SearchSettings(Settings):
    """How a super-network is built and trained, whose edges or operations are searched for."""

    operation: str = Field(
        "skip_connect",
        description="Operation of every edge while the topology is searched for: `skip_connect`, "
        "`max_pool_3x3`, `sep_conv_3x3` or another one of the space.",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        description="Epochs of a search for the topology. Default: 1, unless there are "
        "`iterations`.",
    )
    iterations: int | None = Field(
        None, ge=1, description="Steps of a search for the topology, instead of epochs."
    )
    operator_epochs: int = Field(
        50, ge=1, description="Epochs of a search for operators, or for all at once."
    )
    cells: int | None = Field(
        None,
        ge=3,
        description="Number of cells; of fewer than three, all would reduce. Default: 8, for "
        "`nasbench201` 15.",
    )
    channels: int | None = Field(None, ge=1, description="Channels of the first cells, 16.")
    partial: int | None = Field(
        None,
        ge=1,
        description="One channel in so many takes part in an edge, as in PC-DARTS. Default: 4, "
        "for `nasbench201` 1, which is all.",
    )
    edge_weights: bool = Field(
        True, description="Whether edges have weights of their own where operations have them."
    )
    second_order: bool = Field(
        False, description="Whether the architecture's gradient looks a step of the weights ahead."
    )
    batch_size: int = Field(256, ge=1, description="Images per step, of either share.")
    lr: float = Field(0.025, gt=0, description="Learning rate of the weights at the start.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="As in `train`.")
    weight_decay: float = Field(3e-4, ge=0, description="Weight decay of the weights.")
    architecture_lr: float = Field(6e-4, gt=0, description="Learning rate of the architecture.")
    architecture_weight_decay: float = Field(
        1e-3, ge=0, description="Weight decay of the architecture."
    )
    weight_share: float = Field(
        0.5, gt=0, lt=1, description="Fraction of the training split that the weights learn from."
    )
    architecture_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Fraction of the training split, disjoint from the first, that the "
        "architecture learns from.",
    )
    eigenvalue: bool = Field(
        False,
        description="Whether the largest eigenvalue of the loss's Hessian with respect to the "
        "architecture is recorded for every epoch.",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.epochs is not None and self.iterations is not None:
            raise ValueError("give `epochs` or `iterations`, not both")
        if self.weight_share + self.architecture_share > 1 + 1e-9:
            raise ValueError("`weight_share` and `architecture_share` must be at most 1 together")
        return self


class RetrainSettings(Settings):
    """How the networks found are trained in the end; what is not said is as in the search."""

    epochs: int = Field(600, ge=1, description="Epochs of `optnas retrain`.")
    top: int | None = Field(
        None, ge=1, description="Number of networks. Default: as many as the strategy says, or 1."
    )
    repeats: int = Field(
        1,
        ge=1,
        description="Trainings of each network, every one with a seed of its own; the mean and "
        "the standard deviation of their test accuracies are reported.",
    )
    cycles: int = Field(1, ge=1, description="As in `train`, but one unless it is said here.")
    lr: float | None = Field(None, gt=0, description="Learning rate at the start.")
    schedule: Literal["cosine", "step", "constant"] | None = Field(
        None, description="As in `train`."
    )
    milestones: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, strict=False, description="As in `train`."
    )
    weight_decay: float | None = Field(None, ge=0, description="Weight decay.")
    decay_norms: bool | None = Field(None, description="As in `train`.")
    batch_size: int | None = Field(None, ge=1, description="Images per step.")
    augment: tuple[Augmentation, ...] | None = Field(
        None, strict=False, description="Augmentations in use."
    )
    drop_path: float | None = Field(None, ge=0, lt=1, description="As in `train`.")
    auxiliary: float | None = Field(None, ge=0, description="As in `train`, for cell networks.")
    compile: bool = Field(
        False,
        description="Compile every network with `torch.compile` before it is trained: a minute, "
        "which only long trainings can win back. Neither with `drop_path` nor with `auxiliary`.",
    )

    def recipe(self, train: TrainSettings) -> TrainSettings:
        """How to train: ``train``, the search's, with what these settings say otherwise."""
        given = self.model_dump(exclude_none=True, include=set(TrainSettings.model_fields))
        return train.model_copy(update=given)
