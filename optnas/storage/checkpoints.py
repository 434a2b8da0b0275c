"""Training state by trial, in an artifact store: whole and intact, or not there."""

import contextlib
import hashlib
import io
import time
import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import Any, BinaryIO

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas.config.contract import strategy_of
from optnas.errors import RunError
from optnas.storage.artifacts import Artifacts, absent
from optnas.storage.retention import Keep, deciding, needed
from optnas.trials.attributes import CHECKPOINT
from optnas.trials.damage import CHECKPOINT_ID
from optnas.trials.lineage import record_without_weights, without_weights

UNNEEDED = "deleted, since nobody could start from it"
"""Why weights are gone that nobody misses."""
GRACE = 120.0
"""Seconds after which nobody chooses a parent from what the study was before: a decision may take
as long as a sampler's ``patience``, 60 by default."""


class CheckpointError(Exception):
    """A trial has no training state that can be loaded; the message is the reason."""


class Checkpoints:
    """The latest training state of every trial of a study.

    The bytes are written first, under a name of their own; then a mark with their checksum is set
    on the trial. Readers trust the mark only, so a write that was cut off leaves the state before
    it in force.

    Args:
        store: Where the bytes go, as `open_artifacts` opens it; to save and
            load, any artifact store of Optuna will do.
        storage: The storage of the study.
        name: What keeps studies in one store apart: another for every study.
        keep: Which finished trials keep their weights, beyond those that the strategy may still
            need.
        former: Where the study's states were before it was renamed, copied or moved: they are
            read there, and stay.
    """

    def __init__(
        self,
        store: Artifacts,
        storage: BaseStorage,
        name: str,
        *,
        keep: Keep | None = None,
        former: Sequence[Artifacts] = (),
    ) -> None:
        self._store = store
        self._former = former
        self._storage = storage
        self._prefix = hashlib.sha256(name.encode()).hexdigest()[:12] + "-"
        self._keep = keep
        self._gone: set[int] = set()
        self._unneeded: dict[int, float] = {}

    def save(self, trial_id: int, number: int, epoch: int, state: bytes) -> bool:
        """Store the state of a running trial after ``epoch`` epochs, in place of the one before.

        A store that cannot take it (a full disk) is warned of, and the state before stays.

        Returns:
            Whether it was stored.
        """
        checksum = hashlib.sha256(state).hexdigest()
        # With the checksum, because two workers may be at it, one of which was taken for dead.
        name = f"{self._prefix}{number}-{epoch}-{checksum[:8]}.pt"
        before = self._storage.get_trial_system_attrs(trial_id).get(CHECKPOINT)
        try:
            self._store.write(name, io.BytesIO(state))
        except OSError as error:
            warnings.warn(f"The checkpoint of trial {number} was not saved: {error}", stacklevel=2)
            if before is None or before["id"] != name:
                self._remove(name)
            return False
        mark: dict[str, Any] = {
            "id": name,
            "sha256": checksum,
            "bytes": len(state),
            "epoch": epoch,
        }
        self._storage.set_trial_system_attr(trial_id, CHECKPOINT, mark)
        if before is not None and before["id"] != name:
            self._remove(before["id"])
        return True

    def load(self, trial: FrozenTrial) -> bytes:
        """The state of a trial.

        Raises:
            CheckpointError: If it was never saved, or it is missing or damaged.
            OSError: If the store cannot be read at present.
        """
        mark = checkpoint_of(trial)
        if mark is None:
            raise CheckpointError(f"trial {trial.number} has no checkpoint")
        reader = self._reader(mark["id"])
        if reader is None:
            raise CheckpointError(f"the checkpoint of trial {trial.number} is missing")
        with reader:
            state: bytes = reader.read()
        if hashlib.sha256(state).hexdigest() != mark["sha256"]:
            raise CheckpointError(f"the checkpoint of trial {trial.number} is damaged")
        return state

    def exists(self, trial: FrozenTrial) -> bool:
        """Whether there is something where the state of ``trial`` should be.

        Raises:
            OSError: If the store cannot be read at present.
        """
        mark = checkpoint_of(trial)
        reader = None if mark is None else self._reader(mark["id"])
        if reader is not None:
            reader.close()
        return reader is not None

    def clean(self, study: Study, _trial: FrozenTrial | None = None) -> None:
        """Delete the states that nobody needs any more: a callback for Optuna.

        Needed are those of running and of lost trials, of the parents of these, and what the
        strategy or ``keep`` says; see `optnas.storage.retention`. Not the objective's work:
        between its end and the storing of its value it can be killed.
        """
        trials = study.get_trials(deepcopy=False)
        kept = needed(study, trials, self._keep)
        old = [
            trial
            for trial in trials
            if trial.state.is_finished()
            and trial.number not in kept
            and trial.number not in self._gone
            and checkpoint_of(trial) is not None
        ]
        if not old:
            return
        if self._keep is not None or strategy_of(study.sampler).inherits:
            numbers = [t.number for t in old if t.state == TrialState.COMPLETE]
            self._say_gone(study, numbers, UNNEEDED)
        # Whoever chose a parent among them before that was said shows by now, or is about to.
        trials = study.get_trials(deepcopy=False)
        kept = needed(study, trials, self._keep)
        old = [trial for trial in old if trial.number not in kept]
        if any(map(deciding, trials)):
            now = time.monotonic()
            old = [t for t in old if now - self._unneeded.setdefault(t.number, now) > GRACE]
        for trial in old:
            self._gone.add(trial.number)
            self._remove(trial.system_attrs[CHECKPOINT]["id"])

    def find_lost(self, study: Study) -> list[int]:
        """The trials whose weights should be there but are not; nobody starts from them again.

        Raises:
            RunError: If the store cannot be read at present, or holds nothing of the study at all.
        """
        trials = study.get_trials(deepcopy=False)
        known = without_weights(self._storage, study._study_id)
        kept = needed(study, trials, self._keep) - known.keys()
        marked = [
            trials[number]
            for number in sorted(kept)
            if trials[number].state == TrialState.COMPLETE
            and checkpoint_of(trials[number]) is not None
        ]
        try:
            # One listing instead of opening them all; what it lacks is asked for.
            stored = self._stored() if marked else {}
            unlisted = [t for t in marked if t.system_attrs[CHECKPOINT]["id"] not in stored]
            lost = [trial.number for trial in unlisted if not self.exists(trial)]
        except OSError as error:
            raise RunError(
                f"the artifacts cannot be read: {error}; make them readable, and run again"
            ) from error
        if lost and not stored:
            # Rather a disk that is not mounted than all deleted, and what is recorded is final.
            raise RunError(
                f"the artifacts hold none of the {len(lost)} training states that the search may "
                "start from: make them available, or say with `optnas doctor --fix` that they are "
                "lost, and run again"
            )
        self._say_gone(study, lost, "missing")
        return lost

    def orphans(self, study: Study) -> dict[str, int]:
        """Names and bytes of the study's states in the store to which no trial refers.

        Raises:
            OSError: If the store cannot be read at present.
        """
        # Before the trials are read, so that whatever was stored by then has its mark.
        stored = self._stored()
        trials = study.get_trials(deepcopy=False)
        marked = {mark["id"] for trial in trials if (mark := checkpoint_of(trial)) is not None}
        # Unless its trial is still running: the mark comes after the bytes.
        running = tuple(f"{self._prefix}{t.number}-" for t in trials if not t.state.is_finished())
        return {
            name: size
            for name, size in stored.items()
            if name not in marked and not name.startswith(running)
        }

    def delete(self, names: Iterable[str]) -> None:
        """Delete states from the store by name.

        Raises:
            OSError: If the store does not let it.
        """
        for name in filter(self.is_own, names):
            with contextlib.suppress(*absent()):
                self._store.remove(name)

    def say_lost(self, study: Study, number: int, reason: str) -> None:
        """Record that nobody can start from a trial any more, and why."""
        self._say_gone(study, [number], reason)

    def used_bytes(self) -> int:
        """Bytes of the study in the store.

        Raises:
            OSError: If the store cannot be read at present.
        """
        return sum(self._stored().values())

    def _stored(self) -> dict[str, int]:
        """Names and bytes of the study's states in the store, in one listing."""
        return {name: size for name, size in self._store.items() if self.is_own(name)}

    def is_own(self, name: str) -> bool:
        """Whether a name is that of one of the study's states."""
        return name.startswith(self._prefix) and CHECKPOINT_ID.fullmatch(name) is not None

    def _say_gone(self, study: Study, numbers: Collection[int], reason: str) -> None:
        # Every process finds anew what others have deleted.
        unsaid = set(numbers) - without_weights(self._storage, study._study_id).keys()
        if unsaid:
            record_without_weights(self._storage, study._study_id, unsaid, reason)

    def _reader(self, name: str) -> BinaryIO | None:
        """What reads a state, wherever it is; None if there is none of the name."""
        for store in (self._store, *self._former):
            with contextlib.suppress(*absent()):
                return store.open_reader(name)
        return None

    def _remove(self, name: str) -> None:
        """Delete a state, unless it is not this study's, whatever a trial says."""
        if not self.is_own(name):
            return
        with contextlib.suppress(*absent(), OSError):
            self._store.remove(name)


def checkpoint_of(trial: FrozenTrial) -> dict[str, Any] | None:
    """The mark of a trial's training state (id, sha256, bytes, epoch), or None."""
    mark: dict[str, Any] | None = trial.system_attrs.get(CHECKPOINT)
    return mark
