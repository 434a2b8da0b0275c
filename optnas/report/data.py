"""What `optnas data` says: the whole reading of a data set, as text, fields and a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from optnas.config.file import StudyFile
from optnas.errors import UserError
from optnas.pages.content import (
    Block,
    Column,
    Folded,
    Page,
    Paragraph,
    Pictures,
    Section,
    Table,
)
from optnas.pages.text import in_a_line, printable
from optnas.study.data import data_seen_with
from optnas.study.objectives import ObjectiveMaker
from optnas.units import aligned

SPLITS = ("train", "validation", "test")
_AT_A_GLANCE, _CLASSES = 12, 200
"""Classes of a table that is not folded away, and of any table."""
_SAME = "The same images as the study has seen."


def data_fields(images: Any, config: StudyFile) -> dict[str, Any]:
    """The reading as JSON values, with how it differs from what the study has seen.

    Args:
        images: The images, as the objective loaded them.
        config: The study's configuration.
    """
    reading = images.reading
    seen = data_seen_with(config)
    changes = None if seen is None else reading.differences(seen.record)
    return {"study": config.study, **reading.fields(), "changes": changes}


def read_data(config: StudyFile) -> Any:
    """The images of a configuration, in the splits that its study knows.

    Raises:
        UserError: If they cannot be had, or cannot be trained on.
    """
    images = ObjectiveMaker(config, seen=data_seen_with(config)).images
    if getattr(images, "reading", None) is None:
        raise UserError(f"the objective {config.objective.name!r} does not say what data it reads")
    return images


def data_text(fields: Mapping[str, Any]) -> str:
    """The whole reading for people."""
    lines = [line for line in fields["lines"] if not line.startswith("classes: ")]
    lines += ["", *aligned(class_rows(fields))]
    unreadable = fields["unreadable"]
    if unreadable:
        lines += ["", f"unreadable ({len(unreadable):,}):"]
        lines += [f"  {name}: {reason}" for name, reason in unreadable]
    examples = fields["twins"]["examples"]
    if examples:
        lines += ["", "identical images, such as:"]
        lines += [f"  {first} = {second}" for first, second in examples]
    if fields["changes"]:
        lines += ["", "other than what the study has seen:"]
        lines += [f"  {line}" for line in fields["changes"]]
    elif fields["changes"] is not None:
        lines += ["", _SAME]
    return "\n".join(map(printable, lines))


def data_page(fields: Mapping[str, Any], images: Any) -> Page:
    """The same as a page, with a contact sheet of what a network sees.

    Args:
        fields: As `data_fields` gave them.
        images: The images.
    """
    first, *lines = [line for line in fields["lines"] if not line.startswith("classes: ")]
    header, *rows = class_rows(fields)
    classes = Table("Images per class", _columns(header), rows, sortable=True)
    sections = [
        Section("Images", [*(Paragraph(line) for line in lines), *_comparison(fields)]),
        Section("Classes", [classes]),
        _sheet(fields, images),
    ]
    sizes = [[f"{w} x {h}", f"{number:,}"] for w, h, number in fields["sizes"]]
    if fields["further_sizes"]:
        sizes.append([f"{fields['further_sizes']:,} other sizes", ""])
    modes = [[mode, f"{number:,}"] for mode, number in fields["modes"].items()]
    tables = [
        Table("Sizes", _columns(["pixels", "images"]), sizes, titled=True, sortable=True),
        Table("Modes", _columns(["mode", "images"]), modes, titled=True, sortable=True),
    ]
    sections.append(Section("Sizes and modes", tables))
    if fields["unreadable"]:
        broken = Table("Unreadable files", _texts("file", "why"), fields["unreadable"])
        sections.append(Section("Unreadable files", [broken]))
    if fields["twins"]["examples"]:
        twins = Table("Identical images", _texts("image", "and"), fields["twins"]["examples"])
        sections.append(Section("Identical images", [twins]))
    return Page(f"Data of {fields['study']}", sections, lead=f"{first[:1].upper()}{first[1:]}.")


def seen_blocks(config: StudyFile, fields: Mapping[str, Any] | None) -> list[Block]:
    """What a report says of the data that a study has seen.

    Args:
        config: The study's configuration.
        fields: What the study has recorded, which somebody else may have written; None if nothing.
    """
    if config.data is None:
        options = config.objective.options.items()
        said = ", ".join(f"{name} {value}" for name, value in options if value is not None)
        needs = f"The objective {config.objective.name} needs no images"
        return [Paragraph(f"{needs}: {said}." if said else f"{needs}.")]
    if fields is None:
        name = config.data.name
        return [Paragraph(f"The data set {name}; what was read of it is not recorded.")]
    lines = [str(line) for line in fields.get("lines") or ()]
    blocks: list[Block] = [Paragraph(x) for x in lines if not x.startswith("classes: ")]
    for change in fields.get("accepted") or ():
        changes = "; ".join(str(line) for line in change.get("changes") or ())
        before = f"changed data accepted before trial {change.get('trials')}"
        blocks.append(Paragraph(f"{before}: {changes}"))
    try:
        header, *rows = class_rows(fields)
    except (AttributeError, KeyError, TypeError, ValueError):
        return blocks
    table = Table("Images per class", _columns(header), rows[:_CLASSES], sortable=True)
    if len(rows) <= _AT_A_GLANCE:
        return [*blocks, table]
    title = "The classes" if len(rows) <= _CLASSES else f"The first {_CLASSES:,} classes"
    return [*blocks, Folded(title, [table])]


def _sheet(fields: Mapping[str, Any], images: Any) -> Section:
    strips = images.contact_sheet()
    left = len(fields["class_names"]) - len(strips)
    text = "Training images as they are judged by, and as an epoch of training shows them."
    pictures = []
    for strip in strips:
        pictures.append((f"{strip.class_name}, as it is judged by", strip.plain))
        pictures.append((f"{strip.class_name}, augmented", strip.augmented))
    blocks: list[Block] = [Paragraph(text), Pictures(pictures)]
    if left:
        blocks.append(Paragraph(f"{left:,} more classes are not shown."))
    return Section("What the network sees", blocks)


def _comparison(fields: Mapping[str, Any]) -> list[Block]:
    if fields["changes"] is None:
        return []
    text = "; ".join(fields["changes"])
    text = f"Other than what the study has seen: {text}." if text else _SAME
    return [Paragraph(text)]


def _columns(headings: Sequence[str]) -> list[Column]:
    return [Column(headings[0], text=True), *map(Column, headings[1:])]


def _texts(*headings: str) -> list[Column]:
    return [Column(heading, text=True) for heading in headings]


def class_rows(fields: Mapping[str, Any]) -> list[list[str]]:
    """A row per class under a header: its images in every split, and its share of all."""
    counts = [fields["counts"].get(split, ()) for split in SPLITS]
    totals = [sum(numbers) for numbers in zip(*counts, strict=True)]
    whole = sum(totals) or 1
    rows = [["class", *SPLITS, "all", "share"]]
    for place, name in enumerate(fields["class_names"]):
        numbers = [f"{split[place]:,}" for split in counts]
        rows.append(
            [in_a_line(name), *numbers, f"{totals[place]:,}", f"{totals[place] / whole:.1%}"]
        )
    return rows
