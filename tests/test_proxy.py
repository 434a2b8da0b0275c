"""EcoNAS's reduction factors."""

import pytest

from optnas.config.proxy import Proxy, proxy_from, reduced


@pytest.mark.parametrize(
    ("full", "values"),
    [
        (36, [36, 24, 18, 12, 9]),  # Channels in the paper's table 1.
        (32, [32, 24, 16, 12, 8]),  # Resolution in the paper's table 1.
        (16, [16, 12, 8, 4, 4]),
        (8, [8, 4, 4, 3, 2]),
        (3, [3, 2, 1, 1, 1]),
        (1, [1, 1, 1, 1, 1]),
    ],
)
def test_reduced_values(full, values):
    assert [reduced(full, steps) for steps in range(5)] == values


def test_a_proxy_reduces_each_factor():
    proxy = Proxy.parse("c4r2s3e60")
    assert (proxy.channels(36), proxy.side(32), proxy.samples(1.0), proxy.e) == (9, 16, 0.125, 60)
    assert str(proxy) == "c4r2s3e60"


def test_a_mapping_says_the_same():
    assert proxy_from({"c": 4, "e": 60}) == Proxy.parse("c4r0s0e60")


@pytest.mark.parametrize(
    "value", ["c4", "c4r4s0e0", "c4r4s0e-1", "e60", {"c": 4}, {"x": 1}, 7, None]
)
def test_other_forms_are_refused(value):
    with pytest.raises(ValueError, match="expected a proxy such as 'c4r4s0e60'"):
        proxy_from(value)


@pytest.mark.parametrize("text", ["c5r0s0e1", "c0r5s0e1", "c0r0s9e1"])
def test_steps_beyond_the_papers_are_refused(text):
    with pytest.raises(ValueError, match="must be in 0 to 4"):
        Proxy.parse(text)
