"""Drawings of a study's networks: on their trials, as Optuna's artifacts, and in files."""

import functools
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial

from optnas.drawing.architectures import FORMATS, Concat, check_drawing, is_drawn, picture
from optnas.drawing.shapes import Picture, captioned, svg
from optnas.errors import UserError
from optnas.spaces import Architecture
from optnas.storage.artifacts import Artifacts
from optnas.storage.files import write_whole
from optnas.study.networks import params_of
from optnas.study.opening import Conclusion, OpenStudy, conclusions
from optnas.study.record import metric_of
from optnas.units import plural

NAME = "architecture.svg"
"""The drawings' file name."""


def with_drawings(
    objective: Callable[[Trial], Any], handle: OpenStudy, store: Artifacts
) -> Callable[[Trial], Any]:
    """An objective after which a trial has the drawing of its network.

    Before the trial ends, because nothing can be written on one that has; not at its beginning,
    so that a trial that is lost leaves none behind. A trial without an architecture, or one that
    there is no drawing of, has none.

    Args:
        objective: The objective.
        handle: The study.
        store: Where the artifacts go.
    """
    attach = functools.partial(_attach, handle=handle, store=store)

    def call(trial: Trial) -> Any:
        try:
            value = objective(trial)
        except optuna.TrialPruned:
            attach(trial, None)
            raise
        attach(trial, value)
        return value

    return call


def draw_best(handle: OpenStudy, path: Path) -> None:
    """Draw the network found, or the best so far, with its parameters and value below.

    Raises:
        UserError: If there is none yet, or as :func:`optnas.drawing.architectures.draw`.
    """
    check_drawing(path)
    found = conclusions(handle, 1)
    if not found:
        raise UserError("no network has been trained yet; run the search first")
    write_whole(path, FORMATS[path.suffix.lower()](captioned_picture(handle, found[0])))


def best_picture(handle: OpenStudy) -> Picture | None:
    """The picture of the network found, or the best so far; None if there is none."""
    found = conclusions(handle, 1)
    drawn = [captioned_picture(handle, c) for c in found if is_drawn(c.architecture)]
    return drawn[0] if drawn else None


def captioned_picture(handle: OpenStudy, conclusion: Conclusion) -> Picture:
    """The picture of a network of a study, with its parameters and its value below."""
    trial = handle.study.get_trials(deepcopy=False)[conclusion.number]
    caption = _caption(handle, conclusion.architecture, trial.user_attrs, conclusion.value)
    return captioned(picture(conclusion.architecture, concat_of(handle)), caption)


def _caption(
    handle: OpenStudy, architecture: Architecture, attrs: Mapping[str, Any], value: float | None
) -> str:
    """What is said below a drawing: parameters, and what was measured."""
    params = params_of(handle, architecture, attrs)
    parts = [] if params is None else [plural(params, "parameter")]
    if value is not None:
        parts.append(f"{metric_of(handle.study).name} {value:.4f}")
    return ", ".join(parts)


def concat_of(handle: OpenStudy) -> Concat:
    """Which nodes of a cell are its output, in a study's networks."""
    return handle.config.network.concat or "loose"


def _attach(trial: Trial, value: Any, *, handle: OpenStudy, store: Artifacts) -> None:
    space = handle.config.search_space
    architecture = space.named_by(trial.storage.get_trial(trial._trial_id))
    if architecture is None or not is_drawn(architecture):
        return
    try:
        measured = float(value) if isinstance(value, int | float) else None
        drawing = picture(architecture, concat_of(handle))
        content = svg(
            captioned(drawing, _caption(handle, architecture, trial.user_attrs, measured))
        ).encode()
    except Exception as error:  # Whatever is wrong with a drawing, its training is worth more.
        warnings.warn(f"The architecture was not drawn: {error!r}", stacklevel=2)
        return
    try:
        _upload(trial, content, store)
    except OSError as error:
        warnings.warn(f"The drawing was not stored: {error}", stacklevel=2)


def _upload(trial: Trial, content: bytes, store: Artifacts) -> None:
    """Store a drawing as an artifact of a trial."""
    from optuna.artifacts import upload_artifact

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, NAME)
        path.write_bytes(content)
        upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=trial)
