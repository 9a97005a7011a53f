"""A contraction with a constant as the sparse matrix that it is."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ssmc.ir.op import Array

MOST = 1 << 22  # products that are written out, which bounds the memory (ours)


def contraction_matrix(equation: str, constant: int, weight: Array, shape: Sequence[int]) -> Any:
    """The matrix (outputs, inputs) of `contract` for its stream of `shape`, operand number `constant` being `weight`.

    None where a letter stands twice in a term or the products are more than `MOST`; entries that are zero are left out.
    """
    terms, _, result = equation.partition("->")
    names = terms.split(",")
    fixed, moving = names[constant], names[1 - constant]
    sizes = {**dict(zip(moving, shape, strict=True)), **dict(zip(fixed, weight.shape, strict=True))}
    if len(names) != 2 or any(len(set(name)) != len(name) for name in (*names, result)):
        return None
    held = np.nonzero(weight)
    free = [letter for letter in sizes if letter not in fixed]
    copies = prod(sizes[letter] for letter in free)
    if held[0].size * copies > MOST:
        return None
    beside = np.indices([sizes[letter] for letter in free]).reshape(len(free), copies)
    place = {
        **{letter: np.repeat(index, copies) for letter, index in zip(fixed, held, strict=True)},
        **{letter: np.tile(index, held[0].size) for letter, index in zip(free, beside, strict=True)},
    }

    def number(letters: str) -> Array:
        if not letters:
            return np.zeros(held[0].size * copies, np.int64)
        found: Array = np.ravel_multi_index([place[n] for n in letters], [sizes[n] for n in letters])
        return found

    entries = (np.repeat(weight[held], copies), (number(result), number(moving)))
    return sparse.csr_array(entries, shape=(prod(sizes[n] for n in result), prod(shape)))
