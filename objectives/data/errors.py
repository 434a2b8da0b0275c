"""What the border of images refuses, and how it names what it found."""

from collections.abc import Iterable

from optnas.errors import UserError


class DataError(UserError):
    """The data cannot be used as asked; the message says why and what to do."""


def shown(name: object) -> str:
    """A name or a path as text that a terminal and a page can show: nothing that controls them."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def some(names: Iterable[object], limit: int = 5) -> str:
    """The first of many names, and how many more there are."""
    every = [shown(name) for name in names]
    more = f" and {len(every) - limit:,} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """A number with its noun: ``1 image``, ``1,200 images``."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"
