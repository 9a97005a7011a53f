"""Products of every step with every other that nothing masks: linear attention over the whole sequence.

`(q k^T) v`, as it stands in a file, is `q (k^T v)`: a sum over the sequence, and a product at each step (Linear
Transformers, arXiv 2006.16236, section 3.2). What multiplies the scores on the way (a scale, a normaliser of the rows,
a gate of the columns) is part of the one side or of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, Raw, TimeMixing, Tracked, Unsupported, wrap
from ssmc.frontend.rules.context import Surroundings, arrays_or_flows, sampled
from ssmc.frontend.rules.elementwise import binary, unary
from ssmc.frontend.rules.lengths import as_length
from ssmc.frontend.rules.matrix import einsum_terms, product_terms
from ssmc.frontend.rules.merged import is_plain
from ssmc.frontend.rules.time_sums import summed_over_time
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import axes_of
from ssmc.ir.graph import Value

SAME = frozenset(["Identity", "Cast", "Dropout"])
SUMS = {"ReduceSum": "sum", "ReduceMean": "mean"}
FRESH = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST = 8  # terms of a sum of products (ours)
DEEP = 64  # ops between products of steps and their sum over one of both (ours)


@dataclass(frozen=True)
class Pair:
    """P[..., row, ..., col, ...] = sum left * right, an einsum: `left` has the letter `row`, `right` has `col`."""

    left: Flow
    right: Flow
    terms: tuple[str, str]
    result: str
    row: str
    col: str

    def swapped(self) -> Pair:
        return Pair(self.right, self.left, self.terms[::-1], self.result, self.col, self.row)

    def renamed(self, letters: str) -> Pair:
        """The same with other letters for the axes of the result, none of which stands inside."""
        inner = [c for c in dict.fromkeys("".join(self.terms)) if c not in self.result]
        free = [c for c in FRESH if c not in letters]
        table = str.maketrans({**dict(zip(self.result, letters, strict=True)), **dict(zip(inner, free, strict=False))})
        first, second = (term.translate(table) for term in self.terms)
        return Pair(
            self.left, self.right, (first, second), letters, self.row.translate(table), self.col.translate(table)
        )


def contracted_pairs(translator: Surroundings, call: Call) -> list[Tracked] | None:
    """The result of a call that sums products of all steps over one of their two time axes; None where it is no such
    call. Raises Unsupported where it cannot be said."""
    if call.kind in SUMS:
        return _summed(translator, call)
    if call.kind not in ("MatMul", "Einsum") or len(call.operands) != 2:
        return None
    items = [translator.lookup(v) for v in call.operands if v is not None]
    raw = [k for k, item in enumerate(items) if isinstance(item, Raw)]
    if len(raw) != 1 or not isinstance(items[1 - raw[0]], Flow | Known):
        return None
    pairs = pairs_of(translator, call.operands[raw[0]])
    if pairs is None:
        return None
    shaped = [np.broadcast_to(0.0, _shape(translator, v)) for v in call.operands if v is not None]
    terms, result = _terms(call, shaped)
    other = items[1 - raw[0]]
    assert isinstance(other, Flow | Known)
    return [
        _added(
            translator, [_contracted(translator, p, terms[raw[0]], [other], [terms[1 - raw[0]]], result) for p in pairs]
        )
    ]


def _summed(translator: Surroundings, call: Call) -> list[Tracked] | None:
    """A sum, or a mean, of the products over one time axis."""
    value = call.operands[0]
    pairs = None if value is None else pairs_of(translator, value)
    if pairs is None:
        return None
    items = [None if v is None else translator.lookup(v) for v in call.operands]
    rank, shape = len(pairs[0].result), _shape(translator, value)
    gone = axes_of(arrays_or_flows(items), call.attrs, 1)
    if gone is None or len(gone) != 1:
        raise TimeMixing("it sums products of all steps over several axes")
    at, letters = gone[0] % rank, FRESH.lower()[:rank]
    kept = letters[:at] + letters[at + 1 :]
    kind = SUMS[call.kind]
    found = _added(translator, [_contracted(translator, p, letters, [], [], kept, kind) for p in pairs])
    if not int(call.attrs.get("keepdims", 1)):
        return [found]
    axes, full = found.axes[:at] + "f" + found.axes[at:], (*shape[:at], 1, *shape[at + 1 :])
    features = tuple(d for d, a in zip(full, axes, strict=True) if a == "f")
    return [wrap(translator.builder.reshape(found.value, features), axes, full)]


def _contracted(
    translator: Surroundings,
    pair: Pair,
    term: str,
    others: Sequence[Flow | Known],
    terms: Sequence[str],
    result: str,
    kind: str = "sum",
) -> Flow:
    """`term, terms -> result` of a pair and at most one other tensor."""
    pair = pair.renamed(term)
    if pair.row not in result:
        pair = pair.swapped()
    if pair.row not in result or [c for c in term if c not in result] != [pair.col]:
        raise TimeMixing("it sums products of all steps over other axes than one of time")
    left, right = pair.terms
    wanted = "".join(dict.fromkeys(c for c in right + "".join(terms) if c != pair.col and c in left + result))
    whole = summed_over_time(translator.builder, [right, *terms], wanted, [pair.right, *others], kind)
    found = einsum(translator.builder, [left, wanted], result, [pair.left, whole])
    assert isinstance(found, Flow)
    return found


def _added(translator: Surroundings, terms: Sequence[Flow]) -> Flow:
    total: Flow | Known = terms[0]
    for term in terms[1:]:
        total = binary(translator.builder, "add", total, term)
    assert isinstance(total, Flow)
    return total


# -- what a value is a sum of ------------------------------------------------------------------------------


def pairs_of(translator: Surroundings, value: Value | None, deep: int = DEEP) -> list[Pair] | None:
    """A value as a sum of products of every step with every other, at most so deep behind it; None where it is none."""
    if deep == 0:
        return None
    call = None if value is None else translator.listing.producer.get(value)
    if call is None or not isinstance(translator.lookup(value), Raw):
        return None
    operands = [v for v in call.operands if v is not None]
    items = [translator.lookup(v) for v in operands]
    match call.kind:
        case "MatMul" | "Einsum":
            return _scores(call, items)
        case kind if kind in SAME:
            return pairs_of(translator, operands[0], deep - 1)
        case "Neg":
            return _times(translator, pairs_of(translator, operands[0], deep - 1), Known(np.asarray(-1.0)))
        case "Transpose":
            found, order = pairs_of(translator, operands[0], deep - 1), call.attrs.get("perm")
            return found and [replace(p, result="".join(p.result[i] for i in order or _turned(p))) for p in found]
        case "Add" | "Sub":
            return _sum(translator, call.kind, operands, items, deep - 1)
        case "Mul" | "Div":
            place = 0 if isinstance(items[0], Raw) else 1
            counted = translator.dynamic and isinstance(items[1 - place], Known)
            factor = (as_length(translator, operands[1 - place]) if counted else None) or items[1 - place]
            if (call.kind == "Div" and place) or not isinstance(factor, Flow | Known):
                return None
            return _times(
                translator, pairs_of(translator, operands[place], deep - 1), _inverse(translator, call.kind, factor)
            )
    return None


def _turned(pair: Pair) -> list[int]:
    return list(range(len(pair.result)))[::-1]


def _inverse(translator: Surroundings, kind: str, factor: Flow | Known) -> Flow | Known:
    if kind == "Mul":
        return factor
    if isinstance(factor, Known):
        return Known(1.0 / np.asarray(factor.array))
    found: Flow | Known = unary(translator.builder, "reciprocal", factor)
    return found


def _scores(call: Call, items: Sequence[Any]) -> list[Pair] | None:
    if len(items) != 2 or not all(isinstance(i, Flow) and is_plain(i) and i.axes.count("t") == 1 for i in items):
        return None
    terms, result = _terms(call, items)
    row, col = (term[item.axes.index("t")] for term, item in zip(terms, items, strict=True))
    if row == col or row not in result or col not in result or len(set(result)) != len(result):
        return None
    return [Pair(items[0], items[1], (terms[0], terms[1]), result, row, col)]


def _sum(
    translator: Surroundings, kind: str, operands: Sequence[Value], items: Sequence[Any], deep: int
) -> list[Pair] | None:
    """Pairs and numbers, which are what is the same for all steps: a pair of ones."""
    parts: list[list[Pair] | None] = []
    for value, item in zip(operands, items, strict=True):
        parts.append(pairs_of(translator, value, deep))
        if parts[-1] is None and not isinstance(item, Known):
            return None
    like = next((part[0] for part in parts if part), None)
    total: list[Pair] = []
    for k, (part, item) in enumerate(zip(parts, items, strict=True)):
        sign = Known(np.asarray(-1.0 if kind == "Sub" and k else 1.0))
        if part is None and like is not None and isinstance(item, Known) and np.size(item.stored) == 1:
            ones = [_ones(translator, like, side) for side in (0, 1)]
            part = [replace(like, left=ones[0], right=ones[1], terms=(like.row, like.col))]
            sign = Known(sign.array * np.asarray(item.array).reshape(()))
        if part is None:
            return None
        total += part if float(sign.array) == 1.0 else _times(translator, part, sign) or []
    return total if len(total) <= MOST else None


def _ones(translator: Surroundings, like: Pair, side: int) -> Flow:
    flow = (like.left, like.right)[side]
    value = translator.builder.stream(np.ones(()), flow.value)
    return Flow(value, "t", (flow.shape[flow.axes.index("t")],))


def _times(translator: Surroundings, pairs: Sequence[Pair] | None, factor: Flow | Known) -> list[Pair] | None:
    """The pairs with what they are multiplied with, element by element, on the side whose steps it follows."""
    found = []
    for pair in pairs or ():
        count = len(factor.shape)
        if count > len(pair.result):
            return None
        term = pair.result[len(pair.result) - count :]
        sizes = dict(zip(term, factor.shape, strict=True))
        if sizes.get(pair.row, 1) > 1 and sizes.get(pair.col, 1) > 1:
            return None  # a mask, or a decay
        side = int(sizes.get(pair.col, 1) > 1)
        own, inner = ((pair.left, pair.terms[0]), (pair.right, pair.terms[1]))[side]
        small, letters = _without_ones(translator, factor, term)
        wanted = "".join(dict.fromkeys(inner + letters))
        try:
            made = einsum(translator.builder, [inner, letters], wanted, [own, small])
        except Unsupported:
            return None
        assert isinstance(made, Flow)
        terms = (pair.terms[0], wanted) if side else (wanted, pair.terms[1])
        found.append(replace(pair, terms=terms, right=made) if side else replace(pair, terms=terms, left=made))
    return found or None


def _without_ones(translator: Surroundings, item: Flow | Known, term: str) -> tuple[Flow | Known, str]:
    """A tensor without its feature axes of size one, and the letters that are left."""
    axes = item.axes if isinstance(item, Flow) else "f" * len(term)
    kept = [i for i, (a, d) in enumerate(zip(axes, item.shape, strict=True)) if a != "f" or d != 1]
    shape, letters = tuple(item.shape[i] for i in kept), "".join(term[i] for i in kept)
    if isinstance(item, Known):
        return Known(np.asarray(item.stored).reshape(shape)), letters
    labels = "".join(axes[i] for i in kept)
    features = tuple(d for d, a in zip(shape, labels, strict=True) if a == "f")
    value = translator.builder.reshape(item.value, features)
    assert isinstance(value, Value)
    return Flow(value, labels, shape), letters


def _terms(call: Call, items: Sequence[Any]) -> tuple[list[str], str]:
    if call.kind == "Einsum":
        return einsum_terms(call, items)
    return product_terms([len(item.shape) for item in items])


def _shape(translator: Surroundings, value: Value | None) -> tuple[int, ...]:
    return tuple(sampled(translator, value).shape)
