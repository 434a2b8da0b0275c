"""What commands have in common: how a search is run, what is shown, and on which stream."""

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from optnas.config.file import StudyFile
    from optnas.config.keys import Workers
    from optnas.running.events import Display
    from optnas.running.runner import Outcome
    from optnas.study.opening import OpenStudy

# Imported when they are needed: `optnas --help` loads neither Optuna nor torch.

INTERRUPTED = 130
"""Exit code."""
COMMAND = re.compile(r"(train it|load it|next) *:? ")
"""How lines begin that are to be copied."""


def requested_workers(
    config: "StudyFile",
    count: int | None,
    per_device: int | None = None,
    devices: str | None = None,
    streams: int | None = None,
) -> "Workers":
    """The workers as a command asks for them; what it does not say is as the study says.

    Args:
        config: The study.
        count: Number of workers.
        per_device: Number of workers on each device.
        devices: Torch devices with commas between them.
        streams: Number of trials that each trains at once.

    Raises:
        UserError: If it contradicts itself.
    """
    from optnas.config.checks import validated
    from optnas.config.keys import Workers
    from optnas.config.messages import Source

    settings: dict[str, Any] = config.workers.model_dump(mode="json")
    if count is not None or per_device is not None:
        settings |= {"count": count, "per_device": per_device}
    if streams is not None:
        settings["streams"] = streams
    if devices is not None:
        settings["devices"] = [name.strip() for name in devices.split(",") if name.strip()]
    return validated(Workers, settings, Source("the command line"), ("workers",))


def run_search(
    config: "StudyFile",
    workers: "Workers",
    as_json: bool,
    *,
    command: str,
    target: str,
    accept_changed_data: bool = False,
    ray: str | None = None,
) -> None:
    """Run a search and show it, then exit as it ended.

    Args:
        config: The configuration, as `config_to_run` returns it.
        workers: The worker processes.
        as_json: Whether to print a line of JSON for every event.
        command: The command that goes on with it.
        target: How other commands name the study.
        accept_changed_data: Whether to go on with other images than the study has seen.
        ray: Where Ray is that the workers are to be on; None has them on this machine.
    """
    from optnas.report.text import best_fields, ending_text

    quiet_libraries()
    with shown_display(as_json=as_json) as display:
        run_study = _runner(ray)
        outcome = run_study(
            config, display=display, workers=workers, accept_changed_data=accept_changed_data
        )
    if as_json:
        fields = {"event": "end", "ending": outcome.ending, **best_fields(outcome.opened)}
        print(json.dumps(fields))
    else:
        print(fitted(ending_text(outcome, command, target)))
    raise typer.Exit(_exit_code(outcome))


def _runner(ray: str | None) -> Callable[..., "Outcome"]:
    if ray is not None:
        from optnas.clusters.ray_run import run_on_ray

        return functools.partial(run_on_ray, address=ray)
    from optnas.running.runner import run_as_made

    return run_as_made


def forecast_search(
    config: "StudyFile", workers: "Workers", as_json: bool, *, command: str
) -> None:
    """Say what a search would take.

    Args:
        config: The study file.
        workers: The worker processes; a step is tried where the first of them would train.
        as_json: Whether to print JSON.
        command: The command that searches.
    """
    from optnas.forecast.dry_run import forecast
    from optnas.forecast.text import forecast_fields, forecast_text

    quiet_libraries()
    expected = forecast(config, device=workers.device(0))
    if as_json:
        print(json.dumps(forecast_fields(expected)))
    else:
        print(f"{forecast_text(expected)}\nNext: {command}")


