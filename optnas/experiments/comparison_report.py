"""What `optnas compare` shows: a table, and the curves of best-so-far against cost."""

from collections.abc import Mapping
from typing import Any

from optnas.experiments.studies import interval, number, table_text
from optnas.pages.content import Column, Page, Paragraph, Plots, Section, Table
from optnas.pages.plots import Plot, Series


def comparison_text(fields: Mapping[str, Any]) -> str:
    """The table of a comparison, from its fields."""
    return "\n".join([table_text(_table(fields)), *_notes(fields)])


def comparison_page(fields: Mapping[str, Any]) -> Page:
    """The table of a comparison and its curves, as a page."""
    notes = [Paragraph(note) for note in _notes(fields)]
    sections = [Section("Samplers", [_table(fields), *notes])]
    if any(row["curve"]["cost"] for row in fields["contenders"]):
        sections.append(Section("Search", [_curves(fields)]))
    return Page(f"Comparison on {fields['study']}", sections)


def _table(fields: Mapping[str, Any]) -> Table:
    headings = ["best", "95%", "seeds", "p", "RI", "95%"]
    rows = [
        [
            row["label"],
            number(row["mean"], 4),
            interval(row["mean_low"], row["mean_high"], 4),
            str(sum(value is not None for value in row["finals"])),
            "-" if row["p_value"] is None else f"{row['p_value']:.2g}",
            number(row["relative_improvement"], 2),
            interval(row["relative_improvement_low"], row["relative_improvement_high"], 2),
        ]
        for row in fields["contenders"]
    ]
    columns = [Column("sampler", text=True), *map(Column, headings)]
    return Table("What each sampler has found", columns, rows, sortable=True)


def _notes(fields: Mapping[str, Any]) -> list[str]:
    notes = [
        f"best: mean over {fields['seeds']} seeds of the best value after {fields['amount']:g} "
        f"{fields['unit']}, with Student's 95% interval"
    ]
    if fields["baseline"] is None:
        return [*notes, "p and RI need the sampler random among the samplers"]
    return [
        *notes,
        f"p: one-sided Mann-Whitney U test, the alternative being better than "
        f"{fields['baseline']}",
        f"RI: relative improvement in percent over the mean of {fields['random_networks']} "
        "random networks",
    ]


def _curves(fields: Mapping[str, Any]) -> Plots:
    curves = [
        Series(
            row["curve"]["cost"],
            row["curve"]["mean"],
            row["label"],
            colour=index,
            line="solid",
            low=row["curve"]["low"],
            high=row["curve"]["high"],
        )
        for index, row in enumerate(fields["contenders"])
    ]
    plot = Plot(
        "best-so-far",
        "Best value so far",
        f"{fields['unit']} spent",
        "best value so far",
        curves,
        note=f"Mean over {fields['seeds']} seeds, with Student's 95% interval.",
    )
    return Plots([plot])
