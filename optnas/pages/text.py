"""Texts from elsewhere, as a page may show them."""

import re
from collections.abc import Sequence

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, what turns the direction of text, half characters."""

_PART = r"""[^\s/\\'"`<>|,;:()\[\]{}]+"""
_PATHS = (
    re.compile(r"""(?<=['"])/(?:[^'"\n/]+/)+([^'"\n/]*)(?=['"])"""),
    re.compile(rf"(?:(?<=:///)|(?<![\w.\u2026/\\:~<-]))/(?:{_PART}/)+({_PART})/?"),
    re.compile(rf"(?<!\w)(?:[A-Za-z]:|\\)(?:[\\/]{_PART})*[\\/]({_PART})?"),
)
"""Whole paths, with their last part: in quotation marks, of two parts and more, of Windows."""


def printable(text: str) -> str:
    """A text whose control characters are seen and do nothing: ``\\x1b``."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def in_a_line(text: str) -> str:
    """The same in a line: tabs and line feeds are seen, too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def without_paths(text: str, folders: Sequence[str] = ()) -> str:
    """A text that tells nobody where the files of this machine are.

    Args:
        text: The text.
        folders: Paths in these are shown from there: ``made.db``. Others are cut to their last
            part: ``\u2026/made.db``.
    """
    if "/" not in text and "\\" not in text:
        return text
    for folder in sorted({folder.rstrip("/") for folder in folders}, key=len, reverse=True):
        if folder:
            begin = rf"(?<![\w.]){re.escape(folder)}"
            text = re.sub(rf"{begin}/+(?=[^\s/'\",;:)])", "", text)
            text = re.sub(rf"{begin}/*(?![\w/.-])", ".", text)
    for path in _PATHS:
        text = path.sub(lambda found: f"\u2026/{found[1] or ''}", text)
    return text
