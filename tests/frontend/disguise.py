"""The disguiser: a discrete `StateSpace` as an ONNX model, in each form in which exporters write one.

Every model is x (batch, time, inputs) -> system -> tanh -> y (batch, time, outputs), a one-step model without the
time axes. Complex states are stored as `layout` says: "last" (a last axis of 2), "pair" (two tensors), "halves".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from ssmc.statespace import StateSpace, kernel
from tests.frontend.net import Net

LAYOUTS = ("last", "pair", "halves")


def matrices(system: StateSpace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A (S,), B (S, I), C (O, S), D (O, I) of all groups together, gain included."""

    def block(parts: np.ndarray) -> np.ndarray:
        groups, rows, columns = parts.shape
        whole = np.zeros((groups, rows, groups, columns), parts.dtype)
        whole[np.arange(groups), :, np.arange(groups)] = parts
        return whole.reshape(groups * rows, groups * columns)

    return system.A.reshape(-1), block(system.B), system.gain * block(system.C), block(system.D)


def _drive(net: Net, u: str, b: np.ndarray) -> list[str]:
    """B u, its real and imaginary part."""
    parts = [b.real, b.imag] if np.iscomplexobj(b) else [b]
    return [net.op("MatMul", u, net.const(part.T)) for part in parts]


def _read(net: Net, x: list[str], u: str, c: np.ndarray, d: np.ndarray) -> str:
    """Re(C x) + D u."""
    y = net.op("MatMul", x[0], net.const(c.real.T))
    if len(x) == 2:
        y = net.op("Sub", y, net.op("MatMul", x[1], net.const(np.imag(c).T)))
    return net.op("Add", y, net.op("MatMul", u, net.const(d.T))) if np.any(d) else y


def _advance(net: Net, a: np.ndarray, x: list[str], v: list[str]) -> list[str]:
    """a x + v, in parts."""
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
    v = _drive(net, u, b if not system.is_complex else b.astype(complex))
    following = _advance(net, a.astype(complex) if system.is_complex else a, x, v)
    seen = x if system.read_before else following
    return _pack(net, following, layout), _read(net, seen, u, c, d)


def as_step(system: StateSpace, layout: str = "last") -> onnx.ModelProto:
    """One step, its states inputs and outputs."""
    net = Net()
    u = net.input(["b", system.inputs])
    shapes = state_shapes(system, layout, "b")
    states = [net.input(shape) for shape in shapes]
    following, y = one_step(net, system, layout, u, states)
    outputs = [(net.op("Tanh", y), ["b", system.outputs]), *zip(following, shapes, strict=True)]
    return net.model(outputs)


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


COLLECTED = ("scan", "sequence", "buffer", "turned", "flat")


