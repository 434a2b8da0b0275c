"""Networks that start from the weights of others; `ADAPTERS` takes those of other spaces."""

from optnas.objectives.inheritance.adapters import ADAPTERS

__all__ = ["ADAPTERS"]
