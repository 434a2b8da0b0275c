"""Super-networks: their sizes, what an edge and a node compute, pruned topologies, gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from optnas.objectives.networks.build import build_supernet
from optnas.objectives.networks.costs import count_multiply_adds
from optnas.objectives.networks.mixtures import MixedCell, MixedEdge
from optnas.objectives.networks.supernet import MixedNetwork, NasBench201SuperNetwork, SuperNetwork
from optnas.spaces import CellSpace, ChainSpace, NasBench201Space
from optnas.spaces.cell import OPERATIONS
from optnas.spaces.nasbench201 import OPERATIONS as BENCH_OPERATIONS

CIFAR10 = ((3, 32, 32), 10)
CELL, BENCH = CellSpace(), NasBench201Space()
DARTS = {"operations": OPERATIONS, "partial": 1, "edge_weights": False}
PRUNED = {
    "normal": ((0, 1), (0, 2), (1, 3), (2, 4)),
    "reduce": ((0, 1), (0, 1), (0, 1), (0, 1)),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def built(space, seed: int = 0, **options) -> MixedNetwork:
    return build_supernet(space, *CIFAR10, torch.Generator().manual_seed(seed), **options)


def small(seed: int = 0, **options) -> MixedNetwork:
    """A network of few channels in float64."""
    options = {"cells": 3, "channels": 4, "partial": 2, **options}
    generator = torch.Generator().manual_seed(seed)
    return build_supernet(CellSpace(nodes=2), (1, 8, 8), 3, generator, **options).double()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("space", "options", "weights", "on_edges"),
    [
        (CELL, {}, 102_010, 2_560),
        (CELL, {"partial": 1}, 140_410, 40_960),
        (CELL, {"operations": ("max_pool_3x3",)}, 99_450, 0),
        # The size that the code of DARTS prints: 1.930618 MB.
        (CELL, DARTS, 1_930_618, 1_831_168),
        # Stem 464, blocks 14,464 and 57,600, last normalisation 128, classifier 650.
        (BENCH, {}, 73_306, 0),
        # One 1x1 and one 3x3 convolution on 6 edges of 5 cells of 16, 32 and 64 channels.
        (BENCH, {"operations": BENCH_OPERATIONS}, 73_306 + 30 * 10 * 5_376, 30 * 10 * 5_376),
    ],
)
def test_sizes(space, options, weights, on_edges):
    model = built(space, **options)
    assert sum(p.numel() for p in model.weight_parameters()) == weights
    edges = [part for part in model.modules() if isinstance(part, MixedEdge)]
    assert sum(p.numel() for edge in edges for p in edge.parameters()) == on_edges


@pytest.mark.parametrize(
    ("space", "options", "shapes"),
    [
        (CELL, {}, [(14,), (14,)]),
        (CELL, {"operations": OPERATIONS}, [(14,), (14, 8), (14,), (14, 8)]),
        (CELL, DARTS, [(14, 8), (14, 8)]),
        (CELL, {"topology": PRUNED, "operations": OPERATIONS}, [(8,), (8, 8), (8,), (8, 8)]),
        (BENCH, {}, [(6,)]),
        (BENCH, {"topology": {"cell": ((0,), (0, 1), (0, 2))}}, [(5,)]),
    ],
)
def test_architecture_parameters(space, options, shapes):
    model = built(space, **options)
    parameters = model.architecture_parameters()
    assert [tuple(p.shape) for p in parameters] == shapes
    edges = {len(cell.edges) for cell in model.modules() if isinstance(cell, MixedCell)}
    assert edges == {shapes[0][0]}
    everything = {id(p) for p in model.parameters()}
    weights = {id(p) for p in model.weight_parameters()}
    assert weights | {id(p) for p in parameters} == everything
    assert not weights & {id(p) for p in parameters}


def test_the_edge_weights_are_listed_by_node_as_they_are():
    model = built(CELL)
    with torch.no_grad():
        model.architecture["normal"].beta.copy_(torch.arange(14))
        model.architecture["reduce"].beta.copy_(-torch.arange(14))
    listed = model.edge_weights()
    assert listed["normal"] == [[0, 1], [2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12, 13]]
    assert listed["reduce"] == [[-w for w in node] for node in listed["normal"]]
    assert built(CELL, **DARTS).edge_weights()["normal"] == [[0.0] * n for n in (2, 3, 4, 5)]


def test_the_operation_weights_are_listed_as_shares():
    assert built(BENCH).operation_weights() == {"cell": [[[1.0]], [[1.0]] * 2, [[1.0]] * 3]}
    model = built(CELL, topology=PRUNED, operations=("max_pool_3x3", "skip_connect"))
    alpha = model.architecture["reduce"].alpha
    with torch.no_grad():
        alpha[3] = torch.tensor([0.1, 0.3])
    shares = model.operation_weights()["reduce"]
    assert [len(node) for node in shares] == [2, 2, 2, 2]
    assert shares[1][1] == pytest.approx([0.4502, 0.5498], abs=1e-4)


def test_fresh_architecture_parameters_are_small_and_the_seeds_own():
    betas = torch.cat([p.flatten() for p in built(CELL, **DARTS).architecture_parameters()])
    assert betas.std().item() == pytest.approx(1e-3, rel=0.2)
    # Neither the weights nor the size of the network have a part in it.
    assert built(CELL).edge_weights() == built(CELL, channels=4, cells=3).edge_weights()
    assert built(CELL).edge_weights() != built(CELL, seed=1).edge_weights()
    a, b = built(CELL).state_dict(), built(CELL).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("stride", "partial"), [(1, 4), (2, 4), (1, 2), (2, 1)])
def test_an_edge_works_on_the_first_channels_and_shuffles(stride, partial):
    channels = 8
    edge = MixedEdge(("avg_pool_3x3",), channels, stride, partial).double()
    features = noise(2, channels, 6, 6)
    active = channels // partial
    pooled = functional.avg_pool2d(
        features[:, :active], 3, stride, padding=1, count_include_pad=False
    )
    worked = functional.batch_norm(pooled, None, None, training=True)
    # What goes past is the greatest of every 2x2 pixels where the operation has a stride.
    rest = features if stride == 1 else features.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    joined = torch.cat((worked, rest[:, active:]), dim=1)
    # Groups of `active` channels, dealt out one by one.
    order = [group * active + i for i in range(active) for group in range(partial)]
    assert torch.allclose(edge(features, None), joined[:, order], atol=1e-12)


def test_a_lone_skip_connection_only_shuffles():
    features = torch.arange(8.0).view(1, 8, 1, 1)
    result = MixedEdge(("skip_connect",), 8, 1, 4)(features, None)
    assert result.flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_a_mixture_is_weighted_by_its_shares():
    edge = MixedEdge(("skip_connect", "none"), 4, 1, 1)
    features = noise(1, 4, 3, 3).float()
    assert torch.allclose(edge(features, torch.tensor([0.3, 0.7])), 0.3 * features)


def test_nodes_add_up_their_predecessors_by_the_softmax_of_the_edge_weights():
    cell = MixedCell(
        ("skip_connect",),
        ((0, 1), (0, 2)),
        [nn.Identity(), nn.Identity()],
        4,
        partial=1,
        outputs=[2, 3],
    )
    model = built(CellSpace(nodes=2), topology=dict.fromkeys(PRUNED, ((0, 1), (0, 2))))
    with torch.no_grad():
        model.architecture["normal"].beta.copy_(torch.tensor([0.1, 0.3, 0.0, 0.0]))
    shares = model.architecture["normal"]()
    a, b = noise(1, 4, 3, 3).float(), noise(1, 4, 3, 3, seed=1).float()
    first = 0.450166 * a + 0.549834 * b
    expected = torch.cat([first, (a + first) / 2], dim=1)
    assert torch.allclose(cell(a, b, shares=shares), expected, atol=1e-5)


def test_without_edge_weights_a_node_is_the_plain_sum():
    model = small(partial=1, edge_weights=False, operations=("skip_connect",))
    with torch.no_grad():
        for cell in model.cells:
            features = noise(2, 4, 8, 8)
            cell.inputs = nn.ModuleList([nn.Identity(), nn.Identity()])
            if all(isinstance(edge.operations[0], nn.Identity) for edge in cell.edges):
                result = cell(features, 2 * features, shares=model.architecture["normal"]())
                assert torch.allclose(result[:, :4], 3 * features)
                assert torch.allclose(result[:, 4:], 6 * features)


@pytest.mark.parametrize("cells", [8, 5, 3, 1])
def test_the_cells_at_one_and_two_thirds_use_the_weights_of_reduction(cells):
    model = built(CELL, cells=cells, channels=4).eval()
    outputs: list[torch.Tensor] = []
    for cell in model.cells:
        cell.register_forward_hook(lambda _, args, output: outputs.append(output))
    images = torch.rand(1, 3, 32, 32)
    model(images)
    first = cells // 3
    sizes = [32 >> ((i >= first) + (i >= 2 * cells // 3 > first)) for i in range(cells)]
    assert [output.shape[-1] for output in outputs] == sizes
    with torch.no_grad():
        model.architecture["reduce"].beta.add_(torch.linspace(0, 3, 14))
    before = outputs[:]
    outputs.clear()
    model(images)
    same = [torch.equal(a, b) for a, b in zip(before, outputs, strict=True)]
    assert same == [i < first for i in range(cells)]


def test_the_bench_network_puts_out_its_last_node_alone():
    model = built(BENCH, operations=("nor_conv_1x1",), cells=3, channels=4)
    cell = next(part for part in model.modules() if isinstance(part, MixedCell))
    shares = ([None] * 6, [None] * 6)
    features = torch.rand(2, 4, 4, 4)
    states = [features]
    for sources in ((0,), (1, 2), (3, 4, 5)):
        parts = [cell.edges[e](states[i], None) for i, e in enumerate(sources)]
        states.append(sum(parts))
    assert torch.allclose(cell(features, shares=shares), states[-1], atol=1e-6)


@pytest.mark.parametrize("size", [(28, 28), (7, 9), (8, 8)])
def test_images_of_any_size_can_be_searched_on(size):
    for options in ({}, {"operations": OPERATIONS}):
        model = build_supernet(CELL, (1, *size), 4, cells=3, channels=4, **options)
        assert model(torch.rand(2, 1, *size)).shape == (2, 4)
    bench = build_supernet(BENCH, (1, *size), 4, channels=4, operations=BENCH_OPERATIONS)
    assert bench(torch.rand(2, 1, *size)).shape == (2, 4)


def test_multiply_adds_are_those_of_the_convolutions():
    stem, classifier = 32 * 32 * 9 * 3 * 16, 64 * 10
    # Two 3x3 convolutions, and the 1x1 one after pooling.
    first = 16 * 16 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
    second = 8 * 8 * (9 * (32 * 64 + 64 * 64) + 32 * 64)
    model = build_supernet(BENCH, *CIFAR10)
    assert count_multiply_adds(model, CIFAR10[0]) == stem + first + second + classifier


@pytest.mark.parametrize("operations", [("skip_connect",), OPERATIONS])
def test_gradients_of_the_architecture_are_those_of_finite_differences(operations):
    model = small(operations=operations)
    images, labels = noise(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])

    def loss() -> torch.Tensor:
        return functional.cross_entropy(model(images), labels)

    parameters = model.architecture_parameters()
    with torch.no_grad():
        for index, parameter in enumerate(parameters):
            parameter.copy_(noise(*parameter.shape, seed=index))
    gradients = torch.autograd.grad(loss(), parameters)
    step = 1e-6
    for parameter, gradient in zip(parameters, gradients, strict=True):
        flat = parameter.data.view(-1)
        for index in range(0, len(flat), max(1, len(flat) // 6)):
            differences = []
            for sign in (1, -1):
                flat[index] += sign * step
                differences.append(sign * loss().item())
                flat[index] -= sign * step
            numeric = sum(differences) / (2 * step)
            assert gradient.view(-1)[index].item() == pytest.approx(numeric, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 0}, "cells"),
        ({"nodes": 0}, "nodes"),
        ({"channels": 6}, "multiple of `partial`"),
        ({"partial": 0}, "multiple of `partial`"),
        ({"operations": ()}, "operations"),
        ({"operations": ("skip_connect", "skip_connect")}, "operations"),
        ({"operations": ("nor_conv_3x3",)}, "operations"),
        ({"topology": {"normal": PRUNED["normal"]}}, "topology"),
        ({"topology": {**PRUNED, "reduce": ((0, 1), (0, 1), (0, 1), (0, 6))}}, "topology"),
        ({"topology": {**PRUNED, "reduce": ((0, 0), (0, 1), (0, 1), (0, 1))}}, "topology"),
        ({"topology": {**PRUNED, "reduce": ((), (0, 1), (0, 1), (0, 1))}}, "topology"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SuperNetwork(3, 10, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 4}, "multiple of 3"),
        ({"operations": ("sep_conv_3x3",)}, "operations"),
        ({"topology": {"cell": ((0,), (1, 2), (0,))}}, "topology"),
    ],
)
def test_impossible_options_of_the_bench_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NasBench201SuperNetwork(3, 10, **options)


def test_other_spaces_have_no_super_network():
    with pytest.raises(TypeError, match="ChainSpace"):
        build_supernet(ChainSpace(), *CIFAR10)
