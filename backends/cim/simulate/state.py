"""State nodes: volatile ones that decay by the elapsed time, digital ones, clocks and rotating frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from backends.cim.program.access import on_lines
from backends.cim.program.decode import Item
from backends.cim.simulate.core import Core, Trap
from backends.cim.simulate.noise import device_normals, key_of, normals
from backends.cim.simulate.plan import SAME
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import grids_in, places_of, rounded_step
from ssmc.ir.ops.rounded_sums import sums
from ssmc.ir.ops.spiking import neuron_step

MINUS = "minus"  # the second device of each volatile node: a state is the difference of two


def bank(core: Core, kind: str, node: int, words: int) -> Array:
    """(batch, words) of a bank, as a view. Raises Trap beyond the bank's end."""
    size = core.arch.digital.per_core if kind == "digital" else core.arch.volatile.per_core
    if node + words > size:
        raise Trap(f"state nodes {node}..{node + words - 1} are outside of the {kind} bank of {size}")
    if kind not in core.banks or core.banks[kind].shape[1] < node + words:
        grown = np.zeros((core.batch, node + words))
        if kind in core.banks:
            grown[:, : core.banks[kind].shape[1]] = core.banks[kind]
        core.banks[kind] = grown
    return core.banks[kind][:, node : node + words]


def elapsed(core: Core, code: Item) -> Array:
    """(batch or 1, steps or 1, 1) time since the event before, in steps. Raises Trap where time runs backwards."""
    if not code.flag("timed"):
        return np.ones((1, 1, 1))
    dt = core.read(code.integer("dt"), 1)
    passes = (dt >= 0) & np.isfinite(dt)
    if not passes.all():
        sample, step = (int(i) for i in np.argwhere(~passes[:, :, 0])[0])
        found = f"{dt[sample, step, 0]:g}"
        raise Trap(
            f"the elapsed time of event {core.first + step} of sample {core.sample + sample} is {found}",
            "time passes: elapsed times are zero or positive numbers",
            "sort the events by their timestamps",
        )
    held = core.passed.get(code.index, np.zeros(1))
    both = (
        np.broadcast_to(held[:, None], (max(len(held), len(dt)), 1)),
        np.broadcast_to(dt[..., 0], (len(dt), core.count)),
    )
    core.passed[code.index] = np.add.accumulate(np.concatenate(both, axis=1), axis=1)[:, -1]  # in the order of time
    return dt


def _preset(core: Core, code: Item) -> None:
    x = core.read(code.integer("src"), code.integer("words"))
    kind, node, words = code.text("bank"), code.integer("node"), code.integer("words")
    bank(core, kind, node, words)[:] = x[:, -1]
    if kind == "volatile":
        bank(core, MINUS, node, words)[:] = np.maximum(-x[:, -1], 0.0)


def _read(core: Core, code: Item) -> None:
    node, words = code.integer("node"), code.integer("words")
    x = bank(core, code.text("bank"), node, words)
    if core.delays is not None and code.text("bank") == "volatile":
        x = x * _left(core, code, _rates_of(core, node, words))
    core.write(code.integer("dst"), x[:, None].copy())


def _left(core: Core, code: Item, rates: Array) -> Array:
    """(words,) what is left of a state when it is read."""
    held = 0.0 if core.delays is None else core.delays.held.get((core.number, code.index), 0.0)
    return np.asarray(np.exp(rates * held))


def _rates_of(core: Core, node: int, words: int) -> Array:
    """(words,) decay exponents of nodes as they were charged; 0 where they never were."""
    found = np.zeros(node + words)
    for first, rates in core.rates.items():
        part = found[first : first + len(rates)]
        part[:] = rates[: len(part)]
    return found[node:]


