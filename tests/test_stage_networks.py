"""Networks of stages: published sizes and costs, torchvision's ResNets, features per stage."""

import math

import pytest
import torch
import torchvision
from torch import nn

from optnas.objectives.networks.build import build_model
from optnas.objectives.networks.costs import count_multiply_adds, count_params, forward_costs
from optnas.objectives.networks.stages import count_keras_params, stage_network
from optnas.spaces import StageArchitecture

CIFAR10 = (3, 32, 32)


pytestmark = pytest.mark.usefixtures("one_thread")


def sized(modules, block="basic", classes=10) -> nn.Module:
    """A network without weights, to be counted."""
    with torch.device("meta"):
        return stage_network(StageArchitecture(modules, block), 3, classes)


def drawn(modules, block="basic", shape=(3, 16, 16), classes=7) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return build_model(StageArchitecture(modules, block), shape, classes, generator)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("modules", "keras", "trainable", "biases", "millions"),
    [
        ((6, 6, 6), 568_106, 565_386, 1_456, 83.3),
        ((6, 8, 6), 605_610, 602_634, 1_584, 92.7),
        ((10, 14, 8), 885_930, 881_418, 2_352, 149.3),
        ((7, 7, 7), 665_994, 662_826, 1_680, 97.4),
        ((18, 18, 18), 1_742_762, 1_734_666, 4_144, 253.1),
    ],
)
def test_residual_networks_have_the_published_sizes_and_costs(
    modules, keras, trainable, biases, millions
):
    model = sized(modules)
    assert count_keras_params(model) == keras
    assert count_params(model) == trainable
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    assert sum(part.bias.numel() for part in convolutions) == biases
    assert round(count_multiply_adds(model, CIFAR10) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("modules", "keras", "millions"),
    [
        ((2, 4, 4), 362_794, 45.5),
        ((4, 6, 4), 409_834, 64.4),
        ((10, 10, 10), 959_658, 139.9),
        ((10, 10, 12), 1_108_394, 149.3),
        ((6, 8, 10), 903_082, 111.6),
        ((6, 10, 14), 1_238_058, 139.9),
        ((8, 10, 6), 652_650, 111.6),
        ((10, 12, 8), 848_426, 139.9),
    ],
)
def test_found_residual_networks_have_the_published_sizes_and_costs(modules, keras, millions):
    model = sized(modules)
    assert count_keras_params(model) == keras
    assert round(count_multiply_adds(model, CIFAR10) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("modules", "mebibytes"),
    [
        ((7, 7, 7), 8.14),
        ((9, 9, 9), 10.42),
        ((18, 18, 18), 20.67),
        ((2, 4, 4), 3.81),
        ((6, 8, 6), 7.58),
        ((10, 10, 12), 12.34),
        ((6, 8, 10), 9.16),
    ],
)
def test_residual_networks_take_the_published_memory(modules, mebibytes):
    memory = forward_costs(sized(modules), CIFAR10).memory_bytes / 2**20
    assert math.floor(100 * memory) / 100 == mebibytes


@pytest.mark.parametrize(("stage", "params"), [(0, 4_768), (1, 18_752), (2, 74_368)])
def test_a_residual_block_more_has_its_published_size(stage, params):
    modules = [6, 6, 6]
    modules[stage] += 1
    assert count_keras_params(sized(modules)) - 568_106 == params


@pytest.mark.parametrize(
    ("modules", "keras", "dense"),
    [
        ((2, 3, 2), 1_384_554, 1.8),
        ((3, 3, 2), 1_413_546, None),
        ((3, 4, 2), 1_516_586, 2.2),
        ((4, 4, 3), 1_931_882, None),
        ((5, 4, 4), 2_347_178, 2.9),
        ((4, 4, 4), 2_318_186, 2.7),
        ((5, 5, 5), 2_836_522, 3.2),
        ((6, 6, 6), 3_354_858, 3.8),
    ],
)
def test_cell_networks_have_the_published_sizes(modules, keras, dense):
    model = sized(modules, "nasnet")
    assert count_keras_params(model) == keras
    if dense is not None:
        # The paper counts separable convolutions as full ones, and cuts the decimals off.
        assert int(dense_multiply_adds(model) / 1e8) / 10 == dense


def dense_multiply_adds(model: nn.Module) -> int:
    """Multiply-adds of a CIFAR image if every separable convolution were a full one."""
    total, kernel = 0, None

    def add(part, _, output):
        nonlocal total, kernel
        if part.groups > 1:
            kernel = part.kernel_size
        else:
            height, width = kernel or part.kernel_size
            total += height * width * part.in_channels * output.numel()
            kernel = None

    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(add)
    model.eval()(torch.zeros(1, *CIFAR10, device="meta"))
    return total + model.classifier.weight.numel()


