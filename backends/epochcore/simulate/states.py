"""States in the elements of the array: in and out, and stepped under `fri` and `tri`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from backends.epochcore.formats import drives, entering, state_unit, states
from backends.epochcore.program.parameters import Element, unpack
from backends.epochcore.program.stretches import copies
from backends.epochcore.simulate.buffers import Access, Preload
from backends.epochcore.simulate.liquid import liquid_machine
from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.plan import Action
from backends.epochcore.simulate.planner import Planner, Rule
from backends.epochcore.simulate.recurrence import Decay, by_row, order, run_machine
from backends.epochcore.simulate.rounding import narrowed
from backends.epochcore.simulate.stretches import Body, by_stretch
from backends.epochcore.simulate.sums import Readings
from isa import Instruction
from ssmc.ir.op import Array

if TYPE_CHECKING:
    from backends.epochcore.simulate.compiled_states import Columns


def result(plan: Planner, ins: Instruction, cols: int) -> Access:
    """Where a pass writes `cols` words a step, or adds them."""
    place = plan.update if ins["accumulate"] else plan.write
    return place(int(ins["dst"]), cols, steps=str(ins["steps"]), pitch=int(ins["dst_pitch"]))


def _state_access(plan: Planner, ins: Instruction, parts_of: int = 1) -> tuple[int, int, int]:
    """Halves, columns and rows: those of all segments, or of one of so many."""
    halves, cols, rows = plan.coming().shape
    shape = halves, cols // parts_of, rows
    if int(np.prod(shape)) != int(ins["words"]):
        raise plan.trap(
            f"moves {ins['words']} words of states", f"the array is set up for {' x '.join(map(str, shape))}"
        )
    return shape


def _gain(plan: Planner, held: Preload) -> Array:
    """What states are divided by in the elements, (cols, rows); one number where none has units of its own."""
    if not _has_units(plan):
        return np.ones((1, 1))
    if held.source is None:
        return streamed_gain(plan, held)[:, None]
    return np.tile(element_of(plan, held).gain, (copies(held.ins), 1))


def streamed_gain(plan: Planner, held: Preload) -> Array:
    """What states whose decay is streamed are divided by, (cols,) or (1,). Raises UserError, a trap, where there are
    more or fewer."""
    if held.scale is None or not _has_units(plan):
        return np.ones(1)
    if held.scale.size != int(held.ins["cols"]):
        raise plan.trap(f"has {held.scale.size} scales for {held.ins['cols']} columns")
    return np.asarray(held.scale, np.float64).ravel()


def _has_units(plan: Planner) -> bool:
    return not plan.ideal and plan.arch.numbers.fixed


def element_of(plan: Planner, held: Preload) -> Element:
    """The unpacked parameters of a preload. Raises UserError, a trap, where they are of another size."""
    assert held.source is not None
    rows, cols, is_complex = int(held.ins["rows"]), int(held.ins["cols"]), bool(held.ins["complex"])
    try:
        return unpack(held.source, rows, cols, is_complex, held.ins["mode"] in ("fri", "tri"), _has_units(plan))
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
            machine.overflowed(outside)
        machine.states, machine.latest = tuple(np.ascontiguousarray(value.transpose(1, 3, 0, 2))), 0

    return run


def state_store(plan: Planner, ins: Instruction) -> Action:
    segments = copies(plan.coming().ins)
    last = bool(ins["last"]) and segments > 1
    parts, cols, rows = _state_access(plan, ins, segments if last else 1)
    if plan.states != plan.coming().shape:
        raise plan.trap("takes states out of elements that do not hold them", hint="state.load first")
    if plan.stored:
        raise plan.trap("takes states out that are out already", hint="copy them, or store them once a pass")
    plan.stored = True
    target = plan.write(int(ins["dst"]), int(ins["words"]))
    worth = _gain(plan, plan.coming())[:cols] * state_unit(plan.arch.numbers)

    def run(machine: Machine) -> None:
        row = machine.rows(target)[0].reshape(machine.batch, parts, cols, rows)
        for part, held in enumerate(machine.states):
            own = held[..., machine.latest * cols : (machine.latest + 1) * cols] if last else held
            value = own.transpose(1, 2, 0)
            row[:, part] = value if plan.ideal else value * worth

    return run


def fri(plan: Planner, ins: Instruction) -> Action:
    """`fri` and `tri`."""
    held = plan.programmed(ins.mnemonic)
    cols, steps = int(held.ins["cols"]), str(ins["steps"])
    u = plan.read(int(ins["src"]), cols, steps=steps, pitch=int(ins["src_pitch"]))
    y = result(plan, ins, cols)
    element = element_of(plan, held)
    if ins.mnemonic == "tri" and not plan.ideal:
        return narrowed(liquid_machine(plan, ins, element, u, y), y)
    step = _fri_float(ins, element) if plan.ideal else _fri_machine(plan, ins, element)
    body = by_stretch(held.ins, bool(ins["reverse"]), step)

    def run(machine: Machine) -> None:
        body(machine, [machine.rows(u)], [machine.rows(y)])

    return run if plan.ideal else narrowed(run, y)


def _fri_float(ins: Instruction, e: Element) -> Body:
    flags = {name: bool(ins[name]) for name in ("reverse", "before")}
    accumulate, liquid = bool(ins["accumulate"]), ins.mnemonic == "tri"
    prepared: Columns | None = None

    def run(machine: Machine, sources: Sequence[Array], results: Sequence[Array]) -> None:
        from backends.epochcore.simulate.compiled_states import WIDTH, Columns, run_columns

        nonlocal prepared
        columns = prepared = prepared or Columns.of(e.decay, e.b, e.c, e.d)
        (source,), (out,), x = sources, results, np.array(machine.states)
        steps, batch, cols = source.shape
        source = source.copy() if np.may_share_memory(source, out) else source
        drive, total = (machine.scratch(n, (steps, batch, columns.padded)) for n in range(2))

        def blocks(part: range) -> None:
            low, high = part.start * WIDTH, part.stop * WIDTH
            drive[..., low : min(high, cols)], drive[..., cols:high] = source[..., low:high], 0.0
            run_columns(columns, x, drive, total, part, liquid=liquid, **flags)
            own, found = out[..., low:high], total[..., low : min(high, cols)]
            own[...] = own + found if accumulate else found

        machine.spread(columns.blocks, steps * x[0].size, blocks)
        machine.states = tuple(x)

    return run


def _fri_machine(plan: Planner, ins: Instruction, e: Element) -> Body:
    numbers = plan.arch.numbers
    decay = Decay(by_row(e.decay), e.decay_unit[0].T[:, None, :], numbers.decay == "one-minus")
    b, readings = by_row(e.b), Readings(by_row(e.c), numbers)
    b_unit = e.b_unit[0].T[:, None, :] / state_unit(numbers)
    y_unit = e.c_unit[0, :, 0] * state_unit(numbers)
    reverse, before, accumulate = bool(ins["reverse"]), bool(ins["before"]), bool(ins["accumulate"])

    def run(machine: Machine, sources: Sequence[Array], results: Sequence[Array]) -> None:
        integers, unit, outside = entering(sources[0], numbers)
        machine.overflowed(outside)
        unit = np.broadcast_to(unit, (*integers.shape[:-1], 1))
        (out,) = results
        total = np.empty(integers.shape)
        for k in order(len(integers), reverse):
            drive = tuple(drives(half * integers[k] * (b_unit * unit[k]), numbers) for half in b)
            before_step = machine.states
            following, outside = run_machine(decay, before_step, drive, numbers)
            machine.overflowed(outside)
            read = before_step if before else following
            total[k], outside = readings.of(read)
            machine.overflowed(outside)
            machine.states = following
        value = total * y_unit + integers * unit * (e.d * e.d_unit)
        out[...] = out + value if accumulate else value

    return run


STATES: dict[str, Rule] = {
    "state.load": state_load,
    "state.store": state_store,
    "fri": fri,
    "tri": fri,
}
