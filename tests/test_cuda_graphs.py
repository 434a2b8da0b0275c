"""Training steps as CUDA graphs: with a stand-in on the CPU, and on CUDA beside eager steps."""

import contextlib
import gc
import types
import warnings
import weakref

import numpy as np
import optuna
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trainings import StandIn, difference, graph_of, same, train

from optnas.config.settings import TrainSettings
from optnas.objectives.classification import Classification
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import Images
from optnas.objectives.networks.build import build_model, build_supernet
from optnas.objectives.training import cuda_graphs as graphs
from optnas.objectives.training import steps
from optnas.objectives.training.bilevel import BilevelTrainer, SearchRecipe
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.neighbours import Place, placed
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import (
    CellArchitecture,
    CellSpace,
    ChainArchitecture,
    ChainSpace,
    GrowthArchitecture,
    GrowthSpace,
    NasBench201Space,
    StageArchitecture,
)

pytestmark = pytest.mark.usefixtures("one_thread")
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

RECIPES = [
    {},
    {"clip": None, "momentum": 0.0},
    {"optimizer": "adamw", "lr": 0.002},
    {"optimizer": "adamw", "lr": 0.002, "clip": None, "schedule": "constant"},
]


@pytest.fixture
def staged(monkeypatch):
    """As if the CPU could capture."""
    graph_of.clear()
    monkeypatch.setattr(graphs, "are_supported", lambda device: True)
    monkeypatch.setattr(graphs, "StepGraph", StandIn)
    monkeypatch.setattr(graphs.StagedStep, "failure", None)


