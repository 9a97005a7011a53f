"""States with drives of their own, read out themselves: `fri.x`, `tri.x` and `sel`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from backends.epochcore.arch import Numbers
from backends.epochcore.formats import drives, parameters, state_unit
from backends.epochcore.program.parameters import Element
from backends.epochcore.simulate.buffers import Access, Preload
from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.plan import Action
from backends.epochcore.simulate.planner import Planner, Rule
from backends.epochcore.simulate.recurrence import Decay, order, run_float, run_float_into, run_machine
from backends.epochcore.simulate.rounding import narrowed
from backends.epochcore.simulate.states import element_of, streamed_gain
from backends.epochcore.simulate.stretches import by_stretch
from isa import Instruction
from ssmc.ir.op import Array

Decays = Callable[[Machine, Sequence[Array]], Decay]  # of a block of steps, given what drives it
Steps = Callable[[Machine, Sequence[Array], Sequence[Array]], None]


def stationary(plan: Planner, ins: Instruction) -> Action:
    """`fri.x` and `tri.x`: the decay is the element's, to which the drive is added (`tri.x`)."""
    held, changes = plan.programmed(ins.mnemonic), ins.mnemonic == "tri.x"
    parts, cols = held.shape[0], int(held.ins["cols"])
    src = _halves_in(plan, ins, "src", int(ins["src_pitch"]), cols, parts)
    dst = _halves_out(plan, ins, int(ins["dst_pitch"]), cols, parts)
    element = element_of(plan, held)
    if plan.ideal:
        return _driven(plan, ins, held, src, dst, _float_steps(ins, _ideal_decays(element, changes), changes))
    numbers = plan.arch.numbers
    decays = _kept_decays(element, numbers, changes)
    return _driven(plan, ins, held, src, dst, _machine_steps(ins, decays, changes, numbers, element.gain.T))


def sel(plan: Planner, ins: Instruction) -> Action:
    """The decay is streamed."""
    held, numbers = plan.programmed("sel"), plan.arch.numbers
    parts, cols, _ = held.shape
    pitch = int(ins["pitch"])
    src = _halves_in(plan, ins, "src", pitch, cols, parts)
    a = _halves_in(plan, ins, "a", pitch, cols, parts, "one" if ins["a_held"] else str(ins["steps"]))
    dst = _halves_out(plan, ins, pitch, cols, parts)

    def decays(machine: Machine, drive: Sequence[Array]) -> Decay:
        streamed = tuple(machine.rows(part) for part in a)
        return Decay(streamed) if plan.ideal else _kept(streamed, numbers, machine)

    if plan.ideal:
        return _driven(plan, ins, held, src, dst, _float_steps(ins, decays, True))
    return _driven(plan, ins, held, src, dst, _machine_steps(ins, decays, True, numbers, streamed_gain(plan, held)))


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
    plan: Planner, ins: Instruction, held: Preload, src: list[Access], dst: list[Access], steps: Steps
) -> Action:
    """States with drives of their own, read out themselves."""
    body = by_stretch(held.ins, bool(ins["reverse"]), steps)

    def run(machine: Machine) -> None:
        body(machine, [machine.rows(part) for part in src], [machine.rows(part) for part in dst])

    return run if plan.ideal else narrowed(run, *dst)


def _ideal_decays(e: Element, driven: bool) -> Decays:
    own = tuple(half.T for half in e.decay)
    if len(own) == 1 and (own[0] == own[0][:1, :1]).all():
        own = (own[0][0, 0],)
    if not driven:
        return lambda machine, drive: Decay(own)
    return lambda machine, drive: Decay(tuple(part + v for part, v in zip(own, drive, strict=True)))


def _kept_decays(e: Element, numbers: Numbers, driven: bool) -> Decays:
    """As the machine keeps a parameter; the sum with the drive is formed before it is rounded again."""
    distance, unit = numbers.decay == "one-minus", e.decay_unit[0].T
    own = tuple(half.T for half in e.decay)
    if not driven:
        return lambda machine, drive: Decay(own, unit, distance)
    exact = [part * unit for part in own]
    if distance:
        exact = [1.0 - part if i == 0 else -part for i, part in enumerate(exact)]
    return lambda machine, drive: _kept([part + v for part, v in zip(exact, drive, strict=True)], numbers, machine)


def _kept(a: Sequence[Array], numbers: Numbers, machine: Machine) -> Decay:
    """Decays that change, each rounded as a parameter."""
    distance = numbers.decay == "one-minus"
    kept, unit, outside = parameters(np.stack([1.0 - a[0], *(-part for part in a[1:])] if distance else a), numbers)
    machine.overflowed(outside)
    return Decay(tuple(kept), unit[0], distance)


def _float_steps(ins: Instruction, decays: Decays, changes: bool) -> Steps:
    """In floating point."""
    reverse, before = bool(ins["reverse"]), bool(ins["before"])

    def run(machine: Machine, drive: Sequence[Array], outs: Sequence[Array]) -> None:
        decay, steps = decays(machine, drive), order(len(drive[0]), reverse)
        if not before:
            fast = decay if changes else _widened(decay, machine, drive[0].shape[1:])
            present = tuple(part[0] for part in machine.states)
            present = run_float_into(fast, changes, present, drive, outs, steps)
            machine.states = tuple(part[None].astype(np.float64) for part in present)
            return
        for k in steps:
            for out, value in zip(outs, machine.states, strict=True):
                out[k] = value[0]
            step = decay.at(k) if changes else decay
            machine.states = run_float(step, machine.states, tuple(part[k] for part in drive))

    return run


def _machine_steps(ins: Instruction, decays: Decays, changes: bool, numbers: Numbers, gain: Array) -> Steps:
    """In the machine's numbers; `gain` is what a state's unit is worth."""
    reverse, before, count = bool(ins["reverse"]), bool(ins["before"]), state_unit(numbers) * gain

    def run(machine: Machine, drive: Sequence[Array], outs: Sequence[Array]) -> None:
        decay, drive = decays(machine, drive), [drives(part / count, numbers) for part in drive]
        for k in order(len(drive[0]), reverse):
            present, step = machine.states, decay.at(k) if changes else decay
            following, outside = run_machine(step, present, tuple(part[k] for part in drive), numbers)
            machine.overflowed(outside)
            for out, value in zip(outs, present if before else following, strict=True):
                out[k] = value[0] * count
            machine.states = following

    return run


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


DRIVEN: dict[str, Rule] = {
    "fri.x": stationary,
    "tri.x": stationary,
    "sel": sel,
}
