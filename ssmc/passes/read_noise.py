"""What arrays and state devices add to a layer's outputs, as a function of how the states are read.

An array reads states p_n (real and imaginary parts are rows of their own) with weights theta_jn: y_j = sum_n theta_jn
p_n. Full conductance of its column j stands for s_j, no less than the largest |theta_jn|. Independent of each other,
and of mean zero, these variances come on top of y_j; n runs over the rows of an array, whose outputs are added up:

    product   a product errs by `product` of its largest output, all columns alike, before the digital scale s_j:
              (product s_j)^2 E max_i (y_i / s_i)^2, i over the array's columns
    weights   a weight errs by `weight` of full conductance:          (weight s_j)^2 sum_n E p_n^2
    inputs    a row errs by `drive` of the array's largest input:     drive^2 E max_n p_n^2 sum_n theta_jn^2
    decays    a time constant errs by `spread` of itself:             spread^2 sum_n theta_jn^2 E (dp_n / d ln tau)^2

The last two are sums of theta_jn^2 times a variance: a ridge in units of the output. The first two go with the square
of the largest weight, or (where columns are balanced and the output decides s_j) with the power of the partial sums.
That is why terms that cancel cost what they do, within an array or between two. `E max y_i^2` is taken as that of
independent normal numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmc.passes.base import Array
from ssmc.passes.machine import Machine
from ssmc.statespace import Coordinates, Toll

WIDEST = 8.0  # standard deviations of the largest output that count
POINTS = 65  # of the integral over them
NARROWEST, TRIED = 1 / 32, 12  # of the window that a balanced column keeps; steps on the way there


@dataclass(frozen=True)
class ReadNoise:
    """Relative standard deviations, see above; `rows` and `columns` are those of an array, in weights."""

    product: float
    weight: float
    drive: float
    spread: float
    rows: int
    columns: int


def read_noise(machine: Machine | None) -> ReadNoise | None:
    """That of a machine whose first bank decays by itself; None where nothing errs."""
    if machine is None or machine.errors is None:
        return None
    errors = machine.errors
    spread = next((bank.spread for bank in machine.banks if bank.decay_only), 0.0)
    if not any((errors.product, errors.weight, errors.drive, spread)):
        return None
    columns = max(1, machine.array_cols // machine.cells_per_weight)
    return ReadNoise(errors.product, errors.weight, errors.drive, spread, machine.array_rows, columns)


def channel_toll(noise: ReadNoise, at: Coordinates) -> Toll:
    """What the weights of a channel cost: the variance of its output, columns balanced.

    Channels are blocks on a diagonal, as many as an array has rows and columns for; the real halves of their states lie
    in one array, the imaginary ones in another. Where a channel's largest weight decides s_j, that is what costs;
    where its output does, s_j follows it, and its two partial sums cost.
    """
    theta, half = at.weights, at.weights.shape[1] // 2
    energy = np.einsum("gnn->gn", at.gram)
    least = np.abs(theta).max(1, initial=0.0)
    least = np.where(least > 0, least, 1.0)
    halves = slice(0, half), slice(half, 2 * half)
    outputs = np.stack([np.einsum("gn,gnm,gm->g", theta[:, p], at.gram[:, p, p], theta[:, p]) for p in halves], axis=1)
    rows, form, largest = noise.spread**2 * at.drift, np.zeros_like(at.gram), np.zeros(len(theta))
    shared = max(1, min(noise.rows // max(1, half), noise.columns))
    for first in range(0, len(theta), shared):
        block = slice(first, first + shared)
        power = energy[block].sum(1)
        scale, whole = balanced(noise, least[block], outputs[block], power)
        decides = least[block] >= scale
        largest[block] = np.where(decides, whole, 0.0)
        size = outputs[block].sum(1)
        share = np.where(decides | (size == 0), 0.0, whole * scale**2 / np.where(size > 0, size, 1.0))
        for p in halves:
            form[block, p, p] = share[:, None, None] * at.gram[block, p, p]
            rows[block, p] += noise.drive**2 * largest_square(energy[block, p].ravel())
    form[:, np.arange(2 * half), np.arange(2 * half)] += rows
    return Toll(form, largest)


def balanced(noise: ReadNoise, least: Array, outputs: Array, power: Array) -> tuple[Array, Array]:
    """What full conductance of each column best stands for (see `balance-columns`), no less than `least` (J,), and the
    variance of the outputs by its square (J,); `outputs` (J, A) are mean squares, of A arrays, `power` (J,) that of
    the states."""
    size = np.sqrt(outputs.max(1, initial=0.0))
    reach = float((size / least).max(initial=0.0))
    best, found = np.inf, (least, np.zeros_like(least))
    for share in np.geomspace(1.0, NARROWEST, TRIED):
        scale = np.maximum(least, size / (reach * share)) if reach > 0 else least
        top = sum(largest_square(outputs[:, a] / scale**2) for a in range(outputs.shape[1]))
        whole = noise.product**2 * top + noise.weight**2 * power
        error = float((scale**2 * whole).sum())
        if error < best:
            best, found = error, (scale, whole)
    return found


def largest_square(variances: Array) -> float:
    """`E max_i z_i^2` of independent normal z_i of these variances: the integral of `1 - prod_i P(z_i^2 <= t)`."""
    from scipy.special import erf

    top = float(variances.max(initial=0.0))
    if not top > 0:
        return 0.0
    at = np.linspace(0.0, WIDEST, POINTS)  # sqrt(t / top)
    below = erf(at[:, None] / np.sqrt(2 * np.maximum(variances / top, 1e-12)))
    return float(top * np.trapezoid((1 - below.prod(axis=1)) * 2 * at, at))
