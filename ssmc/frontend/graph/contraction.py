"""Products that sum over axes, all of them one form: an einsum of labelled tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Unsupported, is_stream, known_along, known_operand, wrap
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import widened


def einsum(builder: Builder, terms: Sequence[str], result: str, items: Sequence[Flow | Known]) -> Flow | Known:
    """`terms -> result` of one or two tensors, a letter for each ONNX axis.

    Raises TimeMixing where steps are summed, Unsupported where samples are.
    """
    labels, sizes = _labels(builder, terms, items)
    summed = [x for x in labels if x not in result]
    for x in summed:
        if labels[x] == "t":
            raise TimeMixing("it sums over time")
        if labels[x] == "b":
            raise Unsupported("it sums over the batch")
    shape, axes = tuple(sizes[x] for x in result), "".join(labels[x] for x in result)
    if axes.count("t") > 1:
        raise TimeMixing("every step meets every other (attention)")
    if axes.count("b") > 1:
        raise Unsupported("every sequence of a batch meets every other")
    like = next((i.value for i in items if isinstance(i, Flow) and is_stream(builder, i)), None)
    spelled: list[tuple[str, Operand]] = []
    for term, item in zip(terms, items, strict=True):
        letters = "".join(x for x in term if labels[x] == "f")
        if isinstance(item, Known):
            array = np.asarray(item.stored)
            spelled.append((letters, known_operand(builder, array, "".join(labels[x] for x in term), like)))
            continue
        kept = [d for d, x in zip(item.shape, term, strict=True) if labels[x] == "f"]
        spelled.append((letters, builder.reshape(item.value, tuple(kept))))
    wanted = "".join(x for x in result if labels[x] == "f")
    if len(spelled) == 1:
        found = _alone(builder, *spelled[0], wanted)
    else:
        found = _product(builder, spelled[0], spelled[1], wanted)
    return wrap(builder.broadcast(found, tuple(sizes[x] for x in wanted)), axes, shape)


def _labels(
    builder: Builder, terms: Sequence[str], items: Sequence[Flow | Known]
) -> tuple[dict[str, str], dict[str, int]]:
    labels: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for term, item in zip(terms, items, strict=True):
        for i, x in enumerate(term):
            sizes[x] = max(sizes.get(x, 1), item.shape[i])
            own = item.axes[i] if isinstance(item, Flow) else "f"
            before = labels.get(x, "f")
            if {own, before} == {"b", "t"}:
                raise Unsupported("the batch axis of one operand meets the time axis of another")
            labels[x] = own if own != "f" else before
    for term, item in zip(terms, items, strict=True):
        for i, x in enumerate(term):
            if isinstance(item, Flow) and item.axes[i] == "f" and labels[x] != "f" and item.shape[i] != 1:
                raise TimeMixing("a feature axis meets the batch or the time axis")
    flows = [item for item in items if isinstance(item, Flow)]
    if "t" in labels.values() and any(is_stream(builder, flow) and "t" not in flow.axes for flow in flows):
        raise TimeMixing("one step meets a whole sequence")
    return labels, sizes


def _alone(builder: Builder, letters: str, x: Operand, wanted: str) -> Operand:
    if len(set(letters)) != len(letters):
        raise Unsupported("it takes a diagonal")
    summed = tuple(i - len(letters) for i, c in enumerate(letters) if c not in wanted)
    if summed:
        x = builder.emit("reduce", [x], fn="sum", axes=summed, keepdims=False)
        letters = "".join(c for c in letters if c in wanted)
    return builder.transpose(x, [letters.index(c) for c in wanted])


def _product(builder: Builder, first: tuple[str, Operand], second: tuple[str, Operand], wanted: str) -> Operand:
    for own, other in ((first, second), (second, first)):
        if not isinstance(own[1], Value) and isinstance(other[1], Value):
            return _by_constant(builder, other, (own[0], own[1]), wanted)
    (p, a), (q, b) = first, second
    common = [c for c in p if c in q and c not in wanted]
    if not common and all(c in wanted for c in p + q):
        return _outer(builder, first, second, wanted)
    a, p = _drop_ones(builder, p, a, q, b)
    b, q = _drop_ones(builder, q, b, p, a)
    used = "".join(c for c in wanted if c in p + q)
    found = builder.emit("contract", [a, b], equation=f"{_spell(p, p + q)},{_spell(q, p + q)}->{_spell(used, p + q)}")
    return _insert(builder, found, used, wanted)


def _spell(term: str, alphabet: str) -> str:
    """Letters in the plain alphabet that the op `contract` reads."""
    order = list(dict.fromkeys(alphabet))
    return "".join(chr(ord("a") + order.index(c)) for c in term)


def _insert(builder: Builder, x: Operand, have: str, wanted: str) -> Operand:
    """Axes of size one for the letters that are missing."""
    sizes = dict(zip(have, builder.features(x), strict=True))
    return builder.reshape(x, tuple(sizes.get(c, 1) for c in wanted))


def _drop_ones(builder: Builder, p: str, a: Operand, q: str, b: Operand) -> tuple[Operand, str]:
    """Leave out axes of size one that meet larger ones."""
    sizes, others = builder.features(a), dict(zip(q, builder.features(b), strict=True))
    kept = [i for i, c in enumerate(p) if not (sizes[i] == 1 and others.get(c, 1) != 1)]
    return builder.reshape(a, tuple(sizes[i] for i in kept)), "".join(p[i] for i in kept)


def _outer(builder: Builder, first: tuple[str, Operand], second: tuple[str, Operand], wanted: str) -> Operand:
    """No sum: a product with broadcasting."""
    spread = []
    for letters, x in (first, second):
        inside = [c for c in wanted if c in letters]
        x = builder.transpose(x, [letters.index(c) for c in inside])
        spread.append(_insert(builder, x, "".join(inside), wanted))
    return builder.binary("mul", spread[0], spread[1])


def _by_constant(builder: Builder, flow: tuple[str, Operand], constant: tuple[str, Array], wanted: str) -> Operand:
    """A computed tensor times a constant: `linear` where it is a matrix, else an elementwise or batched product."""
    (p, x), (q, weight) = flow, constant
    for axis in reversed(range(weight.ndim)):  # a weight that is the same along a kept axis is not batched over it
        if q[axis] in p and q[axis] in wanted:
            same = known_along(weight, axis)
            if same is not None:
                weight, q = same, q[:axis] + q[axis + 1 :]
    loose = "".join(c for c in q if c not in p and c not in wanted)  # summed in the weight alone
    if loose:
        weight = np.einsum(f"{_spell(q, q)}->{_spell(''.join(c for c in q if c not in loose), q)}", widened(weight))
        q = "".join(c for c in q if c not in loose)
    own = "".join(c for c in p if c not in q and c not in wanted)  # summed in the flow alone
    if own:
        x = builder.emit("reduce", [x], fn="sum", axes=tuple(p.index(c) - len(p) for c in own), keepdims=False)
        p = "".join(c for c in p if c not in own)
    summed = "".join(c for c in p if c in q and c not in wanted)
    batched = "".join(c for c in p if c in q and c in wanted)
    if not summed:
        return _outer(builder, (p, x), (q, weight), wanted)
    if batched:
        return _batched(builder, (p, x), (q, weight), wanted)
    kept, new = "".join(c for c in p if c not in q), "".join(c for c in q if c not in p)
    sizes = dict(zip(p + q, builder.features(x) + weight.shape, strict=True))
    x = builder.transpose(x, [p.index(c) for c in kept + summed])
    x = builder.reshape(x, (*(sizes[c] for c in kept), prod(sizes[c] for c in summed)))
    matrix = np.transpose(weight, [q.index(c) for c in summed + new]).reshape(prod(sizes[c] for c in summed), -1)
    y = builder.linear(x, matrix)
    y = builder.reshape(y, tuple(sizes[c] for c in kept + new))
    have = kept + new
    inside = [c for c in wanted if c in have]
    y = builder.transpose(y, [have.index(c) for c in inside])
    return _insert(builder, y, "".join(inside), wanted)


def _batched(builder: Builder, flow: tuple[str, Operand], constant: tuple[str, Array], wanted: str) -> Operand:
    (p, x), (q, weight) = flow, constant
    used = "".join(c for c in wanted if c in p + q)
    equation = f"{_spell(p, p + q)},{_spell(q, p + q)}->{_spell(used, p + q)}"
    return _insert(builder, builder.emit("contract", [x, weight], equation=equation), used, wanted)
