"""Networks of cells: their published sizes, any resolution, drop-path and the auxiliary head."""

import numpy as np
import pytest
import torch
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optnas.config.settings import TrainSettings
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import Images
from optnas.objectives.networks import cells
from optnas.objectives.networks.build import build_model
from optnas.objectives.networks.cell_operations import FactorizedReduction, operation
from optnas.objectives.networks.costs import count_multiply_adds, count_params
from optnas.objectives.networks.nasbench201 import NasBench201Network
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import (
    CellArchitecture,
    CellSpace,
    ChainArchitecture,
    NasBench201Architecture,
    NasBench201Space,
)
from optnas.spaces.cell import OPERATIONS
from optnas.spaces.nasbench201 import OPERATIONS as BENCH_OPERATIONS

CIFAR10 = (3, 32, 32)
SHORT = {
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "none": "none",
}


pytestmark = pytest.mark.usefixtures("one_thread")


def cell(text: str):
    """A cell from words like ``sep3.0``: two per node."""
    pairs = [(SHORT[name], int(source)) for name, source in (w.split(".") for w in text.split())]
    return tuple(zip(pairs[::2], pairs[1::2], strict=True))


def uniform(name: str) -> CellArchitecture:
    nodes = cell(" ".join([f"{name}.0 {name}.1"] * 4))
    return CellArchitecture(nodes, nodes)


DARTS_V2 = CellArchitecture(
    normal=cell("sep3.0 sep3.1 sep3.0 sep3.1 sep3.1 skip.0 skip.0 dil3.2"),
    reduce=cell("max.0 max.1 skip.2 max.1 max.0 skip.2 skip.2 max.1"),
)
PC_DARTS = CellArchitecture(
    normal=cell("sep3.1 skip.0 sep3.0 dil3.1 sep5.0 sep3.1 avg.0 dil3.1"),
    reduce=cell("sep5.1 max.0 sep5.1 sep5.2 sep3.0 sep3.3 sep3.1 sep3.2"),
)
ECONAS = CellArchitecture(
    normal=cell("skip.0 skip.1 sep5.2 dil3.2 sep3.0 sep3.0 sep5.4 skip.2"),
    reduce=cell("dil3.1 skip.0 dil3.2 avg.0 avg.3 max.1 sep5.0 max.0"),
)
ECONAS_SECOND = CellArchitecture(
    normal=cell("sep3.1 sep3.0 skip.1 sep5.0 sep3.0 max.0 skip.0 skip.0"),
    reduce=cell("max.1 sep5.1 skip.0 avg.2 dil5.3 max.0 dil3.0 max.1"),
)
MIXED = CellArchitecture(
    normal=cell("sep3.0 skip.1 none.0 dil5.2 avg.1 max.3 skip.4 sep5.0"),
    reduce=cell("skip.0 none.1 max.0 avg.1 sep3.0 dil3.1 none.0 none.0"),
)


def small(architecture=MIXED, shape=(3, 8, 8), *, seed: int = 0, **options) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    if isinstance(architecture, CellArchitecture):
        options = {"cells": 5, "channels": 4, **options}
    return build_model(architecture, shape, 7, generator, **options)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("architecture", "concat", "expected"),
    [
        (DARTS_V2, "all", 3_349_342),
        (PC_DARTS, "all", 3_634_678),
        (uniform("sep3"), "all", 4_701_718),
        (uniform("sep3"), "loose", 4_701_718),
        (uniform("skip"), "all", 1_580_950),
        (ECONAS, "loose", 2_558_494),
    ],
)
def test_cell_networks_have_the_verified_sizes(architecture, concat, expected):
    assert count_params(build_model(architecture, CIFAR10, 10, concat=concat)) == expected


