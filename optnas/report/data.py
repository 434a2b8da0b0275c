"""What `optnas data` says: the whole reading of a data set, as text, fields and a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from optnas.config.file import StudyFile
from optnas.errors import UserError
from optnas.study.data import seen_by
from optnas.study.objectives import ObjectiveMaker

SPLITS = ("train", "validation", "test")


def data_fields(images: Any, config: StudyFile) -> dict[str, Any]:
    """The reading as JSON values, with how it differs from what the study has seen.

    Args:
        images: The images, as the objective loaded them.
        config: The study's configuration.
    """
    reading = images.reading
    seen = seen_by(config)
    changes = None if seen is None else reading.differences(seen.record)
    return {"study": config.study, **reading.fields(), "changes": changes}


def read_data(config: StudyFile) -> Any:
    """The images of a configuration, in the splits that its study knows.

    Raises:
        UserError: If they cannot be had, or cannot be trained on.
    """
    images = ObjectiveMaker(config, seen=seen_by(config)).images
    if getattr(images, "reading", None) is None:
        raise UserError(f"the objective {config.objective.name!r} does not say what data it reads")
    return images


def data_text(fields: Mapping[str, Any]) -> str:
    """The whole reading for people."""
    lines = [line for line in fields["lines"] if not line.startswith("classes: ")]
    lines += ["", *_table(class_rows(fields))]
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
        lines += ["", "the same images as the study has seen"]
    return "\n".join(lines)


def class_rows(fields: Mapping[str, Any]) -> list[list[str]]:
    """A row per class under a header: its images in every split, and its share of all."""
    counts = [fields["counts"].get(split, ()) for split in SPLITS]
    totals = [sum(numbers) for numbers in zip(*counts, strict=True)]
    whole = sum(totals) or 1
    rows = [["class", *SPLITS, "all", "share"]]
    for place, name in enumerate(fields["class_names"]):
        numbers = [f"{split[place]:,}" for split in counts]
        rows.append([name, *numbers, f"{totals[place]:,}", f"{totals[place] / whole:.1%}"])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
