"""An If that goes by the number of a Loop's step, as both of its branches and a choice between what they give."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from onnx import helper

from ssmc.frontend.source.evaluate import body_of
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

BRANCHES = ("then_branch", "else_branch")


def unbranched(body: Listing, numbers: Collection[Value]) -> Listing:
    """The body without Ifs whose condition follows from `numbers`: the same values, in nodes of one level."""
    while True:
        moving = body.influenced(numbers)
        if not any(call.kind == "If" and call.operands[0] in moving for call in body.calls):
            return body
        body = _inlined(body, moving)


def _inlined(body: Listing, moving: Collection[Value]) -> Listing:
    found = replace(body, calls=[], constants=dict(body.constants), formats=dict(body.formats), producer={})
    for call in body.calls:
        if call.kind != "If" or call.operands[0] not in moving:
            _add(found, call)
            continue
        then, other = (_branch(found, call, name) for name in BRANCHES)
        for k, result in enumerate(call.results):
            node = helper.make_node("Where", ["condition", "then", "else"], ["chosen"])
            op = replace(call.op, name="onnx.Where").with_attrs(node=node, regions={}, captured=0)
            operands = (call.operands[0], then[k], other[k])
            _add(found, Call("Where", op, operands, (result,), call.provenance, 0, call.dtypes[k : k + 1]))
    return found


def _add(listing: Listing, call: Call) -> None:
    placed = replace(call, position=len(listing.calls))
    listing.calls.append(placed)
    listing.producer.update(dict.fromkeys(placed.results, placed))


def _branch(listing: Listing, call: Call, name: str) -> list[Value]:
    """The nodes of a branch, among the others; its outputs."""
    inner = body_of(call, name)
    captured = call.operands[len(call.operands) - int(call.op["captured"]) :]
    outer = dict(zip(inner.inputs.values(), captured, strict=True))

    def renamed(value: Value) -> Value:
        return outer.get(value) or Value(f"{call.results[0].node}.{name}.{value.node}", value.index)

    listing.constants.update({renamed(v): a for v, a in inner.constants.items()})
    listing.formats.update({renamed(v): f for v, f in inner.formats.items()})
    for step in inner.calls:
        operands = tuple(None if v is None else renamed(v) for v in step.operands)
        _add(listing, replace(step, operands=operands, results=tuple(map(renamed, step.results))))
    return [renamed(v) for v in inner.outputs.values()]