def random_images(count: int = 140, device: str = "cpu") -> Images:
    """Images (3, 8, 8) of four classes, with every augmentation."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    pixels = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    pixels[torch.arange(count), labels % 3] //= 4
    recipe = Augmentation(padding=1, flip=True, cutout=2)
    held_out = (pixels[:20], labels[:20])
    return Images(pixels, labels, *held_out, *held_out, tuple("abcd"), recipe).to(device)


def trainer(images: Images, *, epochs: int = 6, **keys) -> Trainer:
    generator = torch.Generator().manual_seed(0)
    model = build_model(ChainArchitecture(3, 8), images.input_shape, images.classes, generator)
    recipe = TrainSettings(**{"batch_size": 16, **keys})
    return Trainer(model, images, recipe, epochs=epochs, seed=0)


@pytest.mark.parametrize("keys", RECIPES)
def test_replayed_steps_are_those_that_run_eagerly(staged, keys):
    eager = train(trainer(random_images(), graphs=False, **keys), 6)
    assert not graph_of
    replayed = train(trainer(random_images(), **keys), 6)
    assert same(replayed, eager)
    # Of 140 images 8 batches of 16 are whole; the last one of 12 is no part of the graph.
    assert graph_of[0].calls == ["warm up"] * 3 + ["capture"] + ["replay"] * (6 * 8 - 3)
    assert replayed.eager_reason is eager.eager_reason is None


@pytest.mark.parametrize("keys", RECIPES)
def test_the_rate_as_a_tensor_trains_as_the_number_does(monkeypatch, keys):
    plain = train(trainer(random_images(), **keys), 3)
    monkeypatch.setattr(graphs, "are_supported", lambda device: True)
    filled = train(trainer(random_images(), graphs=False, **keys), 3)
    for own, other in zip(plain.model.parameters(), filled.model.parameters(), strict=True):
        assert torch.allclose(own, other, atol=1e-4)  # Rates are float32 there.


@pytest.mark.parametrize("keys", RECIPES)
@pytest.mark.parametrize("before", [1, 4])
def test_a_resumed_training_captures_anew(staged, keys, before):
    eager = train(trainer(random_images(), graphs=False, **keys), 6)
    begun = train(trainer(random_images(), **keys), before)
    resumed = trainer(random_images(), epochs=6, **keys)
    train(resumed, 2)  # A graph of its own, of tensors that loading replaces.
    resumed.load_state_dict(begun.state_dict())
    assert same(train(resumed, 6 - before), eager)
    expected = ["warm up"] * 3 + ["capture"] + ["replay"] * ((6 - before) * 8 - 3)
    few = (6 - before) * 8 < graphs.LEAST_STEPS
    assert graph_of[2:] == [] if few else graph_of[2].calls == expected
    assert few == (resumed.eager_reason is not None)


def test_states_go_between_devices_that_capture_and_others(staged, monkeypatch):
    captured = train(trainer(random_images(), optimizer="adamw", lr=0.002), 2).state_dict()
    monkeypatch.setattr(graphs, "are_supported", lambda device: False)
    plain = trainer(random_images(), optimizer="adamw", lr=0.002)
    plain.load_state_dict(captured)
    train(plain, 1)
    group = plain._optimizer.param_groups[0]
    assert isinstance(group["lr"], float)
    assert not group["capturable"]
    monkeypatch.setattr(graphs, "are_supported", lambda device: True)
    again = trainer(random_images(), optimizer="adamw", lr=0.002)
    again.load_state_dict(plain.state_dict())
    train(again, 1)
    group = again._optimizer.param_groups[0]
    assert group["lr"] is again._rate
    assert group["capturable"]


@pytest.mark.parametrize("keys", RECIPES[::2])
@pytest.mark.parametrize(
    ("count", "size"),
    [(12, 12), (17, 17), (33, 16)],
    ids=["a single small one", "a single large one", "a large last one"],
)
def test_batches_of_other_sizes_run_eagerly(staged, keys, count, size):
    subject = train(trainer(random_images(count), epochs=40, **keys), 5)
    assert same(subject, train(trainer(random_images(count), graphs=False, epochs=40, **keys), 5))
    calls = graph_of[0].calls
    assert len(calls) - calls.count("capture") == 5
    assert graph_of[0]._buffers[0].shape[0] == size


def fails(graph, step, *batch):
    """As an operation does that must not be captured: half of the step has been recorded."""
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def test_after_a_failed_capture_the_batch_is_trained_on_once(staged, monkeypatch):
    monkeypatch.setattr(StandIn, "capture", fails)
    with pytest.warns(UserWarning, match="not permitted when stream is capturing\\)"):
        subject = train(trainer(random_images()), 3)
    assert "capture failed: operation not permitted" in subject.eager_reason
    assert same(subject, train(trainer(random_images(), graphs=False), 3))
    assert graph_of[0].calls == ["warm up"] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later = train(trainer(random_images()), 1)
    assert later.eager_reason == subject.eager_reason
    assert len(graph_of) == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_without_memory_for_its_graph_a_training_goes_on_as_it_is(staged, monkeypatch, error):
    def exhausted(*_):
        raise error("CUDA out of memory.")

    monkeypatch.setattr(StandIn, "capture", exhausted)
    subject = train(trainer(random_images()), 2)
    assert subject.eager_reason == graphs.TOO_LITTLE_MEMORY
    assert graphs.StagedStep.failure is None
    monkeypatch.undo()
    assert same(subject, train(trainer(random_images()), 2))


def test_without_memory_for_both_nothing_is_captured(staged, monkeypatch):
    monkeypatch.setattr(StandIn, "fits", lambda graph: False)
    subject = train(trainer(random_images()), 2)
    assert "too little memory" in subject.eager_reason
    assert graph_of[0].calls == ["warm up"] * 3
    assert graphs.StagedStep.failure is None


class Cells(nn.Module):
    """A network that has a drop-path."""

    def __init__(self, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.linear = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "keys", "reason"),
    [
        (Cells(), {"drop_path": 0.2}, "drop_path draws on the host"),
        (Cells(0.2), {}, "drop_path draws on the host"),
        (Cells(), {"batch_size": 60}, "18 steps are too few"),
    ],
)
def test_what_cannot_be_captured_says_why(staged, model, keys, reason):
    subject = Trainer(model, random_images(180), TrainSettings(**keys), epochs=6, seed=0)
    assert subject.eager_reason is None
    subject.train_epoch()
    assert subject.eager_reason.startswith(reason)
    assert not graph_of


def searching(device: str = "cpu", *, epochs: int = 4, **keys) -> BilevelTrainer:
    """Shares of 70 images: four batches of 16 and one of 6."""
    generator = torch.Generator().manual_seed(0)
    options = {"cells": 2, "channels": 4}
    model = build_supernet(CellSpace(nodes=2), (3, 8, 8), 4, generator, **options)
    recipe = SearchRecipe(**{k: keys.pop(k) for k in list(keys) if k in vars(SearchRecipe())})
    settings = TrainSettings(batch_size=16, **keys)
    images = random_images(device=device)
    return BilevelTrainer(model, images, settings, recipe, epochs=epochs, seed=0)


@pytest.mark.parametrize("keys", [{"epochs": 8}, {"epochs": 8, "iterations": 7}])
def test_both_steps_of_a_super_network_are_captured(staged, keys):
    eager = train(searching(graphs=False, **keys), 8)
    replayed = train(searching(**keys), 8)
    assert same(replayed, eager)
    weights, architecture = graph_of
    assert architecture.beside is weights
    batches = 8 * (6 if "iterations" in keys else 4)  # Of seven, the fifth is the small one.
    for graph in graph_of:
        assert graph.calls == ["warm up"] * 3 + ["capture"] + ["replay"] * (batches - 3)
    assert replayed.eager_reason is None


def test_a_resumed_super_network_captures_both_anew(staged):
    eager = train(searching(graphs=False, epochs=12), 9)
    resumed = searching(epochs=12)
    resumed.load_state_dict(train(searching(epochs=12), 1).state_dict())
    assert same(train(resumed, 8), eager)
    assert [graph.is_captured for graph in graph_of] == [True] * 4


def test_filled_batches_teach_a_super_network_the_same(staged, monkeypatch):
    plain = train(searching(graphs=False, epochs=16), 2)
    monkeypatch.setattr(steps, "is_accelerated", lambda settings, device: True)
    filled = train(searching(epochs=16), 2)
    assert [len(graph._buffers[0]) for graph in graph_of] == [16] * 4
    assert not same(filled, plain)
    assert filled.history[0].train_loss == pytest.approx(plain.history[0].train_loss, rel=1e-3)
    for own, other in zip(filled._architecture, plain._architecture, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-2, atol=1e-4)


def test_a_step_that_looks_ahead_is_not_captured(staged):
    subject = train(searching(second_order=True, epochs=20), 1)
    assert "looks ahead" in subject.eager_reason
    assert not graph_of


@pytest.mark.parametrize(
    ("keys", "reason"),
    [({}, "6 steps are too few to pay for a capture"), ({"graphs": False}, None)],
)
def test_trials_say_why_they_were_trained_eagerly(staged, keys, reason):
    space = ChainSpace(depth=(2, 3), width=(4, 6))
    recipe = TrainSettings(epochs=3, **keys)
    objective = Classification(space, random_images(), train=recipe, device="cpu")
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(space.to_params(ChainArchitecture(2, 4)))
    study.optimize(objective, n_trials=1)
    assert study.trials[0].user_attrs.get("eager_reason") == reason


class OnTheHost(TorchDispatchMode):
    """Collects the operations that read or write a tensor of the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        if any(isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" for leaf in leaves):
            self.found.append(str(operation))
        return result


def grown(times: int) -> GrowthArchitecture:
    space = GrowthSpace(cells=3, channels=4)
    architecture = space.initial()
    for seed in range(times):
        architecture = space.grow(architecture, seed)
    return architecture


def cell() -> CellArchitecture:
    return CellSpace(nodes=2).random(np.random.default_rng(0))


EVERY_KIND = {
    "chain": (ChainArchitecture(3, 8), {}),
    "cell": (cell(), {"cells": 3, "channels": 4}),
    "cell, auxiliary": (cell(), {"cells": 3, "channels": 4, "auxiliary": True}),
    "nasbench201": (NasBench201Space().random(np.random.default_rng(0)), {"channels": 4}),
    "basic": (StageArchitecture((1, 1, 1)), {}),
    "bottleneck": (StageArchitecture((1, 1, 1), block="bottleneck"), {}),
    "nasnet": (StageArchitecture((1, 1, 1), block="nasnet"), {}),
    "growth": (grown(2), {}),
    "growth, gate": (grown(2), {"gate": True}),
}


def on_the_host(architecture, options, **keys) -> list[str]:
    """What a step on a device, the meta device, does on the host; it has no numbers to ask for."""
    images = random_images(device="meta")
    model = build_model(architecture, (3, 32, 32), 4, **options)
    subject = Trainer(model, images, TrainSettings(**keys), epochs=1, seed=0)
    subject._optimizer.step = lambda: None  # There is none for this device.
    batch = torch.empty(8, 3, 32, 32, device="meta"), torch.empty(8, dtype=int, device="meta")
    with OnTheHost() as host:
        subject._train_batch(*batch)
    return host.found


@pytest.mark.parametrize(("architecture", "options"), EVERY_KIND.values(), ids=EVERY_KIND)
def test_a_step_of_every_kind_of_network_stays_on_the_device(architecture, options):
    auxiliary = 0.4 if "auxiliary" in options else 0.0
    assert on_the_host(architecture, options, auxiliary=auxiliary) == []


@pytest.mark.parametrize("kind", ["chain", "cell", "growth"])
def test_a_filled_step_of_parameters_side_by_side_stays_on_the_device(monkeypatch, kind):
    architecture, options = EVERY_KIND[kind]
    monkeypatch.setattr(steps, "is_accelerated", lambda settings, device: True)
    model = build_model(architecture, (3, 32, 32), 4, **options)
    settings = TrainSettings(batch_size=8)
    subject = Trainer(model, random_images(device="meta"), settings, epochs=1, seed=0)
    flat = subject._flattened()
    fused = types.SimpleNamespace(param_groups=subject._optimizer.param_groups)
    fused.step = lambda: None  # There is none for this device.
    monkeypatch.setattr(flat, "_over", lambda present: fused)
    inputs, labels = torch.empty(5, 3, 32, 32, device="meta"), torch.empty(5, device="meta").long()
    subject._trained_on(inputs, labels)  # Whoever casts a first time may look at the host.
    with OnTheHost() as host:
        subject._trained_on(inputs, labels)
        subject.model.eval()
        subject._answers(inputs)
    assert host.found == []


@pytest.mark.parametrize("space", [CellSpace(nodes=2), NasBench201Space()])
def test_a_super_network_stays_on_the_device(space):
    model = build_supernet(space, (3, 32, 32), 4, cells=3, channels=4).to("meta")
    images, labels = torch.empty(8, 3, 32, 32, device="meta"), torch.empty(8, device="meta").long()
    with OnTheHost() as host:
        nn.functional.cross_entropy(model(images), labels).backward()
    assert host.found == []


def test_drop_path_draws_on_the_host():
    options = {"cells": 3, "channels": 4, "drop_path": 0.5}
    assert "aten.rand.generator" in on_the_host(cell(), options)


def test_the_cpu_has_no_graphs_and_nothing_to_say():
    subject = train(trainer(random_images()), 1)
    assert subject.eager_reason is None
    assert isinstance(subject._optimizer.param_groups[0]["lr"], float)


def test_a_graph_goes_with_the_last_reference_to_its_trainer(staged):
    subject = train(trainer(random_images()), 1)
    assert graph_of[0].is_captured
    graph = weakref.ref(graph_of.pop())
    gc.disable()
    try:
        del subject
        assert graph() is None
    finally:
        gc.enable()


class Runtime:
    """The part of `torch.cuda` that graphs use, which writes down what is asked of it.

    Args:
        leaving: What the end of a capture raises, as it does when the capture was broken.
    """

    def __init__(self, leaving: Exception | None = None) -> None:
        self.leaving = leaving
        self.log: list[object] = []
        self.pools: list[object] = []
        self.current: object = "default"
        self.current_device: object = None
        self.free = 100

    def Stream(self, device):
        stream = types.SimpleNamespace()
        stream.wait_stream = lambda other: self.log.append((stream, "waits for", other))
        return stream

    def current_stream(self, device):
        return types.SimpleNamespace(
            wait_stream=lambda other: self.log.append(("default", "waits for", other))
        )

    @contextlib.contextmanager
    def device(self, device):
        before, self.current_device = self.current_device, device
        try:
            yield
        finally:
            self.current_device = before

    @contextlib.contextmanager
    def stream(self, stream):
        """Whoever leaves a stream makes a context on what is the current device then."""
        assert self.current_device == DEVICE
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def CUDAGraph(self):
        own = object()
        return types.SimpleNamespace(replay=lambda: self.log.append("replay"), pool=lambda: own)

    @contextlib.contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        """Older versions leave the stream current when the end of a capture raises."""
        self.pools.append(pool)
        before, self.current = self.current, stream
        try:
            yield
        finally:
            if self.leaving is not None:
                self.current = "the stream of a broken capture"
                raise self.leaving
            self.current = before

    def memory_allocated(self, device):
        return 30

    def max_memory_allocated(self, device):
        return 90

    def memory_reserved(self, device):
        return 50

    def mem_get_info(self, device):
        return self.free, 1000


@pytest.fixture
def runtime(monkeypatch) -> Runtime:
    monkeypatch.setattr(graphs, "_idle", type(graphs._idle)(list))
    runtime = Runtime()
    for name in ("Stream", "current_stream", "device", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(runtime, name))
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, getattr(runtime, name))
    return runtime


