"""What optnas asks of samplers, pruners and objectives, and what it takes for granted.

Nothing has to be derived from these protocols. A sampler of Optuna's own offers none of it, and
one of somebody else's may offer a part: what is missing has the defaults that are written here,
and nobody else asks whether it is there.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from optuna.study import Study
    from optuna.trial import Trial

    from optnas.config.proxy import Proxy
    from optnas.config.settings import NetworkSettings, TrainSettings
    from optnas.spaces import Architecture, Space


class Stretch(Protocol):
    """Trials that a strategy may still ask for, all of a kind."""

    @property
    def phase(self) -> str:
        """What they are for, in a word."""

    @property
    def trials(self) -> int:
        """How many there are."""

    @property
    def epochs(self) -> int | None:
        """Epochs of each; None leaves them to the study's training."""

    @property
    def architecture(self) -> "Architecture | None":
        """A network such as they train; None for any of the space."""


class Outlook(Protocol):
    """What is ahead of a search that comes to an end by itself."""

    @property
    def least(self) -> Sequence[Stretch]:
        """A course with the fewest trials."""

    @property
    def most(self) -> Sequence[Stretch]:
        """A course with the most trials."""

    @property
    def likely(self) -> Sequence[Sequence[Stretch]]:
        """Courses that are equally likely."""


class Strategy(Protocol):
    """A sampler; the defaults are those of Optuna's own."""

    @property
    def is_stock(self) -> bool:
        """Whether it knows nothing of optnas, which then seeds its draws and writes its leases.

        It takes seeds of 32 bits and never comes to an end. Default: whether it has no
        ``is_finished``.
        """

    @property
    def has_end(self) -> bool:
        """Whether it comes to an end by itself. Default: whether it is not a stock sampler."""

    @property
    def sets_epochs(self) -> bool:
        """Whether it proposes the parameter ``epochs``. Default: no."""

    @property
    def epochs_range(self) -> tuple[int, int] | None:
        """Least and most epochs that it proposes. Default: None, any number."""

    @property
    def inherits(self) -> bool:
        """Whether networks start from the weights of others, whatever the space. Default: no."""

    @property
    def needs_objective(self) -> str | None:
        """The objective that study files must name, or one of their own. Default: any."""

    @property
    def phases(self) -> Sequence[str] | None:
        """Values of the parameter ``phase``, which says what a trial does. Default: none."""

    @property
    def retrained(self) -> int:
        """How many of the networks found are trained fully. Default: 1."""

    def is_finished(self, study: "Study") -> bool:
        """Whether it has come to its end. Default: no."""

    def outlook(self, study: "Study", rng: "np.random.Generator") -> Outlook | None:
        """What is ahead of the search. Default: None, it has no end or does not say."""

    def ways_ahead(self, study: "Study", number: int, rng: Any) -> "Sequence[Any] | None":
        """Likely courses of so many trials, where a budget ends it. Default: None, any."""

    def candidates(self, study: "Study") -> "list[tuple[int, Architecture, float]] | None":
        """Trial, architecture and value of what would be trained fully, best first.

        Default: None, which means the best trials.
        """

    @property
    def weights_needed(self) -> "Callable[[Study], Collection[int]] | None":
        """Says from which trials' weights later ones may start. Default: None, nobody knows."""

    def parent_probabilities(self, study: "Study") -> Mapping[int, float]:
        """Trials that the next network may start from, with probabilities. Default: none."""


class Pruning(Protocol):
    """A pruner."""

    @property
    def whole_training(self) -> int | None:
        """Epochs of the trainings that it is made for. Default: None, any number."""

    def mean_epochs(self, epochs: int) -> tuple[float, float]:
        """Between which bounds the mean of the epochs of trainings of ``epochs`` is.

        Default: between a quarter and all of them, of Optuna's that never prunes all of them.
        """


class Rehearsal(Protocol):
    """What a network costs, before it is trained: `optnas.objectives.rehearsal.Rehearsal`."""

    params: int
    multiply_adds: int
    memory_bytes: int
    state_bytes: int
    epochs: int | None
    images: int
    final_images: int
    device: str
    seconds: float | None
    trouble: str | None


