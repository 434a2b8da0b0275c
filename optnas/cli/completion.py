"""Completion of commands and options in a shell, by typer's own scripts."""

import os
from typing import Annotated, Literal

import typer

VARIABLE = "_OPTNAS_COMPLETE"
"""What a shell sets when it asks for completions."""

Shell = Literal["bash", "zsh", "fish"]


def completion(
    shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")],
) -> None:
    """Print what makes a shell complete commands: `source <(optnas completion bash)`."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    print(get_completion_script(prog_name="optnas", complete_var=VARIABLE, shell=shell))


def init_completion() -> None:
    """Make ready to answer a shell, if one asks."""
    if VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
