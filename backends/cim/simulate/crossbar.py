"""Products in crossbars: DAC, array, ADC, and the digital scale behind them; on analog lines without these.

Products that follow each other in a program and belong to one layer run together: those with the same input share its
conversion and one matrix product. The work is done in panels of samples and steps that stay in the cache.

Inputs are words of the DAC, whole numbers. Where the conductances are whole numbers too (of the devices' levels), sums
are exact, whatever their order, in float32 up to 2^24. Elsewhere matrix products are float64 and have a fixed number of
rows, so that a row's rounding does not depend on how many rows there are; in float32 some processors round a row by its
place among them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backends.cim.arch import Devices
from backends.cim.program.decode import Item
from backends.cim.simulate.converters import bit_planes, largest_word
from backends.cim.simulate.core import Core
from backends.cim.simulate.devices import product_sigma
from backends.cim.simulate.memory import NotWritten
from backends.cim.simulate.noise import SAMPLES, key_of, normals
from backends.cim.simulate.plan import Drive, Plan, Target, input_of, plan_of, versions_of
from ssmc.ir.op import Array

PANEL = 64  # rows of one matrix product whose sums are rounded
PANEL_WORDS = 1 << 16  # columns times samples times steps that stay in the cache from the DAC to the sums


def product(x: Array, weights: Array, out: Array | None = None) -> Array:
    """`x` (n, rows) times `weights` (rows, cols), float64, in panels of one height: each row's rounding is its own."""
    n, cols = len(x), weights.shape[1]
    if out is None:
        out = np.empty((n, cols), x.dtype)
    whole = n - n % PANEL
    if whole:
        np.matmul(x[:whole].reshape(-1, PANEL, x.shape[1]), weights, out=out[:whole].reshape(-1, PANEL, cols))
    if whole < n:
        padded = np.zeros((PANEL, x.shape[1]), x.dtype)
        padded[: n - whole] = x[whole:]
        out[whole:] = (padded @ weights)[: n - whole]
    return out


