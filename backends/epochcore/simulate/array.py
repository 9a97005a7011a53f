"""What the array's instructions do: parameters and matrices here, states in `simulate_states`.

Ideal programs hold their states in float64; matrices are multiplied in float32 between values of float32 (see
`precision`), else in float64. Realistic ones compute in the architecture's numbers (see `formats`), integers held in
float64 where they are exact; what leaves the array is float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.formats import entering, sums
from backends.epochcore.program.stretches import MODES
from backends.epochcore.simulate.driven import DRIVEN
from backends.epochcore.simulate.machine import PANEL, Machine
from backends.epochcore.simulate.plan import Access, Action, Preload
from backends.epochcore.simulate.planner import Planner, Rule
from backends.epochcore.simulate.rounding import narrowed
from backends.epochcore.simulate.states import STATES, result
from isa import Instruction

if TYPE_CHECKING:
    from backends.epochcore.simulate.compiled_products import Matrix

Array = NDArray[Any]
# Multiplications of one matrix product; BLAS splits larger ones over its threads.
PANEL_WORK = 1 << 18
# Of a product, in the time of an operation elsewhere.
MACS_A_STEP = 16


def fetch(plan: Planner, ins: Instruction) -> None:
    plan.fetch(int(ins["dst"]), str(ins["src"]))


def preload(plan: Planner, ins: Instruction) -> None:
    rows, cols = plan.arch.room(str(ins["mode"]), bool(ins["complex"]))
    mode, segments = str(ins["mode"]), int(ins["segments"])
    matrix = mode in ("mac", "mac.os")
    high, wide = int(ins["rows"]) * (segments if mode == "mac" else 1), int(ins["cols"]) * segments
    wide *= 1 if matrix else plan.rounds.together
    if not plan.arch.holds(mode, bool(ins["complex"]), high, wide, groups := int(ins["groups"])):
        what = f", in {groups} groups" if groups > 1 else ""
        most = f", in {plan.arch.array.column_words} groups" if groups > 1 else ""
        raise plan.trap(
            f"needs {high} x {wide} elements{what}", f"the array has {rows} x {cols} for such numbers{most}"
        )
    if segments > 1 and mode not in MODES:
        raise plan.trap(f"has {segments} segments", f"the mode '{mode}' has one")
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
    y = result(plan, ins, cols)
    assert held.source is not None
    if held.source.size != rows * cols:
        raise plan.trap(f"has {held.source.size} weights for {rows} x {cols} elements")
    weight = held.source.reshape(rows, cols)
    bias = None if held.bias is None else np.asarray(held.bias, np.float64)
    if plan.ideal:
        return _mac_float(x, y, weight, bias, accumulate)
    weight = np.ascontiguousarray(weight, np.float64)
    if not plan.arch.numbers.fixed:
        return narrowed(_mac_rounded(plan, x, y, weight, bias, accumulate), y)
    scale = np.ones(cols) if held.scale is None else np.asarray(held.scale, np.float64)
    return narrowed(_mac_integer(plan, x, y, weight, scale, bias, accumulate), y)


def _mac_float(x: Access, y: Access, weight: Array, bias: Array | None, accumulate: bool) -> Action:
    dtype = np.float64 if x.slot.wide or y.slot.wide else np.float32
    prepared: Matrix | None = None

    def run(machine: Machine) -> None:
        from backends.epochcore.simulate.compiled_products import ROWS, Matrix

        nonlocal prepared
        matrix = prepared = prepared or Matrix.of(weight, bias, dtype)
        value, out = machine.rows(x), machine.rows(y)
        if value.shape[:2] != out.shape[:2]:
            value = np.broadcast_to(value, (*out.shape[:2], value.shape[2]))
        value = value.astype(dtype, copy=False).reshape(-1, value.shape[2])
        result = out.astype(dtype, copy=False).reshape(-1, out.shape[2])

        def rows(part: range) -> None:
            own = slice(part.start * ROWS, part.stop * ROWS)
            matrix.apply(value[own], result[own], accumulate)

        machine.spread(-(-len(result) // ROWS), len(result) * weight.size // MACS_A_STEP, rows)
        if not np.may_share_memory(result, out):
            out[...] = result.reshape(out.shape)

    return run


def _height(weight: Array) -> int:
    """Rows of a panel: of about the same work, so that one is neither all overhead nor mostly padding."""
    height = PANEL
    while height > 32 and height * weight.size > PANEL_WORK:
        height //= 2
    return height


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


RULES: dict[str, Rule] = {
    "fetch": fetch,
    "preload": preload,
    "mac": mac,
    **STATES,
    **DRIVEN,
}
