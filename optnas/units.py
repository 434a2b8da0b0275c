"""Counts, times and sizes as people read them."""


def count(number: int | None) -> str:
    """A count with its thousands as K, M or G."""
    if number is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e4)):
        if number >= size:
            return f"{number / (size if unit != 'K' else 1e3):.3g}{unit}"
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


def size(number: float) -> str:
    """A number of bytes in the unit that fits."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while number >= 1000 and len(units) > 1:
        number /= 1000
        del units[0]
    return f"{number:.0f} bytes" if units[0] == "bytes" else f"{number:.1f} {units[0]}"
