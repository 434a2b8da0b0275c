"""The commands that search: what would be done, from the beginning, or on with what there is."""

import shlex
import sys
from typing import Annotated

import typer

from optnas.cli.console import (
    forecast_search,
    quiet_libraries,
    requested_workers,
    run_search,
    target_arguments,
)
from optnas.cli.options import (
    AcceptChangedData,
    Allow,
    Devices,
    File,
    Json,
    PerDevice,
    Ray,
    Set,
    Streams,
    WorkerCount,
    Yes,
)
from optnas.cli.study_commands import discard_written


def run(
    file: File,
    workers: WorkerCount = None,
    per_device: PerDevice = None,
    devices: Devices = None,
    streams: Streams = None,
    ray: Ray = None,
    changes: Set = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what the search would take: trials, time, disk. Nothing is created.",
        ),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw the study away, after showing it, and begin.")
    ] = False,
    yes: Yes = False,
    accept_changed_data: AcceptChangedData = False,
    as_json: Json = False,
) -> None:
    """Search as a study file says, or go on with its search."""
    from optnas.config.file import read_study_file
    from optnas.config.overrides import parse_overrides
    from optnas.errors import UserError
    from optnas.study.opening import config_to_run

    quiet_libraries()  # Of what a file says, too.
    overrides = parse_overrides(changes or ())
    written = read_study_file(file, overrides)
    if not as_json:
        print("".join(f"otherwise than in {file}: {o.text}\n" for o in overrides), end="")
    if restart and dry_run:
        raise UserError("--dry-run changes nothing, so it cannot go with --restart")
    if restart:
        discard_written(written, yes=yes, out=sys.stderr if as_json else sys.stdout)
    config = config_to_run(written)
    requested = requested_workers(config, workers, per_device, devices, streams)
    command = shlex.join(
        [
            *("optnas", "run", str(file), *(f"--set={text}" for text in changes or ())),
            *(["--ray", ray] if ray else []),
        ]
    )
    if dry_run:
        forecast_search(config, requested, as_json, command=command)
        return
    run_search(
        config,
        requested,
        as_json,
        accept_changed_data=accept_changed_data,
        command=command,
        target=shlex.quote(str(file)),
        ray=ray,
    )


def resume(
    storage: Annotated[str, typer.Argument(metavar="STORAGE", help="A storage's URL.")],
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    workers: WorkerCount = None,
    per_device: PerDevice = None,
    devices: Devices = None,
    streams: Streams = None,
    ray: Ray = None,
    allow: Allow = None,
    accept_changed_data: AcceptChangedData = False,
    as_json: Json = False,
) -> None:
    """Go on with a search without its file: everything is in the storage."""
    from optnas.study.opening import open_existing

    quiet_libraries()
    named = target_arguments(storage, study, allow)
    config = open_existing(storage, study, allow=allow or ()).config
    requested = requested_workers(config, workers, per_device, devices, streams)
    run_search(
        config,
        requested,
        as_json,
        accept_changed_data=accept_changed_data,
        command=f"optnas resume {named}{f' --ray {shlex.quote(ray)}' if ray else ''}",
        target=named,
        ray=ray,
    )
