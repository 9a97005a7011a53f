"""Liquid systems as tile ops: in the elements where a bank can, as a recurrence with a streamed decay elsewhere."""

from __future__ import annotations

from ssmc.ir import Node, Value
from ssmc.passes.tile_fused import fused, halves
from ssmc.passes.tile_systems import read, spread
from ssmc.passes.tiling import Halves, Ports, Tiling
from ssmc.statespace import StateSpace


def tile_liquid(t: Tiling, node: Node) -> None:
    """`x <- (A + B u) x + B u`. B is not folded into C: the decay needs it."""
    system: StateSpace = node.op["system"]
    u, x0 = t.operands(node, 2)
    assert u is not None
    is_complex = system.is_complex or (x0 is not None and t.is_complex(x0))
    start = None
    if x0 is not None:
        start = t.parts(x0, node).joined() if is_complex else t.real[x0]
    elif system.x0 is not None:
        start = t.constant(node, halves(system.x0.reshape(-1), is_complex), ".x0")
    last_used = bool(t.source.users(Value(node.name, 1)))
    ports = Ports(t.real[u], None, start, is_complex, last_used, bool(node.op["reverse"]))
    if any(bank.fused and bank.liquid for bank in t.machine.banks):
        y, last = fused(t, node, system, ports, None, liquid=True)
    else:
        v = spread(t, node, system, ports)
        decay = t.constant(node, halves(system.A.reshape(-1), is_complex), ".a")
        operands = [t.binary(node, "add", v, decay, ".decay"), v, *([] if start is None else [start])]
        x = t.emit(
            node,
            "tile.recurrence",
            operands,
            ".x",
            is_complex=is_complex,
            read_before=system.read_before,
            reverse=ports.reverse,
        )
        last = Value(x.node, 1)
        y = read(t, node, system, ports, x, None)
    t.real[Value(node.name)] = y
    if is_complex:
        t.pairs[Value(node.name, 1)] = Halves(t, node, whole=last)
    else:
        t.real[Value(node.name, 1)] = last
