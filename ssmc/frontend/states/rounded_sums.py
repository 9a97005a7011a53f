"""States of which a step rounds any sums, as the op `rounded_sums`.

Between its roundings a step is linear: every number that is rounded is a sum of states, of what was rounded before, and
of what the data drive. Which, and how much, is found by feeding random numbers (`couplings`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, Unsupported
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call
from ssmc.frontend.states.couplings import DIGITS, Couplings, Run, find_couplings
from ssmc.frontend.states.lifting import UNTRANSLATED
from ssmc.frontend.states.state_step import Step
from ssmc.frontend.states.sum_building import build, known_part
from ssmc.frontend.states.sum_nets import Gated, Net, Words
from ssmc.frontend.states.sum_nodes import Rounding, find_rounding
from ssmc.frontend.states.sum_words import words_of
from ssmc.frontend.states.whole_numbers import off_edges
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import GRID
from ssmc.ir.ops.rounded_sums import Sums, sums

TOLERANCE = 1e-6  # relative: a grid whose scale and its inverse are both stored in float32
LIMIT = 1 << 16  # numbers of a step
OF_DATA = "what multiplies the state, or the scale by which it is rounded, depends on the data"


def lift_sums(
    step: Step,
    thresholds: Sequence[Rounding] = (),
    products: Sequence[Gated] = (),
    binary: Collection[Value] = (),
) -> None:
    """Lift states of which a step rounds any sums. Raises Unsupported, with the reason, where it does more.

    `thresholds` are roundings that are known, `products` values that others, which are 0 or 1, let through, and
    `binary` states that are 0 or 1.
    """
    own = {each.result for each in thresholds}
    calls = [call for call in step.roundings(step.currents, step.followings) if not own & _users(step, call)]
    found = [*thresholds, *(find_rounding(step, call) for call in calls)]
    roundings = list({each.result: each for each in found}.values())
    if len({each.rounding for each in roundings}) != 1:
        raise Unsupported("it is rounded in two ways, to the nearest code and down or up")
    if sum(int(np.prod(each.shape)) for each in roundings) > LIMIT:
        raise Unsupported(f"a step rounds more than {LIMIT} numbers")
    read = [v for each in products for v in (each.factor, each.gate)]
    targets = list(dict.fromkeys([*(each.source for each in roundings), *read, *step.followings]))
    cuts: list[Rounding | Gated] = [*roundings, *products]
    run = _runner(step, cuts, targets, 0)
    fed = {**{v: step.shape(v) for v in step.currents}, **{each.result: each.shape for each in cuts}}
    couplings = find_couplings(run, fed, np.random.default_rng(47))
    for point in step.points[1:]:
        _require_same(couplings, _runner(step, cuts, targets, point), fed)
    net = Net(step, roundings, products, couplings, _drives(step, cuts, targets))
    words = words_of(net)
    rounding = roundings[0].rounding
    system = sums(words.grid, words.terms, rounding)
    step.lifting.error = _error(net, words, system, binary)
    words = replace(words, grid=off_edges(words.grid, words.terms, *_starts(net, words), rounding))
    build(net, words, rounding)


def _require_same(couplings: Couplings, run: Run, fed: Mapping[Value, tuple[int, ...]]) -> None:
    """Raise Unsupported where the terms of a sum are others for other data: roundings behind it may hide that."""
    rng = np.random.default_rng(59)
    feed = {value: rng.standard_normal(shape) for value, shape in fed.items()}
    base, found = run({}), run(feed)
    for target, rows in couplings.terms.items():
        expected, size = base[target].flatten(), np.abs(base[target]).flatten()
        for k, value, j, weight in rows:
            term = weight * feed[value].reshape(-1)[j]
            expected[k] += term
            size[k] += abs(term)
        slack = TOLERANCE * size + DIGITS * size.max(initial=0.0)
        if np.any(np.abs(found[target].reshape(-1) - expected) > slack):
            raise Unsupported(OF_DATA)


def _users(step: Step, call: Call) -> set[Value]:
    """Results of the nodes that read a call's."""
    return {v for user in step.lifting.translator.listing.users.get(call.results[0], ()) for v in user.results}


def _runner(
    step: Step, cuts: Sequence[Rounding | Gated], targets: Sequence[Value], point: int
) -> Callable[[Mapping[Value, Array]], dict[Value, Array]]:
    """Targets, for values of states and of what cuts give (zero where none are fed), at one sample."""
    samples = step.lifting.translator.samples
    given = samples.at(point, step.outside)
    zeros = {v: np.zeros(step.shape(v)) for v in step.currents}
    zeros |= {each.result: _as_fed(each, np.zeros(each.shape)) for each in cuts}
    by_result = {each.result: each for each in cuts}

    def run(feed: Mapping[Value, Array]) -> dict[Value, Array]:
        fed = {v: _as_fed(by_result[v], a) if v in by_result else a for v, a in feed.items()}
        found = evaluate(samples.listing, {**given, **zeros, **fed}, targets)
        values = {v: np.asarray(a, np.float64) for v, a in found.items()}
        for v in values.keys() & by_result.keys():  # a next value that is what a rounding gives
            values[v] = np.asarray(feed.get(v, np.zeros(by_result[v].shape)), np.float64)
        return values

    return run


