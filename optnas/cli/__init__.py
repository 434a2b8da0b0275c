"""The command `optnas`."""

import os
import sys

# A stray colon in PYTHONPATH puts the current folder before Python's own modules: it comes last.
_here = os.path.realpath(os.getcwd()) if os.path.isdir(os.curdir) else ""
_late = [entry for entry in sys.path if os.path.realpath(entry or _here) == _here]
sys.path[:] = [*(entry for entry in sys.path if entry not in _late), *_late]

from optnas.cli.commands import app, main  # noqa: E402

__all__ = ["app", "main"]
