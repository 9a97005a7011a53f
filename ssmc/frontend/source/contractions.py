"""Einstein sums: of two operands as matrix products of what these hold already, where numpy would first copy them."""

from __future__ import annotations

from math import prod

import numpy as np

from ssmc.ir.op import Array

LARGE = 1 << 12  # products in each matrix product, for which it is worth one (ours)


def einsum(equation: str, *arrays: Array) -> Array:
    """`numpy.einsum`."""
    found = _product(equation.replace(" ", ""), *arrays) if len(arrays) == 2 else None
    return np.asarray(np.einsum(equation, *arrays, optimize=True)) if found is None else found


def _product(equation: str, a: Array, b: Array) -> Array | None:
    """The sum as a matrix product for each index of the axes that both operands and the result have; None where it is
    none, or where these are small."""
    terms, arrow, result = equation.partition("->")
    left, _, right = terms.partition(",")
    if not arrow or "." in terms or any(len(set(term)) < len(term) for term in (left, right, result)):
        return None
    if a.dtype != np.float64 or b.dtype != np.float64 or (len(left), len(right)) != (a.ndim, b.ndim):
        return None
    sizes = dict(zip(left, a.shape, strict=True)) | dict(zip(right, b.shape, strict=True))
    outer = [c for c in result if c in left and c in right]
    rows, columns = (
        [c for c in result if c in one and c not in other] for one, other in ((left, right), (right, left))
    )
    inner = [c for c in left if c in right and c not in result]
    every = {*outer, *rows, *columns, *inner}
    if (
        every != {*left, *right}
        or not {*result} <= every
        or any(sizes[c] != n for c, n in zip(left, a.shape, strict=True))
    ):
        return None
    high, deep, wide = (prod(sizes[c] for c in some) for some in (rows, inner, columns))
    if high * deep * wide < LARGE:
        return None
    found = np.empty([sizes[c] for c in result])
    each = [sizes[c] for c in outer]
    target = found.transpose([result.index(c) for c in (*outer, *rows, *columns)]).reshape(*each, high, wide)
    if not np.may_share_memory(target, found):  # its axes do not stand beside each other
        return None
    x = a.transpose([left.index(c) for c in (*outer, *rows, *inner)]).reshape(*each, high, deep)
    y = b.transpose([right.index(c) for c in (*outer, *inner, *columns)]).reshape(*each, deep, wide)
    np.matmul(x, y, out=target)
    return found
