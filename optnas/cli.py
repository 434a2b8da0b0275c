"""The commands."""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from optnas.runner import Outcome
    from optnas.studies import OpenStudy

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
Device = Annotated[
    str | None, typer.Option(help="A torch device. Default: CUDA where there is one.")
]


def main() -> None:
    """Entry point: bad input ends with one message and exit code 2."""
    from optnas.errors import UserError

    try:
        app()
    except UserError as error:
        print(f"optnas: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)


@app.command()
def run(file: File, as_json: Json = False, device: Device = None) -> None:
    """Search as a study file says, or go on with its search."""
    from optnas.study_file import load_study_file

    _run(load_study_file(file), as_json, device, again=f"optnas run {file}")


@app.command()
def resume(
    storage: Annotated[str, typer.Argument(metavar="STORAGE", help="A storage's URL.")],
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    as_json: Json = False,
    device: Device = None,
) -> None:
    """Go on with a search without its file: everything is in the storage."""
    from optnas.storage import hide_password
    from optnas.studies import open_existing

    again = f"optnas resume {hide_password(storage)} {study}"
    _run(open_existing(storage, study).config, as_json, device, again=again)


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
    trial: Annotated[
        int | None, typer.Option(min=0, help="Train this trial's network instead of the best.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the network. Default: beside the storage.")
    ] = None,
    as_json: Json = False,
    device: Device = None,
) -> None:
    """Train the network found on all training images, test it once, and keep it."""
    from optnas.retraining import retrain_best
    from optnas.studies import open_existing

    opened = open_existing(target, study)
    _hush()
    try:
        report = retrain_best(
            opened,
            epochs=epochs,
            trial=trial,
            output=output,
            device=device,
            on_epoch=None if as_json else _epoch_printer(),
        )
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from the last epoch.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    print(json.dumps(report.fields) if as_json else report.text)


@app.command()
def dashboard(
    target: Target,
    study: Name = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8080,
) -> None:
    """Watch a search in the browser (optuna-dashboard, on this machine only)."""
    from optnas.studies import open_existing

    opened = open_existing(target, study)
    from wsgiref.simple_server import make_server

    from optuna_dashboard import wsgi

    server = make_server("127.0.0.1", port, wsgi(opened.study._storage))
    print(f"http://127.0.0.1:{port}/dashboard/studies/{opened.study._study_id}  (Ctrl-C ends)")
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The study file to write.")] = Path("study.yaml"),
    data: Annotated[str, typer.Option(help="The data set.")] = "digits",
    sampler: Annotated[str, typer.Option(help="The strategy.")] = "macro_micro",
) -> None:
    """Write a study file to start from, with every key explained."""
    from optnas.errors import UserError
    from optnas.study_template import template

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


def _run(config: Any, as_json: bool, device: str | None, *, again: str) -> None:
    from optnas.progress import LiveDisplay, make_display
    from optnas.report import best_fields, ending_text
    from optnas.runner import run as run_study

    _hush()
    display = make_display(as_json=as_json)
    with display if isinstance(display, LiveDisplay) else contextlib.nullcontext():
        outcome = run_study(config, display=display, device=device)
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
    from optnas.storage import hide_password

    return hide_password(target) + (f" {study}" if study else "")


def _epoch_printer() -> Callable[[int, int, float, float], None]:
    def show(epoch: int, epochs: int, accuracy: float, seconds: float) -> None:
        end = "\n" if not sys.stdout.isatty() or epoch == epochs else "\r"
        if sys.stdout.isatty() or epoch % max(1, epochs // 20) == 0 or epoch == epochs:
            left = f"about {seconds * (epochs - epoch):.0f} s left "
            text = f"epoch {epoch}/{epochs}  training accuracy {accuracy:.4f}  {left}"
            print(text, end=end, flush=True)

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