DEVICE = torch.device("cuda:0")


def test_a_stream_is_of_one_living_graph(runtime):
    first, second = graphs.StepGraph(DEVICE), graphs.StepGraph(DEVICE)
    other = graphs.StepGraph(torch.device("cuda:1"))
    stream = first._stream
    assert stream is not second._stream
    del first
    third = graphs.StepGraph(DEVICE)
    assert third._stream is stream
    assert len({id(graph._stream) for graph in (second, third, other)}) == 3


@pytest.mark.parametrize("broken", [False, True])
def test_warm_up_runs_between_what_was_asked_for_before_and_after(runtime, broken):
    graph = graphs.StepGraph(DEVICE)

    def step(inputs, labels):
        runtime.log.append(("step on", runtime.current))
        if broken:
            raise RuntimeError("CUDA out of memory.")
        return [inputs]

    with pytest.raises(RuntimeError) if broken else contextlib.nullcontext():
        assert graph.warm_up(step, torch.ones(2), torch.zeros(2))
    waits, ran, waited = runtime.log
    assert waits[:2] == (graph._stream, "waits for")
    assert ran == ("step on", graph._stream)
    assert waited == ("default", "waits for", graph._stream)
    assert runtime.current == "default"


def test_it_warms_up_on_the_tensors_that_it_captures(runtime):
    """Of which kernels are compiled, as they lie in memory: those of a batch may lie otherwise."""
    graph, seen = graphs.StepGraph(DEVICE), []

    def step(inputs):
        seen.append((inputs.data_ptr(), inputs.tolist()))
        return [inputs]

    images = torch.arange(5.0)
    graph.warm_up(step, images[:2])
    graph.warm_up(step, images[3:])
    graph.capture(step, images[1:3])
    assert [values for _, values in seen] == [[0, 1], [3, 4], [1, 2]]
    assert len({place for place, _ in seen}) == 1


