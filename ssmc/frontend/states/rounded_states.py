"""States that are rounded at every step, as the op `rounded`: x' = S(P(a Q(x)) + v), each of Q, P, S a grid or nothing.

What a step rounds beside that, `rounded_sums` says.

Where a step rounds is found by dataflow: values through which all goes from a state to its next value are cuts, and
what lies between two of them is a grid, or linear, by what it does to numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, Unsupported
from ssmc.frontend.graph.joint import apart
from ssmc.frontend.reasons import Kind
from ssmc.frontend.states.grids import Grid
from ssmc.frontend.states.lifting import UNTRANSLATED, Lifting
from ssmc.frontend.states.rounded_products import Products, find_products
from ssmc.frontend.states.rounded_sums import lift_sums
from ssmc.frontend.states.state_step import Step
from ssmc.frontend.states.transition import Transition, find_transition
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor

TOLERANCE = 1e-6  # relative: a grid whose scale and its inverse are both stored in float32
HINT = "quantise the weights alone, or have the rounding left out and what that changes told (--drop-rounding)"


def lift_rounded(lifting: Lifting, outside: Sequence[Value]) -> None:
    """Lift states that are rounded. Raises Unsupported, with the reason, where they are not linear but for that."""
    step = Step(lifting, tuple(outside))
    first = step.roundings(step.currents, step.followings)[0]
    try:
        _lift(step)
    except Unsupported as unsupported:
        if Kind.UNTRANSLATED in unsupported.reason.kind:
            raise
        try:
            lift_sums(step)
        except Unsupported as other:
            if Kind.UNTRANSLATED in other.reason.kind:
                raise
            raise Unsupported(
                f"{first.kind} '{first.name}' rounds the state at every step, and {other}; {HINT}"
            ) from None


def rounds_states(lifting: Lifting, outside: Sequence[Value]) -> bool:
    """Is anything rounded between the states and their next values?"""
    step = Step(lifting, tuple(outside))
    return bool(step.roundings(step.currents, step.followings))


@dataclass(eq=False)
class _Found:
    """Where a step reads its states, what it sums, and the grids on the way, a list of one for each state."""

    heads: list[Value]
    tails: list[Value]
    grids: dict[str, list[Grid]]


def _lift(step: Step) -> None:
    lifting = step.lifting
    count = len(lifting.states)
    heads = [_head(step, i) for i in range(count)]
    tails = [_tail(step, i) for i in range(count)]
    found = _Found([value for value, _ in heads], [value for value, _ in tails], {})
    for place, ends in (("state", heads), ("sum", tails)):
        grids = [grid for _, grid in ends if grid is not None]
        if grids and len(grids) < count:
            raise Unsupported("some of the states that depend on each other are rounded there, and others are not")
        if grids:
            found.grids[place] = grids
    sources, inner = found.heads, Products(np.zeros(0), np.zeros(0), {}, "", [])
    if not step.roundings(found.heads, found.tails):
        transition = _transition(step, found.heads, found.tails)
    elif count == 1 and (single := _product(step, found)) is not None:
        transition, sources = single
    else:
        inner = find_products(step, found.heads, found.tails, found.grids.get("sum"))
        transition, sources = None, inner.summed
    roundings = {grid.rounding for grids in found.grids.values() for grid in grids} | ({inner.rounding} - {""})
    if len(roundings) != 1:
        raise Unsupported("it is rounded in two ways, to the nearest code and down or up")
    drives = _drives(step, sources, found.tails)
    system = inner if transition is None else _linear(transition)
    own = {
        place: np.concatenate([grid.rows for grid in row], axis=1)[:, system.order]
        for place, row in found.grids.items()
    }
    _build(step, found, replace(system, grids={**own, **system.grids}, rounding=roundings.pop()), drives)


def _linear(transition: Transition) -> Products:
    """A decay that is not rounded on the way."""
    pairs = transition.complex_pairs
    order = transition.index.T.reshape(-1)  # all first parts, then all second parts
    decay = transition.diagonal[0][order] if pairs is None else np.concatenate([pairs[0].real, pairs[0].imag])
    return Products(decay, order, {}, "", [], pairs is not None)


def _head(step: Step, which: int) -> tuple[Value, Grid | None]:
    """Where a state is read that is rounded before, and the grid."""
    source, best = step.currents[which], None
    for value in step.cuts(which, source, step.followings):
        grid = step.grid(which, source, value)
        if grid is None and best is not None:
            break
        best = best if grid is None else (value, grid)  # a range may be cut off behind the grid
    return best or (source, None)


def _tail(step: Step, which: int) -> tuple[Value, Grid | None]:
    """What is rounded to be the next value of a state, and the grid."""
    goal, best = step.followings[which], None
    for value in reversed(_cuts_of_all(step, which)):
        grid = step.grid(which, value, goal)
        if grid is None and best is not None:
            break
        best = best if grid is None else (value, grid)
    return best or (goal, None)


def _cuts_of_all(step: Step, which: int) -> list[Value]:
    """Values through which all goes from any state to the next value of one, in order."""
    goal, currents, found = step.followings[which], set(step.currents), list[Value]()
    for call in step.calls(step.currents, [goal]):
        for value in call.results:
            if value == goal or value not in step.lifting.influenced or not step.fits(value, which):
                continue
            if not any(currents & set(c.operands) for c in step.calls([value, *currents], [goal])):
                found.append(value)
    return found


def _product(step: Step, found: _Found) -> tuple[Transition, list[Value]] | None:
    """A product that is rounded before anything is added to it; None where several are, of parts of a state."""
    (head,), (tail,) = found.heads, found.tails
    cuts = step.cuts(0, head, [tail])
    before = [v for v in cuts if not step.roundings([head], [v])]
    after = [v for v in (*cuts, tail) if step.roundings([head], [v]) and not step.roundings([v], [tail])]
    between = _between(step, before, after)
    if between is None:
        return None
    product, result, grid = between
    transition = _transition(step, [head], [product])
    if np.any(transition.offset):
        raise Unsupported("something is added to the state between two roundings")
    for point in step.points:
        f, x = step.map(point, [result], [tail], [0]), np.random.default_rng(5).standard_normal(transition.offset.shape)
        if np.abs(f(x) - f(0 * x) - x).max(initial=0.0) > 1e-9 * max(1.0, float(np.abs(f(x)).max())):
            raise Unsupported("what was rounded is scaled before it is summed")
    found.grids["product" if transition.width == 1 else "turned"] = [grid]
    return transition, [result]


def _between(step: Step, before: list[Value], after: list[Value]) -> tuple[Value, Value, Grid] | None:
    """The value that is rounded, what becomes of it, and the grid, with all that belongs to the rounding."""
    best = None
    for source in reversed(before):
        own = None
        for target in after:
            grid = step.grid(0, source, target)
            if grid is None and own is not None:
                break
            own = own if grid is None else (source, target, grid)
        if own is None and best is not None:
            break
        best = own or best
    return best


def _transition(step: Step, sources: list[Value], targets: list[Value]) -> Transition:
    lifting = step.lifting
    which = range(len(sources))
    found: list[Transition] = []
    for point in step.points:
        f = step.map(point, sources, targets, which)
        transition = find_transition(f, lifting.batch, lifting.features, np.random.default_rng(point))
        if transition is None:
            raise Unsupported("but for that it is not linear in the state, or is rounded in more places")
        found.append(transition)
    first = found[0]
    if not all(t.index.shape == first.index.shape and t.invariant(first) for t in found):
        raise Unsupported("what multiplies the state, or the scale by which it is rounded, depends on the data")
    if first.width > 1 and first.complex_pairs is None:
        raise Unsupported(
            "the states are mixed by a matrix; only states that are real or complex numbers apart are run"
        )
    return first


def _drives(step: Step, sources: list[Value], tails: list[Value]) -> list[Tracked]:
    """What is added to the product of the states, before it is rounded."""
    lifting = step.lifting
    zeros = {v: Known(np.zeros(step.shape(v))) for v in sources}
    drives = lifting.translator.substituted(zeros).demand(tails)
    for drive, layout in zip(drives, lifting.layouts, strict=True):
        if isinstance(drive, Refused) or (isinstance(drive, Flow) and apart(drive).axes != layout.axes):
            raise Unsupported(UNTRANSLATED)
    return drives


def _build(step: Step, found: _Found, system: Products, drives: list[Tracked]) -> None:
    lifting, order = step.lifting, system.order
    builder, translator = lifting.translator.builder, lifting.translator
    back = np.argsort(order)
    attrs = {
        "decay": Tensor(system.decay),
        **{f"{place}_grid": Tensor(rows) for place, rows in system.grids.items()},
        "rounding": system.rounding,
        "is_complex": system.is_complex,
    }
    v = builder.stream(lifting.take(lifting.vector(drives), order), lifting.like)
    initial = lifting.initial()
    operands = [v, None if initial is None else lifting.take(initial, order)]
    lifting.error = _error(step, found, system)
    x, last = (lifting.take(each, back) for each in lifting.recurrent("rounded", operands, **attrs))
    lifting.publish(x, last)
    lifting.later(lambda: lifting.take(lifting.recurrent("rounded", operands, read_before=True, **attrs)[0], back))

    def reached(i: int) -> Tracked:
        return lifting.pieces(lifting.take(lifting.recurrent("rounded", operands, reached=True, **attrs)[0], back))[i]

    for i, (tail, following) in enumerate(zip(found.tails, step.followings, strict=True)):
        if tail == following:
            continue
        translator.later.setdefault(tail, lambda i=i: reached(i))  # type: ignore[misc]
        (call,) = step.roundings([tail], [following])
        for code in call.results:  # a value on the grid has the code that it was made of
            if code != following:
                kept = {tail: translator.env[following]}
                translator.later.setdefault(code, lambda code=code, kept=kept: _code(step, code, kept))  # type: ignore[misc]


def _code(step: Step, code: Value, kept: dict[Value, Tracked]) -> Tracked:
    return step.lifting.translator.substituted(kept).demand([code])[0]


def _error(step: Step, found: _Found, system: Products) -> float:
    """Largest error of the step at fresh states, where no rounding is on the edge between two codes, relatively."""
    worst, which, order = 0.0, range(len(found.heads)), system.order
    size = (step.lifting.batch, step.size)
    grids = system.grids.values()
    spans = [np.abs(rows[0] * (np.clip(rows[4], -512, 512) - np.clip(rows[2], -512, 512))) for rows in grids]
    scale = np.maximum(min(float(span.max()) for span in spans), 1e-12)
    for point in step.points:
        step_map = step.map(point, step.currents, step.followings, which)
        drive = _drive_rows(step, point, found, system)
        for gain in (0.3, 1.0, 3.0):
            x = gain * scale * np.random.default_rng(31 + point).uniform(-1, 1, size)
            expected, given = step_map(x)[:, order], x[:, order]
            near, got, wide = (system.step(given, drive, by)[1] for by in (-1e-6, 0.0, 1e-6))
            sure = np.abs(near - wide) <= 1e-9 * max(1e-300, float(np.abs(got).max(initial=0.0)))
            error = np.where(sure, np.abs(got - expected), 0.0).max(initial=0.0)
            worst = max(worst, float(error) / max(float(np.abs(expected).max(initial=0.0)), 1e-300))
    if worst > TOLERANCE:
        raise Unsupported("a step does something else beside it")
    return worst


def _drive_rows(step: Step, point: int, found: _Found, system: Products) -> Array:
    """(batch, n) what is added to the products at one sample of the data, before it is rounded."""
    f = step.map(point, found.heads, found.tails, range(len(found.heads)))
    zeros = np.zeros((step.lifting.batch, step.size))
    grids = {
        place: rows for place, rows in system.grids.items() if place not in ("state", "sum")
    }  # 0 need not be on one
    alone = replace(system, grids=grids)
    return f(zeros)[:, system.order] - alone.step(zeros, zeros)[0]
