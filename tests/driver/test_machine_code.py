"""Machine code from LLVM's language does what the same operations do in numpy, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmc.machine_code import Code, Function, Lanes, Pointer, function

WIDE = 4


def sums_and_products(code: Code, x: Pointer, y: Pointer, n: Lanes) -> None:
    """y[j] = (x[j] - 1) x[j] / 3, and behind them their sum in order."""

    def one(j: Lanes, lanes: int) -> Lanes:
        value = x.load(j, lanes)
        found = (value - 1.0) * value / 3.0
        y.store(j, found)
        return found

    whole = n // WIDE * WIDE
    code.each(0, whole, WIDE, lambda j: one(j, WIDE) and None)
    code.each(whole, n, 1, lambda j: one(j, 1) and None)
    zero = x.load(0) - x.load(0)
    (total,) = code.each(0, n, 1, lambda j, held: [held + y.load(j)], zero)
    y.store(n, total)


@pytest.fixture(scope="module")
def loops() -> Function:
    return function(["f8", "f8"], 1, sums_and_products)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=19))
def test_operations_are_numpys(loops: Function, values: list[float]) -> None:
    x, y = np.array(values), np.zeros(len(values) + 1)
    loops(x.ctypes.data, y.ctypes.data, len(x))
    expected = (x - 1.0) * x / 3.0
    np.testing.assert_array_equal(y[:-1], expected)
    assert y[-1] == sum(expected.tolist())


def test_limits_keep_what_is_no_number() -> None:
    def write(code: Code, x: Pointer, y: Pointer, n: Lanes) -> None:
        code.each(0, n, 1, lambda j: y.store(j, (-x.load(j)).at_least(-1.0).at_most(2.0)))

    x, y = np.array([-3.0, 0.5, 7.0, np.nan, -0.0], np.float32), np.zeros(5, np.float32)
    function(["f4", "f4"], 1, write)(x.ctypes.data, y.ctypes.data, len(x))
    np.testing.assert_array_equal(y, np.array([2.0, -0.5, -1.0, np.nan, 0.0], np.float32))


def test_whole_numbers_and_bits() -> None:
    """The exponent of a float32 from its bits."""

    def write(code: Code, x: Pointer, y: Pointer, n: Lanes) -> None:
        def body(j: Lanes) -> None:
            power = (x.load(j).bits_as("i4") - (127 << 23)).at_least(0)
            y.store(j, (power + (127 << 23)).bits_as("f4"))

        code.each(0, n, 1, body)

    x, y = np.array([0.25, 1.0, 4.0], np.float32), np.zeros(3, np.float32)
    function(["f4", "f4"], 1, write)(x.ctypes.data, y.ctypes.data, len(x))
    np.testing.assert_array_equal(y, [1.0, 1.0, 4.0])
