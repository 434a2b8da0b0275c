"""Several trials at once in one process: the same values, one memory, nothing lost.

`test_kills.py` holds a search of such a process, killed, to one trial after the other.
"""

import json
import os
import signal
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState, create_trial
from test_cuda_graphs import random_images, staged, trainer
from test_memory import CPU, SPACE, Memory, candidate, outcome, study_of
from test_workers import LONG_NAPS, NAPS, lost, naps
from trainings import difference, graph_of, train

from optnas.cli.watching import Watch, pulse_line
from optnas.config.settings import DataSettings, TrainSettings
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.training import neighbours
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.neighbours import Place, placed
from optnas.running.signals import Signals
from optnas.running.streams import run_at_once
from optnas.storage.transactions import interrupted_when, transaction
from optnas.trials import pulse
from optnas.trials.metric import ACCURACY

__all__ = ["naps", "staged"]

pytestmark = pytest.mark.usefixtures("one_thread")


def at_once(works: list[Callable[[], Any]]) -> list[Any]:
    """What functions return that are called in a thread each, and begin together."""
    begin, results = threading.Barrier(len(works)), [None] * len(works)

    def call(index: int, work: Callable[[], Any]) -> None:
        torch.set_num_threads(1)
        begin.wait()
        try:
            results[index] = work()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=call, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


RECIPES = [{}, {"optimizer": "adamw", "ema": 0.9}, {"mixup": 0.5, "label_smoothing": 0.1}]


def test_trainings_beside_others_come_to_the_same_bits(staged):
    subjects = [trainer(random_images(), **keys) for keys in RECIPES]
    beside = at_once([lambda subject=s: train(subject, 5) for s in subjects])
    assert sum(graph.calls.count("capture") for graph in graph_of) == len(RECIPES)
    for keys, subject in zip(RECIPES, beside, strict=True):
        assert difference(subject, train(trainer(random_images(), **keys), 5)) == ""


def test_the_kernels_of_the_interpreter_are_not_used_by_two_threads_at_once():
    """It keeps what runs in variables of the process; on a GPU there is no such thing."""
    kernels = pytest.importorskip("optnas.objectives.kernels")
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(3, 1, 3, 3, generator=torch.Generator().manual_seed(1))

    def work() -> torch.Tensor:
        return torch.stack([kernels.depthwise(x, weight, 1, 1) for _ in range(3)])

    first, *others = at_once([work] * 3)
    assert all(torch.equal(first, other) for other in others)


def test_operations_stay_repeatable_until_the_last_one_has_ended():
    before = torch.are_deterministic_algorithms_enabled()
    first, second = deterministic_algorithms(True), deterministic_algorithms(True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.are_deterministic_algorithms_enabled()
    second.__exit__(None, None, None)
    assert torch.are_deterministic_algorithms_enabled() == before


# Memory.


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images(DataSettings(name="digits", classes=(0, 1, 2), samples=0.5), seed=0)


class Shared(Memory):
    """A part of one device, of which every thread has one: all of them are limited together."""

    _turn = threading.RLock()

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.parts = [self]

    def part(self) -> "Shared":
        other = Shared(self.limit)
        other.parts = self.parts
        self.parts.append(other)
        return other

    def _allocate(self, storage: torch.UntypedStorage) -> None:
        size, key = storage.nbytes(), storage._cdata
        with self._turn:
            if sum(part.used for part in self.parts) + size > self.limit:
                self.refused += 1
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size}.")
            self.used += size
            self.peak = max(self.peak, self.used)
            self._known.add(key)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        with self._turn:
            super()._free(key, size)


def evaluated(objective: Classification, device: Shared, width: int) -> FrozenTrial:
    study = study_of()
    study.enqueue_trial(candidate(width))
    with device.part():
        study.optimize(objective, n_trials=1)
    return study.trials[-1]


def alone(images: Images, width: int) -> tuple[FrozenTrial, int]:
    """A trial with memory enough, and the most that it needs at once."""
    device = Shared(float("inf"))
    trial = evaluated(Classification(SPACE, images, device="cpu", seed=0), device, width)
    return trial, device.parts[-1].peak


@pytest.mark.parametrize("share", [1.3, 0.9])
def test_what_runs_out_of_memory_beside_others_is_trained_alone(images, share):
    """With room for one, both come to what each does alone; with less, it is halved as alone."""
    expected, peak = alone(images, 16)
    device = Shared(share * peak)
    objective = Classification(SPACE, images, device="cpu", seed=0)
    both = at_once([lambda: evaluated(objective, device, 16)] * 2)
    assert sum(part.refused for part in device.parts) > 0
    for trial in both:
        assert trial.state == TrialState.COMPLETE
        assert ("accumulation" in trial.user_attrs) == (share < 1)
        if share > 1:
            assert outcome(trial) == outcome(expected)
    if share < 1:
        by_itself = evaluated(
            Classification(SPACE, images, device="cpu"), Shared(share * peak), 16
        )
        assert by_itself.user_attrs["accumulation"] == 2
    assert sum(part.used for part in device.parts) == 0
    assert not neighbours._OTHERS["cpu", None].training
    assert not neighbours._OTHERS["cpu", None].alone


