"""What multiplies the state: the matrix of x -> f(x), a black box that is affine in x, found by evaluating it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ssmc.ir.op import Array

TOLERANCE = 1e-9
MAX_DENSE = 1024

# x (batch, n) -> f(x) (batch, n)
Map = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Transition:
    """A (one per sample of the batch) in blocks: `index` (blocks, width) says which states a block holds.

    `matrices` is (batch, blocks, width, width). A pair is a block [[p, -q], [q, p]], the complex number p + iq.
    """

    index: NDArray[np.int64]
    matrices: Array
    offset: Array  # f(0), (batch, n)

    @property
    def width(self) -> int:
        return int(self.index.shape[1])

    @property
    def diagonal(self) -> Array:
        """(batch, n) of a diagonal transition, in the order of the states."""
        values = np.empty(self.offset.shape)
        values[:, self.index[:, 0]] = self.matrices[:, :, 0, 0]
        return values

    @property
    def complex_pairs(self) -> Array | None:
        """(batch, blocks) complex numbers, if every block is a pair."""
        m = self.matrices
        if self.width != 2:
            return None
        scale = np.abs(m).max(initial=0.0) or 1.0
        if np.abs(m[..., 0, 0] - m[..., 1, 1]).max(initial=0.0) > TOLERANCE * scale:
            return None
        if np.abs(m[..., 0, 1] + m[..., 1, 0]).max(initial=0.0) > TOLERANCE * scale:
            return None
        return np.asarray((m[..., 0, 0] + m[..., 1, 1]) / 2 + 0.5j * (m[..., 1, 0] - m[..., 0, 1]))

    def apply(self, x: Array) -> Array:
        """A x + f(0)."""
        y = np.array(self.offset)
        y[:, self.index.reshape(-1)] += np.einsum("bgij,bgj->bgi", self.matrices, x[:, self.index]).reshape(len(x), -1)
        return y

    def invariant(self, other: Transition) -> bool:
        """Do both have the same A, for every sample?"""
        first = self.matrices[:1]
        scale = max(float(np.abs(first).max(initial=0.0)), 1e-300)
        return all(
            bool(np.abs(m - first).max(initial=0.0) <= TOLERANCE * scale) for m in (self.matrices, other.matrices)
        )


def find_transition(
    f: Map, batch: int, shapes: Sequence[tuple[int, ...]], rng: np.random.Generator
) -> Transition | None:
    """The transition of `f` with the smallest blocks, or None where `f` is not affine (or of no known structure).

    `shapes` are the feature shapes of the tensors that the n states consist of.
    """
    n = sum(prod(shape) for shape in shapes)
    offset = f(np.zeros((batch, n)))
    if not np.isfinite(offset).all():
        return None
    probes = [rng.uniform(0.5, 1.5, (batch, n)) * rng.choice([-1.0, 1.0], (batch, n)) for _ in range(3)]
    answers = [f(x) - offset for x in probes]
    size = max(float(np.abs(a).max(initial=0.0)) for a in answers)
    # A linear map gives to a sum the sum; rounding against the offset is what is left.
    slack = TOLERANCE * max(size, 1e-4 * float(np.abs(offset).max(initial=0.0)), 1e-300)
    if np.abs(f(probes[0] + probes[1]) - offset - answers[0] - answers[1]).max(initial=0.0) > slack:
        return None
    for index in _partitions(shapes):
        matrices = _solve(f, offset, probes, answers, index, batch, n)
        if matrices is None:
            continue
        found = Transition(index, matrices, offset)
        if all(
            np.abs(found.apply(x) - offset - a).max(initial=0.0) <= slack for x, a in zip(probes, answers, strict=True)
        ):
            return found
    return None


def _solve(
    f: Map, offset: Array, probes: list[Array], answers: list[Array], index: NDArray[np.int64], batch: int, n: int
) -> Array | None:
    """Block matrices of one partition: from the random probes for narrow blocks, by unit vectors for wide ones."""
    blocks, width = index.shape
    if width == 1:
        return np.asarray(answers[0][:, index[:, 0]] / probes[0][:, index[:, 0]])[:, :, None, None]
    matrices = np.empty((batch, blocks, width, width))
    for j in range(width):
        unit = np.zeros((batch, n))
        unit[:, index[:, j]] = 1.0
        matrices[..., j] = (f(unit) - offset)[:, index]
    return matrices


def _partitions(shapes: Sequence[tuple[int, ...]]) -> Iterator[NDArray[np.int64]]:
    """Ways to cut the states into blocks, the narrowest first."""
    sizes = [prod(shape) for shape in shapes]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    n = int(starts[-1])
    yield np.arange(n)[:, None]
    places = [np.arange(a, b).reshape(s) for a, b, s in zip(starts[:-1], starts[1:], shapes, strict=True)]
    if len(shapes) > 1 and len(set(sizes)) == 1:  # one tensor each for the parts
        yield np.stack([place.reshape(-1) for place in places], axis=1)
    if len(shapes) > 1 and len(shapes) % 2 == 0 and len(shapes) > 2:
        for first, second in _tensor_pairs(places):
            yield np.stack([first, second], axis=1)
    if all(shape for shape in shapes):
        for axis in range(-1, -min(len(s) for s in shapes) - 1, -1):
            if all(shape[axis] == 2 for shape in shapes):  # parts along an axis of two
                yield np.concatenate([np.moveaxis(p, axis, -1).reshape(-1, 2) for p in places])
            if all(shape[axis] % 2 == 0 and shape[axis] > 2 for shape in shapes):  # halves, or neighbours
                moved = [np.moveaxis(p, axis, -1) for p in places]
                half = [m.shape[-1] // 2 for m in moved]
                yield np.concatenate(
                    [np.stack([m[..., :h], m[..., h:]], -1).reshape(-1, 2) for m, h in zip(moved, half, strict=True)]
                )
                yield np.concatenate([m.reshape(-1, 2) for m in moved])
        widths = {shape[-1] for shape in shapes}
        if len(widths) == 1 and 2 < max(widths) <= MAX_DENSE and n > max(widths):
            yield np.concatenate([p.reshape(-1, p.shape[-1]) for p in places])
        for axis in range(min(len(s) for s in shapes) - 1):
            if len(shapes) == 1 and 1 < shapes[0][axis] <= MAX_DENSE:
                yield np.moveaxis(places[0], axis, -1).reshape(-1, shapes[0][axis])
    if n <= MAX_DENSE:
        yield np.arange(n)[None, :]


def _tensor_pairs(places: list[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Tensors in pairs: neighbours, or first half with second half."""
    flat = [place.reshape(-1) for place in places]
    half = len(flat) // 2
    if all(flat[i].size == flat[i + 1].size for i in range(0, len(flat), 2)):
        yield np.concatenate(flat[0::2]), np.concatenate(flat[1::2])
    if all(flat[i].size == flat[i + half].size for i in range(half)):
        yield np.concatenate(flat[:half]), np.concatenate(flat[half:])