def _between_charges(core: Core, code: Item, dt: Array) -> Array:
    """(batch or 1, steps or 1, 1) time that passes between charges, for events that come `dt` after each other."""
    if core.delays is None:
        return dt
    busy, held = core.delays.busy[core.number, code.index], core.waits.get(code.index)
    if held is None:
        held = np.full(core.batch, -np.inf)  # nothing is before the first event
    elif not held.any() and dt.min() >= busy:
        return dt
    dt = core.full(dt)
    passed, waited = np.empty(dt.shape), 0
    for k in range(dt.shape[1]):
        wait = np.maximum(0.0, held + busy - dt[:, k, 0])
        passed[:, k, 0] = dt[:, k, 0] + (wait - np.maximum(held, 0.0))
        waited += int(np.count_nonzero(wait))
        held = wait
    core.waits[code.index] = held
    core.tally(code.loc, "events that waited for a busy core", waited)
    return passed


def _charge(core: Core, code: Item) -> None:
    words, window = code.integer("words"), code.real("window")
    x = bank(core, "volatile", code.integer("node"), words)
    rates = core.rates[code.integer("node")] = _rates(core, code)
    dt = _between_charges(core, code, elapsed(core, code))
    _check_units(core, code)
    drive = _gained(core, code, "src", core.full(core.read(code.integer("src"), words)))
    decay = _decay(core, code, rates, dt)
    saturation = 0.0 if core.ideal else core.devices.write_saturation
    if core.ideal or not (window or saturation):
        _write_read(core, code, advance(x, decay, drive, code.flag("before")), rates)
        return
    minus = bank(core, MINUS, code.integer("node"), words)
    if saturation and not window:
        raise Trap(
            "the window of the state devices is not known",
            "a write that saturates depends on it",
            "compile with --calibrate X.npz, or run with write_saturation=0",
        )
    y, outside, most = _advance_pairs(x, minus, decay, drive, window, saturation, code.flag("before"))
    if outside and core.strict:
        raise Trap(
            f"state devices left their window {outside} times",
            f"the largest level is {most:.4g}, the window {window:.4g}",
            "calibrate on inputs like these, or run without --strict: they are counted then",
        )
    core.tally(code.loc, "states outside their window", outside)
    _write_read(core, code, y, rates)


def _decay(core: Core, code: Item, rates: Array, dt: Array) -> Array:
    """(batch or 1, steps or 1, words) what is left of each state, with the spread from write to write."""
    sigma = 0.0 if core.ideal else core.devices.cycle_sigma
    if not sigma:
        return np.asarray(np.exp(np.minimum(rates * dt, 0.0)))
    from backends.cim.simulate.kernels import spread_exponents

    key = key_of(core.seed, "cycle", core.number, code.index)
    drawn = normals(key, core.batch, core.first, core.count, rates.size, core.sample)
    exponent = np.empty(drawn.shape)
    spread_exponents(rates, dt, drawn.dtype.type(sigma), drawn, exponent)
    return np.asarray(np.exp(exponent, out=exponent))


def _write_read(core: Core, code: Item, y: Array, rates: Array) -> None:
    """What a charge reads; with `before` it does so ahead of the pulse."""
    if core.delays is not None and not code.flag("before"):
        y *= _left(core, code, rates)
    core.write(code.integer("dst"), _gained(core, code, "dst", y))


def _check_units(core: Core, code: Item) -> None:
    """Raises Trap where a pulse means more on one line than on another: nodes have no scale of their own."""
    first = code.integer("src")
    found = [core.units[line] for line in range(first, first + code.integer("words")) if line in core.units]
    if found and max(found) - min(found) > SAME * max(found):
        raise Trap(
            "lines that charge nodes stand for different sums",
            f"full currents for {min(found):.6g} to {max(found):.6g}",
            "program the columns with one scale: a state may be counted in units of its column's",
        )


def _gained(core: Core, code: Item, side: str, x: Array) -> Array:
    """What a line charges nodes with, or nodes drive a line with: each with a gain of its own."""
    if core.ideal or not core.devices.line_gain or not on_lines(code.integer(side)):
        return x
    first, words = code.integer("node"), code.integer("words")
    drawn = device_normals(key_of(core.seed, f"line {side}", core.number), core.arch.volatile.per_core)
    return np.asarray(x * (1.0 + core.devices.line_gain * drawn[first : first + words]))


