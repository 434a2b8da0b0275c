"""The objective: what it returns and records, and that a candidate's training can be repeated."""

import math
from typing import Any

import optuna
import pytest
import torch
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState

import optnas
from optnas.config.settings import DataSettings, TrainSettings
from optnas.errors import UserError
from optnas.objectives import classification
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import load_images
from optnas.objectives.training import trainer as training
from optnas.samplers.macro_micro import MacroMicroSampler
from optnas.spaces import ChainSpace
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import Checkpoints

SPACE = ChainSpace(depth=(2, 3), width=(4, 6))
DATA = DataSettings(name="digits", classes=(0, 1, 2), samples=0.5)
CANDIDATE = SPACE.to_params(SPACE.architecture_class.uniform(2, 6)) | {"epochs": 3}
RECORDED = {
    "params": int,
    "multiply_adds": int,
    "memory_bytes": int,
    "input_shape": list,
    "train_accuracy": float,
    "train_seconds": float,
    "epochs_trained": int,
    "peak_memory_bytes": int,
    "device": str,
    "seed": int,
    "versions": dict,
}


@pytest.fixture(scope="module")
def images():
    return load_images(DATA, seed=0)


def study_of(name: str = "digits", **options: Any) -> optuna.Study:
    options = {"direction": "maximize", "load_if_exists": True} | options
    return optuna.create_study(study_name=name, **options)


def evaluate(objective: Classification, params: dict[str, Any], study: optuna.Study | None = None):
    study = study or study_of()
    study.enqueue_trial(params)
    study.optimize(objective, n_trials=1)
    return study.trials[-1]


def curve(trial: optuna.trial.FrozenTrial) -> list[tuple[int, float]]:
    return sorted(trial.intermediate_values.items())


def test_the_value_is_the_best_of_the_reported_epochs(images):
    trial = evaluate(Classification(SPACE, images, seed=0), CANDIDATE)
    steps, accuracies = zip(*curve(trial), strict=True)
    assert steps == (1, 2, 3)
    assert trial.value == max(accuracies)
    assert all(
        (a * len(images.validation_labels))
        == pytest.approx(round(a * len(images.validation_labels)))
        for a in accuracies
    )


def test_what_is_recorded(images):
    trial = evaluate(Classification(SPACE, images, seed=5), CANDIDATE)
    attrs = trial.user_attrs
    assert {name: type(attrs[name]) for name in RECORDED} == RECORDED
    architecture = SPACE.from_params(trial.params)
    assert attrs["params"] == architecture.num_params(1, 3)
    assert attrs["epochs_trained"] == 3
    assert attrs["seed"] == 5
    assert 0 < attrs["train_accuracy"] <= 1
    assert attrs["train_seconds"] > 0
    assert attrs["versions"]["optnas"] == optnas.__version__
    assert attrs["versions"]["torch"] == torch.__version__


def test_a_training_depends_on_the_seed_and_the_candidate_alone(images):
    first = evaluate(Classification(SPACE, images, seed=0), CANDIDATE)
    later = study_of("another")
    other = SPACE.to_params(SPACE.architecture_class.uniform(3, 4)) | {"epochs": 1}
    objective = Classification(SPACE, images, seed=0)
    evaluate(objective, other, later)
    torch.manual_seed(12345)
    again = evaluate(objective, CANDIDATE, later)
    assert again.number == 1
    assert curve(again) == curve(first)
    assert again.user_attrs["train_accuracy"] == first.user_attrs["train_accuracy"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 4}, {"width": 5}])
def test_another_seed_or_candidate_trains_differently(images, change):
    seed = change.get("seed", 0)
    first = evaluate(Classification(SPACE, images, seed=0), CANDIDATE)
    second = evaluate(Classification(SPACE, images, seed=seed), CANDIDATE | change)
    assert first.user_attrs["train_accuracy"] != second.user_attrs["train_accuracy"]


def test_without_a_seed_the_studys_name_decides(images):
    named = [
        evaluate(Classification(SPACE, images), CANDIDATE, study_of(name)).user_attrs
        for name in ("one", "one", "two")
    ]
    assert named[0]["seed"] == named[1]["seed"] != named[2]["seed"]
    assert named[0]["train_accuracy"] == named[1]["train_accuracy"]


@pytest.mark.parametrize("sampler", [RandomSampler(seed=0), TPESampler(seed=0)])
def test_stock_samplers_with_fixed_epochs(images, sampler):
    objective = Classification(SPACE, images, train=TrainSettings(epochs=1), seed=0)
    study = study_of(sampler=sampler)
    study.optimize(objective, n_trials=3)
    assert [len(t.intermediate_values) for t in study.trials] == [1, 1, 1]
    assert all("epochs" not in t.params for t in study.trials)


