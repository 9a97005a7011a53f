"""Filters and poolings with a stride that pad by themselves: at each length as onnxruntime does, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmc.frontend.source.operands import conv_padding, steady_padding
from tests.frontend.blocks import RNG
from tests.frontend.checks import lift, refused
from tests.frontend.net import Net, save


def coarser(net: Net, kind: str, window: int, length: int | str) -> str:
    x = net.op("Transpose", net.input(["b", length, 4]), perm=[0, 2, 1])
    operands = [net.const(RNG.standard_normal((4, 4, window)))] if kind == "Conv" else []
    y = net.op(kind, x, *operands, kernel_shape=[window], strides=[2], auto_pad="SAME_UPPER")
    return str(net.op("Transpose", y, perm=[0, 2, 1]))


@pytest.mark.parametrize("kind", ["Conv", "AveragePool", "MaxPool"])
def test_windows_stand_where_they_do_at_every_length(kind: str, tmp_path: Path) -> None:
    """Steps that the stride does not divide have one window more."""
    net = Net()
    lift(net, coarser(net, kind, 2, "t"), ["b", "u", 4], tmp_path, (2, 6), (2, 7), (1, 13))


@pytest.mark.parametrize("kind", ["Conv", "AveragePool", "MaxPool"])
def test_windows_that_move_with_the_length_are_refused_where_it_is_dynamic(kind: str, tmp_path: Path) -> None:
    net = Net()
    path = save(net.model([(coarser(net, kind, 3, "t"), ["b", "u", 4])]), tmp_path)
    refused(path, "SAME_UPPER and a stride of 2", "depends on how many steps there are; export it with a fixed length")
    net = Net()
    lift(net, coarser(net, kind, 3, 13), ["b", 7, 4], tmp_path, (2, 13))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
def test_steady_padding_gives_the_windows_of_each_length(stride: int, taps: int, dilation: int, mode: str) -> None:
    attrs = {"strides": [stride], "dilations": [dilation], "auto_pad": mode}
    reach, lengths = (taps - 1) * dilation + 1, range(1, 40)
    steady = steady_padding(attrs, taps)
    lefts = {conv_padding(attrs, length, taps)[0] for length in lengths}
    assert (steady is None) == (len(lefts) > 1)
    if steady is not None:
        assert {steady[0]} == lefts
        assert all((length + sum(steady) - reach) // stride + 1 == -(-length // stride) for length in lengths)
