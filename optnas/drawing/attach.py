"""Drawings of a study's networks: on their trials, as Optuna's artifacts, and in files."""

import functools
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial

from optnas.drawing.architectures import FORMATS, Concat, draw, is_drawn, picture
from optnas.drawing.shapes import Picture
from optnas.errors import UserError
from optnas.spaces import Space
from optnas.storage.artifacts import Artifacts
from optnas.study.opening import OpenStudy, conclusions

NAME = "architecture"
"""The drawings' file name, before its ending."""


def with_drawings(
    objective: Callable[[Trial], Any], handle: OpenStudy, store: Artifacts
) -> Callable[[Trial], Any]:
    """An objective after which a trial has the drawings of its network.

    Before the trial ends, because nothing can be written on one that has; not at its beginning,
    so that a trial that is lost leaves none behind. A trial without an architecture, or one that
    there is no drawing of, has none.

    Args:
        objective: The objective.
        handle: The study.
        store: Where the artifacts go.
    """
    space, concat = handle.config.search_space, concat_of(handle)
    attach = functools.partial(_attach, space=space, concat=concat, store=store)

    def call(trial: Trial) -> Any:
        try:
            value = objective(trial)
        except optuna.TrialPruned:
            attach(trial)
            raise
        attach(trial)
        return value

    return call


def draw_best(handle: OpenStudy, path: Path) -> None:
    """Draw the network found, or the best so far.

    Raises:
        UserError: If there is none yet, or as :func:`optnas.drawing.architectures.draw`.
    """
    found = conclusions(handle, 1)
    if not found:
        raise UserError("no network has been trained yet; run the search first")
    draw(found[0].architecture, path, concat=concat_of(handle))


def best_picture(handle: OpenStudy) -> Picture | None:
    """The picture of the network found, or the best so far; None if there is none."""
    found = conclusions(handle, 1)
    drawn = [picture(c.architecture, concat_of(handle)) for c in found if is_drawn(c.architecture)]
    return drawn[0] if drawn else None


def concat_of(handle: OpenStudy) -> Concat:
    """Which nodes of a cell are its output, in a study's networks."""
    return handle.config.network.concat or "loose"


def _attach(trial: Trial, *, space: Space[Any], concat: Concat, store: Artifacts) -> None:
    architecture = space.named_by(trial.storage.get_trial(trial._trial_id))
    if architecture is None or not is_drawn(architecture):
        return
    try:
        drawing = picture(architecture, concat)
        files = {ending: make(drawing) for ending, make in FORMATS.items()}
    except Exception as error:  # Whatever is wrong with a drawing, its training is worth more.
        warnings.warn(f"The architecture was not drawn: {error!r}", stacklevel=2)
        return
    try:
        _upload(trial, files, store)
    except OSError as error:
        warnings.warn(f"The drawing was not stored: {error}", stacklevel=2)


def _upload(trial: Trial, files: Mapping[str, bytes], store: Artifacts) -> None:
    """Store files, given by the endings of their names, as artifacts of a trial."""
    from optuna.artifacts import upload_artifact

    with tempfile.TemporaryDirectory() as folder:
        for ending, content in files.items():
            path = Path(folder, NAME + ending)
            path.write_bytes(content)
            upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=trial)
