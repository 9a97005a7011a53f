"""A scheduled tile graph becomes a program: each node by its op's rule, in program order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from backends.cim.arch import Architecture
from backends.cim.arch_file import arch_text
from backends.cim.clock.statistics import latency_warning
from backends.cim.clock.timing import schedule
from backends.cim.lower.assign import sections
from backends.cim.lower.banks import reserve_nodes
from backends.cim.lower.code import Tap
from backends.cim.lower.contexts import meetings, place_in_time, work_context
from backends.cim.lower.coupling import coupling_of
from backends.cim.lower.lowering import Lowering
from backends.cim.lower.replicate import Turns, replicated
from backends.cim.lower.rules import RULES
from isa import FrozenMap, Loc, Program
from isa.cim import CIM
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Node, SequenceType, StreamType, Value

MATRICES = ("tile.matmul", "tile.feedback")


def lower(graph: Graph, arch: Architecture, *, ideal: bool) -> Program:
    """Instructions for a scheduled tile graph; what delays events most is there several times where the chip says so.

    Raises Misfit where the chip is too small, UserError for an op that the chip has no instruction for.
    """
    return replicated(lambda turns: _lower(graph, arch, ideal, turns), graph, arch)


def _lower(graph: Graph, arch: Architecture, ideal: bool, turns: Turns) -> Program:
    timing = place_in_time(graph)
    coupling = coupling_of(graph, ideal=ideal)
    state = Lowering(graph, arch, timing.contexts, ideal, timing.begins, turns=turns, coupling=coupling)
    reserve_nodes(state)
    for node in sorted(graph.nodes(), key=_program_order(graph)):
        rule = RULES.get(node.op.name)
        state.node = node
        if rule is None:
            raise UserError(
                f"this target has no rule for '{node.op.name}'",
                where=state.node.where,
                hint="run the passes 'tile,map-weights,schedule' before the target's lowering",
            )
        state.core = _core(state, node)
        state.loc = len(state.locs)
        state.locs.append(Loc(node.name, node.op.name, node.provenance))
        operands = [None if v is None else state.contexts[v] for v in graph.operands(node.name)]
        rule(state, node, work_context(node, operands, state.begin))
        _tap(state, node)
    return _program(state, ideal)


def _program_order(graph: Graph) -> Callable[[Node], tuple[int, int]]:
    """Topological order, which a schedule's own order refines where it agrees with it."""
    position = {name: index for index, name in enumerate(graph.order())}
    orders = {node.name: node.place.order for node in graph.nodes() if node.place is not None}
    agrees = all(
        orders[u] < orders[v] for u, v, _ in graph.net.edges(keys=True) if u in orders and v in orders and u != v
    )
    if agrees and len(orders) == len(position):
        return lambda node: (orders[node.name], position[node.name])
    return lambda node: (position[node.name], 0)


def _core(state: Lowering, node: Node) -> int:
    """The core of a layer: as placed where the schedule tells cores apart, else where its arrays or operands are."""
    if (coupled := state.coupling.cores.get(node.name)) is not None:
        return coupled
    if node.op.name == "output":
        return state.home[state.graph.operand(node.name, 0)][0]
    if state.placed and node.place is not None:
        if node.place.unit >= state.arch.mesh.cores:
            raise Misfit(
                "cores",
                node.place.unit + 1,
                state.arch.mesh.cores,
                unit="cores",
                where=state.node.where,
                levers="raise mesh.cores or crossbar.per_core in the architecture",
            )
        return max(node.place.unit, 0)
    if node.op.name in MATRICES and (found := _most_arrays(state, node)) is not None:
        return found
    made = [
        state.home[value][0]
        for value in state.graph.operands(node.name)
        if value is not None and state.graph.op(value.node).name != "constant"
    ]
    if made:
        return made[0]
    return _next_arrays(state, node)


def _next_arrays(state: Lowering, node: Node) -> int:
    """The core of the nearest matrix that a value reaches; core 0 where there is none."""
    if not state.nearest:
        state.nearest.update(_nearest_arrays(state))
    return state.nearest[node.name][1]


def _nearest_arrays(state: Lowering) -> dict[str, tuple[float, int]]:
    """How many nodes behind each node the nearest matrix stands, the first of those equally near, and its core."""
    found: dict[str, tuple[float, int]] = {}
    for name in reversed(state.graph.order()):
        if (core := _most_arrays(state, state.graph.node(name))) is not None:
            found[name] = 0, core
            continue
        users = [found[user] for user, _ in state.graph.users(Value(name))]
        far, core = min(users, key=lambda reached: reached[0], default=(math.inf, 0))
        found[name] = far + 1, core
    return found


def _most_arrays(state: Lowering, node: Node) -> int | None:
    """The core that holds most of a matrix's pieces."""
    if node.op.name not in MATRICES:
        return None
    cores = Counter(piece.unit // state.arch.crossbar.per_core for piece in node.op["pieces"] if piece.unit >= 0)
    best = max(cores.values(), default=0)
    return min((core for core, count in cores.items() if count == best and core < state.arch.mesh.cores), default=None)


def _tap(state: Lowering, node: Node) -> None:
    """Note where the node's first result stands after its last instruction; one that is a part of another's words has
    none, and those may be taken for other words by then."""
    value, kind = Value(node.name), node.types[0]
    if node.op.name in ("input", "output", "constant") or not state.graph.users(value):
        return
    core, context, slot = state.home[value]
    items = state.code(core).stages.get(context.stage, [])
    last = next((item for item in reversed(items) if item.context == context), None)
    if last is not None and last.loc == state.loc and isinstance(kind, StreamType | SequenceType):
        state.code(core).taps.append(Tap(node.name, last, slot, kind.shape, context))


def _program(state: Lowering, ideal: bool) -> Program:
    made, taps = [], []
    for core in sorted(state.codes):
        parts, found = sections(state.codes[core], state.arch)
        made += parts
        taps += found
    meet = [list(found) for found in meetings(state.graph, state.contexts)]
    met = {"meetings": meet} if meet else {}
    used = {loc for section in made for ins in section.code if (loc := ins.loc) is not None}
    program = Program(
        CIM.name,
        CIM.version,
        arch=arch_text(state.arch),
        sections=tuple(made),
        data=FrozenMap(state.data),
        locs=tuple(state.locs) if used else (),
        inputs=tuple(state.inputs),
        outputs=tuple(state.outputs),
        meta=FrozenMap({"ideal": ideal, "taps": taps, "form": state.graph.attributes.get("form", "sequence"), **met}),
    )
    warning = latency_warning(program, state.arch, schedule(program, state.arch, 1))
    return replace(program, meta=FrozenMap({**program.meta, "warning": warning})) if warning else program