def products(core: Core, items: tuple[Item, ...]) -> None:
    """Run products that `together` grouped. A Trap or NotWritten says in `item` which one it was."""
    plan: Plan | None = core.cache.get(items[0].index)
    if plan is None or plan.versions != versions_of(core, items):
        plan = core.cache[items[0].index] = plan_of(core, items)
    core.units |= plan.units
    vectors, step = items[0].integer("vectors"), items[0].integer("dst_step") or items[0].integer("cols")
    inputs = []
    for drive in plan.drives:
        at, rows, _, between = drive.source
        try:
            inputs.append([core.read(at + i * between, rows) for i in range(vectors)])
        except NotWritten as error:
            error.item = next(item for item in items if input_of(item) == drive.source)
            raise
    outer = (core.batch, core.count)
    if core.ideal or not _noisy(core.devices):
        outer = np.broadcast_shapes(*(part.shape[:2] for parts in inputs for part in parts))
    held = [(at - plan.first, cols, [core.read(at + i * step, cols) for i in range(vectors)]) for at, cols in plan.kept]
    outer = np.broadcast_shapes(outer, *(part.shape[:2] for _, _, parts in held for part in parts))
    whole = [[np.broadcast_to(part, (*outer, part.shape[2])) for part in parts] for parts in inputs]
    out = np.empty((*outer, vectors, plan.words))
    height = max(PANEL, PANEL_WORDS // max(max(drive.weights.shape) for drive in plan.drives))
    for panel in _panels(*outer, vectors, height):
        target = out[panel]
        total = plan.room("total", target.size // plan.words, plan.words, plan.dtype)
        total[:] = 0.0
        for at, cols, parts in held:
            for i, part in enumerate(parts):
                part = np.broadcast_to(part, (*outer, cols))[panel]
                total.reshape(target.shape)[:, :, i, at : at + cols] = part
        for drive, parts in zip(plan.drives, whole, strict=True):
            _run(core, plan, drive, items[0].loc, [part[panel] for part in parts], panel, total)
        target[:] = total.reshape(target.shape)
    for at, cols in plan.written:
        for i in range(vectors):
            core.write(at + i * step, out[:, :, i, at - plan.first : at - plan.first + cols])


def _noisy(devices: Devices) -> bool:
    return devices.read_noise != "none" or devices.product_bits > 0


def _panels(batch: int, steps: int, vectors: int, height: int) -> Iterator[tuple[slice, slice]]:
    """Samples and steps that run at once, about `height` vectors: whole groups of samples that share a stream."""
    group = SAMPLES * max(1, min(steps, height // SAMPLES) * vectors)  # vectors of a group of samples
    many = min(batch, SAMPLES * max(1, height // group))
    long = max(1, height // (many * vectors))
    for b in range(0, batch, many):
        for t in range(0, steps, long):
            yield slice(b, min(b + many, batch)), slice(t, min(t + long, steps))


def _run(
    core: Core,
    plan: Plan,
    drive: Drive,
    loc: int | None,
    parts: list[Array],
    panel: tuple[slice, slice],
    target: Array,
) -> None:
    """A panel of one input through its columns, added to `target` (n, words), n counting samples, steps and vectors."""
    samples, steps, vectors = *parts[0].shape[:2], len(parts)
    x = plan.room("x", samples * steps * vectors, drive.source[1], drive.weights.dtype)
    whole = x.reshape(samples, steps, vectors, -1)
    for i, part in enumerate(parts):
        whole[:, :, i] = part
    if core.ideal:
        _add(target, product(x, drive.weights), drive.joined)
        return
    drawn = None
    if _noisy(core.devices):
        key = key_of(core.seed, "read", core.number, drive.index)
        words = vectors * core.arch.crossbar.planes * drive.weights.shape[1]
        drawn = plan.room("drawn", samples * steps, words, np.float32)
        place = core.first + panel[1].start, steps, words, core.sample + panel[0].start
        drawn = normals(key, samples, *place, drawn.reshape(samples, steps, words)).reshape(len(x), -1)
    _through(core, plan, drive, loc, x, drawn, target)


def _add(target: Array, y: Array, places: tuple[Target, ...]) -> None:
    """Add columns to the words that they belong to."""
    for place in places:
        target[:, place.at : place.at + place.cols] += y[:, place.start : place.start + place.cols]


def _through(
    core: Core, plan: Plan, drive: Drive, loc: int | None, x: Array, drawn: Array | None, target: Array
) -> None:
    """A panel through the DAC, the array with its read noise, the ADC, and the digital scale behind it.

    `x` (n, rows) is changed; `drawn` (n, planes times columns) are standard normals.
    """
    from backends.cim.simulate.kernels import deliver

    box = core.arch.crossbar
    reach, bits = _driven(core, plan, drive, loc, x)
    y = plan.room("sums", len(x), drive.weights.shape[1], x.dtype)
    for plane, driven in enumerate(bits):
        sums = y if plane == 0 else plan.room("plane", len(x), y.shape[1], x.dtype)
        noise = None if drawn is None else drawn[:, plane * y.shape[1] : (plane + 1) * y.shape[1]]
        _read(core, plan, drive, loc, driven, noise, sums)
        if plane:
            sums *= 2.0**plane
            y += sums
    if box.slices == 1 and drive.middle is None:
        deliver(y, drive.gain, reach, target, drive.places)
        return
    y *= drive.gain
    if box.slices > 1:
        y = _slices_added(y, drive.targets, box.slices)
    if drive.middle is not None:
        y -= x.sum(1, keepdims=True) * drive.middle
    y *= reach[:, None]
    _add(target, y, drive.joined)


def _driven(core: Core, plan: Plan, drive: Drive, loc: int | None, x: Array) -> tuple[Array, list[Array]]:
    """`x` (n, rows) becomes what drives the rows; also (n,) the input that the DAC's end stands for, and the reads."""
    from backends.cim.simulate.kernels import bits_of, magnitude_bits, to_words

    box, reach = core.arch.crossbar, plan.room("reach", len(x), 1, x.dtype)[:, 0]
    if drive.from_lines:
        reach[:] = drive.input_range or np.maximum(np.abs(x).max(1, initial=0.0), np.finfo(x.dtype).tiny)
        x /= reach[:, None]
        core.tally(loc, "rows beyond their full drive", int(np.count_nonzero(np.abs(x) > 1.0)))
        return reach, [np.clip(x, -1.0, 1.0, out=x)]
    given = x.dtype.type(drive.input_range if box.input_scale == "array" or drive.to_lines else 0.0)
    largest = x.dtype.type(largest_word(box.dac_bits) if core.devices.converters else 0)
    clipped = to_words(x, bits_of(x), magnitude_bits(x), given, largest, reach, bits_of(reach))
    core.tally(loc, "inputs clipped by a DAC", clipped)
    return reach, bit_planes(x, box.dac_bits) if core.devices.converters and box.planes > 1 else [x]


def _read(
    core: Core, plan: Plan, drive: Drive, loc: int | None, driven: Array, noise: Array | None, sums: Array
) -> None:
    """One read of the array: `driven` (n, rows) through its columns and the ADCs, into `sums`."""
    from backends.cim.simulate.kernels import to_codes

    if drive.exact:
        np.matmul(driven, drive.weights, out=sums)
    else:
        product(driven, drive.weights, out=sums)
    if noise is not None:
        _disturb(plan, drive, core.devices, driven, sums, noise)
    if drive.to_lines:
        sums *= drive.to_word
        if drive.offset is not None:
            sums += drive.offset
    elif core.devices.converters:
        largest = sums.dtype.type(largest_word(core.arch.crossbar.adc_bits))
        core.tally(loc, "outputs clipped by an ADC", to_codes(sums, drive.to_word, drive.offset, largest))


def _slices_added(y: Array, places: tuple[Target, ...], slices: int) -> Array:
    """(n, columns of weights): each product's slices, which lie one after the other, added up."""
    parts = [y[:, p.start : p.start + p.cols * slices].reshape(len(y), slices, p.cols).sum(1) for p in places]
    return np.concatenate(parts, axis=1)


def _disturb(plan: Plan, drive: Drive, devices: Devices, driven: Array, sums: Array, drawn: Array) -> None:
    """Add the noise of a read: fresh conductances at every read, referred to the column, have the variance
    sum_i sigma_ij^2 x_i^2; a whole product's lumped error goes with its largest output."""
    from backends.cim.simulate.kernels import bits_of, disturb, magnitude_bits

    variance = np.empty((0, 0), sums.dtype)
    if drive.variance is not None:
        square = plan.room("square", driven.shape[0], driven.shape[1], drive.variance.dtype)
        np.multiply(driven, driven, out=square)
        variance = product(square, drive.variance, out=plan.room("noise", len(sums), sums.shape[1], square.dtype))
    unit = float(product_sigma(np.array(1.0), devices.product_bits)) if devices.product_bits else 0.0
    disturb(sums, bits_of(sums), magnitude_bits(sums), variance, drawn, drive.products, unit)
