"""Architectures and search spaces: pure Python and Optuna distributions, no torch."""

from optnas.spaces.base import Architecture, ParamValue, Space, proposal
from optnas.spaces.chain import ChainArchitecture, ChainSpace

# The spaces that study files and stored networks know by name.
SPACES: dict[str, type[Space]] = {"chain": ChainSpace}  # type: ignore[type-arg]

__all__ = [
    "SPACES",
    "Architecture",
    "ChainArchitecture",
    "ChainSpace",
    "ParamValue",
    "Space",
    "proposal",
]