def test_a_loss_that_is_not_finite_fails_the_candidate_and_the_search_goes_on(images):
    objective = Classification(SPACE, images, train=TrainSettings(lr=1e9, clip=None), seed=0)
    sampler = MacroMicroSampler(SPACE, in_channels=1, classes=3, epochs=1, micro_epochs=1)
    study = study_of(sampler=sampler)
    study.optimize(objective)
    assert len(study.trials) > 2
    for trial in study.trials:
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["failure"] == "candidate"
        assert "not finite" in trial.user_attrs["failure_reason"]
    assert sampler.found(study) is None  # Nothing was judged.


def test_a_network_that_cannot_be_built_fails_the_candidate(images, monkeypatch):
    def refuse(*_):
        raise ValueError("too small for three reductions")

    monkeypatch.setattr(classification, "build_model", refuse)
    trial = evaluate(Classification(SPACE, images, seed=0), CANDIDATE)
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["failure"] == "candidate"
    reason = trial.user_attrs["failure_reason"]
    assert reason == "cannot be built: too small for three reductions"


def test_a_broken_limit_is_an_untrained_zero(images, monkeypatch):
    monkeypatch.setattr(training.Trainer, "train_epoch", None)
    limits = {"params": 100, "multiply_adds": 10**9}
    trial = evaluate(Classification(SPACE, images, limits=limits, seed=0), CANDIDATE)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)
    assert trial.constraints["params"] == trial.user_attrs["params"] - 100 > 0
    assert trial.constraints["multiply_adds"] < 0
    assert trial.user_attrs["failure_reason"].startswith("over the limit: params")
    assert not trial.intermediate_values


def test_a_kept_limit_is_a_feasible_trial(images):
    trial = evaluate(Classification(SPACE, images, limits={"params": 10**6}, seed=0), CANDIDATE)
    assert trial.value > 0
    assert trial.constraints["params"] < 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore lines."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError("no more"),
    ],
)
def test_out_of_memory_is_an_infeasible_zero(images, monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr(training.Trainer, "train_epoch", fail)
    trial = evaluate(Classification(SPACE, images, seed=0), CANDIDATE)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)
    assert trial.constraints["memory"] > 0
    reason = trial.user_attrs["failure_reason"]
    assert reason.startswith("out of memory: ")
    assert "\n" not in reason


def test_a_network_larger_than_main_memory_is_an_infeasible_zero(images):
    space = ChainSpace(depth=(2, 2), width=(10_000, 10_000), operations=("conv",), kernels=(7,))
    network = space.architecture_class(2, 10_000, ("conv", "conv"), (7, 7))
    params = space.to_params(network) | {"epochs": 1}
    trial = evaluate(Classification(space, images, seed=0), params)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)
    assert trial.constraints["memory"] > 0


