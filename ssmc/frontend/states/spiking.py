"""Integrate-and-fire neurons found by evaluating them: what multiplies the potential below and above a threshold.

The next potential is a black box f(x), taken apart element by element: two straight lines, and a place where f changes
from one to the other. That place is found by bisection, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ssmc.frontend.states.transition import Map
from ssmc.ir.op import Array
from ssmc.ir.ops.spiking import ROWS, neuron_step
from ssmc.ir.tensor import Tensor

TOLERANCE = 1e-9
FAR = 1024.0  # a potential that is beyond any threshold
BISECTIONS = 80  # from FAR down to neighbouring numbers


@dataclass(frozen=True, eq=False)
class Neurons:
    """Rows of the op `spike`, a number for each of n neurons."""

    decay: Array
    threshold: Array
    fired_decay: Array
    fired_gain: Array
    fired_offset: Array
    or_equal: bool
    immediate: bool = False

    def apply(self, x: Array, drive: Array) -> Array:
        """The potentials kept after `x` (batch, n), for a drive of the same shape."""
        return neuron_step([getattr(self, name) for name in ROWS], self.or_equal, self.immediate, x, drive)[1]

    def attributes(self, shape: tuple[int, ...]) -> dict[str, Tensor | bool]:
        """Attributes of the op, for neurons that stand in an array of `shape`."""
        found: dict[str, Tensor | bool] = {name: Tensor(getattr(self, name).reshape(shape)) for name in ROWS}
        return {**found, "or_equal": self.or_equal, "immediate": self.immediate}


def find_neurons(maps: Sequence[Map], batch: int, n: int) -> Neurons | None:
    """The neurons whose next potential the maps give, a map for each sample of the data; None where they are none.

    A potential of zero must not fire, so that the drive is f(0).
    """
    base = [f(np.zeros((batch, n))) for f in maps]
    if not all(np.isfinite(b).all() for b in base) or not _apart(maps[0], batch, n):
        return None
    low = [_line(f, -FAR, batch, n) for f in maps]
    high = [_line(f, FAR, batch, n) for f in maps]
    decay, fired_decay = _same([slope for slope, _ in low]), _same([slope for slope, _ in high])
    if decay is None or fired_decay is None:
        return None
    drive, fired = np.concatenate([o for _, o in low]), np.concatenate([o for _, o in high])
    gain, offset = _affine(drive, fired)
    edges = [_edge(f, lines, batch, n) for f, lines in zip(maps, zip(low, high, strict=True), strict=True)]
    below, above = np.concatenate([a for a, _ in edges]), np.concatenate([b for _, b in edges])
    if np.ptp(below, axis=0).max(initial=0.0) > 0.0 or np.ptp(above, axis=0).max(initial=0.0) > 0.0:
        return None
    if (below[0] > FAR * (1.0 - TOLERANCE)).any():  # both lines are one, up to there at least
        return None
    or_equal = bool(_single(above[0]).all() and not _single(below[0]).all())
    threshold = above[0] if or_equal else below[0]
    found = Neurons(_round(decay), threshold, _round(fired_decay), _round(gain), _round(offset), or_equal)
    if or_equal and (threshold <= 0).any():
        return None
    return found if neurons_error(found, maps, batch, n) <= TOLERANCE else None


def find_resetting(leaks: Sequence[Map], resets: Sequence[Map], batch: int, n: int) -> Neurons | None:
    """Neurons that are reset in the step in which they fire: s -> a s + v by `leaks`, then reset by `resets`."""
    found, zero = find_neurons(resets, batch, n), np.zeros((batch, n))
    if found is None or np.any(found.decay != 1.0) or any(np.any(reset(zero)) for reset in resets):
        return None
    lines = [_line(leak, FAR, batch, n) for leak in leaks]
    decay, rng = _same([slope for slope, _ in lines]), np.random.default_rng(11)
    if decay is None:
        return None
    for leak, (_, drive) in zip(leaks, lines, strict=True):
        for scale in (1.0, FAR):
            x = scale * rng.standard_normal((batch, n))
            if np.abs(leak(x) - decay * x - drive).max(initial=0.0) > TOLERANCE * scale:
                return None
    none = np.zeros(n)
    return replace(found, decay=_round(decay), fired_gain=none, immediate=True)


def neurons_error(found: Neurons, maps: Sequence[Map], batch: int, n: int, leaks: Sequence[Map] | None = None) -> float:
    """Largest error of the neurons at fresh potentials around their thresholds, relative to the largest potential.

    `leaks` give the drive, where it is not what the maps make of zero.
    """
    rng, worst = np.random.default_rng(17), 0.0
    for f, leak in zip(maps, leaks or maps, strict=True):
        drive = leak(np.zeros((batch, n)))
        for scale in (0.1, 1.0, 10.0):
            x = found.threshold + scale * rng.standard_normal((batch, n))
            expected = f(x)
            error = float(np.abs(found.apply(x, drive) - expected).max(initial=0.0))
            worst = max(worst, error / max(float(np.abs(expected).max(initial=0.0)), 1e-300))
    return worst


def refusal(maps: Sequence[Map], batch: int, n: int) -> str:
    """Why a potential is no neuron's."""
    f, rng = maps[0], np.random.default_rng(5)
    x = 3 * rng.standard_normal((batch, n))
    bends = [np.abs(f(x + apart) - 2 * f(x) + f(x - apart)) > TOLERANCE for apart in (1e-2, 1.0)]  # slight ones, too
    if max(found.mean() for found in bends) > 0.5:
        return "the next state is not a linear function of the state"
    if not _apart(f, batch, n):
        return "its neurons have thresholds and feed each other within a layer; only neurons that do not are supported"
    lines = [[_line(f, far, batch, n) for f in maps] for far in (-FAR, FAR)]
    if any(_same([slope for slope, _ in line]) is None for line in lines):
        return "its state has a threshold, and what multiplies it depends on the data"
    return (
        "its state has a threshold, but is no integrate-and-fire neuron with one fixed threshold (from zero on) and a "
        "reset that is linear in it"
    )


