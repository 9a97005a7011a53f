"""One layer on shared decays: the decays clustered and moved, B and C refitted to the kernel, C to the data.

Single-input channels are fitted as kernels (`project`): their oscillations move too, and the read-out weighs what the
response misses against what the target's arrays and devices will add to it (`read_noise`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ssmc.ir.op import Array
from ssmc.passes.read_noise import ReadNoise, channel_toll
from ssmc.statespace import (
    Coordinates,
    SharedDecays,
    StateSpace,
    StateSpaceError,
    Toll,
    arrival_spans,
    at_step,
    cluster_decays,
    difference,
    event_l1_distance,
    h2_norm,
    l1_distance,
    project,
    projectable,
    refit_input,
    refit_output,
    regress_output,
    simulate,
    wanted_kernel,
    wanted_response,
    with_decays,
)

ROUNDS = 3  # of B and C in turn
STEPS = (2.0, 1.4, 1.15)  # factors by which a decay is moved while that helps
GAPS = 256  # elapsed times that the refit averages over
STEADIER = 1e-2  # ridge of the regression: how much the kernel's own answer weighs against the data
KERNEL_SHARE = 0.03  # of white inputs in the data's place, where a kernel is fitted to the data
TURNS = 12  # steps of a kernel's oscillations
PROJECTED = 1 << 24  # numbers of a basis, and of the inputs' correlations; larger layers keep their oscillations


@dataclass(frozen=True, eq=False)
class LayerData:
    """What a layer sees in the calibration data, in its own order of time: inputs (batch, time, inputs), what comes
    out of it in the original model, elapsed times (batch, time) and initial states (batch, G, N) where it takes them.
    """

    u: Array
    target: Array
    dt: Array | None = None
    x0: Array | None = None


@dataclass(frozen=True)
class FitOptions:
    """`refit` B and C, `search` for better decays; `length` taps count (None: all), `ridge` keeps C small. `noise` is
    that of the target; `free`: nobody sees the states, nor sets them, so that they may turn otherwise."""

    levels: int
    refit: bool
    search: bool
    length: int | None
    ridge: float
    noise: ReadNoise | None = None
    free: bool = False


@dataclass(frozen=True, eq=False)
class Fitted:
    """A layer on shared decays. `h2` is `||h - h'||_2 / ||h||_2`, the largest over the groups; `measured` that of the
    outputs on the data; `bound` holds for every input, `max|y - y'| <= bound max|u|`: over `length` steps, of events
    that come no denser than the data's; `noise` is the target's own, of the output, where it was weighed."""

    system: StateSpace
    h2: float
    measured: float | None
    bound: float | None
    noise: float | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """What `fit` made of what."""

    system: StateSpace
    options: FitOptions
    data: LayerData | None
    fitted: Fitted

    def answers(self, system: StateSpace, options: FitOptions, data: LayerData | None) -> bool:
        """Whether that is the same question."""
        if self.system is not system or self.options != options or (self.data is None) != (data is None):
            return False
        if self.data is None or data is None:
            return True
        pairs = [(getattr(self.data, name), getattr(data, name)) for name in ("u", "target", "dt", "x0")]
        return all(a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)


def fit(system: StateSpace, options: FitOptions, data: LayerData | None) -> Fitted:
    """Raises StateSpaceError where the system has no decays to share."""
    shared, decays = cluster_decays(system, options.levels)
    if not options.refit:
        return _told(system, shared, options, data)
    if options.free and options.length is not None and projectable(system) and _fits(system, options.length):
        return _projected(system, decays, options, options.length, data)
    rates = decays.rates

    def attempt(moved: Array) -> tuple[float, StateSpace]:
        made = _refitted(system, with_decays(system, moved[decays.assignment]), options, data)
        return _score(system, made, options, data), made

    if options.search:
        return _told(system, _searched(rates, attempt), options, data)
    return _told(system, _refitted(system, shared, options, data), options, data)


def _fits(system: StateSpace, length: int) -> bool:
    return system.groups * length * max(length, 2 * system.states) <= PROJECTED


def _projected(
    system: StateSpace, decays: SharedDecays, options: FitOptions, length: int, data: LayerData | None
) -> Fitted:
    """Oscillations and C (and the decays, if they may move) to the kernel that the data ask for, or to the own one."""
    if data is None:
        wanted = wanted_kernel(system, length)
    else:
        wanted = wanted_response(system, data.u, data.target, length, KERNEL_SHARE)
    noise, ridge = options.noise, options.ridge

    def toll(at: Coordinates) -> Toll:
        own = ridge * at.gram * np.eye(at.gram.shape[1])
        if noise is None:
            return Toll(own, np.zeros(len(own)))
        added = channel_toll(noise, at)
        return Toll(own + added.form, added.largest)

    found = project(system, wanted, decays.rates, decays.assignment, toll, move_decays=options.search, rounds=TURNS)
    power = np.square(wanted.weigh(wanted.taps[:, :, None])).sum() + wanted.rest.sum()
    told = _told(system, found.system, options, data)
    if noise is None or not power > 0:
        return told
    return replace(told, noise=float(np.sqrt(found.toll.sum() / power)))


def _searched(rates: Array, attempt: Callable[[Array], tuple[float, StateSpace]]) -> StateSpace:
    """Coordinate descent: each decay is moved by ever smaller factors while the refitted layer comes closer."""
    least, best = attempt(rates)
    for step in STEPS:
        for k in range(len(rates)):
            for factor in (step, 1 / step):
                while True:
                    moved = rates.copy()
                    moved[k] *= factor
                    error, made = attempt(moved)
                    if not error < least * 0.999:
                        break
                    least, best, rates = error, made, moved
    return best


def _refitted(system: StateSpace, shared: StateSpace, options: FitOptions, data: LayerData | None) -> StateSpace:
    """To the kernel, then (where there is data) C to what the data ask for."""
    gaps = _gaps(data) if system.asynchronous else np.ones(1)
    length, ridge = options.length, options.ridge

    def read(shared: StateSpace) -> StateSpace:
        return refit_output(system, shared, length=length, gaps=gaps, ridge=ridge, bound=False).system

    made = read(shared)
    if system.B.shape[2] > 1 and (system.is_complex or not np.iscomplexobj(system.C)):
        for _ in range(ROUNDS):
            made = read(refit_input(system, made, length=length, gaps=gaps, ridge=ridge).system)
    if data is None:
        return made
    return regress_output(made, data.u, data.target, dt=data.dt, x0=data.x0, ridge=STEADIER)


def _gaps(data: LayerData | None) -> Array:
    """Elapsed times of the data's events; the unit step where they are not known."""
    if data is None or data.dt is None:
        return np.ones(1)
    every = data.dt.ravel()
    return np.asarray(every[np.linspace(0, every.size - 1, min(GAPS, every.size)).astype(int)])


