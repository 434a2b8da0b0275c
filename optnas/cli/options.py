"""Arguments and options that several commands have."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from optnas.cli.console import INTERRUPTED

File = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A study file.")]
Files = Annotated[
    list[Path], typer.Argument(metavar="STUDY.yaml...", help="Study files, each with its data.")
]
Target = Annotated[
    str, typer.Argument(metavar="STUDY.yaml|STORAGE", help="A study file, or a storage's URL.")
]
Name = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", help="The study's name in the storage.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE:NAME",
        help="Code that may be imported though the storage names it. Nothing else that a storage "
        "names is; may be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Output = Annotated[
    Path | None, typer.Option(help="Folder for the table, the JSON and a page of plots.")
]
Device = Annotated[
    str | None, typer.Option(help="A torch device. Default: CUDA where there is one.")
]
Gpus = Annotated[
    int | None,
    typer.Option(
        "--gpus", min=1, help="Train every network on so many GPUs of this machine together."
    ),
]
LocalNorms = Annotated[
    bool,
    typer.Option(
        "--local-norms",
        help="With --gpus: batch normalisation sees the images of one GPU alone. Default: as the "
        "study says, or those of all.",
    ),
]
WorkerCount = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes that search. Default: as the study says."),
]
PerDevice = Annotated[
    int | None,
    typer.Option("--per-device", min=1, help="Processes on each device instead."),
]
Streams = Annotated[
    int | None,
    typer.Option(
        "--streams",
        min=1,
        help="Trials that each process trains at once, on a GPU. Default: as the study says.",
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--devices",
        "--device",
        help="Torch devices with commas between them, dealt out to the workers in turn. Default: "
        "as the study says, or CUDA where there is one.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Run the workers on a Ray cluster: HOST:PORT, or `auto` for that which this machine "
        "is of. Without an address a Ray of this machine is started, and ends with the run.",
    ),
]
AcceptChangedData = Annotated[
    bool,
    typer.Option(
        "--accept-changed-data",
        help="Go on with other images than the study has seen; that is recorded and shown.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A key of the study file, said otherwise: `--set train.lr=0.1`, `--set "
        "space.depth=[2,8]`. The value is as in the file; may be repeated.",
    ),
]


class Commands(TyperGroup):
    """Commands that do not end without a word where nothing else answers Ctrl-C."""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            print("Interrupted; give the same command again to go on.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


class SearchCommand(TyperCommand):
    """A command whose `--ray` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_local_ray(args))


def with_local_ray(arguments: list[str]) -> list[str]:
    """The arguments of a command, with the address spelled out that `--ray` alone stands for."""
    given: list[str] = []
    for index, argument in enumerate(arguments):
        given.append(argument)
        after = arguments[index + 1] if index + 1 < len(arguments) else "-"
        if argument == "--ray" and not _may_be_address(after):
            given.append("local")
    return given


def _may_be_address(argument: str) -> bool:
    """Whether an argument is no option, study file or storage, which may follow `--ray`, too."""
    is_url = "://" in argument and not argument.startswith("ray://")
    return not (argument.startswith("-") or argument.endswith((".yaml", ".yml")) or is_url)
