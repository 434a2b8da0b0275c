"""The version of optnas."""

__version__ = "0.1.0"
