"""Random systems for the property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ssmc.statespace import StateSpace

seeds = st.integers(0, 2**32 - 1)


def random_system(
    seed: int,
    *,
    dense: bool | None = None,
    complex_: bool | None = None,
    halved: bool | None = None,
    read_before: bool | None = None,
    radius: float = 0.97,
    sizes: tuple[int, int, int, int] | None = None,
) -> StateSpace:
    """A stable discrete system of random shape and kind; what is None is drawn."""
    rng = np.random.default_rng(seed)

    def coin(value: bool | None) -> bool:
        return bool(rng.integers(2)) if value is None else value

    groups, states, wide, high = sizes or tuple(int(n) for n in rng.integers(1, (4, 6, 4, 4)))
    is_complex, is_dense = coin(complex_), coin(dense)

    def draw(*shape: int) -> np.ndarray:
        real = rng.standard_normal(shape)
        return real + 1j * rng.standard_normal(shape) if is_complex else real

    if is_dense:
        a = draw(groups, states, states)
        largest = np.abs(np.linalg.eigvals(a)).max(axis=1)[:, None, None]
        a = a * rng.uniform(0.2, radius) / np.maximum(largest, 1e-3)
    else:
        magnitude = rng.uniform(0.1, radius, (groups, states))
        phase = rng.uniform(-np.pi, np.pi, (groups, states))
        a = magnitude * (np.exp(1j * phase) if is_complex else np.sign(phase))
    is_halved = is_complex and coin(halved)
    return StateSpace(
        a,
        draw(groups, states, wide),
        draw(groups, high, states),
        rng.standard_normal((groups, high, wide)),
        halved=is_halved,
        read_before=coin(read_before),
    )


@st.composite
def systems(draw: st.DrawFn, **kinds: bool | float | tuple[int, int, int, int] | None) -> StateSpace:
    """Hypothesis form of `random_system`."""
    return random_system(draw(seeds), **kinds)  # type: ignore[arg-type]
