"""The keys of a study file: types, defaults, bounds and help."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from optnas.config.plugins import Kind
from optnas.config.proxy import Proxy, proxy_from
from optnas.config.settings import (
    CheckpointSettings,
    DataSettings,
    NetworkSettings,
    RetrainSettings,
    Settings,
    TrainSettings,
)

#: The blocks that name a plugin and hold its options.
PLUGINS: tuple[Kind, ...] = ("space", "sampler", "pruner", "objective")

#: What a constructor gets from elsewhere in the file, so that it is no option of the block.
SUPPLIED: Mapping[Kind, frozenset[str]] = {
    "space": frozenset(),
    "sampler": frozenset({"space", "in_channels", "classes", "seed", "max_retries"}),
    "pruner": frozenset(),
    "objective": frozenset(
        {
            "space",
            "data",
            "images",
            "checkpoints",
            "on_epoch",
            "train",
            "network",
            "proxy",
            "limits",
            "seed",
            "checkpoint",
            "device",
            "folder",
            "known",
        }
    ),
}

#: Epochs of every candidate where neither the sampler nor the file says them.
DEFAULT_EPOCHS = 20


class Choice(Settings):
    """A plugin's name, and its options beside it."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="A known name, or `module:Name` of your own.")

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name, as plain JSON values."""
        return dict(self.model_extra or {})


class Budget(Settings):
    """Totals of the whole study, shared by all workers; null is no limit."""

    trials: int | None = Field(default=None, ge=1, description="Trials of the study.")
    epochs: int | None = Field(
        default=None, ge=1, description="Epochs trained, summed over the trials."
    )
    hours: float | None = Field(
        default=None, gt=0, description="Hours of training, summed over the trials."
    )


_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


class Resources(Settings):
    """What a cluster gives to every worker; one machine's workers share what there is."""

    gpus: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="GPUs of a worker: 0, 1, or on Ray a part of one that others share. Default: "
        "1 where the cluster has any.",
    )
    cpus: int | None = Field(
        default=None, ge=1, description="Processors of a worker. Default: `train.threads`."
    )
    memory: Annotated[str, Field(pattern=r"^[1-9]\d*(\.\d+)?[MGT]B$")] | None = Field(
        default=None,
        description="Memory that is kept for a worker, such as `4GB`. Default: none is.",
    )

    @property
    def memory_bytes(self) -> int | None:
        """The memory as a number; None if none is kept."""
        if self.memory is None:
            return None
        return round(float(self.memory[:-2]) * _UNITS[self.memory[-2:]])


class Workers(Settings):
    """How many workers there are, on which devices or with what of a cluster."""

    count: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Number of processes; on a cluster the most there may be. Default: 1, unless "
        "`per_device` says how many; on Ray as many as there is room for.",
    )
    devices: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Torch devices, dealt out to the workers in turn. Default: CUDA where there "
        "is one.",
    )
    per_device: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Processes on each of the devices, in place of `count`.",
    )
    streams: int = Field(
        default=1,
        ge=1,
        le=8,
        description="Trials that each process trains at once: threads, on a GPU a CUDA stream "
        "each, which share its images and memory.",
    )
    max_restarts: int = Field(
        default=10, ge=0, description="How many workers that died are replaced in one run."
    )

    resources: Resources = Field(
        default_factory=Resources,
        description="What a cluster (Ray, Slurm) gives to every worker, in place of `devices` and "
        "`per_device`.",
    )

    @model_validator(mode="after")
    def _counts_once(self) -> Self:
        if self.count is not None and self.per_device is not None:
            raise ValueError("`count` and `per_device` both say how many there are: give one")
        if self.per_device is not None and len(set(self.devices)) < len(self.devices):
            raise ValueError("with `per_device` every device is named once")
        return self

    def device(self, number: int) -> str | None:
        """The device of a worker; None leaves it to the objective."""
        return self.devices[number % len(self.devices)] if self.devices else None


class Limits(Settings):
    """What a network may cost; candidates beyond a limit are infeasible."""

    params: int | None = Field(default=None, ge=1, description="Greatest number of parameters.")
    multiply_adds: int | None = Field(
        default=None, ge=1, description="Greatest number of multiply-adds for one image."
    )


def _study_name(name: str) -> str:
    if not name.isprintable() or "/" in name or "\\" in name:
        raise ValueError("expected a name without control characters, '/' and '\\'")
    # It becomes a file's name, and file systems count bytes.
    if len(name.encode()) > 200:
        raise ValueError("expected at most 200 bytes of UTF-8")
    return name


ProxySetting = Annotated[
    Proxy,
    BeforeValidator(proxy_from),
    PlainSerializer(str),
    WithJsonSchema({"type": ["string", "object"], "pattern": "^c[0-4]r[0-4]s[0-4]e[1-9][0-9]*$"}),
]


class StudyKeys(Settings):
    """What a study file can say."""

    study: Annotated[str, AfterValidator(_study_name)] = Field(
        min_length=1, max_length=200, description="The study's name in its storage."
    )
    storage: str = Field(
        "",
        min_length=1,
        repr=False,  # It may hold a password.
        description="URL of a database (sqlite, postgresql, mysql), of a journal file "
        "(`journal:///PATH`) or of a grpc server. Default: `sqlite:///STUDY.db` beside the "
        "study file.",
    )
    artifacts: str = Field(
        "",
        min_length=1,
        description="Where checkpoints and drawings are kept: a folder, `s3://BUCKET/PREFIX` "
        "or `gs://BUCKET/PREFIX`. Default: `STUDY.artifacts` beside the storage's file, or beside "
        "the study file.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=2**63 - 1,
        description="Seed of everything random. Default: derived from the study's name.",
    )
    space: Choice = Field(Choice(name="chain"), description="The search space and its options.")
    sampler: Choice = Field(
        Choice(name="macro_micro"), description="The search strategy and its options."
    )
    pruner: Choice = Field(
        Choice(name="none"), description="What stops a hopeless training early, and its options."
    )
    objective: Choice = Field(
        Choice(name="classification"), description="What a trial computes, and its options."
    )
    data: DataSettings | None = Field(
        None,
        description="The images to learn: a data set's name, or its keys. Required, unless the "
        "objective needs no images.",
    )
    train: TrainSettings = Field(
        default_factory=lambda: TrainSettings.model_validate({}),
        description="How a candidate is trained.",
    )
    network: NetworkSettings = Field(
        default_factory=NetworkSettings,
        description="The size of the networks, for spaces that leave it open.",
    )
    proxy: ProxySetting | None = Field(
        None,
        description="The reduced setting in which candidates are judged, such as `c4r4s0e60`: "
        "channels, resolution and samples in 0 to 4 steps of halved cost, and epochs. Default: "
        "the full setting.",
    )
    retrain: RetrainSettings = Field(
        default_factory=RetrainSettings, description="How the networks found are trained."
    )
    checkpoint: CheckpointSettings = Field(
        default_factory=lambda: CheckpointSettings.model_validate({}),
        description="When training state is saved, and whose weights stay.",
    )
    budget: Budget = Field(
        default_factory=Budget, description="Where the search ends before its own end."
    )
    workers: Workers = Field(
        default_factory=Workers,
        description="The workers that run the study: processes of this machine, or of a cluster.",
    )
    limits: Limits = Field(default_factory=Limits, description="What a network may cost.")
    max_retries: int = Field(
        5, ge=0, description="How often a candidate whose worker died is tried again."
    )


#: Blocks that may stand empty, as when all their keys are commented out.
OPTIONAL_BLOCKS = ("train", "network", "retrain", "checkpoint", "budget", "workers", "limits")