def test_what_was_captured_is_replayed_on_copies_and_copied_out(runtime):
    graph = graphs.StepGraph(DEVICE)
    seen = []

    def step(inputs, labels):
        assert runtime.current is graph._stream
        seen.append((inputs, labels))
        return [inputs]  # So that what is replayed shows in the logits.

    first = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    graph.capture(step, first, torch.arange(4))
    assert graph.is_captured
    assert runtime.log == []
    results = [graph.replay(first + n, torch.arange(4) + n)[0] for n in range(3)]
    assert runtime.log == ["replay"] * 3
    assert len(seen) == 1
    assert seen[0][0].stride() == first.stride()
    assert torch.equal(seen[0][1], torch.arange(4) + 2)
    assert all(torch.equal(result, first + n) for n, result in enumerate(results))


@pytest.mark.parametrize(
    ("raised", "leaving", "told"),
    [
        (RuntimeError("the step"), None, "the step"),
        (RuntimeError("the step"), RuntimeError("the end"), "the step"),
        (None, RuntimeError("the end"), "the end"),
        (torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("the end"), "out of memory"),
    ],
)
def test_a_capture_that_breaks_tells_the_first_error(runtime, raised, leaving, told):
    runtime.leaving = leaving
    graph = graphs.StepGraph(DEVICE)

    def step(inputs, labels):
        if raised is not None:
            raise raised
        return [inputs]

    with pytest.raises(RuntimeError, match=told):
        graph.capture(step, torch.ones(2), torch.zeros(2))
    assert not graph.is_captured
    assert runtime.current == "default"
    assert not graphs.CAPTURING.locked()