def _apart(f: Map, batch: int, n: int) -> bool:
    """Does every element depend on the same element of x alone?"""
    rng = np.random.default_rng(3)
    x, other = 3 * rng.standard_normal((batch, n)), 3 * rng.standard_normal((batch, n))
    here, there = f(x), f(other)
    for picked in (rng.random((batch, n)) < 0.5, np.arange(n)[None] % 2 == np.arange(batch)[:, None] % 2):
        if np.abs(f(np.where(picked, x, other)) - np.where(picked, here, there)).max(initial=0.0) > TOLERANCE * FAR:
            return False
    return True


def _line(f: Map, far: float, batch: int, n: int) -> tuple[Array, Array]:
    """Slope and offset of f out there, (batch, n) each."""
    near, beyond = f(np.full((batch, n), far)), f(np.full((batch, n), 2 * far))
    slope = (beyond - near) / far
    return slope, near - slope * far


def _same(rows: Sequence[Array]) -> Array | None:
    """The one row (n,) that all samples share."""
    stacked = np.concatenate(rows)
    if not np.isfinite(stacked).all() or np.ptp(stacked, axis=0).max(initial=0.0) > TOLERANCE:
        return None
    return np.asarray(stacked.mean(axis=0))


def _affine(drive: Array, fired: Array) -> tuple[Array, Array]:
    """gain and offset (n,) with fired = gain drive + offset over all samples; a drive that never changes gains 1."""
    spread = drive - drive.mean(axis=0)
    power = (spread**2).sum(axis=0)
    moving = power > TOLERANCE
    gain = np.where(moving, (spread * fired).sum(axis=0) / np.where(moving, power, 1.0), 1.0)
    return gain, (fired - gain * drive).mean(axis=0)


def _edge(f: Map, lines: tuple[tuple[Array, Array], tuple[Array, Array]], batch: int, n: int) -> tuple[Array, Array]:
    """The last potential, from zero on, that does not fire and the first that does, (batch, n) each."""
    (a, b), (c, d) = lines
    below, above = np.zeros((batch, n)), np.full((batch, n), FAR)
    for _ in range(BISECTIONS):
        middle = below + (above - below) / 2
        value = f(middle)
        fires = np.abs(value - (c * middle + d)) < np.abs(value - (a * middle + b)) - TOLERANCE
        above, below = np.where(fires, middle, above), np.where(fires, below, middle)
    return below, np.nextafter(below, np.inf)


def _single(values: Array) -> NDArray[np.bool_]:
    """Which numbers can be float32, as those of a file are."""
    return np.asarray(values.astype(np.float32).astype(np.float64) == values)


def _round(values: NDArray[np.float64]) -> Array:
    """Numbers without the rounding of the probes: whole where they are all but whole."""
    whole = np.rint(values)
    return np.where(np.abs(values - whole) < TOLERANCE, whole, values)
