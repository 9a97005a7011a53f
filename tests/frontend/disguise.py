"""The disguiser: a discrete `StateSpace` as an ONNX model, in each form in which exporters write one.

Every model is x (batch, time, inputs) -> system -> tanh -> y (batch, time, outputs), a one-step model without the
time axes. Complex states are stored as `layout` says: "last" (a last axis of 2), "pair" (two tensors), "halves".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from ssmc.statespace import StateSpace
from tests.frontend.net import Net

LAYOUTS = ("last", "pair", "halves")


def matrices(system: StateSpace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A (S,) or dense (S, S), B (S, I), C (O, S), D (O, I) of all groups together, gain included."""

    def block(parts: np.ndarray) -> np.ndarray:
        groups, rows, columns = parts.shape
        whole = np.zeros((groups, rows, groups, columns), parts.dtype)
        whole[np.arange(groups), :, np.arange(groups)] = parts
        return whole.reshape(groups * rows, groups * columns)

    a = system.A.reshape(-1) if system.diagonal else block(system.A)
    return a, block(system.B), system.gain * block(system.C), block(system.D)


def drive(net: Net, u: str, b: np.ndarray) -> list[str]:
    """B u, its real and imaginary part."""
    parts = [b.real, b.imag] if np.iscomplexobj(b) else [b]
    return [net.op("MatMul", u, net.const(part.T)) for part in parts]


def read(net: Net, x: list[str], u: str, c: np.ndarray, d: np.ndarray) -> str:
    """Re(C x) + D u."""
    y = net.op("MatMul", x[0], net.const(c.real.T))
    if len(x) == 2:
        y = net.op("Sub", y, net.op("MatMul", x[1], net.const(np.imag(c).T)))
    return net.op("Add", y, net.op("MatMul", u, net.const(d.T))) if np.any(d) else y


def advance(net: Net, a: np.ndarray, x: list[str], v: list[str]) -> list[str]:
    """a x + v, in parts; a dense matrix is real."""
    if a.ndim == 2:
        return [net.op("Add", net.op("MatMul", x[0], net.const(a.T)), v[0])]
    re = net.const(a.real)
    if len(x) == 1:
        return [net.op("Add", net.op("Mul", re, x[0]), v[0])]
    im = net.const(a.imag)
    new_re = net.op("Sub", net.op("Mul", re, x[0]), net.op("Mul", im, x[1]))
    new_im = net.op("Add", net.op("Mul", im, x[0]), net.op("Mul", re, x[1]))
    return [net.op("Add", new_re, v[0]), net.op("Add", new_im, v[1])]


def _unpack(net: Net, states: list[str], layout: str, n: int, parts: int) -> list[str]:
    if parts == 1 or layout == "pair":
        return states
    if layout == "last":
        return [net.op("Gather", states[0], net.const(np.int64(k)), axis=-1) for k in range(2)]
    return [net.op("Slice", states[0], net.ints(k * n), net.ints((k + 1) * n), net.ints(-1)) for k in range(2)]


def _pack(net: Net, parts: list[str], layout: str) -> list[str]:
    if len(parts) == 1 or layout == "pair":
        return parts
    if layout == "last":
        return [net.op("Concat", *(net.op("Unsqueeze", p, net.ints(-1)) for p in parts), axis=-1)]
    return [net.op("Concat", *parts, axis=-1)]


def state_shapes(system: StateSpace, layout: str, batch: int | str) -> list[list[int | str]]:
    n = system.groups * system.states
    if not system.is_complex:
        return [[batch, n]]
    return {"last": [[batch, n, 2]], "pair": [[batch, n], [batch, n]], "halves": [[batch, 2 * n]]}[layout]


def one_step(net: Net, system: StateSpace, layout: str, u: str, states: list[str]) -> tuple[list[str], str]:
    """The nodes of one step: next states and the output."""
    a, b, c, d = matrices(system)
    x = _unpack(net, states, layout, len(a), 2 if system.is_complex else 1)
    v = drive(net, u, b if not system.is_complex else b.astype(complex))
    following = advance(net, a.astype(complex) if system.is_complex else a, x, v)
    seen = x if system.read_before else following
    return _pack(net, following, layout), read(net, seen, u, c, d)


