"""What a recurrence between products answers, in blocks of steps, is what it answers step by step."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from ssmc.frontend.mixing import gated
from ssmc.frontend.mixing.gated import Constants, Form, answer_of
from ssmc.frontend.mixing.roles import Roles

RNG = np.random.default_rng(8)
# q (b t c n), k (b t n), v (b t c p), the logarithm of the decay (b t c): h is (b, t, c, n, p).
FORM = Form(("btcn", "btn", "btcp", "btc"), "btcp", "btcpn", True)
ROLES = Roles(read=(0,), written=(1, 2), decay=(3,), added=())


def arrays(steps: int, heads: int, states: int, width: int) -> list[np.ndarray]:
    shapes = (2, steps, heads, states), (2, steps, states), (2, steps, heads, width), (2, steps, heads)
    q, k, v, a = (RNG.standard_normal(shape) for shape in shapes)
    return [q, k, v, -np.abs(a)]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("block", [1, 100, 1 << 16])
def test_blocks_of_steps(block: int, begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated, "BLOCK", block)
    q, k, v, a = arrays(7, 2, 3, 4)
    start = RNG.standard_normal((2, 4, 3)) if begun else None
    constants = Constants(np.full((1, 1, 1), 0.9), np.asarray(2.0), start)
    h, rows = np.zeros((2, 2, 4, 3)) if start is None else np.stack([start] * 2), []
    for t in range(7):
        h = 0.9 * np.exp(a[:, t, :, None, None]) * h + v[:, t, :, :, None] * k[:, t, None, None, :]
        rows.append(2.0 * (h * q[:, t, :, None, :]).sum(-1))
    np.testing.assert_allclose(answer_of(ROLES, FORM, constants, [q, k, v, a]), np.stack(rows, 1), rtol=1e-12)


def test_a_decay_of_infinity_at_the_first_step_is_not_read() -> None:
    q, k, v, a = arrays(3, 1, 2, 2)
    a[:, 0] = np.inf
    assert np.isfinite(answer_of(ROLES, FORM, Constants(np.ones((1, 1, 1)), np.ones(())), [q, k, v, a])).all()


def test_states_are_not_kept_for_all_steps() -> None:
    given = arrays(256, 2, 32, 32)
    tracemalloc.start()
    answer_of(ROLES, FORM, Constants(np.ones((1, 1, 1)), np.ones(())), given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2 * 256 * 2 * 32 * 32 / 2  # half of all states
