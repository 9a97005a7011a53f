"""Of which numbers other numbers are sums: found by feeding random ones, a part of a tensor at a time.

Where a number is a multiple of one fed number at most, the quotients of its responses to two draws tell which, and how
much of it. Of tensors where it is the sum of several, only a slice along one axis is fed at a time, or each number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssmc.frontend.graph.flow import Unsupported
from ssmc.frontend.states.grids import as_stored
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

TOLERANCE = 1e-9
DIGITS = 1e-12  # that are left of a weight
MOST = 4096  # numbers fed one by one
NOT_LINEAR = "but for that it is not linear in the state"

# feed -> what targets are, where all that is not fed is zero
Run = Callable[[Mapping[Value, Array]], Mapping[Value, Array]]


@dataclass(frozen=True, eq=False)
class Couplings:
    """Terms of the numbers of a target, by target: (number, fed tensor, number of it, weight) rows, by number."""

    terms: Mapping[Value, Sequence[tuple[int, Value, int, float]]]
    base: Mapping[Value, Array]


def find_couplings(run: Run, fed: Mapping[Value, tuple[int, ...]], rng: np.random.Generator) -> Couplings:
    """What the targets of `run` are made of; `fed` are tensors by shape. Raises Unsupported where it is not linear."""
    base = run({})
    terms: dict[Value, list[tuple[int, Value, int, float]]] = {target: [] for target in base}
    for value, shape in fed.items():
        for part in _parts(run, base, value, shape, rng):
            for target, (number, source, weight) in part.items():
                rows = zip(number.tolist(), source.tolist(), as_stored(weight).tolist(), strict=True)
                terms[target] += [(k, value, j, w) for k, j, w in rows]
    return Couplings({target: sorted(rows, key=lambda row: row[0]) for target, rows in terms.items()}, base)


Found = dict[Value, tuple[Array, Array, Array]]


def _parts(
    run: Run, base: Mapping[Value, Array], value: Value, shape: tuple[int, ...], rng: np.random.Generator
) -> Iterator[Found]:
    """Terms with one tensor, found in as few goes as it takes."""
    size = int(np.prod(shape))
    numbers = np.arange(size).reshape(shape)
    whole = _one_each(run, base, value, numbers, shape, rng)
    if whole is not None:
        yield whole
        return
    for axis in sorted(range(len(shape)), key=lambda axis: (shape[axis] == 1, -axis)):
        slices = [np.take(numbers, j, axis=axis) for j in range(shape[axis])]
        first = _one_each(run, base, value, slices[0], shape, rng)
        last = _one_each(run, base, value, slices[-1], shape, rng)
        if first is None or last is None or shape[axis] == 1:
            continue
        found = [_one_each(run, base, value, part, shape, rng) for part in slices]
        if all(part is not None for part in found):
            yield from (part for part in found if part is not None)
            return
    if size > MOST:
        raise Unsupported(f"more than {MOST} of its states are mixed by a matrix of no known structure")
    for k in range(size):
        part = _one_each(run, base, value, numbers.reshape(-1)[k : k + 1], shape, rng)
        if part is None:
            raise Unsupported(NOT_LINEAR)
        yield part


def _one_each(
    run: Run, base: Mapping[Value, Array], value: Value, among: Array, shape: tuple[int, ...], rng: np.random.Generator
) -> Found | None:
    """Terms with some numbers of a tensor, where no number has two of these; None where one has."""
    among = among.reshape(-1)
    draws = [rng.uniform(0.5, 1.5, len(among)) * rng.choice([-1.0, 1.0], len(among)) for _ in range(3)]
    answers = []
    for draw in draws:
        tensor = np.zeros(int(np.prod(shape)))
        tensor[among] = draw
        answers.append(run({value: tensor.reshape(shape)}))
    ratios = draws[0] / draws[1]
    order = np.argsort(ratios)
    found: Found = {}
    for target, rest in base.items():
        rest = rest.reshape(-1)
        a, b, c = (np.asarray(answer[target]).reshape(-1) - rest for answer in answers)
        slack = DIGITS * max(1.0, float(np.abs(rest).max(initial=0.0)))
        moved = np.flatnonzero((np.abs(a) > slack) | (np.abs(b) > slack) | (np.abs(c) > slack))
        if not len(moved):
            continue
        if np.any(b[moved] == 0):
            return None
        wanted = a[moved] / b[moved]
        at = np.clip(np.searchsorted(ratios[order], wanted), 1, max(1, len(order) - 1))
        near = np.stack([order[np.minimum(at, len(order) - 1)], order[at - 1]])
        choice = near[np.argmin(np.abs(ratios[near] - wanted), axis=0), np.arange(len(moved))]
        weight = a[moved] / draws[0][choice]
        size = np.abs(weight)
        for draw, answer in zip(draws, (a, b, c), strict=True):
            if np.any(np.abs(weight * draw[choice] - answer[moved]) > TOLERANCE * size + slack):
                return None
        found[target] = moved, among[choice], weight
    return found
