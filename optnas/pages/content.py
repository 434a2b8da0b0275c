"""What a page holds. Texts are plain: the frame escapes them, whatever stands in them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from optnas.drawing.shapes import Picture
from optnas.pages.plots import Plot


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A text that flows.

    Args:
        text: What it says.
    """

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclasses.dataclass(frozen=True)
class Preformatted:
    """A text whose lines stay as they are.

    Args:
        text: What it says.
    """

    kind: ClassVar[str] = "preformatted"
    text: str


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        heading: What it holds, with its unit.
        text: Whether it holds text, which stands on the left and may be broken; else numbers.
    """

    heading: str
    text: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column names the row.

    Args:
        title: What the table shows; read out, and shown above it where ``titled``.
        columns: Its columns.
        rows: A text for every column; numbers as people write them, ``1,234.5``.
        titled: Whether the title is shown.
        sortable: Whether a reader may sort the rows by a column.
        drawings: A drawing for every row, shown when its first cell is pointed at or chosen; None
            for a row without one. Empty for none at all.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    titled: bool = False
    sortable: bool = False
    drawings: Sequence[Picture | None] = ()


@dataclasses.dataclass(frozen=True)
class Facts:
    """The few numbers that a reader came for, large and side by side.

    Args:
        facts: For each its name, its value, and a remark, which may be empty.
    """

    kind: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """How often each of some classes was taken for which; the darker, the greater its row's share.

    Args:
        title: What it shows.
        names: The classes.
        counts: A row for every class: how often it was taken for each.
    """

    kind: ClassVar[str] = "matrix"
    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]

    def shade(self, row: int, column: int) -> int:
        """The share of a row in a cell, in steps from 0 to 9."""
        count = self.counts[row][column]
        return 0 if count == 0 else min(9, 1 + 9 * count // (sum(self.counts[row]) + 1))


@dataclasses.dataclass(frozen=True)
class Plots:
    """Plots beside and below one another.

    Args:
        plots: The plots.
    """

    kind: ClassVar[str] = "plots"
    plots: Sequence[Plot]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A drawing of an architecture.

    Args:
        picture: The drawing.
        title: What it shows, for those who do not see it.
    """

    kind: ClassVar[str] = "drawing"
    picture: Picture
    title: str


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Photographs and the like below one another, each with its caption above it.

    Args:
        pictures: A caption and a PNG for each; the caption also says it to those who do not see.
    """

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[tuple[str, bytes]]


@dataclasses.dataclass(frozen=True)
class Thumbnails:
    """Small pictures side by side, each with its caption below it.

    Args:
        pictures: A caption for each, and a PNG or JPEG; the caption also says it to those who do
            not see.
    """

    kind: ClassVar[str] = "thumbnails"
    pictures: Sequence[tuple[str, bytes]]


@dataclasses.dataclass(frozen=True)
class Folded:
    """What a reader unfolds who wants to know.

    Args:
        title: What it is.
        blocks: What is folded away.
    """

    kind: ClassVar[str] = "folded"
    title: str
    blocks: "Sequence[Block]"


Block = (
    Paragraph
    | Preformatted
    | Table
    | Facts
    | Matrix
    | Plots
    | Drawing
    | Pictures
    | Thumbnails
    | Folded
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Args:
        heading: The heading.
        blocks: What stands below it.
    """

    heading: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: Its heading, and its name in the browser.
        sections: Its sections.
        marks: What its head says to programs, by name.
        lead: What it is about, in a sentence below the heading; empty for nothing.
        folders: Folders of this machine: paths in them are shown as those below them. Of every
            other path the page shows the last part.
    """

    title: str
    sections: Sequence[Section]
    marks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lead: str = ""
    folders: Sequence[str] = ()


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """What a page holds, with every text in it changed; those of drawings stay.

    Args:
        value: A page, or a part of one.
        change: What is made of a text.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Picture):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{k: with_texts(v, change) for k, v in fields.items()})
    if isinstance(value, Mapping):
        return {key: with_texts(each, change) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [with_texts(each, change) for each in value]
    return value
