"""Kernels as ops of the new graph: a delay, a short filter, a linear system, or taps as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ssmc.frontend.findings import Lift, Replacement
from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.frontend.graph.flow import Flow, wrap
from ssmc.frontend.mixing.generators import Generator, generators, polished, shared_mode
from ssmc.frontend.mixing.lti import Kernels
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.source.precision import stored_rounding
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import StreamType
from ssmc.statespace import StateSpace, identify, kernel
from ssmc.statespace.residues import least_squares, refine

SHORT = 16  # taps of a filter that is not worth a system
EXACT = 1e-9
AHEAD = 0.1  # ours: of the tolerance, below which taps are none that stand in front of all others
FEW = 4  # kernels of a layer that are tried first, as one that stays a filter makes all stay (ours)
NEAR = 1e-2  # relative to the largest tap: a miss that is worth telling (ours)
ANALYTIC = 1e-5  # ours: between i and the ratio of two gains that are the parts of one complex input (float32)
SMALL_CHANGES = 1e-2  # ours: restraint on the correction of residues that a table tells
INFLATION = 3.0  # ours: how much larger the residues may be that fit the taps better than the table does
ADDS_UP = 1e-6  # ours: relative to the largest tap, between the sum of a table's rows and the kernel (float32)


@dataclass(frozen=True, eq=False)
class Fit:
    """A system of one group per channel; `error` is max|h - h'| / max|h| of the worst.

    `output_error` is ||h - h'||_2 / ||h||_2 of the worst: what white noise as input makes of it at the output. `l1` is
    ||h - h'||_1 of the worst output, over all its inputs.
    """

    system: StateSpace
    error: float
    output_error: float
    l1: float


def emit_kernels(translator: Translator, region: Region, kernels: Kernels, tolerance: float) -> Flow:
    """The region's target as a flow: what its kernels do, in ops."""
    builder = translator.builder
    flat = [builder.reshape(f.value, (prod(f.features),)) for f in region.flows]
    u = builder.concat(flat, -1)
    assert isinstance(u, Value)
    emitter = _Emitter(translator, region, kernels, u, tolerance)
    y = emitter.causal(kernels.causal, reverse=False)
    if kernels.future is not None:
        ahead = np.concatenate([np.zeros((*kernels.future.shape[:2], 1)), kernels.future], axis=2)
        later = emitter.causal(ahead, reverse=True)
        y = later if y is None else builder.binary("add", y, later) if later is not None else y
    shape = tuple(d for d, a in zip(region.shape, kernels.axes, strict=True) if a == "f")
    if y is None:
        y = builder.binary("mul", emitter.inputs(0), np.zeros(1))
    if np.any(kernels.offset):
        y = builder.binary("add", y, kernels.offset)
    if not isinstance(y, Value) or not isinstance(builder.graph.type(y), StreamType):
        y = builder.stream(y, u)
    found = wrap(builder.reshape(y, shape), kernels.axes, region.shape)
    assert isinstance(found, Flow)
    return found


