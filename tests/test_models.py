"""Networks: their size, their cost and their first weights."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optnas.objectives.inheritance.adapters import inherit
from optnas.objectives.networks.build import BUILDERS, ChainNetwork, build_model
from optnas.objectives.networks.costs import count_multiply_adds, count_params, forward_costs
from optnas.objectives.networks.initialisation import initialise
from optnas.spaces import Architecture, ChainArchitecture


def chain(depth: int, width: int, convs: tuple[int, ...] = (), fives: tuple[int, ...] = ()):
    return ChainArchitecture(
        depth,
        width,
        tuple("conv" if i in convs else "separable" for i in range(depth)),
        tuple(5 if i in fives else 3 for i in range(depth)),
    )


@st.composite
def chains(draw) -> ChainArchitecture:
    depth = draw(st.integers(1, 9))
    return ChainArchitecture(
        depth,
        draw(st.integers(1, 12)),
        tuple(
            draw(st.lists(st.sampled_from(("separable", "conv")), min_size=depth, max_size=depth))
        ),
        tuple(draw(st.lists(st.sampled_from((3, 5, 7)), min_size=depth, max_size=depth))),
    )


def hand_count(architecture: ChainArchitecture, shape: tuple[int, int, int], classes: int) -> int:
    """Multiply-adds in closed form: taps x channels x positions of the output."""
    channels = architecture.channels()
    height, width = shape[1:]
    total = 9 * shape[0] * channels[0] * height * width
    for i, (operation, kernel) in enumerate(
        zip(architecture.operations, architecture.kernels, strict=True)
    ):
        before, after = channels[i], channels[i + 1]
        if i in architecture.reductions:
            height, width = (height + 1) // 2, (width + 1) // 2
        taps = kernel * kernel
        per_position = before * taps * after if operation == "conv" else before * (taps + after)
        total += per_position * height * width
    return total + channels[-1] * classes


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return model.state_dict()


def same(a: nn.Module, b: nn.Module) -> bool:
    return state(a).keys() == state(b).keys() and all(
        torch.equal(value, state(b)[name]) for name, value in state(a).items()
    )


@pytest.mark.parametrize(
    ("architecture", "in_channels", "classes", "expected"),
    [
        (chain(10, 64), 3, 10, 309_450),
        (chain(11, 64), 3, 10, 327_242),
        (chain(13, 64), 3, 10, 400_394),
        (chain(26, 64), 3, 10, 781_962),
        (chain(26, 46), 3, 10, 413_826),
        (chain(10, 128), 3, 10, 1_192_330),
        (chain(10, 64), 1, 10, 307_146),
        (chain(10, 64), 3, 100, 332_580),
        (chain(26, 46, convs=(0, 2), fives=(13, 17)), 3, 10, 466_312),
        (chain(21, 56, fives=(3,)), 3, 100, 488_588),
    ],
)
def test_built_networks_have_the_published_sizes(architecture, in_channels, classes, expected):
    model = build_model(architecture, (in_channels, 32, 32), classes)
    assert count_params(model) == expected == architecture.num_params(in_channels, classes)


@settings(max_examples=40, deadline=None)
@given(chains(), st.sampled_from((1, 3)), st.integers(2, 12))
def test_built_size_is_the_closed_form(architecture, in_channels, classes):
    model = build_model(architecture, (in_channels, 8, 8), classes)
    assert count_params(model) == architecture.num_params(in_channels, classes)


@settings(max_examples=30, deadline=None)
@given(chains(), st.sampled_from((1, 3)), st.integers(1, 13), st.integers(1, 13))
def test_multiply_adds_are_the_hand_count(architecture, in_channels, height, width):
    shape = (in_channels, height, width)
    model = build_model(architecture, shape, 5)
    assert count_multiply_adds(model, shape) == hand_count(architecture, shape, 5)


def test_a_stem_may_be_for_larger_images():
    chain = ChainArchitecture(3, 8)
    small = count_params(build_model(chain, (3, 32, 32), 10))
    for stem, side, more in (("7x7", 8, (49 - 9) * 3 * 16), ("large", 4, None)):
        model = build_model(chain, (3, 32, 32), 10, stem=stem)
        assert model.stem(torch.zeros(1, 3, 32, 32)).shape == (1, 16, side, side)
        assert more is None or count_params(model) == small + more
    with pytest.raises(ValueError, match="`stem` must be"):
        build_model(chain, (3, 32, 32), 10, stem="9x9")


def test_multiply_adds_of_one_small_network_in_numbers():
    # stem 4x4x9x1x4, depthwise 4x4x9x4, pointwise 4x4x4x2 at depth 1: both reductions fall on
    # the only layer, which halves 4x4 to 2x2 and has 4 channels; linear 4x3.
    model = build_model(ChainArchitecture(1, 2), (1, 4, 4), 3)
    assert count_multiply_adds(model, (1, 4, 4)) == 576 + 4 * (36 + 16) + 12


def test_memory_is_that_of_weights_statistics_and_outputs():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, padding=1),  # 20 weights, 32 outputs
        torch.nn.BatchNorm2d(2),  # 4 weights, 4 statistics, 32 outputs
        torch.nn.ReLU(),  # 32 outputs
        torch.nn.MaxPool2d(2),  # 8 outputs; where they came from does not count
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),  # 27 weights, 3 outputs
    )
    costs = forward_costs(model, (1, 4, 4))
    assert costs.memory_bytes == 4 * (16 + 52 + 72 + 8 + 30)
    assert costs.multiply_adds == 16 * 18 + 24


def test_counting_leaves_the_model_as_it_was():
    model = build_model(ChainArchitecture(3, 4), (3, 8, 8), 10)
    model.classifier.eval()
    before = {name: value.clone() for name, value in state(model).items()}
    count_multiply_adds(model, (3, 8, 8))
    assert model.training
    assert not model.classifier.training
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_counting_sees_only_its_own_thread():
    model = build_model(ChainArchitecture(3, 4), (3, 8, 8), 10)
    other = build_model(ChainArchitecture(3, 4), (3, 8, 8), 10)
    expected = count_multiply_adds(model, (3, 8, 8))
    stop = threading.Event()

    def train() -> None:
        while not stop.is_set():
            other(torch.zeros(2, 3, 8, 8)).sum().backward()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        counts = {count_multiply_adds(model, (3, 8, 8)) for _ in range(20)}
    finally:
        stop.set()
        thread.join()
    assert counts == {expected}


def test_operations_that_are_not_counted_are_said_in_one_line():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, images):
            return self.head(self.layer(images.flatten(0, 1))[0])

    with pytest.warns(UserWarning, match="multiply-adds of recurrent layers are not") as said:
        counted = count_multiply_adds(Recurrent(), (1, 3, 4))
    assert counted == 3 * 4 * 2
    assert "\n" not in str(said[0].message)
    assert len(said) == 1


@pytest.mark.parametrize("size", [1, 2, 5, 28, 32])
def test_logits_have_one_value_per_class(size):
    model = build_model(chain(4, 3, convs=(1,), fives=(2,)), (1, size, size), 7)
    assert model.eval()(torch.zeros(2, 1, size, size)).shape == (2, 7)


def test_the_forward_pass_leaves_its_input_alone():
    model = build_model(ChainArchitecture(2, 2), (1, 8, 8), 2)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    copy = images.clone()
    model(images)
    assert torch.equal(images, copy)


def test_equal_seeds_give_equal_weights_and_the_global_generator_is_untouched():
    before = torch.random.get_rng_state()
    models = [
        build_model(chain(4, 4, convs=(1,)), (3, 8, 8), 10, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_weights_are_drawn_as_pytorch_does():
    architecture = chain(4, 4, convs=(1,), fives=(2,))
    ours = build_model(architecture, (3, 8, 8), 10, torch.Generator().manual_seed(5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = ChainNetwork(architecture, 3, 10)
        torch.manual_seed(5)
        by_default = build_model(architecture, (3, 8, 8), 10)
    assert same(ours, theirs)
    assert same(ours, by_default)


class Scale(nn.Module):
    """Weights that only the constructor knows."""

    def __init__(self, classes: int):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1, classes))
        self.register_buffer("order", torch.randperm(classes))

    def forward(self, logits):
        return logits * self.scale


def test_unknown_modules_are_not_initialised_silently():
    with pytest.raises(TypeError, match="`1` of type Scale"):
        initialise(nn.Sequential(nn.Linear(2, 2), Scale(2)))


class LooksAtItsNumbers(nn.Module):
    """A constructor that cannot run on the meta device."""

    def __init__(self, classes: int):
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 1, classes)]
        self.layer = nn.Linear(classes, classes)

    def forward(self, logits):
        return self.layer(logits)


class Gain(nn.Conv2d):
    """Inherits a `reset_parameters` that does not know of all its parameters."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 1)
        self.gain = nn.Parameter(torch.empty(channels, 1, 1).fill_(0.5))

    def forward(self, images):
        return super().forward(images) * self.gain


