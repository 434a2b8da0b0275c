"""An objective without training: accuracies looked up in a table of trained networks."""

import math
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import Trial

from optnas.errors import UserError, first_line
from optnas.objectives.limits import over_limits
from optnas.objectives.suggested import suggest_epochs
from optnas.objectives.training.progress import Progress
from optnas.spaces import Architecture, Space, proposal
from optnas.trials.attributes import (
    CANDIDATE,
    FAILURE_REASON,
    MAX_EPOCHS,
    PHASE,
    TRAIN_SECONDS,
)
from optnas.trials.failures import mark_failure

COSTS = ("params", "multiply_adds")
MAX_BYTES = 4 << 30
"""Bytes of an array of a table, at most."""
SECONDS = re.compile(r"train_seconds_([1-9]\d{0,8})ep")


class Tabular:
    """Objective that looks accuracies up in a table of trained networks: seconds per search.

    The table is an npz file of arrays with one row per network:

    - ``arch``: the network's name, ``str(architecture)``; for NAS-Bench-201 the benchmark's own
      string. Without this array the rows are called "0", "1", ..., as ``RowSpace`` calls them.
    - A column of accuracies: fractions, or percent if any of them exceeds 1. Other numbers, the
      better the greater, may be negative but not above 1. One value per row is
      the result of a training of as many epochs as the column's name ends with (``val_12ep``).
      Values of shape (rows, epochs) are learning curves if the array ``epoch`` holds the numbers
      of the epochs, from 1; then every epoch is reported and may be pruned, and the value is the
      best of them.
    - Optional: ``train_seconds_{n}ep``, the seconds that n epochs took, from which the time of
      any number of epochs follows; ``params`` and ``multiply_adds``.

    A network whose accuracy is NaN is a failed candidate. Recorded as user attributes, as far as
    the table knows them: ``params``, ``multiply_adds``, ``train_seconds`` and ``epochs_trained``,
    both of the whole training, that of a trial it continues included.

    Args:
        space: The search space.
        table: Path of the npz file.
        column: Name of the array of accuracies.
        epochs: Epochs of a whole training. Default: as many as the curves have.
        limits: Greatest ``params`` and ``multiply_adds`` of a feasible network.
        on_epoch: Called after every simulated epoch of a curve.

    Raises:
        UserError: If the table cannot be read, or does not have what is needed.
    """

    needs_data = False
    """Whether a study with this objective needs images."""
    trains = False
    """Whether a trial takes so long that a comparison stores its studies."""

    # Of the images behind the known tables, which are CIFAR-10.
    in_channels = 3
    classes = 10

    def __init__(
        self,
        space: Space[Any],
        table: str | Path,
        column: str,
        *,
        epochs: int | None = None,
        limits: Mapping[str, int] | None = None,
        on_epoch: Callable[[Progress], None] | None = None,
    ) -> None:
        self.space = space
        self.on_epoch = on_epoch
        self._table = Table(Path(table))
        self._accuracies = self._table.fractions(column)
        self._epochs = self._table.epochs(column, epochs)
        self._limits = dict(limits or {})
        for name in self._limits:
            self._table.column(name)

    @classmethod
    def from_settings(
        cls,
        space: Space[Any],
        *,
        limits: Mapping[str, int],
        folder: Path,
        on_epoch: Callable[[Progress], None] | None = None,
        table: str,
        column: str,
        epochs: int | None = None,
    ) -> "Tabular":
        """The objective of a study file; a relative path starts in its folder.

        Raises:
            UserError: If the table cannot be read, or does not have what is needed.
        """
        path = folder / Path(table).expanduser()
        return cls(space, path, column, epochs=epochs, limits=limits, on_epoch=on_epoch)

    def __call__(self, trial: Trial) -> float:
        return self.look_up(trial, self.space.suggest(trial))

    def score(self, architecture: Architecture, column: str) -> float:
        """What another column says of an architecture, as the table has it; NaN for nothing.

        Raises:
            UserError: If there is no such column of one number per network.
        """
        numbers = self._table.column(column)
        if numbers.ndim != 1:
            raise UserError(f"{self._table.path}: {column!r} has more than one number a network.")
        return float(numbers[self._table.row(str(architecture))])

    def look_up(self, trial: Trial, architecture: Architecture) -> float:
        """The value of an architecture, recorded as that of a trial."""
        epochs = self._epochs
        if "epochs" in proposal(trial):
            epochs = min(epochs, suggest_epochs(trial))
        row = self._table.row(str(architecture))
        if not self._is_feasible(trial, row):
            return 0.0
        if self._accuracies.ndim == 2:
            value = self._train(trial, row, self._accuracies[row, :epochs])
        else:
            value = float(self._accuracies[row])
            self._spend(trial, row, epochs)
        if math.isnan(value):
            mark_failure(trial, CANDIDATE, "the table has no accuracy of this network")
        return value

    def _train(self, trial: Trial, row: int, curve: npt.NDArray[np.float64]) -> float:
        """Report a learning curve, as far as the pruner lets it."""
        for epoch, accuracy in enumerate(curve.tolist(), start=1):
            trial.report(accuracy, epoch)
            if self.on_epoch is not None:
                self._spend(trial, row, epoch)
                self.on_epoch(self._progress(trial, row, epoch, curve))
            if epoch < len(curve) and trial.should_prune():
                self._spend(trial, row, epoch)
                raise optuna.TrialPruned(f"Pruned after epoch {epoch}.")
        self._spend(trial, row, len(curve))
        return float(curve.max())

    def _progress(
        self, trial: Trial, row: int, epoch: int, curve: npt.NDArray[np.float64]
    ) -> Progress:
        return Progress(
            number=trial.number,
            phase=trial.user_attrs.get(PHASE, ""),
            epoch=epoch,
            epochs=len(curve),
            accuracy=float(curve[:epoch].max()),
            seconds=self._table.seconds(row, epoch) or 0.0,
        )

    def _spend(self, trial: Trial, row: int, epochs: int) -> None:
        """Record what a training of so many epochs would have taken."""
        trial.set_user_attr("epochs_trained", epochs)
        seconds = self._table.seconds(row, epochs)
        if seconds is not None:
            trial.set_user_attr(TRAIN_SECONDS, seconds)

    def _is_feasible(self, trial: Trial, row: int) -> bool:
        """Record what the network costs, and hold it to the limits."""
        known = [name for name in COSTS if name in self._table]
        costs = {n: int(self._table.column(n)[row]) for n in (*known, *self._limits)}
        for name in known:
            trial.set_user_attr(name, costs[name])
        broken = over_limits(trial, costs, self._limits)
        if broken:
            trial.set_user_attr(FAILURE_REASON, f"over the limit: {', '.join(broken)}")
        return not broken


