"""The command `optnas`."""

from optnas.cli.commands import app, main

__all__ = ["app", "main"]
