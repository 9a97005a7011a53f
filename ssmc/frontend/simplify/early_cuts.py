"""What is cut off a convolution after it was rounded, or after an activation, is cut off before.

A causal convolution is often padded on both sides and cut to the length of what went in. Where exporters put something
between the two that works on every number alone (quantisation always does), the cut changes places with it: what no
step reads need not be explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

ALONE = frozenset(
    [
        *("Relu", "Sigmoid", "Tanh", "Gelu", "LeakyRelu", "Elu", "Softplus", "HardSigmoid", "HardSwish", "Erf", "Clip"),
        *("QuantizeLinear", "DequantizeLinear", "Cast", "Identity", "Neg", "Abs", "Exp", "Transpose"),
        *("Add", "Mul", "Sub", "Div", "Max", "Min"),
    ]
)


def cut_early(listing: Listing) -> Listing:
    """The listing with such cuts moved; itself where there are none."""
    calls: list[Call] = []
    constants = dict(listing.constants)
    for call in listing.calls:
        chain = _chain(listing, call)
        calls += [call] if chain is None else _moved(listing, call, chain, constants)
    if len(calls) == len(listing.calls):
        return listing
    calls = [replace(call, position=position) for position, call in enumerate(calls)]
    producer = {value: call for call in calls for value in call.results}
    return replace(listing, calls=calls, producer=producer, constants=constants)


def _axes(listing: Listing, call: Call) -> list[int] | None:
    """The axes that a Slice cuts, where its operands say them."""
    operand = call.operands[3] if len(call.operands) > 3 else None
    return None if operand is None or operand not in listing.constants else [int(a) for a in listing.constants[operand]]


def _chain(listing: Listing, call: Call) -> list[Call] | None:
    """The calls between a convolution and the Slice of it, the last one first; None where nothing is to be moved."""
    if call.kind != "Slice" or (axes := _axes(listing, call)) is None:
        return None
    chain: list[Call] = []
    maker = listing.producer.get(_data(listing, call) or Value(""))
    while maker is not None and maker.kind in ALONE and len(maker.results) == 1:
        data = _data(listing, maker)
        if data is None:
            return None
        chain.append(maker)
        maker = listing.producer.get(data)
    if not chain or maker is None or maker.kind != "Conv":
        return None
    weight = listing.constants.get(maker.operands[1] or Value(""))
    if weight is None:
        return None
    for step in chain:
        axes = [axis % weight.ndim for axis in axes]
        others = [listing.constants[v] for v in step.operands if v is not None and v in listing.constants]
        if any(_differs(step, np.shape(other), axis, weight.ndim) for other in others for axis in axes):
            return None
        axes = _before(step, axes)
    return chain


def _data(listing: Listing, call: Call) -> Value | None:
    """The one operand of a call that is not constant."""
    found = [v for v in call.operands if v is not None and v not in listing.constants]
    return call.operands[0] if call.kind == "Slice" else found[0] if len(found) == 1 else None


def _differs(call: Call, shape: tuple[int, ...], axis: int, rank: int) -> bool:
    """Is a constant that a call reads another one from place to place along an axis?"""
    if int(np.prod(shape, dtype=np.int64)) == 1:
        return False
    if call.kind in ("QuantizeLinear", "DequantizeLinear"):
        return len(shape) != 1 or int(call.attrs.get("axis", 1)) % rank == axis
    place = axis - (rank - len(shape))
    return place >= 0 and shape[place] != 1


def _before(call: Call, axes: Sequence[int]) -> list[int]:
    """The axes of what a call reads that become these of what it gives."""
    if call.kind != "Transpose":
        return list(axes)
    order = call.attrs.get("perm")
    return [int(order[a]) if order else -1 - a for a in axes]


def _moved(listing: Listing, call: Call, chain: Sequence[Call], constants: dict[Value, np.ndarray]) -> list[Call]:
    """The Slice first, then the others on what it leaves."""
    axes = _axes(listing, call) or []
    for step in chain:
        axes = _before(step, axes) if step.kind == "Transpose" else axes
    told = Value(f"{call.results[0]}.axes")
    constants[told] = np.asarray(axes, np.int64)
    data = _data(listing, chain[-1])
    assert data is not None
    cut = Value(f"{call.results[0]}.cut")
    operands = (data, *call.operands[1:3], told, *call.operands[4:])
    found = [replace(call, operands=operands, results=(cut,), dtypes=listing.producer[data].dtypes)]
    for k, step in enumerate(reversed(chain)):
        before, after = found[-1].results[0], Value(f"{call.results[0]}.cut.{k}")
        given = tuple(before if v == _data(listing, step) else v for v in step.operands)
        results = call.results if k == len(chain) - 1 else (after,)
        found.append(replace(step, operands=given, results=results))
    return found
