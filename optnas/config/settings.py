"""What a user can say about data and training: keys, defaults, bounds and help.

The study file is made of these, and the objectives take them, so each key exists once.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from optnas.config.recipes import (
    Schedule,
    Settings,
    TrainSettings,
    check_compile,
    check_cycles,
    check_milestones,
    initial_recipe,
    said_of,
)
from optnas.trials.attributes import MAX_EPOCHS

__all__ = [
    "Augmentation",
    "CheckpointSettings",
    "DataSettings",
    "NetworkSettings",
    "RetrainSettings",
    "SearchSettings",
    "Settings",
    "TrainSettings",
    "check_compile",
    "check_cycles",
    "check_milestones",
    "initial_recipe",
    "said_of",
]

Augmentation = Literal["crop", "flip", "cutout", "resized_crop", "jitter"]


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
    crop_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the sides that is kept in the middle of an image before it is "
        "resized: 0.875 with `resize: crop` is the 224 of 256 pixels of ImageNet's papers.",
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
    stem: Literal["small", "large", "7x7"] | None = Field(
        None,
        description="The first layers of a chain, of a network of cells or of stages, or of one "
        "that grows: three `large` convolutions halve the resolution three times, one of `7x7` "
        "and a maximum twice, for images such as those of ImageNet. Default: `small`, for stages "
        "the one of their kind.",
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

    operation: str | Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = Field(
        "skip_connect",
        description="Operation of every edge while the topology is searched for: `skip_connect`, "
        "`max_pool_3x3`, `sep_conv_3x3` or another one of the space, or several, weighed by what "
        "is learnt.",
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
    warmup_epochs: int | None = Field(
        None,
        ge=0,
        description="Epochs of a search for operators, or for all at once, in which the weights "
        "learn alone. Default: 0, of PC-DARTS (as under `lr`) three tenths: 15 of 50.",
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
    lr: float | None = Field(
        None,
        gt=0,
        description="Learning rate of the weights at the start. Default: 0.025, of PC-DARTS (all "
        "operations and edges at once, on a part of the channels) 0.1.",
    )
    final_lr: float | None = Field(
        None,
        ge=0,
        description="Learning rate of the weights that a cosine ends at. Default: 0, of DARTS "
        "(all operations and edges at once, on all channels) 0.001.",
    )
    schedule: Literal["cosine", "constant"] = Field("cosine", description="As in `train`.")
    weight_decay: float = Field(3e-4, ge=0, description="Weight decay of the weights.")
    architecture_lr: float | None = Field(
        None,
        gt=0,
        description="Learning rate of the architecture. Default: 6e-4, of DARTS 3e-4.",
    )
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

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations of an edge while the topology is searched for."""
        return (self.operation,) if isinstance(self.operation, str) else self.operation

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.epochs is not None and self.iterations is not None:
            raise ValueError("give `epochs` or `iterations`, not both")
        if self.weight_share + self.architecture_share > 1 + 1e-9:
            raise ValueError("`weight_share` and `architecture_share` must be at most 1 together")
        return self


class RetrainSettings(Settings):
    """How the networks found are trained in the end; what is not said is as in the search."""

    epochs: int = Field(600, ge=1, le=MAX_EPOCHS, description="Epochs of `optnas retrain`.")
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
    schedule: Schedule | None = Field(None, description="As in `train`.")
    final_lr: float | None = Field(None, ge=0, description="As in `train`.")
    power: float | None = Field(None, gt=0, description="As in `train`.")
    warmup_epochs: int | None = Field(None, ge=0, description="As in `train`.")
    optimizer: Literal["sgd", "adamw"] | None = Field(None, description="As in `train`.")
    momentum: float | None = Field(None, ge=0, lt=1, description="As in `train`.")
    nesterov: bool | None = Field(None, description="As in `train`.")
    milestones: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, strict=False, description="As in `train`."
    )
    weight_decay: float | None = Field(None, ge=0, description="Weight decay.")
    decay_norms: bool | None = Field(None, description="As in `train`.")
    decay_biases: bool | None = Field(None, description="As in `train`.")
    clip: float | None = Field(None, gt=0, description="As in `train`.")
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="As in `train`.")
    mixup: float | None = Field(None, ge=0, description="As in `train`.")
    cutmix: float | None = Field(None, ge=0, description="As in `train`.")
    ema: float | None = Field(None, ge=0, lt=1, description="As in `train`.")
    batch_size: int | None = Field(None, ge=1, description="Images per step.")
    precision: Literal["auto", "float32", "bfloat16"] | None = Field(
        None, description="As in `train`."
    )
    threads: int | None = Field(None, ge=1, le=1024, description="As in `train`.")
    deterministic: bool | None = Field(None, description="As in `train`.")
    graphs: bool | None = Field(None, description="As in `train`.")
    kernels: Literal["auto", "torch"] | None = Field(None, description="As in `train`.")
    class_weights: Literal["balanced"] | None = Field(None, description="As in `train`.")
    augment: tuple[Augmentation, ...] | None = Field(
        None, strict=False, description="Augmentations in use."
    )
    drop_path: float | None = Field(None, ge=0, lt=1, description="As in `train`.")
    auxiliary: float | None = Field(None, ge=0, description="As in `train`, for cell networks.")
    data: DataSettings | None = Field(
        None,
        description="Images to train on and to test with instead of the search's: the keys of "
        "`data`, of which none is taken over.",
    )
    network: NetworkSettings | None = Field(
        None, description="The size of the networks, where it is not as in the search."
    )
    local_norms: bool = Field(
        False,
        description="Whether, on several GPUs, batch normalisation sees the images of one GPU "
        "alone, which is faster and another training. Default: those of all.",
    )
    compile: bool = Field(
        False,
        description="Compile every network with `torch.compile` before it is trained: a minute, "
        "which only long trainings can win back. Neither with `drop_path` nor with `auxiliary`.",
    )

    def recipe(self, train: TrainSettings) -> TrainSettings:
        """How to train: ``train``, the search's, with what these settings say otherwise."""
        given = self.model_dump(exclude_none=True, include=set(TrainSettings.model_fields))
        return train.model_copy(update=given)