@pytest.mark.parametrize(
    ("architecture", "reduce_concat", "options", "expected"),
    [
        (ECONAS, (3, 4, 5), {}, 3_180_862),
        (ECONAS, (3, 4, 5), {"channels": 9}, 251_146),
        (ECONAS_SECOND, (2, 4, 5), {}, 2_956_006),
    ],
)
def test_networks_of_econas_have_their_sizes_with_the_nodes_it_printed(
    monkeypatch, architecture, reduce_concat, options, expected
):
    # The authors' files join nodes that are neither all nor the loose ends.
    printed = {architecture.normal: (2, 3, 4, 5), architecture.reduce: reduce_concat}
    monkeypatch.setattr(cells, "loose_ends", printed.get)
    assert count_params(build_model(architecture, CIFAR10, 10, **options)) == expected


def test_the_auxiliary_head_adds_its_published_size_and_says_so_in_its_names():
    model = build_model(DARTS_V2, CIFAR10, 10, concat="all", auxiliary=True)
    auxiliary = sum(p.numel() for name, p in model.named_parameters() if "aux" in name)
    assert auxiliary == 476_426
    assert count_params(model) - auxiliary == 3_349_342


def test_twenty_cells_are_three_stages_of_six():
    model = small(uniform("skip"), (3, 32, 32), cells=20, channels=2).eval()
    outputs: list[tuple[int, ...]] = []
    for part in model.cells:
        part.register_forward_hook(lambda _, args, output: outputs.append(tuple(output.shape[1:])))
    model(noise(1, 3, 32, 32))
    assert outputs == [(8, 32, 32)] * 6 + [(16, 16, 16)] * 7 + [(32, 8, 8)] * 7


def bench(*operations: str) -> NasBench201Architecture:
    return NasBench201Architecture(operations)


@pytest.mark.parametrize(
    ("operation_name", "params", "multiply_adds"),
    [
        ("none", 73_306, 7_783_040),
        ("skip_connect", 73_306, 7_783_040),
        ("avg_pool_3x3", 73_306, 7_783_040),
        ("nor_conv_1x1", 73_306 + 6 * 28_000, 7_783_040 + 6 * 3_932_160),
        ("nor_conv_3x3", 73_306 + 6 * 243_040, 7_783_040 + 6 * 35_389_440),
    ],
)
def test_bench_networks_have_the_published_cost(operation_name, params, multiply_adds):
    model = build_model(bench(*[operation_name] * 6), CIFAR10, 10)
    assert count_params(model) == params
    assert count_multiply_adds(model, CIFAR10) == multiply_adds


def test_bench_networks_have_the_cost_in_the_table():
    path = SHARED / "data" / "nasbench201_cifar10.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with np.load(path) as table:
        names, operations = table["operation_names"].tolist(), table["operations"]
        params, multiply_adds = table["params"], table["multiply_adds"]
    (nothing,) = np.flatnonzero((operations == names.index("none")).all(axis=1))
    sample = np.random.default_rng(0).choice(len(operations), 30, replace=False)
    for row in (nothing, *sample):
        with torch.device("meta"):  # sizes without values
            model = NasBench201Network(bench(*(names[i] for i in operations[row])), 3, 10)
        assert count_params(model) == params[row]
        # The benchmark counts one more per class, for the bias of the classifier.
        assert count_multiply_adds(model, CIFAR10) + 10 == multiply_adds[row]


@pytest.mark.parametrize("concat", ["loose", "all"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 7), (8, 8), (9, 30), (28, 28), (64, 64)])
def test_images_of_any_size_are_classified_and_learnt_from(shape, concat):
    for model in (
        small(shape=(1, *shape), concat=concat),
        small(bench("nor_conv_3x3", "none", *["avg_pool_3x3"] * 4), (1, *shape), channels=2),
    ):
        logits = model(noise(3, 1, *shape))
        assert logits.shape == (3, 7)
        logits.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)
        assert model.eval()(noise(1, 1, *shape)).isfinite().all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from([1, 6, 8]))