def as_loop(
    system: StateSpace, layout: str = "last", collect: str = "scan", counted: bool = False, backward: bool = False
) -> onnx.ModelProto:
    """`Loop` whose body picks its step from the whole sequence, that it captures or carries along.

    Its outputs are collected by "scan" outputs, in a "sequence", or in a buffer into which every trip writes: (time,
    batch, ...) as it is ("buffer"), (batch, time, ...) "turned" for the scatter and back (torch's while_loop), "flat"
    by an index for every number (JAX's dynamic_update_slice). `counted`: it ends when a counter that it carries says
    so. `backward`: the last step comes first, which only buffers can undo.
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
        size = net.op("Concat", *(sizes if collect == "buffer" else sizes[::-1]), net.ints(system.outputs), axis=0)
        extra.append(net.op("ConstantOfShape", size))
        y = WRITTEN[collect](body, body.input(None), y, place)
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


WRITTEN = {"buffer": _written, "turned": _written_turned, "flat": _written_flat}


def as_unrolled(system: StateSpace, steps: int, layout: str = "last") -> onnx.ModelProto:
    """Every step written out; what the first makes of zero states is left out, as exporters do."""
    net = Net()
    x = net.input(["b", steps, system.inputs])
    a, b, c, d = matrices(system)
    states: list[str] | None = None
    outputs = []
    for k in range(steps):
        u = net.op("Gather", x, net.const(np.int64(k)), axis=1)
        v = _drive(net, u, b.astype(complex) if system.is_complex else b)
        states = v if states is None else _advance(net, a.astype(complex) if system.is_complex else a, states, v)
        outputs.append(net.op("Unsqueeze", _read(net, states, u, c, d), net.ints(1)))
    y = net.op("Concat", *outputs, axis=1)
    return net.model([(net.op("Tanh", y), ["b", steps, system.outputs])])


def _siso(build: Callable[[Net, StateSpace, int, str], str]) -> Callable[[StateSpace, int], onnx.ModelProto]:
    """A convolution of channels (batch, channels, time), as a model."""

    def model(system: StateSpace, steps: int) -> onnx.ModelProto:
        net = Net()
        x = net.input(["b", steps, system.inputs])
        y = build(net, system, steps, net.op("Transpose", x, perm=[0, 2, 1]))
        return net.model([(net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1])), ["b", steps, system.outputs])])

    return model


def _spectrum(net: Net, signal: str, steps: int) -> list[str]:
    """Real and imaginary part of the transform of (..., time), padded to twice its length."""
    rank = 3
    padded = net.op("Pad", signal, net.ints(*([0] * (2 * rank - 1)), steps))
    spectrum = net.op("DFT", net.op("Unsqueeze", padded, net.ints(-1)), "", net.const(np.int64(2)), onesided=1)
    return [net.op("Slice", spectrum, net.ints(k), net.ints(k + 1), net.ints(3)) for k in range(2)]


def _fft_product(net: Net, signal: str, taps: str, steps: int) -> str:
    u, h = _spectrum(net, signal, steps), _spectrum(net, taps, steps)
    re = net.op("Sub", net.op("Mul", u[0], h[0]), net.op("Mul", u[1], h[1]))
    im = net.op("Add", net.op("Mul", u[0], h[1]), net.op("Mul", u[1], h[0]))
    both = net.op("Concat", re, im, axis=-1)
    y = net.op("DFT", both, net.const(np.int64(2 * steps)), net.const(np.int64(2)), inverse=1, onesided=1)
    y = net.op("Squeeze", net.op("Slice", y, net.ints(0), net.ints(1), net.ints(3)), net.ints(3))
    return net.op("Slice", y, net.ints(0), net.ints(steps), net.ints(2))


def _fft_generated(net: Net, system: StateSpace, steps: int, signal: str) -> str:
    """The kernel is made in the graph from tables of exp, cos and sin along time."""
    log = np.log(system.A.astype(complex))
    weights = system.gain * system.C[:, 0] * system.B[:, :, 0]
    table = np.arange(steps)
    decay = net.op("Exp", net.const(log.real[..., None] * table))
    phase = net.const(log.imag[..., None] * table)
    cos = net.op("Mul", net.const(weights.real[..., None]), net.op("Cos", phase))
    sin = net.op("Mul", net.const(np.imag(weights)[..., None]), net.op("Sin", phase))
    taps = net.op("ReduceSum", net.op("Mul", decay, net.op("Sub", cos, sin)), net.ints(1), keepdims=0)
    y = _fft_product(net, signal, net.op("Unsqueeze", taps, net.ints(0)), steps)
    return net.op("Add", y, net.op("Mul", net.const(system.D[:, 0]), signal))


def _fft_constant(net: Net, system: StateSpace, steps: int, signal: str) -> str:
    return _fft_product(net, signal, net.const(kernel(system, steps)[None, :, 0, 0]), steps)


def _conv(net: Net, system: StateSpace, steps: int, signal: str) -> str:
    taps = net.const(kernel(system, steps)[:, 0, :, ::-1])
    return net.op("Conv", signal, taps, group=system.groups, pads=[steps - 1, 0])


def _conv_sliced(net: Net, system: StateSpace, steps: int, signal: str) -> str:
    taps = net.const(kernel(system, steps)[:, 0, :, ::-1])
    y = net.op("Conv", signal, taps, group=system.groups, pads=[steps - 1, steps - 1])
    return net.op("Slice", y, net.ints(0), net.ints(steps), net.ints(2))


def _toeplitz(net: Net, system: StateSpace, steps: int, signal: str) -> str:
    taps = kernel(system, steps)[:, 0, 0]
    lag = np.arange(steps)[:, None] - np.arange(steps)[None]
    square = np.where(lag >= 0, taps[:, np.maximum(lag, 0)], 0.0)
    y = net.op("MatMul", net.const(square), net.op("Unsqueeze", signal, net.ints(3)))
    return net.op("Squeeze", y, net.ints(3))


as_fft = _siso(_fft_generated)
as_constant_fft = _siso(_fft_constant)
as_conv = _siso(_conv)
as_sliced_conv = _siso(_conv_sliced)
as_toeplitz = _siso(_toeplitz)
CONVOLUTIONS = (as_fft, as_constant_fft, as_conv, as_sliced_conv, as_toeplitz)


def as_associative_scan(system: StateSpace, steps: int) -> onnx.ModelProto:
    """Log-depth doubling (Hillis and Steele): x <- x + a^s shift(x, s), shifts by slices and concatenation."""
    net = Net()
    x = net.input(["b", steps, system.inputs])
    a, b, c, d = matrices(system)
    v = _drive(net, x, b.astype(complex) if system.is_complex else b)
    span = 1
    while span < steps:
        power = a**span
        heads = [net.op("Slice", p, net.ints(0), net.ints(span), net.ints(1)) for p in v]
        tails = [net.op("Slice", p, net.ints(span), net.ints(steps), net.ints(1)) for p in v]
        before = [net.op("Slice", p, net.ints(0), net.ints(steps - span), net.ints(1)) for p in v]
        later = _advance(net, power.astype(complex) if system.is_complex else power, before, tails)
        v = [net.op("Concat", head, tail, axis=1) for head, tail in zip(heads, later, strict=True)]
        span *= 2
    return net.model([(net.op("Tanh", _read(net, v, x, c, d)), ["b", steps, system.outputs])])


def _times(net: Net, a: np.ndarray, x: list[str]) -> list[str]:
    """a x in parts, a a table (steps, states)."""
    if len(x) == 1:
        return [net.op("Mul", net.const(a), x[0])]
    re, im = net.const(a.real), net.const(a.imag)
    return [
        net.op("Sub", net.op("Mul", re, x[0]), net.op("Mul", im, x[1])),
        net.op("Add", net.op("Mul", re, x[1]), net.op("Mul", im, x[0])),
    ]


def _tree(net: Net, a: np.ndarray, v: list[str], axis: int = 1) -> list[str]:
    """All partial results of (a, v), the odd ones by recursion on pairs, the even ones from those."""
    steps = len(a)
    if steps < 2:
        return v

    def every_second(x: list[str], start: int, stop: int) -> list[str]:
        return [net.op("Slice", p, net.ints(start), net.ints(stop), net.ints(axis), net.ints(2)) for p in x]

    first, second = every_second(v, 0, steps - 1), every_second(v, 1, steps)
    pairs = [net.op("Add", p, q) for p, q in zip(_times(net, a[1::2], first), second, strict=True)]
    powers = (a[1::2] * a[: steps - 1 : 2]).astype(np.complex64 if np.iscomplexobj(a) else np.float32)
    odd = _tree(net, powers.astype(a.dtype), pairs, axis)
    before = odd if steps % 2 else [net.op("Slice", p, net.ints(0), net.ints(-1), net.ints(axis)) for p in odd]
    later = [net.op("Slice", p, net.ints(0), net.ints(1), net.ints(axis)) for p in v]
    if steps > 2:
        moved = zip(_times(net, a[2::2], before), every_second(v, 2, steps), strict=True)
        later = [net.op("Concat", p, net.op("Add", *m), axis=axis) for p, m in zip(later, moved, strict=True)]
    half, found = steps // 2, []
    for even, uneven in zip(later, odd, strict=True):
        whole = net.op("Slice", even, net.ints(0), net.ints(half), net.ints(axis)) if steps % 2 else even
        both = net.op("Concat", *(net.op("Unsqueeze", p, net.ints(axis + 1)) for p in (whole, uneven)), axis=axis + 1)
        shape = [2 * half, -1] if axis == 0 else [0, 2 * half]
        joined = net.op("Reshape", both, net.ints(*shape, a.shape[-1]))
        last = [net.op("Slice", even, net.ints(half), net.ints(half + 1), net.ints(axis))] if steps % 2 else []
        found.append(net.op("Concat", joined, *last, axis=axis) if last else joined)
    return found


def as_tree_scan(system: StateSpace, steps: int, time_first: bool = False) -> onnx.ModelProto:
    """The associative scan of JAX, unrolled; every power of A is a table in the file, rounded to float32.

    `time_first`: over (time, batch, states), as torch's own.
    """
    net = Net()
    x = net.input(["b", steps, system.inputs])
    a, b, c, d = matrices(system)
    v = _drive(net, x, b.astype(complex) if system.is_complex else b)
    if time_first:
        v = [net.op("Transpose", p, perm=[1, 0, 2]) for p in v]
        states = _tree(net, np.repeat(a[None], steps, axis=0)[:, None], v, 0)
        states = [net.op("Transpose", p, perm=[1, 0, 2]) for p in states]
    else:
        states = _tree(net, np.repeat(a[None], steps, axis=0), v)
    return net.model([(net.op("Tanh", _read(net, states, x, c, d)), ["b", steps, system.outputs])])


def as_cumulative_sum(system: StateSpace, steps: int) -> onnx.ModelProto:
    """x_k = a^k sum_j a^-j v_j, the powers from exp; for real positive decays."""
    net = Net()
    x = net.input(["b", steps, system.inputs])
    a, b, c, d = matrices(system)
    exponent = net.op("Mul", net.const(np.arange(float(steps))[:, None]), net.const(np.log(a)))
    grown = net.op("Mul", net.op("MatMul", x, net.const(b.T)), net.op("Exp", net.op("Neg", exponent)))
    total = net.op("Mul", net.op("CumSum", grown, net.const(np.int64(1))), net.op("Exp", exponent))
    return net.model([(net.op("Tanh", _read(net, [total], x, c, d)), ["b", steps, system.outputs])])
