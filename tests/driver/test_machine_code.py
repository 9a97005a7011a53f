"""Machine code from LLVM's language does what the same operations do in numpy, to the bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmc import machine_code
from ssmc.machine_code import Code, Function, Lanes, Pointer, address, function

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


UNALIGNED = np.frombuffer(bytearray(17), np.uint8)[1:].view("f8")
KEPT = np.broadcast_to(np.zeros(3), (2, 3))


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (np.zeros(3, np.float32), {}),
        (np.zeros(3, ">f8"), {}),
        (UNALIGNED, {}),
        (np.zeros(6)[::2], {}),
        (np.zeros((3, 4))[:, :2], {}),
        (np.zeros((3, 4))[:, ::2], {"whole": False}),
        (np.zeros(4), {"whole": False}),
        (KEPT, {"whole": False, "written": True}),
    ],
)
def test_what_machine_code_would_misread_is_refused(array: np.ndarray, options: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="machine code"):
        address(array, "f8", **options)


def test_rows_at_one_distance_are_read() -> None:
    array = np.zeros((3, 4))
    assert address(array, "f8", written=True) == address(array[:, :2], "f8", whole=False) == array.ctypes.data
    assert address(KEPT, "f8", whole=False) == KEPT.ctypes.data


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor of which LLVM knows nothing."""

    def unknown() -> None:
        raise RuntimeError("LLVM does not tell")

    monkeypatch.setattr(machine_code.binding, "get_host_cpu_features", unknown)
    monkeypatch.setattr(machine_code.binding, "get_host_cpu_name", lambda: "")
    machine_code._features.cache_clear()
    yield
    machine_code._features.cache_clear()


@pytest.mark.usefixtures("plain")
def test_plain_processors_do_with_two_roundings() -> None:
    """Vectors wider than any register there, no multiplication and addition in one."""

    def write(code: Code, x: Pointer, y: Pointer) -> None:
        y.store(0, y.load(0, 16).plus(x.load(0, 16), x.load(0, 16)))

    x, y = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
    expected = y + x * x
    function(["f4", "f4"], 0, write)(address(x, "f4"), address(y, "f4", written=True))
    np.testing.assert_array_equal(y, expected)
