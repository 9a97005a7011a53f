"""Kernels of one input each as systems that are identified from their taps, each channel by itself.

A channel that no system serves keeps its taps, whatever the others of its layer become. What stands in front of a
system - zeros, or taps of their own, as where a signal is added to its own past - is looked for where the whole kernel
is no system.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssmc.frontend.mixing.fitting import Fit, measured
from ssmc.ir.op import Array
from ssmc.statespace import COUPLED, Identification, StateSpace, identify, kernel, realize, side_by_side

FEW = 8  # kernels of a layer that are tried first: where none becomes a system, the others are not tried (ours)
AHEAD = 0.1  # ours: of the tolerance, below which taps are none that stand in front of all others
STARTS = 8  # delays of a layer's channels that are told apart (ours)
ENOUGH = 4  # of the kernels that are tried first: a way that served none of so many is not tried on the others (ours)
FRONT = (64, 16, 4)  # ours: shares of a kernel, 1 / n, that may stand in front of a system with taps of their own
WHOLE, LATER = 1, 0  # ways to a system: of the whole kernel, or of what comes behind a delay
NEAR = 1e-2  # relative to the largest tap: a miss that is worth telling (ours)
LARGEST = 30.0  # ours: gains, of the largest tap, of a system that is begun before the taps that told it
ROUGH = 1e-3  # ours: of the largest tap, between a tap and a system that is begun before: below, it is one of its own
WORTH = 8  # ours: taps that a state behind others, which stay, must save
MOST = 96  # ours: states of such a system
WASTED = 8  # ours: real states of modes for which no states that feed each other are looked for
LEAST = 8  # taps that a system is looked for in


@dataclass(frozen=True, eq=False)
class Part:
    """Channels that became systems: `delay` steps, then the system; beside it their first taps, where these differ."""

    channels: Array  # (n,)
    fit: Fit
    how: str
    delay: int = 0
    head: Array | None = None  # (n, m)


def identified(taps: Array, tolerance: float) -> tuple[list[Part], str]:
    """Systems for the kernels (channels, L), and how near the nearest is for the channels that none serves, if any."""
    count, length = taps.shape
    if length < LEAST:
        return [], ""
    ways: frozenset[int] = frozenset([WHOLE, LATER, *FRONT])
    if count > 2 * FEW:
        few = np.linspace(0, count - 1, FEW).astype(int)
        tally: dict[int, tuple[int, int]] = {}
        parts, remark = _parts(taps[few], tolerance, ways, tally)
        if not parts:
            return [], remark + f"; of {FEW} that were tried none became a system, and the others were not tried"
        ways -= {way for way, (tried, served) in tally.items() if tried >= ENOUGH and not served}
    return _parts(taps, tolerance, ways, {})


def _parts(
    taps: Array, tolerance: float, ways: frozenset[int], tally: dict[int, tuple[int, int]]
) -> tuple[list[Part], str]:
    """Systems, and a remark on the rest; `tally` takes on how many each way was tried, and how many it served."""
    parts: list[Part] = []
    left, missed = np.arange(len(taps)), np.full(len(taps), np.inf)
    least: Array = np.zeros(len(taps), int)

    def serve(way: int, more: list[Part]) -> None:
        nonlocal left
        done = [part.channels for part in more]
        tried, left = len(left), np.setdiff1d(left, np.concatenate([np.zeros(0, int), *done]))
        tally[way] = tried, tried - len(left)
        parts.extend(more)

    if WHOLE in ways:
        found = identify(taps, tolerance)
        more = _coupled(taps, found, tolerance)
        met, missed, least = found.met.copy(), found.residual.copy(), found.least
        met[[channel for part in more for channel in part.channels]] = False
        if met.any():
            at = np.flatnonzero(met)
            more.append(Part(at, measured(found.part(at), taps[at, None]), "identified from the taps"))
        serve(WHOLE, more)
    if LATER in ways and (delays := _delays(taps[left], tolerance) if len(left) else []):
        more = []
        for delay, some in delays:
            part, residual = _behind(taps, left[some], delay, tolerance)
            missed[left[some]] = np.minimum(missed[left[some]], residual)
            more += part
        serve(LATER, more)
    for share in FRONT:
        start = taps.shape[1] // share
        if share in ways and len(left) and start >= 2 and taps.shape[1] - start >= LEAST:
            serve(share, _after(taps, left, start, tolerance, least))
    worst = missed[left].max(initial=0.0)
    return parts, f", the nearest is {worst:.0e} of the largest tap off" if len(left) and worst < NEAR else ""


def _coupled(taps: Array, modes: Identification, tolerance: float) -> list[Part]:
    """Systems of few states that feed each other, where modes take many more, or more than is allowed."""
    systems = {}
    delayed = _first(taps, tolerance) > 1  # what waits has poles that coincide, too, in 0
    for channel, order in enumerate(np.where(modes.met, modes.order, 0)):
        if not (0 < order <= WASTED or delayed[channel] or modes.least[channel] > COUPLED):
            system = realize(taps[channel], tolerance, order // 2 if order else None)
            if system is not None:
                systems[channel] = system
    if not systems:
        return []
    at = np.array(list(systems))
    system = side_by_side(list(systems.values()))
    fit = measured(system, taps[at, None])
    how = "identified from the taps, with states that feed each other, as of poles that coincide"
    return [Part(at, fit, how)] if fit.error <= tolerance else []


def _delays(taps: Array, tolerance: float) -> list[tuple[int, Array]]:
    """The delays in front of kernels (n, L), with the rows that have each; one that serves all where they are many."""
    first = _first(taps, tolerance)
    first = np.where(first > 1, first, 0)
    if len(np.unique(first)) > STARTS:
        first = np.full(len(first), first.min())
    return [(int(d), np.flatnonzero(first == d)) for d in np.unique(first) if d and taps.shape[1] - d >= LEAST]


def _first(taps: Array, tolerance: float) -> Array:
    """The first tap of any size of each kernel."""
    size = np.abs(taps)
    return np.asarray(np.argmax(size > AHEAD * tolerance * size.max(axis=1, keepdims=True), axis=1))


def _behind(taps: Array, channels: Array, delay: int, tolerance: float) -> tuple[list[Part], Array]:
    """Systems for what comes after the delay, which they would need as many states for as it has steps."""
    found = identify(taps[channels, delay:], tolerance)
    at = np.flatnonzero(found.met)
    if not len(at):
        return [], found.residual
    some = taps[channels[at]]
    fit, ahead = measured(found.part(at), some[:, None, delay:]), np.abs(some[:, :delay])
    early = float((ahead.max(axis=1) / np.abs(some).max(axis=1)).max())  # which are left out
    fit = replace(fit, error=max(fit.error, early), l1=fit.l1 + float(ahead.sum(axis=1).max()))
    how = f"identified from the taps behind a delay of {delay} steps"
    return [Part(channels[at], fit, how, delay)], found.residual


def _after(taps: Array, channels: Array, start: int, tolerance: float, least: Array) -> list[Part]:
    """Systems for all but the first taps, at most `start`, of which fewer are kept where the system goes on before.

    `least` (channels of all taps,) states or more are what the whole would take.
    """
    size = np.abs(taps[channels]).max(axis=1)
    fallen = float((size / np.maximum(np.abs(taps[channels, start:]).max(axis=1), 1e-3 * size)).min())
    most = min(MOST, max(1, (taps.shape[1] - start) // WORTH))
    found = identify(taps[channels, start:], tolerance * fallen, most)
    good = np.flatnonzero(found.met & (found.order > 0))
    if not len(good):
        return []
    at, some, scale = channels[good], taps[channels[good]], size[good, None]
    whole = _begun_before(found, good, start)
    own = np.abs(some[:, : start + 1] - kernel(whole, start + 1)[:, 0, 0]) / scale
    if (own <= 2).all() and (np.abs(whole.C).max(axis=(1, 2)) <= LARGEST * scale[:, 0]).all():
        first = _last_above(own, ROUGH)
        if first < start:  # once more, from as many taps as there are
            return _after(taps, channels, first, tolerance, least)
        last = _last_above(own, tolerance)
        head = np.where(own > tolerance, some[:, : start + 1] - kernel(whole, start + 1)[:, 0, 0], 0.0)[:, :last]
        how = f"identified from the taps, without the first {last}, which have taps of their own beside it"
        return _with_head(Part(at, measured(whole, some[:, None]), how, 0, head), some, tolerance)
    how = f"identified from the taps behind the first {start}, which stay a FIR filter"
    if (whole_takes := int(least[at].min())) > COUPLED:  # as HiPPO-LegS of 64 states does
        how += f" (the whole takes at least {whole_takes} states, and no modes within the tolerance were found for it)"
    part = Part(at, measured(found.part(good), some[:, None, start:]), how, start, some[:, :start])
    return _with_head(part, some, tolerance)


def _last_above(size: Array, limit: float) -> int:
    """How many columns of `size` (n, L) there are up to the last with more than the limit; one at least."""
    return int(np.flatnonzero((size > limit).any(axis=0)).max(initial=0)) + 1


def _begun_before(found: Identification, which: Array, start: int) -> StateSpace:
    """The systems as they would be if their first tap were `start` steps before; its direct term is left to others."""
    system = found.part(which)
    a = np.where(system.A == 0, np.inf, system.A).astype(complex)
    with np.errstate(all="ignore"):
        back = np.nan_to_num(np.exp(-start * np.log(a)))
    c = system.C * (back if system.is_complex else back.real)[:, None]
    return replace(system, C=c, D=np.zeros_like(system.D))


def _with_head(part: Part, taps: Array, tolerance: float) -> list[Part]:
    """The part, its errors those of all that it consists of; nothing where they are too large."""
    assert part.head is not None
    length = taps.shape[1]
    given = np.zeros_like(taps)
    given[:, : part.head.shape[1]] = part.head
    given[:, part.delay :] += kernel(part.fit.system, length - part.delay)[:, 0, 0]
    missed = np.abs(given - taps)
    fit = replace(
        part.fit,
        error=float((missed.max(axis=1) / np.abs(taps).max(axis=1)).max()),
        output_error=float((np.linalg.norm(missed, axis=1) / np.linalg.norm(taps, axis=1)).max()),
        l1=float(missed.sum(axis=1).max()),
    )
    return [replace(part, fit=fit)] if fit.error <= tolerance else []
