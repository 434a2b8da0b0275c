"""Which strategy fits a space and a budget, for those who name none."""

import dataclasses
from typing import Any

CHAIN = "it grows and trims a chain of layers, and ends by itself"
ENDS = {
    None: ("macro_micro", CHAIN),
    "chain": ("macro_micro", CHAIN),
    "growth": ("randgrow", "networks of this space start from their parents' weights"),
    "stage": ("stage_wise", "it deepens the stages that matter, and ends by itself"),
}
"""What searches a space until it is done."""
FEW = 12
"""Trials below which there is too little to learn from."""
ENOUGH = 30
"""Trials after which the surrogate was ahead of random draws on real images."""
RANKED = frozenset(
    ("surrogate", "local_search", "regularized_evolution", "econas", "tpe", "random")
)
"""Strategies that were measured with geometric rungs."""
RUNGS = {"name": "hierarchical", "first": 2, "factor": 3}
"""Rungs at T/9, T/3 and T of the whole training."""
SMALL = {"depth": [2, 10], "width": [8, 24]}
"""Chains of which a thousand images can train thirty in minutes."""
LARGE = frozenset(("cifar10", "cifar100", "emnist_balanced", "fashion_mnist", "kmnist"))
"""Data sets of which two epochs, up to the first rung, are a thousand batches and more."""


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A strategy.

    Args:
        sampler: Its name.
        why: Why it fits, after a colon.
        trials: How many networks to train; None for as many as the strategy needs.
    """

    sampler: str
    why: str
    trials: int | None


def proposed(space: str | None, trials: int | None, data: str) -> Proposal:
    """The strategy for a space, a budget and a data set.

    By ``docs/measurements/search.md``: where the number of trials is what counts, the surrogate
    leads local search and TPE after 30, 50 and 100 trials on tables of trained networks, and
    random draws after 33 trainings on real images. Macro-micro, whose decisions each hang on one
    training, found less than both where a thousand images judge; so it is proposed for data sets
    of tens of thousands alone, and where nobody says a budget, as it ends by itself.

    Args:
        space: The space's name; None where that is open.
        trials: How many networks may be trained; None where nobody says.
        data: The data set's name.
    """
    judged_well = space not in (None, "chain") or data in LARGE
    if space == "growth" or (trials is None and space in ENDS and judged_well):
        return Proposal(*ENDS[space], trials)
    if trials is not None and trials < FEW:
        return Proposal("random", f"fewer than {FEW} networks teach a strategy nothing", trials)
    trials = trials or ENOUGH
    if space == "rows":
        return Proposal("random", "the rows of a table are in no relation to one another", trials)
    return Proposal("surrogate", "it learns from every network which one to train next", trials)


def proposed_extent(sampler: str, space: str | None, data: str) -> dict[str, Any] | None:
    """Small chains, where the images may be few; None leaves the space as large as it is.

    Of all chains most have dozens of layers. Macro-micro comes to them last, if ever; who draws
    from the space would train little else.

    Args:
        sampler: The strategy's name.
        space: The space's name; None where that is open.
        data: The data set's name.
    """
    is_small = sampler in RANKED and space in (None, "chain") and data not in LARGE
    return dict(SMALL) if is_small else None


def proposed_pruner(
    sampler: str, space: str | None, trials: int | None, data: str
) -> dict[str, Any] | None:
    """Geometric rungs, where the first tells something of the end; None where none are proposed.

    By ``docs/measurements/search.md``: with rungs at T/9, T/3 and T the pick is better at equal
    epochs on the learning curves of trainings on all of CIFAR-10. On a thousand of its images,
    where the first rung comes after 31 batches, it is worse. So there are none where the images
    may be few. Where weights are inherited or phases train other things, nothing is measured.

    Args:
        sampler: The strategy's name.
        space: The space's name; None where that is open.
        trials: How many networks may be trained; None for as many as the strategy needs.
        data: The data set's name.
    """
    few = trials is not None and trials < FEW
    if data not in LARGE or sampler not in RANKED or space in ("growth", "rows") or few:
        return None
    return dict(RUNGS)
