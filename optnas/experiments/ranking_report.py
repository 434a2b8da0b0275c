"""What `optnas rank` shows: tables, and the figures of the papers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scipy.stats import rankdata

from optnas.config.proxy import FACTORS, Proxy
from optnas.experiments.studies import interval, number, table_text
from optnas.pages.content import Block, Column, Page, Paragraph, Plots, Section, Table
from optnas.pages.plots import Plot, Series

FACTOR_NAMES = {"c": "channels", "r": "resolution", "s": "samples", "e": "epochs"}

RANKING_NAMES = {
    "static_1_epoch": "static, 1 epoch: accuracy and final accuracy",
    "static_equal_epochs": "static, as many epochs in all as dynamic",
    "dynamic": "dynamic: accuracy and final accuracy",
    "params": "parameters and final accuracy",
    "params_and_dynamic": "parameters and dynamic accuracy",
}

RHO = "Spearman's rho"

Pairs = Sequence[tuple[float, float]]
"""For every network, its accuracy in the original setting and in a reduced one."""


def ranking_text(fields: Mapping[str, Any]) -> str:
    """The tables of a ranking, from its fields."""
    parts = [_spread(fields)]
    parts += [f"{table_text(table)}\n{note}" for table, note in _tables(fields)]
    parts += filter(None, [_lead(fields)])
    return "\n\n".join(parts)


def _spread(fields: Mapping[str, Any]) -> str:
    spread = fields["spread"]
    return (
        f"{fields['networks']} random networks in the original setting {fields['original']}: "
        f"worst {spread['worst']:.4f}, median {spread['median']:.4f}, best {spread['best']:.4f}, "
        f"mean {spread['mean']:.4f} +- {spread['deviation']:.4f}"
    )


def _tables(fields: Mapping[str, Any]) -> Iterator[tuple[Table, str]]:
    """The tables that a ranking has, with what their columns mean."""
    if fields["settings"]:
        yield _settings_table(fields["settings"])
    if fields["elsewhere"] is not None:
        yield _elsewhere_table(fields["elsewhere"])
    if any(entry["groups"] for entry in fields["monotonicity"].values()):
        yield _monotonicity_table(fields["monotonicity"])
    if fields["dynamic"]:
        yield _dynamic_table(fields["dynamic"])


def _settings_table(rows: Sequence[Mapping[str, Any]]) -> tuple[Table, str]:
    headings = ["networks", "rho", "95%", "tau", "95%", "speed-up", "measured", "best kept"]
    cells = [
        [
            row["setting"],
            str(row["networks"]),
            number(row["rho"]),
            interval(row["rho_low"], row["rho_high"]),
            number(row["tau"]),
            interval(row["tau_low"], row["tau_high"]),
            number(row["speedup"], 1),
            number(row["measured_speedup"], 1),
            ", ".join(f"{n}/{row['top']} in {among}" for among, n in row["retained"].items()),
        ]
        for row in rows
    ]
    note = (
        "rho: Spearman; tau: Kendall; 95%: bootstrap over networks; speed-up: in multiply-adds "
        "of training; measured: in seconds;\nbest kept: how many of the best networks of the "
        "original setting are among so many of the best here"
    )
    return _table("How well each setting ranks", ["setting", *headings], cells), note


def _elsewhere_table(row: Mapping[str, Any]) -> tuple[Table, str]:
    cells = [
        row["setting"],
        str(row["networks"]),
        number(row["pearson"]),
        number(row["rho"]),
        interval(row["rho_low"], row["rho_high"]),
    ]
    headings = ["study", "networks", "Pearson", "rho", "95%"]
    note = "the same networks, trained as the other study's file says; rho: Spearman"
    return _table("How well other data ranks", headings, [cells]), note


def _monotonicity_table(monotonicity: Mapping[str, Any]) -> tuple[Table, str]:
    rows = [
        [FACTOR_NAMES[factor], number(entry["mean"], 2), str(len(entry["groups"]))]
        for factor, entry in monotonicity.items()
        if entry["groups"]
    ]
    note = (
        "monotonicity: Kendall's tau of a factor's step and rho, where the other factors are "
        "equal; 1: rho rises with every step, -1: it falls"
    )
    title = "How steadily the ranking improves"
    return _table(title, ["factor", "monotonicity", "groups"], rows), note


def _dynamic_table(dynamic: Mapping[str, Any]) -> tuple[Table, str]:
    rows = [
        [
            RANKING_NAMES[name],
            str(entry["networks"]),
            number(entry["rho"]),
            interval(entry["low"], entry["high"]),
        ]
        for name, entry in dynamic["rankings"].items()
    ]
    note = (
        f"{dynamic['networks']} networks by size, trained for 1, 2, 3... epochs (dynamic) or all "
        f"for {dynamic['equal_epochs']}; all networks after 1 epoch, and by parameters (static)"
    )
    headings = ["ranking", "networks", "rho", "95%"]
    return _table("Static and dynamic rankings", headings, rows), note


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    first, *others = headings
    columns = [Column(first, text=True), *map(Column, others)]
    return Table(title, columns, rows, titled=True, sortable=True)


def ranking_page(
    fields: Mapping[str, Any],
    pairs: Sequence[Pairs],
    values: Sequence[float],
    elsewhere: Pairs = (),
) -> Page:
    """The tables of a ranking and its figures, as a page.

    Args:
        fields: The ranking's fields.
        pairs: The accuracies behind every setting.
        values: The accuracies in the original setting.
        elsewhere: The accuracies of each network in it and by another study's file.
    """
    blocks: list[Block] = [Paragraph(_spread(fields))]
    for table, note in _tables(fields):
        blocks += [table, Paragraph(note)]
    plots = [plot for plot in _plots(fields, pairs, values, elsewhere) if plot.series]
    sections = [Section("Rankings", blocks), Section("Figures", [Plots(plots)])]
    return Page(f"Ranking of {fields['study']}", sections, lead=_lead(fields))


def is_shown_to_rank(row: Mapping[str, Any]) -> bool:
    """Whether a setting's order goes with the original one, and not by chance."""
    return row["rho"] is not None and (row["rho_low"] or 0.0) > 0


