"""A in arrays: what states feed each other comes from a product, the states stand in registers from step to step."""

from __future__ import annotations

from backends.cim.lower.contexts import Context
from backends.cim.lower.lowering import Lowering
from backends.cim.lower.matmul import multiply, product_of
from backends.cim.lower.time import operand_in_order, unreversed
from ssmc.ir import Node


def lower_feedback(state: Lowering, node: Node, work: Context) -> None:
    """x <- A x + v. Because of the register that carries x the simulator runs this one step at a time."""
    words = node.op["weight"].shape[1]
    v = operand_in_order(state, node, 0, work)
    held, fed, y = state.new(words), state.new(words), state.new(words)
    before = Context(work.stage - 1)
    if state.has(1):
        state.emit(before, "copy", dst=held, src=state.read(1, before), words=words)
    else:
        state.emit(before, "fill", dst=held, words=words)
    if node.op["read_before"]:
        state.emit(work, "copy", dst=y, src=held, words=words)
    multiply(state, node, work, product_of(node, state.core, held, fed))
    state.emit(work, "binary", dst=held, a=fed, b=v, words=words, fn="add")
    if not node.op["read_before"]:
        state.emit(work, "copy", dst=y, src=held, words=words)
    unreversed(state, node, work, y, words)
    if state.used(1):
        last = state.new(words)
        state.emit(work.after, "copy", dst=last, src=held, words=words)
        state.bind(last, work.after, 1)
