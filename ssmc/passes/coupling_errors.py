"""What converters do to a product's sums, and what lines do in their place: expected, rms, relative to the sums.

Both ways meet the same devices; left out is what they do alike to both, but for the error of a whole product. x are
inputs, W the weights, s_j what full conductance of column j stands for, r a row's full drive, f the range of the ADCs
for rows driven fully; q_d and q_a the rounding of a DAC and of an ADC of their ends, 1/(sqrt(12) (2^(b-1) - 1)); g the
spread of a line's gain, p the error of a whole product, of its largest sum. The variances of sum j, added up over the
arrays that give a part of it:

    converters       q_d^2 E r^2 sum_i W_ij^2 + q_a^2 E r^2 (s_j f)^2 + p^2 s_j^2 E max_i (y_i / s_i)^2
    charging nodes   q_d^2 R^2 sum_i W_ij^2 + g^2 E y_j^2 + p^2 s^2 E max_i (y_i / s)^2
                     + (s^2 - s_j^2) l^2 sum_i E x_i^2
    driven by nodes  q_a^2 R^2 (s_j f)^2 + g^2 sum_i W_ij^2 E x_i^2 + p^2 s_j^2 E max_i (y_i / s_i)^2

R is a fixed r where r follows each vector; l the rounding of a level, of full conductance; s = max_j s_j.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ssmc.ir import Node
from ssmc.ir.op import Array
from ssmc.passes.clipping import best_range
from ssmc.passes.grid import full_scale, largest_integer
from ssmc.passes.machine import Machine


def charging_errors(product: Node, x: Array, machine: Machine) -> tuple[float, float]:
    """Of sums that become words, and of those that charge nodes; `x` (vectors, rows)."""
    assert machine.converters is not None and machine.coupling is not None
    weight, scale, (row, _) = product.op["weight"].array, scale_of(product), _roundings(machine)
    y, common = x @ weight, np.full(len(scale), scale.max())
    coupled = (row * drive_range(product, x, machine)) ** 2 * np.square(weight).sum(0)
    coupled += machine.coupling.gain**2 * np.square(y).mean(0)
    for at, _, _, part in _parts(product, x):
        coupled[at] += _whole(machine, part, common[at])
    if machine.weight_bits is not None:
        level = 1.0 / (largest_integer(machine.weight_bits) * math.sqrt(12.0))
        coupled += level**2 * (common**2 - scale**2) * np.square(x).mean(0).sum()
    return _relative(_converted(product, x, scale, machine), y), _relative(coupled, y)


def driving_errors(product: Node, x: Array, machine: Machine) -> tuple[float, float]:
    """Of sums of states that DACs drive rows with, and of those that drive rows themselves; `x` (vectors, states)."""
    assert machine.converters is not None and machine.coupling is not None
    weight, scale, (_, column) = product.op["weight"].array, scale_of(product), _roundings(machine)
    coupled = machine.coupling.gain**2 * (np.square(weight) * np.square(x).mean(0)[:, None]).sum(0)
    for at, _, _, part in _parts(product, x):
        coupled[at] += (column * scale[at] * np.abs(part / scale[at]).max(initial=0.0)) ** 2
        coupled[at] += _whole(machine, part, scale[at])
    y = x @ weight
    return _relative(_converted(product, x, scale, machine), y), _relative(coupled, y)


def scale_of(product: Node) -> Array:
    """(columns,) the weight that full conductance stands for, the largest of a column's pieces."""
    scale = np.zeros(product.op["weight"].shape[1])
    for piece in product.op["pieces"]:
        at = slice(piece.n0, piece.n1)
        scale[at] = np.maximum(scale[at], full_scale(product.op["weight"], piece))
    return np.where(scale == 0, 1.0, scale)


def drive_range(product: Node, x: Array, machine: Machine) -> float:
    """The fixed range of the DACs of a product whose sums charge nodes: one for all its rows."""
    assert machine.converters is not None
    return best_range(x, machine.converters.dac_bits, np.square(product.op["weight"].array).sum(1)) or 1.0


def _parts(product: Node, x: Array) -> Iterator[tuple[slice, Array, Array, Array]]:
    """Of each array: its columns, inputs, weights and sums."""
    for piece in product.op["pieces"]:
        at, driven = slice(piece.n0, piece.n1), x[:, piece.k0 : piece.k1]
        block = product.op["weight"].array[piece.k0 : piece.k1, at]
        yield at, driven, block, driven @ block


def _converted(product: Node, x: Array, scale: Array, machine: Machine) -> Array:
    assert machine.converters is not None
    row, column = _roundings(machine)
    variance = np.zeros(len(scale))
    for at, driven, block, part in _parts(product, x):
        if machine.converters.each_vector:
            reach = np.abs(driven).max(1)
            reach = np.where(reach == 0, 1.0, reach)
        else:
            reach = np.full(
                len(driven), best_range(driven, machine.converters.dac_bits, np.square(block).sum(1)) or 1.0
            )
        full = float(np.abs(part / (reach[:, None] * scale[at])).max(initial=0.0))
        rounded = row**2 * np.square(block).sum(0) + (column * full * scale[at]) ** 2
        variance[at] += float(np.square(reach).mean()) * rounded + _whole(machine, part, scale[at])
    return variance


def _whole(machine: Machine, y: Array, scale: Array) -> Array:
    """The error of a whole product beyond its ADC's rounding."""
    _, column = _roundings(machine)
    error = 0.0 if machine.errors is None else max(machine.errors.product**2 - column**2, 0.0)
    return np.asarray(error * np.square(scale) * np.square(np.abs(y / scale).max(1, initial=0.0)).mean())


def _roundings(machine: Machine) -> tuple[float, float]:
    assert machine.converters is not None
    bits = machine.converters.dac_bits, machine.converters.adc_bits
    row, column = (1.0 / ((2 ** (b - 1) - 1) * math.sqrt(12.0)) for b in bits)
    return row, column


def _relative(variance: Array, y: Array) -> float:
    power = np.square(y).mean(0)
    live = power > 0
    return float(np.sqrt((variance[live] / power[live]).mean())) if live.any() else 0.0
