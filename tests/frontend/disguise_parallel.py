"""The disguiser, for forms that take all steps at once: convolutions, and scans in parallel.

The models are those of `disguise`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from ssmc.statespace import StateSpace, kernel
from tests.frontend.disguise import advance, drive, matrices, read
from tests.frontend.net import Net


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


def fft_product(net: Net, signal: str, taps: str, steps: int) -> str:
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
    y = fft_product(net, signal, net.op("Unsqueeze", taps, net.ints(0)), steps)
    return net.op("Add", y, net.op("Mul", net.const(system.D[:, 0]), signal))


def _fft_constant(net: Net, system: StateSpace, steps: int, signal: str) -> str:
    return fft_product(net, signal, net.const(kernel(system, steps)[None, :, 0, 0]), steps)


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
    v = drive(net, x, b.astype(complex) if system.is_complex else b)
    span = 1
    while span < steps:
        power = a**span
        heads = [net.op("Slice", p, net.ints(0), net.ints(span), net.ints(1)) for p in v]
        tails = [net.op("Slice", p, net.ints(span), net.ints(steps), net.ints(1)) for p in v]
        before = [net.op("Slice", p, net.ints(0), net.ints(steps - span), net.ints(1)) for p in v]
        later = advance(net, power.astype(complex) if system.is_complex else power, before, tails)
        v = [net.op("Concat", head, tail, axis=1) for head, tail in zip(heads, later, strict=True)]
        span *= 2
    return net.model([(net.op("Tanh", read(net, v, x, c, d)), ["b", steps, system.outputs])])


def _times(net: Net, a: np.ndarray, x: list[str]) -> list[str]:
    """a x in parts, a a table (steps, states)."""
    if len(x) == 1:
        return [net.op("Mul", net.const(a), x[0])]
    re, im = net.const(a.real), net.const(a.imag)
    return [
        net.op("Sub", net.op("Mul", re, x[0]), net.op("Mul", im, x[1])),
        net.op("Add", net.op("Mul", re, x[1]), net.op("Mul", im, x[0])),
    ]


def _tree(net: Net, a: np.ndarray, v: list[str], axis: int = 1, empty: bool = False) -> list[str]:
    """All partial results of (a, v), the odd ones by recursion on pairs, the even ones from those.

    `empty`: what has no steps is joined as well, as where torch traces the same lines at every level.
    """
    steps = len(a)
    if steps < 2:
        return v

    def every_second(x: list[str], start: int, stop: int) -> list[str]:
        return [net.op("Slice", p, net.ints(start), net.ints(stop), net.ints(axis), net.ints(2)) for p in x]

    first, second = every_second(v, 0, steps - 1), every_second(v, 1, steps)
    pairs = [net.op("Add", p, q) for p, q in zip(_times(net, a[1::2], first), second, strict=True)]
    powers = (a[1::2] * a[: steps - 1 : 2]).astype(np.complex64 if np.iscomplexobj(a) else np.float32)
    odd = _tree(net, powers.astype(a.dtype), pairs, axis, empty)
    before = odd if steps % 2 else [net.op("Slice", p, net.ints(0), net.ints(-1), net.ints(axis)) for p in odd]
    later = [net.op("Slice", p, net.ints(0), net.ints(1), net.ints(axis)) for p in v]
    if steps > 2 or empty:
        moved = zip(_times(net, a[2::2], before), every_second(v, 2, steps), strict=True)
        later = [net.op("Concat", p, net.op("Add", *m), axis=axis) for p, m in zip(later, moved, strict=True)]
    half, found = steps // 2, []
    for even, uneven in zip(later, odd, strict=True):
        whole = net.op("Slice", even, net.ints(0), net.ints(half), net.ints(axis)) if steps % 2 or empty else even
        both = net.op("Concat", *(net.op("Unsqueeze", p, net.ints(axis + 1)) for p in (whole, uneven)), axis=axis + 1)
        shape = [2 * half, -1] if axis == 0 else [0, 2 * half]
        joined = net.op("Reshape", both, net.ints(*shape, a.shape[-1]))
        last = [net.op("Slice", even, net.ints(half), net.ints(half + 1), net.ints(axis))] if steps % 2 or empty else []
        found.append(net.op("Concat", joined, *last, axis=axis) if last else joined)
    return found


def as_tree_scan(system: StateSpace, steps: int, time_first: bool = False, empty: bool = False) -> onnx.ModelProto:
    """The associative scan of JAX, unrolled; every power of A is a table in the file, rounded to float32.

    `time_first`: over (time, batch, states), as torch's own. `empty`: parts of no steps are joined, too.
    """
    net = Net()
    x = net.input(["b", steps, system.inputs])
    a, b, c, d = matrices(system)
    v = drive(net, x, b.astype(complex) if system.is_complex else b)
    if time_first:
        v = [net.op("Transpose", p, perm=[1, 0, 2]) for p in v]
        states = _tree(net, np.repeat(a[None], steps, axis=0)[:, None], v, 0)
        states = [net.op("Transpose", p, perm=[1, 0, 2]) for p in states]
    else:
        states = _tree(net, np.repeat(a[None], steps, axis=0), v, empty=empty)
    return net.model([(net.op("Tanh", read(net, states, x, c, d)), ["b", steps, system.outputs])])


def as_cumulative_sum(system: StateSpace, steps: int) -> onnx.ModelProto:
    """x_k = a^k sum_j a^-j v_j, the powers from exp; for real positive decays."""
    net = Net()
    x = net.input(["b", steps, system.inputs])
    a, b, c, d = matrices(system)
    exponent = net.op("Mul", net.const(np.arange(float(steps))[:, None]), net.const(np.log(a)))
    grown = net.op("Mul", net.op("MatMul", x, net.const(b.T)), net.op("Exp", net.op("Neg", exponent)))
    total = net.op("Mul", net.op("CumSum", grown, net.const(np.int64(1))), net.op("Exp", exponent))
    return net.model([(net.op("Tanh", read(net, [total], x, c, d)), ["b", steps, system.outputs])])
