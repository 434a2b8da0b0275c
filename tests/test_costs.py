"""What a report adds to what trials say: energy, emissions, and the time of inference."""

import pytest
import torch
from searches import opened, trial

from optnas.objectives.networks import inference
from optnas.objectives.networks.build import build_model
from optnas.objectives.networks.inference import inference_milliseconds, processor
from optnas.report import costs as measures
from optnas.report.costs import Footprint, NetworkCosts, network_costs
from optnas.spaces import ChainArchitecture, StageArchitecture, StageSpace
from optnas.study.networks import networks_of

CPU, GPU = "cpu (2 threads, x86_64)", "NVIDIA H200"


@pytest.mark.parametrize(
    ("footprint", "attrs", "expected"),
    [
        # 24 W for an hour; 475 g/kWh.
        (Footprint(), {"device": CPU, "train_seconds": 3600.0}, (24, "estimated", 11.4)),
        (Footprint(), {"device": GPU, "train_seconds": 36.0}, (2.5, "estimated", 1.1875)),
        (Footprint(100, 90), {"device": CPU, "train_seconds": 360.0}, (9, "estimated", 0.9)),
        (
            Footprint(1000, 90),
            {"device": GPU, "train_seconds": 360.0, "train_joules": 7200.0},
            (2, "measured", 2),
        ),
        (Footprint(0), {"device": GPU, "train_seconds": 36.0}, (2.5, "estimated", 0)),
        # A table was looked up: nothing was trained here.
        (Footprint(power=90), {"train_seconds": 360.0}, (None, "", None)),
        (Footprint(power=90), {"device": CPU}, (None, "", None)),
        (Footprint(), {"device": 3, "train_seconds": 1.0}, (None, "", None)),
        (Footprint(), {"device": GPU, "train_seconds": float("nan")}, (None, "", None)),
    ],
)
def test_energy_is_measured_or_else_estimated_and_said_to_be(footprint, attrs, expected):
    (network,) = networks_of([trial(0, 0.5, **attrs)])
    said = footprint.of(network)
    assert tuple(said) == ("energy_wh", "energy", "co2e_g")
    assert tuple(said.values()) == pytest.approx(expected)


def test_rows_say_whose_network_it_is():
    own, theirs = networks_of([trial(0, 0.5), trial(1, 0.6, phase="ResNet-44")])
    named = measures.dataclasses.replace(theirs, name="ResNet-44")
    table = NetworkCosts(baselines=[named]).rows([own], StageSpace())
    assert [(row["trial"], row["human_designed"]) for row in table] == [
        (None, "ResNet-44"),
        (0, ""),
    ]


@pytest.fixture
def timed(monkeypatch):
    """The shapes of the images that were timed; each takes as many milliseconds as were before."""
    shapes = []

    def time(model, shape):
        shapes.append(shape)
        return float(len(shapes))

    monkeypatch.setattr(inference, "inference_milliseconds", time)
    return shapes


def stages(number: int) -> dict[str, int]:
    return {"modules_1": number, "modules_2": 1, "modules_3": 1}


def test_the_most_accurate_networks_are_timed_once_each(tmp_path, timed, monkeypatch):
    monkeypatch.setattr(measures, "TIMED", 3)
    trials = [
        trial(n, 0.5 + n / 10, suggested=stages(modules), input_shape=[1, 8, 8])
        for n, modules in enumerate((1, 2, 3, 3))
    ]
    trials.append(trial(4, 0.0, infeasible=True, suggested=stages(4), input_shape=[1, 8, 8]))
    found = network_costs(opened(tmp_path, trials), Footprint())
    assert timed == [(1, 8, 8)] * 2
    # The two of the same architecture are the best.
    assert found.milliseconds == {
        StageArchitecture((3, 1, 1)): 1.0,
        StageArchitecture((2, 1, 1)): 2.0,
    }
    assert found.processor == processor()
    rows = found.rows(networks_of(trials), StageSpace())
    assert [row["inference_ms"] for row in rows] == [1.0, 1.0, 2.0, None, None]


def test_images_of_unknown_shape_are_not_timed(tmp_path, timed):
    shapes = (None, "8", [8], [1, 0, 8], [1, "a", 8], [[1], 8, 8], [1.5, 8, 8])
    trials = [
        trial(number, 0.5, suggested=stages(number + 1), input_shape=shape)
        for number, shape in enumerate(shapes)
    ]
    trials.append(trial(len(trials), 0.5))
    found = network_costs(opened(tmp_path, trials), Footprint())
    assert found.milliseconds == {}
    assert timed == []


def test_what_does_not_fit_into_this_machine_is_left_out(tmp_path, monkeypatch):
    def fail(model, shape):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(inference, "inference_milliseconds", fail)
    trials = [trial(0, 0.5, input_shape=[1, 8, 8])]
    assert network_costs(opened(tmp_path, trials), Footprint()).milliseconds == {}


def test_nothing_is_timed_where_nobody_asks(tmp_path, timed):
    trials = [trial(0, 0.5, input_shape=[1, 8, 8])]
    found = network_costs(opened(tmp_path, trials), Footprint(), timed=False)
    assert (found.milliseconds, timed) == ({}, [])


def test_networks_are_timed_as_they_were_judged(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        inference,
        "inference_milliseconds",
        lambda model, shape: sizes.append((model.stem[0].out_channels, shape)) or 1.0,
    )
    chain = {"depth": 1, "width": 16, "op_0": 0, "kernel_0": 3}
    made = trial(0, 0.5, suggested=chain, input_shape=[1, 4, 4])
    made._params["op_0"] = "conv"
    found = opened(
        tmp_path, space={"name": "chain", "depth": [1, 9]}, proxy="c2r1s0e5", data="digits"
    )
    monkeypatch.setattr(measures, "networks_of", lambda trials: networks_of([made]))
    network_costs(found, Footprint())
    assert sizes == [(16, (1, 4, 4))]  # Of twice 16 in full.


def test_inference_is_the_median_of_single_images(monkeypatch):
    ticks = iter(range(10_000))
    # Every look at the clock takes longer than the last: 1, 5, 9 ms, ...
    monkeypatch.setattr(inference, "_clock", lambda: next(ticks) ** 2 / 1000)
    model = build_model(ChainArchitecture(2, 4), (3, 8, 8), 3)
    batches = []
    model.register_forward_hook(lambda part, inputs, output: batches.append(len(inputs[0])))
    before = torch.get_num_threads()
    median = inference_milliseconds(model, (3, 8, 8))
    assert batches[0] > 1
    timed = len(batches) - 1 - inference.WARM_UP
    assert set(batches[1:]) == {1}
    assert inference.LEAST <= timed <= inference.MOST
    assert median == pytest.approx(1 + 2 * (timed - 1))
    assert torch.get_num_threads() == before
    assert not model.training


def test_long_chains_are_timed_on_numbers_that_are_not_tiny():
    model = build_model(ChainArchitecture(60, 4), (3, 8, 8), 3)
    inference_milliseconds(model, (3, 8, 8))
    spread = []
    model.layers[-1].register_forward_hook(lambda part, i, output: spread.append(output.std()))
    with torch.no_grad():
        model(torch.rand(8, 3, 8, 8))
    assert spread[0] > 1e-3
