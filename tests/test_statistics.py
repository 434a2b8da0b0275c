import math

import numpy as np
import pytest
from scipy import stats

from optnas.experiments.statistics import (
    best_so_far,
    bootstrap,
    greater_p_value,
    holm,
    kendall,
    mean_interval,
    mean_ranks,
    paired_p_value,
    relative_improvement,
    retained,
    spearman,
)


@pytest.mark.parametrize(
    ("a", "b", "rho", "tau"),
    [
        ((1, 2, 3, 4, 5), (1, 3, 2, 5, 4), 0.8, 0.6),
        ((1, 2, 3, 4, 5), (5, 4, 3, 2, 1), -1.0, -1.0),
        ((0.1, 0.2, 0.3), (10, 200, 3000), 1.0, 1.0),
        ((1, 1, 2, 3), (1, 1, 2, 3), 1.0, 1.0),
        ((1, 2, 3), (1, 1, 2), math.sqrt(3) / 2, 2 / math.sqrt(6)),
    ],
)
def test_rank_correlations(a: tuple[float, ...], b: tuple[float, ...], rho: float, tau: float):
    assert spearman(a, b) == pytest.approx(rho)
    assert kendall(a, b) == pytest.approx(tau)


def test_rank_correlations_of_many_pairs_at_once_are_scipys() -> None:
    a, b = np.random.default_rng(0).integers(5, size=(2, 3, 20))
    for row, (rho, tau) in enumerate(zip(spearman(a, b), kendall(a, b), strict=True)):
        assert rho == pytest.approx(stats.spearmanr(a[row], b[row]).statistic)
        assert tau == pytest.approx(stats.kendalltau(a[row], b[row]).statistic)


def test_a_constant_has_no_rank_correlation() -> None:
    assert math.isnan(spearman((1, 2, 3), (5, 5, 5)))
    assert math.isnan(kendall((1, 2, 3), (5, 5, 5)))


def test_bootstrap_is_repeatable_and_holds_the_estimate() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=40)
    b = a + rng.normal(size=40)
    low, high = bootstrap(spearman, a, b, seed=3)
    assert (low, high) == bootstrap(spearman, a, b, seed=3)
    assert (low, high) != bootstrap(spearman, a, b, seed=4)
    assert -1 < low < spearman(a, b) < high < 1


def test_bootstrap_covers_the_true_correlation_about_as_often_as_it_says() -> None:
    # Of a bivariate normal with Pearson's r, Spearman's rho is 6 / pi * asin(r / 2).
    r = 0.6
    truth = 6 / math.pi * math.asin(r / 2)
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        a, b = rng.multivariate_normal((0, 0), ((1, r), (r, 1)), size=50).T
        low, high = bootstrap(spearman, a, b, seed=trial, resamples=200)
        covered += low <= truth <= high
    # 95 of 100 with a standard deviation of 2.2.
    assert 88 <= covered <= 100


def test_bootstrap_of_perfect_agreement_and_of_nothing() -> None:
    assert bootstrap(spearman, (1, 2, 3, 4), (5, 6, 7, 8), seed=0) == pytest.approx((1, 1))
    assert np.isnan(bootstrap(spearman, (1, 2, 3), (1, 1, 1), seed=0)).all()


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        # t with 2 degrees of freedom: 4.302653; standard error 1 / sqrt(3).
        ((1, 2, 3), 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)),
        ((0.5, 0.5), 0.5, 0.5),
        ((0.7,), 0.7, 0.7),
    ],
)
def test_mean_interval(values: tuple[float, ...], low: float, high: float) -> None:
    assert mean_interval(values) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(
    ("top", "among", "kept"), [(1, 1, 0), (1, 2, 1), (2, 2, 2), (3, 3, 2), (3, 4, 3), (5, 5, 5)]
)
def test_retained(top: int, among: int, kept: int) -> None:
    # From the best: networks 4, 3, 2, 1, 0 in the original, 3, 4, 1, 2, 0 in the reduced setting.
    assert retained((1, 2, 3, 4, 5), (1, 3, 2, 5, 4), top, among) == kept


def test_p_value_is_one_sided() -> None:
    # The greatest of the 20 equally probable orders of three and three.
    assert greater_p_value((4, 5, 6), (1, 2, 3)) == pytest.approx(1 / 20)
    assert greater_p_value((1, 2, 3), (4, 5, 6)) == pytest.approx(1.0)


def test_relative_improvement() -> None:
    assert relative_improvement(0.95, (0.85, 0.90, 0.95)) == pytest.approx(100 * 0.05 / 0.9)
    assert relative_improvement(0.45, (0.5,)) == pytest.approx(-10)


def test_best_so_far() -> None:
    costs, values = (2, 4, 4, 7), (-math.inf, 0.5, 0.8, 0.6)
    found = best_so_far(costs, values, (1, 2, 3.9, 4, 6, 100))
    np.testing.assert_array_equal(found, (np.nan, np.nan, np.nan, 0.8, 0.8, 0.8))
    assert np.isnan(best_so_far((), (), (1,))).all()


def test_scores_are_those_of_the_first_best_value() -> None:
    costs, values, scores = [1, 2, 3, 4], [-np.inf, 0.5, 0.5, 0.9], [7, 8, 9, 3]
    found = best_so_far(costs, values, [0.5, 1, 2, 3.5, 4, 9], scores)
    assert found == pytest.approx([np.nan, np.nan, 8, 8, 3, 3], nan_ok=True)


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1, 1]


def test_paired_p_values() -> None:
    values = np.arange(10.0)
    assert paired_p_value(values, values) == 1
    assert paired_p_value(values + 1 + values / 100, values) == pytest.approx(2 / 2**10)


def test_mean_ranks_share_ties_and_put_nothing_last() -> None:
    ranks = mean_ranks([[3, 2, np.nan], [1, 1, 0]], seed=0)
    assert [mean for mean, _ in ranks] == [1.25, 1.75, 3]
    assert all(low <= mean <= high for mean, (low, high) in ranks)
    assert ranks == mean_ranks([[3, 2, np.nan], [1, 1, 0]], seed=0)
