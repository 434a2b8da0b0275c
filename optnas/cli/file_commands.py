"""The commands that come before a search: study files, their data, what they can name."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from optnas.cli.console import quiet_libraries
from optnas.cli.options import File, Json


def data(
    file: File,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PAGE", help="Write a page of it, too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a study sees: images per class and split, what was left out, duplicates, a sheet."""
    from optnas.pages.frame import render, write_page
    from optnas.report.data import data_fields, data_page, data_text, read_data
    from optnas.study.opening import config_to_run

    quiet_libraries()
    config = config_to_run(file)
    images = read_data(config)
    fields = data_fields(images, config)
    print(json.dumps(fields) if as_json else data_text(fields))
    if html is not None:
        write_page(html, render(data_page(fields, images)))
        if not as_json:
            print(f"\nWrote {html}. Open it in a browser.")
    if not as_json:
        print(f"\nNext: optnas run {shlex.quote(str(file))} --dry-run")


def init(
    path: Annotated[Path, typer.Argument(help="The study file to write.")] = Path("study.yaml"),
    data: Annotated[str, typer.Option(help="The data set.")] = "digits",
    root: Annotated[
        Path | None, typer.Option(help="Folder that holds the data set; `images` needs it.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="The strategy. Default: one that fits space and budget.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="The search space. Default: one that fits the strategy.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many networks the search may train.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Write all keys, each with its meaning and default.")
    ] = False,
) -> None:
    """Write a study file to start from."""
    from optnas.config.proposal import proposed, proposed_extent, proposed_pruner
    from optnas.config.template import template
    from optnas.errors import UserError

    if data == "images" and root is None:
        raise UserError("--data images needs --root, the folder of your images")
    if data == "images" and root is not None and not root.expanduser().is_dir():
        why = "is no folder" if root.exists() else "does not exist"
        raise UserError(f"--root {root} {why}; name the folder of your images")
    proposal = proposed(space, trials, data)
    if sampler is None:
        trials = proposal.trials
    strategy, place = sampler or proposal.sampler, _place_in_file(root, path)
    pruner = proposed_pruner(strategy, space, trials, data)
    extent = proposed_extent(strategy, space, data)
    text = template(
        *(path.stem, data, strategy),
        space=space,
        extent=extent,
        trials=trials,
        root=place,
        pruner=pruner,
        full=full,
    )
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists; name another file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if sampler is None:
        print(f"The sampler is {proposal.sampler}: {proposal.why}. `optnas list` shows others.")
    if extent is not None:
        print("Its chains are small, as for few images: see `space`.")
    if pruner is not None:
        first, second = pruner["first"], pruner["first"] * pruner["factor"]
        print(f"Networks that rank low after {first} or {second} epochs stop there: see `pruner`.")
    print(f"Wrote {path}. Next: optnas run {shlex.quote(str(path))}")


def _place_in_file(root: Path | None, file: Path) -> str | None:
    """A path as a study file says it: relative paths start in the file's folder."""
    if root is None or root.is_absolute() or str(root).startswith("~"):
        return None if root is None else str(root)
    return os.path.relpath(root, file.parent)


def schema() -> None:
    """The JSON schema of study files, for editors."""
    from optnas.config.schema import schema as study_schema

    print(json.dumps(study_schema(), indent=2))


def list_(as_json: Json = False) -> None:
    """Strategies, spaces, data sets, pruners and objectives, each with one line."""
    from optnas.report.text import known_fields, known_text

    fields = known_fields()
    print(json.dumps(fields) if as_json else known_text(fields))
