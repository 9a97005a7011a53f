"""Complex arithmetic in real numbers: what `tile` makes of the ops around the systems."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmc.ir import Node, Tensor, Value
from ssmc.passes.pieces import Block
from ssmc.passes.tiling import Halves, Tiling, copy_op, even


def tile_linear(t: Tiling, node: Node) -> None:
    """`y = x W + b` as one real product: `[re | im] [[Wr, Wi], [-Wi, Wr]]`; only the half that somebody reads."""
    x = t.source.operand(node.name, 0)
    weight, bias = node.op["weight"], node.op["bias"]
    result = Value(node.name)
    if not (t.is_complex(x) or weight.is_complex or (bias is not None and bias.is_complex)):
        t.real[result] = t.matmul(node, t.real[x], weight, bias=bias)
        return
    w = weight.array
    rows, cols = w.shape
    b = np.zeros(cols) if bias is None else bias.array
    wanted = {t.source.op(user).name for user, _ in t.source.users(result)}
    columns = {"re": np.vstack([w.real, -w.imag]), "im": np.vstack([w.imag, w.real])}
    biases = {"re": b.real, "im": b.imag}
    sides = ["re"] if wanted == {"real"} else ["im"] if wanted == {"imag"} else ["re", "im"]
    matrix = np.hstack([columns[side] for side in sides])
    blocks: list[Block] = [
        (k, k + rows, n, n + cols) for n in range(0, matrix.shape[1], cols) for k in range(0, 2 * rows, rows)
    ]
    z = t.parts(x, node)
    if z.is_real:
        matrix, blocks = matrix[:rows], [block for block in blocks if block[0] == 0]
    source = z.real_part() if z.is_real else z.joined()
    shift = np.concatenate([biases[side] for side in sides])
    y = t.matmul(node, source, matrix, bias=Tensor(shift) if shift.any() else None, blocks=blocks)
    whole = y if len(sides) == 2 else None
    t.pairs[result] = Halves(t, node, y if sides == ["re"] else None, y if sides == ["im"] else None, whole)


def _partwise(t: Tiling, node: Node) -> None:
    """An op that is linear over the reals in its first operand, applied to each part; others are real."""
    first, *others = t.source.operands(node.name)
    assert first is not None
    z = t.parts(first, node)
    kind = t.source.type(first)
    rest = [None if v is None else t.parts(v, node).real_part() for v in others]
    parts = [
        even(t, node, part, kind, z) for part in ((z.real_part(),) if z.is_real else (z.real_part(), z.imag_part()))
    ]
    made = [copy_op(t, node, [part, *rest], suffix) for part, suffix in zip(parts, (".re", ".im"), strict=False)]
    t.pairs[Value(node.name)] = Halves(t, node, *made)


def _linear_kind(t: Tiling, node: Node) -> None:
    """Pooling, downsampling and reducing are linear unless they take an extreme or a product."""
    kind = node.op.get("kind") or node.op.get("fn")
    if kind in ("max", "min", "prod"):
        raise t.refuse(node, f"'{node.op.name}' by '{kind}' has no meaning for complex values")
    if len(t.source.operands(node.name)) > 1 and t.is_complex(t.source.operand(node.name, 1)):
        raise t.refuse(node, "the weights of a mean must be real")
    _partwise(t, node)


def _concat(t: Tiling, node: Node) -> None:
    values = [v for v in t.source.operands(node.name) if v is not None]
    pairs = [t.parts(v, node) for v in values]
    kinds = [t.source.type(v) for v in values]
    sides = ([p.real_part() for p in pairs], [p.imag_part() for p in pairs])
    made = []
    for side, suffix in zip(sides, (".re", ".im"), strict=True):
        parts = [even(t, node, v, kind, pair) for v, kind, pair in zip(side, kinds, pairs, strict=True)]
        made.append(copy_op(t, node, parts, suffix))
    t.pairs[Value(node.name)] = Halves(t, node, *made)


def _unary(t: Tiling, node: Node) -> None:
    z = t.parts(t.source.operand(node.name, 0), node)
    t.pairs[Value(node.name)] = _apply(t, node, node.op["fn"], z)


def _apply(t: Tiling, node: Node, fn: str, z: Halves) -> Halves:
    """fn(z) in parts. Raises UserError where no formula is known."""
    re, im = z.real_part(), z.imag_part()

    def squared(part: Value, suffix: str) -> Value:
        return t.unary(node, "square", part, suffix)

    match fn:
        case "identity" | "neg":
            return Halves(t, node, t.unary(node, fn, re, ".re"), t.unary(node, fn, im, ".im"))
        case "exp":  # e^a (cos b + i sin b)
            size = t.unary(node, "exp", re, ".size")
            turned = [t.unary(node, f, im, f".{f}") for f in ("cos", "sin")]
            return Halves(t, node, *(t.binary(node, "mul", size, part, ".part") for part in turned))
        case "square":
            cross = t.binary(node, "mul", re, im, ".cross")
            real = t.binary(node, "sub", squared(re, ".re2"), squared(im, ".im2"), ".re")
            return Halves(t, node, real, t.binary(node, "add", cross, cross, ".im"))
        case "abs":
            power = t.binary(node, "add", squared(re, ".re2"), squared(im, ".im2"), ".power")
            return Halves(t, node, t.unary(node, "sqrt", power))
        case "reciprocal":  # conj(z) / |z|^2
            power = t.binary(node, "add", squared(re, ".re2"), squared(im, ".im2"), ".power")
            opposite = t.unary(node, "neg", im, ".opposite")
            return Halves(
                t, node, t.binary(node, "div", re, power, ".re"), t.binary(node, "div", opposite, power, ".im")
            )
    raise t.refuse(
        node,
        f"no form in real numbers is known for '{fn}' of a complex value",
        hint="apply it to the real and imaginary parts, or use identity, neg, exp, square, abs, reciprocal",
    )


def _binary(t: Tiling, node: Node) -> None:
    a, b = (t.parts(t.source.operand(node.name, slot), node) for slot in (0, 1))
    match node.op["fn"]:
        case "add" | "sub":
            result = _sum(t, node, node.op["fn"], a, b)
        case "mul":
            result = _product(t, node, a, b)
        case "div" if b.is_real:
            parts = (a.real_part(), a.imag_part())
            result = Halves(t, node, *(t.binary(node, "div", part, b.real_part(), ".part") for part in parts))
        case "div":
            result = _product(t, node, a, _apply(t, node, "reciprocal", b))
        case fn:
            raise t.refuse(node, f"'{fn}' has no meaning for complex values")
    t.pairs[Value(node.name)] = result


def _sum(t: Tiling, node: Node, fn: str, a: Halves, b: Halves) -> Halves:
    re = t.binary(node, fn, a.real_part(), b.real_part(), ".re")
    if a.is_real or b.is_real:
        other = a if b.is_real else b
        part = other.imag_part()
        return Halves(t, node, re, t.unary(node, "neg", part, ".im") if a.is_real and fn == "sub" else part)
    return Halves(t, node, re, t.binary(node, fn, a.imag_part(), b.imag_part(), ".im"))


def _product(t: Tiling, node: Node, a: Halves, b: Halves) -> Halves:
    """A bilinear op on complex operands: `binary` mul, or `contract`."""

    def times(x: Value, y: Value, suffix: str) -> Value:
        if node.op.name == "contract":
            return copy_op(t, node, [x, y], suffix)
        return t.binary(node, "mul", x, y, suffix)

    ar, br = a.real_part(), b.real_part()
    if a.is_real or b.is_real:
        im = times(ar, b.imag_part(), ".im") if a.is_real else times(a.imag_part(), br, ".im")
        return Halves(t, node, times(ar, br, ".re"), im)
    ai, bi = a.imag_part(), b.imag_part()
    re = t.binary(node, "sub", times(ar, br, ".rr"), times(ai, bi, ".ii"), ".re")
    return Halves(t, node, re, t.binary(node, "add", times(ar, bi, ".ri"), times(ai, br, ".ir"), ".im"))


def _contract(t: Tiling, node: Node) -> None:
    a, b = (t.parts(t.source.operand(node.name, slot), node) for slot in (0, 1))
    t.pairs[Value(node.name)] = _product(t, node, a, b)


def _gate(t: Tiling, node: Node) -> None:
    a, b = (t.parts(t.source.operand(node.name, slot), node) for slot in (0, 1))
    if b.is_real:
        parts = [copy_op(t, node, [part, b.real_part()], ".part") for part in (a.real_part(), a.imag_part())]
        t.pairs[Value(node.name)] = Halves(t, node, *parts)
    else:
        t.pairs[Value(node.name)] = _product(t, node, a, _apply(t, node, node.op["fn"], b))


def _select(t: Tiling, node: Node) -> None:
    condition, a, b = (t.parts(t.source.operand(node.name, slot), node) for slot in (0, 1, 2))
    if not condition.is_real:
        raise t.refuse(node, "a condition must be real")
    sides = ((a.real_part(), b.real_part()), (a.imag_part(), b.imag_part()))
    parts = [t.emit(node, "select", [condition.real_part(), *side], ".part") for side in sides]
    t.pairs[Value(node.name)] = Halves(t, node, *parts)


COMPLEX_RULES: dict[str, Callable[[Tiling, Node], None]] = {
    **dict.fromkeys(("reshape", "slice", "take", "transpose", "broadcast", "reverse", "delay", "spread"), _partwise),
    **dict.fromkeys(("pool", "downsample", "reduce"), _linear_kind),
    "concat": _concat,
    "unary": _unary,
    "binary": _binary,
    "contract": _contract,
    "gate": _gate,
    "select": _select,
}
