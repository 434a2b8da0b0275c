"""Feature importance: worked numbers, invariants, and the importance of stages."""

import dataclasses
import subprocess
import sys
import textwrap
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cross_decomposition import PLSRegression

from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import Images
from optnas.objectives.importance import scoring as importance
from optnas.objectives.importance.feature_selection import (
    infinite_feature_selection,
    infinite_latent_feature_selection,
)
from optnas.objectives.importance.partial_least_squares import pls_vip, streamed_vip
from optnas.objectives.importance.scoring import stage_importance
from optnas.objectives.networks.build import build_model
from optnas.spaces import ChainArchitecture, StageArchitecture

X = np.array(
    [
        (1, 0, 2, 1),
        (2, 1, 0, 1),
        (3, 1, 1, 0),
        (4, 3, 2, 2),
        (5, 2, 0, 1),
        (6, 4, 1, 3),
        (7, 3, 2, 0),
        (8, 5, 0, 2),
    ],
    dtype=float,
)
LABELS = [0, 0, 0, 1, 1, 1, 2, 2]
CRITERIA = [
    pls_vip,
    lambda features, labels: infinite_feature_selection(features),
    infinite_latent_feature_selection,
]


pytestmark = pytest.mark.usefixtures("one_thread")


every_criterion = pytest.mark.parametrize("score", CRITERIA, ids=["pls", "inf_fs", "il_fs"])


def drawn(seed: int, n: int = 40, p: int = 12, classes: int = 3):
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), rng.integers(classes, size=n - classes)]
    scales = rng.lognormal(0, 2, p)
    features = rng.normal(size=(n, p)) + rng.normal(size=(classes, p))[labels]
    return features * scales + rng.normal(0, 10, p), labels


@pytest.mark.parametrize(
    ("components", "expected", "mean"),
    [
        (1, (1.383643, 1.323366, 0.000000, 0.578132), 0.821285),
        (2, (1.199972, 1.074803, 0.120875, 1.179091), 0.893685),
    ],
)
def test_vip_of_the_worked_example(components, expected, mean):
    scores = pls_vip(X, LABELS, components)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert abs(scores.mean() - mean) < 1e-6


def test_inf_fs_of_the_worked_example():
    scores = infinite_feature_selection(X)
    np.testing.assert_allclose(scores, (11.065286, 7.813103, 8.521818, 7.797387), atol=1e-6)
    assert abs(scores.mean() - 8.799398) < 1e-6


def vip_of(regression: PLSRegression) -> np.ndarray:
    """VIP by its formula, from a fitted regression."""
    t, w, q = regression.x_scores_, regression.x_weights_, regression.y_loadings_
    explained = (t**2).sum(0) * (q**2).sum(0)
    shares = (w / np.linalg.norm(w, axis=0)) ** 2 @ explained / explained.sum()
    return np.sqrt(len(w) * shares)


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("shape", [(40, 12, 3), (5000, 3, 2), (10, 30, 2), (700, 90, 10)])
def test_vip_is_that_of_scikit_learns_regression(shape, components):
    n, p, classes = shape
    features, labels = drawn(components, n, p, classes)
    regression = PLSRegression(components).fit(features, np.eye(classes)[labels])
    np.testing.assert_allclose(
        pls_vip(features, labels, components), vip_of(regression), atol=1e-8
    )


@every_criterion
@pytest.mark.parametrize("unit", [1e-300, 1e-20, 1e300])
def test_units_do_not_matter(score, unit):
    features, labels = drawn(0)
    np.testing.assert_allclose(
        score(unit * features, labels), score(features, labels), rtol=1e-9, atol=1e-12
    )


def test_the_names_of_the_classes_do_not_matter():
    named = [(-3, 7, 100)[label] for label in LABELS]
    np.testing.assert_array_equal(pls_vip(X, named), pls_vip(X, LABELS))
    np.testing.assert_array_equal(
        infinite_latent_feature_selection(X, named), infinite_latent_feature_selection(X, LABELS)
    )


tables = st.tuples(st.integers(2, 30), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(
        arrays(np.float64, shape, elements=st.integers(-20, 20) | st.floats(-1e300, 1e300)),
        arrays(np.int64, shape[0], elements=st.integers(0, 3)),
        st.integers(1, 3),
    )
)


