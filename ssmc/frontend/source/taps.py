"""How many steps a step may look back or ahead, as far as the numbers in a file tell: taps, windows, shifts.

Which axis of an op is time is not known before a file is read: an axis of features counts as well, which costs a longer
sequence to study, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "FusedConv": 1, "QLinearConv": 3}  # which operand it is
WINDOWS = frozenset([*WEIGHTS, "AveragePool", "MaxPool", "LpPool", "QLinearAveragePool"])
FARTHEST = 1 << 14  # steps; a larger number stands for all there are (ours)


def taps(listing: Listing, shifts: bool = True) -> list[int]:
    """Of each filter and window of a file, and of its `shifts`, how many steps it spans."""
    calls = [call for call in listing.calls if shifts or call.kind in WINDOWS]
    return [found for call in calls for found in _spans(listing, call) if 1 < found <= FARTHEST]


def span(listing: Listing) -> int:
    """How many steps all of them span one behind the other; 0 where there are none."""
    found = sum(each - 1 for each in taps(listing))
    return found + 1 if found else 0


def _spans(listing: Listing, call: Call) -> Iterator[int]:
    if call.kind in WINDOWS:
        sizes = _sizes(listing, call)
        dilations = list(call.attrs.get("dilations", ())) or [1] * len(sizes)
        yield max(((s - 1) * int(d) + 1 for s, d in zip(sizes, dilations, strict=False)), default=0)
    elif call.kind == "Pad":
        yield max(_numbers(listing, call, (1,)), default=0) + 1
    elif call.kind == "Slice":  # from the end: the first ones are as often features
        yield max((-n for n in _numbers(listing, call, (1, 2)) if -n <= FARTHEST), default=0)
    elif call.kind in ("Add", "Sub"):  # of places, and of lengths
        yield max(map(abs, _numbers(listing, call, (0, 1))), default=0) + 1
    elif call.kind == "Concat":
        yield from (_rows(listing, v, int(call.attrs["axis"])) + 1 for v in call.operands if v is not None)


def _rows(listing: Listing, value: Value, axis: int) -> int:
    """How long a constant, or one number that is spread out, is along an axis, as far as the file fixes that."""
    known = [listing.constants[value].shape] if value in listing.constants else []
    producer = listing.producer.get(value)
    if producer is not None and producer.kind in ("ConstantOfShape", "Expand"):
        known += [_shape(listing, producer.operands[-1])]
        known += [
            listing.constants[v].shape for v in producer.operands[:-1] if v is not None and v in listing.constants
        ]
    return max((shape[axis] for shape in known if -len(shape) <= axis < len(shape)), default=0)


def _shape(listing: Listing, value: Value | None) -> tuple[int, ...]:
    """The numbers of a shape, 0 for what the file computes."""
    if value is None:
        return ()
    if value in listing.constants:
        return tuple(int(n) for n in np.ravel(listing.constants[value]))
    producer = listing.producer.get(value)
    if producer is None or producer.kind != "Concat":
        return ()
    parts = (_shape(listing, v) if v in listing.constants else (0,) for v in producer.operands)
    return tuple(n for part in parts for n in part)


def _sizes(listing: Listing, call: Call) -> list[int]:
    """Taps of a filter or window along each of its axes."""
    operand = call.operands[WEIGHTS[call.kind]] if call.kind in WEIGHTS else None
    weight = None if operand is None else listing.constants.get(operand)
    shape: Iterable[int] = call.attrs.get("kernel_shape", ()) if weight is None else np.shape(weight)[2:]
    return [int(size) for size in shape]


def _numbers(listing: Listing, call: Call, operands: Iterable[int]) -> list[int]:
    """The numbers that the file fixes of some operands."""
    given = [call.operands[i] for i in operands if i < len(call.operands)]
    found = [listing.constants[v] for v in given if v is not None and v in listing.constants]
    return [int(n) for array in found if array.dtype.kind in "iu" for n in np.ravel(array)]
