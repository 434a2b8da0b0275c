"""Running out of memory is a result, and a long search does not run out of it by itself.

Trainings are on the CPU, where there is a GPU too: `Memory` stands for a device that is small.
"""

import gc
import json
import math
import os
import statistics
import subprocess
import sys
import textwrap
import warnings
import weakref
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.pruners import NopPruner, ThresholdPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from optnas.config.settings import CheckpointSettings, DataSettings, RetrainSettings, TrainSettings
from optnas.devices.gpus import gpus
from optnas.errors import UserError
from optnas.objectives import stage_classification
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.importance.scoring import stage_importance
from optnas.objectives.networks.build import build_model
from optnas.objectives.stage_classification import StageClassification
from optnas.objectives.training import memory, steps, trial_training
from optnas.objectives.training.memory import (
    in_pieces,
    is_out_of_memory,
    release,
    reset_peak_memory,
)
from optnas.objectives.training.trainer import Trainer
from optnas.samplers.macro_micro import MacroMicroSampler
from optnas.spaces import ChainSpace, StageArchitecture, StageSpace
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import Checkpoints

SPACE = ChainSpace(depth=(2, 4), width=(4, 16))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images(DataSettings(name="digits", classes=(0, 1, 2), samples=0.5), seed=0)


class Memory(TorchDispatchMode):
    """A device of so many bytes: tensors made inside it count as long as anybody holds them."""

    def __init__(self, limit: float = math.inf) -> None:
        super().__init__()
        self.limit = limit
        self.used = 0
        self.peak = 0
        self.refused = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves(args) if torch.is_tensor(t)}
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given | self._known:
                    self._allocate(storage)
        return result

    def _allocate(self, storage: torch.UntypedStorage) -> None:
        size, key = storage.nbytes(), storage._cdata
        if self.used + size > self.limit:
            self.refused += 1
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
        self.used += size
        self.peak = max(self.peak, self.used)
        self._known.add(key)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.used -= size
        self._known.discard(key)


def candidate(width: int = 16, epochs: int = 3) -> dict[str, Any]:
    return SPACE.to_params(SPACE.architecture_class.uniform(3, width)) | {"epochs": epochs}


def study_of(**options: Any) -> optuna.Study:
    return optuna.create_study(study_name="digits", direction="maximize", **options)


def evaluate(
    objective: Classification,
    device: Memory,
    params: dict[str, Any] | None = None,
    study: optuna.Study | None = None,
) -> FrozenTrial:
    study = study or study_of()
    study.enqueue_trial(params or candidate())
    with device:
        study.optimize(objective, n_trials=1)
    return study.trials[-1]


