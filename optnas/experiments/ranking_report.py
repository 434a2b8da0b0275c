"""What `optnas rank` shows: tables, and the figures of the papers."""

from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import rankdata

from optnas.config.proxy import FACTORS, Proxy
from optnas.experiments.studies import interval, number, table
from optnas.report.charts import Series, chart, page

FACTOR_NAMES = {"c": "channels", "r": "resolution", "s": "samples", "e": "epochs"}

RANKING_NAMES = {
    "static_1_epoch": "static, 1 epoch: accuracy and final accuracy",
    "static_equal_epochs": "static, as many epochs in all as dynamic",
    "dynamic": "dynamic: accuracy and final accuracy",
    "params": "parameters and final accuracy",
    "params_and_dynamic": "parameters and dynamic accuracy",
}

Pairs = Sequence[tuple[float, float]]
"""For every network, its accuracy in the original setting and in a reduced one."""


def ranking_text(fields: Mapping[str, Any]) -> str:
    """The tables of a ranking, from its fields."""
    spread = fields["spread"]
    parts = [
        f"{fields['networks']} random networks in the original setting {fields['original']}: "
        f"worst {spread['worst']:.4f}, median {spread['median']:.4f}, best {spread['best']:.4f}, "
        f"mean {spread['mean']:.4f} +- {spread['deviation']:.4f}"
    ]
    if fields["settings"]:
        parts.append(_settings_table(fields["settings"]))
    monotonicity = _monotonicity_table(fields["monotonicity"])
    if monotonicity:
        parts.append(monotonicity)
    if fields["dynamic"]:
        parts.append(_dynamic_table(fields["dynamic"]))
    return "\n\n".join(parts)


def _settings_table(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["setting", "networks", "rho", "95%", "tau", "95%", "speed-up", "measured"]
    header.append("best kept")
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
    return f"{table(header, cells)}\n{note}"


def _monotonicity_table(monotonicity: Mapping[str, Any]) -> str:
    rows = [
        [FACTOR_NAMES[factor], number(entry["mean"], 2), str(len(entry["groups"]))]
        for factor, entry in monotonicity.items()
        if entry["groups"]
    ]
    if not rows:
        return ""
    note = (
        "monotonicity: Kendall's tau of a factor's step and rho, where the other factors are "
        "equal; 1: rho rises with every step, -1: it falls"
    )
    return f"{table(['factor', 'monotonicity', 'groups'], rows)}\n{note}"


def _dynamic_table(dynamic: Mapping[str, Any]) -> str:
    rows = [
        [RANKING_NAMES[name], number(entry["rho"]), interval(entry["low"], entry["high"])]
        for name, entry in dynamic["rankings"].items()
    ]
    note = (
        f"{dynamic['networks']} networks by size, trained for 1, 2, 3... epochs (dynamic), or all "
        f"for 1 or {dynamic['equal_epochs']} (static)"
    )
    return f"{table(['ranking', 'rho', '95%'], rows)}\n{note}"


def ranking_page(
    fields: Mapping[str, Any], pairs: Sequence[Pairs], values: Sequence[float]
) -> str:
    """The figures of a ranking and its tables, as HTML.

    Args:
        fields: The ranking's fields.
        pairs: The accuracies behind every setting.
        values: The accuracies in the original setting.
    """
    rows = [row for row in fields["settings"] if row["rho"] is not None]
    ordered = sorted(values)
    figures = [
        chart(
            [Series("", range(1, len(ordered) + 1), ordered, line=False)],
            "network, from the worst",
            "accuracy",
            caption="Accuracies of random networks in the original setting.",
        ),
        _rho_and_speedup(rows),
        *(_rho_and_factor(rows, factor) for factor in FACTORS),
        _kept_and_rho(rows),
    ]
    ranked = sorted(zip(fields["settings"], pairs, strict=True), key=lambda s: s[0]["rho"] or 0.0)
    figures += [_ranks(row["setting"], both) for row, both in [*ranked[:1], *ranked[1:][-1:]]]
    if fields["dynamic"]:
        figures.append(_dynamic_chart(fields["dynamic"]["points"]))
    return page(f"Ranking of {fields['study']}", ranking_text(fields), figures)


def _rho_and_speedup(rows: Sequence[Mapping[str, Any]]) -> str:
    known = [row for row in rows if row["speedup"]]
    series = Series(
        "",
        [row["speedup"] for row in known],
        [row["rho"] for row in known],
        [row["rho_low"] for row in known],
        [row["rho_high"] for row in known],
        line=False,
        labels=[row["setting"] for row in known],
    )
    caption = "Rank correlation and speed-up of every setting (as EcoNAS, figure 8)."
    return chart(
        [series], "speed-up in multiply-adds", "Spearman's rho", caption=caption, log_x=True
    )


def _rho_and_factor(rows: Sequence[Mapping[str, Any]], factor: str) -> str:
    """Rho against a factor, a line for each combination of the others."""
    groups: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        setting = Proxy.parse(row["setting"])
        fixed = "".join(f"{f}{getattr(setting, f)}" for f in FACTORS if f != factor)
        groups.setdefault(fixed, []).append((getattr(setting, factor), row["rho"]))
    series = [
        Series(fixed, [step for step, _ in sorted(points)], [rho for _, rho in sorted(points)])
        for fixed, points in groups.items()
        if len(points) > 1
    ]
    name = FACTOR_NAMES[factor]
    label = name if factor == "e" else f"steps of reduced {name}"
    caption = f"Rank correlation by {name}, the rest being equal (as EcoNAS, figures 4 to 6)."
    return chart(series, label, "Spearman's rho", caption=caption)


def _kept_and_rho(rows: Sequence[Mapping[str, Any]]) -> str:
    points: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for among, kept in row["retained"].items():
            xs, ys = points.setdefault(f"in the best {among}", ([], []))
            xs.append(row["rho"])
            ys.append(kept)
    series = [Series(name, xs, ys, line=False) for name, (xs, ys) in points.items()]
    caption = "How many of the best networks are kept (as EcoNAS, figure 9)."
    return chart(series, "Spearman's rho", "best networks kept", caption=caption)


def _ranks(setting: str, pairs: Pairs) -> str:
    original, reduced = (rankdata([-value for value in side]) for side in zip(*pairs, strict=True))
    caption = f"Ranks of the networks in the original setting and in {setting}."
    series = Series("", original.tolist(), reduced.tolist(), line=False)
    return chart([series], "original rank", f"rank in {setting}", caption=caption)


def _dynamic_chart(points: Sequence[Mapping[str, float]]) -> str:
    sizes = [point["params"] for point in points]
    series = [
        Series(name, sizes, [point[name] for point in points], line=False)
        for name in ("dynamic", "final")
    ]
    caption = "Accuracy by size: the i-th smallest network after i epochs, and all in the end."
    return chart(series, "parameters", "accuracy", caption=caption, log_x=True)