@pytest.mark.parametrize("when", ["begun", "trained"])
def test_before_and_after_its_epochs_too(images, monkeypatch, when):
    """A network that does not fit onto the device, and what is measured of a trained one."""
    tried: list[int] = []
    met = threading.Barrier(2)

    def exhausted(work: Callable[..., Any], thread: int) -> Callable[..., Any]:
        def call(*args: Any, **keys: Any) -> Any:
            if threading.get_ident() == thread:
                tried.append(len(neighbours._OTHERS["cpu", None].training))
                if len(tried) == 1:
                    met.wait()
                    raise torch.OutOfMemoryError("CUDA out of memory.")
            return work(*args, **keys)

        return call

    objective = Classification(SPACE, images, device="cpu", seed=0)
    name = {"begun": "_trainer", "trained": "trained"}[when]

    def first() -> FrozenTrial:
        monkeypatch.setattr(
            objective, name, exhausted(getattr(objective, name), threading.get_ident())
        )
        return evaluated(objective, Shared(float("inf")), 16)

    def second() -> None:
        with placed(Place(CPU)):
            met.wait()

    trial, _ = at_once([first, second])
    assert (trial.state, tried[-1]) == (TrialState.COMPLETE, 0)
    assert len(tried) == 2
    assert outcome(trial) == outcome(alone(images, 16)[0])
    assert "memory_shared" not in trial.user_attrs  # It had the device alone in the end.


def test_memory_says_whose_it_is(images):
    objective = Classification(
        SPACE, images, train=TrainSettings(batch_size=64), device="cpu", seed=0
    )
    met = threading.Barrier(2)
    objective.on_epoch = lambda progress: progress.epoch > 1 or met.wait(30)
    both = at_once([lambda: evaluated(objective, Shared(float("inf")), 8)] * 2)
    objective.on_epoch = None
    by_itself = evaluated(objective, Shared(float("inf")), 8)
    assert all(trial.user_attrs["memory_shared"] for trial in both)
    assert all("train_joules" not in trial.user_attrs for trial in both)
    assert "memory_shared" not in by_itself.user_attrs
    assert outcome(by_itself) == outcome(both[0]) == outcome(both[1])


def test_those_that_want_a_device_alone_come_one_after_the_other():
    came: list[str] = []
    met = threading.Barrier(3)

    def work(name: str) -> None:
        place = Place(CPU)
        with placed(place):
            met.wait()
            assert place.is_shared
            place.have_alone()
            assert not place.is_shared
            came.append(f"{name} begins")
            time.sleep(0.05)
            came.append(f"{name} ends")

    def late() -> None:
        met.wait()
        while not neighbours._OTHERS["cpu", None].alone and len(came) < 4:
            time.sleep(0.001)
        with placed(Place(CPU)):
            came.append("late")

    results = at_once([lambda: work("a"), lambda: work("b"), late])
    assert results == [None] * 3
    assert [line.split()[0] for line in came] in (
        ["a", "a", "b", "b", "late"],
        ["b", "b", "a", "a", "late"],
    )


def test_who_waits_can_be_left_and_keeps_its_lease():
    waited: list[bool] = []
    shown = pulse.Pulse(number=3, step="waits for others")

    def wait() -> None:
        waited.append(shown in pulse.running())
        shown.pausing = len(waited) == 2

    with placed(Place(CPU)):
        place = Place(CPU, shown, wait)
        place._others.training.append(place)
        with pytest.raises(pulse.Paused):
            place.have_alone()
        assert waited == [True] * 2
        place.leave()
    assert pulse_line(shown.fields(), ACCURACY).startswith("trial 3  |  waits for others  |  ")


# Signals.


def test_a_thread_is_interrupted_behind_its_transaction_alone():
    asked = False
    done: list[str] = []

    def work() -> None:
        nonlocal asked
        with transaction():
            with transaction():
                asked = True
            done.append("within")
        done.append("behind")

    with interrupted_when(lambda: asked), pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["within"]
    with transaction():
        done.append("outside")


