"""Architectures and search spaces: pure Python and Optuna distributions, no torch."""

from optnas.spaces.base import Architecture, ParamValue, Space, proposal
from optnas.spaces.cell import CellArchitecture, CellSpace
from optnas.spaces.chain import ChainArchitecture, ChainSpace
from optnas.spaces.nasbench201 import NasBench201Architecture, NasBench201Space
from optnas.spaces.rows import Row, RowSpace
from optnas.spaces.stage import StageArchitecture, StageSpace

# The spaces that study files and stored networks know by name.
SPACES: dict[str, type[Space]] = {  # type: ignore[type-arg]
    "chain": ChainSpace,
    "cell": CellSpace,
    "nasbench201": NasBench201Space,
    "rows": RowSpace,
    "stage": StageSpace,
}

__all__ = [
    "SPACES",
    "Architecture",
    "CellArchitecture",
    "CellSpace",
    "ChainArchitecture",
    "ChainSpace",
    "NasBench201Architecture",
    "NasBench201Space",
    "ParamValue",
    "Row",
    "RowSpace",
    "Space",
    "StageArchitecture",
    "StageSpace",
    "proposal",
]
