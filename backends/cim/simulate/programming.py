"""Weights written into an array: what its devices hold, and what their columns then mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.cim.arch import Architecture, Crossbar, Devices
from backends.cim.program.decode import Item
from backends.cim.program.encoding import encode, encoding_of
from backends.cim.simulate.cells import Cells, Part, Region
from backends.cim.simulate.core import Core, Trap
from backends.cim.simulate.devices import drift_exponent, drifted, read_sigma, written_sigma
from backends.cim.simulate.noise import device_normals, device_uniforms, key_of
from backends.cim.simulate.wires import attenuation
from ssmc.ir.op import Array

SLACK = 1e-6  # of a weight's full scale, for rounding


@dataclass
class CrossbarArray:
    """One array: `cells` say what was written. The rest is None with perfect devices, else by device: `g` are
    conductances now, uS, (devices, slices, rows, columns), `fresh` those before drift, where that is compensated;
    `reference` and `reference_sigma` (rows,) are of an offset's reference column, None where it is perfect. `version`
    counts the writes.
    """

    cells: Cells
    g: Array | None = None
    fresh: Array | None = None
    reference: Array | None = None
    reference_sigma: Array | None = None
    version: int = 0


def blank(arch: Architecture, devices: Devices, *, ideal: bool) -> CrossbarArray:
    """An array as it comes from the fab: no device conducts yet."""
    shape = (arch.crossbar.rows, arch.weight_cols)
    if ideal:
        return CrossbarArray(Cells(shape))
    code = encoding_of(arch.crossbar)
    drifts = devices.drift_compensation and devices.drift != "none"
    g, fresh = (np.zeros((code.devices, code.slices, *shape)) for _ in range(2))
    return CrossbarArray(Cells(shape), g, fresh if drifts else None)


def _write_reference(core: Core, array: CrossbarArray, number: int) -> None:
    """Devices at g_min in every row, with errors of their own; written once, however often the array is."""
    box, devices = core.arch.crossbar, core.devices
    if core.ideal or box.encoding != "offset" or not devices.reference:
        return
    key = [key_of(core.seed, "reference", what, core.number, number) for what in ("program", "drift", "stuck")]
    g, program = np.full(box.rows, box.g_min), _errors_of(devices)
    sigma = written_sigma(devices, g, box.g_max)
    g = np.maximum(g + sigma * program(key[0], box.rows), 0.0)
    if devices.stuck_low or devices.stuck_high:
        g = stuck(g, box, devices, device_uniforms(key[2], box.rows))
    if devices.drift != "none":
        nu = devices.drift_scale * drift_exponent(g, box.g_max, device_normals(key[1], box.rows))
        g = drifted(g, nu, devices.age_seconds)
    array.reference, array.reference_sigma = g, read_sigma(devices, g, box.g_max)


def program(core: Core, code: Item) -> None:
    """Write weights into cells of an array, as the devices do. Raises Trap where they do not fit."""
    number, row, col = code.integer("array"), code.integer("row"), code.integer("col")
    unit = core.data[code.text("unit")] if code.text("unit") else None
    part = Part(row, col, core.data[code.text("weights")], unit, core.data[code.text("scale")])
    weights, scale = part.values, part.scale
    rows, cols = weights.shape
    if number >= core.arch.crossbar.per_core:
        raise Trap(f"array {number} is outside of the core's {core.arch.crossbar.per_core}")
    if row + rows > core.arch.crossbar.rows or col + cols > core.arch.weight_cols:
        raise Trap(f"rows {row}..{row + rows - 1}, columns {col}..{col + cols - 1} are outside of the array")
    if not (scale > 0).all():
        raise Trap("full conductance must stand for something", f"a scale of '{code.text('scale')}' is not above zero")
    if not (np.abs(weights) <= scale * (1 + SLACK)).all():
        raise Trap(
            "a weight is larger than what full conductance stands for",
            f"the largest of '{code.text('weights')}', by its scale, is {np.abs(weights / scale).max():g}",
            "give larger scales",
        )
    if number not in core.arrays:
        core.arrays[number] = blank(core.arch, core.devices, ideal=core.ideal)
        _write_reference(core, core.arrays[number], number)
    array: CrossbarArray = core.arrays[number]
    again = code.flag("erase")
    if not again and array.cells.holds(part.region):
        raise Trap(
            f"array {number} is programmed twice at row {row}, column {col}",
            hint="give each weight its own cell, or set 'erase'",
        )
    array.cells.write(part)
    array.version += 1
    if array.g is None:
        return
    shape, box, devices = array.g.shape, core.arch.crossbar, core.devices
    devices_of = (slice(None), slice(None), *part.region)

    def drawn(what: str) -> Array:
        """Every device has its own numbers, wherever a block begins."""
        numbers = {"stuck": device_uniforms, "program": _errors_of(devices)}.get(what, device_normals)
        write = (code.index,) if again and what != "stuck" else ()  # each write errs anew
        every = numbers(key_of(core.seed, what, core.number, number, *write), int(np.prod(shape)))
        return np.asarray(every.reshape(shape)[devices_of])

    g = written(weights / scale, box, devices, drawn("program") if devices.programming != "none" else None)
    if devices.stuck_low or devices.stuck_high:
        g = stuck(g, box, devices, drawn("stuck"))
    if array.fresh is not None:
        array.fresh[devices_of] = g
    if devices.drift != "none":
        g = drifted(g, devices.drift_scale * drift_exponent(g, box.g_max, drawn("drift")), devices.age_seconds)
    array.g[devices_of] = g


def _errors_of(devices: Devices) -> Callable[[int, int], Array]:
    """What draws the programming errors of devices, of mean 0 and variance 1."""
    if devices.programming != "uniform":
        return device_normals
    return lambda key, count: np.asarray((device_uniforms(key, count) - 0.5) * np.sqrt(12.0))


def written(relative: Array, box: Crossbar, devices: Devices, drawn: Array | None) -> Array:
    """Conductances (devices, slices, rows, columns), uS, that weights in -1..1 are written as, with their error.

    `drawn` are numbers of that shape, of mean 0 and variance 1; not needed where there is no error.
    """
    g = box.g_min + encode(relative, encoding_of(box), rounded=devices.levels) * (box.g_max - box.g_min)
    if drawn is None:
        return np.asarray(g)
    sigma = written_sigma(devices, g, box.g_max)
    return np.asarray(np.maximum(g + sigma * drawn, 0.0))


def stuck(g: Array, box: Crossbar, devices: Devices, drawn: Array) -> Array:
    """Some devices stay at an end of their window whatever is written; `drawn` are numbers in 0..1."""
    g = np.where(drawn < devices.stuck_low, box.g_min, g)
    return np.asarray(np.where(drawn >= 1.0 - devices.stuck_high, box.g_max, g))


@dataclass(frozen=True)
class Meaning:
    """What a part of an array does to inputs in -1..1: `relative` conductances (slices, rows, columns), in units of a
    device's window, as the ADC sees them (a pair's difference; of an offset what lies above a reference column of
    devices at g_min), and the variance of a read of them. `gain` (slices,) and `middle` give the weight:
    sum_s gain_s relative_s - middle.
    """

    relative: Array
    variance: Array
    gain: Array
    middle: float


def meaning(array: CrossbarArray, arch: Architecture, devices: Devices, part: Region) -> Meaning:
    """The part of an array that one product reads, wires and compensation included."""
    assert array.g is not None
    box, code = arch.crossbar, encoding_of(arch.crossbar)
    window = box.g_max - box.g_min
    own = np.ascontiguousarray(array.g[:, :, *part])
    factor = attenuation(array.g, devices.wire_ohms)[:, :, *part] if devices.wire_ohms else 1.0
    g, sigma = own * factor, read_sigma(devices, own, box.g_max) * factor
    shrunk = 1.0
    if array.fresh is not None:
        shrunk = max(array.g.sum(), 1e-300) / max(array.fresh.sum(), 1e-300)
    gain = code.gains / shrunk
    g, variance = g / window, (sigma / window) ** 2
    if code.pair:
        return Meaning(g[0] - g[1], variance.sum(0), gain, 0.0)
    # The middle is a digital sum of the inputs. The current of g_min must go before the ADC: it is no whole number of
    # steps, and the ADC's rounding of it would count fully in the highest slice. A perfect reference drifts as its
    # array does where drift is compensated. One of devices is read anew with every column (ours).
    if array.reference is not None and array.reference_sigma is not None:
        column, noise = array.reference[part[0], None] / window, (array.reference_sigma[part[0], None] / window) ** 2
        return Meaning(g[0] - column, variance[0] + noise, gain, 1.0)
    return Meaning(g[0] - box.g_min / window * shrunk, variance[0], gain, 1.0)
