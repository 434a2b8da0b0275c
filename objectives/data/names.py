"""What the names of files and folders say: splits, classes, and what is none of the user's."""

import re
import unicodedata
from collections.abc import Iterable

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst"), TEST),
}
_FILLERS = r"(?:set|split|folder|dir|part|data|dataset|images?|imgs?|pictures?|photos?|files)"
_JUNK = frozenset(
    (
        *("__macosx", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
        *("@eadir", "@__thumb", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "recycler"),
        *("system volume information", "lost+found", "__pycache__", "cvs"),
    )
)


def is_junk(name: str) -> bool:
    """Whether an entry was left by an operating system, a file manager, a notebook or the like.

    Hidden names are: all that begin with a dot.
    """
    return name.startswith((".", "~$")) or name.lower() in _JUNK


def split_of(name: str) -> str | None:
    """The split that a name stands for, in any case and with the usual additions, or None.

    Such as ``Train``, ``training_set``, ``test-images`` and ``val2017``.
    """
    letters = re.sub(r"[\W\d_]+", "", unicodedata.normalize("NFKC", name).casefold())
    while letters not in _SPLIT_NAMES:
        shorter = re.sub(rf"^{_FILLERS}|{_FILLERS}$", "", letters, count=1)
        if shorter == letters:
            return None
        letters = shorter
    return _SPLIT_NAMES[letters]


def is_text(name: str) -> bool:
    """Whether it can be written as UTF-8; strings of JSON may hold halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def class_name(name: str) -> str:
    """The name of a class: names that look the same are the same."""
    return unicodedata.normalize("NFC", name)


def ordered(names: Iterable[str]) -> list[str]:
    """Names in the order in which people count: 2 before 10."""

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.split(r"([0-9]+)", name)
        numbered = [(0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts]
        return [part for part in numbered if part != (1, 0, "")], name

    return sorted(names, key=key)
