"""The commands about studies as such: which there are, and to be rid of one."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from optnas.cli.options import Allow, Json, Name, Target, Yes

if TYPE_CHECKING:
    from optnas.config.file import Written
    from optnas.study.opening import OpenStudy


def ls(
    place: Annotated[
        str, typer.Argument(metavar="[FOLDER|STORAGE]", help="A folder, or a storage's URL.")
    ] = ".",
    as_json: Json = False,
) -> None:
    """Which studies there are: state, trials, best value."""
    from optnas.cli.console import quiet_libraries
    from optnas.report.studies import studies_in, studies_text

    quiet_libraries()
    rows = studies_in(place)
    print(json.dumps(rows) if as_json else studies_text(rows, place))


def rm(target: Target, study: Name = None, allow: Allow = None, yes: Yes = False) -> None:
    """Throw a study away, with its checkpoints and drawings, after showing it."""
    from optnas.cli.console import quiet_libraries
    from optnas.study.opening import open_compared

    quiet_libraries()
    handle, _ = open_compared(target, study, allow=allow or ())
    discard(handle, yes=yes, out=sys.stdout)


def discard_written(written: "Written", *, yes: bool, out: TextIO) -> None:
    """Throw the study of a configuration away, if it exists."""
    from optnas.cli.console import quiet_libraries
    from optnas.study.removal import study_of

    quiet_libraries()
    handle = study_of(written)
    if handle is None:
        print("nothing is thrown away: the study was never started", file=out)
    else:
        discard(handle, yes=yes, out=out)


def discard(handle: "OpenStudy", *, yes: bool, out: TextIO) -> None:
    """Show what belongs to a study, ask, and throw it away; exit if that is not wanted."""
    from optnas.errors import UserError
    from optnas.study.removal import belongings, throw_away

    own = belongings(handle)
    print(f"to be thrown away: {own.text()}", file=out)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nothing was thrown away: nobody can be asked here, so say --yes")
        typer.confirm("Throw it away?", abort=True, err=True)
    throw_away(own)
    print("thrown away", file=out)