class Residual(nn.Module):
    """Sets the weights of a layer of torch.nn anew, and keeps a tensor that is no buffer."""

    def __init__(self, channels: int):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.layer.weight)
        self.scale = torch.full((channels, 1, 1), 0.5)

    def forward(self, images):
        return images + self.scale * self.layer(images)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.second.weight = self.first.weight

    def forward(self, images):
        return self.second(self.first(images))


LAYERS = {
    "gain": lambda n, side: Gain(n),
    "residual": lambda n, side: Residual(n),
    "tied": lambda n, side: Tied(n),
    "lazy": lambda n, side: nn.Sequential(nn.LazyConv2d(3, 1), nn.LazyBatchNorm2d()),
    "spectral norm": lambda n, side: nn.utils.spectral_norm(nn.Conv2d(n, n, 1)),
    "prelu": lambda n, side: nn.PReLU(n),
    "group norm": lambda n, side: nn.GroupNorm(1, n),
    "layer norm": lambda n, side: nn.LayerNorm([n, side, side]),
    "rms norm": lambda n, side: nn.RMSNorm([side]),
    "instance norm": lambda n, side: nn.InstanceNorm2d(n, affine=True, track_running_stats=True),
    "transposed": lambda n, side: nn.ConvTranspose2d(n, n, 3, stride=2, padding=1, bias=True),
    "grouped": lambda n, side: nn.Conv2d(n, n, 3, groups=n),
    "linear": lambda n, side: nn.Linear(side, 3),
    "volume": lambda n, side: nn.Sequential(nn.Unflatten(1, (1, n)), nn.Conv3d(1, 2, 1)),
    "scale": lambda n, side: Scale(side),
    "list": lambda n, side: LooksAtItsNumbers(side),
    "weight norm": lambda n, side: nn.utils.parametrizations.weight_norm(nn.Conv2d(n, n, 1)),
}


