"""Neural architecture search on Optuna."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from optnas._version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Literal

    from optnas.api.answers import ShownOutcome
    from optnas.api.callbacks import Callback
    from optnas.api.study import Study
    from optnas.objectives.kept.classifiers import Classifier, Ensemble
    from optnas.objectives.kept.embedders import Embedder
    from optnas.spaces import Architecture

__all__ = ["__version__", "draw", "load", "open", "run"]


def open(  # The module's word for it, as in `gzip.open`.
    target: "Mapping[str, Any] | str | Path",
    name: str | None = None,
    *,
    allow: "Collection[str]" = (),
) -> "Study":
    """A study from Python and notebooks, which need not have begun; nothing is created.

    Args:
        target: The path of a study file, a mapping with its keys, or the URL of a storage.
        name: The study's name, if ``target`` is a storage with several.
        allow: Code that may be imported though a storage names it: ``module:Name``.

    Returns:
        The study: ``run()``, ``status()``, ``best()``, ``report()``, ``retrain()``,
        ``predict()`` and ``export()`` do what the commands do.
    """
    from optnas.api.study import Study

    return Study(target, name, allow=allow)


def run(
    config: "Mapping[str, Any] | str | Path",
    *,
    device: str | None = None,
    callbacks: "Sequence[Callback]" = (),
) -> "ShownOutcome":
    """Run a study as ``optnas run`` does, without showing progress.

    If the study asks for several workers, a script must call this under
    ``if __name__ == "__main__":``, because every worker imports it.

    Args:
        config: The path of a study file, or a mapping with its keys.
        device: A torch device, where the study's ``workers`` name none; None takes CUDA where
            there is one.
        callbacks: Called with the Optuna study and every trial that has finished, as those of
            ``optuna.Study.optimize`` are: optuna-integration's MLflow and W&B callbacks, say.

    Returns:
        How the run ended, with the study and the network found (``outcome.best``).

    Raises:
        ValueError: If the configuration is wrong, the data cannot be had, the storage cannot be
            opened, or the study exists with another configuration. Nothing was created.
        RuntimeError: If a trial could not go on because of the machine, or a worker died and was
            not replaced. Nothing is lost.
    """
    # Imported here so that `import optnas` stays light.
    from optnas.api.study import run as run_study

    return run_study(config, device=device, callbacks=callbacks)


def load(folder: str | Path, device: str = "cpu") -> "Classifier | Embedder | Ensemble":
    """The trained network, or the ensemble, in a folder that ``optnas retrain`` wrote.

    Args:
        folder: The folder.
        device: A torch device.

    Returns:
        A module in evaluation mode. It takes images of the size of its training, of shape
        (N, C, H, W), uint8 or floats in [0, 1], and returns logits of shape (N, classes). Its
        ``predict`` takes files, folders, pictures and arrays of any size. A face network returns
        embeddings of length 1, of shape (N, E).

    Raises:
        ValueError: If the folder holds no complete network.
    """
    from optnas.objectives.kept import ensembles

    return ensembles.load(folder, device)


def draw(
    architecture: "Architecture", path: str | Path, *, concat: "Literal['loose', 'all']" = "loose"
) -> None:
    """Draw an architecture to a file, as ``optnas best --draw`` does.

    The same architecture always gives the same bytes.

    Args:
        architecture: An architecture of any space but ``rows``, whose networks are mere numbers.
        path: The file; its ending, ``.svg`` or ``.png``, says what it is.
        concat: Which nodes of a cell are its output, as in ``build_model``: ``"loose"``, those
            that no other takes, or ``"all"``.

    Raises:
        ValueError: If it is another ending, there is no drawing of such an architecture, or the
            file cannot be written.
    """
    from optnas.drawing.architectures import draw as draw_file

    draw_file(architecture, path, concat=concat)
