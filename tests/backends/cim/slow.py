"""The chip's analog part again, slowly: one device, one sample, one event after another, in plain Python.

Nothing of the fast simulator is used. Numbers that both must draw alike are given to it. Conductances are fractions, so
that a sum that lies between two steps of an ADC is known to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from backends.cim.arch import Crossbar

F = np.float32  # what ADC thresholds and the words behind them are held in


def digits(word: int, base: int, slices: int) -> list[int]:
    """A whole number's digits, lowest first."""
    found = []
    for _ in range(slices):
        word, digit = divmod(word, base)
        found.append(digit)
    assert word == 0
    return found


@dataclass
class Weight:
    """The devices of one weight, uS: by sign (plus, minus; plus alone for an offset), then by slice."""

    devices: list[list[Fraction]]


def write(weight: float, box: Crossbar) -> Weight:
    """A weight in -1..1 at the nearest levels."""
    top = box.levels**box.slices - 1
    end = top if box.encoding == "pair" else top // 2
    if box.encoding == "pair":
        words = [round(max(weight, 0.0) * end), round(max(-weight, 0.0) * end)]
    else:
        words = [round((weight + 1.0) * end)]
    low = Fraction(box.g_min)
    step = (Fraction(box.g_max) - low) / (box.levels - 1)
    return Weight([[low + digit * step for digit in digits(word, box.levels, box.slices)] for word in words])


def dac(x: list[float], bits: int) -> tuple[list[int], F]:
    """Words of a vector at its own largest input, and that input."""
    reach = max(abs(F(value)) for value in x)
    reach = F(1) if reach == 0 else reach
    return [round(float(F(F(F(value) / reach) * F(2 ** (bits - 1) - 1)))) for value in x], reach


def bits_of(word: int, bits: int) -> list[int]:
    """Signed bits of a word's magnitude, lowest first."""
    return [(abs(word) >> b & 1) * (1 if word > 0 else -1) for b in range(bits - 1)]


def product(
    x: list[float],
    weights: list[list[Weight]],
    scale: list[float],
    box: Crossbar,
    full: Any,
    fresh: Callable[[Any], Any] = lambda g: g,
    adc: bool = True,
    reference: list[Any] | None = None,
) -> list[float]:
    """One vector through rows of weights. `fresh` is what a device conducts at a read; `full` is the ADC's range for
    inputs in -1..1, in full conductances."""
    window = Fraction(box.g_max) - Fraction(box.g_min)
    words, reach = dac(x, box.dac_bits) if adc else ([*x], 1.0)
    largest_in, largest_out = 2 ** (box.dac_bits - 1) - 1, 2 ** (box.adc_bits - 1) - 1
    serial = box.input == "bit-serial" and adc
    planes = (
        [list(plane) for plane in zip(*(bits_of(w, box.dac_bits) for w in words), strict=True)] if serial else [words]
    )
    unit = 1 if serial or not adc else largest_in
    top = box.levels**box.slices - 1
    end = top if box.encoding == "pair" else top // 2
    result = []
    for j in range(len(scale)):
        total = 0.0
        for p, plane in enumerate(planes):
            for s in range(box.slices):
                current: Any = 0
                for i, drive in enumerate(plane):
                    for sign, devices in zip((1, -1), weights[i][j].devices, strict=False):
                        current += sign * drive * fresh(devices[s])
                    if box.encoding == "offset":  # the reference column: a device at g_min in every row
                        current -= drive * (Fraction(box.g_min) if reference is None else fresh(reference[i]))
                current /= window if isinstance(current, Fraction) else float(window)
                if adc:
                    step = full * unit / largest_out
                    code = max(-largest_out, min(largest_out, round(current / step)))
                    current = float(code * step)
                total += float(current) * 2.0**p * box.levels**s * (box.levels - 1) / end
        total /= largest_in if adc else 1
        if box.encoding == "offset":
            inputs = sum(words) / (largest_in if adc else 1)
            total -= inputs
        result.append(float(total * float(reach) * scale[j]))
    return result


def states(
    u: list[list[float]],
    dt: list[float],
    rates: list[float],
    spread: Callable[[int, int], float],
    write_law: float,
    window: float,
    busy: float = 0.0,
    held: float = 0.0,
) -> list[list[float]]:
    """Volatile pairs, event by event: (events, nodes). `spread` (event, node) multiplies a decay's exponent. The core
    is `busy` for so long with an event and takes the next one then; `held` passes from a pulse to its read."""
    nodes = [[0.0, 0.0] for _ in rates]
    out = []
    now, free, pulsed = 0.0, -math.inf, 0.0
    for k, (event, gap) in enumerate(zip(u, dt, strict=True)):
        now += gap
        taken = max(now, free)
        passed = taken - pulsed
        pulsed, free = taken, taken + busy
        row = []
        for n, pair in enumerate(nodes):
            kept = math.exp(min(rates[n] * passed * spread(k, n), 0.0))
            read = math.exp(rates[n] * held)
            for side, sign in enumerate((1, -1)):
                g = pair[side] * kept
                g += max(sign * event[n], 0.0) * (1 - write_law * g / window if write_law else 1.0)
                pair[side] = min(g, window) if write_law else g
            row.append(pair[0] * read - pair[1] * read)
        out.append(row)
    return out


def currents(
    x: list[float],
    weights: list[list[Weight]],
    box: Crossbar,
    reach: float,
    fresh: Callable[[Any], Any] = lambda g: g,
) -> list[float]:
    """What the columns of single pairs carry, in full conductances times inputs: rows driven by DACs that end at
    `reach`, no ADC."""
    window = float(Fraction(box.g_max) - Fraction(box.g_min))
    end = 2 ** (box.dac_bits - 1) - 1
    words = [max(-end, min(end, round(value / reach * end))) for value in x]
    found = []
    for j in range(len(weights[0])):
        total = 0.0
        for word, row in zip(words, weights, strict=True):
            plus, minus = (float(fresh(device[0])) for device in row[j].devices)
            total += word * (plus - minus) / window
        found.append(total * reach / end)
    return found


@dataclass
class Nodes:
    """Volatile states, each the difference of two devices, through one event after another."""

    rates: list[float]

    def __post_init__(self) -> None:
        self.levels = [[0.0, 0.0] for _ in self.rates]

    def step(self, charges: list[float], gap: float) -> list[float]:
        for pair, rate, charge in zip(self.levels, self.rates, charges, strict=True):
            for side, sign in enumerate((1, -1)):
                pair[side] = pair[side] * math.exp(rate * gap) + max(sign * charge, 0.0)
        return [plus - minus for plus, minus in self.levels]


def read_by_nodes(
    states: list[float],
    weights: list[list[Weight]],
    scale: list[float],
    box: Crossbar,
    reach: float,
    full: float,
    fresh: Callable[[Any], Any] = lambda g: g,
) -> list[float]:
    """Rows driven by state nodes, fully at `reach`; each column of single pairs through its ADC, whose range is `full`
    for rows driven fully."""
    window = float(Fraction(box.g_max) - Fraction(box.g_min))
    step = full / (2 ** (box.adc_bits - 1) - 1)
    found = []
    for j, one in enumerate(scale):
        total = 0.0
        for state, row in zip(states, weights, strict=True):
            plus, minus = (float(fresh(device[0])) for device in row[j].devices)
            total += max(-1.0, min(1.0, state / reach)) * (plus - minus) / window
        code = round(max(-full, min(full, total)) / step)
        found.append(code * step * reach * one)
    return found
