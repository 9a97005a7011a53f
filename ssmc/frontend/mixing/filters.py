"""Kernels as ops of the new graph: a delay, a short filter, a linear system, or taps as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ssmc.frontend.findings import Lift, Replacement
from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.frontend.graph.flow import Flow, wrap
from ssmc.frontend.mixing.fitting import EXACT, Fit, generated
from ssmc.frontend.mixing.generators import generators, shared_mode
from ssmc.frontend.mixing.identified import Part, identified
from ssmc.frontend.mixing.lti import Kernels
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.shared import Together, together
from ssmc.frontend.mixing.tails import lasting
from ssmc.frontend.source.precision import stored_rounding
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import StreamType

CUT = 0.1  # of the tolerance: all taps together that a filter may end without (ours)
TINY = 1e-300
FEW = 2  # lags that are delays and factors, no filter
SHORT = 16  # taps of a filter that is not worth a system


def emit_kernels(translator: Translator, region: Region, kernels: Kernels, tolerance: float) -> Flow:
    """The region's target as a flow: what its kernels do, in ops."""
    builder, emitter = translator.builder, emitter_of(translator, region, kernels, tolerance)
    y = emitter.causal(kernels.causal, reverse=False)
    if kernels.future is not None:
        ahead = np.concatenate([np.zeros((*kernels.future.shape[:2], 1)), kernels.future], axis=2)
        later = emitter.causal(ahead, reverse=True)
        y = later if y is None else builder.binary("add", y, later) if later is not None else y
    return emitter.target(y)


def emitter_of(translator: Translator, region: Region, kernels: Kernels, tolerance: float) -> Emitter:
    """An emitter for the kernels of a region, all its inputs beside each other."""
    builder = translator.builder
    u = builder.concat([builder.reshape(f.value, (prod(f.features),)) for f in region.flows], -1)
    assert isinstance(u, Value)
    return Emitter(translator, region, kernels, u, tolerance)


