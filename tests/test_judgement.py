"""What is said of a network's answers is what scikit-learn says of them."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as known

from optnas.config.settings import DataSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import load_images
from optnas.objectives.kept import trained
from optnas.objectives.kept.descriptions import describe
from optnas.objectives.kept.judgement import judgement
from optnas.objectives.training.losses import balanced_weights, cross_entropy
from optnas.objectives.training.metrics import check_metric, counted, measured
from optnas.objectives.training.trainer import Trainer
from optnas.report.tested import Kept, described
from optnas.spaces import ChainArchitecture, ChainSpace
from optnas.trials.chance import chance_level, interval, is_chance


@st.composite
def answers(draw):
    classes, count = draw(st.integers(2, 9)), draw(st.integers(1, 60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    labels = torch.randint(classes, (count,), generator=generator)
    shares = torch.rand(count, classes, generator=generator).double()
    shares[torch.arange(count), labels] += draw(st.sampled_from((0.0, 0.3, 2.0)))
    return shares.softmax(1), labels


@settings(max_examples=60, deadline=None)
@given(answers())
def test_figures_are_those_of_scikit_learn(answered):
    shares, labels = answered
    classes = shares.shape[1]
    names = [str(place) for place in range(classes)]
    ours = judgement(shares, labels, names, None)
    said = shares.argmax(1)
    figures = known.precision_recall_fscore_support(
        labels, said, labels=range(classes), zero_division=0
    )
    for place, each in enumerate(ours.classes):
        theirs = [float(column[place]) for column in figures]
        assert [each.precision, each.recall, each.f1, each.images] == pytest.approx(theirs)
        assert (each.recall_interval is None) == (each.images == 0)
    assert ours.accuracy == pytest.approx(known.accuracy_score(labels, said))
    assert ours.macro_f1 == pytest.approx(known.f1_score(labels, said, average="macro"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        balanced = known.balanced_accuracy_score(labels, said)
    assert ours.balanced_accuracy == pytest.approx(balanced)
    matrix = known.confusion_matrix(labels, said, labels=range(classes))
    assert [list(row) for row in ours.confusion] == matrix.tolist()
    if classes > 5:
        top = known.top_k_accuracy_score(labels, shares, k=5, labels=range(classes))
        assert ours.top_5 == pytest.approx(top)
    else:
        assert ours.top_5 is None
    wrong = shares.max(1).values[said != labels].sort(descending=True).values[:20]
    assert [m.probability for m in ours.mistakes] == wrong.tolist()


@settings(max_examples=40, deadline=None)
@given(answers(), st.integers(1, 7))
def test_what_a_search_maximises_is_the_same_in_pieces(answered, size):
    shares, labels = answered
    whole = judgement(shares, labels, ["c"] * shares.shape[1], None)
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "top_5"):
        if metric == "top_5" and shares.shape[1] < 6:
            continue
        pieces = zip(shares.split(size), labels.split(size), strict=True)
        counts = sum(counted(metric, logits, truth) for logits, truth in pieces)
        assert measured(metric, counts).item() == pytest.approx(getattr(whole, metric))


def test_the_interval_is_wilsons():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for seen, expected in (
        ((81, 263), (0.2553, 0.3662)),
        ((15, 148), (0.0624, 0.1605)),
        ((0, 20), (0.0, 0.1611)),
        ((1, 29), (0.0061, 0.1718)),
    ):
        assert interval(*seen) == pytest.approx(expected, abs=5e-5)


def test_chance_is_the_largest_class():
    assert chance_level([90, 10]) == 0.9
    assert is_chance(0.92, [90, 10])
    assert is_chance(0.2, [90, 10])
    assert not is_chance(0.99, [900, 100])


def test_a_metric_that_is_always_one_is_refused():
    with pytest.raises(UserError, match="top_5 of 5 classes is always 1"):
        check_metric("top_5", 5)
    check_metric("top_5", 6)


def test_balanced_weights_are_those_of_scikit_learn_and_one_on_average():
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0] * 30 + [1] * 6 + [3] * 4)
    weights = balanced_weights(labels, 4)
    theirs = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels.numpy())
    assert weights[[0, 1, 3]].tolist() == pytest.approx(theirs.tolist())
    assert weights[labels].mean().item() == pytest.approx(1)
    logits = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    whole = cross_entropy(logits, labels, weights)
    parts = [cross_entropy(logits[s], labels[s], weights) for s in (slice(20), slice(20, 40))]
    assert whole.item() == pytest.approx(sum(parts).item() / 2)


@pytest.fixture(scope="module")
def digits():
    return load_images(DataSettings(name="digits"), seed=0)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "top_5"])
def test_a_search_maximises_the_metric_that_it_is_told(digits, metric):
    import optuna

    objective = Classification(
        ChainSpace(depth=(2, 2), width=(4, 4)),
        digits,
        train=TrainSettings(epochs=2, lr=0.1),
        metric=metric,
        seed=0,
    )
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    seen = []
    objective.trained = lambda trial, trainer: seen.append(trainer)
    study.optimize(objective, n_trials=1)
    trainer = seen[0]
    model, images = trainer.model.eval(), digits.validation_images
    from optnas.objectives.data.augment import normalise

    with torch.inference_mode():
        logits = model(normalise(images, digits.mean, digits.std))
    names = digits.class_names
    expected = getattr(judgement(logits.softmax(1), digits.validation_labels, names, None), metric)
    assert trainer.history[-1].validation_value == pytest.approx(expected)
    values = study.trials[0].intermediate_values
    assert values[2] == pytest.approx(expected)
    assert study.trials[0].value == max(values.values())
    assert trainer.history[-1].validation_accuracy != trainer.history[-1].validation_value


def test_weights_of_classes_change_what_is_learnt_and_nothing_else(digits):
    def trained_with(weights):
        from optnas.objectives.networks.build import build_model

        model = build_model(
            ChainArchitecture(1, 4), (1, 8, 8), 10, torch.Generator().manual_seed(0)
        )
        settings = TrainSettings(lr=0.1, class_weights=weights)
        subject = Trainer(model, digits, settings, epochs=1, seed=0)
        subject.train_epoch()
        return subject

    plain, again, balanced = trained_with(None), trained_with(None), trained_with("balanced")
    assert plain.history == again.history
    assert plain.history != balanced.history


def test_a_kept_network_is_judged_by_class(digits, tmp_path):
    description = trained.retrain(
        ChainArchitecture(2, 4),
        digits,
        TrainSettings(epochs=1, lr=0.1),
        tmp_path,
        network={},
        seed=0,
        origin={},
        device=torch.device("cpu"),
    )
    judged = describe(tmp_path).judgement
    assert judged == description.judgement
    assert judged.accuracy == description.test_accuracy
    assert judged.images == len(digits.test_labels) == sum(map(sum, judged.confusion))
    low, high = judged.accuracy_interval
    assert low < judged.accuracy < high
    assert judged.mistakes
    kept = Kept("found", tmp_path, (described(tmp_path / "network.json"),))
    assert len(kept.mistakes()) == len(judged.mistakes)
    card = (tmp_path / "README.md").read_text()
    assert f"| macro-F1 | {judged.macro_f1:.4f} |" in card
    assert "## By class" in card
    fields = json.loads((tmp_path / "network.json").read_text())
    assert fields["data"] == {"name": "digits", "seed": 0}
    assert fields["judgement"]["top_5"] == judged.top_5
