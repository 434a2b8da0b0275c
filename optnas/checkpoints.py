"""Training state by trial, in an artifact store: whole and intact, or not there."""

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from optnas.trials import CONTINUES, SCHEDULE, is_lost

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

CHECKPOINT = "optnas:checkpoint"


class Checkpoints:
    """The latest training state of every trial of a study.

    The bytes are written first, under a name of their own; then a mark with their checksum is set
    on the trial. Readers trust the mark only, so a write that was cut off leaves the state before
    it in force.

    Args:
        store: Where the bytes go.
        storage: The storage of the study.
        study_name: Its name, which keeps studies in one store apart.
    """

    def __init__(self, store: "ArtifactStore", storage: BaseStorage, study_name: str) -> None:
        self._store = store
        self._storage = storage
        self._prefix = hashlib.sha256(study_name.encode()).hexdigest()[:12]

    def save(self, trial_id: int, number: int, epoch: int, state: bytes) -> None:
        """Store the state of a running trial after ``epoch`` epochs, in place of the one before.

        A store that cannot take it (a full disk) is warned of, and the state before stays.
        """
        name = f"{self._prefix}-{number}-{epoch}.pt"
        before = self._storage.get_trial_system_attrs(trial_id).get(CHECKPOINT)
        try:
            self._store.write(name, io.BytesIO(state))
        except OSError as error:
            warnings.warn(f"The checkpoint of trial {number} was not saved: {error}", stacklevel=2)
            self._remove(name)
            return
        mark: dict[str, Any] = {
            "id": name,
            "sha256": hashlib.sha256(state).hexdigest(),
            "epoch": epoch,
        }
        self._storage.set_trial_system_attr(trial_id, CHECKPOINT, mark)
        if before is not None and before["id"] != name:
            self._remove(before["id"])

    def load(self, trial: FrozenTrial) -> bytes | None:
        """The state of a trial, or None if it has none or it is missing or damaged (warned)."""
        mark: dict[str, Any] | None = trial.system_attrs.get(CHECKPOINT)
        if mark is None:
            return None
        try:
            with self._store.open_reader(mark["id"]) as reader:
                state: bytes = reader.read()
        except (ArtifactNotFound, OSError) as error:
            warnings.warn(f"The checkpoint of trial {trial.number}: {error}", stacklevel=2)
            return None
        if hashlib.sha256(state).hexdigest() != mark["sha256"]:
            warnings.warn(f"The checkpoint of trial {trial.number} is damaged.", stacklevel=2)
            return None
        return state

    def clean(self, study: Study, trial: FrozenTrial) -> None:
        """Delete the states that a trial needed, unless it was lost: a callback for Optuna.

        A trial that trained only the beginning of its schedule keeps its own, because another
        may continue it. Not the objective's work: between its end and the storing of its value
        it can be killed.
        """
        if not trial.state.is_finished() or is_lost(trial):
            return
        needed = list(ancestors(study.get_trials(deepcopy=False), trial))
        begun = trial.user_attrs.get(SCHEDULE, 0) > len(trial.intermediate_values)
        for done in needed if begun else [trial, *needed]:
            mark = done.system_attrs.get(CHECKPOINT)
            if mark is not None:
                self._remove(mark["id"])

    def _remove(self, name: str) -> None:
        with contextlib.suppress(ArtifactNotFound, OSError):
            self._store.remove(name)


def ancestors(trials: Sequence[FrozenTrial], trial: FrozenTrial | Trial) -> Iterator[FrozenTrial]:
    """The lost trials that ``trial`` goes on from, nearest first.

    Args:
        trials: All trials of the study, by number.
        trial: One of them.
    """
    number: int | None = trial.user_attrs.get(CONTINUES)
    while number is not None:
        yield trials[number]
        number = trials[number].user_attrs.get(CONTINUES)
