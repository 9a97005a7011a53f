"""What the array's instructions do: parameters and matrices here, states in `simulate_states`.

Ideal programs hold their states in float64; matrices are multiplied in float32 between values of float32 (see
`precision`), else in float64. Realistic ones compute in the architecture's numbers (see `formats`), integers held in
float64 where they are exact; what leaves the array is float32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from backends.epochcore.formats import entering
from backends.epochcore.program.stretches import MODES
from backends.epochcore.program.tiles import own, tiles, with_words
from backends.epochcore.simulate.buffers import Access, Preload
from backends.epochcore.simulate.driven import DRIVEN
from backends.epochcore.simulate.machine import PANEL, Machine
from backends.epochcore.simulate.plan import Action
from backends.epochcore.simulate.planner import Planner, Rule
from backends.epochcore.simulate.rounding import narrowed
from backends.epochcore.simulate.states import STATES, result
from backends.epochcore.simulate.sums import Products
from isa import Instruction
from ssmc.ir.op import Array

if TYPE_CHECKING:
    from backends.epochcore.simulate.compiled_products import Matrix

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
            f"needs {high} x {wide} elements{what}",
            f"the array has {rows} x {cols} for such numbers{most}",
            "compile for this architecture: tiles are cut to its array",
        )
    if segments > 1 and mode not in MODES:
        raise plan.trap(f"has {segments} segments", f"the mode '{mode}' has one")
    if tiles(ins) > 1 and (segments > 1 or not matrix):
        raise plan.trap(f"has {tiles(ins)} tiles", "the modes mac and mac.os have tiles, of one segment")
    if ins["mode"] not in plan.arch.array.modes:
        raise plan.trap(f"needs mode '{ins['mode']}'", f"the array has: {', '.join(plan.arch.array.modes)}")
    source = None if ins["mode"] == "sel" else plan.param(int(ins["src"]))
    scale = plan.param(int(ins["scale"])) if ins["scaled"] else None
    bias = plan.param(int(ins["bias"])) if ins["biased"] else None
    plan.shadow = Preload(ins, source, scale, bias)


# -- matrices --------------------------------------------------------------------------------------------------


def mac(plan: Planner, ins: Instruction) -> Action:
    coming, fresh = plan.shadow or plan.active, plan.shadow is not None
    held = plan.programmed("mac.os" if coming and coming.ins["mode"] == "mac.os" else "mac")
    rows, cols, number = int(held.ins["rows"]), int(held.ins["cols"]), tiles(held.ins)
    if number > 1 and not fresh:
        raise plan.trap("goes through tiles of weights again", hint="preload them again: the array holds the last one")
    xs, ys = _places(plan, ins, rows, cols, number)
    assert held.source is not None
    if held.source.size != number * rows * cols:
        count = f"{number} x {rows} x {cols}" if number > 1 else f"{rows} x {cols}"
        raise plan.trap(f"has {held.source.size} weights for {count} elements")
    for what, values in (("scales", held.scale), ("biases", held.bias)):
        if values is not None and values.size != number * cols:
            count = f"{number} x {cols}" if number > 1 else f"{cols}"
            raise plan.trap(f"has {values.size} {what} for {count} columns")
    actions = [
        _product(plan, x, y, own(held.source, number, tile).reshape(rows, cols), held, (tile, number), ins)
        for tile, (x, y) in enumerate(zip(xs, ys, strict=True))
    ]
    if number == 1:
        return actions[0]

    def run(machine: Machine) -> None:
        for action in actions:
            action(machine)

    return run


def _places(plan: Planner, ins: Instruction, rows: int, cols: int, number: int) -> tuple[list[Access], list[Access]]:
    """Operands and results of tiles."""
    more, steps, pitch = number - 1, str(ins["steps"]), int(ins["src_pitch"])
    every = [with_words(ins, tile) for tile in range(number)]
    if int(ins["src_next"]) <= rows:
        whole = plan.read(int(ins["src"]), rows + more * int(ins["src_next"]), steps=steps, pitch=pitch)
        xs = [replace(whole, offset=whole.offset + tile * int(ins["src_next"]), words=rows) for tile in range(number)]
    else:
        xs = [plan.read(int(one["src"]), rows, steps=steps, pitch=pitch) for one in every]
    if more and int(ins["dst_next"]) < cols:
        raise plan.trap(f"writes results of {cols} words {ins['dst_next']} words apart")
    if int(ins["dst_next"]) == cols:
        whole = result(plan, ins, number * cols)
        ys = [replace(whole, offset=whole.offset + tile * cols, words=cols) for tile in range(number)]
    else:
        ys = [result(plan, one, cols) for one in every]
    if (
        more
        and xs[0].slot is ys[0].slot
        and xs[0].offset < ys[-1].offset + cols
        and ys[0].offset < xs[-1].offset + rows
    ):
        raise plan.trap("reads what its own tiles write", hint="give the results another buffer")
    return xs, ys


def _product(
    plan: Planner, x: Access, y: Access, weight: Array, held: Preload, part: tuple[int, int], ins: Instruction
) -> Action:
    """One tile of so many."""
    tile, number = part
    accumulate = bool(ins["accumulate"])
    bias = None if held.bias is None else np.asarray(own(held.bias, number, tile), np.float64)
    if plan.ideal:
        return _mac_float(x, y, weight, bias, accumulate)
    weight = np.ascontiguousarray(weight, np.float64)
    if not plan.arch.numbers.fixed:
        return narrowed(_mac_rounded(plan, x, y, weight, bias, accumulate), y)
    scale = np.ones(weight.shape[1]) if held.scale is None else np.asarray(own(held.scale, number, tile), np.float64)
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
    products = Products(weight, numbers)

    def run(machine: Machine) -> None:
        integers, unit, _ = entering(machine.rows(x), numbers)
        total, outside = products.of(integers.reshape(-1, len(weight)))
        machine.overflowed(outside)
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
        machine.overflowed(entering(machine.rows(x), numbers)[2])
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
