"""Who stands where in a comparison: ranks, and paired differences with corrected p-values."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optnas.experiments.statistics import holm, mean_interval, mean_ranks, paired_p_value

SEED = 0
"""Seed of the bootstrap, so that the same results give the same intervals."""


def standings(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The ranking of contenders over their seeds, which are the same for all, as JSON values.

    Args:
        rows: Of every contender its ``label`` and ``finals``, what it found with every seed.

    Returns:
        ``ranking``: label, mean rank, its interval, and whether it can be told from the first,
        best first. ``pairs``: of every two, the mean difference with its interval, and
        p-values of Wilcoxon's signed-rank test, as they are and corrected for the number of
        pairs (Holm).
    """
    finals = np.array([row["finals"] for row in rows], float)  # None becomes NaN.
    labels = [row["label"] for row in rows]
    pairs = _pairs(labels, finals)
    ranks = mean_ranks(finals.T, seed=SEED)
    order = sorted(range(len(labels)), key=lambda i: ranks[i][0])
    first = labels[order[0]]
    unlike = {
        frozenset((pair["first"], pair["second"]))
        for pair in pairs
        if pair["p_corrected"] is not None and pair["p_corrected"] < 0.05
    }
    ranking = [
        {
            "label": labels[i],
            "rank": ranks[i][0],
            "rank_low": ranks[i][1][0],
            "rank_high": ranks[i][1][1],
            "tied": labels[i] == first or frozenset((first, labels[i])) not in unlike,
        }
        for i in order
    ]
    return {"ranking": ranking, "pairs": pairs}


def _pairs(labels: Sequence[str], finals: Any) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = []
    for (a, first), (b, second) in itertools.combinations(enumerate(labels), 2):
        differences = finals[a] - finals[b]
        differences = differences[~np.isnan(differences)]
        pair: dict[str, Any] = {"first": first, "second": second, "pairs": len(differences)}
        pair |= dict.fromkeys(("difference", "low", "high", "p_value", "p_corrected"))
        if len(differences) > 1:
            pair["difference"] = float(differences.mean())
            pair["low"], pair["high"] = mean_interval(differences)
            pair["p_value"] = paired_p_value(differences, np.zeros_like(differences))
        pairs.append(pair)
    tested = [pair for pair in pairs if pair["p_value"] is not None]
    for pair, p in zip(tested, holm([pair["p_value"] for pair in tested]), strict=True):
        pair["p_corrected"] = p
    return pairs
