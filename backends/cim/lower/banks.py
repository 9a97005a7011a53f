"""State nodes of a layer: on its own core while they last, then on the nearest cores that have some left."""

from __future__ import annotations

from backends.cim.lower.code import Slot
from backends.cim.lower.contexts import Context
from backends.cim.lower.lowering import Lowering
from backends.cim.lower.nodes import Nodes, Share
from ssmc.diagnostics import Misfit

VOLATILE, DIGITAL = "volatile", "digital"


def sent(state: Lowering, context: Context, slot: Slot, nodes: Nodes, share: Share) -> Slot:
    """The share's words of a vector at `slot`, on the share's core."""
    if nodes.whole(share):
        return slot
    part = slot.at(share.start)
    if nodes.half:
        part = _packed(state, context, slot, nodes, share)
    if share.core == nodes.home:
        return part
    return state.send(part, nodes.words(share), nodes.home, context, share.core, context)


def _packed(state: Lowering, context: Context, slot: Slot, nodes: Nodes, share: Share) -> Slot:
    count = share.stop - share.start
    part = state.new(2 * count)
    state.emit(context, "copy", dst=part, src=slot.at(share.start), words=count)
    state.emit(context, "copy", dst=part.at(count), src=slot.at(nodes.half + share.start), words=count)
    return part


def fetch(state: Lowering, context: Context, part: Slot, nodes: Nodes, share: Share, whole: Slot) -> None:
    """Put a share's words, on its core, into the vector at `whole` on the layer's core."""
    count = share.stop - share.start
    if share.core != nodes.home:
        part = state.send(part, nodes.words(share), share.core, context, nodes.home, context)
    state.emit(context, "copy", dst=whole.at(share.start), src=part, words=count)
    if nodes.half:
        state.emit(context, "copy", dst=whole.at(nodes.half + share.start), src=part.at(count), words=count)


def reserve_nodes(state: Lowering) -> None:
    """Coupled states first: lines reach the nodes of their own core only. Raises Misfit where it has too few."""
    for name, core in state.coupling.cores.items():
        state.node, state.core = state.graph.node(name), core
        words = state.node.op["decay"].shape[0]
        first = state.code(core).serial(f"{VOLATILE} {state.load}", words)
        if first + words > state.arch.volatile.per_core:
            raise Misfit(
                f"{VOLATILE} state nodes of core {core}",
                first + words,
                state.arch.volatile.per_core,
                unit="real states",
                where=state.node.where,
                levers="run 'couple{sides=off}', or raise volatile.per_core in the architecture",
            )
        state.reserved[name] = Nodes(VOLATILE, core, (Share(core, first, 0, words),))


DIGITAL_ONLY = {
    "rounded": " (states that are rounded at every event have no other bank: volatile devices only decay)",
    "rounded_sums": " (numbers that are rounded at every event have no other bank: volatile devices only decay)",
    "spike": " (potentials that are reset have no other bank: volatile devices only decay)",
}


def take_nodes(state: Lowering, bank: str, states: int, *, pairs: bool = False, block: int = 1) -> Nodes:
    """Nodes for so many states, in blocks that lie in one core; each load has the whole bank.

    Raises Misfit where the whole chip has too few left, or no core has enough for a block.
    """
    if bank == VOLATILE and state.node.name in state.reserved:
        return state.reserved[state.node.name]
    arch, home, kind = state.arch, state.core, f"{bank} {state.load}"
    bound = arch.volatile.per_core if bank == VOLATILE else arch.digital.per_core
    each, start, shares = 2 if pairs else 1, 0, []
    for core in sorted(range(arch.mesh.cores), key=lambda core: (arch.hops(home, core), core)):
        left = bound - (state.codes[core].counters.get(kind, 0) if core in state.codes else 0)
        count = min(states - start, left // each // block * block)
        if count > 0:
            first = state.code(core).serial(kind, count * each)
            shares.append(Share(core, first, start, start + count))
            start += count
        if start == states:
            return Nodes(bank, home, tuple(shares), states if pairs else 0)
    used = sum(code.counters.get(kind, 0) for code in state.codes.values())
    if block > 1 and used + states - start <= bound * arch.mesh.cores:
        raise Misfit(
            f"{bank} state nodes of a core, for numbers of a step that depend on each other",
            block,
            bound,
            unit="numbers",
            where=state.node.where,
            levers=f"raise {bank}.per_core in the architecture, or use a model with fewer states",
        )
    raise Misfit(
        f"{bank} state nodes",
        used + (states - start) * each,
        bound * arch.mesh.cores,
        unit="real states",
        where=state.node.where,
        levers=f"raise {bank}.per_core or mesh.cores in the architecture, or use a model with fewer states"
        + DIGITAL_ONLY.get(state.node.op.name, ""),
    )
