"""The strategies, as Optuna samplers."""

from optnas.samplers.macro_micro import MacroMicroSampler

__all__ = ["MacroMicroSampler"]
