"""A training that is not finished, in the folder of its network to be."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from optnas.devices.ranks import Ranks, is_of_others
from optnas.errors import RunError, UserError
from optnas.objectives.training.memory import is_out_of_memory
from optnas.objectives.training.trainer import NonFiniteLoss, Trainer
from optnas.storage.files import write_whole
from optnas.trials.pulse import Paused, beating

TRAINING = "training.pt"


def save_training(folder: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write what an unfinished training needs to go on, whole or not at all."""
    buffer = io.BytesIO()
    torch.save({"identity": json.dumps(identity, sort_keys=True), "state": state}, buffer)
    content = buffer.getvalue()
    write_whole(folder / TRAINING, hashlib.sha256(content).digest() + content)


def go_on(trainer: Trainer, folder: Path, identity: dict[str, Any]) -> None:
    """Take up an unfinished training of the same network, if there is one.

    Raises:
        UserError: If it is of another network, or damaged.
    """
    path = folder / TRAINING
    if not path.exists():
        return
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    try:
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("its checksum is wrong")
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        is_same = loaded["identity"] == json.dumps(identity, sort_keys=True)
        if is_same:
            trainer.load_state_dict(loaded["state"])
    except Exception as error:  # Who knows what torch.load says of a file that was made up.
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is damaged ({reason}); remove it to train from the beginning."
        ) from None
    if not is_same:
        raise UserError(
            f"{path} belongs to another network (or one trained otherwise); name another folder "
            "with --output, or remove it."
        )


def train_to_end(
    trainer: Trainer,
    folder: Path,
    identity: dict[str, Any],
    ranks: Ranks,
    on_epoch: Callable[[int, int, float, float], None] | None,
) -> None:
    """Train to the end; the state is saved after every epoch, and where one is left.

    Of several processes the first one saves it.

    Raises:
        UserError: If the loss is not finite, or memory does not suffice.
        RunError: If another process that trains the network is gone.
        Paused: If it is left in the middle of an epoch, with what is kept.
    """
    while trainer.epoch < trainer.epochs:
        try:
            with beating(trainer.pulse):
                result = trainer.train_epoch()
        except Paused:
            save_training(folder, identity, trainer.state_dict())
            epochs = trainer.epoch + trainer.pulse.batch / trainer.batches
            raise Paused(f"{folder} keeps {epochs:.3g} of {trainer.epochs} epochs") from None
        except NonFiniteLoss as error:
            raise UserError(f"{folder}: {error}") from None
        except (RuntimeError, MemoryError) as error:
            if ranks.count > 1 and is_of_others(error):
                raise RunError("another of the processes is gone") from None
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"{folder}: out of memory; set `batch_size` under `retrain` to less than "
                f"{trainer.settings.batch_size}."
            ) from None
        if ranks.leads:
            save_training(folder, identity, trainer.state_dict())
        if on_epoch is not None and ranks.leads:
            on_epoch(trainer.epoch, trainer.epochs, result.train_accuracy, result.seconds)
