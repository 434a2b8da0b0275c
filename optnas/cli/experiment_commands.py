"""The commands that run many studies: `optnas rank` and `optnas compare`."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optnas.cli.console import INTERRUPTED, quiet_libraries
from optnas.cli.options import Device, File, Files, Json, Output

if TYPE_CHECKING:
    from optnas.experiments.contenders import Unit
    from optnas.experiments.studies import Experiment

# Imported when they are needed: `optnas --help` loads neither Optuna nor torch.


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
    elsewhere: Annotated[
        Path | None,
        typer.Option(
            metavar="STUDY.yaml",
            help="Train the same networks as this file says too, on its data.",
        ),
    ] = None,
    output: Output = None,
    as_json: Json = False,
    device: Device = None,
) -> None:
    """Measure how well reduced settings rank random networks, on your own data."""
    from optnas.config.file import load_study_file
    from optnas.experiments.next_commands import command_after_ranking
    from optnas.experiments.ranking import parse_settings
    from optnas.experiments.ranking import rank as run_ranking

    _show_experiment(
        lambda say: run_ranking(
            load_study_file(file),
            networks=networks,
            settings=parse_settings(settings),
            full_epochs=full_epochs,
            dynamic=dynamic,
            elsewhere=None if elsewhere is None else load_study_file(elsewhere),
            device=device,
            on_study=say,
        ),
        "ranking",
        output,
        as_json,
        lambda fields: command_after_ranking(load_study_file(file), str(file), fields),
    )


def compare(
    files: Files,
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
    score: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="On a table: judge the network with the best value by this column instead.",
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Studies that run at once.")] = 1,
    output: Output = None,
    as_json: Json = False,
    device: Device = None,
) -> None:
    """Compare strategies and stock samplers at equal cost, over several seeds."""
    from optnas.config.file import load_study_file
    from optnas.errors import UserError
    from optnas.experiments.comparison import compare as run_comparison
    from optnas.experiments.comparison import overall
    from optnas.experiments.contenders import parse_contenders, spending
    from optnas.experiments.next_commands import command_after_comparison

    def perform(say: Callable[[str], None]) -> "Experiment":
        given: dict[Unit, float | None] = {
            "epochs": epochs,
            "seconds": seconds,
            "trials": trials,
        }
        configs = [load_study_file(file) for file in files]
        if len({(config.storage, config.study) for config in configs}) < len(configs):
            raise UserError("a study is named twice, and would count twice in the ranking")
        plans = [(c, parse_contenders(samplers, c), *spending(given, c)) for c in configs]
        done = [
            run_comparison(
                config,
                contenders,
                unit=unit,
                amount=amount,
                seeds=seeds,
                candidate_epochs=candidate_epochs,
                score=score,
                processes=processes,
                device=device,
                on_study=say,
            )
            for config, contenders, unit, amount in plans
        ]
        return done[0] if len(done) == 1 else overall([experiment.fields for experiment in done])

    def goes_on(fields: Mapping[str, Any]) -> str:
        config = load_study_file(files[0])
        contenders = parse_contenders(samplers, config)
        return command_after_comparison(config, str(files[0]), contenders, fields)

    _show_experiment(perform, "comparison", output, as_json, goes_on)


def _show_experiment(
    perform: Callable[[Callable[[str], None]], "Experiment"],
    name: str,
    output: Path | None,
    as_json: bool,
    goes_on: Callable[[Mapping[str, Any]], str],
) -> None:
    """Show an experiment: progress on stderr, what came of it on stdout and in a folder.

    Args:
        perform: Makes it, and says lines of progress.
        name: Of its files.
        output: Their folder.
        as_json: Whether to print JSON.
        goes_on: The next command, from its fields.
    """
    from optnas.experiments.studies import Stopped

    quiet_libraries()
    try:
        experiment = perform(lambda line: print(line, file=sys.stderr, flush=True))
    except (Stopped, KeyboardInterrupt) as stop:
        print("Interrupted; nothing is lost: the same command goes on.", file=sys.stderr)
        terminated = isinstance(stop, Stopped) and stop.ending == "terminated"
        raise typer.Exit(0 if terminated else INTERRUPTED) from None
    print(json.dumps(experiment.fields) if as_json else experiment.text)
    if output is not None:
        experiment.write(output, name)
    if not as_json:
        if output is not None:
            print(f"\nWrote {output / f'{name}.html'}. Open it in a browser.")
        print(f"\nNext: {goes_on(experiment.fields)}")
