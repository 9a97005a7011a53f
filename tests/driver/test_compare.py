"""How far an array is from its reference, and where."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ssmc.report import plain, stats_json
from ssmc.target import LayerStats, Stats
from ssmc.verification import IDEAL_TOLERANCE, REFERENCE_LIMIT, compare, ideal_tolerance


def test_the_worst_element_is_named() -> None:
    reference = np.array([[1.0, -4.0], [2.0, 0.0]], np.float32)
    found = compare(reference, reference + np.array([[0, 0], [0.5, -1.0]]))
    assert (found.relative, found.absolute, found.worst_index) == (0.25, 1.0, (1, 1))


def test_a_zero_reference_is_compared_absolutely() -> None:
    assert compare(np.zeros(3), np.full(3, 0.5)).relative == 0.5


def test_what_cannot_agree_is_infinitely_far() -> None:
    assert math.isinf(compare(np.ones(3), np.ones(4)).relative)
    worst = compare(np.ones(3), np.array([1, np.nan, 1]))
    assert math.isinf(worst.relative) and worst.worst_index == (1,)


@pytest.mark.parametrize("theirs", [0.0, 0.9e-5, 1.1e-5, 5e-5])
def test_a_program_as_exact_as_float64_passes(theirs: float) -> None:
    """It is off from the reference by all that the reference is off, and by its own digits."""
    assert theirs * (1 + 1e-5) <= ideal_tolerance("float32", theirs)[0] <= REFERENCE_LIMIT
    assert ideal_tolerance("float32", 0.0)[0] == IDEAL_TOLERANCE
    assert ideal_tolerance("float32", 1.0)[0] == REFERENCE_LIMIT


def test_statistics_have_the_agreed_keys() -> None:
    layer = LayerStats("ssm", ("Scan_1",), "tile.ssm", 10, 1e-6, None, 0.5)
    told = stats_json(Stats("cim", "default", None, 1e-6, 1e-9, 7, 8, 2, 3, (layer,), {"inner": 1}))
    assert list(told) == [
        *(
            "target",
            "arch",
            "cycles",
            "seconds",
            "energy_joules",
            "instructions",
            "macs",
            "batch",
            "steps",
            "layers",
            "notes",
        )
    ]
    assert list(told["layers"][0]) == [
        *("name", "onnx_nodes", "op", "cycles", "seconds", "energy_joules", "utilization")
    ]
    assert json.loads(json.dumps(told, allow_nan=False))["layers"][0]["onnx_nodes"] == ["Scan_1"]


def test_plain_values_are_json() -> None:
    told = plain({"a": np.float64("inf"), "b": np.arange(2), "c": (1, None, {"d": float("nan")})})
    assert told == {"a": None, "b": [0, 1], "c": [1, None, {"d": None}]}
