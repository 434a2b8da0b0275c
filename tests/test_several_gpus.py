"""`optnas retrain --gpus N`: several processes train one network as one process does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch

from optnas.cli.several_gpus import without_gpus
from optnas.devices.ranks import Ranks
from optnas.running.retraining import retrain_found
from optnas.running.runner import run
from optnas.study.opening import open_existing

OPTNAS = str(Path(sys.executable).with_name("optnas"))
STUDY = """\
study: tiny
space: {name: chain, depth: [2, 2], width: [4, 4], operations: [conv], kernels: [3]}
sampler: random
data: {name: digits, samples: 0.4}
train: {epochs: 1, batch_size: 20, lr: 0.05}
budget: {trials: 1}
retrain: {epochs: 3}
"""
TOLERANCE = 2e-5
"""Of weights after three epochs: numbers are added in another order (3e-6 was measured)."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory, one_thread) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    (folder / "tiny.yaml").write_text(STUDY)
    run(folder / "tiny.yaml")
    return folder


def command(folder: Path, *arguments: str) -> list[str]:
    return [OPTNAS, "retrain", str(folder / "tiny.yaml"), *arguments]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "weights.safetensors")


@pytest.fixture(scope="module")
def alone(searched) -> dict[str, torch.Tensor]:
    handle = open_existing(str(searched / "tiny.yaml"))
    assert len(list(retrain_found(handle, output=searched / "alone"))) == 1
    return weights(searched / "alone")


def test_two_processes_one_of_which_is_killed_train_as_one(searched, alone):
    pipe = subprocess.PIPE
    started = subprocess.Popen(
        command(searched, "--gpus", "2", "--output", str(searched / "two")),
        stdout=pipe,
        stderr=pipe,
        text=True,
    )
    assert started.stdout is not None
    lines = []
    for line in started.stdout:
        lines.append(line)
        if line.startswith("epoch 1/3"):
            processes = psutil.Process(started.pid).children()
            os.kill(processes[-1].pid, signal.SIGKILL)
            break
    out, err = started.communicate(timeout=300)
    text = "".join([*lines, out])
    assert started.returncode == 0, err
    assert "a process died: all go on from the last checkpoint (1 of at most 3)" in err
    assert "Traceback" not in err
    assert "2 processes train together: 20 images a step, 10 in each; learning rate 0.05" in text
    assert text.count("epoch 3/3") == 1  # One of the two tells.
    assert text.count("epoch 1/3") == 1  # It went on from there.
    found = weights(searched / "two")
    print("ERR", err)
    assert found.keys() == alone.keys()
    for name, expected in alone.items():
        torch.testing.assert_close(found[name], expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(("count", "images"), [(2, 20), (3, 20), (3, 7), (3, 6), (4, 5), (2, 3)])
def test_shares_of_a_batch_are_all_of_it_or_each_image_once(count, images):
    shares = [Ranks(number, count).share(100, 100 + images) for number in range(count)]
    if Ranks(0, count).is_whole(images):
        assert shares == [(100, 100 + images)] * count
    else:
        seen = [image for start, stop in shares for image in range(start, stop)]
        assert seen == list(range(100, 100 + images))
        assert all(stop - start >= 2 for start, stop in shares)


@pytest.mark.parametrize(
    "arguments",
    [
        ["retrain", "a.yaml", "--gpus", "2"],
        ["retrain", "--gpus=2", "a.yaml"],
        ["retrain", "a.yaml"],
    ],
)
def test_processes_do_not_start_others(arguments):
    assert without_gpus(arguments) == ["retrain", "a.yaml"]
