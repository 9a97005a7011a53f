"""Systems for kernels whose poles are known: what the poles multiply, and how near the kernels they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssmc.frontend.mixing.generators import Generator, polished
from ssmc.ir.op import Array
from ssmc.statespace import StateSpace, kernel
from ssmc.statespace.residues import least_squares, refine

EXACT = 1e-9
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


def generated(taps: Array, generator: Generator, enough: float) -> Fit | None:
    """Residues for the generator's poles, which are refined where the table was rounded and that gets every channel to
    an error of `enough`; None where the first channel alone tells that they are not the kernels' poles."""
    told = _told(taps, generator)
    if told is not None and told.error <= EXACT:
        return told
    if told is None and taps.shape[1] == 1 and _others(taps[0, 0], generator.poles[0], enough):
        return None
    fit = _residues(taps, generator.poles)
    if fit.error > EXACT and taps.shape[1] == 1:
        moved = _refined(taps, generator.poles, enough)
        finer = fit if moved is None else _residues(taps, moved)
        fit = finer if finer.error < fit.error else fit
    return fit if told is None or (fit.error <= told.error and _size(fit) <= INFLATION * _size(told)) else told


def _others(channel: Array, poles: Array, enough: float) -> bool:
    """Whether neither these poles nor poles close to them make a kernel (L,)."""
    most = enough * float(np.abs(channel).max())
    start = least_squares(poles.astype(np.complex128), channel[1:])
    if start.worst <= most:
        return False
    return refine(start, channel[1:], np.arange(1, len(channel)), EXACT, 1e-7).worst > most


def _size(fit: Fit) -> float:
    """The largest product of an input and an output gain: what rounding them will be multiplied with."""
    return float(np.abs(fit.system.C.swapaxes(1, 2) * fit.system.B).max(initial=0.0))


def _refined(taps: Array, poles: Array, enough: float) -> Array | None:
    """Poles (channels, modes) moved to where the taps (channels, 1, L) would have them; None as soon as a channel is
    off by more than `enough` all the same: these are not the kernels' poles."""
    at = np.arange(1, taps.shape[2])
    moved = np.array(poles, np.complex128)
    for row, channel in zip(moved, taps[:, 0], strict=True):
        start = least_squares(np.array(row), channel[1:])
        better = refine(start, channel[1:], at, EXACT, 1e-7)
        if min(better.worst, start.worst) > enough * np.abs(channel).max():
            return None
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
    return measured(system, taps)


def _analytic(b: Array) -> Array:
    """Gains (channels, modes, 2) of the real and the imaginary part of one complex input, which are exactly i apart."""
    for turn in (1j, -1j):
        mean = (b[..., 0] + b[..., 1] / turn) / 2
        pair = np.stack([mean, turn * mean], axis=-1)
        b = np.where((np.abs(pair - b) <= ANALYTIC * np.abs(mean)[..., None]).all(axis=-1, keepdims=True), pair, b)
    return b


def measured(system: StateSpace, taps: Array) -> Fit:
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
