"""The kernels beside torch in float64: on CUDA where there is one, else by Triton's interpreter.

`conftest.py` asks for the interpreter, before anything imports Triton.
"""

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_cuda_graphs import cell, grown, random_images
from torch import distributed, nn
from torch.nn import functional
from trainings import train

from optnas.config.settings import DataSettings, TrainSettings
from optnas.devices.ranks import Ranks
from optnas.objectives import kernels
from optnas.objectives.data.images import load_images
from optnas.objectives.kernels import Blocks, checking, convolution, networks, normalisation
from optnas.objectives.kernels.rows import as_rows
from optnas.objectives.networks.build import build_model, build_supernet
from optnas.objectives.networks.costs import count_multiply_adds
from optnas.objectives.training import acceleration, padding, steps
from optnas.objectives.training.distributed import DistributedTrainer
from optnas.objectives.training.hessian import hessian_eigenvalue
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import (
    CellSpace,
    ChainArchitecture,
    NasBench201Architecture,
    StageArchitecture,
)

pytestmark = pytest.mark.usefixtures("one_thread")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Many programs, where the interpreter takes milliseconds for each.
SMALL = Blocks(rows=16, channels=16, chunks=2, warps=1)
# Relative to the largest value there is: sums of many terms cancel.
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 5e-3}

# `make stress` tries many cases of all sizes; here are a few small ones.
EXAMPLES = int(os.environ.get("KERNELS", "10"))
SIZES, VALUES = ((65, 130, 33, 47), 2**17) if "KERNELS" in os.environ else ((5, 20, 8, 8), 2**12)

TYPES = st.sampled_from(list(TOLERANCES))


