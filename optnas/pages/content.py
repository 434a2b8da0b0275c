"""What a page holds. Texts are plain: the frame escapes them, whatever stands in them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

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
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    titled: bool = False
    sortable: bool = False


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


Block = Paragraph | Preformatted | Table | Plots | Drawing | Pictures


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
    """

    title: str
    sections: Sequence[Section]
    marks: Mapping[str, str] = dataclasses.field(default_factory=dict)
