"""States of which a step rounds any sums, as the op `rounded_sums`.

Between its roundings a step is linear: every number that is rounded is a sum of states, of what was rounded before, and
of what the data drive. Which, and how much, is found by feeding random numbers (`couplings`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, Unsupported
from ssmc.frontend.graph.rows import Layout, layout_of
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.states.couplings import NOT_LINEAR, Couplings, find_couplings
from ssmc.frontend.states.lifting import UNTRANSLATED, Lifting
from ssmc.frontend.states.state_step import Step
from ssmc.frontend.states.sum_nodes import Rounding, find_rounding
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import GRID
from ssmc.ir.ops.rounded_sums import Sums, islands, part_of, sums
from ssmc.ir.tensor import Tensor

TOLERANCE = 1e-6  # relative: a grid whose scale and its inverse are both stored in float32
LIMIT = 1 << 16  # numbers of a step
Number = tuple[Value, int]  # of a state's current value, of what a rounding gives, or of a state's next value


@dataclass(eq=False)
class _Net:
    """A step as numbers, those of one sequence: sums before their roundings, and next states."""

    step: Step
    roundings: Sequence[Rounding]
    couplings: Couplings
    drives: Mapping[Value, Tracked]  # by what is rounded, or the next value of a state
    layouts: dict[Value, Layout] = field(default_factory=dict)
    owners: dict[Value, Array] = field(default_factory=dict)  # sequence of every number, -1 where it is not known

    def __post_init__(self) -> None:
        lifting = self.step.lifting
        for state, layout in zip(lifting.states, lifting.layouts, strict=True):
            self.owners[state.current] = _owners(layout)
        for each in self.roundings:
            self.owners[each.result] = self._place(each.source, each.shape)
        for following, layout in zip(self.step.followings, lifting.layouts, strict=True):
            self.layouts[following], self.owners[following] = layout, _owners(layout)

    def _place(self, target: Value, shape: tuple[int, ...]) -> Array:
        """Of which sequence each number of a target is: as its drive tells, or what it is made of."""
        drive = self.drives[target]
        self.layouts[target] = layout = layout_of(drive, shape)
        if isinstance(drive, Flow):
            return _owners(layout)
        owners = np.full(int(np.prod(shape)), -1)
        for k, value, j, _ in self.couplings.terms[target]:
            owners[k] = self.owners[value][j]
        return owners


def _owners(layout: Layout) -> Array:
    rows = np.arange(int(np.prod(layout.shape))).reshape(layout.shape)
    owners = np.full(rows.size, -1)
    for which, row in enumerate(layout.rows(rows)):
        owners[row] = which
    return owners


@dataclass(frozen=True, eq=False)
class _Words:
    """The numbers of a step in the order of the op: `of` them (target, place), and which word each state is."""

    of: Sequence[Number]
    grid: Array
    terms: Array
    states: Array  # (n,) words of the states, in rows of all states
    results: Mapping[Value, Array]  # words of what a rounding gives, in rows of its layout


def lift_sums(step: Step) -> None:
    """Lift states of which a step rounds any sums. Raises Unsupported, with the reason, where it does more."""
    calls = step.roundings(step.currents, step.followings)
    found = [find_rounding(step, call) for call in calls]
    roundings = list({each.result: each for each in found}.values())
    if len({each.rounding for each in roundings}) != 1:
        raise Unsupported("it is rounded in two ways, to the nearest code and down or up")
    if sum(int(np.prod(each.shape)) for each in roundings) > LIMIT:
        raise Unsupported(f"a step rounds more than {LIMIT} numbers")
    targets = list(dict.fromkeys([*(each.source for each in roundings), *step.followings]))
    run = _runner(step, roundings, targets, 0)
    fed = {**{v: step.shape(v) for v in step.currents}, **{each.result: each.shape for each in roundings}}
    couplings = find_couplings(run, fed, np.random.default_rng(47))
    net = _Net(step, roundings, couplings, _drives(step, roundings, targets))
    words = _assembled(net)
    system = sums(words.grid, words.terms, roundings[0].rounding)
    step.lifting.error = _error(net, words, system)
    _build(net, words, roundings[0].rounding)


def _runner(
    step: Step, roundings: Sequence[Rounding], targets: Sequence[Value], point: int
) -> Callable[[Mapping[Value, Array]], dict[Value, Array]]:
    """Targets, for values of states and of what roundings give (zero where none are fed), at one sample."""
    samples = step.lifting.translator.samples
    given = samples.at(point, step.outside)
    zeros = {v: np.zeros(step.shape(v)) for v in step.currents}
    zeros |= {each.result: _as_fed(each, np.zeros(each.shape)) for each in roundings}
    by_result = {each.result: each for each in roundings}

    def run(feed: Mapping[Value, Array]) -> dict[Value, Array]:
        fed = {v: _as_fed(by_result[v], a) if v in by_result else a for v, a in feed.items()}
        found = evaluate(samples.listing, {**given, **zeros, **fed}, targets)
        values = {v: np.asarray(a, np.float64) for v, a in found.items()}
        for v in values.keys() & by_result.keys():  # a next value that is what a rounding gives
            values[v] = np.asarray(feed.get(v, np.zeros(by_result[v].shape)), np.float64)
        return values

    return run


def _as_fed(each: Rounding, array: Array) -> Array:
    """Values as the file has them: codes, where that is what it goes on with."""
    flat = array.reshape(-1) * each.gain + each.offset
    return np.asarray(flat.reshape(each.shape))


def _drives(step: Step, roundings: Sequence[Rounding], targets: Sequence[Value]) -> dict[Value, Tracked]:
    """What is added to the sums: targets where states, and what was rounded, are zero."""
    zeros: dict[Value, Tracked] = {v: Known(np.zeros(step.shape(v))) for v in step.currents}
    zeros |= {each.result: Known(_as_fed(each, np.zeros(each.shape))) for each in roundings}
    by_result = {each.result: each for each in roundings}
    found = step.lifting.translator.substituted(zeros).demand(targets)
    drives: dict[Value, Tracked] = {}
    for target, item in zip(targets, found, strict=True):
        if isinstance(item, Refused) or not isinstance(item, Flow | Known):
            raise Unsupported(UNTRANSLATED)
        drives[target] = Known(np.zeros(by_result[target].shape)) if target in by_result else item
    return drives


def _assembled(net: _Net) -> _Words:
    """The numbers of the first sequence that the next states need, one after the other."""
    of: list[Number] = []
    grids: list[Array] = []
    terms: list[tuple[int, int, float]] = []  # number, source (a word, or -1 - state), weight
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
        terms.extend((len(of), int(source), w) for source, w in made if source is not None)
        of.append((target, k))
        grids.append(grid)
        return len(of) - 1

    for each in net.roundings:
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
    rows_of = [(i, n + s if s >= 0 else int(states[-1 - s]), w) for i, s, w in terms]
    results = {}
    for each in net.roundings:
        layout = net.layouts[each.source]
        row = layout.rows(np.arange(int(np.prod(each.shape))).reshape(each.shape))[0]
        if all((each.result, int(k)) in word for k in row):
            results[each.result] = np.array([word[each.result, int(k)] for k in row])
    if not rows_of:
        raise Unsupported(NOT_LINEAR)
    found = np.array(rows_of, np.float64).T
    order = np.concatenate(islands(n, found))
    back = np.argsort(order)
    return _Words(
        [of[i] for i in order],
        np.stack(grids, axis=1)[:, order],
        part_of(n, found, order),
        back[states],
        {value: back[row] for value, row in results.items()},
    )


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


def _error(net: _Net, words: _Words, system: Sums) -> float:
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
    for point in step.points:
        f = step.map(point, step.currents, step.followings, which)
        drive = _drive_rows(net, words, point)
        for gain in (0.3, 1.0, 3.0):
            x = gain * size * rng.uniform(-1, 1, (batch, step.size))
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


def _drive_rows(net: _Net, words: _Words, point: int) -> Array:
    """(batch, words) what is added to each number at one sample of the data."""
    targets = list(net.drives)
    base = _runner(net.step, net.roundings, targets, point)({})
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


def _build(net: _Net, words: _Words, rounding: str) -> None:
    lifting, translator = net.step.lifting, net.step.lifting.translator
    attrs = {"grid": Tensor(words.grid), "terms": Tensor(words.terms), "rounding": rounding}
    operands = [_drive(net, words), _initial(lifting, words)]
    made: dict[str, Operand] = {}

    def stream(**flags: bool) -> Operand:
        key = str(flags)
        if key not in made:
            made[key] = lifting.recurrent("rounded_sums", operands, **attrs, **flags)[0]
        return made[key]

    x, last = lifting.recurrent("rounded_sums", operands, **attrs)
    made[str({})] = x
    lifting.publish(lifting.take(x, words.states), lifting.take(last, words.states))
    lifting.later(lambda: lifting.take(stream(read_before=True), words.states))
    places = {number: i for i, number in enumerate(words.of)}
    for each in net.roundings:
        layout = net.layouts[each.source]
        row = layout.rows(np.arange(int(np.prod(each.shape))).reshape(each.shape))[0]
        if each.result in words.results and each.result not in translator.env:
            translator.later[each.result] = partial(_given, net, words, each, row, x)
        numbers = [places.get((each.source, int(k))) for k in row]
        if None not in numbers and each.source not in translator.env and each.source not in net.step.currents:
            translator.later.setdefault(
                each.source, partial(_reached, net, each, lambda: stream(reached=True), numbers)
            )


def _reached(net: _Net, each: Rounding, stream: Callable[[], Operand], numbers: Sequence[int | None]) -> Tracked:
    """What is rounded, before it is."""
    return _piece(net, each, net.step.lifting.take(stream(), numbers))


def _given(net: _Net, words: _Words, each: Rounding, row: Array, x: Operand) -> Tracked:
    """What a rounding gives, values or codes."""
    lifting = net.step.lifting
    builder, value = lifting.translator.builder, lifting.take(x, words.results[each.result])
    gain, offset = each.gain[row], each.offset[row]
    if np.any(gain != 1) or np.any(offset):
        scaled = builder.emit("binary", [value, gain], fn="mul")
        value = builder.emit("unary", [builder.emit("binary", [scaled, offset], fn="add")], fn="round")
    return _piece(net, each, value)


def _piece(net: _Net, each: Rounding, value: Operand) -> Tracked:
    layout, builder = net.layouts[each.source], net.step.lifting.translator.builder
    return layout.tracked(builder.reshape(value, layout.features))


def _drive(net: _Net, words: _Words) -> Value:
    """The stream of what is added to each number."""
    lifting, builder = net.step.lifting, net.step.lifting.translator.builder
    driven = [t for t, drive in net.drives.items() if isinstance(drive, Flow)]
    pool = Lifting(lifting.translator, [], lifting.disguise, lifting.like)
    pool.layouts = [net.layouts[t] for t in driven]
    pool.features = [layout.features for layout in pool.layouts]
    starts = np.cumsum([0, *(int(np.prod(f)) for f in pool.features)])
    at: dict[Number, int] = {}
    for target, layout, start, _ in (
        zip(driven, pool.layouts, *zip(*pairwise(starts), strict=True), strict=True) if driven else ()
    ):
        row = layout.rows(np.arange(int(np.prod(layout.shape))).reshape(layout.shape))[0]
        at |= {(target, int(k)): int(start) + i for i, k in enumerate(row)}
    constants = np.array([_known(net, number) for number in words.of])
    flows = [at.get(number) for number in words.of]
    if not driven:
        return builder.stream(constants, lifting.like)
    table, index, end = [0.0], [], int(starts[-1])
    for flow, constant in zip(flows, constants, strict=True):
        if flow is None and constant:
            table.append(float(constant))
        index.append(flow if flow is not None else end + (len(table) - 1 if constant else 0))
    parts = [pool.vector([net.drives[t] for t in driven])]
    if any(flow is None for flow in flows):
        parts.append(np.array(table))
    return builder.stream(lifting.take(builder.concat(parts, -1), index), lifting.like)


def _known(net: _Net, number: Number) -> float:
    drive = net.drives[number[0]]
    if not isinstance(drive, Known):
        return 0.0
    layout = net.layouts[number[0]]
    return float(np.broadcast_to(np.asarray(drive.array, np.float64), layout.shape).reshape(-1)[number[1]])


def _initial(lifting: Lifting, words: _Words) -> Operand | None:
    initial = lifting.initial()
    if initial is None:
        return None
    size, builder = len(words.states), lifting.translator.builder
    index = np.full(len(words.of), size)
    index[words.states] = np.arange(size)
    return lifting.take(builder.concat([initial, np.zeros(1)], -1), index)