@pytest.mark.parametrize("block", ["basic", "bottleneck", "nasnet"])
@pytest.mark.parametrize("modules", [(1,), (2, 1), (1, 3, 2), (2, 1, 1, 2)])
def test_depth_is_the_number_of_convolutions(block, modules):
    convolutions = [
        part for part in sized(modules, block).modules() if isinstance(part, nn.Conv2d)
    ]
    # The depthwise part of a separable convolution is not counted apart.
    counted = sum(part.groups == 1 for part in convolutions)
    assert StageArchitecture(modules, block).depth == counted


@pytest.mark.parametrize(
    ("name", "modules", "params", "multiply_adds"),
    [
        ("resnet50", (3, 4, 6, 3), 25_557_032, 4_089_184_256),
        ("resnet101", (3, 4, 23, 3), 44_549_160, 7_801_405_440),
    ],
)
def test_bottleneck_networks_are_as_large_as_torchvisions(name, modules, params, multiply_adds):
    model = sized(modules, "bottleneck", classes=1000)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name)
    assert count_params(model) == count_params(theirs) == params
    costs = {count_multiply_adds(network, (3, 224, 224)) for network in (model, theirs)}
    assert costs == {multiply_adds}


def test_bottleneck_networks_compute_what_torchvisions_do():
    ours = drawn((2, 1, 2, 1), "bottleneck")
    theirs = torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [2, 1, 2, 1], num_classes=7
    )
    # In the same order but for the shortcuts, which come last in either.
    for mine, their in zip(
        [p for p in ours.modules() if isinstance(p, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))],
        [p for p in theirs.modules() if isinstance(p, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))],
        strict=True,
    ):
        mine.load_state_dict(their.state_dict())
    images = noise(4, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize(
    ("block", "channels"),
    [
        ("basic", (16, 32, 64)),
        ("bottleneck", (256, 512, 1024)),
        ("nasnet", (192, 384, 768)),
    ],
)
def test_stages_halve_the_resolution_and_double_the_channels(block, channels):
    model = drawn((1, 2, 1), block, (1, 32, 32)).eval()
    outputs = list(model.stage_outputs(noise(2, 1, 32, 32)))
    side = 8 if block == "bottleneck" else 32
    assert [tuple(o.shape) for o in outputs] == [
        (2, count, side >> i, side >> i) for i, count in enumerate(channels)
    ]


@pytest.mark.parametrize("block", ["basic", "bottleneck", "nasnet"])
def test_the_logits_come_from_the_last_stage_after_its_relu(block):
    model = drawn((2, 1), block).eval()
    images = noise(3, 3, 16, 16)
    *_, last = model.stage_outputs(images)
    assert last.min() < 0
    torch.testing.assert_close(model(images), model.classifier(last.relu().mean((2, 3))))


def test_a_stage_is_looked_at_without_computing_those_after_it():
    model = drawn((1, 1, 1))
    model.stages[1] = None
    assert next(model.stage_outputs(noise(1, 3, 8, 8))).shape == (1, 16, 8, 8)


@pytest.mark.parametrize("block", ["basic", "bottleneck", "nasnet"])
@pytest.mark.parametrize("side", [5, 8])
def test_small_and_odd_images_are_trained_on(block, side):
    model = drawn((1, 1, 1), block, (1, side, side))
    model(noise(4, 1, side, side)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_deeper_networks_share_the_names_of_shallower_ones():
    for block in ("basic", "bottleneck", "nasnet"):
        shallow = {k: v.shape for k, v in sized((2, 3, 2), block).state_dict().items()}
        deep = {k: v.shape for k, v in sized((4, 5, 4), block).state_dict().items()}
        assert shallow.items() <= deep.items()


@pytest.mark.parametrize(
    ("block", "stem", "side"),
    [
        ("basic", "small", 32),
        ("basic", "7x7", 8),
        ("basic", "large", 4),
        ("bottleneck", None, 8),
        ("bottleneck", "small", 32),
        ("nasnet", "7x7", 8),
        ("nasnet", "large", 4),
    ],
)
def test_a_stem_may_be_for_larger_images(block, stem, side):
    with torch.device("meta"):
        model = stage_network(StageArchitecture((1, 1), block), 3, 10, stem=stem)
        features = next(model.stage_outputs(torch.zeros(2, 3, 32, 32)))
    assert features.shape[2:] == (side, side)


def test_the_stem_of_bottlenecks_is_the_one_for_imagenet():
    architecture = StageArchitecture((1, 1), "bottleneck")
    own, named = (
        build_model(architecture, (3, 32, 32), 7, torch.Generator().manual_seed(0), **stem).eval()
        for stem in ({}, {"stem": "7x7"})
    )
    torch.testing.assert_close(own(noise(2, 3, 32, 32)), named(noise(2, 3, 32, 32)))
    with pytest.raises(ValueError, match="`stem` must be 'small', 'large' or '7x7'"):
        stage_network(architecture, 3, 7, stem="9x9")
