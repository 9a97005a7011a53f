"""Crossbars: conductances programmed from weights, and products through DAC, array and ADC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.cim.arch import Architecture, Devices
from backends.cim.core import Array, Core, Trap
from backends.cim.decode import Item
from backends.cim.devices import (
    drift_exponent,
    drifted,
    product_sigma,
    programming_sigma,
    read_sigma,
    to_levels,
)
from backends.cim.noise import device_normals, key_of, normals

PANEL = 64  # rows of one matrix product: a row's rounding must not depend on how many rows there are
_DEVICES = 2  # of a differential pair


@dataclass
class CrossbarArray:
    """One array: what its conductances mean. NaN where nothing was programmed.

    `weight` is in model units, `relative` in units of full conductance, `variance` that of a read of `relative`,
    `scale` the weight that full conductance stands for.
    """

    weight: Array
    relative: Array
    variance: Array
    scale: Array
    blocks: dict[tuple[int, int, int, int], Any] = field(default_factory=dict)


def blank(arch: Architecture) -> CrossbarArray:
    """An array as it comes from the fab."""
    shape = (arch.crossbar.rows, arch.weight_cols)
    weight, relative, variance, scale = (np.full(shape, np.nan) for _ in range(4))
    return CrossbarArray(weight, relative, variance, scale)


def _program(core: Core, code: Item) -> None:
    number, row, col = code.integer("array"), code.integer("row"), code.integer("col")
    weights, scale = core.data[code.text("weights")], core.data[code.text("scale")]
    rows, cols = weights.shape
    if number >= core.arch.crossbar.per_core:
        raise Trap(f"array {number} is outside of the core's {core.arch.crossbar.per_core}")
    if row + rows > core.arch.crossbar.rows or col + cols > core.arch.weight_cols:
        raise Trap(f"rows {row}..{row + rows - 1}, columns {col}..{col + cols - 1} are outside of the array")
    array = core.arrays.setdefault(number, blank(core.arch))
    region = slice(row, row + rows), slice(col, col + cols)
    if not np.isnan(array.weight[region]).all():
        raise Trap(
            f"array {number} is programmed twice at row {row}, column {col}", hint="give each weight its own cell"
        )
    array.weight[region], array.scale[region] = weights, scale
    array.blocks.clear()
    relative = weights / scale
    if core.ideal:
        array.relative[region], array.variance[region] = relative, 0.0
        return
    key = key_of(core.seed, "program", core.number, number)
    means, spreads = written(relative, core.arch, core.devices, _device_normals(core.arch, key, region))
    array.relative[region], array.variance[region] = means, spreads


def _device_normals(arch: Architecture, key: int, region: tuple[slice, slice]) -> Array:
    """(2 draws, 2 devices, rows, columns): every device has its own, wherever a block begins."""
    shape = (2 * _DEVICES, arch.crossbar.rows, arch.weight_cols)
    drawn = device_normals(key, int(np.prod(shape))).reshape(shape)
    return drawn[:, region[0], region[1]].reshape(2, _DEVICES, *(drawn[0, region[0], region[1]].shape))


def written(relative: Array, arch: Architecture, devices: Devices, drawn: Array) -> tuple[Array, Array]:
    """What a differential pair holds of `relative` in -1..1, and the variance of a read of it, both relative.

    Each device takes g_min + |w| (g_max - g_min) if it is its sign's, else g_min; then the nearest level, the
    programming error, drift.
    """
    box = arch.crossbar
    window = box.g_max - box.g_min
    pair = []
    for device, sign in enumerate((1.0, -1.0)):
        g = box.g_min + np.clip(sign * relative, 0.0, 1.0) * window
        if devices.levels:
            g = to_levels(g, box.g_min, box.g_max, box.levels)
        sigma = devices.programming_scale * programming_sigma(devices.programming, g, box.g_max, devices.age_seconds)
        if devices.programming != "none":
            g = np.maximum(g + sigma * drawn[0, device], 0.0)
        if devices.drift == "pcm":
            g = drifted(g, drift_exponent(g, box.g_max, drawn[1, device]), devices.age_seconds)
        pair.append((g, read_sigma(devices, g, box.g_max)))
    (plus, noise_plus), (minus, noise_minus) = pair
    return (plus - minus) / window, (noise_plus**2 + noise_minus**2) / window**2


@dataclass(frozen=True)
class _Block:
    """A part of an array that one instruction reads."""

    weight: Array
    relative: Array
    variance: Array
    scale: Array
    full: float  # the ADC's range for inputs in -1..1


def _block(core: Core, code: Item) -> _Block:
    number, row, rows, col, cols = (code.integer(name) for name in ("array", "row", "rows", "col", "cols"))
    array: CrossbarArray | None = core.arrays.get(number)
    part = slice(row, row + rows), slice(col, col + cols)
    if array is None or array.weight[part].shape != (rows, cols) or np.isnan(array.weight[part]).any():
        raise Trap(
            f"array {number} is read where it has not been programmed",
            f"rows {row}..{row + rows - 1}, columns {col}..{col + cols - 1}",
            f"let 'core{core.number}.setup' program it first",
        )
    if (array.scale[part] != array.scale[row, part[1]]).any():
        raise Trap(
            f"one product of array {number} reads weights of different scales",
            f"rows {row}..{row + rows - 1}, columns {col}..{col + cols - 1} were programmed in several blocks",
            "let one 'mvm' read each block, and add their results",
        )
    key = (row, rows, col, cols)
    if key not in array.blocks:
        relative = np.ascontiguousarray(array.relative[part])
        box = core.arch.crossbar
        if box.adc_range == "maximum":
            full = np.abs(relative).sum(0).max()
        else:  # no wider than the largest sum there can be
            full = min(np.abs(relative).sum(0).max(), box.adc_norms * np.sqrt((relative**2).sum(0)).max())
        array.blocks[key] = _Block(
            np.ascontiguousarray(array.weight[part]),
            relative,
            np.ascontiguousarray(array.variance[part]),
            array.scale[row, part[1]],
            float(full),
        )
    found: _Block = array.blocks[key]
    return found


def product(x: Array, weights: Array) -> Array:
    """`x` (n, rows) times `weights` (rows, cols), in panels of one height: each row's rounding is its own."""
    count = -(-len(x) // PANEL)
    padded = x
    if count * PANEL != len(x):
        padded = np.zeros((count * PANEL, x.shape[1]))
        padded[: len(x)] = x
    y: Array = np.matmul(padded.reshape(count, PANEL, -1), weights)
    return y.reshape(count * PANEL, -1)[: len(x)]


def _mvm(core: Core, code: Item) -> None:
    rows, cols, vectors = code.integer("rows"), code.integer("cols"), code.integer("vectors")
    source, target = code.integer("src_step") or rows, code.integer("dst_step") or cols
    block = _block(core, code)
    parts = [core.read(code.integer("src") + i * source, rows) for i in range(vectors)]
    outer = np.broadcast_shapes(*(part.shape[:2] for part in parts))
    if vectors == 1:
        x = parts[0][:, :, None]  # batch, steps, vectors, rows
    else:
        x = np.stack([np.broadcast_to(part, (*outer, rows)) for part in parts], axis=2)
    if not core.ideal and _noisy(core.devices):
        outer = (core.batch, core.count)
        x = np.broadcast_to(x, (*outer, vectors, rows))
    flat = np.ascontiguousarray(x).reshape(-1, rows)
    if core.ideal:
        y = product(flat, block.weight)
    else:
        y = _converted(core, code, block, flat, outer)
    y = y.reshape(*outer, vectors, cols)
    for i in range(vectors):
        part, at = y[:, :, i], code.integer("dst") + i * target
        if code.flag("accumulate"):
            part = core.read(at, cols) + part
        core.write(at, part)


def _noisy(devices: Devices) -> bool:
    return devices.read_noise != "none" or devices.product_bits > 0


def _converted(core: Core, code: Item, block: _Block, x: Array, outer: tuple[int, ...]) -> Array:
    """Through the DAC, the array with its read noise, the ADC, and the digital scale behind it. `x` is (n, rows)."""
    box, devices = core.arch.crossbar, core.devices
    reach = input_range(box.input_scale, code.real("input_range"), x)  # (n, 1)
    driven = x / reach
    if devices.converters:
        driven, clipped = convert(driven, 1.0, box.dac_bits)
        core.tally(code.loc, "inputs clipped by a DAC", clipped)
    current = product(driven, block.relative)
    sigma2: Any = 0.0
    if devices.read_noise != "none":
        # Fresh conductances at every read, referred to the column: variance sum_i sigma_ij^2 x_i^2.
        sigma2 = product(driven**2, block.variance)
    if devices.product_bits:
        sigma2 = sigma2 + product_sigma(np.abs(current).max(1, keepdims=True), devices.product_bits) ** 2
    if _noisy(devices):
        key = key_of(core.seed, "read", core.number, code.index)
        words = current.size // (outer[0] * outer[1])
        drawn = normals(key, outer[0], core.first, outer[1], words).reshape(current.shape)
        drawn *= np.sqrt(sigma2)
        current += drawn
    if devices.converters:
        current, clipped = convert(current, code.real("output_range") or block.full, box.adc_bits)
        core.tally(code.loc, "outputs clipped by an ADC", clipped)
    current *= reach
    current *= block.scale
    return current


def input_range(policy: str, calibrated: float, x: Array) -> Array:
    """(n, 1) largest input that the DAC takes: calibrated for the array, else each vector's own largest."""
    if policy == "array" and calibrated:
        return np.full((len(x), 1), calibrated)
    largest = np.maximum(x.max(1, keepdims=True), -x.min(1, keepdims=True))
    return np.where(largest == 0, 1.0, largest)


def convert(x: Array, full: float, bits: int) -> tuple[Array, int]:
    """The nearest of 2^bits - 1 values in -full..full, and how many were clipped: a converter with a sign bit."""
    largest = 2 ** (bits - 1) - 1
    if full == 0.0:
        return np.zeros_like(x), 0
    word = x * (largest / full)
    np.rint(word, out=word)
    clipped = 0
    if word.max(initial=0.0) > largest or word.min(initial=0.0) < -largest:
        clipped = int(np.count_nonzero(np.abs(word) > largest))
        np.clip(word, -largest, largest, out=word)
    word *= full / largest
    return word, clipped


UNITS: dict[str, Callable[[Core, Item], None]] = {"program": _program, "mvm": _mvm}
