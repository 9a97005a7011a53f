"""Parallel scans whose decay is complex and depends on the data, as of events (Event-SSM) and of liquid systems.

Real and imaginary parts are streams of their own, or stand in a last axis of two, or are the halves of a last axis::

    h_k = (p_k + i q_k) h_{k-1} + (r_k + i s_k)        the target is Re h or Im h, or both, stored as the streams are

What is written at the first step is what the target is there, which tells the parts of the drive from each other; those
of the decay are the two streams in which the target is not linear, or their logarithm's. Where there is one such stream
(a liquid system whose input drives real numbers), the other part is the same at every step, and what the second step
keeps of the first one tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np

from ssmc.frontend.findings import Lift
from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow
from ssmc.frontend.mixing.filters import disguise_of
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.target_axes import target_axes
from ssmc.frontend.mixing.viewpoints import TOLERANCE, feature_sizes, is_same, mirrored, with_entry
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

MOST = 4  # entries: two parts of a decay and of what is written
Split = Callable[[Array], tuple[Array, Array]]
Join = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class _Drive:
    """h is driven by `first` + i `second` (positions of entries, None for zeros); the target is a part of `sign` h."""

    first: int
    second: int | None
    turn: float  # what the second is multiplied with
    part: str  # "real" or "imag"
    sign: float


@dataclass(frozen=True)
class _Form:
    """Parts of the decay, or of its logarithm: positions of entries, or what they are at every step."""

    decay: tuple[int | Array, int | Array]
    log: bool
    drive: _Drive


def explain_complex(translator: Translator, region: Region) -> Flow | None:
    """The target of a region as parts of a complex recurrence with computed decays, or None where it is none."""
    if len(region.samples) < 2 or len({f.shape[f.axes.index("t")] for f in region.flows}) != 1:
        return None
    with np.errstate(all="ignore"):
        if len(region.flows) in (MOST - 1, MOST):
            found = _explained(translator, region, region)
            if found is not None:
                return found
        for split, join in ((_last, _stacked), (_halves, _joined)):
            apart = _apart(translator.builder, region, split, join)
            found = None if apart is None else _both(translator, region, apart, split)
            if found is not None:
                return found
    return None


# -- parts in one tensor -----------------------------------------------------------------------------------


def _last(array: Array) -> tuple[Array, Array]:
    return (array[..., 0], array[..., 1]) if array.shape[-1] == 2 else (array, array[..., :0])


def _stacked(one: Array, other: Array) -> Array:
    return np.stack([one, other], axis=-1)


def _halves(array: Array) -> tuple[Array, Array]:
    half = array.shape[-1] // 2
    return array[..., :half], array[..., half:]


def _joined(one: Array, other: Array) -> Array:
    return np.concatenate([one, other], axis=-1)


def _apart(builder: Builder, region: Region, split: Split, join: Join) -> Region | None:
    """The region with the two parts of every entry as entries of their own; None where there are no two."""
    if len(region.flows) != 2 or any(f.axes[-1] != "f" or f.shape[-1] % 2 for f in region.flows):
        return None
    if split is _last and any(f.shape[-1] != 2 for f in region.flows):
        return None
    flows: list[Flow] = []
    for flow in region.flows:
        shape = split(np.empty(flow.shape))[0].shape
        axes = flow.axes[: len(shape)]
        for k in range(2):
            size = flow.shape[-1] // 2
            value = builder.slice(flow.value, -1, k * size, (k + 1) * size)
            value = builder.reshape(value, feature_sizes(shape, axes))
            assert isinstance(value, Value)
            flows.append(Flow(value, axes, shape))

    def run(arrays: Sequence[Array]) -> Array:
        return region.run([join(arrays[k], arrays[k + 1]) for k in range(0, len(arrays), 2)])

    samples = tuple(tuple(part for array in sample for part in split(array)) for sample in region.samples)
    entries = tuple(v for v in region.entries for _ in range(2))
    return replace(region, flows=tuple(flows), run=run, samples=samples, entries=entries)


def _both(translator: Translator, region: Region, apart: Region, split: Split) -> Flow | None:
    """The target of a region whose entries were taken apart: of one part, or of both as the entries are stored."""
    found = _explained(translator, apart, region)
    if found is not None or region.shape[-1] % 2 or (split is _last and region.shape[-1] != 2):
        return found
    shape = split(np.empty(region.shape))[0].shape
    parts = []
    for k in range(2):

        def run(arrays: Sequence[Array], k: int = k) -> Array:
            return split(apart.run(arrays))[k]

        part = _explained(translator, replace(apart, shape=shape, run=run), region)
        if part is None:
            return None
        parts.append(part)
    builder, axes = translator.builder, parts[0].axes + "f" * (len(region.shape) - len(shape))
    width = feature_sizes(region.shape, axes)
    stored = [builder.reshape(p.value, (*width[:-1], width[-1] // 2)) for p in parts]
    value = builder.concat(stored, -1)
    assert isinstance(value, Value)
    return Flow(value, axes, region.shape)


# -- the recurrence ----------------------------------------------------------------------------------------


def _explained(translator: Translator, region: Region, whole: Region) -> Flow | None:
    """The target as one part of h, its axes as those of the entries, forward or backward in time."""
    if any(len(f.shape) != len(region.shape) for f in region.flows):
        return None
    found = [axes for axes in target_axes(region) if all(_fits(f, axes, region.shape) for f in region.flows)]
    found = [axes for axes in found if _starts_as_written(region, axes)]
    decay = _decays(region) if found else []
    for axes in found if decay else ():
        for backward in (False, True):
            seen = mirrored(region, axes) if backward else region
            for form in _forms(seen, axes, decay):
                error = max(_error(seen, axes, form, sample) for sample in seen.samples)
                if error <= TOLERANCE:
                    return _emit(translator, region, whole, axes, form, error, backward)
    return None


def _starts_as_written(region: Region, axes: str) -> bool:
    """Is the target an entry, or nothing, at the first step, or at the last where time runs backward?"""
    target, at = region.run(region.samples[0]), axes.index("t")
    for step in (0, -1):
        start = np.take(target, step, axis=at)
        scale = float(np.abs(start).max(initial=0.0))
        written = (np.take(array, step, axis=at) for array in region.samples[0])
        if not scale or any(np.abs(v - start).max(initial=0.0) <= TOLERANCE * scale for v in written):
            return True
    return False


def _fits(flow: Flow, axes: str, shape: tuple[int, ...]) -> bool:
    return all(
        a == b and (d == size or (a == "f" and d == 1))
        for a, b, d, size in zip(flow.axes, axes, flow.shape, shape, strict=True)
    )


def _decays(region: Region) -> list[int]:
    """The one or two entries in which the target is not linear, if it is linear in all others together."""
    first = region.samples[0]
    whole = region.run(first)
    scale = max(float(np.abs(whole).max(initial=0.0)), 1e-300)
    if not np.isfinite(whole).all():
        return []
    rest = [i for i, array in enumerate(first) if not _is_decay(region, first, i, array, whole, scale)]
    decay = [i for i in range(len(first)) if i not in rest]
    if len(decay) not in (1, 2) or len({region.flows[i].shape for i in decay}) != 1 or not rest:
        return []
    doubled = [2 * a if i in rest else a for i, a in enumerate(first)]
    return decay if is_same(region.run(doubled), 2 * whole, scale) else []


def _is_decay(region: Region, first: Sequence[Array], i: int, array: Array, whole: Array, scale: float) -> bool:
    """Not affine: what twice the entry adds is not what the entry added."""
    none = region.run(with_entry(first, i, np.zeros_like(array)))
    twice = region.run(with_entry(first, i, 2 * array))
    return not is_same(twice - whole, whole - none, scale)


def _forms(region: Region, axes: str, decay: Sequence[int]) -> Iterator[_Form]:
    first = region.samples[0]
    written = [i for i in range(len(first)) if i not in decay]
    start = np.take(region.run(first), 0, axis=axes.index("t"))
    for drive in _drives(first, axes, written, start):
        if len(decay) == 1:
            yield from _half_fixed(region, axes, decay[0], drive)
            continue
        for pair, log in product(permutations(decay), (False, True)):
            yield _Form((pair[0], pair[1]), log, drive)


def _half_fixed(region: Region, axes: str, entry: int, drive: _Drive) -> Iterator[_Form]:
    """One part of the decay is an entry, the other the same at every step: a one written at the first step shows the
    decay of the second one, by its part that the target is and, turned by i, by the other one."""
    at, first = axes.index("t"), region.samples[0]
    if drive.second is None or drive.turn != 1.0 or region.shape[at] < 2:  # the other turn gives its conjugate
        return
    seen = []
    for written in (drive.first, drive.second):
        arrays = [a if i == entry else np.zeros_like(a) for i, a in enumerate(first)]
        arrays[written][(slice(None),) * at + (0,)] = 1.0
        seen.append(drive.sign * np.take(region.run(arrays), [1], axis=at))
    a = seen[0] - 1j * seen[1] if drive.part == "real" else seen[1] + 1j * seen[0]
    given, log = np.take(first[entry], [1], axis=at), np.log(a)
    scale, others = float(np.abs(given).max(initial=0.0)), tuple(n for n, axis in enumerate(axes) if axis in "bt")
    for parts, is_log in ((a, False), (log, True)):
        real, imag = (np.mean(part, axis=others) for part in (parts.real, parts.imag))
        if is_same(np.broadcast_to(given, a.shape), parts.real, scale):
            yield _Form((entry, imag), is_log, drive)
        elif is_same(np.broadcast_to(given, a.shape), parts.imag, scale):
            yield _Form((real, entry), is_log, drive)


def _drives(arrays: Sequence[Array], axes: str, written: Sequence[int], start: Array) -> Iterator[_Drive]:
    """Ways to read what is written: the part that the target is at the first step, and the other one.

    With h driven by r + i s, Re h starts as r and Im h as s: both targets are parts of one h, that of the first entry.
    """
    scale = float(np.abs(start).max(initial=0.0))
    lead = [
        i for i in written if np.abs(np.take(arrays[i], 0, axis=axes.index("t")) - start).max() <= TOLERANCE * scale
    ]
    if len(written) == 1:
        yield _Drive(written[0], None, 0.0, "real" if lead and scale else "imag", 1.0)
    for turn in (1.0, -1.0) if len(written) == 2 and lead and scale else ():
        other = next(i for i in written if i != lead[0])
        if lead[0] < other:
            yield _Drive(lead[0], other, turn, "real", 1.0)
        else:  # lead + turn i other = turn i (other - turn i lead)
            yield _Drive(other, lead[0], -turn, "imag", -turn)


def _decay_of(form: _Form, arrays: Sequence[Array]) -> Array:
    p, q = (arrays[part] if isinstance(part, int) else part for part in form.decay)
    a = p + 1j * q
    return np.asarray(np.exp(a) if form.log else a)


def _error(region: Region, axes: str, form: _Form, arrays: Sequence[Array]) -> float:
    """Largest error of the recurrence, step by step, against the region, relative."""
    expected, at, drive = region.run(arrays), axes.index("t"), form.drive
    v = arrays[drive.first] + 1j * (0.0 if drive.second is None else drive.turn * arrays[drive.second])
    a, v = (np.moveaxis(np.broadcast_to(x, region.shape), at, 0) for x in (_decay_of(form, arrays), v))
    h = np.array(v)
    for k in range(1, len(h)):
        h[k] += a[k] * h[k - 1]
    found = drive.sign * np.moveaxis(h.real if drive.part == "real" else h.imag, 0, at)
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max(initial=0.0)) / max(float(np.abs(expected).max(initial=0.0)), 1e-300)


def _emit(
    translator: Translator, region: Region, whole: Region, axes: str, form: _Form, error: float, backward: bool
) -> Flow:
    builder, drive = translator.builder, form.drive
    turn = builder.reverse if backward else lambda x: x
    values = [turn(flow.value) for flow in region.flows]
    p, q = (values[part] if isinstance(part, int) else part for part in form.decay)
    if form.log:
        size = builder.unary("exp", p)
        p, q = (builder.binary("mul", size, builder.unary(fn, q)) for fn in ("cos", "sin"))
    r = values[drive.first]
    s = builder.binary("mul", values[drive.first if drive.second is None else drive.second], np.asarray(drive.turn))
    a, v = builder.emit("complex", [p, q]), builder.emit("complex", [r, s])
    width = feature_sizes(region.shape, axes)
    v = builder.stream(builder.broadcast(v, width), region.flows[drive.first].value)
    y, last = builder.recurrent("recurrence", [a, v, None])
    translator.findings.lifts.append(Lift(last.node, disguise_of(whole), whole.provenance, error))
    found = builder.emit("real" if drive.part == "real" else "imag", [y])
    found = found if drive.sign == 1.0 else builder.binary("mul", found, np.asarray(drive.sign))
    assert isinstance(found, Value)
    return Flow(turn(found), axes, region.shape)
