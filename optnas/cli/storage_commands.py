"""The commands about storages."""

from typing import Annotated

import typer

app = typer.Typer(
    name="storage",
    help="Look after the storages of studies.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def storage() -> None:
    """Look after the storages of studies."""


@app.command()
def upgrade(
    url: Annotated[str, typer.Argument(metavar="STORAGE", help="A database's URL.")],
    copy: Annotated[
        bool,
        typer.Option(help="Copy a database file first. That of a server is copied by its tools."),
    ] = True,
) -> None:
    """Bring the tables that an older Optuna made up to the version that is installed."""
    from optnas.cli.console import quiet_libraries
    from optnas.storage.upgrading import upgrade as upgrade_storage

    quiet_libraries()
    print(upgrade_storage(url, copy=copy))
