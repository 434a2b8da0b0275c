"""Pages as HTML: one file that needs no other, no network, and no script to be read.

Every text is escaped, whoever wrote it. The browser is told to run only the style and the script
of the frame, which it knows by their digests, and to load nothing, whatever the page says.
"""

import base64
import functools
import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optnas.drawing.shapes import svg
from optnas.pages.content import Page
from optnas.pages.plots import Plot
from optnas.pages.text import printable
from optnas.storage.files import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment


def render(page: Page) -> str:
    """A page as HTML.

    Args:
        page: What it holds.
    """
    style, script = _asset("style.css"), _asset("sort.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    template = _environment().get_template("page.html")
    return template.render(page=page, style=style, script=script, policy=policy)


def write_page(path: Path, html: str) -> None:
    """Write a page, whole or not at all.

    Args:
        path: Where.
        html: The page.

    Raises:
        UserError: If it cannot be written.
    """
    # A text from elsewhere may hold half a character, which no encoding has.
    write_whole(path, html.encode("utf-8", errors="backslashreplace"))


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from optnas.pages.plot_svg import legend_svg, plot_svg

    def finalize(value: Any) -> Any:
        return printable(value) if type(value) is str else value

    environment = Environment(
        loader=PackageLoader("optnas.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def drawn(plot: Plot) -> Markup:
        return Markup(plot_svg(plot))

    environment.filters |= {
        "as_it_is": Markup,
        "plot": drawn,
        "legend": lambda series: Markup(legend_svg(series)),
        "drawing": lambda picture: Markup(printable(svg(picture))),
        "anchor": _anchor,
        "png": lambda content: f"data:image/png;base64,{base64.b64encode(content).decode()}",
    }
    return environment


@functools.cache
def _asset(name: str) -> str:
    return (resources.files("optnas.pages") / "templates" / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _anchor(heading: str) -> str:
    """The name of a section in addresses."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
