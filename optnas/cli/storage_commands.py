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


@app.command()
def serve(
    url: Annotated[str, typer.Argument(metavar="STORAGE", help="A database's URL.")],
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Others than this machine's own loopback let whoever "
            "reaches them read and change every study, without a password."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 13000,
) -> None:
    """Answer for a database, so that workers need no password of it: `storage: grpc://HOST:PORT`."""
    from optnas.cli.console import quiet_libraries
    from optnas.storage.serving import serve as serve_storage

    quiet_libraries()
    serve_storage(url, host=host, port=port)