def outcome(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.value, trial.intermediate_values, trial.user_attrs["train_accuracy"]


@pytest.fixture(scope="module")
def undisturbed(images) -> tuple[FrozenTrial, int]:
    """The training with memory enough, and the bytes it took."""
    device = Memory()
    return evaluate(Classification(SPACE, images, device="cpu", seed=0), device), device.peak


def test_with_memory_enough_nothing_is_different(images, undisturbed):
    expected, peak = undisturbed
    trial = evaluate(Classification(SPACE, images, device="cpu", seed=0), Memory(peak))
    assert outcome(trial) == outcome(expected)
    assert "accumulation" not in trial.user_attrs


def test_a_batch_that_does_not_fit_is_trained_on_in_halves(images, undisturbed):
    expected, peak = undisturbed
    device = Memory(0.7 * peak)
    trial = evaluate(Classification(SPACE, images, device="cpu", seed=0), device)
    assert device.refused == 1
    assert (trial.state, trial.user_attrs["accumulation"]) == (TrialState.COMPLETE, 2)
    assert trial.user_attrs["epochs_trained"] == len(trial.intermediate_values) == 3
    assert trial.value == pytest.approx(expected.value, abs=0.2)
    assert not trial.constraints
    again = evaluate(Classification(SPACE, images, device="cpu", seed=0), Memory(0.7 * peak))
    assert outcome(again) == outcome(trial)


def test_parameters_side_by_side_are_parted_where_halves_are_trained_on(images, monkeypatch):
    monkeypatch.setattr(steps, "is_accelerated", lambda settings, device: True)
    device = Memory()
    whole = evaluate(Classification(SPACE, images, device="cpu", seed=0), device)
    gc.collect()  # What ran before may have left an error, whose frames hold each other.
    assert device.used == 0
    small = Memory(0.7 * device.peak)
    trial = evaluate(Classification(SPACE, images, device="cpu", seed=0), small)
    assert (trial.state, trial.user_attrs["accumulation"]) == (TrialState.COMPLETE, 2)
    assert trial.value == pytest.approx(whole.value, abs=0.2)
    gc.collect()
    assert small.used == 0


@pytest.mark.parametrize(("first", "then"), [(0.7, 1.0), (0.7, 0.7)])
def test_beside_others_a_batch_is_tried_once_more_before_it_is_halved(
    images, undisturbed, monkeypatch, first, then
):
    """What others took of the device the first time says nothing of the network."""
    expected, peak = undisturbed
    device = Memory(first * peak)

    def is_shared(_device: torch.device) -> bool:
        device.limit = then * peak
        return True

    monkeypatch.setattr(trial_training, "is_shared", is_shared)
    trial = evaluate(Classification(SPACE, images, device="cpu", seed=0), device)
    assert trial.state == TrialState.COMPLETE
    if then == first:
        assert (device.refused, trial.user_attrs["accumulation"]) == (2, 2)
    else:
        assert device.refused == 1
        assert "accumulation" not in trial.user_attrs
        assert outcome(trial) == outcome(expected)


@pytest.mark.parametrize(
    ("free", "reserved", "expected"), [(90, 6, False), (60, 35, False), (60, 25, True)]
)
def test_who_else_holds_memory_of_a_gpu_is_known(monkeypatch, free, reserved, expected):
    gpu = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 80)
    properties = SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert memory.is_shared(gpu) == expected
    assert memory.device_memory(gpu) == {
        "gpu": "1234",
        "total_bytes": 100,
        "free_bytes": free,
        "reserved_bytes": reserved,
        "peak_bytes": 80,
    }
    assert memory.device_memory(CPU) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_tells_what_it_holds():
    device = torch.device("cuda:0")
    reset_peak_memory(device)
    tensor = torch.zeros(1 << 24, device=device)
    held = memory.device_memory(device)
    used = held["total_bytes"] - held["free_bytes"]
    assert tensor.nbytes <= held["reserved_bytes"] <= held["peak_bytes"] < used
    assert used < held["total_bytes"]
    assert f"GPU-{held['gpu']}" in {gpu.uuid for gpu in gpus()} or "MIG" in held["gpu"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_without_memory_is_an_infeasible_zero(images):
    space = ChainSpace(depth=(2, 4), width=(4, 256))
    objective = Classification(space, images, device="cuda", seed=0)
    study = study_of()
    study.enqueue_trial(space.to_params(space.architecture_class.uniform(3, 256)) | {"epochs": 1})
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        study.optimize(objective, n_trials=1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    (trial,) = study.trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)
    assert trial.constraints["memory"] > 0
    assert trial.user_attrs["failure_reason"].startswith("out of memory: CUDA out of memory.")


def test_a_network_that_fits_in_no_way_is_an_infeasible_zero(images, undisturbed):
    device = Memory(0.2 * undisturbed[1])
    trial = evaluate(Classification(SPACE, images, device="cpu", seed=0), device)
    assert device.refused == 2
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)
    assert trial.constraints["memory"] > 0
    assert trial.user_attrs["accumulation"] == 2
    assert trial.user_attrs["failure_reason"].startswith("out of memory: CUDA out of memory.")
    assert trial.user_attrs["peak_memory_bytes"] > 0


