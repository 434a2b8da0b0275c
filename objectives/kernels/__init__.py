"""Kernels of optnas's own, in Triton: depthwise convolutions, and batch normalisation with ReLU.

Nothing imports this package but what trains on CUDA, and tests.
"""

from optnas.objectives.kernels.convolution import depthwise
from optnas.objectives.kernels.networks import use_kernels
from optnas.objectives.kernels.normalisation import batch_norm_relu
from optnas.objectives.kernels.rows import Blocks

__all__ = ["Blocks", "batch_norm_relu", "depthwise", "use_kernels"]