@dataclass(eq=False)
class Emitter:
    translator: Translator
    region: Region
    kernels: Kernels
    u: Value
    tolerance: float

    @property
    def builder(self) -> Builder:
        return self.translator.builder

    def target(self, y: Operand | None) -> Flow:
        """What the region gives, from what its kernels do (None: nothing)."""
        builder, axes = self.builder, self.kernels.axes
        shape = tuple(d for d, a in zip(self.region.shape, axes, strict=True) if a == "f")
        if y is None:
            y = builder.binary("mul", self.inputs(0), np.zeros(1))
        if np.any(self.kernels.offset):
            y = builder.binary("add", y, self.kernels.offset)
        if not isinstance(y, Value) or not isinstance(builder.graph.type(y), StreamType):
            y = builder.stream(y, self.u)
        found = wrap(builder.reshape(y, shape), axes, self.region.shape)
        assert isinstance(found, Flow)
        return found

    def inputs(self, j: int) -> Operand:
        return self.taken(self.kernels.inputs[:, j])

    def taken(self, index: Array) -> Operand:
        if np.array_equal(index, np.arange(self.builder.features(self.u)[0])):
            return self.u
        return self.builder.emit("take", [self.u], axis=-1, index=Tensor(index))

    def causal(self, taps: Array, reverse: bool) -> Operand | None:
        """y_k = sum_j sum_l taps[o, j, l] u[k - l], time reversed where asked; None if all taps are zero."""
        used = np.flatnonzero(np.abs(taps).max(axis=(0, 1)))
        if not len(used):
            return None
        if (len(used) <= FEW and taps.shape[1] > 1) or len(used) == 1:
            return self._lags(taps, used, reverse)
        last = int(used[-1]) + 1
        if last <= max(SHORT, 2) and last <= taps.shape[2] // 2:
            return self._lags(taps, used, reverse) if taps.shape[1] > 1 else self._fir(taps[:, 0, :last], reverse)
        if (fit := self._fit(taps)) is not None:
            u = self.taken(self.kernels.inputs.reshape(-1))
            return self.system(u, *fit, taps.shape, reverse, identified=False)
        fine = self.tolerance * self.translator.findings.share
        shared = list(together(taps, self.kernels.inputs, fine, self.translator.dynamic)) if fine else []
        found = [self._together(one, taps.shape[2], reverse) for one in shared]
        done = [one.outputs for one in shared]
        left = np.setdiff1d(np.arange(len(taps)), np.concatenate([np.zeros(0, int), *done]))
        if len(left):
            alone = replace(self, kernels=replace(self.kernels, inputs=self.kernels.inputs[left]))
            found.append(alone.one_by_one(taps[left], last, reverse))
            done.append(left)
        return self._in_order(found, done)

    def _together(self, one: Together, length: int, reverse: bool) -> Operand:
        what = "outputs of one input" if len(one.inputs) == 1 else f"outputs of {len(one.inputs)} inputs"
        how = f"identified from the taps, {len(one.outputs)} {what} together"
        shape = len(one.outputs), len(one.inputs), length
        return self.system(self.taken(one.inputs), one.fit, how, shape, reverse, joint=len(one.inputs) > 1)

    def one_by_one(self, taps: Array, last: int, reverse: bool) -> Operand:
        """Kernels that share no poles; they end after `last` taps."""
        if taps.shape[1] > 1:
            few = np.count_nonzero(np.abs(taps).max(axis=0), axis=1) <= FEW
            return (
                self._firs(taps[..., :last], reverse) if few.all() or not few.any() else self._apart(taps, few, reverse)
            )
        parts, how = systems_of(self.translator, taps[:, 0], self.tolerance)
        if not parts:
            return self._fir(taps[:, 0, :last], reverse, remark=how)
        return self._side_by_side(parts, taps[:, 0, :last], reverse, how)

    def _apart(self, taps: Array, few: Array, reverse: bool) -> Operand:
        """The inputs of which few lags count, as of a direct term D u beside a convolution, apart from the others."""
        total: Operand | None = None
        for some in (few, ~few):
            kernels = replace(self.kernels, inputs=self.kernels.inputs[:, some])
            part = replace(self, kernels=kernels).causal(taps[:, some], reverse)
            if part is not None:
                total = part if total is None else self.builder.binary("add", total, part)
        assert total is not None
        return total

    def _in_order(self, found: list[Operand], outputs: list[Array]) -> Operand:
        """Values that have these outputs of all, as one."""
        order = np.argsort(np.concatenate(outputs))
        y = self.builder.concat(found, -1)
        if np.array_equal(order, np.arange(len(order))):
            return y
        return self.builder.emit("take", [y], axis=-1, index=Tensor(order))

    def _side_by_side(self, parts: list[Part], taps: Array, reverse: bool, remark: str) -> Operand:
        """Channels that became systems, and the others (if any) as the filters that they are."""
        inputs, done = self.kernels.inputs[:, 0], [part.channels for part in parts]
        found = [self._part(part, taps, reverse) for part in parts]
        left = np.setdiff1d(np.arange(len(taps)), np.concatenate(done))
        if len(left):
            found.append(self._fir(taps[left], reverse, self.taken(inputs[left]), remark))
            done.append(left)
        return self._in_order(found, done)

    def _part(self, part: Part, taps: Array, reverse: bool) -> Operand:
        u = self.taken(self.kernels.inputs[part.channels, 0])
        shape = (len(part.channels), 1, taps.shape[1])
        y = self.system(self.delayed(u, part.delay, reverse), part.fit, part.how, shape, reverse)
        if part.head is None:
            return y
        used = np.flatnonzero(np.abs(part.head).max(axis=0))
        if len(used) > 2:
            first, _ = self.builder.recurrent("fir", [u], kernel=Tensor(part.head), reverse=reverse)
            return self.builder.binary("add", y, first)
        for lag in used:
            x = self.delayed(u, int(lag), reverse)
            y = self.builder.binary("add", y, self.builder.binary("mul", x, part.head[:, lag]))
        return y

    def system(
        self,
        u: Operand,
        fit: Fit,
        how: str,
        shape: tuple[int, ...],
        reverse: bool,
        identified: bool = True,
        joint: bool = False,
    ) -> Operand:
        y, final = self.builder.recurrent("ssm", [u], system=fit.system, reverse=reverse)
        kernels = shape[0] * shape[1]
        replacement = Replacement(f"became systems, {how}", kernels, shape[2], fit.error, fit.l1, identified)
        self._note(final, max(fit.error, fit.output_error), replacement, joint)
        return y

    @property
    def _uneven(self) -> float:
        """How far the file's own kernel is from being the same at every step, where its tables have few digits."""
        return self.kernels.error if self.kernels.error > self.tolerance and self.region.stored else 0.0

    def _note(self, value: Value, error: float, replacement: Replacement, joint: bool = False) -> None:
        if self._uneven:
            how = f"{replacement.how}; the file's tables have few digits, and its steps differ by {self._uneven:.0e}"
            replacement, error = replace(replacement, how=how, identified=False), max(error, self._uneven)
        lift = Lift(value.node, disguise_of(self.region), self.region.provenance, error, replacement, joint)
        self.translator.findings.lifts.append(lift)

    def _lags(self, taps: Array, used: Array, reverse: bool) -> Operand | None:
        """A few lags: delays and matrices (diagonal where every output has an input of its own)."""
        builder = self.builder
        total: Operand | None = None
        for lag in used:
            x = self.delayed(self.u, int(lag), reverse)
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

    def delayed(self, x: Operand, steps: int, reverse: bool) -> Operand:
        if not steps:
            return x
        x = self.builder.reverse(x) if reverse else x
        x = self.builder.add("delay", [x], steps=steps)
        return self.builder.reverse(x) if reverse else x

    def _fir(self, taps: Array, reverse: bool, u: Operand | None = None, remark: str = "") -> Operand:
        u = self.inputs(0) if u is None else u
        kept = taps[:, : self._end(taps)]
        gone = np.abs(taps[:, kept.shape[1] :])
        y, final = self.builder.recurrent("fir", [u], kernel=Tensor(kept), reverse=reverse)
        if taps.shape[1] <= SHORT and not self._uneven and not gone.size:
            lift = Lift(final.node, disguise_of(self.region), self.region.provenance, 0.0)
            self.translator.findings.filters.append(lift)
        else:
            how = "stay FIR filters"
            if kept.shape[1] > SHORT and self.translator.findings.share:
                how += f": no system of half as many states was found within {self.tolerance:.0e} of them{remark}"
            elif kept.shape[1] > SHORT:
                how += ": what systems that are near them do to outputs is too much"
            rounding = stored_rounding(self.translator.listing, self.region.known)
            if rounding > self.tolerance:
                how += f"; the file itself rounds them by {rounding:.0e}"
            if not gone.size:
                self._note(final, 0.0, Replacement(how, *taps.shape))
                return y
            how += f"; the last {gone.shape[1]} taps, which are as good as zero, are left out"
            residual = float((gone.max(axis=1) / np.maximum(np.abs(taps).max(axis=1), TINY)).max())
            l1 = float(gone.sum(axis=1).max())
            self._note(final, residual, Replacement(how, len(taps), taps.shape[1], residual, l1))
        return y

    def _end(self, taps: Array) -> int:
        """How many taps there are up to those that add up to nothing, as what a transform leaves behind a kernel."""
        size = np.abs(taps)
        behind = np.cumsum(size[:, ::-1], axis=1)[:, ::-1]  # of a tap and all after it
        least = CUT * self.tolerance * self.translator.findings.share * size.max(axis=1, keepdims=True)
        used = np.flatnonzero((behind > least).any(axis=0))
        return int(used[-1]) + 1 if len(used) else taps.shape[1]

    def _firs(self, taps: Array, reverse: bool) -> Operand:
        total = self._fir(taps[:, 0], reverse)
        for j in range(1, taps.shape[1]):
            total = self.builder.binary("add", total, self._fir(taps[:, j], reverse, self.inputs(j)))
        return total

    # -- systems -------------------------------------------------------------------------------------------

    def _fit(self, taps: Array) -> tuple[Fit, str] | None:
        """A system for every channel, and how it was found: one mode each, or modes that the file tells."""
        channels, _, length = taps.shape
        lone = shared_mode(taps)
        if lone is not None:
            enough = max(min(self.tolerance, 1e-6), 2 * lone.rounding)
            fit = generated(taps, lone, enough)
            if fit is not None and fit.error <= enough:
                return fit, "one mode each"
        for generator in generators(self.translator, self.region, channels, length):
            # Where the table itself is rounded, the kernel cannot be closer to powers than the table is.
            enough = max(EXACT, min(self.tolerance, 1e-6), 2 * generator.rounding)
            fit = generated(taps, generator, enough)
            if fit is not None and fit.error <= enough:
                return fit, "whose poles stand in the file"
        return None


def systems_of(translator: Translator, taps: Array, tolerance: float) -> tuple[list[Part], str]:
    """Systems for kernels (outputs, L) of one input each, and a remark on those that none serves."""
    tolerance *= translator.findings.share
    if not tolerance:
        return [], ""
    parts, how = identified(taps, tolerance)
    return lasting(parts, taps, tolerance, translator.dynamic), how


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