class Own(nn.Module):
    def __init__(self, layer: str, in_channels: int, classes: int):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 4, 1)
        self.own = LAYERS[layer](4, 5)

    def forward(self, images):
        return self.own(self.stem(images)).flatten(1)


class OwnArchitecture(ChainArchitecture):
    pass


@pytest.fixture
def own(monkeypatch):
    """Builds networks with one of `LAYERS`."""
    named = {}
    monkeypatch.setitem(BUILDERS, OwnArchitecture, lambda a, i, c: Own(named["layer"], i, c))

    def build(layer: str, seed: int) -> nn.Module:
        named["layer"] = layer
        generator = torch.Generator().manual_seed(seed)
        return build_model(OwnArchitecture(1, 1), (3, 5, 5), 2, generator)

    return build


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_ones_own_are_drawn_from_the_generator_alone(own, layer):
    before = torch.get_rng_state()
    first, again, other = own(layer, 1), own(layer, 1), own(layer, 2)
    assert torch.equal(before, torch.get_rng_state())
    assert same(first, again)
    assert not same(first, other)
    assert all(torch.isfinite(value).all() for value in state(first).values())
    assert not any(value.is_meta for value in state(first).values())


def test_what_a_constructor_sets_stays(own):
    scale = own("scale", 3).own
    assert torch.equal(scale.scale, torch.linspace(0.5, 1, 5))
    assert sorted(scale.order.tolist()) == list(range(5))
    assert (own("gain", 3).own.gain == 0.5).all()
    residual, tied = own("residual", 3).own, own("tied", 3).own
    assert not residual.layer.weight.any()
    assert residual.scale.tolist() == [[[0.5]]] * 4
    assert tied.first.weight is tied.second.weight


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("prelu", 0),
        ("group norm", 0),
        ("layer norm", 0),
        ("rms norm", 0),
        ("instance norm", 0),
        ("transposed", 25 * 4 * 4 * 9),  # Every pixel of the input meets the whole kernel.
        ("grouped", 9 * 4 * 9),
        ("linear", 4 * 5 * 5 * 3),
        ("volume", 4 * 25 * 2),
        ("scale", 0),
        ("weight norm", 25 * 4 * 4),
        ("tied", 2 * 25 * 4 * 4),
        ("lazy", 25 * 4 * 3),
    ],
)
def test_layers_of_ones_own_are_counted(own, layer, expected):
    assert count_multiply_adds(own(layer, 0), (3, 5, 5)) == 25 * 3 * 4 + expected


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_ones_own_are_inherited(own, layer):
    parent, child = own(layer, 1), own(layer, 2)
    assert inherit(child, state(parent)) == len(state(parent))
    assert same(parent, child)


def test_attention_is_counted():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return nn.functional.scaled_dot_product_attention(images, images, images)

    # Queries by keys, then weights by values: 6 x 6 x 8 each, for two heads.
    assert count_multiply_adds(Attention(), (2, 6, 8)) == 2 * (2 * 6 * 6 * 8)


@pytest.mark.parametrize(
    "shape", [(3, 8), (3, 8, 8, 8), (0, 8, 8), (3, -1, 8), (3, 8.0, 8), (True, 8, 8)]
)
def test_shapes_must_be_three_positive_integers(shape):
    with pytest.raises(ValueError, match="`input_shape` must hold three positive integers"):
        build_model(ChainArchitecture(1, 1), shape, 10)


def test_two_classes_are_the_least():
    with pytest.raises(ValueError, match="`classes` must be greater"):
        build_model(ChainArchitecture(1, 1), (1, 8, 8), 1)


def test_unknown_architectures_are_refused():
    with pytest.raises(TypeError, match="No network for Architecture; known: ChainArchitecture"):
        build_model(Architecture(), (1, 8, 8), 2)


def test_weights_have_the_spread_of_the_fan_in():
    model = build_model(ChainArchitecture(1, 64), (3, 8, 8), 10, torch.Generator().manual_seed(0))
    weights = model.stem[0].weight.detach().numpy()
    bound = 1 / np.sqrt(27)
    assert np.abs(weights).max() <= bound
    assert weights.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