EXTRAS = ("sum", "count", "cache", "smoothed", "handed on", "unread")


def as_step(system: StateSpace, layout: str = "last", extras: Sequence[str] = ()) -> onnx.ModelProto:
    """One step, its states inputs and outputs.

    `extras`: states that are not the system's, as exporters carry them along: a running "sum" of the outputs and a
    "count" of the steps (for a mean), a "cache" of the last inputs (of a filter before the system), "smoothed" inputs,
    one "handed on" as it is, and one that is "unread" and only written.
    """
    net = Net()
    x = u = net.input(["b", system.inputs])
    shapes = state_shapes(system, layout, "b")
    states = [net.input(shape) for shape in shapes]
    held, more = {}, []
    for kind in extras:
        wide = {"sum": [system.outputs], "count": [1], "cache": [system.inputs, 3]}.get(kind, [system.inputs])
        held[kind] = net.input(["b", *wide])
        more.append(["b", *wide])
    new = {}
    if "cache" in held:
        taps = np.random.default_rng(system.states).standard_normal((system.inputs, 3))
        older = net.op("Slice", held["cache"], net.ints(1), net.ints(3), net.ints(2))
        new["cache"] = net.op("Concat", older, net.op("Unsqueeze", u, net.ints(2)), axis=2)
        u = net.op("ReduceSum", net.op("Mul", new["cache"], net.const(taps)), net.ints(2), keepdims=0)
    if "smoothed" in held:
        old = net.op("Mul", held["smoothed"], net.const(0.75))
        new["smoothed"] = net.op("Add", old, net.op("Mul", x, net.const(0.25)))
    following, y = one_step(net, system, layout, u, states)
    y = net.op("Tanh", y)
    if "sum" in held:
        new["sum"] = net.op("Add", held["sum"], y)
    if "count" in held:
        new["count"] = net.op("Add", held["count"], net.const(np.ones(1)))
    if "handed on" in held:
        new["handed on"] = net.op("Identity", held["handed on"])
    if "unread" in held:
        new["unread"] = net.op("Mul", x, net.const(2.0))
    if "sum" in held and "count" in held:
        y = net.op("Div", new["sum"], new["count"])
    elif "smoothed" in held:
        y = net.op("Concat", y, new["smoothed"], axis=-1)
    width = system.outputs + (system.inputs if "smoothed" in held and not {"sum", "count"} <= set(held) else 0)
    outputs = [(y, ["b", width]), *zip(following, shapes, strict=True)]
    return net.model([*outputs, *((new[kind], shape) for kind, shape in zip(extras, more, strict=True))])


def _zeros(net: Net, x: str, shape: list[int | str], axis: int = 0) -> str:
    batch = net.op("Shape", x, start=axis, end=axis + 1)
    rest = net.ints(*(int(d) for d in shape[1:]))
    return net.op("ConstantOfShape", net.op("Concat", batch, rest, axis=0))


def as_scan(system: StateSpace, layout: str = "last", backward: bool = False, time_axis: int = 0) -> onnx.ModelProto:
    """`Scan` over dynamic batch and time; time is moved to the front, or scanned where it stands."""
    net, body = Net(), Net()
    x = net.input(["b", "t", system.inputs])
    moved = net.op("Transpose", x, perm=[1, 0, 2]) if time_axis == 0 else x
    shapes = state_shapes(system, layout, "b")
    starts = [_zeros(net, x, shape) for shape in shapes]
    states = [body.input(None) for _ in shapes]
    u = body.input(None)
    following, y = one_step(body, system, layout, u, states)
    graph = body.subgraph([(name, None) for name in [*following, y]])
    found = net.op(
        "Scan", *starts, moved, outputs=len(starts) + 1, body=graph, num_scan_inputs=1,
        scan_input_axes=[time_axis], scan_output_axes=[time_axis],
        scan_input_directions=[int(backward)], scan_output_directions=[int(backward)],
    )  # fmt: skip
    y = net.op("Transpose", found[-1], perm=[1, 0, 2]) if time_axis == 0 else found[-1]
    return net.model([(net.op("Tanh", y), ["b", "t", system.outputs])])


