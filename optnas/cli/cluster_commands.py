"""The commands that hand a search over to a cluster's queue."""

import shlex
from typing import Annotated

import typer

from optnas.cli.console import quiet_libraries, requested_workers
from optnas.cli.options import File, Streams, WorkerCount


def submit(
    file: File,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="As an array of jobs of Slurm, a worker each.")
    ] = False,
    workers: WorkerCount = None,
    streams: Streams = None,
    hours: Annotated[
        float, typer.Option(min=0.1, help="Time of a job; it is queued again afterwards.")
    ] = 4.0,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="Another option of `sbatch`, such as partition=gpu; may be repeated.",
        ),
    ] = None,
    shown: Annotated[
        bool, typer.Option("--print", help="Print a script for `sbatch` instead.")
    ] = False,
) -> None:
    """Queue the workers of a search on a cluster, where they go on until it is finished."""
    from optnas.clusters.slurm import Order, check_order, log_folder, script
    from optnas.clusters.slurm import submit as submit_order
    from optnas.config.file import read_study_file
    from optnas.errors import UserError
    from optnas.study.opening import config_to_run

    if not slurm:
        raise UserError("say which cluster: --slurm (for Ray: `optnas run STUDY --ray ADDRESS`)")
    wrong = [text for text in options or () if "=" not in text]
    if wrong:
        raise UserError(f"--option {wrong[0]}: expected KEY=VALUE")
    quiet_libraries()
    config = config_to_run(read_study_file(file))
    asked = requested_workers(config, workers, streams=streams)
    given = dict(text.split("=", 1) for text in options or ())
    order = Order(file, config, asked, max(1, round(60 * hours)), given)
    check_order(order)
    folder = log_folder(config)
    if shown:
        print(script(order, folder), end="")
        return
    folder.mkdir(exist_ok=True)
    jobs = submit_order(order, folder)
    print(
        f"queued: {', '.join(jobs)}\nlogs: {folder}\nNext: optnas status {shlex.quote(str(file))}"
    )
