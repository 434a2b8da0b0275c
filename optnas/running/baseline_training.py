"""Human-designed networks, trained beside a search by its recipe: a study of their own."""

from typing import Any

from optnas.config.file import StudyFile, from_resolved
from optnas.config.stored import references
from optnas.config.variants import variant
from optnas.errors import UserError
from optnas.running.runner import Outcome, run
from optnas.storage.opening import ask_study
from optnas.study.opening import OpenStudy, open_study
from optnas.study.record import RECORD

SUFFIX = "baselines"
"""What the study's name ends with, after that of the search."""


def train_baselines(
    handle: OpenStudy,
    *,
    device: str | None = None,
    display: Any = None,
    accept_changed_data: bool = False,
) -> Outcome:
    """Train the human-designed networks of a study's kind, as its candidates are trained.

    They are the trials of a study of their own in the same storage, so that the search does not
    see them: trained on the same images, for as many epochs, in the same proxy setting if there
    is one, and judged by the same validation images. Its budget and limits do not apply. Where
    candidates start from a donor's weights, these start from random ones and have the epochs of
    networks without a parent. What was interrupted goes on, and what is done is not repeated.

    Args:
        handle: The search.
        device: A torch device; None takes those of the study, or CUDA where there is one.
        display: What shows progress; see :func:`optnas.running.runner.run`.
        accept_changed_data: Whether to train on other images than the search has seen.

    Raises:
        UserError: If no human-designed networks are known for the study's space, or as
            :func:`optnas.running.runner.run`.
    """
    if not handle.config.search_space.baselines():
        raise UserError(
            f"--baselines: no human-designed networks are known for {handle.config.search_space!r}"
            "; they are for the space `stage` with three stages of basic or nasnet modules, or "
            "four of bottleneck modules"
        )
    return run(
        baselines_config(handle),
        device=device,
        display=display,
        accept_changed_data=accept_changed_data,
        sees_like=handle,
    )


def open_baselines(handle: OpenStudy) -> OpenStudy | None:
    """The study of the human-designed networks, if there is one.

    Raises:
        UserError: If it was trained by another recipe.
    """
    config = handle.config
    if not config.search_space.baselines():
        return None
    name = f"{config.study}-{SUFFIX}"
    exists = ask_study(config.storage, name, lambda study: RECORD in study.user_attrs)
    return open_study(baselines_config(handle)) if exists else None


def baselines_config(handle: OpenStudy) -> StudyFile:
    """The configuration of the study of the human-designed networks."""
    # All that the search was made with, also what its file does not say.
    resolved = handle.config.resolved()
    allowed = references(resolved).values()  # It is open: what it names was allowed.
    config = from_resolved(resolved, handle.config.storage, allowed)
    keys = config.resolved()
    train, objective = keys["train"], keys["objective"]
    return variant(
        config,
        SUFFIX,
        sampler={"name": "baselines"},
        pruner={"name": "none"},
        # Deeper than any donor, and what one would be.
        objective={key: value for key, value in objective.items() if key != "transfer"},
        train=train
        | {"epochs": train["initial_epochs"] or train["epochs"], "initial_epochs": None},
        budget={},
        limits={},
    )
