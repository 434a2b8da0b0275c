"""Verification and identification protocols against worked numbers and scikit-learn."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from optnas.objectives.verification import (
    flip_fused,
    identification_rate,
    pooled_templates,
    roc,
    squared_distances,
    tar_at_far,
    template,
    ten_fold_accuracy,
    unit,
)

ORL = Path(__file__).parents[2] / "shared" / "data" / "orl_faces.npz"

GENUINE = [0.91, 0.85, 0.72, 0.60, 0.44, 0.31]
IMPOSTOR = [0.65, 0.44, 0.30, 0.22, 0.10, -0.05]

scores = st.lists(st.integers(-20, 20).map(lambda number: number / 10), min_size=1, max_size=30)


def forty_pairs():
    i = np.arange(40)
    same = i % 4 < 2
    return np.where(same, 0.803 + 0.05 * (7 * i % 13), 1.103 + 0.05 * (5 * i % 17)), same


def test_ten_folds_of_forty_pairs():
    result = ten_fold_accuracy(*forty_pairs())
    mean, folds, thresholds = result
    assert mean == pytest.approx(0.725, abs=1e-15)
    assert folds == (1, 0.75, 0.5, 0.75, 0.75, 1, 0.75, 0.75, 0.5, 0.5)
    assert thresholds == (1.41, 1.41, 1.31, 1.41, 1.41, 1.41, 1.31, 1.41, 1.41, 1.31)
    assert result.deviation == pytest.approx(0.175, abs=1e-15)
    assert np.mean(thresholds) == pytest.approx(1.38)


@given(st.data())
def test_folds_are_those_of_the_definition(data):
    number = data.draw(st.integers(10, 45))
    pick = st.lists(st.integers(0, 400), min_size=number, max_size=number)
    distances = np.array(data.draw(pick)) / 100
    same = np.array(data.draw(st.lists(st.booleans(), min_size=number, max_size=number)))
    result = ten_fold_accuracy(distances, same)
    start = 0
    for fold in range(10):
        size = number // 10 + (fold < number % 10)
        mine = np.zeros(number, dtype=bool)
        mine[start : start + size] = True
        start += size
        counts = [np.sum((distances < k / 100) == same, where=~mine) for k in range(400)]
        best = counts.index(max(counts)) / 100
        assert result.thresholds[fold] == best
        assert result.folds[fold] == np.mean(((distances < best) == same)[mine])


@pytest.mark.parametrize(
    ("far", "strict", "nearest"),
    [
        (0, (3 / 6, 0, 0.72), (3 / 6, 0)),
        (1e-4, (3 / 6, 0, 0.72), (3 / 6, 0)),
        (0.1, (3 / 6, 0, 0.72), (4 / 6, 1 / 6)),
        (0.2, (4 / 6, 1 / 6, 0.60), (4 / 6, 1 / 6)),
        (0.25, (4 / 6, 1 / 6, 0.60), (1, 2 / 6)),
        (1 / 3, (1, 2 / 6, 0.31), (1, 2 / 6)),
        (0.5, (1, 3 / 6, 0.30), (1, 2 / 6)),
    ],
)
def test_tar_at_far_in_both_conventions(far, strict, nearest):
    assert tar_at_far(GENUINE, IMPOSTOR, far, few=True) == strict
    assert tar_at_far(GENUINE, IMPOSTOR, far, nearest=True, few=True)[:2] == nearest


@pytest.mark.parametrize("far", [1e-4, 0.1, 0.16])
def test_a_far_that_the_impostor_pairs_cannot_support_is_refused(far):
    for nearest in (False, True):
        with pytest.raises(ValueError, match="impostor pairs: there are 6"):
            tar_at_far(GENUINE, IMPOSTOR, far, nearest=nearest)
    assert tar_at_far(GENUINE, IMPOSTOR, 0).far == 0
    assert tar_at_far(GENUINE, IMPOSTOR, 1 / 6).far == 1 / 6


@given(scores, scores)
def test_the_roc_is_that_of_scikit_learn(genuine, impostor):
    tars, fars, thresholds = roc(genuine, impostor)
    labels = [1] * len(genuine) + [0] * len(impostor)
    expected = roc_curve(labels, genuine + impostor, drop_intermediate=False)
    for ours, theirs in zip((fars, tars, thresholds), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)


@given(scores, scores, st.floats(0, 1))
def test_tar_at_far_is_what_scikit_learn_gives(genuine, impostor, far):
    labels = [1] * len(genuine) + [0] * len(impostor)
    fars, tars, _ = roc_curve(labels, genuine + impostor, drop_intermediate=False)
    point = tar_at_far(genuine, impostor, far, few=True)
    assert point.tar == pytest.approx(max(tars[fars <= far]))
    assert point.far <= far
    accepted = [np.mean(np.array(part) >= point.threshold) for part in (genuine, impostor)]
    assert accepted == pytest.approx([point.tar, point.far])
    fars, tars, _ = roc_curve(labels, genuine + impostor)  # Its corners.
    _, index = min(zip(abs(fars[::-1] - far), range(len(fars)), strict=True))
    near = tar_at_far(genuine, impostor, far, nearest=True, few=True)
    assert (near.tar, near.far) == pytest.approx((tars[::-1][index], fars[::-1][index]))


def test_who_scores_an_impostor_highest_accepts_nobody_at_a_far_of_zero():
    assert tar_at_far([0.5], [0.9], 0) == (0, 0, math.inf)


def test_images_and_their_mirror_images_are_added_before_they_are_normalised():
    assert flip_fused([[3, 4]], [[0, 2]])[0] == pytest.approx([0.4472135955, 0.894427191])
    assert unit([[0.0, 0.0]]).tolist() == [[0.0, 0.0]]
    assert squared_distances([[1, 0], [0, 1]], [[0, 1], [0, 1]]).tolist() == [2, 0]


def test_a_template_is_the_sum_of_the_means_of_its_media():
    features, media = [(3, 4), (0, 2), (1, 0), (0, -1)], [7, 9, 9, 9]
    assert template(features, media) == pytest.approx([0.6097107608, 0.7926239891])
    assert template(unit(features), media) == pytest.approx([0.7592566024, 0.6507913735])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=25))
def test_many_templates_are_pooled_as_one_by_one(keys):
    names, media = (np.array(column) for column in zip(*keys, strict=True))
    features = np.random.default_rng(0).normal(size=(len(keys), 5))
    found, vectors = pooled_templates(features, names, media)
    assert found.tolist() == sorted(set(names.tolist()))
    for name, vector in zip(found, vectors, strict=True):
        chosen = names == name
        means = [features[chosen & (media == m)].mean(0) for m in set(media[chosen])]
        assert vector == pytest.approx(unit(np.sum(means, axis=0)))


def test_ranks_with_distractors():
    rows = [
        (0.9, 0.2, 0.3, 0.1, 0.5, 0.4),
        (0.3, 0.4, 0.8, 0.7, 0.6, 0.1),
        (0.2, 0.1, 0.5, 0.4, 0.6, 0.9),
        (0.5, 0.6, 0.7, 0.4, 0.3, 0.2),
    ]
    gallery = [0, 1, 2, 3, -1, -1]
    expected = {1: 0.25, 2: 0.25, 3: 0.5, 4: 1.0, 5: 1.0}
    assert identification_rate(rows, [0, 1, 2, 3], gallery, (1, 2, 3, 4, 5)) == expected
    # Nobody is nobody's match, and who is not in the gallery is left out.
    more = [*rows, rows[0], rows[0]]
    assert identification_rate(more, [0, 1, 2, 3, -1, 9], gallery, range(1, 6)) == expected
    names = np.array(["a", "b", "c", "d", None, None], dtype=object)
    people = np.array(["a", "b", "c", "d", None, "z"], dtype=object)
    assert identification_rate(more, people, names, range(1, 6)) == expected


def test_several_images_of_a_person_and_ties():
    assert identification_rate([[0.1, 0.9, 0.5]], [4], [4, 4, 1], [1]) == {1: 1.0}
    # A constant network tells nobody apart.
    assert identification_rate(np.ones((2, 3)), [0, 1], [0, 1, 2], [1, 2, 3]) == {1: 0, 2: 0, 3: 1}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ten_fold_accuracy([1.0] * 9, [True] * 9), "10 folds need at least as many"),
        (lambda: ten_fold_accuracy([1.0] * 10, [True] * 9), "as long as each other"),
        (lambda: ten_fold_accuracy([math.nan] * 10, [True] * 10), "`distances` must be finite"),
        (lambda: tar_at_far([1.0], [1.0], 1.5), r"`far` must be in \[0, 1\]"),
        (lambda: tar_at_far([], [1.0], 0.5), "needs scores of genuine"),
        (lambda: pooled_templates([[1.0]], [1, 2], [1]), "as long as each other"),
        (lambda: identification_rate([[1.0]], [0], [0], [0]), "`ranks` must be 1 or more"),
        (lambda: identification_rate([[1.0]], [0], [1]), "None of the probes"),
        (lambda: identification_rate([[1.0, 2.0]], [0], [1]), "`scores` must be finite"),
    ],
)
def test_bad_values_are_refused_with_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def pixel_features():
    """Of the ten test people of ORL, ten shots each: pixels, as a network would put them out."""
    if not ORL.exists():
        pytest.skip("the ORL faces are not here")
    with np.load(ORL) as archive:
        images, subject, shot = archive["images"], archive["subject"], archive["shot"]
    order = np.lexsort((shot, subject))
    means = images[order].reshape(400, 28, 4, 23, 4).mean((2, 4)).reshape(400, 644)
    return unit(means - means[:300].mean(0))[300:].reshape(10, 10, 644)


def test_pixels_identify_orl(pixel_features):
    gallery, probes = pixel_features[:, 0], pixel_features[:, 1:].reshape(90, 644)
    rates = identification_rate(probes @ gallery.T, np.arange(90) // 9, np.arange(10), (1, 5))
    assert rates == pytest.approx({1: 0.8111111111, 5: 0.9555555556}, abs=1e-9)


@pytest.mark.parametrize(
    ("far", "tar"), [(0.001, 0.4777777778), (0.01, 0.5355555556), (0.1, 0.8066666667)]
)
def test_pixels_verify_orl(pixel_features, far, tar):
    flat = pixel_features.reshape(100, 644)
    one, other = np.triu_indices(100, 1)
    same = one // 10 == other // 10
    alike = (flat @ flat.T)[one, other]
    assert (same.sum(), (~same).sum()) == (450, 4500)
    assert tar_at_far(alike[same], alike[~same], far).tar == pytest.approx(tar, abs=1e-9)


def test_pixels_verify_orl_in_ten_folds(pixel_features):
    distances, same = [], []
    for k in range(10):
        one, other = np.triu_indices(10, 1)
        distances += [squared_distances(pixel_features[k, one], pixel_features[k, other])]
        for m in range(1, 10):
            i = np.arange(5)
            there = pixel_features[(k + m) % 10, (i + m) % 10]
            distances += [squared_distances(pixel_features[k, i], there)]
        same += [True] * 45 + [False] * 45
    result = ten_fold_accuracy(np.concatenate(distances), same)
    expected = [0.666667, 0.944444, 0.833333, 0.822222, 0.688889]
    expected += [0.888889, 0.933333, 0.955556, 0.877778, 0.8]
    assert result.folds == pytest.approx(expected, abs=1e-6)
    assert result.mean == pytest.approx(0.8411111111, abs=1e-9)
    assert result.thresholds == (1.35, 1.4, 1.49, 1.4, 1.35, 1.31, 1.31, 1.4, 1.4, 1.35)
