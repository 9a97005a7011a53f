"""Sparse matrices against the same ones with all their zeros."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.ir import Quantization, Tensor, tensor
from ssmc.ir.sparse import Sparse, of_stacks


def drawn(seed: int) -> tuple[Sparse, np.ndarray]:
    """Two diagonals of blocks side by side, the second begins lower down; zeros in blocks, too."""
    rng = np.random.default_rng(seed)
    groups, high, wide, gap = rng.integers(1, 5, 4)
    stack = rng.integers(-3, 4, (2, groups, high, wide)).astype(float)
    whole = np.zeros((groups * high + gap, 2 * groups * wide))
    for half in range(2):
        for g in range(groups):
            row, column = half * gap + g * high, (half * groups + g) * wide
            whole[row : row + high, column : column + wide] = stack[half, g]
    return of_stacks(whole.shape, [(0, 0, stack[0]), (gap, groups * wide, stack[1])]), whole


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 16), st.slices(20), st.slices(40))
def test_a_part_is_that_of_the_whole(seed: int, rows: slice, columns: slice) -> None:
    sparse, whole = drawn(seed)
    at = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
    np.testing.assert_array_equal(sparse[at], whole[at])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_a_tensor_of_it_is_that_of_the_whole(seed: int, scaled: bool) -> None:
    sparse, whole = drawn(seed)
    scale = tuple(np.random.default_rng(seed).uniform(0.1, 1, whole.shape[1]))
    found, dense = Tensor(sparse), Tensor(whole)
    if scaled:
        levels = of_stacks(whole.shape, [(0, 0, whole[None].astype(np.int8))])
        found, dense = (
            Tensor.on_grid(levels, Quantization(8, scale)),
            Tensor(whole * np.array(scale), Quantization(8, scale)),
        )
        assert found.levels is not None
        np.testing.assert_array_equal(found.levels[1:, :-1], whole[1:, :-1])
        np.testing.assert_array_equal(found.integers(slice(1, 3)), whole[1:3])
    assert found == dense and found.shape == dense.shape and repr(found) == repr(dense)
    assert found.array.tobytes() == found.stored.tobytes() == dense.array.tobytes()
    at = slice(1, 4), slice(0, 3)
    np.testing.assert_array_equal(found.part(*at), dense.part(*at))
    with pytest.raises(ValueError, match="read-only"):
        found.stored[:] = 0


def test_the_digest_is_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor, "LARGE", 16)
    sparse, whole = drawn(3)
    assert Tensor(sparse).digest == Tensor(whole).digest


def test_the_identity_is_told() -> None:
    ones = of_stacks((4, 4), [(0, 0, np.stack([np.eye(2)] * 2))])
    assert ones.is_identity()
    for other in (
        of_stacks((4, 4), [(0, 0, np.stack([np.eye(2)[::-1]] * 2))]),
        of_stacks((4, 4), [(0, 0, np.eye(3)[None])]),
        of_stacks((4, 5), [(0, 0, np.eye(4)[None])]),
        of_stacks((4, 4), [(0, 0, 2 * np.eye(4)[None])]),
    ):
        assert not other.is_identity()
