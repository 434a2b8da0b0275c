"""How much features matter: partial least squares, and the scores of stages."""

from optnas.objectives.importance.partial_least_squares import pls_vip
from optnas.objectives.importance.scoring import stage_importance

__all__ = ["pls_vip", "stage_importance"]
