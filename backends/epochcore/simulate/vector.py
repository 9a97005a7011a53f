"""What the vector unit's instructions within one step do. Buffers are whole and contiguous, so that numpy's
functions take the same path for every number of steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.epochcore.simulate.buffers import Access
from backends.epochcore.simulate.elementwise import gate_into, into
from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.plan import Action
from backends.epochcore.simulate.planner import Planner, Rule
from backends.epochcore.simulate.rounding import finished
from isa import Instruction
from ssmc.ir.functions import BINARY, REDUCE
from ssmc.ir.op import Array


def src(plan: Planner, ins: Instruction, words: int, name: str = "src") -> Access:
    """An operand of `words` words a step, or of one row where its `held` flag is set."""
    held = bool(ins.operands.get(f"{name}_held", False))
    return plan.read(int(ins[name]), words, steps="one" if held else str(ins["steps"]), pitch=words)


def dst(plan: Planner, ins: Instruction, words: int) -> Access:
    return plan.write(int(ins["dst"]), words, steps=str(ins["steps"]))


def common(*accesses: Access) -> type[np.floating[Any]]:
    """The format to compute in: float32 where all buffers with a row a step are; single rows do not matter."""
    many = [access.slot.wide for access in accesses if access.slot.steps != "one"]
    return np.float32 if many and not any(many) else np.float64


def const(plan: Planner, ins: Instruction) -> Action:
    values = np.asarray(plan.program.data[str(ins["src"])], np.float64).ravel()
    if values.size != int(ins["words"]):
        raise plan.trap(f"copies {ins['words']} words of a constant of {values.size}")
    target = plan.write(int(ins["dst"]), values.size, shared=True)

    def run(machine: Machine) -> None:
        machine.rows(target)[...] = values

    return run


def unary(plan: Planner, ins: Instruction) -> Action:
    words = int(ins["words"])
    x, fn = src(plan, ins, words), into(str(ins["fn"]))
    y = dst(plan, ins, words)
    in_place, dtype = x.slot == y.slot, common(x, y)

    def run(machine: Machine) -> None:
        value, out = machine.rows(x), machine.rows(y)
        if in_place or value.dtype != dtype:
            value = machine.scratch(0, value.shape, dtype)
            value[...] = machine.rows(x)
        result = out if out.dtype == dtype else np.empty(out.shape)
        fn(value, result)
        if result is not out:
            out[...] = result

    return finished(plan, run, y)


def _period(plan: Planner, ins: Instruction, name: str, words: int) -> int:
    """How many words the operand `name` has, by its pattern."""
    inner, pattern = int(ins["inner"]), ins[f"{name}_pattern"]
    if pattern == "repeat" and words % inner:
        raise plan.trap(f"repeats words {inner} times into {words}")
    return {"each": words, "one": 1, "tile": inner, "repeat": words // inner}[str(pattern)]


def _operands(plan: Planner, ins: Instruction, words: int) -> tuple[list[Any], Access, type[np.floating[Any]]]:
    """For a and b, a function that gives the operand in a shape that broadcasts against (steps, batch, words); the
    result; the format to compute in, which the operands have."""
    accesses = [src(plan, ins, _period(plan, ins, name, words), name) for name in "ab"]
    inner = int(ins["inner"])
    if words % inner and "tile" in (ins["a_pattern"], ins["b_pattern"]):
        raise plan.trap(f"tiles {inner} words into {words}")
    y = dst(plan, ins, words)
    dtype = common(*accesses, y)

    def reader(access: Access, pattern: str) -> Any:
        def read(machine: Machine) -> Array:
            value = machine.rows(access).astype(dtype, copy=False)
            match pattern:
                case "tile":
                    return np.tile(value, words // inner)
                case "repeat":
                    return np.repeat(value, inner, axis=-1)
            return value

        return read

    readers = [reader(access, str(ins[f"{name}_pattern"])) for name, access in zip("ab", accesses, strict=True)]
    return readers, y, dtype


def binary(plan: Planner, ins: Instruction) -> Action:
    words = int(ins["words"])
    (a, b), y, _ = _operands(plan, ins, words)
    fn = BINARY[str(ins["fn"])]

    ufunc: Any = fn

    def direct(machine: Machine) -> None:
        ufunc(a(machine), b(machine), out=machine.rows(y))

    def general(machine: Machine) -> None:
        machine.rows(y)[...] = fn(a(machine), b(machine))

    return finished(plan, direct if isinstance(fn, np.ufunc) else general, y)


def gate(plan: Planner, ins: Instruction) -> Action:
    words = int(ins["words"])
    (a, b), y, dtype = _operands(plan, ins, words)
    fn = str(ins["fn"])

    def run(machine: Machine) -> None:
        control = b(machine)
        gate_into(fn, a(machine), control, machine.rows(y), machine.scratch(0, control.shape, dtype))

    return finished(plan, run, y)


def select(plan: Planner, ins: Instruction) -> Action:
    words = int(ins["words"])
    c, a, b = (src(plan, ins, words, name) for name in "cab")
    y = dst(plan, ins, words)

    def run(machine: Machine) -> None:
        machine.rows(y)[...] = np.where(machine.rows(c) != 0, machine.rows(a), machine.rows(b))

    return run


def norm(plan: Planner, ins: Instruction) -> Action:
    words, vectors, groups = int(ins["words"]), int(ins["vectors"]), int(ins["groups"])
    if words % (vectors * groups):
        raise plan.trap(f"divides {words} words into {vectors} vectors of {groups} groups")
    size, affine, layer = words // vectors, bool(ins["affine"]), ins["kind"] == "layer"
    x = src(plan, ins, words)
    par = plan.read(int(ins["par"]), 1 + 2 * size * affine)
    y = dst(plan, ins, words)
    dtype = common(x, y)

    def run(machine: Machine) -> None:
        value, p = (machine.rows(access).astype(dtype, copy=False) for access in (x, par))
        p = p[0, 0]
        grouped = value.reshape(*value.shape[:2], vectors, groups, size // groups)
        if layer:
            grouped = grouped - grouped.mean(-1, keepdims=True)
        square = np.square(grouped).mean(-1, keepdims=True)
        square += p[0]
        np.sqrt(square, out=square)
        out = (grouped / square).reshape(*value.shape[:2], vectors, size)
        if affine:
            out *= p[1 : 1 + size]
            out += p[1 + size :]
        machine.rows(y)[...] = out.reshape(value.shape)

    return finished(plan, run, y)


def reduce(plan: Planner, ins: Instruction) -> Action:
    shape = tuple(int(ins[name]) for name in ("outer", "axis", "inner"))
    x = src(plan, ins, shape[0] * shape[1] * shape[2])
    y, fn = dst(plan, ins, shape[0] * shape[2]), REDUCE[str(ins["fn"])]

    def run(machine: Machine) -> None:
        value, out = machine.rows(x), machine.rows(y)
        # the reduced axis last and contiguous: one rounding for every number of steps
        moved = np.ascontiguousarray(np.swapaxes(value.reshape(*value.shape[:2], *shape), -1, -2))
        out[...] = fn(moved, axis=-1).reshape(out.shape)

    return finished(plan, run, y)


def softmax(plan: Planner, ins: Instruction) -> Action:
    words, vectors = int(ins["words"]), int(ins["vectors"])
    if words % vectors:
        raise plan.trap(f"divides {words} words into {vectors} vectors")
    x = src(plan, ins, words)
    y, log = dst(plan, ins, words), bool(ins["log"])

    def run(machine: Machine) -> None:
        value = machine.rows(x)
        shifted = value.reshape(*value.shape[:2], vectors, -1)
        shifted = shifted - shifted.max(-1, keepdims=True)
        e = np.exp(shifted)
        total = e.sum(-1, keepdims=True)
        machine.rows(y)[...] = (shifted - np.log(total) if log else e / total).reshape(value.shape)

    return finished(plan, run, y)


def copy(plan: Planner, ins: Instruction) -> Action:
    words, steps = int(ins["words"]), str(ins["steps"])
    x = plan.read(int(ins["src"]), words, steps="one" if ins["src_held"] else steps, pitch=int(ins["src_pitch"]))
    y = plan.write(int(ins["dst"]), words, steps=steps, pitch=int(ins["dst_pitch"]))

    def run(machine: Machine) -> None:
        machine.rows(y)[...] = machine.rows(x)

    return run


def gather(plan: Planner, ins: Instruction) -> Action:
    index = np.asarray(plan.program.data[str(ins["index"])], np.intp).ravel()
    words, pitch = int(ins["words"]), int(ins["src_pitch"])
    if index.size != words or (words and not 0 <= index.min() <= index.max() < pitch):
        raise plan.trap(f"gathers {words} words by {index.size} positions, from {pitch} words")
    x = plan.read(int(ins["src"]), pitch, steps=str(ins["steps"]), pitch=pitch)
    y = dst(plan, ins, words)

    def run(machine: Machine) -> None:
        machine.rows(y)[...] = np.take(machine.rows(x), index, axis=-1)

    return run


def contract(plan: Planner, ins: Instruction) -> Action:
    groups, m, k, n = (int(ins[name]) for name in ("groups", "m", "k", "n"))
    a, b = src(plan, ins, groups * m * k, "a"), src(plan, ins, groups * k * n, "b")
    y = dst(plan, ins, groups * m * n)

    def run(machine: Machine) -> None:
        left, right, out = machine.rows(a), machine.rows(b), machine.rows(y)
        left = left.reshape(*left.shape[:2], groups, m, k)
        right = right.reshape(*right.shape[:2], groups, k, n)
        # term by term, so that a sum is rounded alike for every number of steps
        total = left[..., :, :1] * right[..., :1, :]
        for j in range(1, k):
            total = total + left[..., :, j : j + 1] * right[..., j : j + 1, :]
        out[...] = total.reshape(*total.shape[:2], -1)

    return finished(plan, run, y)


def lookup(plan: Planner, ins: Instruction) -> Action:
    table = np.asarray(plan.program.data[str(ins["table"])])
    words, count = int(ins["words"]), int(ins["count"])
    if table.ndim != 2 or table.shape[1] != words:
        raise plan.trap(f"looks up rows of {words} words in a table of shape {table.shape}")
    x = src(plan, ins, count)
    y = dst(plan, ins, words * count)

    def run(machine: Machine) -> None:
        index = machine.rows(x).astype(np.intp)
        if index.size and not -len(table) <= index.min() <= index.max() < len(table):
            raise machine.trap(
                f"looks up row {index.min() if index.min() < -len(table) else index.max()} of a table",
                f"the table has {len(table)} rows",
                "check the model's input",
            )
        machine.rows(y)[...] = table[index].reshape(*index.shape[:2], -1)

    return run


RULES: dict[str, Rule] = {
    "const": const,
    "unary": unary,
    "binary": binary,
    "gate": gate,
    "select": select,
    "norm": norm,
    "reduce": reduce,
    "softmax": softmax,
    "copy": copy,
    "gather": gather,
    "contract": contract,
    "lookup": lookup,
}
