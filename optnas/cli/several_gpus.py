"""`optnas retrain --gpus N`: the same command in several processes."""

import sys
from typing import TYPE_CHECKING

import typer

from optnas.cli.console import INTERRUPTED, quiet_libraries

if TYPE_CHECKING:
    from optnas.study.opening import OpenStudy


def is_left_to_others(gpus: int | None) -> bool:
    """Whether this process only starts others, which have done everything when it returns.

    Args:
        gpus: How many devices are asked for; None for one, or for what `torchrun` says.

    Raises:
        UserError: If there are not so many, or as the others.
        RunError: As the others.
    """
    from optnas.devices.ranks import started_as
    from optnas.running.together import be_one_of_several, start_together

    if started_as().count > 1:
        be_one_of_several()
        return False
    if gpus is None or gpus == 1:
        return False
    quiet_libraries()
    try:
        start_together(gpus, without_gpus(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on after the last epoch.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    return True


def without_gpus(arguments: list[str]) -> list[str]:
    """The arguments of a command without `--gpus` and its value."""
    rest, is_value = [], False
    for argument in arguments:
        if not is_value and not argument.startswith("--gpus"):
            rest.append(argument)
        is_value = argument == "--gpus"
    return rest


def together_text(handle: "OpenStudy", batch_size: int | None, *, local_norms: bool) -> str:
    """What is said of a training on several devices before it begins; nothing of one on one.

    Args:
        handle: The study.
        batch_size: Images per step, where they are not as the study says.
        local_norms: Whether batch normalisation sees the images of one device alone.
    """
    from optnas.devices.ranks import started_as

    count, retrain = started_as().count, handle.config.retrain
    if count == 1:
        return ""
    recipe = retrain.recipe(handle.config.train)
    size = batch_size or recipe.batch_size
    norms = "each device's own" if local_norms or retrain.local_norms else "all"
    return (
        f"{count} processes train together: {size} images a step, {size / count:.4g} in each; "
        f"learning rate {recipe.lr:g}, as with one; batch normalisation over {norms}\n"
    )
