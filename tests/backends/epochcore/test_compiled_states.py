"""Compiled columns of states against the same steps in numpy: the same bits, however the steps are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore.simulate.compiled_states import ROWS, STEPS, WIDTH, Columns, run_columns
from backends.epochcore.simulate.recurrence import Decay, added, by_row, order, run_float, terms

Parts = tuple[np.ndarray, ...]


def slow(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    d: np.ndarray,
    x: Parts,
    u: np.ndarray,
    reverse: bool,
    before: bool,
    liquid: bool,
) -> tuple[Parts, np.ndarray]:
    total, (own, gain, weight) = np.empty(u.shape), (by_row(part) for part in (a, b, c))
    for k in order(len(u), reverse):
        v = tuple(half * u[k] for half in gain)
        decay = tuple(part + half for part, half in zip(own, v, strict=True)) if liquid else own
        following = run_float(Decay(decay), x, v)
        total[k] = added(terms(x if before else following, weight))
        x = following
    return x, total + u * d


@pytest.mark.parametrize("parts", [1, 2])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 2 * STEPS + 3),
    batch=st.integers(1, 3),
    cols=st.integers(1, 2 * WIDTH + 3),
    rows=st.integers(1, 2 * ROWS + 1),
    plain=st.booleans(),
    cut=st.integers(0, 2 * STEPS + 3),
    shared=st.integers(0, 3),
    flags=st.fixed_dictionaries({name: st.booleans() for name in ("reverse", "before", "liquid")}),
)
def test_columns_step_as_numpy_does(
    parts: int,
    seed: int,
    steps: int,
    batch: int,
    cols: int,
    rows: int,
    plain: bool,
    cut: int,
    shared: int,
    flags: dict[str, bool],
) -> None:
    rng = np.random.default_rng(seed)
    # states that shrink: numbers that grow beyond all bounds tell nothing
    a, b, c = (rng.uniform(-1, 1, (parts, cols, rows)) for _ in range(3))
    a, b = a * 0.7, np.stack([np.ones((cols, rows)), np.zeros((cols, rows))])[:parts] if plain else b * 0.2
    x, u = tuple(rng.standard_normal((parts, rows, batch, cols))), rng.standard_normal((steps, batch, cols))
    kept = np.array(x)
    d = rng.standard_normal(cols)
    columns = Columns.of(a, b, c, d)
    last, y = slow(a, b, c, d, x, u, **flags)
    u = np.pad(u, ((0, 0), (0, 0), (0, columns.padded - cols)))
    assert columns.plain == plain
    cut = min(cut, steps)
    pieces = [u[cut:], u[:cut]] if flags["reverse"] else [u[:cut], u[cut:]]
    found, state, blocks = [], np.array(x), range(columns.blocks)
    for piece in pieces:
        value = np.empty(piece.shape)
        for part in (blocks[shared:], blocks[:shared]):
            run_columns(columns, state, piece, value, part, **flags)
        found.append(value[..., :cols])
    np.testing.assert_array_equal(np.concatenate(found[::-1] if flags["reverse"] else found), y)
    np.testing.assert_array_equal(state, np.array(last))
    np.testing.assert_array_equal(np.array(x), kept)


@pytest.mark.parametrize("name", ["columns", "x", "u", "y", "blocks"])
def test_arrays_that_do_not_go_with_the_states_are_refused(name: str) -> None:
    one = np.ones((1, 3, 2))
    columns = Columns.of(one, one, one, np.zeros(3))
    given = {"columns": columns, "x": np.zeros((1, 2, 1, 3)), "u": np.zeros((4, 1, columns.padded))}
    given |= {"y": np.zeros((4, 1, columns.padded)), "blocks": range(columns.blocks)}
    flags = {"reverse": False, "before": False, "liquid": False}
    run_columns(**given, **flags)
    narrow = {
        "blocks": range(columns.blocks + 1),
        "columns": Columns.of(one[:, :2], one[:, :2], one[:, :2], np.zeros(2)),
    }
    wrong = narrow[name] if name in narrow else given[name].astype(np.float32)
    with pytest.raises(ValueError, match=r"states|machine code"):
        run_columns(**given | {name: wrong}, **flags)
    if name in ("u", "y"):
        with pytest.raises(ValueError, match="states"):
            run_columns(**given | {name: given[name][..., :2]}, **flags)