def test_other_errors_are_not_swallowed(images, monkeypatch):
    def fail(self):
        raise RuntimeError("a bug")

    monkeypatch.setattr(training.Trainer, "train_epoch", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        evaluate(Classification(SPACE, images, seed=0), CANDIDATE)


class InterruptAfter:
    """Ctrl-C in the middle of a training, after so many epochs in all."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def __call__(self, progress) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def search(images, folder, *, stops=(), pruner=None):
    """A whole search, interrupted as often as told. Returns the study."""
    storage = optuna.storages.InMemoryStorage()
    for stop in (*stops, None):
        sampler = MacroMicroSampler(
            SPACE, in_channels=1, classes=3, epochs=2, micro_epochs=2, search_operations=False
        )
        study = study_of("search", storage=storage, sampler=sampler, pruner=pruner)
        checkpoints = Checkpoints(open_artifacts(folder), storage, "search")
        on_epoch = None if stop is None else InterruptAfter(stop)
        objective = Classification(SPACE, images, checkpoints=checkpoints, on_epoch=on_epoch)
        if stop is None:
            study.optimize(objective, callbacks=[checkpoints.clean])
        else:
            with pytest.raises(KeyboardInterrupt):
                study.optimize(objective, callbacks=[checkpoints.clean])
    return study


def outcome(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [
        (t.params, t.state, t.value, curve(t), t.user_attrs["train_accuracy"])
        for t in study.trials
        if t.user_attrs.get("failure") != "lost"
    ]


def test_interrupted_trainings_go_on_and_end_the_same(images, tmp_path):
    undisturbed = search(images, tmp_path / "a")
    study = search(images, tmp_path / "b", stops=(3, 1, 4))
    assert outcome(study) == outcome(undisturbed)
    lost = [t for t in study.trials if t.user_attrs.get("failure") == "lost"]
    assert [t.user_attrs["failure_reason"] for t in lost] == ["interrupted"] * 3
    adopted = [t for t in study.trials if "continues" in t.user_attrs]
    assert [t.user_attrs["continues"] for t in adopted] == [t.number for t in lost]
    for trial in (t for t in adopted if t.state == TrialState.COMPLETE):
        before = study.trials[trial.user_attrs["continues"]]
        known = len(before.intermediate_values)
        assert known > 0
        assert trial.user_attrs["epochs_trained"] == len(trial.intermediate_values) - known
    assert study.sampler.found(study) == undisturbed.sampler.found(undisturbed)
    assert not list((tmp_path / "b").iterdir())


def test_energy_is_that_of_all_epochs_whoever_trained_them(images, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "energy_meter", lambda device: lambda: 2.0)
    study = search(images, tmp_path / "counted", stops=(3,))
    assert any("continues" in trial.user_attrs for trial in study.trials)
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        assert trial.user_attrs["train_joules"] == 2 * len(trial.intermediate_values)
    monkeypatch.setattr(training, "energy_meter", lambda device: lambda: None)
    study = search(images, tmp_path / "unknown")
    assert not any("train_joules" in trial.user_attrs for trial in study.trials)


def test_energy_that_is_known_of_some_epochs_is_not_known(images, monkeypatch):
    joules = iter([None, 1.0, None, None, None, 1.0])
    monkeypatch.setattr(training, "energy_meter", lambda device: lambda: next(joules))
    trial = evaluate(Classification(SPACE, images, seed=0), CANDIDATE)
    assert "train_seconds" in trial.user_attrs
    assert "train_joules" not in trial.user_attrs


def test_pruning_is_the_same_in_an_interrupted_search(images, tmp_path):
    pruner = MedianPruner(n_startup_trials=1, n_warmup_steps=0)
    undisturbed = search(images, tmp_path / "a", pruner=pruner)
    pruned = [t for t in undisturbed.trials if t.state == TrialState.PRUNED]
    assert pruned
    assert all(set(RECORDED) <= set(t.user_attrs) for t in pruned)
    study = search(images, tmp_path / "b", pruner=pruner, stops=(3, 1, 1, 1, 1, 2))
    assert outcome(study) == outcome(undisturbed)


def test_an_interrupt_while_suggesting_loses_no_candidate(images, monkeypatch):
    class Interrupted(ChainSpace):
        def suggest(self, trial):
            super().suggest(trial)
            raise KeyboardInterrupt

    study = study_of()
    with pytest.raises(KeyboardInterrupt):
        evaluate(Classification(Interrupted((2, 3), (4, 6)), images), CANDIDATE, study)
    assert study.trials[0].user_attrs["failure"] == "lost"


def test_a_full_disk_is_no_failed_candidate(images, monkeypatch):
    def fail(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.Trainer, "train_epoch", fail)
    study = study_of()
    with pytest.raises(OSError, match="No space"):
        evaluate(Classification(SPACE, images, seed=0), CANDIDATE, study)
    assert study.trials[0].user_attrs["failure"] == "lost"
    assert "No space" in study.trials[0].user_attrs["failure_reason"]


def test_threads_and_progress(images):
    seen = []
    before = torch.get_num_threads()
    try:
        settings = TrainSettings(threads=2, epochs=2)
        objective = Classification(SPACE, images, train=settings, on_epoch=seen.append, seed=0)
        trial = evaluate(objective, CANDIDATE)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert [(p.number, p.epoch, p.epochs) for p in seen] == [(0, 1, 2), (0, 2, 2)]
    assert seen[-1].accuracy == trial.value
    assert seen[-1].seconds == trial.user_attrs["train_seconds"]


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="device 'nonsense' cannot be used"):
        Classification.from_settings(
            SPACE, DATA, train=TrainSettings(), limits={}, seed=0, device="nonsense"
        )


def test_nan_values_never_become_a_best_trial(images):
    train = TrainSettings(lr=1e9, clip=None, epochs=1)
    study = study_of(sampler=RandomSampler(seed=0))
    study.optimize(Classification(SPACE, images, train=train, seed=0), n_trials=2)
    assert [t.state for t in study.trials] == [TrialState.FAIL] * 2
    assert all(t.value is None or math.isnan(t.value) for t in study.trials)