@dataclass(eq=False)
class _Emitter:
    translator: Translator
    region: Region
    kernels: Kernels
    u: Value
    tolerance: float

    @property
    def builder(self) -> Builder:
        return self.translator.builder

    def inputs(self, j: int) -> Operand:
        return self._taken(self.kernels.inputs[:, j])

    def _taken(self, index: Array) -> Operand:
        if np.array_equal(index, np.arange(self.builder.features(self.u)[0])):
            return self.u
        return self.builder.emit("take", [self.u], axis=-1, index=Tensor(index))

    def causal(self, taps: Array, reverse: bool) -> Operand | None:
        """y_k = sum_j sum_l taps[o, j, l] u[k - l], time reversed where asked; None if all taps are zero."""
        used = np.flatnonzero(np.abs(taps).max(axis=(0, 1)))
        if not len(used):
            return None
        if (len(used) <= 2 and taps.shape[1] > 1) or len(used) == 1:
            return self._lags(taps, used, reverse)
        last = int(used[-1]) + 1
        if last <= max(SHORT, 2) and last <= taps.shape[2] // 2:
            return self._lags(taps, used, reverse) if taps.shape[1] > 1 else self._fir(taps[:, 0, :last], reverse)
        fit, how = self._fit(taps)
        size = np.abs(taps).max(axis=(0, 1))
        delay = int(np.flatnonzero(size > AHEAD * self.tolerance * size.max())[0])
        if fit is None and delay > 1:
            fit, how = self._fit_behind(taps, delay, how)
        else:
            delay = 0
        if fit is None:
            one = taps.shape[1] == 1
            return self._fir(taps[:, 0, :last], reverse, 0, how) if one else self._firs(taps[..., :last], reverse)
        u = self._delayed(self._taken(self.kernels.inputs.reshape(-1)), delay, reverse)
        y, final = self.builder.recurrent("ssm", [u], system=fit.system, reverse=reverse)
        size = taps.shape[0] * taps.shape[1], taps.shape[2]
        replacement = Replacement(f"became systems, {how}", *size, fit.error, fit.l1)
        self._note(final, max(fit.error, fit.output_error), replacement)
        return y

    @property
    def _uneven(self) -> float:
        """How far the file's own kernel is from being the same at every step, where its tables have few digits."""
        return self.kernels.error if self.kernels.error > self.tolerance and self.region.stored else 0.0

    def _note(self, value: Value, error: float, replacement: Replacement) -> None:
        if self._uneven:
            how = f"{replacement.how}; the file's tables have few digits, and its steps differ by {self._uneven:.0e}"
            replacement, error = replace(replacement, how=how), max(error, self._uneven)
        lift = Lift(value.node, disguise_of(self.region), self.region.provenance, error, replacement)
        self.translator.findings.lifts.append(lift)

    def _lags(self, taps: Array, used: Array, reverse: bool) -> Operand | None:
        """A few lags: delays and matrices (diagonal where every output has an input of its own)."""
        builder = self.builder
        total: Operand | None = None
        for lag in used:
            x = self._delayed(self.u, int(lag), reverse)
            if taps.shape[1] == 1:
                x = builder.emit("take", [x], axis=-1, index=Tensor(self.kernels.inputs[:, 0]))
                part = builder.binary("mul", x, taps[:, 0, lag])
            else:
                matrix = np.zeros((builder.features(self.u)[0], len(taps)))
                for j in range(taps.shape[1]):
                    np.add.at(matrix, (self.kernels.inputs[:, j], np.arange(len(taps))), taps[:, j, lag])
                part = builder.linear(x, matrix)
            total = part if total is None else builder.binary("add", total, part)
        return total

    def _delayed(self, x: Operand, steps: int, reverse: bool) -> Operand:
        if not steps:
            return x
        x = self.builder.reverse(x) if reverse else x
        x = self.builder.add("delay", [x], steps=steps)
        return self.builder.reverse(x) if reverse else x

    def _fir(self, taps: Array, reverse: bool, j: int = 0, remark: str = "") -> Operand:
        y, final = self.builder.recurrent("fir", [self.inputs(j)], kernel=Tensor(taps), reverse=reverse)
        if taps.shape[1] <= SHORT and not self._uneven:
            lift = Lift(final.node, disguise_of(self.region), self.region.provenance, 0.0)
            self.translator.findings.filters.append(lift)
        else:
            how = f"stay FIR filters: no system of half as many states was found within {self.tolerance:.0e} of them"
            how += remark
            rounding = stored_rounding(self.translator.listing, self.region.known)
            if rounding > self.tolerance:
                how += f"; the file itself rounds them by {rounding:.0e}"
            self._note(final, 0.0, Replacement(how, *taps.shape))
        return y

    def _firs(self, taps: Array, reverse: bool) -> Operand:
        total = self._fir(taps[:, 0], reverse)
        for j in range(1, taps.shape[1]):
            total = self.builder.binary("add", total, self._fir(taps[:, j], reverse, j))
        return total

    # -- systems -------------------------------------------------------------------------------------------

    def _fit(self, taps: Array) -> tuple[Fit | None, str]:
        """A system for every channel, and how it was found: one mode each, modes that the file tells, or identified.

        Where there is none, what is to be said about that.
        """
        channels, width, length = taps.shape
        lone = shared_mode(taps)
        if lone is not None:
            fit = _generated(taps, lone)
            if fit.error <= max(min(self.tolerance, 1e-6), 2 * lone.rounding):
                return fit, "one mode each"
        for generator in generators(self.translator, self.region, channels, length):
            fit = _generated(taps, generator)
            # Where the table itself is rounded, the kernel cannot be closer to powers than the table is.
            if fit.error <= max(EXACT, min(self.tolerance, 1e-6), 2 * generator.rounding):
                return fit, "whose poles stand in the file"
        if width > 1 or length < 8:
            return None, ""
        if channels > 4 * FEW:
            few = np.linspace(0, channels - 1, FEW).astype(int)
            miss = identify(taps[few, 0], self.tolerance).residual.max()
            if miss > self.tolerance:  # one filter that stays is enough for all to stay
                return None, _nearest(miss)
        found = identify(taps[:, 0], self.tolerance)
        if found.system is None or found.system.states > length // 2:
            return None, _nearest(found.residual.max())
        return _measured(found.system, taps), "identified from the taps"

    def _fit_behind(self, taps: Array, delay: int, remark: str) -> tuple[Fit | None, str]:
        """A system for the taps behind a delay, which it would need as many states for as it has steps."""
        width, length = taps.shape[1:]
        if width > 1 or length - delay < 8:
            return None, remark
        found = identify(taps[:, 0, delay:], self.tolerance)
        if found.system is None or found.system.states > (length - delay) // 2:
            return None, remark
        fit, ahead = _measured(found.system, taps[..., delay:]), np.abs(taps[..., :delay])
        fit = replace(fit, l1=fit.l1 + float(ahead.sum(axis=(1, 2)).max()))
        return fit, f"identified from the taps behind a delay of {delay} steps"


