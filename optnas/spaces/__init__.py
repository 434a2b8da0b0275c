"""Architectures and search spaces: pure Python and Optuna distributions, no torch."""

from optnas.spaces.base import Architecture, ParamValue, Space, proposal
from optnas.spaces.cell import CellArchitecture, CellSpace
from optnas.spaces.chain import ChainArchitecture, ChainSpace
from optnas.spaces.face import FaceSpace
from optnas.spaces.face_architecture import FaceArchitecture
from optnas.spaces.growth import GrowthSpace
from optnas.spaces.growth_architecture import GrowthArchitecture, Increment
from optnas.spaces.nasbench201 import NasBench201Architecture, NasBench201Space
from optnas.spaces.rows import Row, RowSpace
from optnas.spaces.stage import StageArchitecture, StageSpace
from optnas.spaces.topology import Topology, TopologySpace

# The spaces that study files and stored networks know by name.
SPACES: dict[str, type[Space]] = {  # type: ignore[type-arg]
    "chain": ChainSpace,
    "cell": CellSpace,
    "face": FaceSpace,
    "growth": GrowthSpace,
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
    "FaceArchitecture",
    "FaceSpace",
    "GrowthArchitecture",
    "GrowthSpace",
    "Increment",
    "NasBench201Architecture",
    "NasBench201Space",
    "ParamValue",
    "Row",
    "RowSpace",
    "Space",
    "StageArchitecture",
    "StageSpace",
    "Topology",
    "TopologySpace",
    "proposal",
]
