"""Numbers written to places that are the same at every step, as parts put together.

`x.at[..., 0].set(v)` and `.add(v)` become scattered writes of single numbers, which merge all axes of what is written.
Run on the numbers of the places they tell what is written where: a block of one axis, whose parts are joined instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssmc.frontend.loops.parts import MOVERS
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.maker import Maker
from ssmc.frontend.source.operands import text
from ssmc.frontend.source.samples import Samples
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

SUMS = {"none": False, "add": True}


@dataclass(frozen=True)
class Block:
    """`source` is written along an axis, from `start` to `end`; with `widen` it lacks that axis."""

    source: Value
    axis: int
    start: int
    end: int
    widen: bool


def moved_from(listing: Listing, value: Value) -> list[Value]:
    """Values that are only moved to become this one, the first ones first."""
    chain = [value]
    while (call := listing.producer.get(chain[-1])) is not None and MOVERS.get(call.kind) == (0,):
        if call.kind == "Cast" and not call.dtypes[0].startswith(("float", "double", "?")):
            break
        before = call.operands[0]
        assert before is not None
        chain.append(before)
    return chain[::-1]


def with_joined_writes(listing: Listing, samples: Samples) -> Listing:
    """The listing with a Concat in place of every ScatterND that writes a block to the same place at all samples."""
    if not any(call.kind == "ScatterND" for call in listing.calls):
        return listing
    found = replace(listing, calls=[], constants=dict(listing.constants), producer={})
    maker = Maker(found)
    for call in listing.calls:
        block = _block(listing, samples, call) if call.kind == "ScatterND" else None
        if block is None:
            maker.add(call)
        else:
            _joined(maker, call, block, samples.shape(call.results[0]))
    return found


def _block(listing: Listing, samples: Samples, call: Call) -> Block | None:
    into, index, update = call.operands
    assert into is not None and index is not None and update is not None
    summed = SUMS.get(text(call.attrs.get("reduction", "none")))
    places = [np.asarray(samples.at(k, [index])[index]) for k in range(len(samples.points))]
    if summed is None or len(places) < 2 or any(not np.array_equal(places[0], p) for p in places[1:]):
        return None
    shape = samples.shape(call.results[0])
    rest = np.zeros(shape) if summed else np.full(shape, -1.0)
    inputs = {v: samples.points[0][v] for v in listing.inputs.values()}  # what was computed of them stands there too
    for source in moved_from(listing, update):
        if source in listing.constants:
            continue
        given = samples.shape(source)
        marks = np.arange(1.0, 1.0 + np.prod(given, dtype=np.int64)).reshape(given)
        feed = {**inputs, source: marks, into: rest}
        written = np.asarray(evaluate(listing, feed, [call.results[0]])[call.results[0]])
        block = _block_of(written, marks)
        if block is not None:
            return Block(source, *block)
    return None


def _block_of(written: Array, marks: Array) -> tuple[int, int, int, bool] | None:
    """Along which axis, from where to where, all the numbers stand, in order."""
    places = written > 0
    if places.sum() != marks.size or not marks.size:
        return None
    for axis, size in enumerate(written.shape):
        at = np.flatnonzero(places.any(axis=tuple(i for i in range(written.ndim) if i != axis)))
        start, end = int(at[0]), int(at[-1]) + 1
        part = np.take(written, np.arange(start, end), axis=axis)
        if end - start == size or part.size != marks.size or not np.array_equal(part.reshape(-1), marks.reshape(-1)):
            continue
        if part.shape == marks.shape:
            return axis, start, end, False
        if (*part.shape[:axis], *part.shape[axis + 1 :]) == marks.shape and end - start == 1:
            return axis, start, end, True
    return None


def _taken(maker: Maker, call: Call, start: int, end: int, axis: int) -> Value:
    into = call.operands[0]
    assert into is not None
    return maker.node(call, "Slice", [into, *(maker.numbers(call, n) for n in (start, end, axis))])


def _joined(maker: Maker, call: Call, block: Block, shape: tuple[int, ...]) -> None:
    """What was there before the block, the block, and what was behind it."""
    axis, new = block.axis, block.source
    if block.widen:
        new = maker.node(call, "Unsqueeze", [new, maker.numbers(call, axis)])
    if text(call.attrs.get("reduction", "none")) == "add":
        new = maker.node(call, "Add", [_taken(maker, call, block.start, block.end, axis), new])
    ends = ((0, block.start), (block.end, shape[axis]))
    before, after = ([_taken(maker, call, a, b, axis)] if a < b else [] for a, b in ends)
    maker.node(call, "Concat", [*before, new, *after], call.results[0], axis=axis)