class Endless:
    """A loop of a thread, until it is stopped."""

    def __init__(self, signals: list[Signals], error: Exception | None = None) -> None:
        self.was_interrupted = False
        self._signals = signals
        self._error = error
        self._stop = False

    def stop(self) -> None:
        self._stop = True

    def run(self) -> None:
        if self._error is not None:
            raise self._error
        try:
            with self._signals[0].may_interrupt():
                while True:
                    with transaction():
                        time.sleep(0.01)
        except KeyboardInterrupt:
            self.was_interrupted = True
            raise


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_what_ends_one_thread_ends_all(error):
    signals: list[Signals] = []
    loops = [Endless(signals), Endless(signals), Endless(signals, error)]
    signals.append(Signals(lambda: [loop.stop() for loop in loops]))
    if error is None:
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    with signals[0]:
        if error is None:
            run_at_once(loops, signals[0])
        else:
            with pytest.raises(ValueError, match="no"):
                run_at_once(loops, signals[0])
    assert all(loop.was_interrupted == (loop._error is None) for loop in loops)
    assert signals[0].ending == "terminated"


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_share_one_study_and_one_view(naps, workers):
    naps.file.write_text(NAPS + f"budget: {{trials: 12}}\nworkers: {{streams: {4 // workers}}}\n")
    code, events, err = naps.run("--workers", workers, "--device", "cpu")
    assert (code, err) == (0, "")
    assert events[-1] == events[-1] | {"event": "end", "ending": "budget"}
    notes = [e["text"] for e in events if e["event"] == "note"]
    assert sum("threads" in text for text in notes) == 1
    complete = [t for t in naps.trials if t.state == TrialState.COMPLETE]
    assert len(complete) == 12
    assert len({json.dumps(t.params) for t in complete}) == 12
    leases = Counter((t.system_attrs["optnas:lease"]["pid"]) for t in complete)
    assert len(leases) == workers
    threads = {t.system_attrs["optnas:lease"]["thread"] for t in complete}
    assert len(threads) >= 4 // workers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_trials_are_handed_back(naps, number):
    naps.file.write_text(LONG_NAPS)
    naps.start("--streams", 3, "--device", "cpu")
    naps.wait_for(lambda: len(naps.training) == 3)
    os.killpg(naps.process.pid, number)
    code, events, err = naps.end()
    terminated = number == signal.SIGTERM
    assert (code, err) == (0 if terminated else 130, "")
    assert events[-1]["ending"] == ("terminated" if terminated else "interrupted")
    assert len(lost(naps.trials)) == 3
    assert all(t.state.is_finished() for t in naps.trials)
    assert {t.user_attrs["failure_reason"] for t in naps.trials} == {"interrupted"}


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_threads_that_do_not_end_are_given_up(naps, signals):
    """They sleep, and ask nobody, once they have said what their networks cost."""
    naps.file.write_text(NAPS.replace("seconds: 0.1", "seconds: 90"))
    naps.start("--streams", 2, "--device", "cpu")
    naps.wait_for(lambda: sum("multiply_adds" in t.user_attrs for t in naps.trials) == 2)
    time.sleep(0.2)
    for number in signals:
        os.kill(naps.process.pid, number)
        time.sleep(0.5)
    code, _, err = naps.end()
    assert (code, err) == (130 if len(signals) == 2 else 0, "")
    assert [t.user_attrs["failure_reason"] for t in naps.trials] == ["interrupted"] * 2


def test_a_killed_process_loses_all_its_trials_and_none_of_them_for_good(naps):
    naps.file.write_text(NAPS + "budget: {trials: 8}\n")
    naps.start("--workers", 1, "--streams", 3, "--device", "cpu")
    naps.wait_for(lambda: len(naps.training) == 3)
    naps.process.kill()
    naps.end()
    code, _, err = naps.run("--streams", 2, "--device", "cpu")
    assert (code, err) == (0, "")
    assert len(lost(naps.trials)) == 3
    assert {t.user_attrs.get("continues") for t in naps.trials} >= {0, 1, 2}
    assert sum(t.state == TrialState.COMPLETE for t in naps.trials) == 8


def test_an_error_in_one_thread_ends_the_run(naps):
    naps.file.write_text(NAPS.replace("seconds: 0.1", "seconds: -1"))
    code, _, err = naps.run("--streams", 2, "--device", "cpu")
    assert code == 1
    assert "ValueError: sleep length must be non-negative" in err
    assert all(t.state.is_finished() for t in naps.trials)


def test_a_display_forgets_the_trial_that_ended_alone():
    watch = Watch()
    watch.pulse([pulse.Pulse(number=n, epochs=1).fields() for n in (4, 5)], 0)
    first, second = create_trial(value=0.5), create_trial(value=0.5)
    first.number, second.number = 4, 5
    watch.ended(0, first)
    assert [each["number"] for each in watch.pulses()] == [5]
    watch.ended(0, second)
    assert watch.pulses() == []


# On CUDA.


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_on_a_gpu_trials_beside_others_come_to_the_same(kernels):
    """Each in a thread with a stream and graphs of its own, of the product's objective."""
    digits = load_images(DataSettings(name="digits"), seed=0)
    recipe = TrainSettings(kernels=kernels, deterministic=True, batch_size=32)
    objective = Classification(SPACE, digits, train=recipe, device="cuda", seed=0)

    def evaluate(width: int) -> FrozenTrial:
        study = study_of()
        study.enqueue_trial(candidate(width, epochs=4))
        study.optimize(objective, n_trials=1)
        return study.trials[-1]

    widths = (8, 12, 16, 16)
    beside = at_once([lambda width=width: evaluate(width) for width in widths])
    assert all(trial.user_attrs["memory_shared"] for trial in beside)
    for width, trial in zip(widths, beside, strict=True):
        assert "eager_reason" not in trial.user_attrs
        assert outcome(trial) == outcome(evaluate(width))