@pytest.mark.parametrize(("free", "fits"), [(99, False), (100, True)])
def test_a_graph_needs_room_for_a_step_beside_it(runtime, free, fits):
    runtime.free = free  # A step takes 60, and 20 are reserved that nobody uses.
    assert graphs.StepGraph(DEVICE).fits() == fits
    with placed(Place(torch.device("cpu"))), placed(Place(torch.device("cpu"))):
        assert graphs.StepGraph(DEVICE).fits()  # Some of the 60 may be the other training's.


def test_graphs_of_one_training_share_a_stream_and_their_memory(runtime):
    first = graphs.StepGraph(DEVICE)
    early, second = graphs.StepGraph(DEVICE, first), graphs.StepGraph(DEVICE, first)
    assert second._stream is early._stream is first._stream
    for graph in (early, first, second):
        graph.capture(lambda inputs: [inputs], torch.ones(2))
    assert runtime.pools == [None, None, first._graph.pool()]
    stream = first._stream
    del first, early, graph
    assert graphs.StepGraph(DEVICE)._stream is not stream  # Still in use.
    assert second.replay(torch.zeros(2))[0].tolist() == [0, 0]


def cuda_trainer(**keys) -> Trainer:
    return trainer(random_images(device="cuda"), **keys)


@on_cuda
@pytest.mark.parametrize("keys", [*RECIPES, {"precision": "float32"}])
def test_cuda_replays_what_runs_eagerly(keys):
    with deterministic_algorithms(True):
        replayed = train(cuda_trainer(**keys), 4)
        assert replayed.eager_reason is None
        assert replayed._staged._graph.is_captured
        eager = train(cuda_trainer(graphs=False, **keys), 4)
    for own, other in zip(replayed.model.parameters(), eager.model.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)
    losses = [[result.train_loss for result in subject.history] for subject in (replayed, eager)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@on_cuda
def test_cuda_resumes_bitwise_with_deterministic_algorithms():
    with deterministic_algorithms(True):
        undisturbed = train(cuda_trainer(epochs=12), 8)
        begun = train(cuda_trainer(epochs=12), 4)
        resumed = cuda_trainer(epochs=12)
        resumed.load_state_dict(begun.state_dict())
        assert difference(train(resumed, 4), undisturbed) == ""


@on_cuda
def test_cuda_keeps_two_graphs_apart():
    with deterministic_algorithms(True):
        alone = train(cuda_trainer(), 4)
        subject, other = train(cuda_trainer(), 2), train(cuda_trainer(), 1)
        assert subject._staged._graph._stream != other._staged._graph._stream
        del other
        train(trainer(random_images(device="cuda")), 1)
        assert difference(train(subject, 2), alone) == ""


@on_cuda
def test_cuda_frees_the_memory_of_graphs():
    reserved = []
    for _ in range(20):
        train(cuda_trainer(), 1)
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= reserved[2]


@on_cuda
def test_cuda_replays_both_steps_of_a_super_network():
    with deterministic_algorithms(True):
        keys = {"kernels": "torch", "precision": "float32", "epochs": 8}
        replayed = train(searching("cuda", **keys), 8)
        assert replayed.eager_reason is None
        assert replayed._staged._graph.is_captured
        assert replayed._staged_architecture._graph.is_captured
        eager = train(searching("cuda", graphs=False, **keys), 8)
    for own, other in zip(replayed._architecture, eager._architecture, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-2, atol=1e-4)


class Peeks(Cells):
    """A network that asks for a number in every step, which cannot be captured."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * (1.0 if images.sum().item() else 0.5)


@on_cuda
def test_cuda_goes_on_after_a_capture_that_failed(monkeypatch):
    monkeypatch.setattr(graphs.StagedStep, "failure", None)
    images = random_images(device="cuda")
    stream = torch.cuda.current_stream()

    def peeking(**keys) -> Trainer:
        torch.manual_seed(0)
        return Trainer(Peeks(), images, TrainSettings(batch_size=16, **keys), epochs=6, seed=0)

    with pytest.warns(UserWarning, match="could not be captured"):
        subject = train(peeking(), 3)
    assert "a capture failed" in subject.eager_reason
    losses = [result.train_loss for result in subject.history]
    eager = train(peeking(graphs=False), 3)
    assert losses == pytest.approx([result.train_loss for result in eager.history], rel=1e-4)
    assert torch.cuda.current_stream() == stream
    assert not torch.cuda.is_current_stream_capturing()
