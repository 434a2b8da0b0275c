"""The strategies, as Optuna samplers and a pruner, and what a strategy is written with."""

from optnas.samplers._base import StrategySampler
from optnas.samplers._batches import Candidate, Step
from optnas.samplers._draws import Draws
from optnas.samplers._history import History, Result
from optnas.samplers._outlook import Outlook, Stretch
from optnas.samplers._replay import ReplaySampler
from optnas.samplers.baselines import BaselineSampler
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
from optnas.samplers.synchronous_econas import SynchronousEcoNASSampler
from optnas.samplers.zoo import ZooSampler

__all__ = [
    "BaselineSampler",
    "Candidate",
    "DARTSSampler",
    "Draws",
    "EcoNASSampler",
    "FTSOSampler",
    "HierarchicalPruner",
    "History",
    "LocalSearchSampler",
    "MacroMicroSampler",
    "Outlook",
    "RandGrowSampler",
    "RegularizedEvolutionSampler",
    "ReplaySampler",
    "Result",
    "StageWiseSampler",
    "Step",
    "StrategySampler",
    "Stretch",
    "SurrogateSampler",
    "SynchronousEcoNASSampler",
    "ZooSampler",
]
