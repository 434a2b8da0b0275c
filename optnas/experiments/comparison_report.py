"""What `optnas compare` shows: a table, and the curves of best-so-far against cost."""

from collections.abc import Mapping
from typing import Any

from optnas.experiments.studies import interval, number, table_text
from optnas.pages.content import Column, Page, Paragraph, Plots, Section, Table
from optnas.pages.plots import Plot, Series
from optnas.units import plural


def comparison_text(fields: Mapping[str, Any]) -> str:
    """The tables of a comparison, from its fields."""
    found = [table_text(_table(fields)), *_notes(fields)]
    return "\n".join([*found, *standings_text(fields)])


def comparison_page(fields: Mapping[str, Any]) -> Page:
    """The tables of a comparison and its curves, as a page."""
    notes = [Paragraph(note) for note in _notes(fields)]
    sections = [Section("Samplers", [_table(fields), *notes])]
    if len(fields["ranking"]) > 1:
        paragraphs = [Paragraph(note) for note in _standings_notes(fields)]
        sections.append(Section("Ranking", [_standings(fields), *paragraphs]))
    if any(row["curve"]["cost"] for row in fields["contenders"]):
        sections.append(Section("Search", [_curves(fields)]))
    return Page(f"Comparison on {fields['study']}", sections, lead=_lead(fields))


def _lead(fields: Mapping[str, Any]) -> str:
    """The result in a sentence; empty where no contender has one."""
    known = [row for row in fields["contenders"] if row["mean"] is not None]
    if not known:
        return ""
    best = max(known, key=lambda row: row["mean"])
    return (
        f"Of {plural(len(known), 'sampler')} {best['label']} has the highest mean: "
        f"{best['mean']:.4f} over {fields['seeds']} seeds, of {_best(fields)} after "
        f"{fields['amount']:g} {fields['unit']}."
    )


def overall_text(fields: Mapping[str, Any]) -> str:
    """The comparisons of several study files, and the ranking over all of them."""
    parts = [f"{table['study']}\n{comparison_text(table)}" for table in fields["tables"]]
    return "\n\n".join([*parts, "\n".join(["all together", *standings_text(fields)])])


def overall_page(fields: Mapping[str, Any]) -> Page:
    """The same as a page."""
    paragraphs = [Paragraph(note) for note in _standings_notes(fields)]
    sections = [Section("All together", [_standings(fields), *paragraphs])]
    for table in fields["tables"]:
        sections.append(Section(table["study"], [_table(table), _curves(table)]))
    return Page(
        "Comparison on " + ", ".join(table["study"] for table in fields["tables"]), sections
    )


def standings_text(fields: Mapping[str, Any]) -> list[str]:
    if len(fields["ranking"]) < 2:
        return []
    return ["", table_text(_standings(fields)), *_standings_notes(fields)]


def _standings(fields: Mapping[str, Any]) -> Table:
    """The contenders by mean rank, each with its difference to the first."""
    first = fields["ranking"][0]["label"]
    pairs = {frozenset((pair["first"], pair["second"])): pair for pair in fields["pairs"]}
    rows = []
    for entry in fields["ranking"]:
        pair = pairs.get(frozenset((first, entry["label"])))
        row = [
            entry["label"],
            number(entry["rank"], 2),
            interval(entry["rank_low"], entry["rank_high"], 2),
        ]
        if pair is None or pair["difference"] is None or entry["label"] == first:
            rows.append([*row, "-", "-", "-"])
            continue
        ends = (pair["low"], pair["high"])
        if pair["first"] == first:  # The difference is said from the other side.
            ends = (-pair["high"], -pair["low"])
        difference = pair["difference"] * (-1 if pair["first"] == first else 1)
        p = "-" if pair["p_corrected"] is None else f"{pair['p_corrected']:.2g}"
        rows.append([*row, f"{difference:+.4f}", interval(*ends, 4), p])
    headings = ["rank", "95%", f"to {first}", "95%", "p (Holm)"]
    columns = [Column("sampler", text=True), *map(Column, headings)]
    return Table("Who stands where", columns, rows, sortable=True)


def _standings_notes(fields: Mapping[str, Any]) -> list[str]:
    tied = [entry["label"] for entry in fields["ranking"][1:] if entry["tied"]]
    notes = [
        "rank: mean over the seeds, 1 being the best, with a bootstrap 95% interval",
        f"p (Holm): Wilcoxon's signed-rank test of the seeds' differences, corrected for "
        f"{plural(len(fields['pairs']), 'comparison')}",
    ]
    if tied:
        notes.append(f"not told from {fields['ranking'][0]['label']}: {', '.join(tied)}")
    return notes


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
        f"best: mean over {fields['seeds']} seeds of {_best(fields)} after "
        f"{fields['amount']:g} {fields['unit']}, with Student's 95% interval"
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


def _best(fields: Mapping[str, Any]) -> str:
    """What is compared."""
    score = fields.get("score")
    return "the best value" if score is None else f"{score} of the network with the best value"


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
