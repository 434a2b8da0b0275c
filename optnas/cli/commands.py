"""The commands."""

import functools
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from optnas.cli.cluster_commands import submit
from optnas.cli.completion import completion, init_completion
from optnas.cli.console import (
    epoch_printer,
    guard_streams,
    interrupted_with_words,
    quiet_libraries,
    run_baselines,
    show,
    target_arguments,
)
from optnas.cli.experiment_commands import compare, rank
from optnas.cli.face_commands import identify, verify
from optnas.cli.file_commands import data, init, list_, schema
from optnas.cli.network_commands import export, predict
from optnas.cli.options import (
    AcceptChangedData,
    Allow,
    Commands,
    Device,
    Gpus,
    Json,
    LocalNorms,
    Name,
    SearchCommand,
    Target,
)
from optnas.cli.search_commands import resume, run
from optnas.cli.storage_commands import app as storage_app
from optnas.cli.study_commands import ls, rm

# Commands import what they need when they run: `optnas --help` loads neither Optuna nor torch.

app = typer.Typer(
    name="optnas",
    cls=Commands,
    help="Neural architecture search on Optuna.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BAD_INPUT = 2
"""Exit code."""


def main() -> None:
    """Entry point: what can go wrong ends with one message; exit code 2 for bad input."""
    from optnas.errors import RunError, UserError

    guard_streams()
    init_completion()
    try:
        app()
    except UserError as error:
        from optnas.running.together import tell_starter

        if not tell_starter(error):
            print(f"optnas: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except RunError as error:
        print(f"optnas: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        from optnas.trials.failures import is_grounds, one_line

        if not is_grounds(error):
            raise
        print(f"optnas: {one_line(error)}; nothing is lost: try again", file=sys.stderr)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        from optnas._version import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def optnas(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Neural architecture search on Optuna."""


for search in (run, resume):
    app.command(cls=SearchCommand)(search)


@app.command()
def status(target: Target, study: Name = None, allow: Allow = None, as_json: Json = False) -> None:
    """How far a search is: trials, phases, budget."""
    from optnas.report.text import status_fields, status_text
    from optnas.study.opening import open_existing

    handle = open_existing(target, study, allow=allow or (), reading=True)
    name = target_arguments(target, study, allow)
    show(as_json, status_fields, lambda opened: status_text(opened, name), handle)


@app.command()
def best(
    target: Target,
    study: Name = None,
    allow: Allow = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg|FILE.png", help="Draw the network to a file, too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """The network found, or the best so far, and how to train and load it."""
    from optnas.report.text import best_fields, best_text
    from optnas.study.opening import open_existing

    if draw is not None:
        from optnas.drawing.architectures import check_drawing

        check_drawing(draw)
    handle = open_existing(target, study, allow=allow or (), reading=True)
    if draw is not None:
        from optnas.drawing.attach import draw_best

        draw_best(handle, draw)
    show(
        as_json,
        best_fields,
        lambda o: best_text(o, target_arguments(target, study, allow)),
        handle,
    )
    if draw is not None and not as_json:
        print(f"drawn in {draw}")


@app.command()
def retrain(
    target: Target,
    others: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY]...",
            help="The study's name in the storage; or, with --ensemble, further study files.",
        ),
    ] = None,
    allow: Allow = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs. Default: retrain.epochs of the study file.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Number of networks, best first.")] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each network, with seeds of their own.")
    ] = None,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Train this trial's network instead of the best.")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, help="Channels of the first layers. Default: as found.")
    ] = None,
    cells: Annotated[
        int | None, typer.Option(min=1, help="Number of cells. Default: as found.")
    ] = None,
    stem: Annotated[
        str | None, typer.Option(help="The first layers: small, large or 7x7. Default: as found.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per step. Default: the study file's.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Train on this data set, or `module:function`, instead.")
    ] = None,
    root: Annotated[str | None, typer.Option(help="Folder that holds the data of --data.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download the data of --data if it is absent.")
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=4, max=1024, help="Pixels of the images of --data.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Read the images of --data when they are needed.")
    ] = False,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble",
            help="Train all networks that the search would have trained fully, or --top, and "
            "average their probabilities.",
        ),
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="timm:NAME[,NAME]",
            help="Train known networks by the same recipe, and set them beside what was found; "
            "NAME@FILE starts from weights in a file.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the network. Default: beside the storage.")
    ] = None,
    accept_changed_data: AcceptChangedData = False,
    as_json: Json = False,
    device: Device = None,
    gpus: Gpus = None,
    local_norms: LocalNorms = False,
) -> None:
    """Train what was found on all training images, test it once, and keep it."""
    from optnas.cli.several_gpus import is_left_to_others, together_text
    from optnas.cli.sizes import images_said, network_said, opened_together
    from optnas.devices.ranks import own_device
    from optnas.running.retraining import retrain_found, retrain_together

    if is_left_to_others(gpus):
        return
    images = images_said(data, root=root, download=download, size=size, stream=stream)
    network = network_said(cells=cells, stem=stem)
    handles = opened_together(target, others or [], ensemble=ensemble, allow=allow or ())
    quiet_libraries()
    said = together_text(handles[0], batch_size, local_norms=local_norms)
    print(said, end="", file=sys.stderr if as_json else sys.stdout)
    if len(handles) > 1:
        perform = functools.partial(retrain_together, handles)
    else:
        perform = functools.partial(retrain_found, handles[0], ensemble=ensemble)
    if reference is not None:
        perform = functools.partial(perform, references=reference)
    kept = ""
    with interrupted_with_words():
        for report in perform(
            epochs=epochs,
            top=top,
            repeats=repeats,
            trial=trial,
            channels=channels,
            network=network,
            batch_size=batch_size,
            data=images,
            output=output,
            accept_changed_data=accept_changed_data,
            device=device or own_device(),
            local_norms=local_norms,
            on_epoch=None if as_json else epoch_printer(),
        ):
            print(json.dumps(report.fields) if as_json else report.text, flush=True)
            kept = report.kept if ensemble else kept or report.kept
    if not as_json:
        print(f"Next: optnas predict {shlex.quote(kept)} IMAGE...")


@app.command()
def report(
    target: Target,
    study: Name = None,
    allow: Allow = None,
    output: Annotated[
        Path | None, typer.Option(help="The page. Default: STUDY.html beside the storage.")
    ] = None,
    form: Annotated[
        Literal["html", "md"] | None,
        typer.Option("--format", help="HTML or Markdown. Default: as the page's name ends."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the networks as JSON; no page is written without --output."
        ),
    ] = False,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Train the human-designed networks of the same kind too, by the search's recipe.",
        ),
    ] = False,
    inference: Annotated[
        bool,
        typer.Option(help="Time the most accurate networks for one image on this machine's CPU."),
    ] = True,
    power: Annotated[
        float | None,
        typer.Option(
            help="Watts of the training device, where its energy was not measured. Default: 12 "
            "for every CPU thread, 250 for a GPU.",
        ),
    ] = None,
    carbon_intensity: Annotated[
        float, typer.Option(help="Grams of CO2-equivalent per kWh of your electricity.")
    ] = 475.0,
    accept_changed_data: AcceptChangedData = False,
    device: Device = None,
) -> None:
    """Write a search as one page to send: the result, figures, every network; and a CSV file."""
    from optnas.errors import UserError
    from optnas.report.costs import Footprint, network_costs
    from optnas.report.files import write_report
    from optnas.report.page import report_rows
    from optnas.study.opening import open_existing

    if device is not None and not baselines:
        raise UserError("--device is where --baselines trains; give both, or leave it out")
    footprint = Footprint(carbon_intensity, power)
    handle = open_existing(target, study, allow=allow or (), reading=not baselines)
    quiet_libraries()
    if baselines:
        run_baselines(handle, device, accept_changed_data=accept_changed_data)
    costs = network_costs(handle, footprint, timed=inference)
    if as_json:
        print(json.dumps(report_rows(handle, costs)))
    if output is not None or not as_json:
        command = target_arguments(target, study, allow)
        path, table = write_report(handle, command, costs, output, form)
        if not as_json:
            print(f"Wrote {path}.{' Open it in a browser.' if path.suffix != '.md' else ''}")
            print(f"Wrote {table}, a row for every trial.")
            print(f"Next: optnas retrain {command}")


@app.command()
def doctor(
    target: Target,
    study: Name = None,
    allow: Allow = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be mended. Default: only say it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What is wrong with a study: trials without a worker, damaged checkpoints and the like."""
    from optnas.doctor.examination import diagnose, diagnosis_fields, diagnosis_text

    quiet_libraries()
    handle, findings = diagnose(target, study, fix=fix, allow=allow or ())
    treated = []
    for finding in findings:
        treated.append(finding)
        if not as_json:
            print(finding.text, flush=True)
    if as_json:
        print(json.dumps(diagnosis_fields(handle, treated)))
    else:
        print(diagnosis_text(handle, treated, target_arguments(target, study, allow)))
    raise typer.Exit(1 if any(not each.mended for each in treated) else 0)


@app.command()
def dashboard(
    target: Target,
    study: Name = None,
    allow: Allow = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8080,
) -> None:
    """Watch a search in the browser (optuna-dashboard, on this machine only)."""
    from optnas.report.dashboard import serve
    from optnas.study.opening import open_existing

    handle = open_existing(target, study, allow=allow or ())
    quiet_libraries()
    serve(handle, port, target_arguments(target, study, allow))


for command in (
    *(submit, predict, export, verify, identify),
    *(data, init, schema, list_, rank, compare, ls, rm, completion),
):
    app.command(name=command.__name__.rstrip("_"))(command)

app.add_typer(storage_app)
