"""Loops that pop a step off a sequence at every trip (`steps.pop(0)` of torch.jit.script) pick it by the trip's number.

A carried sequence that is only looked at and erased at one end, `SequenceAt(s, 0)` and `SequenceErase(s, 0)` or both at
-1, and that begins as the single steps of a tensor, is that tensor: the step of trip t is number t from that end. A
loop that goes on while anything is left makes as many trips as there are steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

ENDS = (0, -1)
MANY = 2**31 - 1  # trips: no bound


def without_pops(graph: onnx.GraphProto) -> onnx.GraphProto:
    """The graph with the sequences of its loops that are popped as tensors; itself where there are none."""
    if not any(n.op_type == "Loop" and _pops(_body(n)) for n in graph.node):
        return graph
    found = onnx.GraphProto()
    found.CopyFrom(graph)
    for node in [n for n in found.node if n.op_type == "Loop"]:
        for place in reversed(range(2, len(node.input))):
            _picked(found, node, place)
    return _sorted(found)


@dataclass(frozen=True)
class _Pops:
    """What a loop does to a sequence: how it was `split` off a tensor, the nodes that look at its step at an `end`, the
    one that takes this away, and the one that asks what is left, if any."""

    split: onnx.NodeProto
    end: int
    looks: list[onnx.NodeProto]
    erased: onnx.NodeProto
    lengths: list[onnx.NodeProto]


def _found(graph: onnx.GraphProto, loop: onnx.NodeProto, place: int) -> _Pops | None:
    """What a loop does to what it carries at this place, if it pops steps off it and nothing else."""
    body, made = _body(loop), {name: n for n in graph.node for name in n.output}
    split = made.get(loop.input[place])
    if split is None or split.op_type != "SplitToSequence" or not _single(graph, split):
        return None
    if len(body.input) <= place or len(body.output) < place:  # no body of this loop: refused where it is read
        return None
    current, following = body.input[place].name, body.output[place - 1].name
    last = loop.output[place - 2] if len(loop.output) > place - 2 else ""
    if last and any(last in n.input for n in graph.node) | (last in {o.name for o in graph.output}):
        return None
    inner = {name: n for n in body.node for name in n.output}
    erased = inner.get(following)
    users = [n for n in body.node if current in n.input]
    looks = [n for n in users if n.op_type == "SequenceAt"]
    if erased is None or erased.op_type != "SequenceErase" or any(n not in looks and n != erased for n in users):
        return None
    ends = {_number(graph, body, n.input[1]) if len(n.input) > 1 else -1 for n in (*looks, erased)}
    after = [n for n in body.node if following in n.input]
    lengths = [n for n in after if n.op_type == "SequenceLength"]
    if len(ends) != 1 or (end := ends.pop()) not in ENDS or len(after) != len(lengths) or len(lengths) > 1:
        return None
    if lengths and not (_while_any(graph, body, lengths[0]) and _unbounded(graph, loop, split)):
        return None
    return _Pops(split, end, looks, erased, lengths)


def _picked(graph: onnx.GraphProto, loop: onnx.NodeProto, place: int) -> None:
    """Let a loop pick the steps of the sequence that it carries at this place, if it pops them."""
    pops, body = _found(graph, loop, place), _body(loop)
    if pops is None:
        return
    name = f"{loop.name or loop.output[0]}/{body.input[place].name}"
    size = _counted(graph, pops.split, name)
    new = _steps(body, pops, name, size)
    asked = [n for n in body.node if any(length.output[0] in n.input for length in pops.lengths)]
    gone = [*pops.looks, pops.erased, *pops.lengths, *asked]
    if pops.lengths:  # it goes on while anything is left: as often as there are steps
        body.output[0].name = f"{name}/going"
        new.append(_constant(f"{name}/going", np.asarray(True)))
        loop.input[0], loop.input[1] = size, f"{name}/true"
    nodes = [*new, *(n for n in body.node if n not in gone)]
    del body.node[:]
    body.node.extend(nodes)
    del body.input[place], body.output[place - 1], loop.input[place]
    if len(loop.output) > place - 2:
        del loop.output[place - 2]
    if pops.lengths:
        _forget(graph, pops.split.output[0])
    if not any(pops.split.output[0] in n.input for n in graph.node):
        graph.node.remove(pops.split)


def _counted(graph: onnx.GraphProto, split: onnx.NodeProto, name: str) -> str:
    """Nodes in front of a loop that count the steps of the tensor."""
    graph.node.extend(
        [
            helper.make_node("Shape", [split.input[0]], [f"{name}/shape"]),
            _constant(f"{name}/axis", np.asarray(_attribute(split, "axis", 0), np.int64)),
            helper.make_node("Gather", [f"{name}/shape", f"{name}/axis"], [f"{name}/steps"], axis=0),
            _constant(f"{name}/true", np.asarray(True)),
        ]
    )
    return f"{name}/steps"


def _steps(body: onnx.GraphProto, pops: _Pops, name: str, size: str) -> list[onnx.NodeProto]:
    """Nodes of the body that pick the step of a trip out of the tensor, in place of those that look at it."""
    whole, axis, kept = pops.split.input[0], _attribute(pops.split, "axis", 0), _attribute(pops.split, "keepdims", 1)
    trip, index, new = body.input[0].name, body.input[0].name, [_constant(f"{name}/one", np.asarray(1, np.int64))]
    if pops.end == -1:
        index = f"{name}/index"
        new += [
            helper.make_node("Sub", [size, f"{name}/one"], [f"{name}/end"]),
            helper.make_node("Sub", [f"{name}/end", trip], [index]),
        ]
    for look in pops.looks:
        single = f"{look.output[0]}/step"
        new.append(helper.make_node("Gather", [whole, index], [single if kept else look.output[0]], axis=axis))
        if kept:
            new.append(_constant(f"{single}/axis", np.asarray([axis], np.int64)))
            new.append(helper.make_node("Unsqueeze", [single, f"{single}/axis"], [look.output[0]]))
    return new


def _forget(graph: onnx.GraphProto, sequence: str) -> None:
    """Take away what asked whether anything is left before the first trip."""
    lengths = [n for n in graph.node if n.op_type == "SequenceLength" and sequence in n.input]
    for length in lengths:
        asked = [n for n in graph.node if length.output[0] in n.input]
        if any(other.output[0] in n.input for other in asked for n in graph.node):
            continue
        for node in (*asked, length):
            graph.node.remove(node)


def _body(loop: onnx.NodeProto) -> onnx.GraphProto:
    return next((a.g for a in loop.attribute if a.name == "body"), onnx.GraphProto())


def _pops(body: onnx.GraphProto) -> bool:
    return any(n.op_type == "SequenceErase" for n in body.node)


def _constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _number(graph: onnx.GraphProto, body: onnx.GraphProto, name: str) -> int | None:
    """A number that the file holds; None for any other value."""
    for scope in (body, graph):
        for node in scope.node:
            if node.op_type == "Constant" and name in node.output:
                array = next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), np.zeros(0))
                return int(array.reshape(-1)[0]) if array.size == 1 else None
        for tensor in scope.initializer:
            if tensor.name == name and not tensor.external_data:
                array = numpy_helper.to_array(tensor)
                return int(array.reshape(-1)[0]) if array.size == 1 else None
    return None


def _single(graph: onnx.GraphProto, split: onnx.NodeProto) -> bool:
    """Does it give single steps?"""
    return len(split.input) < 2 or _number(graph, graph, split.input[1]) == 1


def _while_any(graph: onnx.GraphProto, body: onnx.GraphProto, length: onnx.NodeProto) -> bool:
    """Is the length asked for only to go on while anything is left?"""
    users = [n for n in body.node if length.output[0] in n.input]
    end = body.output[0].name
    return (
        len(users) == 1
        and users[0].op_type == "Greater"
        and users[0].input[0] == length.output[0]
        and _number(graph, body, users[0].input[1]) == 0
        and users[0].output[0] == end
        and sum(end in n.input for n in body.node) == 0
    )


def _unbounded(graph: onnx.GraphProto, loop: onnx.NodeProto, split: onnx.NodeProto) -> bool:
    """Does nothing but that condition end the loop, and is it the one that it begins with?"""
    most = _number(graph, graph, loop.input[0]) if loop.input[0] else MANY
    first = next((n for n in graph.node if loop.input[1] in n.output), None)
    length = next((n for n in graph.node if first is not None and first.input and first.input[0] in n.output), None)
    asked = length is not None and length.op_type == "SequenceLength" and length.input[0] == split.output[0]
    return most is not None and most >= MANY and first is not None and first.op_type == "Greater" and asked


def _sorted(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Nodes that were added at the end stand in front of those that need them."""
    made = {name for n in graph.node for name in n.output}
    done: set[str] = set()
    waiting, placed = list(graph.node), []
    while waiting:
        ready = [n for n in waiting if _needs(n).intersection(made) <= done]
        if not ready:
            return graph
        placed += ready
        done.update(name for n in ready for name in n.output)
        left = {id(n) for n in ready}
        waiting = [n for n in waiting if id(n) not in left]
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in placed]
    del graph.node[:]
    graph.node.extend(nodes)
    return graph


def _needs(node: onnx.NodeProto) -> set[str]:
    found = set(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found.update(*(_needs(inner) for inner in attribute.g.node), (o.name for o in attribute.g.output))
    return found
