"""Limits on what a sequence decays by, which nothing that counts goes beyond.

A mask of decays is `exp(L_t - L_s)` for the steps s up to t, where L is the sum of rates that are never positive.
People limit the difference to zero: `exp` of it does not overflow then where s is later than t, which the mask leaves
out. For all that the mask lets through the difference is within the limit, and the model is that without it. Or they
limit the mask to one, or replace what became infinite, or no number as 0 times infinity (`nan_to_num`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import numpy_helper

from ssmc.diagnostics import UserError
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

DEPTH = 24  # ops that are looked back for a sign (ours)
SHAPES = frozenset(["Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Cast", "Flatten"])
MOVES = SHAPES | {"Slice", "Gather", "Split", "Tile", "CumSum", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"}
WITHIN_ONE = frozenset(["Sigmoid", "HardSigmoid", "Softmax"])
NONE: frozenset[int] = frozenset()
POSITIVE = WITHIN_ONE | {"Exp", "Softplus", "Relu", "Abs", "Sqrt", "ReduceL2", "ReduceSumSquare"}


def without_unmet_limits(listing: Listing, point: Mapping[Value, Any]) -> Listing:
    """The listing without such limits; itself where there are none.

    That rates have one sign is read off the graph. That a mask leaves out what is beyond a limit is seen where the
    outputs of the listing, for the arrays of its inputs at `point`, are the same numbers without it.
    """
    limited = {call.results[0]: call.operands[0] for call in listing.calls if _limits_decay(listing, call)}
    limited |= {call.results[0]: other for call in listing.calls for other in _beside_limit(listing, call)}
    limited |= {call.results[0]: call.operands[2] for call in listing.calls if _replaces_no_number(listing, call)}
    if not limited:
        return listing
    found = _bypassed(listing, limited)
    try:
        with np.errstate(all="ignore"):
            told, numbers = (evaluate(one, point, one.outputs.values()) for one in (listing, found))
    except UserError:
        return listing
    pairs = zip(listing.outputs.values(), found.outputs.values(), strict=True)
    return found if all(np.array_equal(told[a], numbers[b]) for a, b in pairs) else listing


def _bypassed(listing: Listing, limited: Mapping[Value, Value | None]) -> Listing:
    def behind(value: Value | None) -> Value | None:
        while value is not None and value in limited:
            value = limited[value]
        return value

    calls = [replace(call, operands=tuple(behind(v) for v in call.operands)) for call in listing.calls]
    producer = {value: call for call in calls for value in call.results}
    outputs = {name: behind(value) or value for name, value in listing.outputs.items()}
    return replace(listing, calls=calls, producer=producer, outputs=outputs)


def _limits_decay(listing: Listing, call: Call) -> bool:
    """Is a call a limit of one operand, which differences of sums of one sign are within, one way round?"""
    if call.kind == "Relu":
        return _is_decay(listing, call.operands[0])
    if call.kind != "Clip":
        return False
    low, high = (_bound(listing, call, slot, name) for slot, name in ((1, "min"), (2, "max")))
    above = low is None and high is not None and bool((high >= 0).all())
    below = high is None and low is not None and bool((low <= 0).all())
    if low is None and high is not None and bool((high >= 1).all()) and _is_mask(listing, call.operands[0]):
        return True
    return (above or below) and _is_decay(listing, call.operands[0])


def _beside_limit(listing: Listing, call: Call) -> Iterator[Value]:
    """What a Min or Max limits by a constant, as `_limits_decay`."""
    if call.kind not in ("Min", "Max") or len(call.operands) != 2:
        return
    for value, bound in (call.operands, call.operands[::-1]):
        known = listing.constants.get(bound) if bound is not None else None
        if known is None and bound is not None and (made := listing.maker(bound)) is not None:
            known = _filled(listing, made)
        if value is None or known is None:
            continue
        if call.kind == "Min" and (known >= 1).all() and _is_mask(listing, value):
            yield value
        if not _is_decay(listing, value):
            continue
        if ((known >= 0) if call.kind == "Min" else (known <= 0)).all():
            yield value


def _filled(listing: Listing, call: Call) -> Array | None:
    """The number that a call writes everywhere, whatever the sizes."""
    if call.kind == "ConstantOfShape":
        tensor = call.attrs.get("value")
        return np.zeros(1) if tensor is None else np.asarray(numpy_helper.to_array(tensor), float)
    if call.kind == "Expand" and call.operands[0] in listing.constants:
        return np.asarray(listing.constants[call.operands[0]])
    return None


def _bound(listing: Listing, call: Call, slot: int, name: str) -> Array | None:
    operand = call.operands[slot] if len(call.operands) > slot else None
    if operand is not None:
        return np.asarray(listing.constants.get(operand, np.nan))  # NaN is on no side
    return np.asarray(call.attrs[name]) if name in call.attrs else None


def _is_decay(listing: Listing, value: Value | None) -> bool:
    """Is a value the difference of one running sum, of terms of one sign, at one step and at another?"""
    call = _behind_shapes(listing, value)
    while call is not None and (signed := _of_one_sign(listing, call)) is not None:
        call = _behind_shapes(listing, signed)
    if call is None or call.kind != "Sub":
        return False
    first, second = (_behind_shapes(listing, operand) for operand in call.operands)
    return first is not None and first is second and first.kind == "CumSum" and bool(_signs(listing, first.operands[0]))


def _is_mask(listing: Listing, value: Value | None) -> bool:
    """Is a value exp of a decay, with or without a mask of constants, or with what `_replaces_no_number`?

    All that a mask of zeros and ones lets through is between zero and one.
    """
    for _ in range(DEPTH):
        call = _behind_shapes(listing, value)
        if call is None:
            return False
        if call.kind == "Exp":
            return _is_decay(listing, call.operands[0])
        if call.kind == "Trilu" or (call.kind == "Mul" and _is_constant_mask(listing, call.operands[1])):
            value = call.operands[0]
        elif call.kind == "Mul" and _is_constant_mask(listing, call.operands[0]):
            value = call.operands[1]
        elif call.kind == "Where" and _tests_numbers(listing, call.operands[0], call.operands[2]):
            value = call.operands[2]
        else:
            return False
    return False


def _is_constant_mask(listing: Listing, value: Value | None) -> bool:
    """Is a value made of sizes and constants alone, as a mask is, and is no entry outside of 0 to 1?"""
    waiting, made = [value], False
    for _ in range(DEPTH):
        if not waiting:
            return made
        here = waiting.pop()
        call = listing.maker(here)
        if here in listing.constants:
            array = np.asarray(listing.constants[here])
            made = made or bool(((array >= 0) & (array <= 1)).all())
        elif call is None:
            return False
        elif call.kind in ("Trilu", "Expand", "ConstantOfShape", *SHAPES):
            made = made or (call.kind == "ConstantOfShape" and _is_zero_or_one(listing, call))
            waiting += call.operands[:1] if call.kind != "ConstantOfShape" else []
        else:
            return False
    return False


def _is_zero_or_one(listing: Listing, call: Call) -> bool:
    filled = _filled(listing, call)
    return filled is not None and bool(((filled >= 0) & (filled <= 1)).all())


def _replaces_no_number(listing: Listing, call: Call) -> bool:
    """Does a call put something else where a mask of decays is infinite, or 0 where it is no number?

    `exp` overflows in pairs of steps alone that the mask leaves out, and 0 times infinity is no number.
    """
    if call.kind != "Where" or not _tests_numbers(listing, call.operands[0], call.operands[2]):
        return False
    test, other = _behind_shapes(listing, call.operands[0]), listing.constants.get(call.operands[1] or call.results[0])
    zero = other is not None and not np.any(other)
    return (zero or (test is not None and test.kind != "IsNaN")) and _is_mask(listing, call.operands[2])


def _tests_numbers(listing: Listing, test: Value | None, value: Value | None) -> bool:
    """Is a value, or what a test before has replaced in it, tested for being infinite or no number?"""
    call = _behind_shapes(listing, test)
    if call is not None and call.kind == "And":  # on one side of zero
        return any(_tests_numbers(listing, operand, value) for operand in call.operands)
    if call is None or call.kind not in ("IsNaN", "IsInf"):
        return False
    seen = _uncast(listing, call.operands[0])
    while (value := _uncast(listing, value)) != seen:
        made = listing.maker(value)
        if made is None or made.kind != "Where":
            return False
        value = made.operands[2]
    return True


def _uncast(listing: Listing, value: Value | None) -> Value | None:
    call = listing.maker(value)
    while call is not None and call.kind in ("Cast", "Identity"):
        value = call.operands[0]
        call = listing.maker(value)
    return value


def _of_one_sign(listing: Listing, call: Call) -> Value | None:
    """What a call turns the sign of, or multiplies with numbers of one sign."""
    if call.kind == "Neg":
        return call.operands[0]
    if call.kind != "Mul" or len(call.operands) != 2:
        return None
    for value, gains in (call.operands, call.operands[::-1]):
        if gains in listing.constants and _signs(listing, gains):
            return value
    return None


def _behind_shapes(listing: Listing, value: Value | None) -> Call | None:
    call = listing.maker(value)
    while call is not None and call.kind in SHAPES:
        call = listing.maker(call.operands[0])
    return call


def _signs(listing: Listing, value: Value | None, depth: int = DEPTH) -> frozenset[int]:
    """1 among them where no entry of a value is ever negative, -1 where none is positive."""
    if value is None or depth == 0:
        return NONE
    if value in listing.constants:
        array = np.asarray(listing.constants[value])
        return frozenset(sign for sign in (1, -1) if (sign * array >= 0).all())
    call = listing.maker(value)
    if call is None:
        return NONE
    if call.kind in POSITIVE:
        return frozenset([1])
    if call.kind == "LogSoftmax" or (call.kind == "Log" and _is_within_one(listing, call.operands[0], depth - 1)):
        return frozenset([-1])
    if call.kind in MOVES:
        return _signs(listing, call.operands[0], depth - 1)
    if call.kind == "Mul" and len(set(call.operands)) == 1:
        return frozenset([1])
    signs = [_signs(listing, operand, depth - 1) for operand in call.operands]
    match call.kind:
        case "Neg":
            return frozenset(-sign for sign in signs[0])
        case "Mul" | "Div":
            return frozenset(a * b for a in signs[0] for b in signs[1])
        case "Sub":
            return frozenset(sign for sign in signs[0] if -sign in signs[1])
        case "Where":
            return (signs[1] | _where_chosen(listing, call)) & signs[2]
        case "Add" | "Sum" | "Concat" | "Max" | "Min":
            return signs[0].intersection(*signs[1:])
    return NONE


def _where_chosen(listing: Listing, call: Call) -> frozenset[int]:
    """The sign of what a Where takes where that is greater than a number, as torch.export writes a softplus."""
    test = listing.maker(call.operands[0])
    if test is None or test.kind != "Greater" or test.operands[0] != call.operands[1]:
        return NONE
    return _signs(listing, test.operands[1], 1) - {-1}


def _is_within_one(listing: Listing, value: Value | None, depth: int) -> bool:
    """Is every entry of a value between zero and one, whatever the model is given?"""
    if value is None or depth == 0:
        return False
    if value in listing.constants:
        array = np.asarray(listing.constants[value])
        return bool(((array >= 0) & (array <= 1)).all())
    call = listing.maker(value)
    if call is None:
        return False
    match call.kind:
        case "Exp":
            return -1 in _signs(listing, call.operands[0], depth - 1)
        case "Mul" | "Concat" | "Min":
            return all(_is_within_one(listing, operand, depth - 1) for operand in call.operands)
        case "Sub":  # 1 - z
            one = listing.constants.get(call.operands[0]) if call.operands[0] is not None else None
            return one is not None and bool((one == 1).all()) and _is_within_one(listing, call.operands[1], depth - 1)
    return call.kind in WITHIN_ONE or (
        call.kind in SHAPES | {"Slice", "Split", "Gather"} and _is_within_one(listing, call.operands[0], depth - 1)
    )