def test_what_an_exception_holds_is_released():
    def work() -> None:
        activations = torch.zeros(1000)
        raise MemoryError(f"no room for more than {len(activations)}")

    with Memory() as device:
        try:
            work()
        except MemoryError as error:
            assert device.used == 4000
            release(error, CPU)
            assert device.used == 0


@pytest.mark.parametrize(
    ("train", "params", "pruner", "state"),
    [
        ({}, candidate(), NopPruner(), TrialState.COMPLETE),
        ({"lr": 1e9, "clip": None}, candidate(), NopPruner(), TrialState.FAIL),
        ({}, candidate(), ThresholdPruner(lower=1.0), TrialState.PRUNED),
    ],
)
def test_nothing_outlives_its_trial(images, train, params, pruner, state):
    objective = Classification(SPACE, images, train=TrainSettings(**train), device="cpu", seed=0)
    device = Memory()
    trial = evaluate(objective, device, params, study_of(pruner=pruner))
    assert trial.state == state
    assert device.peak > 0
    assert device.used == 0


@pytest.mark.parametrize("share", [0.7, 0.2, 0.01])
def test_everything_is_freed(images, undisturbed, share):
    device = Memory(share * undisturbed[1])
    objective = Classification(SPACE, images, limits={"params": 10**6}, device="cpu", seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        evaluate(objective, device)
    assert device.refused
    assert device.used == 0


def less_memory_after(epoch: int, device: Memory, limit: float):
    def on_epoch(progress) -> None:
        if progress.epoch == epoch:
            device.limit = limit

    return on_epoch


@pytest.mark.parametrize(("every", "kept"), [(1, 2), (5, 0)])
def test_a_training_goes_on_from_its_last_state(images, undisturbed, every, kept):
    expected, peak = undisturbed
    device = Memory()
    objective = Classification(
        SPACE,
        images,
        device="cpu",
        seed=0,
        checkpoint=CheckpointSettings(every=every),
        on_epoch=less_memory_after(2, device, 0.7 * peak),
    )
    trained = []
    epoch = Trainer.train_epoch
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        patch.setattr(Trainer, "train_epoch", lambda t: trained.append(t.epoch + 1) or epoch(t))
        trial = evaluate(objective, device)
    assert trained == [1, 2, 3, *range(kept + 1, 4)]
    assert trial.user_attrs["accumulation"] == 2
    assert trial.user_attrs["epochs_trained"] == 3
    steps = trial.intermediate_values
    assert [steps[1], steps[2]] == [expected.intermediate_values[s] for s in (1, 2)]


def test_who_continues_a_training_in_halves_goes_on_with_halves(images, undisturbed, tmp_path):
    small = 0.7 * undisturbed[1]
    whole = evaluate(Classification(SPACE, images, device="cpu", seed=0), Memory(small))

    def interrupt(progress) -> None:
        if progress.epoch == 1:
            raise KeyboardInterrupt

    study = study_of()
    checkpoints = Checkpoints(open_artifacts(tmp_path), study._storage, "digits")
    objective = Classification(
        SPACE, images, device="cpu", seed=0, checkpoints=checkpoints, on_epoch=interrupt
    )
    with pytest.raises(KeyboardInterrupt):
        evaluate(objective, Memory(small), study=study)
    objective.on_epoch = None
    study.enqueue_trial(candidate(), user_attrs={"continues": 0})
    study.optimize(objective, n_trials=1)
    trial = study.trials[1]
    assert (trial.user_attrs["accumulation"], trial.user_attrs["epochs_trained"]) == (2, 2)
    assert outcome(trial) == outcome(whole)


def test_evaluation_takes_what_fits_at_once(undisturbed):
    many = load_images(DataSettings(name="digits", validation=1200), seed=0)
    device = Memory()
    expected = evaluate(Classification(SPACE, many, device="cpu", seed=0), device)
    small = Memory(0.4 * device.peak)
    trial = evaluate(Classification(SPACE, many, device="cpu", seed=0), small)
    assert small.refused
    assert outcome(trial) == outcome(expected)
    assert "accumulation" not in trial.user_attrs


@pytest.mark.parametrize(
    ("count", "size", "fitting", "expected"),
    [
        (5, 2, 9, [(0, 2), (2, 4), (4, 5)]),
        (7, 99, 99, [(0, 7)]),
        (7, 99, 2, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]),
        (8, 99, 2, [(0, 2), (2, 4), (4, 6), (6, 8)]),
        (0, 4, 1, []),
    ],
)
def test_pieces_are_halved_until_they_fit(count, size, fitting, expected):
    def work(start: int, stop: int) -> tuple[int, int]:
        if stop - start > fitting:
            raise MemoryError
        return start, stop

    assert list(in_pieces(work, count, size, CPU)) == expected


