"""The version of optnas."""

__version__ = "0.2.0"
