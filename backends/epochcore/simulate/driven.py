"""States with drives of their own, read out themselves: `fri.x`, `tri.x` and `sel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Numbers
from backends.epochcore.formats import drives, parameters, state_unit
from backends.epochcore.program.parameters import Element
from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.plan import Access, Action, Preload
from backends.epochcore.simulate.planner import Planner, Rule
from backends.epochcore.simulate.recurrence import Decay, order, run_float, run_float_into, run_machine
from backends.epochcore.simulate.rounding import narrowed
from backends.epochcore.simulate.states import element_of, streamed_gain
from backends.epochcore.simulate.stretches import by_stretch
from isa import Instruction

Array = NDArray[Any]


def stationary(plan: Planner, ins: Instruction) -> Action:
    """`fri.x` and `tri.x`."""
    held = plan.programmed(ins.mnemonic)
    parts, cols = held.shape[0], int(held.ins["cols"])
    src = _halves_in(plan, ins, "src", int(ins["src_pitch"]), cols, parts)
    dst = _halves_out(plan, ins, int(ins["dst_pitch"]), cols, parts)
    element = element_of(plan, held)
    return _driven(plan, ins, src, dst, element, None, ins.mnemonic == "tri.x", held)


def sel(plan: Planner, ins: Instruction) -> Action:
    held = plan.programmed("sel")
    parts, cols, _ = held.shape
    pitch = int(ins["pitch"])
    src = _halves_in(plan, ins, "src", pitch, cols, parts)
    a = _halves_in(plan, ins, "a", pitch, cols, parts, "one" if ins["a_held"] else str(ins["steps"]))
    dst = _halves_out(plan, ins, pitch, cols, parts)
    return _driven(plan, ins, src, dst, None, a, False, held)


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
    held: Preload,
) -> Action:
    """States with drives of their own, read out themselves. The decay is e's, plus the drive (`tri`), or `a`."""
    numbers, ideal = plan.arch.numbers, plan.ideal
    distance = not ideal and numbers.decay == "one-minus"
    reverse, before = bool(ins["reverse"]), bool(ins["before"])
    own = None if e is None else tuple(half.T for half in e.decay)
    if ideal and own is not None and len(own) == 1 and (own[0] == own[0][:1, :1]).all():
        own = (own[0][0, 0],)
    unit = None if e is None or ideal else e.decay_unit[0].T
    worth = streamed_gain(plan, held) if e is None else np.ones(1) if ideal else e.gain.T
    count = (1.0 if ideal else state_unit(numbers)) * worth
    changes = tri or a is not None

    def decays(machine: Machine, drive: Sequence[Array]) -> Decay:
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

    def step_all(machine: Machine, drive: Sequence[Array], outs: Sequence[Array]) -> None:
        decay = decays(machine, drive)
        if ideal and not before:
            fast = decay if changes else _widened(decay, machine, drive[0].shape[1:])
            present = tuple(part[0] for part in machine.states)
            present = run_float_into(fast, changes, present, drive, outs, order(len(drive[0]), reverse))
            machine.states = tuple(part[None].astype(np.float64) for part in present)
            return
        if not ideal:
            drive = [drives(part / count, numbers) for part in drive]
        for k in order(len(drive[0]), reverse):
            present = machine.states
            step = decay.at(k) if changes else decay
            if ideal:
                following = run_float(step, present, tuple(part[k] for part in drive))
            else:
                following, outside = run_machine(step, present, tuple(part[k] for part in drive), numbers)
                machine.overflowed(outside)
            for out, value in zip(outs, present if before else following, strict=True):
                out[k] = value[0] if ideal else value[0] * count
            machine.states = following

    body = by_stretch(held.ins, reverse, step_all)

    def run(machine: Machine) -> None:
        body(machine, [machine.rows(part) for part in src], [machine.rows(part) for part in dst])

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
    machine.overflowed(outside)
    return Decay(tuple(kept), unit[0], distance)


DRIVEN: dict[str, Rule] = {
    "fri.x": stationary,
    "tri.x": stationary,
    "sel": sel,
}
