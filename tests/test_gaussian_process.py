import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.stats import norm
from threadpoolctl import threadpool_info

from optnas.samplers._encoding import Encoding
from optnas.samplers._features import Features
from optnas.samplers._gaussian_process import (
    GaussianProcess,
    Weights,
    _loss,
    expected_improvement,
    fit,
    normal_scores,
    one_thread,
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


LAYERS = Encoding(
    {f"op_{i}": CategoricalDistribution(("conv", "pool", "skip")) for i in range(4)}
    | {f"width_{i}": IntDistribution(8, 64, step=8) for i in range(3)}
    | {"gate_0": CategoricalDistribution((True, False)), "rate": FloatDistribution(0, 1)}
)


def test_parameters_whose_names_differ_in_numbers_alone_are_of_one_kind():
    assert LAYERS.alike == [[0, 1, 2, 3], [4, 5, 6]]
    assert ENCODING.alike == []


def test_what_layers_have_in_common_is_part_of_the_distance():
    features = Features(LAYERS.axes, LAYERS.alike)

    def common(*networks: dict[str, object]) -> float:
        x = features.of(np.array([LAYERS.codes(network) for network in networks]))
        shared = features.groups >= len(LAYERS.axes)
        return float(((x[0] - x[1]) ** 2)[shared].sum())

    convs = {f"op_{i}": "conv" for i in range(4)}
    # The order of the layers is not in common; what they are is.
    assert common(convs | {"op_0": "pool"}, convs | {"op_3": "pool"}) == 0
    assert common(convs, convs | {"op_3": "pool"}) == pytest.approx(4 * (1 / 4 + 1 / 4))
    assert common(convs, dict.fromkeys(convs, "pool")) == pytest.approx(4 * 2)
    widths = {"width_0": 8, "width_1": 64}
    assert common(widths, {"width_0": 64, "width_2": 8}) == 0
    assert common(widths, {"width_0": 64}) == pytest.approx(4 * 1 / 2)


def test_what_is_seen_in_one_layer_says_something_about_another():
    features = Features(LAYERS.axes, LAYERS.alike)
    rng = np.random.default_rng(4)
    codes = LAYERS.drawn(30, rng)
    codes[:, 3] = 1.0  # No convolution was ever seen in the last layer.
    z = normal_scores((codes[:, :3] == 0).sum(axis=1))
    process = GaussianProcess(
        features, features.of(codes), z, fit(features, features.of(codes), z)
    )
    pair = codes[:1].repeat(2, axis=0)
    pair[0, 3] = 0.0
    conv, pool = process.mean(features.of(pair))
    assert conv > pool


def test_networks_at_the_start_are_unlike_those_before_them():
    rng = np.random.default_rng(5)
    rows = np.empty((0, len(LAYERS.axes)))
    for _ in range(6):
        rows = np.vstack([rows, LAYERS.spread(rows, rng)])
    for column in range(4):
        assert np.bincount(rows[:, column].astype(int)).tolist() == [2, 2, 2]
    assert np.diff(np.sort(rows[:, 8])).min() > 0.03
    lacking = rows.copy()
    lacking[:, 0] = np.nan
    assert LAYERS.spread(lacking, rng).shape == (len(LAYERS.axes),)


def test_one_thread_computes_and_afterwards_as_many_as_before():
    def threads() -> list[int]:
        return [lib["num_threads"] for lib in threadpool_info() if "openblas" in lib["filepath"]]

    before = threads()
    with one_thread():
        assert threads() == [1] * len(before)
    assert threads() == before
