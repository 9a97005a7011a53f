"""States of which a step rounds any sums, as the op `rounded_sums`.

Between its roundings a step is linear: every number that is rounded is a sum of states, of what was rounded before, and
of what the data drive. Which, and how much, is found by feeding random numbers (`couplings`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, Unsupported
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call
from ssmc.frontend.states.couplings import NOT_LINEAR, find_couplings
from ssmc.frontend.states.lifting import UNTRANSLATED
from ssmc.frontend.states.state_step import Step
from ssmc.frontend.states.sum_building import build, known_part
from ssmc.frontend.states.sum_nets import Gated, Net, Number, Words
from ssmc.frontend.states.sum_nodes import Rounding, find_rounding
from ssmc.frontend.states.whole_numbers import off_edges
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import GRID
from ssmc.ir.ops.rounded_sums import GATED, OPEN, TERM, Sums, islands, part_of, sums

TOLERANCE = 1e-6  # relative: a grid whose scale and its inverse are both stored in float32
LIMIT = 1 << 16  # numbers of a step


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
    net = Net(step, roundings, products, couplings, _drives(step, cuts, targets))
    words = _assembled(net)
    rounding = roundings[0].rounding
    system = sums(words.grid, words.terms, rounding)
    step.lifting.error = _error(net, words, system, binary)
    words = replace(words, grid=off_edges(words.grid, words.terms, *_starts(net, words), rounding))
    build(net, words, rounding)


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


def _assembled(net: Net) -> Words:
    """The numbers of the first sequence that the next states need, one after the other."""
    of: list[Number] = []
    grids: list[Array] = []
    terms: list[tuple[int, int, float, int | None]] = []  # number, source (a word, or -1 - state), weight, gate
    word: dict[Number, int] = {}
    step = net.step
    lifting = step.lifting
    places = np.cumsum([0, *(int(np.prod(f)) for f in lifting.features)])
    state: dict[Number, int] = {}
    for current, layout, start in zip(step.currents, lifting.layouts, places, strict=False):
        row = layout.rows(np.arange(int(np.prod(layout.shape))).reshape(layout.shape))[0]
        state |= {(current, int(k)): int(start) + i for i, k in enumerate(row)}
    free = np.array([0.0, 0.0, 0.0, 0.0, 0.0])

    def add(target: Value, k: int, grid: Array, own: Sequence[tuple[int, Value, int, float]]) -> int:
        made = [(-1 - state[v, j], w) if (v, j) in state else (word.get((v, j)), w) for _, v, j, w in own]
        if any(source is None for source, _ in made):
            raise Unsupported("its sequences depend on each other")
        terms.extend((len(of), int(source), w, None) for source, w in made if source is not None)
        of.append((target, k))
        grids.append(grid)
        return len(of) - 1

    @cache
    def rows_of_target(target: Value) -> dict[int, list[tuple[int, Value, int, float]]]:
        return _rows(net.couplings.terms[target])

    def source_of(target: Value, k: int) -> int:
        """The word, or -1 - state, that a number of a target is."""
        own = rows_of_target(target).get(k, [])
        driven = np.any(_constant(net.drives[target]))
        if len(own) == 1 and own[0][3] == 1.0 and not driven:
            (_, v, j, _) = own[0]
            if (v, j) in state:
                return -1 - state[v, j]
            if (v, j) in word:
                return word[v, j]
        if (target, k) not in word:
            word[target, k] = add(target, k, free, own)
        return word[target, k]

    for each in net.cuts():
        if isinstance(each, Gated):
            at = [each.places(net.shape(v)) for v in (each.factor, each.gate)]
            for k in np.flatnonzero(net.owners[each.result] == 0):
                source, gate = source_of(each.factor, int(at[0][k])), source_of(each.gate, int(at[1][k]))
                word[each.result, int(k)] = add(each.result, int(k), free, [])
                terms.append((word[each.result, int(k)], source, 1.0, gate))
            continue
        rows = _rows(net.couplings.terms[each.source])
        driven = np.any(_constant(net.drives[each.source]))
        for k in np.flatnonzero(net.owners[each.result] == 0):
            own = rows.get(int(k), [])
            same = _same(own, word, grids, each.grid[:, k]) if not driven else None
            word[each.result, int(k)] = add(each.source, int(k), each.grid[:, k], own) if same is None else same
    states = np.zeros(step.size, np.int64)
    taken: set[int] = set()
    for following, layout, start in zip(step.followings, lifting.layouts, places, strict=False):
        rows = _rows(net.couplings.terms[following])
        driven = np.any(_constant(net.drives[following]))
        for i, k in enumerate(layout.rows(np.arange(int(np.prod(layout.shape))).reshape(layout.shape))[0]):
            own = rows.get(int(k), [])
            alias = word.get(own[0][1:3]) if len(own) == 1 and own[0][3] == 1.0 and not driven else None
            if alias is None or alias in taken:
                alias = add(following, int(k), free, own)
            taken.add(alias)
            states[int(start) + i] = alias
    n = len(of)

    def read(source: int) -> int:
        return n + source if source >= 0 else int(states[-1 - source])

    rows_of = [(i, read(s), w, OPEN if gate is None else read(gate)) for i, s, w, gate in terms]
    results = {}
    for each in net.roundings:
        layout = net.layouts[each.source]
        row = layout.rows(np.arange(int(np.prod(each.shape))).reshape(each.shape))[0]
        if all((each.result, int(k)) in word for k in row):
            results[each.result] = np.array([word[each.result, int(k)] for k in row])
    if not rows_of:
        raise Unsupported(NOT_LINEAR)
    found = np.array(rows_of, np.float64).T[: len(GATED if net.products else TERM)]
    order = np.concatenate(islands(n, found))
    back = np.argsort(order)
    return Words(
        [of[i] for i in order],
        np.stack(grids, axis=1)[:, order],
        part_of(n, found, order),
        back[states],
        {value: back[row] for value, row in results.items()},
    )


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


def _rows(terms: Sequence[tuple[int, Value, int, float]]) -> dict[int, list[tuple[int, Value, int, float]]]:
    found: dict[int, list[tuple[int, Value, int, float]]] = {}
    for row in terms:
        found.setdefault(row[0], []).append(row)
    return found


def _constant(drive: Tracked) -> Array:
    return np.asarray(drive.array) if isinstance(drive, Known) else np.ones(1)


def _same(
    own: Sequence[tuple[int, Value, int, float]], word: Mapping[Number, int], grids: Sequence[Array], grid: Array
) -> int | None:
    """The number that is rounded once more to the grid that it lies on."""
    if len(own) != 1 or own[0][3] != 1.0 or own[0][1:3] not in word:
        return None
    before = word[own[0][1:3]]
    return before if np.array_equal(grids[before], grid) else None


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
        raise Unsupported("what multiplies the state, or the scale by which it is rounded, depends on the data")
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
