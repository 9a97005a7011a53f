"""Constants: what they are stored as, that nobody can change them, and products with those stored in float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.ir import tensor
from ssmc.ir.tensor import Quantization, Tensor, times, widened

SIZE = 64  # entries from which float32 is kept, in these tests


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor, "LARGE", SIZE)


def large(shape: tuple[int, ...] = (8, 16)) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("dtype", "few", "many"),
    [
        (np.float16, np.float64, np.float64),
        (np.float32, np.float64, np.float32),
        (np.float64, np.float64, np.float64),
        (np.complex64, np.complex128, np.complex128),
        (np.int32, np.int64, np.int64),
        (np.uint8, np.int64, np.int64),
        (np.bool_, np.bool_, np.bool_),
    ],
)
def test_only_large_float32_arrays_stay_what_they_are(dtype: type, few: type, many: type) -> None:
    small, big = Tensor(np.ones(SIZE - 1, dtype)), Tensor(np.ones(SIZE, dtype))
    assert (small.stored.dtype, big.stored.dtype) == (few, many)
    assert big.array.dtype == (np.float64 if dtype == np.float32 else many)


def test_a_read_only_array_is_shared_and_a_writeable_one_is_not() -> None:
    mine, frozen = large(), large()
    frozen.setflags(write=False)
    copied, shared = Tensor(mine), Tensor(frozen)
    assert not np.shares_memory(copied.stored, mine) and np.shares_memory(shared.stored, frozen)
    mine[:] = 0
    assert copied.stored.any()


@pytest.mark.parametrize("array", [large(), large().astype(np.float64), np.ones(3, np.float32)])
def test_nobody_can_change_a_constant(array: np.ndarray) -> None:
    value = Tensor(array)
    for seen in (value.stored, value.array):
        with pytest.raises(ValueError, match="read-only"):
            seen[:] = 0


def test_the_wide_copy_has_the_numbers_in_c_order() -> None:
    turned = large().T
    turned.setflags(write=False)
    value = Tensor(turned)
    assert value.stored.flags.f_contiguous and value.array.flags.c_contiguous
    np.testing.assert_array_equal(value.array, turned.astype(np.float64))
    wide = value.array
    assert widened(wide) is wide and widened(None) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=0, max_size=4), st.booleans(), st.integers(0, 1 << 16))
def test_the_digest_is_that_of_the_numbers(shape: list[int], turned: bool, seed: int) -> None:
    """Whether they are stored in float32 or float64, in rows or in columns, hashed in parts or as a whole."""
    narrow = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    narrow = np.asarray(np.asfortranarray(narrow) if turned else narrow)
    assert Tensor(narrow) == Tensor(narrow.astype(np.float64))
    assert hash(Tensor(narrow)) == hash(Tensor(narrow.astype(np.float64)))
    other = narrow.astype(np.float64)
    other[(-1,) * other.ndim] += 1e-9
    assert Tensor(narrow) != Tensor(other)
    assert Tensor(narrow) != Tensor(narrow[None])
    assert Tensor(narrow) != Tensor(narrow, Quantization(8, (1.0,)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=0, max_size=2), st.integers(1, 40), st.integers(1, 40), st.integers(0, 1 << 16)
)
def test_products_in_parts_are_products_in_float64(outer: list[int], rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((*outer, rows)), rng.standard_normal((rows, columns)).astype(np.float32)
    found = times(x, weight)
    assert found.dtype == np.float64 and found.shape == (*outer, columns)
    np.testing.assert_allclose(found, x @ weight.astype(np.float64), rtol=1e-12, atol=1e-12)


def test_products_of_complex_rows_stay_complex() -> None:
    x = np.array([[1 + 2j] * 8])
    np.testing.assert_allclose(times(x, large()), x @ large().astype(np.float64))


def test_integers_behind_a_quantised_tensor() -> None:
    """Of a large float32 array too, whose products with the scale are rounded."""
    whole = np.random.default_rng(1).integers(-127, 128, (8, 16))
    scale = tuple(np.random.default_rng(2).uniform(1e-3, 1e-1, 16))
    value = Tensor((whole * np.array(scale)).astype(np.float32), Quantization(8, scale))
    np.testing.assert_array_equal(value.integers(), whole)
    with pytest.raises(ValueError, match="not quantised"):
        Tensor(large()).integers()


def test_a_part_holds_nothing_of_the_rest() -> None:
    """A large float32 matrix is widened where it is read: pieces of it do not hold it whole."""
    large = np.random.default_rng(0).standard_normal((512, 700), np.float32)
    tensor = Tensor(large)
    assert tensor.stored.dtype == np.float32
    part = tensor.part(slice(3, 70), slice(128, 200))
    assert np.array_equal(part, tensor.array[3:70, 128:200]) and part.dtype == np.float64
    assert part.base is None or part.base.nbytes == part.nbytes


@pytest.mark.parametrize(("axis", "count"), [(-1, 700), (0, 512), (1, 700), (-1, 1)])
def test_a_part_of_a_grid_has_the_scales_of_its_rows_or_columns(axis: int, count: int) -> None:
    rng = np.random.default_rng(3)
    grid = Quantization(8, tuple(rng.uniform(0.1, 1, count).tolist()), axis)
    tensor = Tensor.on_grid(rng.integers(-127, 128, (512, 700)).astype(np.int8), grid)
    assert tensor.levels is not None
    np.testing.assert_array_equal(tensor.part(slice(3, 70), slice(128, 200)), tensor.array[3:70, 128:200])


@pytest.mark.parametrize(("bits", "dtype"), [(4, np.int8), (8, np.int8), (12, np.int16)])
def test_large_tensors_on_a_grid_hold_integers(bits: int, dtype: type) -> None:
    rng = np.random.default_rng(bits)
    largest = 2 ** (bits - 1) - 1
    integers = rng.integers(-largest, largest + 1, (600, 500)).astype(dtype)
    scale = np.where(np.arange(500) == 3, 0.0, rng.uniform(0.1, 1, 500))
    grid = Quantization(bits, tuple(scale.tolist()))
    held = Tensor.on_grid(integers, grid)
    plain = Tensor(integers * scale, grid)
    assert held.levels is not None and held.levels.dtype == dtype and plain.levels is None
    assert held.array.tobytes() == held.stored.tobytes() == plain.array.tobytes()
    assert (held.digest, held.shape, repr(held)) == (plain.digest, plain.shape, repr(plain))
    rows, columns = slice(5, 90), slice(2, 300)
    assert held.part(rows, columns).tobytes() == plain.part(rows, columns).tobytes()
    kept = scale > 0
    np.testing.assert_array_equal(held.integers(rows)[:, kept], plain.integers(rows)[:, kept])
    small = Tensor.on_grid(integers[:2, :30], Quantization(bits, grid.scale[:30]))
    assert small.levels is None
