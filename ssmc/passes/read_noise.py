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

from ssmc.ir.op import Array
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
    shared = max(1, min(noise.rows // max(1, half), noise.columns))
    scale, whole = balanced(noise, *(_blocks(x, shared) for x in (least, outputs, energy.sum(1))))
    scale, whole = (x.reshape(-1)[: len(theta)] for x in (scale, whole))
    decides = least >= scale
    size = outputs.sum(1)
    share = np.where(decides | (size == 0), 0.0, whole * scale**2 / np.where(size > 0, size, 1.0))
    rows, form = noise.spread**2 * at.drift, np.zeros_like(at.gram)
    for p in halves:
        form[:, p, p] = share[:, None, None] * at.gram[:, p, p]
        inputs = _blocks(energy[:, p], shared)
        most = noise.drive**2 * largest_square(inputs.reshape(len(inputs), -1))
        rows[:, p] += np.repeat(most, shared)[: len(theta), None]
    form[:, np.arange(2 * half), np.arange(2 * half)] += rows
    return Toll(form, np.where(decides, whole, 0.0))


def _blocks(x: Array, size: int) -> Array:
    """(G, ...) as (blocks, size, ...), the last block filled with zeros."""
    count = -(-len(x) // size)
    padded = np.zeros((count * size, *x.shape[1:]))
    padded[: len(x)] = x
    return padded.reshape(count, size, *x.shape[1:])


def balanced(noise: ReadNoise, least: Array, outputs: Array, power: Array) -> tuple[Array, Array]:
    """What full conductance of each column best stands for (see `balance-columns`), no less than `least` (..., J), and
    the variance of the outputs by its square (..., J); `outputs` (..., J, A) are mean squares, of A arrays, `power`
    (..., J) that of the states. Each set of J columns is by itself; a column whose `least` is 0 is not there."""
    there, size = least > 0, np.sqrt(outputs.max(-1, initial=0.0))
    least = np.where(there, least, 1.0)
    reach = (size / least).max(-1, initial=0.0, keepdims=True)
    shares = np.geomspace(1.0, NARROWEST, TRIED).reshape(-1, *[1] * least.ndim)
    scales = np.maximum(least, size / (np.where(reach > 0, reach, 1.0) * shares))  # (tried, ..., J)
    top = largest_square(np.swapaxes(outputs, -1, -2) / scales[..., None, :] ** 2).sum(-1)
    wholes = noise.product**2 * top[..., None] + noise.weight**2 * power
    best = np.argmin((scales**2 * wholes * there).sum(-1), axis=0)[None, ..., None]
    return np.take_along_axis(scales, best, 0)[0], np.take_along_axis(wholes, best, 0)[0]


def largest_square(variances: Array) -> Array:
    """`E max_i z_i^2` of independent normal z_i of these variances (..., J), for each set of them (...): the integral
    of `1 - prod_i P(z_i^2 <= t)`."""
    from scipy.special import erf

    top = variances.max(-1, initial=0.0, keepdims=True)
    at = np.linspace(0.0, WIDEST, POINTS)  # sqrt(t / top)
    part = np.sqrt(2 * np.maximum(variances / np.where(top > 0, top, 1.0), 1e-12))
    below = erf(at / part[..., None]).prod(-2)
    return np.asarray(top[..., 0] * np.trapezoid((1 - below) * 2 * at, at))
