"""The device of a training, and what a trial records of where and how it ran."""

import platform

import optuna
import torch
from optuna.trial import Trial

from optnas._version import __version__
from optnas.errors import UserError
from optnas.objectives.training.memory import device_memory, peak_memory
from optnas.objectives.training.neighbours import here
from optnas.trials.attributes import DEVICE_MEMORY, MEMORY_SHARED


def check_device(device: str | None) -> None:
    """Refuse a device that this machine has not.

    Raises:
        UserError: Saying why it cannot be used.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {device!r} cannot be used: {error}") from None


def record_circumstances(
    trial: Trial,
    input_shape: tuple[int, int, int],
    device: torch.device,
    *,
    threads: int,
    seed: int,
) -> None:
    """Record what a training's result depends on beside the candidate.

    Args:
        trial: The trial.
        input_shape: Channels, height and width of the images.
        device: Where it trains.
        threads: Number of CPU threads.
        seed: Seed of the study.
    """
    attrs = {
        "input_shape": list(input_shape),
        "device": device_name(device, threads),
        "seed": seed,
        "versions": {
            "optnas": __version__,
            "optuna": optuna.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    for name, value in attrs.items():
        trial.set_user_attr(name, value)


def device_name(device: torch.device, threads: int) -> str:
    """What a device is called on trials and beside networks.

    Args:
        device: The device.
        threads: Number of CPU threads.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({threads} threads, {platform.machine()})"


def record_memory(trial: Trial, device: torch.device) -> None:
    """Record the memory that a training took, as far as the device tells.

    Beside trainings of other threads it is that of all of them, and says so.
    """
    if here().is_shared:
        trial.set_user_attr(MEMORY_SHARED, True)
    peak = peak_memory(device)
    if peak is not None:
        trial.set_user_attr("peak_memory_bytes", peak)
    held = device_memory(device)
    if held is not None:
        trial.set_user_attr(DEVICE_MEMORY, held)