def _score(system: StateSpace, made: StateSpace, options: FitOptions, data: LayerData | None) -> float:
    if data is None:
        return _kernel_error(system, made, options, data)
    return _data_error(made, data)


def _data_error(made: StateSpace, data: LayerData) -> float:
    y, _ = simulate(made, data.u, data.x0, data.dt)
    power = float(np.square(data.target).sum())
    return float(np.sqrt(np.square(y - data.target).sum() / power)) if power else 0.0


def _kernel_error(system: StateSpace, made: StateSpace, options: FitOptions, data: LayerData | None) -> float:
    """`||h - h'||_2 / ||h||_2`, the largest over the groups; events at the data's mean gap."""
    gap = float(_gaps(data).mean()) if system.asynchronous else 1.0
    one, other = at_step(system, gap), at_step(made, gap)
    whole = h2_norm(one, options.length)
    missed = h2_norm(difference(one, other), options.length)
    return float((missed / np.where(whole > 0, whole, 1)).max())


def _told(system: StateSpace, made: StateSpace, options: FitOptions, data: LayerData | None) -> Fitted:
    return Fitted(
        made,
        _kernel_error(system, made, options, data),
        None if data is None else _data_error(made, data),
        _bound(system, made, options, data),
    )


def _bound(system: StateSpace, made: StateSpace, options: FitOptions, data: LayerData | None) -> float | None:
    try:
        if not system.asynchronous:
            return float(l1_distance(system, made, tolerance=1e-3, length=options.length).max())
        if data is None or data.dt is None:
            return None
        return float(event_l1_distance(system, made, arrival_spans(data.dt)).max())
    except StateSpaceError:
        return None
