"""The commands."""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from optnas.experiments import Experiment
    from optnas.runner import Outcome
    from optnas.studies import OpenStudy
    from optnas.study_file import StudyFile

# Commands import what they need when they run: `optnas --help` loads neither Optuna nor torch.

app = typer.Typer(
    name="optnas",
    help="Neural architecture search on Optuna.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BAD_INPUT = 2
INTERRUPTED = 130

File = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A study file.")]
Target = Annotated[
    str, typer.Argument(metavar="STUDY.yaml|STORAGE", help="A study file, or a storage's URL.")
]
Name = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", help="The study's name in the storage.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Output = Annotated[
    Path | None, typer.Option(help="Folder for the table, the JSON and a page of plots.")
]
Device = Annotated[
    str | None, typer.Option(help="A torch device. Default: CUDA where there is one.")
]
WorkerCount = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes that search. Default: as the study says."),
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


def main() -> None:
    """Entry point: what can go wrong ends with one message; exit code 2 for bad input."""
    from optnas.errors import RunError, UserError

    try:
        app()
    except UserError as error:
        print(f"optnas: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except RunError as error:
        print(f"optnas: {error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def run(
    file: File, workers: WorkerCount = None, devices: Devices = None, as_json: Json = False
) -> None:
    """Search as a study file says, or go on with its search."""
    from optnas.study_file import load_study_file

    again = shlex.join(["optnas", "run", str(file)])
    _run(load_study_file(file), workers, devices, as_json, again=again)


@app.command()
def resume(
    storage: Annotated[str, typer.Argument(metavar="STORAGE", help="A storage's URL.")],
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    workers: WorkerCount = None,
    devices: Devices = None,
    as_json: Json = False,
) -> None:
    """Go on with a search without its file: everything is in the storage."""
    from optnas.studies import open_existing

    again = f"optnas resume {_again(storage, study)}"
    _run(open_existing(storage, study).config, workers, devices, as_json, again=again)


@app.command()
def status(target: Target, study: Name = None, as_json: Json = False) -> None:
    """How far a search is: trials, phases, budget."""
    from optnas.report import status_fields, status_text
    from optnas.studies import open_existing

    opened = open_existing(target, study)
    _show(as_json, status_fields, status_text, opened)


@app.command()
def best(target: Target, study: Name = None, as_json: Json = False) -> None:
    """The network found, or the best so far, and how to train and load it."""
    from optnas.report import best_fields, best_text
    from optnas.studies import open_existing

    opened = open_existing(target, study)
    _show(as_json, best_fields, lambda o: best_text(o, _again(target, study)), opened)


@app.command()
def retrain(
    target: Target,
    study: Name = None,
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
    data: Annotated[
        str | None, typer.Option(help="Train on this data set, or `module:function`, instead.")
    ] = None,
    root: Annotated[str | None, typer.Option(help="Folder that holds the data of --data.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download the data of --data if it is absent.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the network. Default: beside the storage.")
    ] = None,
    as_json: Json = False,
    device: Device = None,
) -> None:
    """Train what was found on all training images, test it once, and keep it."""
    from optnas.errors import UserError
    from optnas.retraining import retrain_found
    from optnas.settings import DataSettings
    from optnas.studies import open_existing

    images = None if data is None else DataSettings(name=data, root=root, download=download)
    if images is None and (root is not None or download):
        raise UserError("--root and --download belong to --data; the study's data has its own")
    opened = open_existing(target, study)
    _hush()
    try:
        for report in retrain_found(
            opened,
            epochs=epochs,
            top=top,
            repeats=repeats,
            trial=trial,
            channels=channels,
            data=images,
            output=output,
            device=device,
            on_epoch=None if as_json else _epoch_printer(),
        ):
            print(json.dumps(report.fields) if as_json else report.text, flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on after the last epoch.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def report(
    target: Target,
    study: Name = None,
    output: Annotated[
        Path | None, typer.Option(help="The HTML file. Default: STUDY.html beside the storage.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the networks as JSON; no page is written without --output."
        ),
    ] = False,
) -> None:
    """Write a search as one HTML page: what was found, figures, every network."""
    from optnas.report_page import default_path, report_page, report_rows, write_page
    from optnas.studies import open_existing

    opened = open_existing(target, study)
    _hush()
    if as_json:
        print(json.dumps(report_rows(opened)))
    if output is not None or not as_json:
        path = output or default_path(opened)
        write_page(path, report_page(opened, _again(target, study)))
        if not as_json:
            print(f"Wrote {path}. Open it in a browser.")


@app.command()
def doctor(
    target: Target,
    study: Name = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be mended. Default: only say it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What is wrong with a study: trials without a worker, damaged checkpoints and the like."""
    from optnas.doctor import consult, consultation_fields, consultation_text

    _hush()
    opened, findings = consult(target, study, fix=fix)
    treated = []
    for finding in findings:
        treated.append(finding)
        if not as_json:
            print(finding.text, flush=True)
    if as_json:
        print(json.dumps(consultation_fields(opened, treated)))
    else:
        print(consultation_text(opened, treated))
    raise typer.Exit(1 if any(not each.mended for each in treated) else 0)


@app.command()
def dashboard(
    target: Target,
    study: Name = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8080,
) -> None:
    """Watch a search in the browser (optuna-dashboard, on this machine only)."""
    from optnas.dashboard import serve
    from optnas.studies import open_existing

    opened = open_existing(target, study)
    _hush()
    serve(opened.study, port)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The study file to write.")] = Path("study.yaml"),
    data: Annotated[str, typer.Option(help="The data set.")] = "digits",
    sampler: Annotated[str, typer.Option(help="The strategy.")] = "macro_micro",
) -> None:
    """Write a study file to start from, with every key explained."""
    from optnas.errors import UserError
    from optnas.study_file import study_from_dict
    from optnas.study_template import template

    study_from_dict({"study": path.stem, "data": data, "sampler": sampler})
    text = template(path.stem, data, sampler)
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists; name another file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    print(f"Wrote {path}. Next: optnas run {path}")


@app.command()
def schema() -> None:
    """The JSON schema of study files, for editors."""
    from optnas.study_schema import schema as study_schema

    print(json.dumps(study_schema(), indent=2))


@app.command(name="list")
def list_(as_json: Json = False) -> None:
    """Strategies, spaces, data sets, pruners and objectives, each with one line."""
    from optnas.report import known_fields, known_text

    fields = known_fields()
    print(json.dumps(fields) if as_json else known_text(fields))


def _run(
    config: "StudyFile", count: int | None, devices: str | None, as_json: bool, *, again: str
) -> None:
    from optnas.progress import LiveDisplay, make_display
    from optnas.report import best_fields, ending_text
    from optnas.runner import run as run_study

    _hush()
    said: dict[str, Any] = {}
    if count is not None:
        said["count"] = count
    if devices is not None:
        said["devices"] = tuple(name.strip() for name in devices.split(",") if name.strip())
    display = make_display(as_json=as_json)
    with display if isinstance(display, LiveDisplay) else contextlib.nullcontext():
        outcome = run_study(
            config, display=display, workers=config.workers.model_copy(update=said)
        )
    if as_json:
        fields = {"event": "end", "ending": outcome.ending, **best_fields(outcome.opened)}
        print(json.dumps(fields))
    else:
        print(ending_text(outcome, again))
    raise typer.Exit(_exit_code(outcome))


def _exit_code(outcome: "Outcome") -> int:
    if outcome.ending == "interrupted":
        return INTERRUPTED
    # SIGTERM is how clusters take a machine back: the search goes on elsewhere, nothing failed.
    return 1 if outcome.ending == "finished" and outcome.best is None else 0


def _show(
    as_json: bool,
    fields: Callable[["OpenStudy"], dict[str, Any]],
    text: Callable[["OpenStudy"], str],
    opened: "OpenStudy",
) -> None:
    print(json.dumps(fields(opened)) if as_json else text(opened))


def _again(target: str, study: str | None) -> str:
    from optnas.storage_urls import hide_password

    return shlex.join([hide_password(target), *([study] if study else [])])


def _epoch_printer() -> Callable[[int, int, float, float], None]:
    def show(epoch: int, epochs: int, accuracy: float, seconds: float) -> None:
        end = "\n" if not sys.stdout.isatty() or epoch == epochs else "\r"
        if sys.stdout.isatty() or epoch % max(1, epochs // 20) == 0 or epoch == epochs:
            left = f"about {seconds * (epochs - epoch):.0f} s left"
            text = f"epoch {epoch}/{epochs}  training accuracy {accuracy:.4f}  {left}"
            # Over what is left of a longer line.
            print(text.ljust(78) if sys.stdout.isatty() else text, end=end, flush=True)

    return show


def _hush() -> None:
    """Show warnings as one line, and leave Optuna's log to the progress view."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def show(message: Warning | str, *_details: Any, **_options: Any) -> None:
        print(f"optnas: warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


@app.command()
def rank(
    file: File,
    networks: Annotated[int, typer.Option(min=3, help="Random networks to train.")] = 50,
    settings: Annotated[
        str, typer.Option(help="Reduced settings, such as c4r4s0e60,c0r0s1e30.")
    ] = "",
    full_epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of the original setting. Default: retrain.epochs."),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Compare static and dynamic learning rankings too.")
    ] = False,
    output: Output = None,
    as_json: Json = False,
    device: Device = None,
) -> None:
    """Measure how well reduced settings rank random networks, on your own data."""
    from optnas.ranking import parse_settings
    from optnas.ranking import rank as run_ranking
    from optnas.study_file import load_study_file

    _experiment(
        lambda say: run_ranking(
            load_study_file(file),
            networks=networks,
            settings=parse_settings(settings),
            full_epochs=full_epochs,
            dynamic=dynamic,
            device=device,
            on_study=say,
        ),
        "ranking",
        output,
        as_json,
    )


@app.command()
def compare(
    file: File,
    samplers: Annotated[
        str,
        typer.Option(
            help="What to compare: NAME, NAME+PRUNER or {name: NAME, option: value}, with commas "
            "between them. Default: the file's sampler, and random."
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 5,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs that each may spend.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1e-3, help="Seconds of training that each may spend.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials that each may spend.")] = None,
    candidate_epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Epochs of a candidate where the sampler does not choose them. Default: "
            "train.epochs, or 20.",
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Studies that run at once.")] = 1,
    output: Output = None,
    as_json: Json = False,
    device: Device = None,
) -> None:
    """Compare strategies and stock samplers at equal cost, over several seeds."""
    from optnas.comparison import compare as run_comparison
    from optnas.contenders import parse_contenders, spending
    from optnas.study_file import load_study_file

    def perform(say: Callable[[str], None]) -> "Experiment":
        config = load_study_file(file)
        unit, amount = spending({"epochs": epochs, "seconds": seconds, "trials": trials}, config)
        return run_comparison(
            config,
            parse_contenders(samplers, config),
            unit=unit,
            amount=amount,
            seeds=seeds,
            candidate_epochs=candidate_epochs,
            processes=processes,
            device=device,
            on_study=say,
        )

    _experiment(perform, "comparison", output, as_json)


def _experiment(
    perform: Callable[[Callable[[str], None]], "Experiment"],
    name: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show an experiment: progress on stderr, what came of it on stdout and in a folder."""
    from optnas.experiments import Stopped

    _hush()
    try:
        experiment = perform(lambda line: print(line, file=sys.stderr, flush=True))
    except (Stopped, KeyboardInterrupt) as stop:
        print("Interrupted; nothing is lost: the same command goes on.", file=sys.stderr)
        terminated = isinstance(stop, Stopped) and stop.ending == "terminated"
        raise typer.Exit(0 if terminated else INTERRUPTED) from None
    print(json.dumps(experiment.fields) if as_json else experiment.text)
    if output is not None:
        experiment.write(output, name)
