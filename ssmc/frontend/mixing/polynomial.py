"""Attention whose weights are a polynomial of the scores: (q k)^2, or 1 + s + s^2/2 (ReBased, Based).

It is linear attention over products of features (Based, arXiv 2402.18668, section 4.1; ReBased, arXiv 2402.10644)::

    sum_s g[t, s] p(q_t . k_s) v_s = sum_s g[t, s] (phi(q_t) . psi(k_s)) v_s,   p(x) = sum_d c_d x^d

where phi and psi hold all products of d entries, each once, with weights whose product is c_d times how often it
occurs. The weights of the file are found by running it at equal scores everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import comb, factorial, prod

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow, Known, Raw, Unsupported
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.varying import explain_varying
from ssmc.frontend.rules.matrix import einsum_terms, product_terms
from ssmc.frontend.rules.merged import is_plain
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor

POINTWISE = frozenset(["Add", "Sub", "Mul", "Div", "Pow", "Neg", "Cast", "Identity", "Where", "Trilu"])
PRODUCTS = ("MatMul", "Einsum")
DEGREE = 4  # of a polynomial (ours)
POINTS = 2 * np.cos(np.pi * (np.arange(2 * DEGREE + 1) + 0.5) / (2 * DEGREE + 1))  # scores that tell it
EXACT = 1e-6  # relative: coefficients are stored in float32
MOST = 1 << 18  # states that it may take (ours)


@dataclass(frozen=True, eq=False)
class _Weights:
    """The scores of a region, what its file makes of them, and how: `weights` = gain * p(`scores`)."""

    scores: Call
    terms: tuple[str, str]
    result: str
    weights: Value
    gain: Array
    coefficients: Array  # of p, the constant first


def is_of_scores(translator: Translator, value: Value) -> bool:
    """Is a value made of the products of two streams alone, each step with each other, and of constants?"""
    while (call := translator.listing.producer.get(value)) is not None and call.kind in POINTWISE:
        raw = {v for v in call.operands if v is not None and not isinstance(translator.lookup(v), Known)}
        if len(raw) != 1:
            return False
        (value,) = raw
    return call is not None and _terms(translator, call) is not None


def is_made_of_scores(translator: Translator, value: Value) -> bool:
    """Is there a product of two streams, or of what mixes them, behind a value that mixes time?"""
    waiting, seen = [value], {value}
    while waiting:
        call = translator.listing.producer.get(waiting.pop())
        items = [] if call is None else [None if v is None else translator.lookup(v) for v in call.operands]
        if call is not None and call.kind in PRODUCTS and sum(isinstance(i, Raw | Flow) for i in items) > 1:
            return True
        raw = {v for v, i in zip(call.operands, items, strict=True) if v and isinstance(i, Raw)} if call else set()
        waiting += raw - seen
        seen |= raw
    return False


def explain_polynomial(translator: Translator, region: Region) -> Flow | None:
    """The target of a region as linear attention over products of features, or None.

    Raises Unsupported where these are too many.
    """
    found = _weights(translator, region)
    if found is None:
        return None
    behind = translator.listing.needed([region.target], {found.weights, *region.entries})
    rest = [v for v in region.entries if any(v in call.operands for call in behind)]
    _require_few(translator, found, rest)
    streams = [v for v in found.scores.operands if v is not None]
    axes = [term.index(_summed(found)) for term in found.terms]
    scales = [_scale(found, k) for k in range(2)]
    sources = [f for v in streams if isinstance(f := translator.lookup(v), Flow)]
    flows = [_products(translator, f, a, s) for f, a, s in zip(sources, axes, scales, strict=True)]
    flows += [f for v in rest if isinstance(f := translator.lookup(v), Flow)]
    if not all(is_plain(flow) for flow in flows):
        return None

    def run(arrays: Sequence[Array]) -> Array:
        scores = np.einsum(f"{','.join(found.terms)}->{found.result}", *arrays[:2])
        given = {**region.known, **dict(zip(rest, arrays[2:], strict=True)), found.weights: found.gain * scores}
        return np.asarray(evaluate(translator.listing, given, [region.target])[region.target]).reshape(region.shape)

    samples = []
    for point in range(len(translator.samples.points)):
        seen = translator.samples.at(point, [*streams, *rest])
        made = [_of_array(np.asarray(seen[v]), a, s) for v, a, s in zip(streams, axes, scales, strict=True)]
        samples.append((*made, *(np.asarray(seen[v], np.float64) for v in rest)))
    entries = (*streams, *rest)
    return explain_varying(
        translator, replace(region, entries=entries, flows=tuple(flows), run=run, samples=tuple(samples))
    )


# -- what the file makes of the scores ---------------------------------------------------------------------


def _terms(translator: Translator, call: Call) -> tuple[list[str], str] | None:
    """The product of two streams over one feature axis, every step with every other, as an einsum."""
    items = [None if v is None else translator.lookup(v) for v in call.operands]
    if call.kind not in PRODUCTS or len(items) != 2 or not all(isinstance(i, Flow) and is_plain(i) for i in items):
        return None
    flows = [i for i in items if isinstance(i, Flow)]
    if any(flow.axes.count("t") != 1 for flow in flows):
        return None
    terms, result = einsum_terms(call, flows) if call.kind == "Einsum" else product_terms([len(f.shape) for f in flows])
    times = [term[flow.axes.index("t")] for term, flow in zip(terms, flows, strict=True)]
    summed = [c for c in terms[0] if c in terms[1] and c not in result]
    alone = [c for c in terms[0] + terms[1] if c not in result and c not in summed]
    if times[0] == times[1] or any(t not in result for t in times) or len(summed) != 1 or alone:
        return None
    return terms, result


def _weights(translator: Translator, region: Region) -> _Weights | None:
    for call in region.calls:
        spelled = _terms(translator, call)
        if spelled is None:
            continue
        scores = call.results[0]
        shape = translator.samples.shape(scores)
        made = {scores}
        last: set[Value] = set()
        for other in region.calls:
            inside = [v for v in other.operands if v in made]
            constant = all(v in made or isinstance(translator.lookup(v), Known) for v in other.operands if v)
            if inside and constant and other.kind in POINTWISE:
                made.add(other.results[0])
            elif inside:
                last.update(v for v in inside if v is not None)
        if region.target in made or len(last) != 1 or last == {scores}:
            continue
        (weights,) = last
        found = _polynomial(translator, region, scores, weights, shape)
        if found is not None:
            return _Weights(call, (spelled[0][0], spelled[0][1]), spelled[1], weights, *found)
    return None


def _polynomial(
    translator: Translator, region: Region, scores: Value, weights: Value, shape: tuple[int, ...]
) -> tuple[Array, Array] | None:
    """Gain and coefficients of a value as gain * p(scores)."""
    answers = np.stack(
        [
            np.asarray(evaluate(translator.listing, {**region.known, scores: np.full(shape, c)}, [weights])[weights])
            for c in POINTS
        ]
    )
    if answers.shape[1:] != shape or not np.isfinite(answers).all() or not np.any(answers):
        return None
    most = np.unravel_index(int(np.abs(answers).argmax()), answers.shape)
    gain = answers[most[0]] / answers[most]
    curve = answers.reshape(len(answers), -1)[:, np.ravel_multi_index(most[1:], shape)]
    scale = float(np.abs(answers).max())
    if np.abs(answers - gain * curve.reshape(-1, *[1] * len(shape))).max() > EXACT * scale:
        return None
    coefficients = np.polynomial.polynomial.polyfit(POINTS, curve, DEGREE)
    coefficients[np.abs(coefficients) <= EXACT * np.abs(coefficients).max()] = 0.0
    fitted = np.polynomial.polynomial.polyval(POINTS, coefficients)
    return (gain, coefficients) if np.abs(fitted - curve).max() <= EXACT * scale else None


# -- products of features ----------------------------------------------------------------------------------


def _summed(found: _Weights) -> str:
    return next(c for c in found.terms[0] if c in found.terms[1] and c not in found.result)


def _size(translator: Translator, found: _Weights) -> int:
    flow = translator.lookup(found.scores.operands[0])
    assert isinstance(flow, Flow)
    return flow.shape[found.terms[0].index(_summed(found))]


def _require_few(translator: Translator, found: _Weights, rest: Sequence[Value]) -> None:
    size = _size(translator, found)
    degrees = [d for d, c in enumerate(found.coefficients) if c]
    products = sum(comb(size + d - 1, d) for d in degrees)
    heads = [d for c, d in zip(found.result, found.gain.shape, strict=True) if _is_feature(translator, found, c)]
    flows = [f for v in rest if isinstance(f := translator.lookup(v), Flow)]
    states = products * max([prod(heads), *(prod(f.features) for f in flows)])
    if states > MOST:
        raise Unsupported(
            f"is attention by a polynomial of degree {max(degrees)} of the scores: sums over {products} products of "
            f"the {size} features of a query, {states} states in all (at most {MOST})"
        )


def _is_feature(translator: Translator, found: _Weights, letter: str) -> bool:
    for term, value in zip(found.terms, found.scores.operands, strict=True):
        flow = None if value is None else translator.lookup(value)
        if isinstance(flow, Flow) and letter in term:
            return flow.axes[term.index(letter)] == "f"
    return False


def _scale(found: _Weights, side: int) -> dict[int, float]:
    """By degree what its products are multiplied with, for the first or the second stream."""
    return {
        d: float(np.sqrt(abs(c))) * (float(np.sign(c)) if side else 1.0) for d, c in enumerate(found.coefficients) if c
    }


def _places(size: int, degree: int) -> tuple[Array, Array]:
    """Which entries each product takes (products, degree), and the root of how often it occurs in a power of a sum."""
    rows = list(combinations_with_replacement(range(size), degree))
    chosen = np.array(rows, np.int64).reshape(len(rows), degree)
    often = [factorial(degree) / prod(factorial(n) for n in np.unique(row, return_counts=True)[1]) for row in chosen]
    return chosen, np.sqrt(np.array(often, np.float64))


def _products(translator: Translator, flow: Flow, axis: int, scales: dict[int, float]) -> Flow:
    builder, size = translator.builder, flow.shape[axis]
    at = flow.from_right(axis)
    parts: list[Operand] = []
    for degree, scale in scales.items():
        chosen, often = _places(size, degree)
        weights = (scale * often).reshape(-1, *[1] * (-1 - at))
        made: Operand = weights if degree else np.broadcast_to(weights, _widened(flow.features, at, 1))
        for column in chosen.T:
            made = builder.binary("mul", made, builder.emit("take", [flow.value], axis=at, index=Tensor(column)))
        parts.append(made if isinstance(made, Value) else builder.stream(np.array(made), flow.value))
    value = builder.concat(parts, at)
    assert isinstance(value, Value)
    count = sum(len(_places(size, degree)[0]) for degree in scales)
    return Flow(value, flow.axes, (*flow.shape[:axis], count, *flow.shape[axis + 1 :]))


def _widened(shape: tuple[int, ...], at: int, size: int) -> tuple[int, ...]:
    place = len(shape) + at
    return (*shape[:place], size, *shape[place + 1 :])


def _of_array(array: Array, axis: int, scales: dict[int, float]) -> Array:
    """As `_products`, of numbers."""
    moved = np.moveaxis(np.asarray(array, np.float64), axis, -1)
    parts = []
    for degree, scale in scales.items():
        chosen, often = _places(moved.shape[-1], degree)
        parts.append(scale * often * moved[..., chosen].prod(axis=-1))
    return np.moveaxis(np.concatenate(parts, axis=-1), -1, axis)