def test_every_architecture_gives_a_network(seed, number_of_cells, size):
    rng = np.random.default_rng(seed)
    images = noise(2, 3, size, size)
    model = small(CellSpace().random(rng), cells=number_of_cells, channels=3)
    assert model.eval()(images).shape == (2, 7)
    model = small(NasBench201Space().random(rng), cells=3, channels=3)
    assert model.eval()(images).shape == (2, 7)


def test_images_of_eight_pixels_end_at_two():
    model = small(shape=(3, 8, 8)).eval()
    sizes: list[int] = []
    model.cells[-1].register_forward_hook(lambda _, args, output: sizes.append(output.shape[-1]))
    model(noise(1, 3, 8, 8))
    assert sizes == [2]


def test_a_cell_adds_the_edges_of_a_node_and_joins_the_loose_ends():
    nodes = cell("skip.0 skip.1 skip.2 skip.2 skip.3 none.0 skip.0 skip.3")
    part = small(CellArchitecture(nodes, nodes)).eval().cells[0]
    before, last = noise(2, 12, 4, 4), noise(2, 12, 4, 4, seed=2)
    first, second = part.inputs[0](before), part.inputs[1](last)
    two = first + second
    three = two + two
    expected = torch.cat([three, first + three], dim=1)
    assert torch.equal(part(before, last, None), expected)


def test_a_bench_cell_sums_over_all_earlier_nodes():
    images = noise(2, 16, 4, 4)
    skips = small(bench(*["skip_connect"] * 6)).layers[0]
    assert torch.allclose(skips(images), 4 * images)
    names = ["none"] * 6
    names[3] = "skip_connect"  # 3 from 0
    assert torch.equal(small(bench(*names)).layers[0](images), images)
    names[3], names[1], names[5] = "none", "avg_pool_3x3", "skip_connect"  # 2 from 0, 3 from 2
    pooled = nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    assert torch.equal(small(bench(*names)).layers[0](images), pooled)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", sorted({*OPERATIONS, *BENCH_OPERATIONS}))
