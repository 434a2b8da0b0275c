"""A table of labels: which file is of which class, and of which split."""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optnas.objectives.data.errors import DataError, some
from optnas.objectives.data.listing import Entry, Listing, walk
from optnas.objectives.data.names import (
    SPLITS,
    TRAIN,
    class_name,
    is_text,
    ordered,
    split_of,
)
from optnas.units import plural, shown

_COLUMNS = ("file", "label", "split")
_Row = tuple[int, dict[str, Any]]


def by_table(root: Path, table: Path) -> Listing:
    """The images that a table names.

    The table is CSV with a line of headers (commas, semicolons or tabs), or JSON lines: columns
    ``file`` (a path in ``root``), ``label`` and, if wanted, ``split``. Other columns are left
    alone.

    Args:
        root: The folder of the images.
        table: The table; if there is none at this place, the file of that name in ``root``.

    Raises:
        DataError: If the table cannot be read or contradicts itself.
    """
    if not table.is_file() and (root / table.name).is_file():
        table = root / table.name
    listing = Listing([], ())
    entries: dict[str, tuple[int, Entry]] = {}
    twice = 0
    for line, row in _rows(table):
        entry = _entry(row, root, table, line)
        known = entries.setdefault(entry.name, (line, entry))
        if known[1] != entry:
            raise DataError(
                f"{shown(table)}:{line}: {shown(entry.name)!r} is of another class or split "
                f"here than in line {known[0]}: an image has one of each."
            )
        twice += known[0] != line
    if twice:
        listing.remarks.append(f"{plural(twice, 'row')} of the table said again what is known")
    listing.entries = [entry for _, entry in entries.values()]
    _check_splits(listing.entries, table)
    listing.class_names = tuple(ordered({entry.label for entry in listing.entries}))
    if len(listing.class_names) < 2:
        raise DataError(
            f"{shown(table)} must name images of two or more classes; seen: "
            f"{some(listing.class_names) or 'none'}."
        )
    places = {name: place for place, name in enumerate(listing.class_names)}
    listing.entries.sort(key=lambda entry: (places[entry.label], entry.name))
    others: dict[str, list[str]] = {}
    there = {name for _, name in walk(root, others).every()}
    _check_there(listing.entries, there, root, table)
    unnamed = sorted(there.difference(entries))
    if unnamed:
        listing.left_out["images that the table does not name"] = unnamed
    return listing


def _check_there(entries: list[Entry], there: set[str], root: Path, table: Path) -> None:
    """Refuse a table most of whose files are not there: its paths start somewhere else."""
    missing = [e.name for e in entries if e.name not in there and not os.path.exists(e.path)]
    if 2 * len(missing) > len(entries):
        raise DataError(
            f"{shown(table)}: {len(missing):,} of {plural(len(entries), 'file')} are not in "
            f"{shown(root)}: {some(missing, 3)}. The column file holds paths from `root`, with "
            "their suffixes."
        )


def _rows(table: Path) -> Iterator[_Row]:
    try:
        content = table.read_bytes()
    except OSError as error:
        raise DataError(
            f"`labels`: {shown(table)} cannot be read: {error.strerror}; expected a CSV file with "
            "the columns file, label and, if wanted, split."
        ) from None
    if b"\0" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{shown(table)} is no text: save the table as CSV, in UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{shown(table)}:{line}: not UTF-8 text; save the table as UTF-8."
        ) from None
    is_json = table.suffix.lower() in (".jsonl", ".ndjson", ".json") or text.lstrip()[:1] == "{"
    yield from _json_rows(text, table) if is_json else _csv_rows(text, table)


def _json_rows(text: str, table: Path) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(
                f"{shown(table)}:{number}: expected an object of JSON on a line of its own, such "
                'as {"file": "a.png", "label": "cat"}.'
            )
        values = {_column(key): value for key, value in row.items()}
        if len(values) < len(row):
            raise DataError(f"{shown(table)}:{number}: a column is there twice: {some(row)}.")
        _check_columns(values, table, number)
        yield number, values


def _csv_rows(text: str, table: Path) -> Iterator[_Row]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [_column(name) for name in next(reader, [])]
        _check_columns(columns, table, 1)
        if len(set(columns)) < len(columns):
            raise DataError(f"{shown(table)}:1: a column is there twice: {some(columns)}.")
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(columns):
                raise DataError(
                    f"{shown(table)}:{reader.line_num}: {len(row)} values for "
                    f"{len(columns)} columns; put quotes around a value with {delimiter!r} in it."
                )
            yield reader.line_num, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{shown(table)}:{reader.line_num}: {error}.") from None


def _column(name: str) -> str:
    return name.strip().casefold()


def _check_columns(columns: Any, table: Path, line: int) -> None:
    missing = [name for name in _COLUMNS[:2] if name not in columns]
    if missing:
        raise DataError(
            f"{shown(table)}:{line}: expected the columns file, label and, if wanted, split; "
            f"seen: {some(columns) or 'nothing'}."
        )


def _entry(row: dict[str, Any], root: Path, table: Path, line: int) -> Entry:
    file, label, split = (row.get(name) for name in _COLUMNS)
    where = f"{shown(table)}:{line}"
    if not isinstance(file, str) or not file.strip() or "\0" in file or not is_text(file):
        raise DataError(f"{where}: `file` must be the path of an image in {shown(root)}.")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(label, str) or not label.strip() or not is_text(label):
        raise DataError(f"{where}: `label` must be the name of a class: {shown(repr(label))}.")
    part = split_of(split.strip()) if isinstance(split, str) and split.strip() else None
    if part is None and split not in (None, "") and (not isinstance(split, str) or split.strip()):
        raise DataError(f"{where}: `split` must be train, validation or test: {split!r}.")
    name = os.path.normpath(file.strip())
    if "\\" in name and not (root / name).exists():  # Written on another system.
        name = os.path.normpath(file.strip().replace("\\", "/"))
    path = os.path.join(root, name)
    if os.path.isabs(name) or name.startswith(os.pardir):
        name = os.path.relpath(path, root)
    return Entry(path, name, class_name(label.strip()), part)


def _check_splits(entries: list[Entry], table: Path) -> None:
    splits = {entry.split for entry in entries}
    if splits <= {None}:
        return
    if None in splits:
        lacking = [entry.name for entry in entries if entry.split is None]
        raise DataError(
            f"{shown(table)}: {plural(len(lacking), 'image')} of {len(entries):,} have no "
            f"`split` ({some(lacking, 3)}): fill the column, or leave it out."
        )
    if TRAIN not in splits:
        seen = some(split for split in SPLITS if split in splits)
        raise DataError(f"{shown(table)}: no image is of the split train; seen: {seen}.")
    trained = {entry.label for entry in entries if entry.split == TRAIN}
    unknown = {entry.label for entry in entries} - trained
    if unknown:
        raise DataError(
            f"{shown(table)}: the training images lack the classes {some(ordered(unknown))}."
        )
