"""What roundings on an edge between two codes may do, and what they are not allowed to."""

from __future__ import annotations

import numpy as np

from ssmc.ir import Graph, StreamType, Tensor
from ssmc.ir.ties import find_ties


def rounding(scale: float, gain: float = 1.0) -> Graph:
    """y = gain (round(u / scale) scale) + u, of one number."""
    graph = Graph()
    u = graph.add("input", [], {"name": "u", "type": StreamType((1,)), "axes": "btf", "role": "data"})
    step = graph.add("constant", [], {"value": Tensor(np.array([scale]))})
    codes = graph.add("unary", [graph.add("binary", [u, step], {"fn": "div"})], {"fn": "round"})
    one = graph.add("constant", [], {"value": Tensor(np.array([gain * scale]))})
    graph.add("output", [graph.add("binary", [codes, one], {"fn": "mul"})], {"name": "y"})
    return graph


def test_samples_without_an_edge_are_known() -> None:
    u = np.array([[[0.3], [1.2]], [[0.5], [2.2]], [[0.7], [3.2]]])
    ties = find_ties(rounding(1.0), {"u": u})
    assert (ties.near, ties.count, ties.clear) == (1, 6, (0, 2))


def test_no_more_is_allowed_than_all_roundings_do() -> None:
    """Three times what the one edge does would be the whole output."""
    ties = find_ties(rounding(1.0), {"u": np.array([[[0.5], [3.2]]])})
    assert np.isclose(ties.effect, 1 / 3) and np.isclose(ties.most, 2 / 3)
    assert ties.allowed == ties.most and "a code more or less at every rounding" in ties.limits()


def test_nothing_is_allowed_where_nothing_lies_on_an_edge() -> None:
    ties = find_ties(rounding(1.0), {"u": np.array([[[0.3], [3.2]]])})
    assert (ties.near, ties.allowed) == (0, 0.0)