@st.composite
def shapes(draw: st.DrawFn, least: int = 1) -> tuple[int, ...]:
    """Images, at least so many, their channels, height and width."""
    channels, height, width = (draw(st.integers(1, size)) for size in SIZES[1:])
    most = min(SIZES[0], VALUES // (channels * height * width))
    return draw(st.integers(least, max(least, most))), channels, height, width


DEPTHWISE = st.fixed_dictionaries(
    {
        "shape": shapes(),
        "kernel": st.sampled_from(convolution.KERNELS),
        "stride": st.sampled_from(convolution.STRIDES),
        "dilation": st.integers(1, 3),
        "dtype": TYPES,
        "relu": st.booleans(),
    }
)


def tiles(shape: tuple[int, ...], chunks: int = 2) -> Blocks:
    """Blocks as large as features, or almost: few programs, and little beside them."""
    if DEVICE.type == "cuda":  # Those that are used, of which few have to be compiled.
        return normalisation.BLOCKS
    images, channels, height, width = shape
    rows = 2 ** (images * height * width - 1).bit_length()
    return Blocks(max(1, min(rows // chunks, 1024)), 2 ** (channels - 1).bit_length(), chunks)


def chosen(blocks: Blocks | None, shape: tuple[int, ...]) -> Blocks:
    """Blocks of a test; those that are for the interpreter alone stay with it."""
    suits = blocks is not None and (DEVICE.type == "cpu" or blocks == SMALL)
    return blocks if suits else tiles(shape)


def features(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0, mean: float = 0.0):
    """Random features, channels last, to be learnt from."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) + mean
    values = values.to(dtype).contiguous(memory_format=torch.channels_last)
    return values.to(DEVICE).requires_grad_()


def near(found, expected, dtype: torch.dtype, slack: float = 1, size: float = 1e-3) -> None:
    """Equal to the rounding of a type, of values, or of what they are sums of, of a size."""
    assert found.shape == expected.shape
    size = max(size, float(expected.detach().abs().max()))
    tolerance = TOLERANCES[dtype] * slack
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=tolerance, atol=tolerance * size
    )


def check_depthwise(shape, kernel, stride, dilation, dtype, relu, blocks=None) -> None:
    blocks = chosen(blocks, shape)
    x = features(shape, dtype)
    weight = features((shape[1], 1, kernel, kernel), torch.float32, 1)
    padding = dilation * (kernel // 2)
    y = kernels.depthwise(
        x,
        weight,
        stride,
        padding,
        dilation,
        relu=relu,
        blocks=blocks,
        gradient_blocks=blocks,
    )
    exact_x, exact_weight = (part.detach().double().requires_grad_() for part in (x, weight))
    seen = exact_x.relu() if relu else exact_x
    exact = functional.conv2d(seen, exact_weight, None, stride, padding, dilation, groups=shape[1])
    assert y.dtype == dtype
    near(y, exact, dtype)
    dy = features(tuple(y.shape), dtype, 2).detach()
    y.backward(dy)
    exact.backward(dy.double())
    near(x.grad, exact_x.grad, dtype)
    # Rounded to float32, whatever the features are.
    near(weight.grad, exact_weight.grad, torch.float32, slack=4)


@settings(max_examples=EXAMPLES)
@given(DEPTHWISE)
@example(
    {
        "shape": (1, 1, 1, 1),
        "kernel": 7,
        "stride": 2,
        "dilation": 2,
        "dtype": torch.float32,
        "relu": True,
    }
)
def test_depthwise_convolutions_are_those_of_torch(case):
    check_depthwise(**case)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "dilation", "blocks"),
    [
        ((65, 130, 5, 3), 3, 1, 1, None),
        ((1, 130, 33, 47), 3, 2, 1, None),
        ((65, 1, 33, 47), 3, 1, 2, Blocks(rows=2**16, channels=1, chunks=1)),
        ((2, 5, 33, 47), 7, 2, 2, None),
        ((3, 24, 4, 3), 5, 1, 1, SMALL),
        ((3, 17, 5, 4), 3, 2, 1, SMALL),
    ],
)
def test_large_depthwise_convolutions_are_those_of_torch(shape, kernel, stride, dilation, blocks):
    check_depthwise(shape, kernel, stride, dilation, torch.float32, False, blocks)
    check_depthwise(shape, kernel, stride, dilation, torch.bfloat16, True, blocks)


def test_gradients_are_the_same_alone():
    """Each has a kernel that also does without the other one."""
    shape, parts, found = (2, 3, 6, 6), Blocks(rows=2, channels=4), []
    for wanted in ((True, True), (True, False), (False, True)):
        x = features(shape, torch.float32)
        weight = features((3, 1, 3, 3), torch.float32, 1)
        subjects = [part for part, asked in zip((x, weight), wanted, strict=True) if asked]
        for part in {x, weight}.difference(subjects):
            part.requires_grad_(False)
        y = kernels.depthwise(x, weight, 1, 1, blocks=SMALL, gradient_blocks=parts)
        gradients = iter(torch.autograd.grad(y, subjects, features(y.shape, y.dtype, 2).detach()))
        found.append([next(gradients) if asked else None for asked in wanted])
    both, of_input, of_weight = found
    assert torch.equal(both[0], of_input[0])
    assert torch.equal(both[1], of_weight[1])


@pytest.mark.parametrize("layout", ["channels first", "some channels", "other channels"])
def test_features_in_any_layout_are_taken(layout):
    x = features((2, 24, 6, 5), torch.float32)
    if layout == "channels first":
        taken = x.contiguous()
    else:
        # As PC-DARTS takes them, and as the gradient of joined features is.
        taken = x[:, :16] if layout == "some channels" else x[:, 5:20]
    assert (as_rows(taken)[0] is taken) == (layout != "channels first")
    weight = features((taken.shape[1], 1, 3, 3), torch.float32, 1)
    blocks = tiles(taken.shape)
    found = kernels.depthwise(taken, weight, 1, 1, blocks=blocks, gradient_blocks=blocks)
    expected = functional.conv2d(taken, weight, None, 1, 1, groups=taken.shape[1])
    near(found, expected, torch.float32)
    dy = torch.cat((expected, expected), 1).detach()[:, : taken.shape[1]]
    found = torch.autograd.grad(found, (x, weight), dy)
    expected = torch.autograd.grad(expected, (x, weight), dy)
    for own, other in zip(found, expected, strict=True):
        near(own, other, torch.float32, slack=2)
    norm, other = nn.BatchNorm2d(taken.shape[1]).to(DEVICE), nn.BatchNorm2d(taken.shape[1])
    near(normalised(norm, taken), other.to(DEVICE)(taken).relu(), torch.float32)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kernel": 4}, "kernels \\(C, 1, K, K\\)"),
        ({"stride": 3}, "strides of \\(1, 2\\)"),
        ({"dtype": torch.float64}, "torch.float64"),
        ({"dilation": 9}, "too small for a kernel of 3 with padding 1, dilation 9"),
    ],
)
def test_other_convolutions_are_refused(keys, words):
    case = {"kernel": 3, "stride": 1, "dilation": 1, "dtype": torch.float32} | keys
    weight = torch.zeros(4, 1, case["kernel"], case["kernel"], device=DEVICE)
    x = features((1, 4, 6, 6), case["dtype"])
    with pytest.raises(ValueError, match=words):
        kernels.depthwise(x, weight, case["stride"], 1, case["dilation"])


def normalised(norm: nn.BatchNorm2d, x: torch.Tensor, blocks: Blocks | None = None, **keys):
    """What the kernels make of a normalisation's parameters and statistics."""
    return kernels.batch_norm_relu(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.training,
        norm.momentum,
        norm.eps,
        **{"batches": norm.num_batches_tracked, "blocks": chosen(blocks, x.shape), **keys},
    )


def norm_of(channels: int, affine: bool = True, seed: int = 3) -> nn.BatchNorm2d:
    """A normalisation with parameters and statistics of all kinds."""
    generator = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm2d(channels, affine=affine)
    with torch.no_grad():
        for tensor in (*norm.parameters(), norm.running_mean):
            tensor.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
    return norm.to(DEVICE)


def check_normalisation(
    shape, dtype, relu=True, affine=True, count=None, mean=0.0, blocks=None
) -> None:
    x = features(shape, dtype, mean=mean)
    norm = norm_of(shape[1], affine)
    exact, exact_x = copy.deepcopy(norm).double(), x.detach().double().requires_grad_()
    y = normalised(norm, x, blocks, relu=relu, count=count)
    real = slice(None) if count is None else slice(count)
    expected = exact(exact_x[real])
    # What is zero but for rounding may have either sign.
    far = expected.detach().abs() > 1e-5 * expected.detach().abs().max()
    expected = expected.relu() if relu else expected
    slack = 4 if mean == 0 else 100
    near(y[real], expected, dtype, slack)
    dy = features(tuple(y.shape), dtype, 2).detach()
    dy[real] *= far.to(dtype)
    y.backward(dy)
    expected.backward(dy[real].double())
    # Of few values per channel gradients cancel.
    variance, _ = torch.var_mean(exact_x[real].detach(), (0, 2, 3), correction=0)
    scale = (variance + norm.eps).rsqrt() * (norm.weight if affine else 1)
    near(
        x.grad, exact_x.grad, dtype, slack, float((dy * scale[:, None, None]).detach().abs().max())
    )
    assert count is None or not x.grad[count:].any()
    for own, other in zip(norm.parameters(), exact.parameters(), strict=True):
        near(own.grad, other.grad, torch.float32, slack)
    for own, other in zip(norm.buffers(), exact.buffers(), strict=True):
        near(own, other, torch.float32, slack)


@settings(max_examples=EXAMPLES)
@given(
    st.fixed_dictionaries(
        {
            "shape": shapes(2),
            "dtype": TYPES,
            "relu": st.booleans(),
            "affine": st.booleans(),
            "count": st.sampled_from([None, 2]),
        }
    )
)
def test_batch_normalisation_is_that_of_torch(case):
    check_normalisation(**case)


@pytest.mark.parametrize(
    ("shape", "keys"),
    [
        ((65, 130, 5, 3), {}),
        ((65, 1, 33, 47), {"blocks": Blocks(rows=2**13, channels=1, chunks=8)}),
        ((1, 130, 33, 47), {"relu": False}),
        ((7, 24, 4, 5), {"blocks": SMALL, "count": 3}),
        ((9, 17, 3, 3), {"blocks": SMALL, "affine": False}),
    ],
)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_large_batch_normalisation_is_that_of_torch(shape, keys, dtype):
    check_normalisation(shape, dtype, **keys)


def test_a_large_mean_costs_no_digits_of_the_variance():
    """As sums of squares would; here the features themselves have lost 3 digits."""
    check_normalisation((8, 5, 6, 6), torch.float32, mean=1000.0, blocks=SMALL)


def test_channels_of_zeros_stay_zero_bit_for_bit():
    x = features((4, 16, 5, 5), torch.float32)
    with torch.no_grad():
        x[:, 11:] = 0
    norm = norm_of(16)
    with torch.no_grad():
        norm.bias[11:] = 0
    y = normalised(norm, x)
    y.backward(features((4, 16, 5, 5), torch.float32, 1).detach() * (y.detach() > 0))
    for tensor in (y[:, 11:], x.grad[:, 11:], norm.weight.grad[11:], norm.bias.grad[11:]):
        assert not tensor.any()


@pytest.mark.parametrize("relu", [True, False])
def test_evaluation_takes_the_running_statistics(relu):
    x, norm = features((3, 20, 4, 4), torch.float32), norm_of(20).eval()
    before = copy.deepcopy(norm.state_dict())
    expected = norm(x)
    expected = expected.relu() if relu else expected
    with torch.inference_mode():
        near(normalised(norm, x, relu=relu), expected, torch.float32)
    learnt = normalised(norm, x, relu=relu)  # Gradients in evaluation are torch's.
    near(learnt, expected, torch.float32)
    found, wanted = (torch.autograd.grad(y.square().sum(), x)[0] for y in (learnt, expected))
    near(found, wanted, torch.float32, slack=4)
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("shape", "keys", "words"),
    [
        ((1, 4, 1, 1), {}, "more than one value per channel"),
        ((3, 4, 1, 1), {"count": 1}, "more than one value per channel"),
        ((3, 4, 2, 2), {"count": 4}, "`count` must be from 1 to 3"),
        ((3, 4, 2, 2), {"count": 0}, "`count` must be from 1 to 3"),
    ],
)
def test_what_cannot_be_normalised_is_refused(shape, keys, words):
    with pytest.raises(ValueError, match=words):
        normalised(norm_of(4), features(shape, torch.float32), **keys)


def test_equal_inputs_give_equal_bits():
    def everything() -> list[torch.Tensor]:
        x = features((4, 20, 5, 5), torch.bfloat16)
        weight = features((20, 1, 3, 3), torch.float32, 1)
        norm = norm_of(20)
        y = kernels.depthwise(x, weight, 2, 1, blocks=SMALL, gradient_blocks=SMALL)
        y = normalised(norm, y, SMALL)
        y.backward(features(tuple(y.shape), torch.bfloat16, 2).detach())
        return [y, x.grad, weight.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()]

    assert all(torch.equal(*pair) for pair in zip(everything(), everything(), strict=True))


def test_gradients_of_gradients_are_those_of_torch():
    """Those of the kernels are made of torch's operations where they are asked for."""
    x, vector = (features((3, 6, 4, 4), torch.float32, seed).detach() for seed in (0, 5))
    weight, norm = features((6, 1, 3, 3), torch.float32, 1), norm_of(6)

    def seconds(own: bool) -> tuple[torch.Tensor, ...]:
        inputs = (x.clone().requires_grad_(), weight, norm.weight, norm.bias)
        if own:
            y = kernels.depthwise(inputs[0], weight, 1, 1, relu=True, blocks=tiles(x.shape))
            y = normalised(copy.copy(norm), y, count=2)[:2]
        else:
            y = functional.conv2d(inputs[0].relu(), weight, None, 1, 1, groups=6)
            y = functional.batch_norm(y[:2], None, None, norm.weight, norm.bias, True).relu()
        first = torch.autograd.grad((y * y * vector[:2]).sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), inputs)

    for own, other in zip(seconds(True), seconds(False), strict=True):
        near(own, other, torch.float32, slack=100)


@pytest.fixture
def supported(monkeypatch):
    """As if the CPU could run kernels, with tiles that suit the interpreter."""
    monkeypatch.setattr(networks, "are_supported", lambda device: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if DEVICE.type == "cuda":
        return
    blocks = Blocks(rows=1024, channels=32, chunks=2)
    monkeypatch.setattr(convolution, "BLOCKS", blocks)
    monkeypatch.setattr(convolution, "GRADIENT_BLOCKS", blocks)
    monkeypatch.setattr(normalisation, "BLOCKS", blocks)


def network_of(architecture, **options) -> nn.Module:
    """A network for small images of four classes, on the device."""
    model = build_model(architecture, (3, 8, 8), 4, torch.Generator().manual_seed(0), **options)
    return model.to(DEVICE).to(memory_format=torch.channels_last)


def kinds_of(model: nn.Module) -> set[str]:
    return {type(part).__name__ for part in model.modules()}


def step(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """Logits, gradients and statistics of a step."""
    logits = model(images)
    labels = torch.arange(len(images), device=DEVICE) % 4
    functional.cross_entropy(logits, labels).backward()
    learnt = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"logits": logits.detach(), **learnt, **dict(model.named_buffers())}


NETWORKS = {
    "chain": (ChainArchitecture(3, 6, kernels=(7, 5, 3)), {}),
    "cell": (cell(), {"cells": 2, "channels": 4}),
    "nasbench201": (
        NasBench201Architecture(("nor_conv_3x3",) * 2 + ("skip_connect",) * 4),
        {"cells": 3, "channels": 4},
    ),
    "basic": (StageArchitecture((1, 1)), {}),
    "growth": (grown(0), {}),
}


@pytest.mark.parametrize(("architecture", "options"), NETWORKS.values(), ids=NETWORKS)
def test_every_kind_of_network_is_the_same_with_kernels(supported, architecture, options):
    plain = network_of(architecture, **options)
    images = features((6, 3, 8, 8), torch.float32).detach()
    own = kernels.use_kernels(copy.deepcopy(plain), DEVICE)
    assert list(own.state_dict()) == list(plain.state_dict())
    assert count_multiply_adds(own, (3, 8, 8)) == count_multiply_adds(plain, (3, 8, 8))
    depthwise = any(networks._is_depthwise(p) for p in own.modules() if isinstance(p, nn.Conv2d))
    assert ("_Depthwise" in kinds_of(own)) == depthwise
    assert "_BatchNormReLU" in kinds_of(own)
    found, expected = step(own, images), step(plain, images)
    for name, value in expected.items():
        if value is None:
            assert found[name] is None
        else:
            near(found[name], value, torch.float32, slack=500)
    with torch.inference_mode():
        near(own.eval()(images), plain.eval()(images), torch.float32, slack=500)


def test_the_kernels_are_what_runs(supported, monkeypatch):
    """Or all of this compares torch with itself."""
    ran = []
    for module, name in ((networks, "depthwise"), (networks, "batch_norm_relu")):
        kept = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *a, kept=kept, name=name, **k: (ran.append(name), kept(*a, **k))[1],
        )
    model = kernels.use_kernels(network_of(ChainArchitecture(2, 4)), DEVICE)
    step(model, features((2, 3, 8, 8), torch.float32).detach())
    assert ran == ["batch_norm_relu", *["depthwise", "batch_norm_relu"] * 2]
    assert [part.relu for part in model.modules() if isinstance(part, nn.BatchNorm2d)] == [
        True,
        True,
        False,
    ]


def trained(precision: str, epochs: int = 5, **keys) -> Trainer:
    """A training, two steps an epoch."""
    recipe = TrainSettings(batch_size=16, precision=precision, lr=0.01, **keys)
    model = network_of(ChainArchitecture(3, 8))
    images = random_images(32).to(DEVICE)
    return train(Trainer(model, images, recipe, epochs=5, seed=0), epochs)


def state(trainer: Trainer) -> torch.Tensor:
    """All weights and statistics."""
    return torch.cat([part.double().flatten() for part in trainer.model.state_dict().values()])


@pytest.fixture
def accelerated(monkeypatch):
    """As if trainings on the CPU were to run kernels."""
    allowed = {"auto": True, "torch": False}
    told = lambda settings, device: allowed[settings.kernels]  # noqa: E731
    monkeypatch.setattr(acceleration, "is_accelerated", told)


def test_a_training_with_kernels_is_one_without(supported, accelerated):
    plain, own = (trained("float32", kernels=kernels) for kernels in ("torch", "auto"))
    assert "_Depthwise" in kinds_of(own.model)
    assert "_Depthwise" not in kinds_of(plain.model)
    near(state(own), state(plain), torch.float32, slack=100)
    assert own.history[-1].train_loss == pytest.approx(plain.history[-1].train_loss, rel=1e-4)


def test_a_training_in_bfloat16_is_as_near_to_float32_and_repeatable(supported, accelerated):
    plain = state(trained("float32", 2, kernels="torch"))
    rounded = state(trained("bfloat16", 2, kernels="torch"))
    own, again = (state(trained("bfloat16", 2, deterministic=True)) for _ in range(2))
    assert torch.equal(own, again)
    assert not torch.equal(own, rounded)
    assert (own - plain).norm() < 1.5 * (rounded - plain).norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_they_compute_with_aligned_channels_and_filled_batches(
    supported, accelerated, monkeypatch, precision
):
    monkeypatch.setattr(steps, "is_accelerated", acceleration.is_accelerated)
    images, subjects = random_images(12).to(DEVICE), []
    for kernels_of in ("auto", "torch"):
        recipe = TrainSettings(batch_size=8, precision=precision, lr=0.01, kernels=kernels_of)
        model = network_of(ChainArchitecture(2, 7))
        subjects.append(Trainer(model, images, recipe, epochs=1, seed=0))
    own, plain = (train(subject, 1) for subject in subjects)
    assert "_Depthwise" in kinds_of(own.model)
    assert own._flat is not None
    with own._flat.lent():
        assert all(
            len(part.weight) % 8 == 0
            for part in own.model.layers.modules()
            if isinstance(part, nn.BatchNorm2d | nn.Conv2d)
        )
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    near(state(own), state(plain), dtype, slack=100 if dtype == torch.float32 else 5)
    for place in own._flat._places:
        whole = place.computed(own._flat._values)
        assert whole.count_nonzero() == place.own(own._flat._values).count_nonzero()


def test_over_five_seeds_trainings_are_equivalent(supported, accelerated, monkeypatch):
    """All of it, on digits: the interval of their mean difference lies within 0.01 of the loss.

    `benchmarks/equivalence.py` trains on all digits, and compares accuracies.
    """
    monkeypatch.setattr(steps, "is_accelerated", acceleration.is_accelerated)
    found = load_images(DataSettings(name="digits", classes=(0, 1), validation=20), seed=0)
    few = dataclasses.replace(
        found, train_images=found.train_images[:24], train_labels=found.train_labels[:24]
    ).to(DEVICE)
    differences = []
    for seed in range(5):
        pair = []
        for kernels_of in ("auto", "torch"):
            generator = torch.Generator().manual_seed(seed)
            model = build_model(ChainArchitecture(2, 7), few.input_shape, 2, generator)
            recipe = TrainSettings(batch_size=16, precision="bfloat16", kernels=kernels_of)
            pair.append(train(Trainer(model, few, recipe, epochs=2, seed=seed), 2).history[-1])
        own, plain = pair
        assert abs(own.validation_accuracy - plain.validation_accuracy) < 1.5 / 20
        differences.append(own.train_loss - plain.train_loss)
    assert any(differences)  # Or torch is compared with itself.
    spread = 2.132 * np.std(differences, ddof=1) / 5**0.5  # The t of 95 %, one-sided.
    assert abs(np.mean(differences)) + spread < 0.01


def test_images_that_fill_a_batch_count_for_nothing(supported):
    model = kernels.use_kernels(network_of(ChainArchitecture(2, 4)), DEVICE)
    other = copy.deepcopy(model)
    images = features((5, 3, 8, 8), torch.float32).detach()
    labels = torch.arange(5, device=DEVICE) % 4
    for subject, size in ((model, 5), (other, 8)):
        filled = padding.filled(images, size)
        with padding.counting(subject, 5, size):
            logits = padding.counted(subject(filled), 5)
        functional.cross_entropy(logits, labels).backward()
        assert all(part.count is None for part in subject.modules() if hasattr(part, "count"))
    for own, filled in zip(model.parameters(), other.parameters(), strict=True):
        near(filled.grad, own.grad, torch.float32, slack=50)
    for own, filled in zip(model.buffers(), other.buffers(), strict=True):
        near(filled, own, torch.float32, slack=50)


@pytest.mark.parametrize("depthwise", ["triton", "aten", "cudnn"])
def test_whose_depthwise_convolutions_a_network_has_may_change(supported, monkeypatch, depthwise):
    def by_torch(x, weight, size, bias, stride, padding, dilation):
        assert depthwise == "aten"
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups=len(weight))

    if DEVICE.type == "cpu":  # Where torch's has no kernel.
        monkeypatch.setattr(networks, "_aten_depthwise", by_torch)
    model = network_of(ChainArchitecture(2, 4))
    images = features((2, 3, 8, 8), torch.float32).detach()
    expected = step(copy.deepcopy(model), images)
    for before in ("triton", "aten", "cudnn"):
        own = kernels.use_kernels(copy.deepcopy(model), DEVICE, depthwise=before)
        own = kernels.use_kernels(own, DEVICE, depthwise=depthwise)
        own = kernels.use_kernels(own, DEVICE, depthwise=depthwise)  # Nothing more happens.
        kinds = kinds_of(own) & {"_Depthwise", "_AtenDepthwise"}
        kind = {"triton": {"_Depthwise"}, "aten": {"_AtenDepthwise"}, "cudnn": set()}
        assert kinds == kind[depthwise]
    for name, value in step(own, images).items():
        near(value, expected[name], torch.float32, slack=500)


def test_activations_are_computed_by_their_neighbours(supported):
    own = kernels.use_kernels(network_of(grown(0)), DEVICE)
    parts = list(own.cells[0].operation)
    assert [(type(part).__name__, getattr(part, "relu", None)) for part in parts] == [
        ("_Done", None),
        ("_Depthwise", True),
        ("Conv2d", None),
        ("_BatchNormReLU", True),
        ("_Done", None),
        ("_Depthwise", False),
        ("Conv2d", None),
        ("_BatchNormReLU", False),
    ]
    assert not own.normalisation.relu  # Its ReLU is a function.


def test_what_there_is_no_kernel_for_is_told_once_and_runs(supported):
    layers = [
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=True),
        nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=4, bias=False),
        nn.Conv2d(4, 4, 3, stride=3, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding="same", groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=(1, 0), groups=4, bias=False),
    ]
    model, x = nn.Sequential(*layers).to(DEVICE), features((2, 4, 16, 16), torch.float32)
    expected = model(x)
    with pytest.warns(UserWarning, match="runs torch's") as caught:
        kernels.use_kernels(model, DEVICE)
    said = [str(warning.message) for warning in caught]
    for words in ("a bias", "kernels of 3x5", "strides of 3 and 3", "padding zeros same"):
        assert any(words in line for line in said)
    assert torch.equal(model(x), expected)
    norms = nn.ModuleList([nn.BatchNorm2d(4, momentum=None), nn.BatchNorm1d(4)])
    assert kinds_of(kernels.use_kernels(norms, DEVICE)) == {
        "ModuleList",
        "BatchNorm2d",
        "BatchNorm1d",
    }


