"""A Gaussian process over parameters, for values of which only the order counts."""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from threadpoolctl import ThreadpoolController

from optnas.samplers._features import Features, Matrix

LENGTH = 0.4
"""The distance at which correlation has fallen to 1/e, before weights are fitted."""
NOISE = 0.05
"""Variance of the noise, before it is fitted; the values have variance 1."""
SPREAD = 1.0
"""Standard deviation of the prior of the logarithm of a weight, and of the noise."""
STEPS = 12
"""Steps of the optimiser in a fit."""
JITTER = 1e-6


_ALONE = threading.Lock()


@functools.cache
def _linear_algebra() -> ThreadpoolController:
    """The libraries that NumPy and SciPy compute with, not those of PyTorch."""
    return ThreadpoolController().select(internal_api="openblas")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, so that results do not depend on how many there are.

    For matrices this small it is the fastest; on a busy machine several wait for one another.
    """
    # What is limited is the process's: whoever leaves must find it as the other entered.
    with _ALONE, _linear_algebra().limit(limits=1):
        yield


def normal_scores(values: ArrayLike) -> Matrix:
    """The values as quantiles of the normal distribution by rank; equal ones stay equal.

    Args:
        values: Shape (n,); ``-inf`` is the worst.
    """
    ranks = rankdata(values)
    return np.asarray(ndtri((ranks - 0.5) / len(ranks)))


def expected_improvement(mean: Matrix, deviation: Matrix, best: float) -> Matrix:
    """How much better than ``best`` a normally distributed value is expected to be, from 0.

    Args:
        mean: Shape (n,).
        deviation: Standard deviations, above 0, shape (n,).
        best: What is to be improved on.
    """
    z = (mean - best) / deviation
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.asarray(deviation * (z * ndtr(z) + density))


@dataclasses.dataclass(frozen=True)
class Weights:
    """What is fitted.

    Args:
        scales: Logarithm of every parameter's weight, relative to the prior's, shape (p,).
        noise: Logarithm of the variance of the noise.
    """

    scales: Matrix
    noise: float

    @classmethod
    def prior(cls, parameters: int) -> "Weights":
        """The most probable ones before anything is known."""
        return cls(np.zeros(parameters), float(np.log(NOISE)))

    def by_parameter(self) -> Matrix:
        """Weights of the parameters' distances in the exponent of the kernel, shape (p,)."""
        return np.asarray(np.exp(self.scales) / (len(self.scales) * LENGTH))


def fit(features: Features, x: Matrix, z: Matrix) -> Weights:
    """The most probable weights, as far as a few steps lead.

    Args:
        features: The parameters.
        x: Features of the architectures, shape (n, f).
        z: Their values, shape (n,), about normally distributed.
    """
    prior = Weights.prior(len(features.starts))
    start = np.append(prior.scales, prior.noise)
    options = {"maxiter": STEPS, "maxfun": 2 * STEPS}
    bounds = [(p - 4 * SPREAD, p + 4 * SPREAD) for p in start]
    found = minimize(
        _loss,
        start,
        (features, x, z, start),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options=options,
    ).x
    return Weights(found[:-1], float(found[-1]))


def _loss(
    theta: Matrix, features: Features, x: Matrix, z: Matrix, prior: Matrix
) -> tuple[float, Matrix]:
    """Minus the logarithm of the posterior of the weights, and its gradient."""
    weights = Weights(theta[:-1], float(theta[-1]))
    per = weights.by_parameter()
    kernel = _kernel(x, x, per[features.groups])
    try:
        factor = cho_factor(_noisy(kernel, weights), lower=True)
    except LinAlgError:
        return 1e10, np.zeros_like(theta)
    inverse = cho_solve(factor, np.eye(len(z)))
    alpha = inverse @ z
    off = (theta - prior) / SPREAD
    loss = 0.5 * z @ alpha + np.log(np.diag(factor[0])).sum() + 0.5 * off @ off
    slope = 0.5 * (inverse - np.outer(alpha, alpha))
    pulled = slope * kernel
    by_feature = 2 * (pulled.sum(axis=1) @ (x * x) - np.einsum("nf,nf->f", x, pulled @ x))
    gradient = np.append(
        -per * np.add.reduceat(by_feature, features.starts),
        np.trace(slope) * np.exp(weights.noise),
    )
    return float(loss), gradient + off / SPREAD


class GaussianProcess:
    """What the values of some architectures say about those of others.

    Args:
        features: The parameters.
        x: Features of the architectures with values, shape (n, f).
        z: The values, shape (n,).
        weights: Of the kernel.
    """

    def __init__(self, features: Features, x: Matrix, z: Matrix, weights: Weights) -> None:
        self._x = x
        self._weights = weights.by_parameter()[features.groups]
        kernel = _noisy(_kernel(x, x, self._weights), weights)
        self._factor = cho_factor(kernel, lower=True)
        self._alpha = cho_solve(self._factor, z)

    def mean(self, x: Matrix) -> Matrix:
        """The posterior mean, shape (m,), at features of shape (m, f)."""
        return np.asarray(_kernel(x, self._x, self._weights) @ self._alpha)

    def predict(self, x: Matrix) -> tuple[Matrix, Matrix]:
        """The posterior mean and standard deviation, shape (m,) each."""
        between = _kernel(x, self._x, self._weights)
        known = solve_triangular(self._factor[0], between.T, lower=True, check_finite=False)
        variance = 1 - np.einsum("nm,nm->m", known, known)
        deviation = np.sqrt(np.maximum(variance, JITTER))
        return np.asarray(between @ self._alpha), np.asarray(deviation)


def _kernel(a: Matrix, b: Matrix, weights: Matrix) -> Matrix:
    """Correlations, shape (n, m), of features of shapes (n, f) and (m, f)."""
    weighted = a * weights
    squares = (weighted * a).sum(axis=1)[:, None] + (b * b) @ weights
    return np.asarray(np.exp(-np.maximum(squares - 2 * weighted @ b.T, 0)))


def _noisy(kernel: Matrix, weights: Weights) -> Matrix:
    return np.asarray(kernel + (np.exp(weights.noise) + JITTER) * np.eye(len(kernel)))