def _lead(fields: Mapping[str, Any]) -> str:
    """The result in a sentence; empty where no reduced setting ranks anything."""
    known = [row for row in fields["settings"] if row["rho"] is not None]
    if not known:
        return ""
    best = max(known, key=lambda row: (is_shown_to_rank(row), row["rho"]))
    if not is_shown_to_rank(best):
        reach = interval(best["rho_low"], best["rho_high"])
        return (
            f"Of {len(known)} reduced settings none is shown to rank {fields['networks']} random "
            f"networks as the original one does: the best, {best['setting']}, has Spearman's rho "
            f"{best['rho']:.2f}, 95% interval {reach}. More networks may tell."
        )
    faster = f", {best['speedup']:.3g} times faster" if best["speedup"] else ""
    return (
        f"Of {len(known)} reduced settings {best['setting']} ranks {fields['networks']} random "
        f"networks most like the original one: Spearman's rho {best['rho']:.2f}{faster}."
    )


def _plots(
    fields: Mapping[str, Any],
    pairs: Sequence[Pairs],
    values: Sequence[float],
    elsewhere: Pairs,
) -> Iterator[Plot]:
    rows = [row for row in fields["settings"] if row["rho"] is not None]
    yield _accuracies(values)
    yield _rho_and_speedup(rows)
    for factor in FACTORS:
        yield _rho_and_factor(rows, factor)
    yield _kept_and_rho(rows)
    yield _rho_and_gap(rows)
    ranked = sorted(zip(fields["settings"], pairs, strict=True), key=lambda s: s[0]["rho"] or 0.0)
    for row, both in [*ranked[:1], *ranked[1:][-1:]]:
        yield _ranks(row["setting"], both)
        yield _pairs(row, both)
    if fields["elsewhere"] is not None:
        yield _pairs(fields["elsewhere"], elsewhere, "on other data, as FTSO, figures 3 k and l.")
    if fields["dynamic"]:
        yield _dynamic_plot(fields["dynamic"]["points"])


def _accuracies(values: Sequence[float]) -> Plot:
    return Plot(
        "accuracies",
        "Accuracies of random networks in the original setting",
        "network, from the worst",
        "accuracy",
        [Series(range(1, len(values) + 1), sorted(values), colour=0, mark="point")],
        whole_x=True,
    )


