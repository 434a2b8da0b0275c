"""The strategies, as Optuna samplers and a pruner."""

from optnas.samplers.darts import DARTSSampler
from optnas.samplers.econas import EcoNASSampler
from optnas.samplers.ftso import FTSOSampler
from optnas.samplers.hierarchical import HierarchicalPruner
from optnas.samplers.local_search import LocalSearchSampler
from optnas.samplers.macro_micro import MacroMicroSampler
from optnas.samplers.randgrow import RandGrowSampler
from optnas.samplers.regularized_evolution import RegularizedEvolutionSampler
from optnas.samplers.stage_wise import StageWiseSampler
from optnas.samplers.surrogate import SurrogateSampler

__all__ = [
    "DARTSSampler",
    "EcoNASSampler",
    "FTSOSampler",
    "HierarchicalPruner",
    "LocalSearchSampler",
    "MacroMicroSampler",
    "RandGrowSampler",
    "RegularizedEvolutionSampler",
    "StageWiseSampler",
    "SurrogateSampler",
]
