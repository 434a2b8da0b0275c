"""The learning rates and the warm-up of searches on super-networks, as the papers have them."""

from typing import NamedTuple

from optnas.config.settings import SearchSettings


class Rates(NamedTuple):
    """Learning rates of the weights, at the start and at the end of a cosine, and of Adam."""

    weights: float
    end: float
    architecture: float


WARMUP = 0.3
"""Share of PC-DARTS's epochs in which the weights learn alone: 15 of 50."""

FTSO = Rates(0.025, 0.0, 6e-4)
DARTS = Rates(0.025, 0.001, 3e-4)
PC_DARTS = Rates(0.1, 0.0, 6e-4)


def search_rates(search: SearchSettings, partial: int | None) -> Rates:
    """What the settings say, else what the paper of the search says.

    Source: FTSO, table 4; DARTS (Liu et al. 2019), section 3.1 and its code; PC-DARTS (Xu et al.
    2020), section 4.2.

    Args:
        search: The settings.
        partial: One channel in so many takes part, where all edges and all operations are
            searched for at once: 1 is DARTS. None for the searches of FTSO.
    """
    usual = FTSO if partial is None else DARTS if partial == 1 else PC_DARTS
    said = (search.lr, search.final_lr, search.architecture_lr)
    return Rates(*(u if s is None else s for s, u in zip(said, usual, strict=True)))


def warmup_epochs(search: SearchSettings, partial: int | None) -> int:
    """Epochs in which the weights learn alone: what the settings say, else what the paper does.

    Source: PC-DARTS, section 4.2.

    Args:
        search: The settings.
        partial: As of `search_rates`.
    """
    if search.warmup_epochs is not None:
        return search.warmup_epochs
    return 0 if partial in (None, 1) else round(WARMUP * search.operator_epochs)