@settings(deadline=None)
@given(tables)
def test_the_mean_square_of_vip_is_one(table):
    features, labels, components = table
    assume(len(set(labels.tolist())) > 1)
    assume((np.ptp(features, axis=0) > 0).all())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of scikit-learn: some tables converge slowly.
        scores = pls_vip(features, labels, components)
    assert abs((scores**2).mean() - 1) < 1e-9


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([[0], [1], [0], [1]], [1]),  # Nothing is explained at all.
        ([[0, 5], [1, 5], [0, 5], [1, 5]], [np.sqrt(2), 0]),
        ([[0, 1], [0, -1], [1, 1], [1, -1]], [np.sqrt(2), 0]),  # One component explains all.
        ([[0, 0], [1, 2], [3, 6], [4, 8]], [1, 1]),  # There is one component only.
        ([[5], [5], [5], [5]], [0]),
    ],
)
def test_vip_of_degenerate_tables(features, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = pls_vip(features, [0, 0, 1, 1])
    np.testing.assert_allclose(scores, expected, atol=1e-9)


@every_criterion
@pytest.mark.parametrize("seed", range(5))
def test_scores_follow_the_features_when_they_change_places(score, seed):
    features, labels = drawn(seed)
    order = np.random.default_rng(seed).permutation(features.shape[1])
    np.testing.assert_allclose(
        score(features[:, order], labels), score(features, labels)[order], rtol=1e-9, atol=1e-9
    )


@every_criterion
def test_samples_may_come_in_any_order(score):
    features, labels = drawn(3, n=3000)
    order = np.random.default_rng(0).permutation(len(features))
    np.testing.assert_allclose(
        score(features[order], labels[order]), score(features, labels), rtol=1e-9
    )


@every_criterion
@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_constant_features_score_zero_without_a_warning(score, value):
    features = np.insert(X, 2, value, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score(features, LABELS)
        nothing = score(np.full((8, 3), value), LABELS)
    assert scores[2] == 0
    live = np.delete(scores, 2)
    # A projection spreads its importance over all features, the dead ones too.
    scale = np.sqrt(5 / 4) if score is pls_vip else 1
    np.testing.assert_allclose(live, scale * score(X, LABELS), rtol=1e-9)
    np.testing.assert_array_equal(nothing, 0)


@every_criterion
def test_single_precision_is_enough(score):
    features, labels = drawn(0, n=300)
    single = features.astype(np.float32)
    np.testing.assert_allclose(score(single, labels), score(features, labels), rtol=1e-3)


def test_inf_fs_sums_up_the_walks():
    features, _ = drawn(1, p=5)
    deviations = features.std(0, ddof=1)
    scaled = (deviations - deviations.min()) / np.ptp(deviations)
    ranks = features.argsort(0).argsort(0)
    edges = 0.3 * np.maximum.outer(scaled, scaled) + 0.7 * (1 - abs(np.corrcoef(ranks.T)))
    edges *= 0.8 / max(abs(np.linalg.eigvalsh(edges)))
    walks = sum(np.linalg.matrix_power(edges, length).sum(1) for length in range(1, 300))
    np.testing.assert_allclose(infinite_feature_selection(features, 0.3, 0.8), walks)


def test_inf_fs_leaves_the_features_alone():
    features = drawn(0)[0].astype(np.float32)
    before = features.copy()
    infinite_feature_selection(features)
    np.testing.assert_array_equal(features, before)


def test_il_fs_sums_up_the_walks_between_relevant_features():
    # Of two classes at 0 and 3, the squared distances to the means are told apart in thirds.
    good = [0, 0, 0, 0, 3, 3, 3, 3]
    poor = [0, 0, 0, 3, 3, 3, 3, 0]
    scores = infinite_latent_feature_selection(np.c_[good, poor], [0, 0, 0, 0, 1, 1, 1, 1])
    relevance = np.array((1.0, 6 / 8))
    edges = np.outer(relevance, relevance)
    system = np.eye(2) - 0.99 / np.linalg.eigvalsh(edges)[-1] * edges
    np.testing.assert_allclose(scores, np.linalg.inv(system).sum(1) - 1)


def test_supervised_criteria_prefer_features_that_tell_classes_apart():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    features = rng.normal(size=(400, 10))
    features[:, :5] += 3 * rng.normal(size=(4, 5))[labels]
    for score in (pls_vip, infinite_latent_feature_selection):
        scores = score(features, labels)
        assert scores[:5].min() > scores[5:].max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pls_vip(X[0], LABELS), "`features` must have a row"),
        (lambda: pls_vip(X[:1], LABELS[:1]), "`features` must have a row"),
        (lambda: pls_vip(X[:, :0], LABELS), "`features` must have a row"),
        (lambda: pls_vip(X * np.inf, LABELS), "`features` must be finite"),
        (lambda: pls_vip(X, LABELS[:-1]), r"`labels` must have the shape \(8,\)"),
        (lambda: pls_vip(X, [1] * 8), "`labels` must hold at least two classes"),
        (lambda: pls_vip(X, LABELS, 0), "`components` must be greater"),
        (lambda: infinite_feature_selection(X, alpha=1.5), "`alpha` must be from 0 to 1"),
        (lambda: infinite_feature_selection(X, factor=1.0), "`factor` must be greater than 0"),
        (lambda: infinite_latent_feature_selection(X, [1] * 8), "at least two classes"),
        (lambda: infinite_latent_feature_selection(X, LABELS, 0.0), "`factor` must be greater"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_bad_values_are_refused_with_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def images(count: int = 300, side: int = 12, **options) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 1, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 3
    return Images(
        pixels, labels, pixels[:3], labels[:3], pixels[:3], labels[:3], ("a", "b", "c"),
        Augmentation(**options),
    )  # fmt: skip


def network(*modules: int, block: str = "basic", side: int = 12):
    generator = torch.Generator().manual_seed(0)
    return build_model(StageArchitecture(modules, block), (1, side, side), 3, generator)


def hand_made(model, data, stage, score):
    """The importance of a stage, all at once."""
    shown = (data.train_images.float() / 255 - data.mean[0]) / data.std[0]
    with torch.no_grad():
        features = list(model.eval().stage_outputs(shown))[stage]
    side = min(8, features.shape[2])
    pooled = features.unfold(2, side, side).unfold(3, side, side).mean((4, 5)).flatten(1)
    return score(pooled.numpy(), data.train_labels.numpy()).mean()


@pytest.mark.parametrize(("block", "side"), [("basic", 16), ("nasnet", 6), ("bottleneck", 16)])
def test_the_importance_of_stages_is_that_of_their_pooled_features(block, side, monkeypatch):
    monkeypatch.setattr(importance, "_BATCH_PIXELS", 50 * side * side)
    data, model = images(160, side=side), network(1, 2, block=block, side=side)
    for criterion, score in zip(("pls", "inf_fs", "il_fs"), CRITERIA, strict=True):
        expected = [hand_made(model, data, stage, score) for stage in range(2)]
        np.testing.assert_allclose(stage_importance(model, data, criterion), expected, rtol=1e-4)


def test_the_network_is_left_as_it_was():
    model = network(1, 1).train()
    model.stages[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage_importance(model, images())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert not model.stages[0].training


def test_samples_are_chosen_by_the_seed_and_all_taken_if_there_are_no_more():
    model, data = network(1, 1), images()
    everything = stage_importance(model, data)
    assert stage_importance(model, data, samples=1000) == everything
    some = stage_importance(model, data, samples=60, seed=1)
    assert some == stage_importance(model, data, samples=60, seed=1)
    assert (
        len({tuple(s) for s in (everything, some, stage_importance(model, data, samples=60))}) == 3
    )


def test_images_are_looked_at_in_the_resolution_of_the_training():
    model, data = network(1, 1), images()
    reduced = dataclasses.replace(data, augmentation=Augmentation(resize=(6, 6)))
    assert stage_importance(model, reduced) != stage_importance(model, data)


def test_networks_without_stages_and_unknown_criteria_are_refused():
    with pytest.raises(TypeError, match="needs a StageNetwork: ChainNetwork"):
        stage_importance(build_model(ChainArchitecture(2, 4), (1, 12, 12), 3), images())
    with pytest.raises(ValueError, match="`criterion` must be one of"):
        stage_importance(network(1), images(), "vip")
    broken = network(1)
    broken.stem[0].weight.data.fill_(np.inf)
    with pytest.raises(ValueError, match="features of stage 1 are not finite"):
        stage_importance(broken, images())


STREAM = """
    import resource, torch
    from optnas.objectives.importance.partial_least_squares import streamed_vip

    torch.set_num_threads(1)
    def chunks():
        generator = torch.Generator().manual_seed(0)
        for _ in range(0, 51_200, 512):
            labels = torch.randint(10, (512,), generator=generator)
            yield torch.randn(512, 512, generator=generator).numpy(), labels.numpy()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert abs((streamed_vip(chunks, 10) ** 2).mean() - 1) < 1e-9
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_fifty_thousand_samples_are_never_held_at_once():
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STREAM)], check=True, capture_output=True, text=True
    ).stdout
    # In float64, as the regression takes them, they are 210 MB, and it makes copies.
    assert int(output) < 100_000


def test_no_memory_grows_with_the_square_of_the_number_of_features():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(96, 8000)).astype(np.float32), np.arange(96) % 4
    rows = [slice(i, i + 8) for i in range(0, 96, 8)]
    tracemalloc.start()
    try:
        scores = streamed_vip(lambda: ((features[r], labels[r]) for r in rows), 4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000  # Of 512 MB for every pair of features.
    np.testing.assert_allclose(scores, pls_vip(features, labels), rtol=1e-9)


def test_features_that_would_fill_the_memory_are_computed_for_every_pass(monkeypatch):
    model, data, passes = network(1), images(64), []
    monkeypatch.setattr(importance, "_BATCH_PIXELS", 16 * 12 * 12)
    look = model.stem.forward
    monkeypatch.setattr(model.stem, "forward", lambda x: passes.append(len(x)) or look(x))
    once = stage_importance(model, data)
    assert sum(passes) == 64
    monkeypatch.setattr(importance, "_KEPT_BYTES", 0)
    passes.clear()
    assert stage_importance(model, data) == once
    assert sum(passes) == 16 + 3 * 64  # One piece to see how large they are, and every pass.
