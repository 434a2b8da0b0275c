"""Networks of any architecture, and the tables in which those of other spaces are entered."""

from optnas.objectives.networks.build import BUILDERS, ChainNetwork, build_model, build_supernet
from optnas.objectives.networks.costs import count_multiply_adds, count_params, forward_costs
from optnas.objectives.networks.initialisation import initialise

__all__ = [
    "BUILDERS",
    "ChainNetwork",
    "build_model",
    "build_supernet",
    "count_multiply_adds",
    "count_params",
    "forward_costs",
    "initialise",
]