@pytest.mark.parametrize("error", [RuntimeError("no kernel image\nand more"), None])
def test_kernels_that_do_not_work_are_not_used(supported, monkeypatch, error):
    def broken(x, *others, **keys):
        if error is not None:
            raise error
        return kernels.batch_norm_relu(x, *others, **keys) * 1.2

    monkeypatch.setattr(checking, "batch_norm_relu", broken)
    checking.fault.cache_clear()
    model = network_of(ChainArchitecture(2, 4))
    words = "wrong results in torch."
    if error is not None:
        words = "RuntimeError: no kernel image."
    with pytest.warns(UserWarning, match=f"PyTorch's are used: {words}"):
        kernels.use_kernels(model, DEVICE)
    assert not kinds_of(model) & {"_Depthwise", "_BatchNormReLU", "_Done"}
    checking.fault.cache_clear()


def test_networks_of_others_keep_their_activations(supported):
    """Somebody may look at what a normalisation of theirs puts out."""
    model = kernels.use_kernels(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), DEVICE)
    assert kinds_of(model) == {"Sequential", "_BatchNormReLU", "ReLU"}
    assert not model[0].relu


def test_elsewhere_than_on_cuda_nothing_is_changed():
    model = network_of(ChainArchitecture(2, 4)).cpu()
    kept = kinds_of(model)
    assert kinds_of(kernels.use_kernels(model, torch.device("cpu"))) == kept
    assert "_BatchNormReLU" not in kept


