"""What the array's instructions do: matrices, and states in the processing elements.

Ideal programs hold their states in float64; matrices are multiplied in float32 between values of float32 (see
`precision`), else in float64. Realistic ones compute in the architecture's numbers (see `formats`), integers held in
float64 where they are exact; what leaves the array is float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Numbers
from backends.epochcore.formats import drives, entering, parameters, state_unit, states, sums
from backends.epochcore.machine import PANEL, Machine
from backends.epochcore.parameters import Element, unpack
from backends.epochcore.plan import Access, Action, Planner, Preload, Rule
from backends.epochcore.recurrence import Decay, order, run_float, run_float_into, run_machine
from backends.epochcore.rounding import narrowed
from backends.epochcore.simulate_liquid import liquid_machine
from isa import Instruction

Array = NDArray[Any]
# Multiplications of one matrix product; BLAS splits larger ones over its threads.
PANEL_WORK = 1 << 18


def fetch(plan: Planner, ins: Instruction) -> None:
    plan.fetch(int(ins["dst"]), str(ins["src"]))


def preload(plan: Planner, ins: Instruction) -> None:
    rows, cols = plan.arch.room(str(ins["mode"]), bool(ins["complex"]))
    if int(ins["rows"]) > rows or int(ins["cols"]) > cols:
        raise plan.trap(
            f"needs {ins['rows']} x {ins['cols']} elements", f"the array has {rows} x {cols} for such numbers"
        )
    if ins["mode"] not in plan.arch.array.modes:
        raise plan.trap(f"needs mode '{ins['mode']}'", f"the array has: {', '.join(plan.arch.array.modes)}")
    source = None if ins["mode"] == "sel" else plan.param(int(ins["src"]))
    scale = plan.param(int(ins["scale"])) if ins["scaled"] else None
    bias = plan.param(int(ins["bias"])) if ins["biased"] else None
    plan.shadow = Preload(ins, source, scale, bias)


# -- matrices --------------------------------------------------------------------------------------------------


def mac(plan: Planner, ins: Instruction) -> Action:
    coming = plan.shadow or plan.active
    held = plan.programmed("mac.os" if coming and coming.ins["mode"] == "mac.os" else "mac")
    rows, cols = int(held.ins["rows"]), int(held.ins["cols"])
    steps = str(ins["steps"])
    x = plan.read(int(ins["src"]), rows, steps=steps, pitch=int(ins["src_pitch"]))
    accumulate = bool(ins["accumulate"])
    y = _result(plan, ins, cols)
    assert held.source is not None
    if held.source.size != rows * cols:
        raise plan.trap(f"has {held.source.size} weights for {rows} x {cols} elements")
    weight = np.ascontiguousarray(held.source.reshape(rows, cols), np.float64)
    bias = None if held.bias is None else np.asarray(held.bias, np.float64)
    if plan.ideal:
        return _mac_float(x, y, weight, bias, accumulate)
    if not plan.arch.numbers.fixed:
        return narrowed(_mac_rounded(plan, x, y, weight, bias, accumulate), y)
    scale = np.ones(cols) if held.scale is None else np.asarray(held.scale, np.float64)
    return narrowed(_mac_integer(plan, x, y, weight, scale, bias, accumulate), y)


def _result(plan: Planner, ins: Instruction, cols: int) -> Access:
    place = plan.update if ins["accumulate"] else plan.write
    return place(int(ins["dst"]), cols, steps=str(ins["steps"]), pitch=int(ins["dst_pitch"]))


def _height(weight: Array) -> int:
    """Rows of a panel: of about the same work, so that one is neither all overhead nor mostly padding."""
    height = PANEL
    while height > 32 and height * weight.size > PANEL_WORK:
        height //= 2
    return height


def _mac_float(x: Access, y: Access, weight: Array, bias: Array | None, accumulate: bool) -> Action:
    height = _height(weight)
    dtype = np.float64 if x.slot.wide or y.slot.wide else np.float32
    weight = weight.astype(dtype)
    starts = None if bias is None else np.tile(bias.astype(dtype), (height, 1))

    def run(machine: Machine) -> None:
        value, out = machine.panels(x, height), machine.panels(y, height)
        if value.dtype != dtype:
            value = value.astype(dtype)
        direct = out.dtype == dtype and not accumulate
        product = out if direct else machine.scratch(0, out.shape, dtype)
        np.matmul(value, weight, out=product)
        if starts is not None:
            product += starts
        if accumulate:
            out += product
        elif not direct:
            out[...] = product

    return run


def _mac_integer(
    plan: Planner, x: Access, y: Access, weight: Array, scale: Array, bias: Array | None, accumulate: bool
) -> Action:
    numbers = plan.arch.numbers

    def run(machine: Machine) -> None:
        integers, unit, _ = entering(machine.rows(x), numbers)
        total, outside = sums(integers.reshape(-1, len(weight)) @ weight, numbers)
        machine.saturated(outside)
        value = total.reshape(*integers.shape[:-1], -1) * scale * unit
        if bias is not None:
            value = value + bias
        out = machine.rows(y)
        out[...] = out + value if accumulate else value

    return run


def _mac_rounded(plan: Planner, x: Access, y: Access, weight: Array, bias: Array | None, accumulate: bool) -> Action:
    """Floating point: panels as in an ideal program, so that sums do not depend on how many rows there are."""
    height, numbers = _height(weight), plan.arch.numbers

    def run(machine: Machine) -> None:
        # a panel's last rows may hold anything: what is too large is counted in those that mean something
        machine.saturated(entering(machine.rows(x), numbers)[2])
        value, out = entering(machine.panels(x, height), numbers)[0], machine.panels(y, height)
        product = np.matmul(value, weight)
        if bias is not None:
            product += bias
        out[...] = out + product if accumulate else product

    return run


# -- states ----------------------------------------------------------------------------------------------------


def _state_access(plan: Planner, ins: Instruction) -> tuple[int, int, int]:
    shape = plan.coming().shape
    if int(np.prod(shape)) != int(ins["words"]):
        raise plan.trap(
            f"moves {ins['words']} words of states", f"the array is set up for {' x '.join(map(str, shape))}"
        )
    return shape


def _gain(plan: Planner, held: Preload) -> Array:
    """What states are divided by in the elements, (cols, rows)."""
    if plan.ideal or held.source is None:
        return np.ones((1, 1))
    return _element(plan, held).gain


def _has_units(plan: Planner) -> bool:
    return not plan.ideal and plan.arch.numbers.fixed


def _element(plan: Planner, held: Preload) -> Element:
    assert held.source is not None
    parts, cols, rows = held.shape
    try:
        return unpack(held.source, rows, cols, parts == 2, held.ins["mode"] in ("fri", "tri"), _has_units(plan))
    except ValueError as error:
        raise plan.trap("preloads parameters of the wrong size", str(error)) from None


def state_load(plan: Planner, ins: Instruction) -> Action:
    parts, cols, rows = shape = _state_access(plan, ins)
    source = plan.read(int(ins["src"]), int(ins["words"]))
    plan.states = shape
    count, numbers = 1.0 / (_gain(plan, plan.coming()) * state_unit(plan.arch.numbers)), plan.arch.numbers

    def run(machine: Machine) -> None:
        # (halves, rows, batch, cols): a step adds up over rows with whole samples side by side
        value = machine.rows(source)[0].reshape(machine.batch, parts, cols, rows)
        if not plan.ideal:
            value, outside = states(drives(value * count, numbers), numbers)
            machine.saturated(outside)
        machine.states = tuple(np.ascontiguousarray(value.transpose(1, 3, 0, 2)))

    return run


def state_store(plan: Planner, ins: Instruction) -> Action:
    parts, cols, rows = shape = _state_access(plan, ins)
    if plan.states != shape:
        raise plan.trap("takes states out of elements that do not hold them", hint="state.load first")
    target = plan.write(int(ins["dst"]), int(ins["words"]))
    worth = _gain(plan, plan.coming()) * state_unit(plan.arch.numbers)

    def run(machine: Machine) -> None:
        row = machine.rows(target)[0].reshape(machine.batch, parts, cols, rows)
        for part, held in enumerate(machine.states):
            value = held.transpose(1, 2, 0)
            row[:, part] = value if plan.ideal else value * worth

    return run


def fri(plan: Planner, ins: Instruction) -> Action:
    """`fri` and `tri`."""
    held = plan.programmed(ins.mnemonic)
    cols, steps = int(held.ins["cols"]), str(ins["steps"])
    u = plan.read(int(ins["src"]), cols, steps=steps, pitch=int(ins["src_pitch"]))
    y = _result(plan, ins, cols)
    element = _element(plan, held)
    if plan.ideal:
        return _fri_float(ins, element, u, y)
    of_machine = liquid_machine if ins.mnemonic == "tri" else _fri_machine
    return narrowed(of_machine(plan, ins, element, u, y), y)


def _by_row(values: Array) -> tuple[Array, ...]:
    """(halves, cols, rows) as a (rows, 1, cols) array for each half."""
    return tuple(np.ascontiguousarray(half.T)[:, None, :] for half in values)


def _fri_float(ins: Instruction, e: Element, u: Access, y: Access) -> Action:
    flags = {name: bool(ins[name]) for name in ("reverse", "before")}
    accumulate, liquid = bool(ins["accumulate"]), ins.mnemonic == "tri"

    def run(machine: Machine) -> None:
        from backends.epochcore.compiled_states import run_columns

        drive, out = machine.rows(u).astype(np.float64, copy=False), machine.rows(y)
        machine.states, total = run_columns(e.decay, e.b, e.c, machine.states, drive, liquid=liquid, **flags)
        total += drive * e.d
        out[...] = out + total if accumulate else total

    return run


def _fri_machine(plan: Planner, ins: Instruction, e: Element, u: Access, y: Access) -> Action:
    numbers = plan.arch.numbers
    decay = Decay(_by_row(e.decay), e.decay_unit[0].T[:, None, :], numbers.decay == "one-minus")
    b, c = _by_row(e.b), _by_row(e.c)
    b_unit = e.b_unit[0].T[:, None, :] / state_unit(numbers)
    y_unit = e.c_unit[0, :, 0] * state_unit(numbers)
    reverse, before, accumulate = bool(ins["reverse"]), bool(ins["before"]), bool(ins["accumulate"])

    def run(machine: Machine) -> None:
        integers, unit, outside = entering(machine.rows(u), numbers)
        machine.saturated(outside)
        unit = np.broadcast_to(unit, (*integers.shape[:-1], 1))
        out = machine.rows(y)
        total = np.empty(integers.shape)
        for k in order(len(integers), reverse):
            drive = tuple(drives(half * integers[k] * (b_unit * unit[k]), numbers) for half in b)
            before_step = machine.states
            following, outside = run_machine(decay, before_step, drive, numbers)
            machine.saturated(outside)
            read = before_step if before else following
            total[k] = (read[0] * c[0]).sum(0)
            if len(c) == 2:
                total[k] -= (read[1] * c[1]).sum(0)
            machine.states = following
        total, outside = sums(total, numbers)
        machine.saturated(outside)
        value = total * y_unit + integers * unit * (e.d * e.d_unit)
        out[...] = out + value if accumulate else value

    return run


def stationary(plan: Planner, ins: Instruction) -> Action:
    """`fri.x` and `tri.x`."""
    held = plan.programmed(ins.mnemonic)
    parts, cols, _ = held.shape
    src = _halves_in(plan, ins, "src", int(ins["src_pitch"]), cols, parts)
    dst = _halves_out(plan, ins, int(ins["dst_pitch"]), cols, parts)
    element = _element(plan, held)
    return _driven(plan, ins, src, dst, element, None, ins.mnemonic == "tri.x")


def sel(plan: Planner, ins: Instruction) -> Action:
    held = plan.programmed("sel")
    parts, cols, _ = held.shape
    pitch = int(ins["pitch"])
    src = _halves_in(plan, ins, "src", pitch, cols, parts)
    a = _halves_in(plan, ins, "a", pitch, cols, parts, "one" if ins["a_held"] else str(ins["steps"]))
    dst = _halves_out(plan, ins, pitch, cols, parts)
    return _driven(plan, ins, src, dst, None, a, False)


def _halves_in(
    plan: Planner, ins: Instruction, name: str, pitch: int, cols: int, parts: int, steps: str = ""
) -> list[Access]:
    steps = steps or str(ins["steps"])
    starts = [int(ins[name]) + part * (pitch // 2) for part in range(parts)]
    return [plan.read(start, cols, steps=steps, pitch=pitch) for start in starts]


def _halves_out(plan: Planner, ins: Instruction, pitch: int, cols: int, parts: int) -> list[Access]:
    starts = [int(ins["dst"]) + part * (pitch // 2) for part in range(parts)]
    return [plan.write(start, cols, steps=str(ins["steps"]), pitch=pitch) for start in starts]


def _driven(
    plan: Planner,
    ins: Instruction,
    src: list[Access],
    dst: list[Access],
    e: Element | None,
    a: list[Access] | None,
    tri: bool,
) -> Action:
    """States with drives of their own, read out themselves. The decay is e's, plus the drive (`tri`), or `a`."""
    numbers, ideal = plan.arch.numbers, plan.ideal
    distance = not ideal and numbers.decay == "one-minus"
    reverse, before = bool(ins["reverse"]), bool(ins["before"])
    own = None if e is None else tuple(half.T for half in e.decay)
    if ideal and own is not None and len(own) == 1 and (own[0] == own[0][:1, :1]).all():
        own = (own[0][0, 0],)
    unit = None if e is None or ideal else e.decay_unit[0].T
    worth = np.ones(1) if e is None or ideal else e.gain.T
    count = (1.0 if ideal else state_unit(numbers)) * worth
    changes = tri or a is not None

    def decays(machine: Machine, drive: list[Array]) -> Decay:
        """With a time axis where they change."""
        if a is not None:
            return _streamed([machine.rows(part) for part in a], None if ideal else numbers, machine)
        assert own is not None
        if not tri:
            return Decay(own, unit, distance)
        if ideal:
            return _streamed([part + v for part, v in zip(own, drive, strict=True)], None, machine)
        assert unit is not None
        # the sum c + v is formed before it is rounded again
        exact = [part * unit for part in own]
        if distance:
            exact = [1.0 - part if i == 0 else -part for i, part in enumerate(exact)]
        return _streamed([part + v for part, v in zip(exact, drive, strict=True)], numbers, machine)

    def run(machine: Machine) -> None:
        drive = [machine.rows(part) for part in src]
        decay = decays(machine, drive)
        if ideal and not before:
            fast = decay if changes else _widened(decay, machine, drive[0].shape[1:])
            outs = [machine.rows(part) for part in dst]
            present = tuple(part[0] for part in machine.states)
            present = run_float_into(fast, changes, present, drive, outs, order(len(drive[0]), reverse))
            machine.states = tuple(part[None].astype(np.float64) for part in present)
            return
        outs = [machine.rows(part) for part in dst]
        if not ideal:
            drive = [drives(part / count, numbers) for part in drive]
        for k in order(len(drive[0]), reverse):
            present = machine.states
            step = decay.at(k) if changes else decay
            if ideal:
                following = run_float(step, present, tuple(part[k] for part in drive))
            else:
                following, outside = run_machine(step, present, tuple(part[k] for part in drive), numbers)
                machine.saturated(outside)
            for out, value in zip(outs, present if before else following, strict=True):
                out[k] = value[0] if ideal else value[0] * count
            machine.states = following

    return run if ideal else narrowed(run, *dst)


def _widened(decay: Decay, machine: Machine, shape: tuple[int, ...]) -> Decay:
    """The same decay for every sample, one array each: arithmetic is faster on equal shapes, or with one number."""
    parts = []
    for index, part in enumerate(decay.parts):
        if not part.ndim:
            parts.append(part)
            continue
        wide = machine.scratch(index, shape)
        wide[...] = part
        parts.append(wide)
    return Decay(tuple(parts))


def _streamed(a: list[Array], numbers: Numbers | None, machine: Machine) -> Decay:
    """Decays that change: as they are, or as the machine keeps a parameter."""
    if numbers is None:
        return Decay(tuple(a))
    distance = numbers.decay == "one-minus"
    kept, unit, outside = parameters(np.stack([1.0 - a[0], *(-part for part in a[1:])] if distance else a), numbers)
    machine.saturated(outside)
    return Decay(tuple(kept), unit[0], distance)


RULES: dict[str, Rule] = {
    "fetch": fetch,
    "preload": preload,
    "state.load": state_load,
    "state.store": state_store,
    "mac": mac,
    "fri": fri,
    "fri.x": stationary,
    "tri": fri,
    "tri.x": stationary,
    "sel": sel,
}
