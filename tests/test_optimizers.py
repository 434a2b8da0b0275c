"""The optimisers of recipes: what torch's do, without importing its compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from optnas.config.settings import TrainSettings
from optnas.objectives.training.optimizers import make_optimizer, without_compiling


def stock(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        parameters, settings.lr, settings.momentum, weight_decay=settings.weight_decay
    )


def trained(make, steps: int, state=None):
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (5,)]
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    optimizer = make(parameters)
    if state is not None:
        optimizer.load_state_dict(state)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        assert all(parameter.grad is None for parameter in parameters)
        sum((parameter**2).sum() for parameter in parameters).backward()
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_steps_are_those_of_torch(name):
    settings = TrainSettings(optimizer=name, lr=0.1, momentum=0.8, weight_decay=0.01)
    ours, _ = trained(lambda parameters: make_optimizer(parameters, settings), 5)
    theirs, _ = trained(lambda parameters: stock(parameters, settings), 5)
    for own, other in zip(ours, theirs, strict=True):
        assert own.requires_grad
        assert torch.allclose(own, other, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_states_are_exchanged_with_those_of_torch(name):
    settings = TrainSettings(optimizer=name, lr=0.1)
    _, ours = trained(lambda parameters: make_optimizer(parameters, settings), 2)
    _, theirs = trained(lambda parameters: stock(parameters, settings), 2)
    assert ours.state_dict()["state"].keys() == theirs.state_dict()["state"].keys()
    again, _ = trained(
        lambda parameters: make_optimizer(parameters, settings), 1, theirs.state_dict()
    )
    assert all(parameter.isfinite().all() for parameter in again)


def test_the_class_of_torch_is_left_as_it_is():
    before = vars(torch.optim.SGD)["step"]
    assert without_compiling(torch.optim.SGD) is not torch.optim.SGD
    assert vars(torch.optim.SGD)["step"] is before


def test_training_does_not_import_the_compiler():
    code = """
import sys
from optnas.objectives.data.images import load_images
from optnas.objectives.models import build_model, count_multiply_adds
from optnas.objectives.training.trainer import Trainer
from optnas.config.settings import DataSettings, TrainSettings
from optnas.spaces import ChainArchitecture
images = load_images(DataSettings(name="digits", samples=0.1), 0)
model = build_model(ChainArchitecture(2, 4, ("conv",) * 2, (3,) * 2), images.input_shape, 10)
count_multiply_adds(model, images.input_shape)
Trainer(model, images, TrainSettings(), epochs=1, seed=0).train_epoch()
print(sorted({"torch._dynamo", "sympy", "sklearn"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