def test_a_network_that_ran_kernels_is_exported_and_counted_as_torch_runs_it(supported):
    model = kernels.use_kernels(network_of(ChainArchitecture(2, 4)), DEVICE).eval()
    images = features((2, 3, 8, 8), torch.float32).detach()
    exported = torch.export.export(model, (images,))
    assert "conv2d" in str(exported.graph)
    near(exported.module()(images), model(images), torch.float32, slack=50)


def test_without_triton_a_training_says_so_and_goes_on(monkeypatch):
    monkeypatch.setattr(acceleration, "is_accelerated", lambda settings, device: True)
    monkeypatch.setattr(acceleration.importlib.util, "find_spec", lambda name: None)
    model = network_of(ChainArchitecture(2, 4))
    with pytest.warns(UserWarning, match=r"need Triton.*optnas\[kernels\]"):
        assert acceleration.accelerated(model, TrainSettings(), DEVICE) is model


def test_several_processes_train_without_them(supported, accelerated, monkeypatch):
    monkeypatch.setattr(steps, "is_accelerated", acceleration.is_accelerated)
    distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
    try:
        images, recipe = random_images(24).to(DEVICE), TrainSettings(batch_size=16)
        model = network_of(ChainArchitecture(2, 4))
        several = DistributedTrainer(model, images, recipe, ranks=Ranks(), epochs=1, seed=0)
        assert "SynchronisedBatchNorm2d" in kinds_of(several.model)
        assert not kinds_of(several.model) & {"_Depthwise", "_BatchNormReLU", "_Done"}
        assert several.train_epoch().train_loss > 0
        assert several._flat is None
    finally:
        distributed.destroy_process_group()


