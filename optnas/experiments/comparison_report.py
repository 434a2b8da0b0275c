"""What `optnas compare` shows: a table, and the curves of best-so-far against cost."""

from collections.abc import Mapping
from typing import Any

from optnas.experiments.studies import interval, number, table
from optnas.report.charts import Series, chart, page


def comparison_text(fields: Mapping[str, Any]) -> str:
    """The table of a comparison, from its fields."""
    header = ["sampler", "best", "95%", "seeds", "p", "RI", "95%"]
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
    notes = [
        f"best: mean over {fields['seeds']} seeds of the best value after {fields['amount']:g} "
        f"{fields['unit']}, with Student's 95% interval"
    ]
    if fields["baseline"] is not None:
        notes += [
            f"p: one-sided Mann-Whitney U test, the alternative being better than "
            f"{fields['baseline']}",
            f"RI: relative improvement in percent over the mean of {fields['random_networks']} "
            "random networks",
        ]
    else:
        notes.append("p and RI need the sampler random among the samplers")
    return "\n".join([table(header, rows), *notes])


def comparison_page(fields: Mapping[str, Any]) -> str:
    """The curves of a comparison and its table, as HTML."""
    curves = [
        Series(
            row["label"],
            row["curve"]["cost"],
            row["curve"]["mean"],
            row["curve"]["low"],
            row["curve"]["high"],
        )
        for row in fields["contenders"]
    ]
    caption = f"Best value so far: mean over {fields['seeds']} seeds, with Student's 95% interval."
    figure = chart(curves, f"{fields['unit']} spent", "best value so far", caption=caption)
    return page(f"Comparison on {fields['study']}", comparison_text(fields), [figure])