def _rho_and_speedup(rows: Sequence[Mapping[str, Any]]) -> Plot:
    known = [row for row in rows if row["speedup"]]
    series = Series(
        [row["speedup"] for row in known],
        [row["rho"] for row in known],
        colour=0,
        mark="point",
        low=[row["rho_low"] for row in known],
        high=[row["rho_high"] for row in known],
        labels=[row["setting"] for row in known],
    )
    return Plot(
        "speed-up",
        "Rank correlation and speed-up of every setting",
        "speed-up in multiply-adds",
        RHO,
        [series],
        note="As EcoNAS, figure 8.",
        log_x=True,
    )


def _rho_and_factor(rows: Sequence[Mapping[str, Any]], factor: str) -> Plot:
    """Rho against a factor, a line for each combination of the others."""
    groups: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        setting = Proxy.parse(row["setting"])
        fixed = "".join(f"{f}{getattr(setting, f)}" for f in FACTORS if f != factor)
        groups.setdefault(fixed, []).append((getattr(setting, factor), row["rho"]))
    lines = {fixed: sorted(points) for fixed, points in groups.items() if len(points) > 1}
    series = [
        Series(
            [step for step, _ in points],
            [rho for _, rho in points],
            fixed,
            colour=index,
            line="solid",
            mark="point",
        )
        for index, (fixed, points) in enumerate(lines.items())
    ]
    name = FACTOR_NAMES[factor]
    return Plot(
        name,
        f"Rank correlation by {name}",
        name if factor == "e" else f"steps of reduced {name}",
        RHO,
        series,
        note="The rest being equal; as EcoNAS, figures 4 to 6.",
        whole_x=True,
    )


def _kept_and_rho(rows: Sequence[Mapping[str, Any]]) -> Plot:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for among, kept in row["retained"].items():
            points.setdefault(f"in the best {among}", []).append((row["rho"], kept))
    series = [
        Series([x for x, _ in some], [y for _, y in some], name, colour=index, mark="point")
        for index, (name, some) in enumerate(points.items())
    ]
    return Plot(
        "best-kept",
        "How many of the best networks are kept",
        RHO,
        "best networks kept",
        series,
        note="As EcoNAS, figure 9.",
    )


def _rho_and_gap(rows: Sequence[Mapping[str, Any]]) -> Plot:
    known = [row for row in rows if row["gap"] is not None]
    series = Series(
        [row["gap"] for row in known],
        [row["rho"] for row in known],
        colour=0,
        mark="point",
        labels=[row["setting"] for row in known],
    )
    return Plot(
        "gap",
        "Rank correlation and overfitting of every setting",
        "mean of training less validation accuracy",
        RHO,
        [series] if known else [],
        note="As EcoNAS, figure 7.",
    )


def _pairs(
    row: Mapping[str, Any],
    pairs: Pairs,
    note: str = "with other epochs, as FTSO, figures 3 f and j.",
) -> Plot:
    original, reduced = zip(*pairs, strict=True)
    setting = row["setting"]
    return Plot(
        f"accuracies-{setting}",
        f"Accuracies of the networks in the original setting and in {setting}",
        f"accuracy in {setting}",
        "original accuracy",
        [Series(list(reduced), list(original), colour=0, mark="point")],
        note=f"Pearson's correlation {number(row['pearson'])}; {note}",
    )


def _ranks(setting: str, pairs: Pairs) -> Plot:
    original, reduced = (rankdata([-value for value in side]) for side in zip(*pairs, strict=True))
    return Plot(
        f"ranks-{setting}",
        f"Ranks of the networks in the original setting and in {setting}",
        "original rank",
        f"rank in {setting}",
        [Series(original.tolist(), reduced.tolist(), colour=0, mark="point")],
    )


def _dynamic_plot(points: Sequence[Mapping[str, float]]) -> Plot:
    sizes = [point["params"] for point in points]
    series = [
        Series(sizes, [point[name] for point in points], name, colour=index, mark="point")
        for index, name in enumerate(("dynamic", "final"))
    ]
    return Plot(
        "dynamic",
        "Accuracy by size",
        "parameters",
        "accuracy",
        series,
        note="The i-th smallest network after i epochs, and all in the end.",
        log_x=True,
    )