class Objective(Protocol):
    """What a trial computes.

    The class may have a class method ``from_settings``, which makes one for a study file. It
    takes by name what it needs of ``space``, ``data``, ``images``, ``train``, ``network``,
    ``proxy``, ``limits``, ``seed``, ``checkpoint``, ``checkpoints``, ``on_epoch``, ``device`` and
    ``folder``; its other parameters are the options of the file.

    With `workers: {streams: N}` one objective is called by N threads at once: it keeps nothing of
    a trial in itself, draws from generators of its own, and changes no switch of the process.
    """

    @property
    def in_channels(self) -> int:
        """Channels of the images."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    def __call__(self, trial: "Trial") -> float:
        """The value of a trial."""

    @property
    def retrain(self) -> Callable[..., Any] | None:
        """Train a network fully, as `Classification.retrain`. Default: None, it trains nothing."""

    @property
    def ensemble(self) -> Callable[..., Any] | None:
        """Make one of retrained networks, as `Classification.ensemble`. Default: None."""

    @property
    def rehearse(self) -> Callable[..., Rehearsal] | None:
        """Say what a network costs, as `Classification.rehearse`. Default: None, nobody knows."""

    @property
    def reference(self) -> Callable[..., Any] | None:
        """Train a known network, as `Classification.reference`; with it come ``references`` and
        ``inference_milliseconds``. Default: None, it knows none."""

    @property
    def score(self) -> "Callable[[Architecture, str], float] | None":
        """What a column of a table says of a network. Default: None, there is no table."""


class ObjectiveClass(Protocol):
    """The class of an objective, before there is any data."""

    @property
    def needs_data(self) -> bool:
        """Whether a study needs images. Default: yes."""

    @property
    def trains(self) -> bool:
        """Whether a trial takes so long that a comparison stores its studies. Default: yes."""

    @property
    def load_images(self) -> Callable[..., Any] | None:
        """Loads the images of a study file, of which it takes what ``from_settings`` may take, and
        ``known``: what the study has recorded of its data.

        Images that have a ``reading`` (`optnas.study.data.DataReading`) are said before the first
        trial, recorded with the study, and compared with that when it goes on.

        That is before the study is opened; ``from_settings`` gets them as ``images``. Default:
        None, ``from_settings`` loads what it needs.
        """

    def inference_times(
        self,
        shapes: "Mapping[Architecture, tuple[int, int, int]]",
        classes: int,
        *,
        network: "NetworkSettings",
        train: "TrainSettings",
        proxy: "Proxy | None",
    ) -> "tuple[Mapping[Architecture, float], str]":
        """Milliseconds for one image, by architecture, and the processor. Default: none.

        Args:
            shapes: Channels, height and width of the image, by architecture.
            classes: Number of classes.
            network: The size of the networks.
            train: How they were trained.
            proxy: The reduced setting in which they were judged.
        """


class Described(Protocol):
    """An architecture that people read of."""

    @property
    def depth(self) -> int | None:
        """Number of layers or modules. Default: None, its kind has none."""

    @property
    def num_params(self) -> Callable[[int, int], int] | None:
        """Parameters for so many channels and classes. Default: None, the network knows."""


class DataSet(Protocol):
    """What an entry point of the group ``optnas.data`` names."""

    @property
    def description(self) -> str:
        """One line for people who choose. Default: the first of its docstring."""


class _Stock:
    """The defaults of a sampler that has no ``is_finished``."""

    is_stock = True
    has_end = False
    sets_epochs = False
    epochs_range = None
    inherits = False
    needs_objective = None
    phases = None
    retrained = 1
    weights_needed = None

    def is_finished(self, study: "Study") -> bool:
        return False

    def outlook(self, *_: Any) -> None:
        return None

    ways_ahead = outlook

    def candidates(self, study: "Study") -> None:
        return None

    def parent_probabilities(self, study: "Study") -> Mapping[int, float]:
        return {}


class _OwnEnd(_Stock):
    """The defaults of a sampler that has."""

    is_stock = False
    has_end = True


class _AnyTraining:
    whole_training = None

    def mean_epochs(self, epochs: int) -> tuple[float, float]:
        return epochs / 4, epochs


class _WholeTraining(_AnyTraining):
    """The defaults of the pruner that never prunes."""

    def mean_epochs(self, epochs: int) -> tuple[float, float]:
        return epochs, epochs


class _TrainsNothing:
    retrain = None
    ensemble = None
    rehearse = None
    reference = None
    score = None


class _WithoutImages:
    needs_data = True
    trains = True
    load_images = None

    def inference_times(self, *_: Any, **__: Any) -> tuple[Mapping[Any, float], str]:
        return {}, ""


class _Unmeasured:
    depth = None
    num_params = None


class _Documented:
    def __init__(self, it: object) -> None:
        self.description = (inspect.getdoc(it) or "").partition("\n")[0]


class _Defaulted:
    """Something with defaults for what it does not offer."""

    def __init__(self, it: object, defaults: object) -> None:
        self._it = it
        self._defaults = defaults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._it if hasattr(self._it, name) else self._defaults, name)

    def __call__(self, *arguments: Any) -> Any:
        return self._it(*arguments)  # type: ignore[operator]


def strategy_of(sampler: object) -> Strategy:
    """A sampler as a strategy; of a class, what holds for all its samplers."""
    defaults = _OwnEnd() if hasattr(sampler, "is_finished") else _Stock()
    return cast(Strategy, _Defaulted(sampler, defaults))


def pruning_of(pruner: object) -> Pruning:
    """A pruner with all that optnas asks of one."""
    from optuna.pruners import NopPruner

    defaults = _WholeTraining() if isinstance(pruner, NopPruner) else _AnyTraining()
    return cast(Pruning, _Defaulted(pruner, defaults))


def objective_of(objective: object) -> Objective:
    """An objective with all that optnas asks of one."""
    return cast(Objective, _Defaulted(objective, _TrainsNothing()))


def objective_class(cls: type[Any]) -> ObjectiveClass:
    """The class of an objective with all that optnas asks of one."""
    return cast(ObjectiveClass, _Defaulted(cls, _WithoutImages()))


def described(architecture: "Architecture | None") -> Described:
    """An architecture, or none, with all that people are told of one."""
    return cast(Described, _Defaulted(architecture, _Unmeasured()))


def count_params(
    space: "Space[Any]", architecture: "Architecture", in_channels: int, classes: int
) -> int | None:
    """Parameters of an architecture for so many channels and classes, or None if nobody knows.

    A space may have a ``num_params`` of its own, which takes these; else the architecture counts.
    """
    if hasattr(space, "num_params"):
        return int(space.num_params(architecture, in_channels, classes))
    count = described(architecture).num_params
    return None if count is None else count(in_channels, classes)


def data_set(entry: object) -> DataSet:
    """A data set, or the function that gives one, with all that people are told of it."""
    return cast(DataSet, _Defaulted(entry, _Documented(entry)))


def spelled_out(space: "Space[Any]", options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a space; those left open, as to a preset, as it has them in its attributes."""
    return {
        key: getattr(space, key, None) if value is None else value
        for key, value in options.items()
    }