def test_operations_keep_the_channels_and_halve_as_one(name, stride):
    for height, width in ((1, 1), (2, 5), (7, 8)):
        result = operation(name, 6, stride).eval()(noise(2, 6, height, width))
        assert result.shape == (2, 6, -(-height // stride), -(-width // stride))


@pytest.mark.parametrize(
    ("name", "taps", "side"),
    [
        ("sep_conv_3x3", 25, 5),
        ("sep_conv_5x5", 81, 9),
        ("dil_conv_3x3", 9, 5),
        ("dil_conv_5x5", 25, 9),
        ("nor_conv_1x1", 1, 1),
        ("nor_conv_3x3", 9, 3),
        ("avg_pool_3x3", 9, 3),
        ("skip_connect", 1, 1),
        ("none", 0, 0),
    ],
)
def test_operations_look_as_far_as_their_names_say(name, taps, side):
    part = operation(name, 2, 1).eval()
    for parameter in part.parameters():
        nn.init.constant_(parameter, 1.0)
    images = torch.ones(1, 2, 15, 15, requires_grad=True)
    result = part(images)
    if not result.requires_grad:
        assert taps == 0
        assert not result.any()
        return
    result[0, 0, 7, 7].backward()
    rows, columns = images.grad[0].any(0).nonzero(as_tuple=True)
    assert len(rows) == taps
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side


def test_average_pooling_does_not_count_the_border():
    assert torch.equal(
        operation("avg_pool_3x3", 1, 2)(torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 3, 3)
    )


def test_a_factorized_reduction_sees_the_even_and_the_odd_pixels():
    part = FactorizedReduction(1, 2).eval()
    nn.init.ones_(part.even.weight)
    nn.init.ones_(part.odd.weight)
    part.normalisation.eps = 0.0
    image = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    assert part(image)[0].tolist() == [[[1, 3], [9, 11]], [[6, 8], [14, 16]]]
    odd = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    assert part(odd)[0].tolist() == [[[1, 3], [7, 9]], [[5, 0], [0, 0]]]


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
    plain.train()
    dropped.train()
    dropped.drop_path = 0.0
    assert torch.equal(plain(images), dropped(images))
    plain.drop_path = 0.5
    plain.generator = torch.Generator().manual_seed(3)
    again = drop_path_model()
    assert torch.equal(plain(images), again(images))


def test_drop_path_drops_edges_per_image_and_keeps_the_mean():
    model = drop_path_model(0.2)
    seen: list[torch.Tensor] = []
    for part in model.cells:
        part.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    model(noise(512, 3, 4, 4))
    scales = torch.stack(seen).squeeze()
    assert scales.shape == (5, 8, 512)  # cells, edges, images
    assert set(scales.unique().tolist()) == {0.0, 1.25}
    assert (scales == 0).float().mean() == pytest.approx(0.2, abs=0.015)
    assert ((scales == 0).any(2) & (scales != 0).any(2)).all()


def test_drop_path_spares_identities():
    nodes = cell("skip.0 skip.1 sep3.0 sep3.1")
    part = small(CellArchitecture(nodes, nodes)).cells[0]
    before, last = noise(2, 12, 4, 4), noise(2, 12, 4, 4, seed=2)
    zeros = torch.zeros(4, 2, 1, 1, 1)
    kept, dropped = part(before, last, zeros).chunk(2, dim=1)
    assert torch.equal(kept, part(before, last, None).chunk(2, dim=1)[0])
    assert kept.any()
    assert not dropped.any()


def test_drop_path_takes_reducing_skips():
    nodes = cell("skip.0 skip.1")
    part = small(CellArchitecture(nodes, nodes), cells=1).cells[0]
    result = part(noise(2, 12, 4, 4), noise(2, 12, 4, 4), torch.zeros(2, 2, 1, 1, 1))
    assert not result.any()


@pytest.mark.parametrize("size", [5, 8, 28, 32, 64])
def test_the_auxiliary_head_is_trained_beside_the_network(size):
    model = small(shape=(3, size, size), auxiliary=True, concat="all")
    logits, auxiliary = model.with_auxiliary(noise(4, 3, size, size))
    assert logits.shape == auxiliary.shape == (4, 7)
    auxiliary.square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    # Cells up to 2 * 5 // 3 = 3, the second reduction, and none after.
    assert any(name.startswith("cells.3.") for name in trained)
    assert not any(name.startswith(("cells.4.", "classifier.")) for name in trained)
    assert any(name.startswith("auxiliary_head.") for name in trained)


def test_the_auxiliary_head_changes_neither_logits_nor_cost():
    shape = (3, 32, 32)
    images = noise(2, *shape)
    plain, model = small(shape=shape), small(shape=shape, auxiliary=True)
    model.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(plain(images), model(images))
    assert torch.equal(plain(images), model.with_auxiliary(images)[0])
    assert count_multiply_adds(plain, shape) == count_multiply_adds(model, shape)
    with pytest.raises(ValueError, match="build it with `auxiliary=True`"):
        plain.with_auxiliary(images)


@pytest.mark.parametrize("architecture", [MIXED, bench(*["nor_conv_3x3"] * 6)])
def test_equal_seeds_give_equal_weights_and_the_global_generator_is_untouched(architecture):
    before = torch.random.get_rng_state()
    states = [small(architecture, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize(
    "model",
    [
        lambda: small(uniform("sep3"), channels=6),
        lambda: small(bench(*["nor_conv_3x3"] * 6), cells=3, channels=6),
    ],
)
def test_the_trainer_teaches_them(model):
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
    trainer = Trainer(model(), data, TrainSettings(batch_size=16, lr=0.05), epochs=6, seed=0)
    for _ in range(6):
        result = trainer.train_epoch()
    assert result.train_accuracy > 0.9


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        (MIXED, {"cells": 0}, "`cells` and `channels` must be"),
        (MIXED, {"channels": 0}, "`cells` and `channels` must be"),
        (MIXED, {"concat": "some"}, "`concat` must be 'loose' or 'all'"),
        (MIXED, {"drop_path": 1.0}, r"`drop_path` must be in \[0, 1\)"),
        (MIXED, {"drop_path": -0.1}, r"`drop_path` must be in \[0, 1\)"),
        (bench(*["none"] * 6), {"cells": 0}, "`cells` must be a positive multiple"),
        (bench(*["none"] * 6), {"cells": 4}, "`cells` must be a positive multiple"),
        (bench(*["none"] * 6), {"channels": 0}, "`cells` must be a positive multiple"),
    ],
)
def test_options_out_of_range_are_refused_with_the_rule(architecture, options, message):
    with pytest.raises(ValueError, match=message):
        small(architecture, **options)


def test_options_of_another_network_are_refused():
    with pytest.raises(TypeError, match="cells"):
        build_model(ChainArchitecture(1, 1), (1, 8, 8), 2, cells=8)


def test_a_network_of_ftso_for_imagenet_equals_hand_counts():
    """14 cells, 48 channels, a separable convolution on every edge (FTSO, appendix A.1)."""
    cell = tuple((("sep_conv_3x3", 0), ("sep_conv_3x3", 1)) for _ in range(4))
    model = build_model(
        CellArchitecture(cell, cell),
        *((3, 224, 224), 1000),
        **{"cells": 14, "channels": 48, "concat": "all", "stem": "large"},
    )
    params = 27 * 24 + 2 * 24 + 9 * 24 * 48 + 2 * 48 + 9 * 48 * 48 + 2 * 48
    adds = 27 * 24 * 112**2 + 9 * 24 * 48 * 56**2 + 9 * 48 * 48 * 28**2
    before, last, width, side = 48, 48, 48, 28
    for index in range(14):
        reduces = index in (4, 9)
        width *= 2 if reduces else 1
        params += (before + 2) * width + (last + 2) * width  # Both inputs, 1 x 1.
        params += 8 * 2 * (9 * width + width * width + 2 * width)
        adds += (before + last) * width * side**2
        # The two edges of every node come from the inputs: their first half halves the side.
        after = side // 2 if reduces else side
        adds += 8 * (2 * 9 * width + 2 * width * width) * after**2
        before, last, side = last, 4 * width, after
    params += last * 1000 + 1000
    adds += last * 1000
    assert count_params(model) == params
    assert count_multiply_adds(model, (3, 224, 224)) == adds


def test_a_stem_of_7x7_quarters_the_resolution():
    model = build_model(DARTS_V2, (3, 64, 64), 10, cells=3, channels=6, stem="7x7")
    before, last = model.stem(torch.zeros(2, 3, 64, 64))
    assert before.shape == last.shape == (2, 6, 16, 16)
    assert count_params(model.stem) == 49 * 3 * 6 + 2 * 6
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


def test_large_images_are_halved_three_times_before_the_cells():
    """The network of DARTS for ImageNet has 4.7 M parameters (DARTS, table 3)."""
    model = build_model(
        DARTS_V2, (3, 224, 224), 1000, cells=14, channels=48, concat="all", stem="large"
    )
    assert count_params(model) == 4_718_752
    small = build_model(DARTS_V2, (3, 67, 64), 10, cells=3, channels=3, stem="large")
    before, last = small.stem(torch.zeros(2, 3, 67, 64))
    assert (before.shape, last.shape) == ((2, 3, 17, 16), (2, 3, 9, 8))
    assert small(torch.zeros(2, 3, 67, 64)).shape == (2, 10)
    with pytest.raises(ValueError, match="`stem` must be 'small', 'large' or '7x7': 'huge'"):
        build_model(DARTS_V2, (3, 64, 64), 10, stem="huge")
    with pytest.raises(ValueError, match="`channels` must be 2 or more"):
        build_model(DARTS_V2, (3, 64, 64), 10, stem="large", channels=1)