def _as_fed(each: Rounding | Gated, array: Array) -> Array:
    """Values as the file has them: codes, where that is what it goes on with."""
    if isinstance(each, Gated):
        return array
    flat = array.reshape(-1) * each.gain + each.offset
    return np.asarray(flat.reshape(each.shape))


def _drives(step: Step, cuts: Sequence[Rounding | Gated], targets: Sequence[Value]) -> dict[Value, Tracked]:
    """What is added to the sums: targets where states, and what was rounded, are zero."""
    zeros: dict[Value, Tracked] = {v: Known(np.zeros(step.shape(v))) for v in step.currents}
    zeros |= {each.result: Known(_as_fed(each, np.zeros(each.shape))) for each in cuts}
    by_result = {each.result: each for each in cuts}
    found = step.lifting.translator.substituted(zeros).demand(targets)
    drives: dict[Value, Tracked] = {}
    for target, item in zip(targets, found, strict=True):
        if isinstance(item, Refused) or not isinstance(item, Flow | Known):
            raise Unsupported(UNTRANSLATED)
        drives[target] = Known(np.zeros(by_result[target].shape)) if target in by_result else item
    return drives | {each.result: Known(np.zeros(each.shape)) for each in cuts if isinstance(each, Gated)}


def _starts(net: Net, words: Words) -> tuple[Array, Array]:
    """What drives each number and what it starts from, NaN where the data tell."""
    drive = np.array([known_part(net, number) for number in words.of])
    start = np.zeros(len(words.of))
    lifting = net.step.lifting
    flat = [
        layout.rows(np.broadcast_to(np.asarray(state.initial.array, np.float64), layout.shape))[0]
        if isinstance(state.initial, Known)
        else np.full(int(np.prod(features)), np.nan)
        for state, layout, features in zip(lifting.states, lifting.layouts, lifting.features, strict=True)
    ]
    start[words.states] = np.concatenate(flat)
    return drive, start


def _error(net: Net, words: Words, system: Sums, binary: Collection[Value]) -> float:
    """Largest error of the step at fresh states, where no rounding is on the edge between two codes, relatively."""
    step, rng, worst = net.step, np.random.default_rng(53), 0.0
    batch, which = step.lifting.batch, range(len(step.currents))
    scale, _, zero, low, high = words.grid
    spans = np.abs(scale * (np.clip(high, zero - 512, zero + 512) - np.clip(low, zero - 512, zero + 512)))
    size = float(spans[scale > 0].min(initial=np.inf))
    size = size if np.isfinite(size) and size > 0 else 1.0
    moved = [words.grid + by * np.eye(len(GRID))[GRID.index("shift")][:, None] for by in (-1e-6, 1e-6)]
    near, wide = (Sums(grid, system.rounding, system.waves) for grid in moved)
    n = len(scale)
    halved = np.repeat([v in binary for v in step.currents], [int(np.prod(f)) for f in step.lifting.features])
    for point in step.points:
        f = step.map(point, step.currents, step.followings, which)
        drive = _drive_rows(net, words, point)
        far = float(np.abs(drive[:, scale > 0]).max(initial=0.0))  # of thresholds
        for gain in (0.3 * size, size, 3.0 * size, far):
            x = gain * rng.uniform(-1, 1, (batch, step.size))
            x = np.where(halved, x > 0, x)
            given = np.zeros((batch, n))
            given[:, words.states] = x
            found = [each.step(given, drive)[1][:, words.states] for each in (near, system, wide)]
            expected = f(x)
            sure = np.abs(found[0] - found[2]) <= 1e-9 * max(1e-300, float(np.abs(expected).max(initial=0.0)))
            error = np.where(sure, np.abs(found[1] - expected), 0.0).max(initial=0.0)
            worst = max(worst, float(error) / max(float(np.abs(expected).max(initial=0.0)), 1e-300))
    if worst > TOLERANCE:
        raise Unsupported(OF_DATA)
    return worst


def _drive_rows(net: Net, words: Words, point: int) -> Array:
    """(batch, words) what is added to each number at one sample of the data."""
    targets = list(net.drives)
    base = _runner(net.step, net.cuts(), targets, point)({})
    drive = np.zeros((net.step.lifting.batch, len(words.of)))
    for i, (target, k) in enumerate(words.of):
        layout, array = net.layouts[target], base[target]
        if isinstance(net.drives[target], Flow):
            rows = layout.rows(np.arange(array.size).reshape(array.shape))
            at = int(np.flatnonzero(rows[0] == k)[0])
            drive[:, i] = np.broadcast_to(layout.rows(array)[:, at], drive[:, i].shape)
        else:
            drive[:, i] = array.reshape(-1)[k]
    return drive