def run_baselines(
    handle: "OpenStudy", device: str | None, *, accept_changed_data: bool = False
) -> None:
    """Train the human-designed networks beside a study and show it, on stderr; exit if stopped."""
    from optnas.running.baseline_training import open_baselines, train_baselines

    beside = open_baselines(handle)
    if beside is not None and beside.is_finished:
        return
    with contextlib.redirect_stdout(sys.stderr), shown_display(as_json=False) as display:
        outcome = train_baselines(
            handle, device=device, display=display, accept_changed_data=accept_changed_data
        )
    if outcome.ending in ("interrupted", "terminated"):
        print("Interrupted; nothing is lost: the same command goes on.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED if outcome.ending == "interrupted" else 0)


@contextlib.contextmanager
def interrupted_with_words() -> Iterator[None]:
    """Trainings that Ctrl-C and SIGTERM leave between two batches; exit then, saying what is kept.

    The first signal is answered at once, however long the batch takes. One of several processes
    that train together is ended by whoever started it.
    """
    from optnas.devices.ranks import started_as
    from optnas.running.signals import Interruption, heard

    if started_as().count > 1:
        yield
        return

    def answer(ending: Interruption) -> None:
        print(f"\n{ending}: it stops after this batch; again ends it now", file=sys.stderr)

    ending = "interrupted"
    try:
        with heard(answer) as signals:
            try:
                yield
            finally:
                ending = signals.ending or ending
    except KeyboardInterrupt as stop:
        kept = f"; {stop}" if str(stop) else ""
        print(f"{ending.capitalize()}{kept}; the same command goes on.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED if ending == "interrupted" else 0) from None


@contextlib.contextmanager
def shown_display(*, as_json: bool = False) -> Iterator["Display"]:
    """The display that fits where stdout goes, while it shows a run."""
    from optnas.cli.displays import LiveDisplay, make_display

    display = make_display(as_json=as_json)
    with display if isinstance(display, LiveDisplay) else contextlib.nullcontext():
        yield display


def _exit_code(outcome: "Outcome") -> int:
    if outcome.ending == "interrupted":
        return INTERRUPTED
    # SIGTERM is how clusters take a machine back: the search goes on elsewhere, nothing failed.
    return 1 if outcome.ending == "finished" and outcome.best is None else 0


def show(
    as_json: bool,
    fields: Callable[["OpenStudy"], dict[str, Any]],
    text: Callable[["OpenStudy"], str],
    handle: "OpenStudy",
) -> None:
    """Print what is to be said of a study, for programs or for people."""
    print(json.dumps(fields(handle)) if as_json else fitted(text(handle)))


def fitted(text: str) -> str:
    """A text in lines that fit the terminal, broken between words; as it is anywhere else.

    Commands and the like, which are to be copied, stay whole.
    """
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    lines = [_fitted_line(line, width) for line in text.splitlines()]
    return "\n".join(lines)


def _fitted_line(line: str, width: int) -> str:
    if len(line) <= width or COMMAND.match(line):
        return line
    indent = " " * min(len(line) - len(line.lstrip()) + 2, width // 4)
    return textwrap.fill(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def target_arguments(target: str, study: str | None, allow: Sequence[str] | None = None) -> str:
    """How commands name a study, without its password."""
    from optnas.storage.urls import hide_password

    allowed = [word for name in allow or () for word in ("--allow", name)]
    return shlex.join([hide_password(target), *([study] if study else []), *allowed])


def epoch_printer() -> Callable[[int, int, float, float], None]:
    """Prints the epochs of a training: all on one line of a terminal, else a few."""

    def show(epoch: int, epochs: int, accuracy: float, seconds: float) -> None:
        end = "\n" if not sys.stdout.isatty() or epoch == epochs else "\r"
        if sys.stdout.isatty() or epoch % max(1, epochs // 20) == 0 or epoch == epochs:
            left = f"about {seconds * (epochs - epoch):.0f} s left"
            text = f"epoch {epoch}/{epochs}  training accuracy {accuracy:.4f}  {left}"
            # Over what is left of a longer line.
            print(text.ljust(78) if sys.stdout.isatty() else text, end=end, flush=True)

    return show


class _Printable:
    """A stream that shows what it is given, and obeys none of it.

    Names and reasons may come from a storage, a folder or a server, and hold what controls a
    terminal. What a console cannot show is escaped, too.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        from optnas.pages.text import printable

        self.stream.write(text if text == "\r" else printable(text))
        return len(text)


def guard_streams() -> None:
    """Let nothing that is printed control the terminal, or fail because it cannot be shown.

    A stream that the shell has closed (`>&-`), which is None, goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        setattr(sys, name, _Printable(stream))


def quiet_libraries() -> None:
    """Show warnings as one line, and leave Optuna's log to the progress view."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def show(message: Warning | str, *_details: Any, **_options: Any) -> None:
        print(f"optnas: warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
