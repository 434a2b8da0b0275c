"""Counts, times, sizes, names and tables as people read them."""

from collections.abc import Collection, Sequence

from rich.filesize import decimal as size

__all__ = ["aligned", "count", "duration", "plural", "shown", "size", "span"]


def count(number: int | None) -> str:
    """A count with its thousands as K, M or G."""
    if number is None:
        return "-"
    for unit, least in (("G", 1e9), ("M", 1e6), ("K", 1e4)):
        if number >= least:
            return f"{number / (least if unit != 'K' else 1e3):.3g}{unit}"
    return str(number)


def duration(seconds: float | None) -> str:
    """A time as seconds, minutes and seconds, or hours and minutes."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} m"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def plural(number: int, noun: str) -> str:
    """A number of things: ``1 epoch``, ``2 epochs``, ``1,000 classes``."""
    if number == 1:
        return f"{number} {noun}"
    if noun.endswith("y"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def shown(name: object) -> str:
    """A name or a path as text that a terminal and a page can show: nothing that controls them."""
    text = str(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """The lines of a table whose columns are as wide as their widest cell.

    Args:
        rows: The cells.
        left: The columns that stand on the left, texts; the others stand on the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def span(low: float, high: float) -> str:
    """A range of seconds, as nobody knows it better: ``20 to 90 min``, ``1.5 to 4 h``."""
    unit, name = next(
        (
            (unit, name)
            for unit, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))
            if high >= 2 * unit
        ),
        (1.0, "s"),
    )
    texts = [_rounded(seconds / unit) for seconds in (low, high)]
    return f"{texts[0]} {name}" if texts[0] == texts[1] else f"{texts[0]} to {texts[1]} {name}"


def _rounded(number: float) -> str:
    """Two digits."""
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")
