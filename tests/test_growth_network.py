"""Networks that grow: their sizes, any resolution, and what a child has of its parent."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from optnas.config.settings import TrainSettings
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import Images
from optnas.objectives.networks.build import build_model
from optnas.objectives.networks.costs import count_multiply_adds, count_params
from optnas.objectives.networks.growth import GrowthNetwork, ResidualCell
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import GrowthArchitecture, GrowthSpace, Increment

CIFAR10 = (3, 32, 32)
modes = pytest.mark.parametrize("mode", ["macro", "cell"])
gates = pytest.mark.parametrize("gate", [False, True], ids=["plain", "gate"])


pytestmark = pytest.mark.usefixtures("one_thread")


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def chain(space: GrowthSpace, rounds: int, seed: int = 0) -> list[GrowthArchitecture]:
    """The initial network and its descendants, one per round."""
    result = [space.initial()]
    for index in range(rounds):
        result.append(space.grow(result[-1], 1000 * seed + index))
    return result


def small(
    architecture: GrowthArchitecture | None = None,
    shape: tuple[int, int, int] = (3, 8, 8),
    seed: int = 0,
    **options,
) -> nn.Module:
    """A network for seven classes, by default of a small architecture with all operations."""
    if architecture is None:
        architecture = chain(GrowthSpace(cells=1, channels=4), 3)[-1]
    generator = torch.Generator().manual_seed(seed)
    return build_model(architecture, shape, 7, generator, **options)


def shake(model: nn.Module) -> nn.Module:
    """Give gates and statistics values that a training might have left."""
    generator = torch.Generator().manual_seed(9)
    for name, tensor in model.state_dict().items():
        if name.endswith(("scale", "running_mean", "running_var", "bias")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model


# Sizes.


@pytest.mark.parametrize("cells", [1, 3, 6])
def test_the_initial_network_has_the_size_counted_by_hand(cells):
    architecture = GrowthSpace(cells).initial()
    model = build_model(architecture, CIFAR10, 10)
    # The stem and its projection, the reduction cells, and what comes after the last cell.
    params = 2784 + 3136 + 16_000 + 60_672 + 256 + 1290 + cells * (2752 + 9600 + 35_584)
    assert count_params(model) == architecture.num_params(3, 10) == params
    convolutions = (27 * 96 + 96 * 32) * 1024
    convolutions += 32 * 64 * 1024 + (2 * (9 * 64 + 64**2) + 64**2) * 256
    convolutions += 64 * 128 * 256 + (2 * (9 * 128 + 128**2) + 128**2) * 64
    for channels, pixels in ((32, 1024), (64, 256), (128, 64)):
        convolutions += cells * 2 * (9 * channels + channels**2) * pixels
    assert count_multiply_adds(model, CIFAR10) == convolutions + 1280


def test_the_network_of_the_paper_has_0_4_million_parameters():
    model = build_model(GrowthSpace().initial(), CIFAR10, 10)
    assert count_params(model) == 371_754
    assert count_multiply_adds(model, CIFAR10) == 60_671_232


@pytest.mark.parametrize(
    ("target", "inputs", "operations", "params"),
    [
        (2, (1, 1, 1), ("identity",) * 3, 3136),
        (2, (1, 1, 1), ("max_pool_3x3", "avg_pool_3x3", "identity"), 3136),
        (8, (7, 7, 7), ("identity",) * 3, 12_416),
        (15, (14, 14, 14), ("identity",) * 3, 49_408),
        (2, (1, 1, 1), ("sep_conv_3x3", "identity", "identity"), 3136 + 2752),
        (2, (1, 1, 1), ("identity", "sep_conv_5x5", "identity"), 3136 + 3776),
        # From the stem: 96 to 32 channels; from other resolutions: each step halves and doubles.
        (2, (1, 0, 1), ("identity",) * 3, 3136 + 96 * 32 + 64),
        (8, (7, 1, 1), ("identity",) * 3, 12_416 + 2 * (32 * 64 + 128)),
        (7, (6, 0, 6), ("identity",) * 3, 12_416 + 2 * (32 * 64 + 128) + 96 * 64 + 128),
        (
            15,
            (14, 0, 14),
            ("identity",) * 3,
            49_408 + 96 * 64 + 128 + 64 * 128 + 256,
        ),
    ],
)
def test_an_increment_has_the_known_size(target, inputs, operations, params):
    initial = GrowthSpace().initial()
    child = dataclasses.replace(initial, increments=(Increment(target, inputs, operations),))
    assert child.num_params(3, 10) - initial.num_params(3, 10) == params
    assert count_params(build_model(child, CIFAR10, 10)) == child.num_params(3, 10)


@modes
def test_parameters_are_counted_in_closed_form(mode):
    for architecture in chain(GrowthSpace(2, 6, mode), 3):
        model, gated = small(architecture), small(architecture, gate=True)
        assert count_params(model) == architecture.num_params(3, 7)
        number = len(architecture.unrolled().increments)
        assert count_params(gated) == architecture.num_params(3, 7) + number
        costs = [count_multiply_adds(m, (3, 8, 8)) for m in (model, gated)]
        assert costs[0] == costs[1]
    paper = chain(GrowthSpace(mode=mode), 3)[-1]
    assert count_params(build_model(paper, CIFAR10, 10)) == paper.num_params(3, 10)


def test_a_cell_network_is_that_of_its_unrolled_architecture():
    architecture = chain(GrowthSpace(2, 4, "cell"), 2)[-1]
    first, second = small(architecture), small(architecture.unrolled())
    images = noise(2, 3, 8, 8)
    assert torch.equal(first.eval()(images), second.eval()(images))


# Shapes.


@modes
@pytest.mark.parametrize("seed", range(10))
def test_shapes_fit_wherever_a_network_grows(mode, seed):
    cells, channels = (6, 32) if seed == 0 else (1 + seed % 3, 1 + seed % 5)
    space = GrowthSpace(cells, channels, mode)
    architecture = chain(space, 4, seed)[-1]
    logits = small(architecture)(noise(2, 3, 8, 8))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@modes
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 1, 1), (1, 5, 7)])
def test_images_of_any_size_are_classified_and_learnt_from(mode, shape):
    model = small(chain(GrowthSpace(1, 4, mode), 2)[-1], shape)
    sizes: list[torch.Size] = []
    for cell in model.cells:
        cell.register_forward_hook(lambda _, args, output: sizes.append(output.shape[2:]))
    logits = model(noise(3, *shape))
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    half = tuple(-(-side // 2) for side in shape[1:])
    quarter = tuple(-(-side // 2) for side in half)
    assert sizes == [shape[1:], half, half, quarter, quarter]
    assert model.eval()(noise(1, *shape)).isfinite().all()


@modes
@gates
def test_every_parameter_is_learnt(mode, gate):
    # Wide enough that no ReLU is dead for all images.
    model = small(chain(GrowthSpace(2, 16, mode), 3)[-1], gate=gate)
    if gate:
        shake(model)
    model(noise(8, 3, 8, 8)).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_a_shut_gate_learns_before_what_is_behind_it():
    model = small(gate=True)
    model(noise(4, 3, 8, 8)).square().sum().backward()
    gates = [name for name, _ in model.named_parameters() if name.endswith("gate.scale")]
    assert len(gates) == 15
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert any(gradients[name].any() for name in gates)
    behind = [g for name, g in gradients.items() if "increments" in name and name not in gates]
    assert not any(gradient.any() for gradient in behind)


@modes
def test_channels_last_and_deterministic_algorithms_change_nothing(mode):
    architecture = chain(GrowthSpace(1, 4, mode), 3)[-1]
    images, results = noise(4, 3, 8, 8), []
    torch.use_deterministic_algorithms(True)
    try:
        for layout in (torch.contiguous_format, torch.channels_last):
            model = small(architecture).to(memory_format=layout)
            logits = model(images.to(memory_format=layout))
            logits.square().sum().backward()
            results.append((logits, model.stem[0].weight.grad))
    finally:
        torch.use_deterministic_algorithms(False)
    for plain, other in zip(*results, strict=True):
        assert torch.allclose(plain, other, rtol=1e-3, atol=1e-4)


# What layers compute.


def test_increments_are_added_to_the_output_of_their_cell():
    layers = GrowthArchitecture(
        1,
        4,
        increments=(
            Increment(1, (0, 0, 0), ("identity", "max_pool_3x3", "sep_conv_3x3")),
            Increment(2, (1, 6, 0), ("identity", "identity", "avg_pool_3x3")),
            Increment(2, (1, 7, 1), ("identity", "identity", "identity")),
        ),
    )
    model = shake(small(layers)).eval()
    images = noise(2, 3, 8, 8)
    stem = model.stem(images)
    added = model.increments[0][0]([stem, stem, stem])
    one = model.cells[0](stem) + added
    first = model.increments[1][0]([one, added, stem])
    second = model.increments[1][1]([one, first, one])
    features = model.cells[1](one) + first + second
    for cell in model.cells[2:]:
        features = cell(features)
    features = model.normalisation(features).relu().mean((2, 3))
    assert torch.equal(model(images), model.classifier(features))


def test_an_increment_joins_its_operations():
    increment = Increment(3, (2, 2, 2), ("identity", "max_pool_3x3", "avg_pool_3x3"))
    part = small(GrowthArchitecture(1, 4, increments=(increment,))).eval().increments[2][0]
    features = [noise(2, 8, 5, 5, seed=seed) for seed in range(3)]
    parts = [
        features[0],
        nn.functional.max_pool2d(features[1], 3, 1, 1),
        nn.functional.avg_pool2d(features[2], 3, 1, 1, count_include_pad=False),
    ]
    assert torch.equal(part(features), part.projection(torch.cat(parts, 1)))


def test_a_regular_cell_adds_its_input():
    cell = ResidualCell(6, 6, reduction=False).eval()
    nn.init.zeros_(cell.operation[-1].weight)
    features = noise(2, 6, 5, 5)
    assert torch.equal(cell(features), features)


def test_layers_that_nothing_takes_any_more_are_not_kept():
    model = small(chain(GrowthSpace(1, 4), 3)[-1])
    freed = [layer for layers in model._last_uses for layer in layers]
    assert sorted(freed) == [*range(5), *range(6, 21)]


# Parents and children.


@modes
@gates
def test_a_child_has_every_tensor_of_its_parent(mode, gate):
    networks = [small(a, gate=gate).state_dict() for a in chain(GrowthSpace(2, 4, mode), 3)]
    for parent, child in itertools.pairwise(networks):
        assert len(child) > len(parent)
        for name, tensor in parent.items():
            assert child[name].shape == tensor.shape
            assert child[name].dtype == tensor.dtype


@modes
def test_behind_shut_gates_a_child_computes_what_its_parent_computes(mode):
    images = noise(4, 3, 8, 8)
    for before, after in itertools.pairwise(chain(GrowthSpace(2, 4, mode), 3)):
        parent = shake(small(before, gate=True)).eval()
        child = small(after, seed=5, gate=True).eval()
        assert not torch.allclose(child(images), parent(images))
        child.load_state_dict(parent.state_dict(), strict=False)
        assert torch.equal(child(images), parent(images))


def test_equal_seeds_give_equal_weights_and_the_global_generator_is_untouched():
    before = torch.random.get_rng_state()
    states = [small(seed=seed, gate=True).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


# Drop-path.


def drop_path_model(drop_path: float = 0.5, **options) -> nn.Module:
    model = small(drop_path=drop_path, **options)
    model.generator = torch.Generator().manual_seed(3)
    return model


def test_drop_path_draws_from_its_own_generator_alone():
    before = torch.random.get_rng_state()
    images = noise(4, 3, 8, 8)
    results = [drop_path_model()(images) for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(*results)
    other = drop_path_model()
    other.generator.manual_seed(4)
    assert not torch.equal(other(images), results[0])


def test_drop_path_is_for_training_and_can_be_set():
    images = noise(4, 3, 8, 8)
    plain, dropped = small(), drop_path_model()
    assert torch.equal(plain.eval()(images), dropped.eval()(images))
    assert torch.equal(plain.train()(images), drop_path_model(0.0)(images))
    expected = dropped.train()(images)
    assert not torch.equal(plain(images), expected)
    plain.drop_path, plain.generator = 0.5, torch.Generator().manual_seed(3)
    assert torch.equal(plain(images), expected)


def test_drop_path_rises_with_the_layer_and_keeps_the_mean():
    architecture = GrowthArchitecture(
        1,
        4,
        increments=(
            Increment(2, (1, 1, 1), ("sep_conv_3x3", "identity", "max_pool_3x3")),
            Increment(5, (4, 4, 4), ("identity", "identity", "avg_pool_3x3")),
        ),
    )
    model = drop_path_model(0.5, architecture=architecture)
    scales = torch.stack(list(model._scales(torch.zeros(4096, 1, 1, 1)))).flatten(1)
    # The five cells, with two operations beside the second and one beside the fifth.
    rates = [0.1, 0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.5]
    assert scales.shape == (8, 4096)
    for row, rate in zip(scales, rates, strict=True):
        assert (row == 0).float().mean() == pytest.approx(rate, abs=0.03)
        assert row.max() == pytest.approx(1 / (1 - rate))
    model(noise(6, 3, 8, 8))  # Were there a scale too few, this would raise.


def test_drop_path_spares_identities_and_shortcuts():
    increment = Increment(2, (1, 1, 1), ("identity", "sep_conv_3x3", "max_pool_3x3"))
    model = small(GrowthArchitecture(1, 4, increments=(increment,)))
    zero = torch.zeros(2, 1, 1, 1)
    part, features = model.increments[1][0].eval(), noise(2, 4, 8, 8)
    inputs = [features] * 3
    identity = part.adapters[0](features)
    expected = part.projection(torch.cat([identity, 0 * identity, 0 * identity], 1))
    assert torch.equal(part(inputs, iter([zero, zero])), expected)
    cell = model.cells[1].eval()
    projected = cell.projection(features)
    assert torch.equal(cell(features, iter([zero])), cell.shortcut(projected))


@pytest.mark.parametrize("drop_path", [-0.1, 1.0])
def test_options_out_of_range_are_refused_with_the_rule(drop_path):
    with pytest.raises(ValueError, match=r"`drop_path` must be in \[0, 1\)"):
        GrowthNetwork(GrowthArchitecture(1, 1), 1, 2, drop_path=drop_path)


@modes
def test_the_trainer_teaches_them(mode):
    # Two classes of noisy images that differ in brightness.
    labels = torch.arange(64) % 2
    images = (100 + 40 * labels[:, None, None, None] + 10 * noise(64, 3, 8, 8)).to(torch.uint8)
    data = Images(
        train_images=images,
        train_labels=labels,
        validation_images=images,
        validation_labels=labels,
        test_images=images[:0],
        test_labels=labels[:0],
        class_names=tuple("abcdefg"),
        augmentation=Augmentation(),
    )
    model = small(chain(GrowthSpace(1, 6, mode), 1)[-1], gate=True)
    settings = TrainSettings(batch_size=16, lr=0.05, drop_path=0.2)
    trainer = Trainer(model, data, settings, epochs=6, seed=0)
    for _ in range(6):
        result = trainer.train_epoch()
    assert result.train_accuracy > 0.9
    assert all(p.any() for name, p in model.named_parameters() if name.endswith("gate.scale"))


@pytest.mark.parametrize(("stem", "side"), [("small", 32), ("large", 4), ("7x7", 8)])
def test_networks_for_large_images_equal_hand_counts(stem, side):
    """Only the stem and the classifier differ from what `num_params` counts."""
    space = GrowthSpace(cells=1, channels=8)
    network = space.grow(space.initial(), 3)
    model = build_model(network, (3, 32, 32), 1000, stem=stem)
    features = model.stem(torch.zeros(1, 3, 32, 32))
    assert features.shape == (1, 24, side, side)
    own = {
        "small": 27 * 24 + 2 * 24,
        "large": 27 * 12 + 2 * 12 + 9 * 12 * 24 + 2 * 24 + 9 * 24 * 24 + 2 * 24,
        "7x7": 49 * 3 * 24 + 2 * 24,
    }
    expected = network.num_params(3, 1000) - own["small"] + own[stem]
    assert count_params(model) == expected
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)


def test_a_network_grown_for_ilsvrc_equals_hand_counts():
    """Three rounds of growth, 48 channels, three convolutions first, 1,000 classes, 224 pixels.

    Nothing here comes from what is counted but the list of increments: layer 0 has 144 channels,
    cells 1 to 20 have 48, 96 from cell 7 on and 192 from cell 14 on, at 28, 14 and 7 pixels.
    """
    network = chain(GrowthSpace(), 3, seed=5)[-1]
    assert len(network.increments) == 60
    widths = [144] + [48] * 6 + [96] * 7 + [192] * 7
    sides = [28] * 7 + [14] * 7 + [7] * 7
    counts = [
        (27 * 72 + 2 * 72, 27 * 72 * 112**2),
        (9 * 72 * 144 + 2 * 144, 9 * 72 * 144 * 56**2),
        (9 * 144 * 144 + 2 * 144, 9 * 144 * 144 * 28**2),
    ]

    def pointwise(before: int, after: int, side: int) -> tuple[int, int]:
        return before * after + 2 * after, before * after * side**2

    def separable(kernel: int, width: int, side: int) -> tuple[int, int]:
        weights = 2 * (kernel**2 * width + width**2)  # Applied twice, each with a normalisation.
        return weights + 4 * width, weights * side**2

    def adapted(source: int, target: int) -> list[tuple[int, int]]:
        """The halvings from a layer to the shape of a cell, or a change of channels alone."""
        width, side, steps = widths[source], sides[source], []
        while side > sides[target]:
            side //= 2
            after = {14: 96, 7: 192}[side]
            steps.append(pointwise(width, after, side))
            width = after
        return steps + (
            [] if width == widths[target] else [pointwise(width, widths[target], side)]
        )

    for cell in range(1, 21):
        width, side = widths[cell], sides[cell]
        if widths[cell - 1] != width:
            counts.append(pointwise(widths[cell - 1], width, sides[cell - 1]))
        counts.append(separable(3, width, side))
        if cell in (7, 14):
            counts.append(pointwise(width, width, side))
    for increment in network.increments:
        width, side = widths[increment.target], sides[increment.target]
        counts.append(pointwise(3 * width, width, side))
        for layer, name in zip(increment.inputs, increment.operations, strict=True):
            # What an increment makes has the shape of its cell.
            source = layer if layer <= 20 else network.increments[layer - 21].target
            counts += adapted(source, increment.target)
            if name.startswith("sep_conv"):
                counts.append(separable(int(name[-1]), width, side))
    params, adds = (sum(part) for part in zip(*counts, strict=True))
    with torch.device("meta"):
        model = build_model(
            dataclasses.replace(network, channels=48), (3, 224, 224), 1000, stem="large"
        )
    assert count_params(model) == params + 2 * 192 + 192 * 1000 + 1000
    assert count_multiply_adds(model, (3, 224, 224)) == adds + 192 * 1000