def _rates(core: Core, code: Item) -> Array:
    """(words,) decay exponents of one unit of time, with the devices' own spread."""
    if code.index not in core.cache:
        rates = core.data[code.text("rates")]
        if not (rates < 0).all():
            raise Trap(
                "a volatile state can only decay",
                f"its rates are below zero, and one of '{code.text('rates')}' is {rates[~(rates < 0)][0]:g}",
                "let 'dstate' hold it, in the digital bank",
            )
        if not core.ideal and core.devices.decay_sigma:
            first, size = code.integer("node"), core.arch.volatile.per_core
            drawn = device_normals(key_of(core.seed, "decay", core.number), size)
            rates = rates / np.maximum(1.0 + core.devices.decay_sigma * drawn[first : first + len(rates)], 1e-3)
        core.cache[code.index] = rates
    found: Array = core.cache[code.index]
    return found


def advance(x: Array, a: Array, v: Array, before: bool) -> Array:
    """x_k = a_k x_{k-1} + v_k over the steps of `v` (batch, steps, words); `x` (batch, words) is left at the last.

    Returns what is read at each step: x_k, or x_{k-1} with `before`.
    """
    y = np.empty(v.shape)
    held = x.copy()
    shared = a.shape[1] == 1
    for k in range(v.shape[1]):
        following = (a[:, 0] if shared else a[:, k]) * held
        following += v[:, k]
        y[:, k] = held if before else following
        held = following
    x[:] = held
    return y


def _advance_pairs(
    x: Array, minus: Array, a: Array, v: Array, window: float, saturation: float, before: bool
) -> tuple[Array, int, float]:
    """`advance` of differential pairs: each device decays, and the one of v's sign takes v.

    With `saturation` it takes the less the fuller it is: g <- g + P (g_max - g), P = |v| / g_max, g_max the `window`
    (RN-Net, arXiv 2303.10770; the signed pair is ours); 1 is that law, less scales what is missing. Also how often a
    pair had a device beyond the window, and the largest level.
    """
    from backends.cim.simulate.kernels import advance_pairs

    y, held, low = np.empty(v.shape), x.copy(), minus.copy()
    outside, most = advance_pairs(held, low, a, v, window, saturation, before, y)
    x[:], minus[:] = held, low
    return y, outside, most


def _advance_complex(x: Array, a: tuple[Array, Array], v: Array, before: bool) -> Array:
    """`advance` of complex states in halves re|im, in separate real arrays."""
    half = v.shape[2] // 2
    re, im = x[:, :half].copy(), x[:, half:].copy()
    real, imag = a
    y = np.empty(v.shape)
    shared = real.shape[1] == 1
    for k in range(v.shape[1]):
        j = 0 if shared else k
        next_re = real[:, j] * re - imag[:, j] * im + v[:, k, :half]
        next_im = real[:, j] * im + imag[:, j] * re + v[:, k, half:]
        y[:, k, :half], y[:, k, half:] = (re, im) if before else (next_re, next_im)
        re, im = next_re, next_im
    x[:, :half], x[:, half:] = re, im
    return y


def _dstate(core: Core, code: Item) -> None:
    words, before = code.integer("words"), code.flag("before")
    x = bank(core, "digital", code.integer("node"), words)
    drive = core.full(core.read(code.integer("src"), words))
    decay = core.data[code.text("decay")][None, None]
    half = words // 2
    if code.flag("timed"):
        exponent = decay * elapsed(core, code)
        if code.flag("complex"):
            size = np.exp(np.ascontiguousarray(exponent[..., :half]))
            angle = np.ascontiguousarray(exponent[..., half:])
            a: Any = (size * np.cos(angle), size * np.sin(angle))
        else:
            a = np.exp(exponent)
    else:
        a = (decay[..., :half], decay[..., half:]) if code.flag("complex") else decay
    y = _advance_complex(x, a, drive, before) if code.flag("complex") else advance(x, a, drive, before)
    core.write(code.integer("dst"), y)


def _sel(core: Core, code: Item) -> None:
    words, before = code.integer("words"), code.flag("before")
    x = bank(core, "digital", code.integer("node"), words)
    a, v = (core.full(core.read(code.integer(name), words)) for name in ("a", "src"))
    half = words // 2
    if code.flag("complex"):
        y = _advance_complex(x, (a[..., :half], a[..., half:]), v, before)
    else:
        y = advance(x, a, v, before)
    core.write(code.integer("dst"), y)


