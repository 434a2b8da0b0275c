"""Pages as Markdown, for where no HTML is read: issues, wikis, terminals."""

import html
from collections.abc import Iterator, Sequence

from optnas.pages.content import (
    Block,
    Drawing,
    Facts,
    Folded,
    Matrix,
    Page,
    Paragraph,
    Pictures,
    Plots,
    Preformatted,
    Table,
    Thumbnails,
)
from optnas.pages.frame import public
from optnas.pages.text import printable


def markdown(page: Page) -> str:
    """A page as Markdown: all its texts, tables and numbers; of pictures what they show.

    Args:
        page: What it holds.
    """
    page = public(page)
    marks = (
        f'<meta name="{html.escape(k)}" content="{html.escape(v)}">' for k, v in page.marks.items()
    )
    lines = [*(f"<!-- {mark} -->" for mark in marks), f"# {plain(page.title)}"]
    if page.lead:
        lines += ["", plain(page.lead)]
    for section in page.sections:
        lines += ["", f"## {plain(section.heading)}"]
        for block in section.blocks:
            lines += ["", *_lines(block)]
    return "\n".join(lines) + "\n"


def _lines(block: Block) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield plain(block.text)
    elif isinstance(block, Preformatted):
        yield from _fenced(block.text)
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Matrix):
        rows = [
            [name, *map(str, row)] for name, row in zip(block.names, block.counts, strict=True)
        ]
        yield plain(block.title)
        yield ""
        yield from _rows(["", *block.names], [True, *[False] * len(block.names)], rows)
    elif isinstance(block, Facts):
        for name, value, remark in block.facts:
            more = f" ({plain(remark)})" if remark else ""
            yield f"- {plain(name)}: **{plain(value)}**{more}"
    elif isinstance(block, Plots):
        for plot in block.plots:
            said = " ".join(filter(None, (plot.says, plot.description, plot.note)))
            yield f"- **{plain(plot.title)}.** {plain(said)}"
    elif isinstance(block, Drawing):
        yield f"*{plain(block.title)}: the page has it.*"
    elif isinstance(block, Pictures | Thumbnails):
        yield from (f"- {plain(caption)}" for caption, _ in block.pictures)
    elif isinstance(block, Folded):
        yield f"### {plain(block.title)}"
        for inner in block.blocks:
            yield ""
            yield from _lines(inner)


def _table(table: Table) -> Iterator[str]:
    if table.titled:
        yield plain(table.title)
        yield ""
    headings = [column.heading for column in table.columns]
    yield from _rows(headings, [column.text for column in table.columns], table.rows)


def _rows(
    headings: Sequence[str], texts: Sequence[bool], rows: Sequence[Sequence[str]]
) -> Iterator[str]:
    yield _row(headings)
    yield _row_of("---" if text else "---:" for text in texts)
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return _row_of(plain(cell).replace("|", "\\|") for cell in cells)


def _row_of(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fenced(text: str) -> Iterator[str]:
    """Lines that stay as they are; none of them may end the block."""
    fence = "```"
    while fence in text:
        fence += "`"
    yield fence
    yield printable(text).rstrip("\n")
    yield fence


def plain(text: str) -> str:
    """A text without what Markdown or HTML would make of it, on one line."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]#~" else c for c in printable(text))
    return " ".join(escaped.replace("<", "&lt;").replace(">", "&gt;").split())