def _nearest(miss: float) -> str:
    return f", the nearest is {miss:.0e} of the largest tap off" if miss < NEAR else ""


def _generated(taps: Array, generator: Generator) -> Fit:
    """Residues for the generator's poles, which are refined where the table was rounded."""
    told = _told(taps, generator)
    if told is not None and told.error <= EXACT:
        return told
    fit = _residues(taps, generator.poles)
    if fit.error > EXACT and taps.shape[1] == 1:
        finer = _residues(taps, _refined(taps, generator.poles))
        fit = finer if finer.error < fit.error else fit
    return fit if told is None or (fit.error <= told.error and _size(fit) <= INFLATION * _size(told)) else told


def _size(fit: Fit) -> float:
    """The largest product of an input and an output gain: what rounding them will be multiplied with."""
    return float(np.abs(fit.system.C.swapaxes(1, 2) * fit.system.B).max(initial=0.0))


def _refined(taps: Array, poles: Array) -> Array:
    """Poles (channels, modes) moved to where the taps (channels, 1, L) would have them."""
    at = np.arange(1, taps.shape[2])
    moved = np.array(poles, np.complex128)
    for row, channel in zip(moved, taps[:, 0], strict=True):
        start = least_squares(np.array(row), channel[1:])
        better = refine(start, channel[1:], at, EXACT, 1e-7)
        if better.worst < start.worst:
            row[:] = better.poles
    return moved


def _told(taps: Array, generator: Generator) -> Fit | None:
    """The system whose modes are the table's own rows, where they add up to the kernel; None where they do not.

    Solving for all residues at once is as ill-conditioned as the poles are close: many modes of huge amplitudes and
    opposite signs give the same taps. A row knows its own.
    """
    rows, at = generator.rows, generator.at
    if rows is None or at is None or taps.shape[1] > 1:
        return None
    scale = np.abs(taps).max(axis=(1, 2))
    missed = np.abs(rows.sum(axis=1) - taps[:, 0, at])[:, 1:].max(axis=1, initial=0.0)
    if (missed > ADDS_UP * scale).any():
        return None
    poles, residues = (
        a.reshape(generator.poles.shape) for a in polished(rows.reshape(-1, len(at)), at, generator.poles.reshape(-1))
    )
    fit = _system(taps, poles, residues[:, :, None])
    if fit.error <= EXACT:
        return fit
    missed = taps[:, 0] - kernel(fit.system, taps.shape[2])[:, 0, 0]
    for o, row in enumerate(missed):  # what float32 left in the table, as small changes of all residues
        residues[o] += 2 * least_squares(poles[o], row[1:], None, SMALL_CHANGES).residues
    return _system(taps, poles, residues[:, :, None])