COLLECTED = ("scan", "sequence", "buffer", "turned", "flat", "grown")


def as_loop(
    system: StateSpace, layout: str = "last", collect: str = "scan", counted: bool = False, backward: bool = False
) -> onnx.ModelProto:
    """`Loop` whose body picks its step from the whole sequence, that it captures or carries along.

    Its outputs are collected by "scan" outputs, in a "sequence", or in a buffer into which every trip writes: (time,
    batch, ...) as it is ("buffer"), (batch, time, ...) "turned" for the scatter and back (torch's while_loop), "flat"
    by an index for every number (JAX's dynamic_update_slice), or in a tensor that is "grown" by a step a trip.
    `counted`: it ends when a counter that it carries says so. `backward`: the last step comes first, which only tensors
    that are written to can undo.
    """
    net, body = Net(), Net()
    x = net.input(["b", "t", system.inputs])
    length = net.op("Shape", x, start=1, end=2)
    trips = net.const(np.int64(2**63 - 1)) if counted else net.op("Squeeze", length)
    shapes = state_shapes(system, layout, "b")
    starts = [_zeros(net, x, shape) for shape in shapes]
    step, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    states = [body.input(None) for _ in shapes]
    if counted:
        starts.append(net.const(np.int64(0)))
        step = body.input([], TensorProto.INT64)
        on = body.op("Add", step, body.const(np.int64(1)))
        end = body.op("Less", on, body.op("Squeeze", length))
    else:
        end = body.op("Identity", going)
    place = step
    if backward:
        first = body.op("Squeeze", body.op("Sub", length, body.ints(1)))
        place = body.op("Add", first, body.op("Mul", step, body.const(np.int64(-1))))
    u = _step_picked(body, x, place) if collect == "flat" else body.op("Gather", x, place, axis=1)
    following, y = one_step(body, system, layout, u, states)
    results = [*following, on] if counted else following
    extra = []
    if collect == "sequence":
        held = body.fresh()
        body.inputs.append(helper.make_value_info(held, SEQUENCE))
        extra.append(net.op("SequenceEmpty"))
        y = body.op("SequenceInsert", held, y)
    elif collect != "scan":
        sizes = [length, net.op("Shape", x, end=1)]
        sizes = [net.ints(0), sizes[1]] if collect == "grown" else sizes
        size = net.op("Concat", *(sizes if collect == "buffer" else sizes[::-1]), net.ints(system.outputs), axis=0)
        extra.append(net.op("ConstantOfShape", size))
        held = body.input(None)
        write = _put_in_front if collect == "grown" and backward else WRITTEN[collect]
        y = write(body, held, y, place)
    graph = body.subgraph(
        [(end, None), *((name, None) for name in results), (y, None)],
        {end: TensorProto.BOOL, **({on: TensorProto.INT64} if counted else {})},
    )
    if collect == "sequence":
        graph.output[-1].CopyFrom(helper.make_value_info(y, SEQUENCE))
    found = net.op("Loop", trips, net.const(np.asarray(True)), *starts, *extra, outputs=len(results) + 1, body=graph)
    y = found[-1]
    if collect == "sequence":
        y = net.op("ConcatFromSequence", y, axis=1, new_axis=1)
    elif collect in ("scan", "buffer"):
        y = net.op("Transpose", y, perm=[1, 0, 2])
    return net.model([(net.op("Tanh", y), ["b", "t", system.outputs])])


SEQUENCE = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))


