"""An SVG file that matplotlib wrote, as an element of a page.

Colours become classes, since a page allows no other style than its own, which knows light and
dark. What only a file of its own needs is left out, and numbers are shortened.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from optnas.pages.plots import COLOURS, GREY, Plot
from optnas.pages.text import printable

WIDTH = 480
"""Pixels: narrow, so that its texts can be read on a telephone, and two stand side by side."""
FONT_SIZE = 13
INK, RULE = "#010203", "#d0d1d2"
"""What matplotlib calls the colours of text and of the grid; no colour of a series is the same."""
_CLASSES = {INK: "ink", GREY: "grey", RULE: "rule", "none": "none"} | {
    colour: f"c{index}" for index, colour in enumerate(COLOURS)
}
_KEPT = ("stroke-width", "stroke-dasharray", "text-anchor", "opacity", "fill-opacity")
_XLINK = "{http://www.w3.org/1999/xlink}href"


def class_of(colour: str) -> str:
    """What the page's style calls a colour.

    Args:
        colour: One of ``COLOURS``, or of text, lines and the grid.
    """
    return _CLASSES[colour]


def embedded(document: bytes, plot: Plot, labels: Mapping[str, Sequence[str]]) -> str:
    """What matplotlib wrote, as an element of a page.

    Args:
        document: The SVG file.
        plot: The plot that it shows.
        labels: What the points say under the pointer, by the group that they are in.
    """
    root = ET.fromstring(document)
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        if element.tag in ("metadata", "style"):
            parents[element].remove(element)
    used = set(re.findall(rb'(?:url\(|href=")#([^)"]+)', document))
    for element in root.iter():
        _restyle(element)
        name = element.get("id", "")
        if name.encode() not in used:
            element.attrib.pop("id", None)
        if name in labels:
            element.set("class", "points")
            _tell(element, labels[name])
        elif name in ("line", "band"):
            element.set("class", name)
    root.attrib = {
        "id": f"figure-{plot.name}",
        "class": "plot",
        "viewBox": f"0 0 {WIDTH} {plot.height}",
        "width": str(WIDTH),
        "height": str(plot.height),
        "role": "img",
        "aria-label": printable(plot.description),
    }
    return ET.tostring(root, encoding="unicode")


def _tell(group: ET.Element, labels: Sequence[str]) -> None:
    """Give every point of a group the text that is shown under the pointer."""
    if labels:
        for point, label in zip(list(group.iter("use")), labels, strict=True):
            ET.SubElement(point, "title").text = printable(label)


def _restyle(element: ET.Element) -> None:
    """Turn the style of an element into classes and attributes, and shorten its numbers."""
    style = element.attrib.pop("style", "")
    declarations = dict(re.findall(r"([\w-]+)\s*:\s*([^;]*)", style))
    if _XLINK in element.attrib:
        element.set("href", element.attrib.pop(_XLINK))
    classes = []
    for name in ("fill", "stroke"):
        colour = declarations.get(name)
        if colour in _CLASSES:
            classes.append(f"{name}-{_CLASSES[colour]}")
        elif colour is not None:
            element.set(name, colour)
    for name in _KEPT:
        if name in declarations:
            element.set(name, declarations[name])
    if element.tag == "text":
        classes = ["fill-ink"]
        element.set("font-size", str(FONT_SIZE))
    if classes:
        element.set("class", " ".join(classes))
    for name in {"d", "x", "y", "transform", "width", "height", "stroke-dasharray"}:
        if name in element.attrib:
            element.set(name, re.sub(r"-?\d+\.\d+", _short, element.attrib[name]))
    if element.text is not None and not element.text.strip():
        element.text = None
    element.tail = None


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
