"""Random states that are rounded at every step, for graphs of any level."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.ir import Tensor
from ssmc.ir.ops.rounded import COMPLEX_ONLY, PLACES, ROUNDINGS


def random_grid(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Rows of a grid with a scale for each state, signed or not, of few codes or of many."""
    scale = rng.uniform(0.01, 0.2, shape)
    zero = np.full(shape, float(rng.integers(-3, 4)))
    low = np.full(shape, float(rng.choice([-128, -8, 0])))
    high = low + float(rng.choice([15, 255]))
    return np.stack([scale, zero * float(rng.integers(0, 2)), zero, low, high])


def random_rounding(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Any]:
    """Attributes of the op `rounded`, for states of that shape."""
    pairs = len(shape) == 1 and shape[0] % 2 == 0 and bool(rng.random() < 0.5)
    places = [p for p in PLACES if rng.random() < 0.6 and (pairs or p not in COMPLEX_ONLY)] or ["sum"]
    grids = {f"{place}_grid": Tensor(random_grid(rng, shape)) for place in places}
    flags = {"is_complex": pairs, "reached": bool(rng.random() < 0.3)}
    return {"decay": Tensor(rng.uniform(-0.9, 0.9, shape)), "rounding": str(rng.choice([*ROUNDINGS])), **grids, **flags}


def random_sums(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Attributes of the op `rounded_sums`: any terms of n numbers, some on a grid, some not."""
    count = rng.integers(0, 4, n)
    count[rng.integers(n)] += 1
    number = np.repeat(np.arange(n), count)
    source = np.array([rng.integers(0, n + i) for i in number])
    weight = rng.uniform(-0.9, 0.9, len(number)) / count[number]
    gates = [[rng.integers(-1, n + i) for i in number]] if rng.random() < 0.5 else []
    grid = random_grid(rng, (n,))
    grid[0, rng.random(n) < 0.3] = 0.0
    flags = {"rounding": str(rng.choice([*ROUNDINGS])), "reached": bool(rng.random() < 0.3)}
    return {"grid": Tensor(grid), "terms": Tensor(np.stack([number, source, weight, *gates]).astype(float)), **flags}
