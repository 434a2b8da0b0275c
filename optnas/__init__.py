"""Neural architecture search on Optuna."""

__version__ = "0.1.0"
