import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.stats import norm

from optnas.samplers._encoding import Encoding
from optnas.samplers._gaussian_process import (
    Features,
    GaussianProcess,
    Weights,
    _loss,
    expected_improvement,
    fit,
    normal_scores,
)

DISTRIBUTIONS = {
    "kind": CategoricalDistribution(("a", "b", "c")),
    "depth": IntDistribution(1, 5),
    "rate": FloatDistribution(0.01, 1, log=True),
    "single": IntDistribution(3, 3),
}
ENCODING = Encoding(DISTRIBUTIONS)
FEATURES = Features(ENCODING.axes)


def distance(a: dict[str, object], b: dict[str, object]) -> float:
    x, y = FEATURES.of(np.array([ENCODING.codes(a), ENCODING.codes(b)]))
    return float(((x - y) ** 2).sum())


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"kind": "a"}, {"kind": "a"}, 0),
        ({"kind": "a"}, {"kind": "c"}, 1),
        ({"kind": "a"}, {}, 1),
        ({"depth": 1}, {"depth": 5}, 1),
        ({"depth": 2}, {"depth": 3}, 0.25),
        ({"depth": 4}, {}, 1),
        ({"rate": 0.01}, {"rate": 0.1}, 0.5),
        ({"rate": 0.01, "kind": "b"}, {"rate": 1.0, "kind": "a"}, 2),
        ({"single": 3}, {"single": 3}, 0),
    ],
)
def test_the_distance_of_features_is_that_of_the_parameters(a, b, expected):
    assert distance(a, b) == pytest.approx(expected)
    assert distance(b, a) == pytest.approx(expected)


def test_normal_scores_keep_order_and_ties():
    scores = normal_scores([3.0, -np.inf, 1.0, 1.0, 1e9])
    assert scores[4] > scores[0] > scores[2] == scores[3] > scores[1]
    assert np.isfinite(scores).all()
    assert scores.mean() == pytest.approx(0, abs=0.1)


def test_expected_improvement_is_the_integral():
    mean, deviation, best = 0.3, 0.7, 0.5
    integral = quad(lambda y: (y - best) * norm.pdf(y, mean, deviation), best, 10)[0]
    found = expected_improvement(np.array([mean]), np.array([deviation]), best)
    assert found[0] == pytest.approx(integral, rel=1e-6)


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    x = FEATURES.of(ENCODING.drawn(20, rng))
    z = normal_scores(rng.random(20))
    prior = np.array([0.0, 0.0, 0.0, 0.0, -3.0])
    theta = rng.normal(0, 0.5, 5) + prior
    error = check_grad(
        lambda t: _loss(t, FEATURES, x, z, prior)[0],
        lambda t: _loss(t, FEATURES, x, z, prior)[1],
        theta,
    )
    assert error < 1e-4


def test_the_fit_finds_the_parameter_that_counts():
    rng = np.random.default_rng(1)
    codes = ENCODING.drawn(60, rng)
    x = FEATURES.of(codes)
    z = normal_scores(codes[:, 1])  # The depth alone.
    weights = fit(FEATURES, x, z)
    assert weights.scales[:3].argmax() == 1
    process = GaussianProcess(FEATURES, x, z, weights)
    fresh = ENCODING.drawn(100, rng)
    mean, deviation = process.predict(FEATURES.of(fresh))
    assert np.corrcoef(mean, fresh[:, 1])[0, 1] > 0.9
    assert (deviation > 0).all()
    assert process.mean(FEATURES.of(fresh)) == pytest.approx(mean)


def test_the_process_is_that_of_the_textbook():
    rng = np.random.default_rng(2)
    x, other = FEATURES.of(ENCODING.drawn(12, rng)), FEATURES.of(ENCODING.drawn(3, rng))
    z = rng.normal(size=12)
    weights = Weights.prior(4)
    scale = weights.by_parameter()[FEATURES.groups]

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2 @ scale))

    noisy = kernel(x, x) + 0.05 * np.eye(12)
    mean, deviation = GaussianProcess(FEATURES, x, z, weights).predict(other)
    assert mean == pytest.approx(kernel(other, x) @ np.linalg.solve(noisy, z), abs=1e-4)
    variance = 1 - np.diag(kernel(other, x) @ np.linalg.solve(noisy, kernel(x, other)))
    assert deviation**2 == pytest.approx(variance, abs=1e-4)


def test_mutants_change_what_there_is_as_often_as_told():
    rng = np.random.default_rng(3)
    parents = np.array([ENCODING.codes({"kind": "a", "depth": 2, "single": 3})] * 300)
    changes = rng.integers(0, 3, size=300)
    children = ENCODING.mutants(parents, changes, rng)
    assert np.isnan(children[:, 2]).all()  # What a network lacks stays away.
    differing = (children[:, [0, 1]] != parents[:, [0, 1]]).sum(axis=1)
    assert (differing <= changes).all()
    assert (differing[changes == 1] == 1).all()
    assert (children[:, 3] == parents[:, 3]).all()
    assert ENCODING.params(children[0]).keys() == {"kind", "depth", "single"}