def _step_picked(body: Net, x: str, place: str) -> str:
    """JAX's dynamic_slice: a number below zero would be counted from the end, then all three axes are sliced."""
    size = body.op("Squeeze", body.op("Shape", x, start=1, end=2))
    below = body.op("Less", place, body.const(np.int64(0)))
    place = body.op("Where", below, body.op("Add", place, size), place)
    start = body.op("Concat", body.ints(0), body.op("Unsqueeze", place, body.ints(0)), body.ints(0), axis=0)
    ends = body.op("Concat", body.op("Shape", x, end=1), body.ints(1), body.op("Shape", x, start=2), axis=0)
    part = body.op("Slice", x, start, body.op("Add", start, ends), body.ints(0, 1, 2))
    return str(body.op("Squeeze", part, body.ints(1)))


def _written(body: Net, held: str, y: str, place: str) -> str:
    return str(
        body.op("ScatterND", held, body.op("Reshape", place, body.ints(1, 1)), body.op("Unsqueeze", y, body.ints(0)))
    )


def _written_turned(body: Net, held: str, y: str, place: str) -> str:
    index = body.op("Unsqueeze", body.op("Reshape", place, body.ints(-1)), body.ints(-1))
    new = body.op("Transpose", body.op("Unsqueeze", y, body.ints(1)), perm=[1, 0, 2])
    done = body.op("ScatterND", body.op("Transpose", held, perm=[1, 0, 2]), index, new)
    return str(body.op("Transpose", done, perm=[1, 0, 2]))


def _written_flat(body: Net, held: str, y: str, place: str) -> str:
    """An index of three numbers for every element of the step, kept inside the buffer."""
    new = body.op("Unsqueeze", y, body.ints(1))
    shape, whole = body.op("Shape", new), body.op("Shape", held)
    zero, one = body.const(np.int64(0)), body.const(np.int64(1))
    columns = []
    for axis in range(3):
        size, room = (body.op("Gather", s, body.const(np.int64(axis)), axis=0) for s in (shape, whole))
        start = place if axis == 1 else zero
        start = body.op("Min", body.op("Max", start, zero), body.op("Sub", room, size))
        steps = body.op("Unsqueeze", body.op("Range", zero, size, one), body.ints(*(k for k in range(3) if k != axis)))
        index = body.op("Add", body.op("Expand", start, shape), body.op("Expand", steps, shape))
        columns.append(body.op("Unsqueeze", index, body.ints(-1)))
    index = body.op("Reshape", body.op("Concat", *columns, axis=-1), body.ints(-1, 3))
    return str(body.op("ScatterND", held, index, body.op("Reshape", new, body.ints(-1))))


def _grown(body: Net, held: str, y: str, place: str) -> str:
    """torch.cat of what there is and one step more, in a scripted loop."""
    return str(body.op("Concat", held, body.op("Unsqueeze", y, body.ints(1)), axis=1))


def _put_in_front(body: Net, held: str, y: str, place: str) -> str:
    return str(body.op("Concat", body.op("Unsqueeze", y, body.ints(1)), held, axis=1))


WRITTEN = {"buffer": _written, "turned": _written_turned, "flat": _written_flat, "grown": _grown}


def as_unrolled(system: StateSpace, steps: int, layout: str = "last") -> onnx.ModelProto:
    """Every step written out; what the first makes of zero states is left out, as exporters do."""
    net = Net()
    x = net.input(["b", steps, system.inputs])
    a, b, c, d = matrices(system)
    states: list[str] | None = None
    outputs = []
    for k in range(steps):
        u = net.op("Gather", x, net.const(np.int64(k)), axis=1)
        v = drive(net, u, b.astype(complex) if system.is_complex else b)
        states = v if states is None else advance(net, a.astype(complex) if system.is_complex else a, states, v)
        outputs.append(net.op("Unsqueeze", read(net, states, u, c, d), net.ints(1)))
    y = net.op("Concat", *outputs, axis=1)
    return net.model([(net.op("Tanh", y), ["b", steps, system.outputs])])
