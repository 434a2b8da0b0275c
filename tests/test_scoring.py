"""Scoring the stages, training on after it, and being killed at either."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

import optnas
from optnas.config.settings import TrainSettings
from optnas.objectives import stage_classification
from optnas.objectives.importance import pls_vip, scoring
from optnas.objectives.importance.feature_selection import (
    infinite_feature_selection,
    infinite_latent_feature_selection,
)
from optnas.objectives.training.trainer import Trainer, learning_rate
from optnas.study.budget import used_budget
from optnas.study.opening import open_existing

STUDY = """
study: scored
seed: 0
space: {name: stage, stages: 2, modules: [1, 3]}
sampler: {name: stage_wise, initial: 1, growth: 1, iterations: 1}
objective: {name: stage_classification, further_epochs: 2}
data: {name: digits, classes: [0, 1, 7], samples: 0.3}
train: {epochs: 2, lr: 0.1}
"""


@pytest.fixture(autouse=True)
def growing(monkeypatch):
    """Only the first stage gains by being deeper."""
    monkeypatch.setattr(
        stage_classification,
        "stage_importance",
        lambda model, *_, **__: [0.1 * len(model.stages[0]), 0.9],
    )


@pytest.fixture
def trained(monkeypatch) -> list[tuple[tuple[int, ...], int]]:
    """The epochs that were trained: numbers of modules, and the epoch."""
    seen = []
    train_epoch = Trainer.train_epoch

    def spy(trainer):
        result = train_epoch(trainer)
        seen.append((tuple(map(len, trainer.model.stages)), trainer.epoch))
        return result

    monkeypatch.setattr(Trainer, "train_epoch", spy)
    return seen


def write(folder: Path, text: str = STUDY) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "scored.yaml").write_text(text)
    return folder / "scored.yaml"


def complete(study: optuna.Study) -> list[tuple[object, ...]]:
    """What came of a search, without the numbers of trials, which losses shift."""
    return [
        (
            *trial.params.values(),
            trial.value,
            sorted(trial.intermediate_values.items()),
            trial.user_attrs["stage_importance"],
            trial.user_attrs["training_seed"],
        )
        for trial in study.trials
        if trial.state == TrialState.COMPLETE
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            stage_classification,
            "stage_importance",
            lambda model, *_, **__: [0.1 * len(model.stages[0]), 0.9],
        )
        return complete(optnas.run(write(tmp_path_factory.mktemp("whole"))).study)


def test_candidates_alone_are_trained_on_and_judged_by_all_epochs(tmp_path, trained):
    study = optnas.run(write(tmp_path)).study
    assert [t.user_attrs["phase"] for t in study.trials] == ["initial", "temporary", "candidate"]
    assert [sorted(t.intermediate_values) for t in study.trials] == [[1, 2], [1, 2], [1, 2, 3, 4]]
    assert [t.user_attrs["epochs_trained"] for t in study.trials] == [2, 2, 4]
    assert study.trials[2].value == max(study.trials[2].intermediate_values.values())
    assert trained[-2:] == [((2, 1), 3), ((2, 1), 4)]
    assert used_budget(study).epochs == 8


def test_a_budget_may_end_before_the_further_epochs(tmp_path, trained, undisturbed):
    study = optnas.run(write(tmp_path, f"{STUDY}budget: {{epochs: 6}}\n")).study
    assert used_budget(study).epochs == len(trained) == 6
    assert complete(optnas.run(write(tmp_path)).study) == undisturbed
    assert len(trained) == len(set(trained)) == 8


def test_the_score_is_that_before_the_further_epochs(tmp_path, monkeypatch):
    """And the epochs before it are what they are without more of them."""
    seen = []

    def score(model, *_, **__):
        seen.append(model.stem[0].weight.detach().clone())
        return [0.1 * len(model.stages[0]), 0.9]

    monkeypatch.setattr(stage_classification, "stage_importance", score)
    further = optnas.run(write(tmp_path / "a")).study
    plain = optnas.run(write(tmp_path / "b", STUDY.replace(", further_epochs: 2", ""))).study
    assert [t.params for t in further.trials] == [t.params for t in plain.trials]
    assert all((a == b).all() for a, b in zip(seen[:3], seen[3:], strict=True))
    curves = [[*t.intermediate_values.values()] for t in (further.trials[2], plain.trials[2])]
    assert curves[0][:2] == curves[1]


def test_a_search_killed_while_it_scores_goes_on_from_the_checkpoint(
    tmp_path, monkeypatch, trained, undisturbed
):
    calls = itertools.count()

    def interrupted(model, *_, **__):
        if next(calls) in (0, 2, 4):  # Every network at its first attempt.
            raise KeyboardInterrupt
        return [0.1 * len(model.stages[0]), 0.9]

    monkeypatch.setattr(stage_classification, "stage_importance", interrupted)
    path = write(tmp_path)
    for finished in (False, False, False, True):
        outcome = optnas.run(path)
        assert outcome.opened.is_finished == finished
    assert complete(outcome.study) == undisturbed
    assert len(trained) == len(set(trained)) == 8


@pytest.mark.parametrize("last", [3, 4])
def test_a_candidate_killed_while_it_is_trained_on_keeps_its_score(
    tmp_path, monkeypatch, trained, undisturbed, last
):
    """After the third epoch; and after the last one, before its value is stored."""
    scored = []

    def score(model, *_, **__):
        scored.append(tuple(map(len, model.stages)))
        return [0.1 * len(model.stages[0]), 0.9]

    monkeypatch.setattr(stage_classification, "stage_importance", score)
    save = stage_classification.TrialTraining._save
    pending = [True]

    def stop_after(training, *, must):
        save(training, must=must)
        if training.trainer.epoch == last and pending:
            pending.clear()
            raise KeyboardInterrupt

    monkeypatch.setattr(stage_classification.TrialTraining, "_save", stop_after)
    path = write(tmp_path)
    assert not optnas.run(path).opened.is_finished
    outcome = optnas.run(path)
    assert outcome.opened.is_finished
    assert complete(outcome.study) == undisturbed
    assert scored == [(1, 1), (2, 2), (2, 1)]
    assert len(trained) == len(set(trained)) == 8
    assert outcome.study.trials[3].user_attrs["continues"] == 2


def test_a_worker_killed_by_the_system_while_it_scores_loses_no_epoch(
    tmp_path, trained, undisturbed
):
    code = (
        "import os, signal, optnas\n"
        "from optnas.objectives import stage_classification\n"
        "stage_classification.stage_importance = lambda *_, **__: os.kill(os.getpid(), 9)\n"
        f"optnas.run({str(write(tmp_path))!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    (lost,) = open_existing(str(tmp_path / "scored.yaml")).study.trials
    assert len(lost.intermediate_values) == 2
    outcome = optnas.run(tmp_path / "scored.yaml")
    assert complete(outcome.study) == undisturbed
    assert ((1, 1), 1) not in trained
    assert outcome.study.trials[1].user_attrs["continues"] == 0


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("step", [1.0, 1.0, 0.1, 0.01, 0.01, 0.01]),
        ("constant", [1.0] * 6),
        ("cosine", [1.0, 0.8535534, 0.5, 0.1464466, 1.0, 0.5]),
    ],
)
def test_the_learning_rate_of_further_epochs(schedule, rates):
    recipe = TrainSettings(lr=1.0, schedule=schedule)
    found = [learning_rate(recipe, epoch, 4, 2) for epoch in range(6)]
    assert found == pytest.approx(rates)


def test_the_steps_of_the_papers_schedule():
    """Stage-Wise NAS, section IV: a tenth after 100 and after 150 epochs of 200."""
    recipe = TrainSettings(lr=0.01, schedule="step")
    rates = [learning_rate(recipe, epoch, 200, 100) for epoch in range(300)]
    assert rates == pytest.approx([0.01] * 100 + [0.001] * 50 + [0.0001] * 150)


@pytest.mark.parametrize("criterion", ["pls", "inf_fs", "il_fs"])
def test_parameters_are_those_of_the_criterion(criterion):
    generator = np.random.default_rng(0)
    features, labels = generator.random((40, 6), np.float32), np.arange(40) % 3
    features[:, 0] += labels
    chunks = lambda: iter([(features, labels)])  # noqa: E731
    found = {
        name: scoring._scores(criterion, chunks, 40, 3, parameters)
        for name, parameters in scoring.GRID[criterion].items()
    }
    for name, parameters in scoring.GRID[criterion].items():
        if criterion == "pls":
            expected = pls_vip(features, labels, parameters.components)
        elif criterion == "inf_fs":
            expected = infinite_feature_selection(features, parameters.alpha, parameters.factor)
        else:
            expected = infinite_latent_feature_selection(features, labels, parameters.factor)
        assert found[name] == pytest.approx(expected, rel=1e-4), name
    assert len({tuple(scores) for scores in found.values()}) > 1


@pytest.mark.parametrize("keys", [{"components": 0}, {"alpha": 1.5}, {"factor": 1.0}])
def test_parameters_out_of_range_are_refused(keys):
    with pytest.raises(ValueError, match=f"`{next(iter(keys))}` must be"):
        scoring.Parameters(**keys)


def test_a_study_chooses_the_parameters(tmp_path):
    (tmp_path / "tuned.yaml").write_text(
        "study: tuned\nspace: {name: stage, stages: 2, modules: [1, 2]}\n"
        "sampler: {name: stage_wise, initial: 1, growth: 1, iterations: 1}\n"
        "objective: {name: stage_classification, tune: true, samples: 60}\n"
        "data: {name: digits, classes: [0, 1, 7], samples: 0.2}\ntrain: {epochs: 1}\n"
    )
    optnas.run(tmp_path / "tuned.yaml")
    study = open_existing(str(tmp_path / "tuned.yaml")).study
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        scores = trial.user_attrs["tuned_importance"]
        assert scores.keys() == scoring.GRID["pls"].keys()
        assert scores["components 2"] == trial.user_attrs["stage_importance"]
    assert study.sampler.found(study) is not None