@pytest.mark.parametrize("error", [MemoryError("none left"), RuntimeError("a bug")])
def test_pieces_end_where_halving_does_not_help(error):
    tried = []

    def work(start: int, stop: int) -> None:
        tried.append(stop - start)
        raise error

    with pytest.raises(type(error)):
        list(in_pieces(work, 4, 4, CPU))
    assert tried == ([4, 2, 1] if isinstance(error, MemoryError) else [4])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."), True),
        (RuntimeError("a bug"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("size", "parts"),
    [(1, [1]), (2, [2]), (3, [3]), (4, [2, 2]), (5, [3, 2]), (7, [4, 3]), (64, [32, 32])],
)
def test_parts_of_a_batch(images, size, parts):
    trainer = Trainer(Linear(), images, TrainSettings(), epochs=1, seed=0)
    trainer.accumulation = 2
    found = trainer._parts(10, 10 + size)
    assert [part.stop - part.start for part in found] == parts
    assert (found[0].start, found[-1].stop) == (10, 10 + size)


class Linear(nn.Module):
    """A network without batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, images):
        return self.linear(images.flatten(1))


@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_gradients_of_parts_are_those_of_the_whole(images, clip):
    models = []
    for accumulation in (1, 2, 3):
        torch.manual_seed(0)
        models.append(Linear())
        recipe = TrainSettings(lr=0.1, clip=clip)
        trainer = Trainer(models[-1], images, recipe, epochs=1, seed=0)
        trainer.accumulation = accumulation
        trainer.train_epoch()
    for other in models[1:]:
        torch.testing.assert_close(other.linear.weight, models[0].linear.weight)


def kinds(study: optuna.Study) -> set[str]:
    """What became of the trials on a small device."""
    found = set()
    for trial in study.trials:
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED), trial.state
        infeasible = trial.constraints.get("memory", 0) > 0
        assert infeasible == ("failure_reason" in trial.user_attrs)
        assert not infeasible or trial.value == 0
        halves = "accumulation" in trial.user_attrs
        found.add("infeasible" if infeasible else "halves" if halves else "whole")
    return found


def test_macro_micro_goes_on_after_a_first_candidate_that_is_too_large(images):
    space = ChainSpace(depth=(2, 3), width=(4, 16))
    sampler = MacroMicroSampler(
        space, in_channels=1, classes=3, epochs=1, micro_epochs=1, width_step=3
    )
    study = study_of(sampler=sampler)
    with Memory(900_000):
        study.optimize(Classification(space, images, device="cpu", seed=0))
    assert study.trials[0].constraints["memory"] > 0
    assert kinds(study) == {"infeasible", "halves", "whole"}
    assert sampler.is_finished(study)
    assert study.best_value > 0


def test_a_stock_sampler_goes_on(images):
    study = study_of(sampler=TPESampler(seed=0))
    objective = Classification(SPACE, images, train=TrainSettings(epochs=1), device="cpu", seed=0)
    with Memory(900_000):
        study.optimize(objective, n_trials=15)
    assert kinds(study) == {"infeasible", "halves", "whole"}
    assert study.best_trial.constraints.get("memory", 0) <= 0


def test_scoring_stages_takes_what_fits_at_once(images):
    architecture = StageArchitecture((1, 1, 1))
    model = build_model(architecture, (1, 8, 8), 3, torch.Generator().manual_seed(0))
    device = Memory()
    with device:
        expected = stage_importance(model, images)
    with Memory(0.6 * device.peak) as small:
        found = stage_importance(model, images)
    assert small.refused
    assert found == pytest.approx(expected, rel=1e-5)


def test_scoring_that_runs_out_of_memory_is_infeasible_without_training_again(images, monkeypatch):
    def refuse(*_: Any, **__: Any) -> list[float]:
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setattr(stage_classification, "stage_importance", refuse)
    space = StageSpace(stages=3)
    objective = StageClassification(
        space, images, train=TrainSettings(epochs=2), device="cpu", seed=0
    )
    params = space.to_params(StageArchitecture((1, 1, 1)))
    trial = evaluate(objective, Memory(), params)
    assert (trial.value, trial.user_attrs["epochs_trained"]) == (0.0, 2)
    assert trial.constraints["memory"] > 0
    assert "accumulation" not in trial.user_attrs


def test_retraining_says_what_to_do(images, undisturbed, tmp_path):
    objective = Classification(SPACE, images, device="cpu", seed=0)
    architecture = SPACE.architecture_class.uniform(3, 16)
    with (
        Memory(0.3 * undisturbed[1]),
        pytest.raises(UserError, match="set `batch_size` under `retrain` to less than 64"),
    ):
        objective.retrain(architecture, tmp_path / "x", RetrainSettings(epochs=1), origin={})


def test_a_system_that_does_not_tell_its_peak(images, monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "win32")
    trial = evaluate(
        Classification(SPACE, images, device="cpu", seed=0), Memory(), candidate(epochs=1)
    )
    assert trial.state == TrialState.COMPLETE
    assert "peak_memory_bytes" not in trial.user_attrs


def test_the_objective_is_there_without_the_module_resource():
    # As on Windows, where psutil does without it.
    hidden = "import psutil, sys; sys.modules['resource'] = None"
    code = f"{hidden}; import optnas.objectives.classification"
    subprocess.run([sys.executable, "-c", code], check=True)


MANY_TRIALS = """
    import json, sys
    import optuna, psutil
    from optnas.storage.artifacts import open_artifacts
    from optnas.storage.checkpoints import Checkpoints
    from optnas.objectives.classification import Classification
    from optnas.objectives.data.images import load_images
    from optnas.config.settings import DataSettings, TrainSettings
    from optnas.spaces import ChainSpace
    from optnas.storage.opening import open_storage

    folder, trials = sys.argv[1], int(sys.argv[2])
    images = load_images(DataSettings(name="digits", classes=(0, 1, 2), samples=0.2), seed=0)
    storage = open_storage(f"sqlite:///{folder}/study.db")
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(storage=storage, sampler=sampler, direction="maximize")
    checkpoints = Checkpoints(open_artifacts(f"{folder}/artifacts"), storage, study.study_name)
    objective = Classification(
        ChainSpace(depth=(2, 4), width=(4, 32)),
        images,
        train=TrainSettings(epochs=1),
        checkpoints=checkpoints,
        device="cpu",
        seed=0,
    )
    resident, process = [], psutil.Process()

    def measure(study, trial):
        resident.append(process.memory_info().rss)

    study.optimize(objective, n_trials=trials, callbacks=[checkpoints.clean, measure])
    print(json.dumps(resident))
"""


def test_resident_memory_does_not_grow(tmp_path):
    trials = int(os.environ.get("OPTNAS_MEMORY_TRIALS", "60"))
    command = [sys.executable, "-c", textwrap.dedent(MANY_TRIALS), str(tmp_path), str(trials)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    resident = json.loads(done.stdout)
    assert len(resident) == trials
    # Twenty trials to warm up; medians, because the heap breathes.
    before, after = (statistics.median(part) for part in (resident[20:40], resident[-20:]))
    print(f"{trials} trials: {before / 1e6:.0f} MB after warm-up, {after / 1e6:.0f} MB at the end")
    assert after < 1.05 * before