def test_a_super_network_may_be_differentiated_twice(supported):
    def eigenvalue(own: bool) -> float:
        generator = torch.Generator().manual_seed(0)
        space, options = CellSpace(nodes=1), {"cells": 2, "channels": 4, "partial": 2}
        operations = ("skip_connect", "sep_conv_3x3")
        model = build_supernet(space, (3, 8, 8), 4, generator, operations=operations, **options)
        model = model.to(DEVICE).to(memory_format=torch.channels_last)
        model = kernels.use_kernels(model, DEVICE) if own else model
        images = features((4, 3, 8, 8), torch.float32).detach()
        labels = torch.arange(4, device=DEVICE)
        return hessian_eigenvalue(model, images, labels, generator, iterations=2)

    assert eigenvalue(True) == pytest.approx(eigenvalue(False), rel=0.01)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="they are compiled as it is")
def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(Path(__file__).with_name("compiling.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = [json.loads(line) for line in done.stdout.splitlines()]
    # One of a kind, for all shapes.
    kinds = {(each["program"], each["type"], *each["kind"].items()) for each in made}
    assert len(made) == len(kinds) == 16
    # Where channels are aligned, nothing spills, and features are moved 16 bytes at a time.
    for each in made:
        if each["kind"].get("ALIGN") == 8:
            assert not each["spilled"]
            assert each["moves"]["ld.global.v4.b32"] > 0
            assert not any(".b16" in name for name in each["moves"])
