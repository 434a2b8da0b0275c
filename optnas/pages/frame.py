"""Pages as HTML: one file that needs no other, no network, and no script to be read.

Every text is escaped, whoever wrote it. The browser is told to run only the style and the script
of the frame, which it knows by their digests, and to load nothing, whatever the page says.
"""

import base64
import contextlib
import functools
import hashlib
import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optnas.drawing.shapes import Picture, svg
from optnas.pages.content import Page, with_texts
from optnas.pages.plots import Plot
from optnas.pages.text import printable, without_paths
from optnas.storage.files import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render(page: Page) -> str:
    """A page as HTML.

    Args:
        page: What it holds.
    """
    style, script = _asset("style.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    template = _environment().get_template("page.html")
    page = public(page)
    return template.render(page=page, style=style, script=script, policy=policy)


def public(page: Page) -> Page:
    """A page that says nothing of where files are on this machine.

    Args:
        page: The page.
    """
    folders = [*page.folders, os.path.expanduser("~")]
    with contextlib.suppress(OSError):  # Somebody may have removed it.
        folders.append(os.getcwd())
    shown: Page = with_texts(page, lambda text: without_paths(text, folders))
    return shown


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
        "small": _small,
        "anchor": _anchor,
        "picture": _picture,
    }
    return environment


def _small(picture: Picture) -> "Markup":
    """A drawing of which there may be hundreds on a page."""
    from markupsafe import Markup

    element = svg(picture).replace("\n", "")
    element = re.sub(r'"[^"<>]*"', lambda found: re.sub(r"\.0\b", "", found[0]), element)
    return Markup(printable(element))


def _picture(content: bytes) -> str:
    """A PNG or JPEG as an address."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@functools.cache
def _asset(name: str) -> str:
    return (resources.files("optnas.pages") / "templates" / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _anchor(heading: str) -> str:
    """The name of a section in addresses."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