def _spike(core: Core, code: Item) -> None:
    rows, or_equal, immediate = list(core.data[code.text("rows")]), code.flag("or_equal"), code.flag("immediate")
    _step_by_step(core, code, lambda x, v: neuron_step(rows, or_equal, immediate, x, v), reached=True)


def _rounded(core: Core, code: Item) -> None:
    rows, rounding, is_complex = core.data[code.text("rows")], code.text("rounding"), code.flag("complex")
    grids = grids_in(rows, places_of(code.flag))
    step = partial(rounded_step, rows[0], grids, rounding, is_complex)
    _step_by_step(core, code, step, reached=code.flag("reached"))


def _rounded_sums(core: Core, code: Item) -> None:
    step = sums(core.data[code.text("rows")], core.data[code.text("terms")], code.text("rounding")).step
    _step_by_step(core, code, step, reached=code.flag("reached"))


def _step_by_step(
    core: Core, code: Item, step: Callable[[Array, Array], tuple[Array, Array]], *, reached: bool
) -> None:
    """States that no block of steps can be worked out for at once. `step` takes states (batch, words) and drive to what
    they reach, before they are reset or rounded, and to the next states; `reached` says which of the two is read."""
    words, before = code.integer("words"), code.flag("before")
    x = bank(core, "digital", code.integer("node"), words)
    v = core.full(core.read(code.integer("src"), words))
    y, held = np.empty(v.shape), x.copy()
    for k in range(v.shape[1]):
        found, following = step(held, v[:, k])
        y[:, k] = held if before else found if reached else following
        held = following
    x[:] = held
    core.write(code.integer("dst"), y)


def _tick(core: Core, code: Item) -> None:
    """A clock holds the time at each running step and, in front, at the event before."""
    clock, dt = code.integer("clock"), elapsed(core, code)
    start = core.clocks[clock][:, -1:] if clock in core.clocks else np.zeros((1, 1, 1))
    batch = max(len(start), len(dt))
    gaps = np.broadcast_to(dt, (batch, core.count, 1))
    core.clocks[clock] = np.add.accumulate(np.concatenate([np.broadcast_to(start, (batch, 1, 1)), gaps], 1), axis=1)


def _rot(core: Core, code: Item) -> None:
    words, clock = code.integer("words"), code.integer("clock")
    half = words // 2
    times = core.clocks.get(clock, np.zeros((1, 1, 1)))
    if core.now is not None and clock not in core.clocks:
        raise Trap(f"clock {clock} does not run", hint="let 'tick' move it first")
    if core.now is None:
        times = times[:, -1:]
    else:
        times = times[:, :-1] if code.flag("before") else times[:, 1:]
    turns = core.data[code.text("turns")]
    # Whole revolutions do not matter. The leading 26 bits of `turns` times a step number are exact.
    leading = np.rint(turns * 2.0**26) / 2.0**26
    whole = times * leading
    phase = 2 * np.pi * ((whole - np.rint(whole)) + times * (turns - leading))
    cos, sin = np.cos(phase), np.sin(phase) * (-1.0 if code.flag("backward") else 1.0)
    x = core.read(code.integer("src"), words)
    re, im = x[..., :half], x[..., half:]
    y = np.empty((*np.broadcast_shapes(x.shape[:2], cos.shape[:2]), words))
    np.multiply(cos, re, out=y[..., :half])
    y[..., :half] -= sin * im
    np.multiply(sin, re, out=y[..., half:])
    y[..., half:] += cos * im
    core.write(code.integer("dst"), y)


UNITS: dict[str, Callable[[Core, Item], None]] = {
    "preset": _preset,
    "read": _read,
    "charge": _charge,
    "dstate": _dstate,
    "sel": _sel,
    "spike": _spike,
    "rounded": _rounded,
    "rounded.sums": _rounded_sums,
    "tick": _tick,
    "rot": _rot,
}
