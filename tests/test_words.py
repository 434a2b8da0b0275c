"""Architectures in words."""

import pytest

from optnas.spaces import (
    CellArchitecture,
    ChainArchitecture,
    FaceArchitecture,
    GrowthArchitecture,
    Increment,
    NasBench201Architecture,
    StageArchitecture,
)
from optnas.spaces.words import in_words

PAIR = (("sep_conv_3x3", 1), ("skip_connect", 0))
GROWN = GrowthArchitecture(
    1,
    4,
    increments=(
        Increment(2, (1, 0, 1), ("sep_conv_5x5", "identity", "max_pool_3x3")),
        Increment(3, (2, 6, 0), ("avg_pool_3x3", "identity", "identity")),
    ),
)


@pytest.mark.parametrize(
    ("architecture", "lines"),
    [
        (
            ChainArchitecture(4, 16, ("conv", "separable", "separable", "conv"), (3, 3, 3, 5)),
            ["chain of 4 layers, width 16: conv 3x3, 2 x separable 3x3, conv 5x5"],
        ),
        (ChainArchitecture(1, 8), ["chain of 1 layer, width 8: separable 3x3"]),
        (StageArchitecture((2, 3, 4)), ["stages of 2, 3 and 4 basic modules"]),
        (StageArchitecture((5,)), ["stages of 5 basic modules"]),
        (
            NasBench201Architecture(
                ("nor_conv_3x3", "none", "skip_connect", "none", "none", "avg_pool_3x3")
            ),
            [
                "node 1 = conv 3x3 of input; node 2 = skip connect of node 1; "
                "output = avg pool 3x3 of node 2"
            ],
        ),
        (
            CellArchitecture((PAIR,), (PAIR,)),
            [
                "cells of 1 node",
                "normal cell: node 2 = sep conv 3x3 of cell k-1 + skip connect of cell k-2",
                "reduction cell: node 2 = sep conv 3x3 of cell k-1 + skip connect of cell k-2",
            ],
        ),
        (
            GROWN,
            [
                "5 cells, 4 channels, 2 increments",
                "+1: sep conv 5x5 of cell 1 + identity of the stem + max pool 3x3 of cell 1, "
                "added to cell 2",
                "+2: avg pool 3x3 of cell 2 + identity of +1 + identity of the stem, "
                "added to cell 3",
            ],
        ),
    ],
)
def test_a_person_can_read_it(architecture, lines):
    assert in_words(architecture) == lines


def test_others_are_told_by_their_fields():
    face = in_words(FaceArchitecture(3, (1, 1, 1, 1), 8))[0]
    assert face.startswith("face network, stages of 1, 1, 1 and 1 blocks, width 3, embedding of 8")
    many = tuple(Increment(1, (0, 0, 0), ("identity",) * 3) for _ in range(11))
    assert in_words(GrowthArchitecture(1, 4, increments=many))[-1] == "and 3 increments more"