def _residues(taps: Array, poles: Array) -> Fit:
    """The system with these poles (channels, modes) closest to taps (channels, width, L): residues in B, C = 1."""
    channels, width, _ = taps.shape
    poles = np.asarray(poles, np.complex128)
    b: Array = np.zeros((channels, poles.shape[1], width), np.complex128)
    for o in range(channels):
        for j in range(width):
            if np.any(taps[o, j]):
                fit = least_squares(poles[o].real + 1j * np.abs(poles[o].imag), taps[o, j, 1:])
                b[o, :, j] = 2 * fit.residues
    return _system(taps, poles, b)


def _system(taps: Array, poles: Array, b: Array) -> Fit:
    """The system of poles (channels, modes) and residues `b` (channels, modes, width), its first taps made exact."""
    channels, width, _ = taps.shape
    a = poles.real + 1j * np.abs(poles.imag)
    c: Array = np.ones((channels, 1, poles.shape[1]), np.complex128)
    if not np.any(a.imag):
        a, b, c = a.real, b.real, c.real
    direct = taps[:, None, :, 0] - (c @ b).real
    direct[np.abs(direct) <= 1e-12 * max(float(np.abs(taps).max(initial=0.0)), 1e-300)] = 0.0
    if width == 1:  # the usual form: B = 1, the residues in C
        b, c = np.ones((channels, poles.shape[1], 1)), b.swapaxes(1, 2)
    else:  # the first input a state hears it hears with gain 1
        b = _analytic(b) if width == 2 else b
        first = np.take_along_axis(b, np.argmax(np.abs(b) > 1e-9, axis=2)[:, :, None], axis=2)
        first = np.where(np.abs(first) > 1e-9, first, 1.0)
        b, c = b / first, c * first.swapaxes(1, 2)
    system = StateSpace(A=a, B=b, C=c, D=direct)
    return _measured(system, taps)


def _analytic(b: Array) -> Array:
    """Gains (channels, modes, 2) of the real and the imaginary part of one complex input, which are exactly i apart."""
    for turn in (1j, -1j):
        mean = (b[..., 0] + b[..., 1] / turn) / 2
        pair = np.stack([mean, turn * mean], axis=-1)
        b = np.where((np.abs(pair - b) <= ANALYTIC * np.abs(mean)[..., None]).all(axis=-1, keepdims=True), pair, b)
    return b


def _measured(system: StateSpace, taps: Array) -> Fit:
    """A system held against the taps (channels, width, L) that it is to have."""
    missed = kernel(system, taps.shape[2])[:, 0] - taps

    def worst(size: Callable[[Array], Array]) -> float:
        whole = size(taps)
        return float((size(missed) / np.where(whole > 0, whole, 1.0)).max(initial=0.0))

    return Fit(
        system,
        worst(lambda h: np.asarray(np.abs(h).max(axis=(1, 2)))),
        worst(lambda h: np.asarray(np.linalg.norm(h, axis=(1, 2)))),
        float(np.abs(missed).sum(axis=(1, 2)).max(initial=0.0)),
    )


def disguise_of(region: Region) -> str:
    """What the region looks like in the file."""
    kinds = {call.kind for call in region.calls}
    last = region.calls[-1]
    if last.kind == "Concat" and kinds & {"MatMul", "Einsum"} and "Slice" in kinds and len(last.operands) > 1:
        return "loop over chunks"
    for kind, name in (
        ("Scan", "loop over chunks"),
        ("Loop", "loop over chunks"),
        ("DFT", "FFT convolution"),
        ("CumSum", "cumulative sum"),
        ("CumProd", "cumulative product"),
        ("Conv", "convolution"),
    ):
        if kind in kinds:
            return name
    if region.fourier:
        return "FFT convolution"
    if "Slice" in kinds and len(region.calls) > 12:
        return "associative scan"
    return "Toeplitz product" if kinds & {"MatMul", "Einsum", "Gemm", "ReduceSum"} else "convolution"
