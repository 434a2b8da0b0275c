"""What the border of images refuses, and how it names what it found."""

from collections.abc import Iterable

from optnas.errors import UserError
from optnas.units import shown


class DataError(UserError):
    """The data cannot be used as asked; the message says why and what to do."""


def some(names: Iterable[object], limit: int = 5) -> str:
    """The first of many names, and how many more there are."""
    every = [shown(name) for name in names]
    more = f" and {len(every) - limit:,} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more
