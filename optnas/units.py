"""Counts, times and sizes as people read them."""

from rich.filesize import decimal as size

__all__ = ["count", "duration", "size"]


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
