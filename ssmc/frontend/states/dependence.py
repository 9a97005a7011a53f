"""Which inputs or states each value of a graph depends on, and in which it is affine for its ops alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

import networkx as nx

from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.states.tangent import LINEAR, PRODUCTS, SUMS
from ssmc.ir.graph import Value

FIRST = LINEAR | {"CumSum"}  # linear in the first operand


@dataclass(frozen=True, eq=False)
class Dependence:
    """Sets of sources as bits of a number, one a source. A value is affine in a source (all others fixed) that it
    depends on and is not `bent` in; it may be so, too, in others."""

    bits: Mapping[Value, int]
    reads: Mapping[Value, int] = field(default_factory=dict)
    bent: Mapping[Value, int] = field(default_factory=dict)

    def affine(self, value: Value) -> int:
        """The sources that a value is affine in for its ops alone, as bits."""
        return self.reads.get(value, 0) & ~self.bent.get(value, 0)


def dependence(listing: Listing, sources: Iterable[Value]) -> Dependence:
    """The dependence of every value of a listing on some, in one walk."""
    bits = {value: 1 << k for k, value in enumerate(sources)}
    reads = dict(bits)
    bent: dict[Value, int] = {}
    for call in listing.calls:
        of = [0 if v is None else reads.get(v, 0) for v in call.operands]
        all_read = reduce(or_, of, 0)
        if not all_read:
            continue
        curved = reduce(or_, (bent[v] for v in call.operands if v in bent), 0) | _curved(call, of)
        for value in call.results:
            if value not in bits:
                reads[value] = all_read
            if curved:
                bent[value] = curved
    return Dependence(bits, reads, bent)


def _curved(call: Call, reads: Sequence[int]) -> int:
    """Sources in which a node may not be affine, though its operands are."""
    if call.kind in SUMS:
        return 0
    if call.kind == "Where":
        return reads[0]
    if call.kind in PRODUCTS:
        factors = reads[:2] if call.kind == "Gemm" else reads
        both, seen = 0, 0
        for factor in factors:
            both, seen = both | (seen & factor), seen | factor
        return both | (reads[1] if call.kind == "Div" else 0)
    real = all(kind in ("?", "bfloat16") or kind.startswith(("float", "double")) for kind in call.dtypes)
    if call.kind in FIRST and real:
        return reduce(or_, reads[1:], 0)
    return reduce(or_, reads, 0)


def blocks(pairs: Sequence[tuple[int, int]]) -> list[tuple[list[int], list[int]]]:
    """Connected parts of a bipartite graph that have as many members on either side."""
    graph: nx.Graph[tuple[str, int]] = nx.Graph((("in", i), ("out", j)) for i, j in pairs)
    found = []
    for part in nx.connected_components(graph):
        inputs, outputs = (sorted(k for side, k in part if side == which) for which in ("in", "out"))
        if len(inputs) == len(outputs):
            found.append((inputs, outputs))
    return found


def surroundings(listing: Listing, known: Dependence, wanted: Sequence[Value], moving: int) -> set[Value]:
    """Values that what lies between some sources (bits) and `wanted` reads beside: none depends on those sources."""
    found: set[Value] = set()
    waiting, met = list(wanted), set(wanted)
    while waiting:
        value = waiting.pop()
        call = listing.producer.get(value)
        if value in listing.constants:
            continue
        if not known.reads.get(value, 0) & moving:
            found.add(value)
        elif call is not None:
            fresh = {v for v in call.operands if v is not None} - met
            met |= fresh
            waiting += fresh
    return found


def between(
    listing: Listing, known: Dependence, sources: Sequence[Value], wanted: Sequence[Value]
) -> tuple[list[Call], set[Value]]:
    """The calls between some sources and `wanted`, in order, and the values on the way, the sources among them."""
    moving = reduce(or_, (known.bits[value] for value in sources), 0)
    found: dict[int, Call] = {}
    influenced, waiting = set(sources), list(wanted)
    while waiting:
        value = waiting.pop()
        if value in influenced or not known.reads.get(value, 0) & moving:
            continue
        influenced.add(value)
        call = listing.producer.get(value)
        if call is not None and value not in listing.constants:
            found[call.position] = call
            waiting += [v for v in call.operands if v is not None]
    return [found[position] for position in sorted(found)], influenced