class Table:
    """The arrays of an npz file, one row per network.

    Args:
        path: The file.

    Raises:
        UserError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            _check_size(path)
            with np.load(path, allow_pickle=False) as file:
                self._arrays: dict[str, npt.NDArray[Any]] = dict(file)
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such table.") from None
        except UserError:
            raise
        except Exception as error:  # zipfile, zlib and numpy raise what they like.
            message = f"not a table (an npz file of arrays): {first_line(error)}"
            hint = "numpy.savez(path, arch=names, val=accuracies) writes one."
            raise UserError(f"{path}: {message}. {hint}") from None
        self._check_rows()
        self._rows = self._named_rows()
        self._timed = next(
            (m for name in sorted(self._arrays) if (m := SECONDS.fullmatch(name))), None
        )

    def _check_rows(self) -> None:
        """Refuse arrays that have not one row for every network."""
        rows = {}
        for name, array in self._arrays.items():
            if array.ndim == 0:
                raise UserError(f"{self.path}: the array {name!r} has no rows.")
            if name == "arch" or (name != "epoch" and _holds_numbers(array)):
                rows[name] = len(array)
        if 0 in rows.values():
            raise UserError(f"{self.path}: the table has no rows.")
        if len(set(rows.values())) > 1:
            lengths = ", ".join(f"{name} {length}" for name, length in rows.items())
            raise UserError(f"{self.path}: its arrays have different numbers of rows: {lengths}.")
        for name, costs in self._arrays.items():
            if name not in COSTS and SECONDS.fullmatch(name) is None:
                continue
            if not (
                _holds_numbers(costs)
                and costs.ndim == 1
                and np.isfinite(costs).all()
                and (costs >= 0).all()
            ):
                raise UserError(f"{self.path}: {name!r} must be numbers from 0 on, none missing.")

    def _named_rows(self) -> dict[str, int] | None:
        """The row of every network that has a name; None where none has."""
        names = self._arrays.get("arch")
        if names is None:
            return None
        texts = names.astype(str).ravel().tolist()
        twice = next((name for name, number in Counter(texts).items() if number > 1), None)
        if twice is not None:
            raise UserError(f"{self.path}: 'arch' names the network {twice!r} more than once.")
        return {name: row for row, name in enumerate(texts)}

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def column(self, name: str) -> npt.NDArray[Any]:
        """The numbers of a column, of shape (rows,) or (rows, epochs)."""
        array = self._arrays.get(name)
        if array is not None and _holds_numbers(array):
            return array
        columns = ", ".join(n for n, other in self._arrays.items() if _holds_numbers(other))
        raise UserError(
            f"{self.path}: the table has no column of numbers {name!r}; it has "
            f"{columns or 'none'}."
        )

    def fractions(self, column: str) -> npt.NDArray[np.float64]:
        """A column of accuracies as fractions; NaN where a network has none."""
        numbers = self.column(column).astype(float)
        known = numbers[~np.isnan(numbers)]
        if not known.size:
            raise UserError(f"{self.path}: {column!r} is NaN for every network.")
        least, greatest = float(known.min()), float(known.max())
        if greatest <= 1 and least > -math.inf:
            return numbers
        if least >= 0 and greatest <= 100:
            return numbers / 100
        raise UserError(
            f"{self.path}: {column!r} has values from {least:g} to {greatest:g}; expected "
            "accuracies, as fractions or in percent, and NaN where there is none. The greatest "
            "is taken for the best: of errors and costs write 1 - error, or the negative."
        )

    def row(self, name: str) -> int:
        """The row of a network."""
        if self._rows is not None and name in self._rows:
            return self._rows[name]
        rows = max(map(len, self._arrays.values()))
        if self._rows is None and name.isdecimal() and int(name) < rows:
            return int(name)
        raise UserError(f"{self.path}: the table has no network {name!r}.")

    def epochs(self, column: str, epochs: int | None) -> int:
        """Epochs of a whole training; ``epochs`` asks for fewer than the curves have."""
        array = self.column(column)
        if array.ndim == 1:
            if epochs is not None:
                raise UserError(f"{self.path}: {column!r} has no curves to take `epochs` from.")
            named = re.search(r"_(\d+)ep$", column)
            return min(int(named[1]), MAX_EPOCHS) if named else 1
        length = array.shape[1]
        if not np.array_equal(self._arrays.get("epoch", ()), np.arange(1, length + 1)):
            raise UserError(
                f"{self.path}: {column!r} has {length} values a row, but the array `epoch`, which "
                f"makes them learning curves, is not 1, 2, ..., {length}."
            )
        if epochs is not None and not 1 <= epochs <= length:
            raise UserError(f"{self.path}: `epochs` must be from 1 to {length}: {epochs}.")
        return epochs or length

    def seconds(self, row: int, epochs: int) -> float | None:
        """Time of a training, or None if the table has no times."""
        if self._timed is None:
            return None
        return float(self._arrays[self._timed[0]][row]) * epochs / int(self._timed[1])


def _check_size(path: Path) -> None:
    """Refuse a table whose arrays say that they are larger than any table is."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if dtype.itemsize * math.prod(shape) > MAX_BYTES:
                raise UserError(
                    f"{path}: the array {entry.filename!r} says that it is larger than "
                    f"{MAX_BYTES >> 30} GiB, so this is no table."
                )


def _holds_numbers(array: npt.NDArray[Any]) -> bool:
    return array.ndim in (1, 2) and array.dtype.kind in "iuf"
