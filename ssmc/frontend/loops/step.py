"""One-step models: which output is the next value of which input, and the model as the body of a recurrence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from functools import cached_property, reduce
from operator import or_

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.loops.parts import find_parts, parts_move
from ssmc.frontend.loops.spike_pairs import Spikes
from ssmc.frontend.source.evaluate import evaluate, evaluator
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.states.dependence import Dependence, blocks, dependence, surroundings
from ssmc.frontend.states.stabilised import MAXIMA, is_running_maximum
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.types import TensorType

AFFINE_TOLERANCE = 1e-8
SPIKES = 4.0  # the weight of a pair of spikes
PARTS = 2.5  # the least weight of a pair of which each part of several is affine in itself
AFFINE = 2.0  # the least weight of a pair that is affine
HANDED_ON = 0.25  # the weight of a pair of an input and an output that does not read it
NEAR = 1e-3  # a move that few elements cross a threshold by


def pair_states(
    listing: Listing, types: Mapping[str, TensorType], point: Mapping[Value, Array], given: Mapping[str, str] | None
) -> dict[str, str]:
    """State inputs and the outputs that are their next values; empty where the model is no single step.

    `point` are sample arrays of all inputs. An output can be the next value of an input if it has the same shape and
    is affine in it, if it is so near by and elementwise (neurons), or if both can be spikes; of all ways to pair them
    the one with the most elementwise dependence is taken, then the one that keeps the order of the file. `given`
    overrides. Raises UserError where a given name does not exist, or a given pair cannot be a state and its next value.
    """
    if given is not None:
        return _checked(listing, point, given)
    outputs = _arrays(listing, point)
    inputs = [name for name, kind in types.items() if kind.dtype.startswith(("float", "double", "bfloat"))]
    names = list(listing.outputs)
    known = dependence(listing, listing.inputs.values())
    spikes = Spikes(listing, point, outputs)
    weights = _sure_weights(listing, point, outputs, inputs, known, spikes)
    left, free = np.flatnonzero(~weights.any(axis=1)), np.flatnonzero(~weights.any(axis=0))
    reads = [known.reads.get(listing.outputs[name], 0) for name in names]
    bits = [known.bits[listing.inputs[name]] for name in inputs]
    sure = [(bits[i], reads[j]) for i, j in np.argwhere(weights)]
    # Outputs that depend on an input through other states are those of later layers, unless there are no others.
    through = {i: reduce(or_, (state for state, read in sure if read & bits[i]), 0) for i in left}
    near = {i: [j for j in free if not reads[j] & through[i]] for i in left}
    close = {i: [listing.outputs[names[j]] for j in near[i] if reads[j] & bits[i]] for i in left}
    around = {i: surroundings(listing, known, close[i], bits[i]) for i in left}
    values = evaluate(listing, point, set[Value]().union(*around.values()))
    for i in left:
        local = {**point, **{v: values[v] for v in around[i]}}
        moves = _Moves(listing, local, outputs, inputs[i], frozenset(close[i]))
        for j in near[i]:
            weights[i, j] = _weight(listing, point, outputs, names[j], moves, spikes)
        if not weights[i].any():
            moves = _Moves(listing, point, outputs, inputs[i], listing.influenced({moves.x}))
            for j in set(free) - set(near[i]):
                weights[i, j] = _weight(listing, point, outputs, names[j], moves, spikes)
        if (weights[i] == SPIKES).any():  # they are nothing else
            weights[i, weights[i] != SPIKES] = 0.0
    found = _assigned(weights)

    def possible(i: int, j: int) -> bool:
        output = outputs[names[j]]
        fits = output.dtype.kind == "f" and output.shape == np.shape(point[listing.inputs[inputs[i]]])
        return fits and bool(reads[j]) and not reads[j] & bits[i]

    found |= _handed_on(weights, found, possible)
    if len(found) == len(types):  # a step needs an input that is not a state
        pairs = zip(*np.nonzero(weights), strict=True)
        targets: dict[int, list[str]] = {}
        for i, j in pairs:
            targets.setdefault(int(i), []).append(names[j])
        handed = {i for i, found in targets.items() if _handed_through(listing, point, outputs, inputs[i], found)}

        def likely(i: int) -> tuple[bool, bool, float]:
            """Data drive a state, and may be handed through to an output, as to a residual or an innovation."""
            drives = any(reads[column] & bits[i] for _, column in others[i])
            return drives, drives and i in handed, sum(others[i].values())

        others = {i: _assigned(weights, but=i) for i in range(len(inputs))}
        found = others[max(others, key=likely)]
    paired = {inputs[i]: names[j] for i, j in found}
    return {name: paired[name] for name in types if name in paired}


def _assigned(weights: Array, but: int | None = None) -> dict[tuple[int, int], float]:
    """The pairs of the largest sum of weights, without one input, and what each is worth in its place."""
    from scipy.optimize import linear_sum_assignment

    worth = weights + _order_bonus(weights)
    if but is not None:
        worth[but] = 0.0
    pairs = zip(*linear_sum_assignment(-worth), strict=True)
    return {(i, j): float(worth[i, j]) for i, j in pairs if worth[i, j] > 0 and weights[i, j] > 0}


def _handed_on(
    weights: Array, found: Mapping[tuple[int, int], float], possible: Callable[[int, int], bool]
) -> dict[tuple[int, int], float]:
    """Pairs beside those found: inputs that may hold what an output, which does not read them, was one step before.

    Such are the caches of a token shift, or of a filter of two taps. Where no other input is a state for certain, that
    an output does not read an input tells nothing.
    """
    if not any(weights[pair] >= AFFINE for pair in found):
        return {}
    rows, columns = (
        np.setdiff1d(np.arange(size), [pair[side] for pair in found]) for side, size in enumerate(weights.shape)
    )
    left = np.asarray([[possible(i, j) for j in columns] for i in rows], float).reshape(len(rows), len(columns))
    pairs = _assigned(HANDED_ON * left)
    return {(int(rows[i]), int(columns[j])): worth for (i, j), worth in pairs.items()}


def unpaired(
    listing: Listing, types: Mapping[str, TensorType], point: Mapping[Value, Array], pairs: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Inputs and outputs that look like states which are not linear in themselves: data is given, and comes out, too.

    States stand last, in the same order.
    """
    inputs = [n for n, kind in types.items() if n not in pairs and kind.dtype.startswith(("float", "double", "bfloat"))]
    outputs = _arrays(listing, point)
    left = [name for name in outputs if name not in pairs.values()]
    found: list[tuple[str, str]] = []
    for name in reversed(inputs[1:]):
        value = listing.inputs[name]
        reached, shape = listing.influenced({value}), np.shape(point[value])
        fits = [n for n in left[1:] if outputs[n].shape == shape and listing.outputs[n] in reached]
        if fits:
            found.append((name, fits[-1]))
            left.remove(fits[-1])
    return found[::-1]


def _checked(listing: Listing, point: Mapping[Value, Array], given: Mapping[str, str]) -> dict[str, str]:
    """The pairs that the user names. Raises UserError where they are none."""
    for name, target in given.items():
        for what, wanted, known in (("input", name, listing.inputs), ("output", target, listing.outputs)):
            if wanted not in known:
                raise UserError(
                    f"the model has no {what} '{wanted}' to be a state", hint=f"its {what}s are: {', '.join(known)}"
                )
    if len(set(given.values())) < len(given):
        raise UserError("one output is given as the next value of two states", hint="name an output for each")
    if not set(listing.inputs) - set(given):
        raise UserError("all inputs are given as states, and none is left for data", hint="name the states only")
    outputs = _arrays(listing, point)
    for name, target in given.items():
        now, then = np.shape(point[listing.inputs[name]]), outputs[target].shape
        if now != then:
            raise UserError(
                f"the output '{target}' cannot be the next value of '{name}'",
                why=f"their shapes differ: {'x'.join(map(str, then))} and {'x'.join(map(str, now))}",
                hint="--state IN=OUT names a state input and the output that is its next value",
            )
    return dict(given)


def _arrays(listing: Listing, point: Mapping[Value, Array]) -> dict[str, Array]:
    found = evaluate(listing, point, listing.outputs.values())
    return {name: np.asarray(found[value]) for name, value in listing.outputs.items()}


def _sure_weights(
    listing: Listing,
    point: Mapping[Value, Array],
    outputs: Mapping[str, Array],
    inputs: Sequence[str],
    known: Dependence,
    spikes: Spikes,
) -> Array:
    """Weights of the pairs that need not be compared with others, zero elsewhere.

    Most outputs are affine in one input of their shape for their ops alone: what such pairs have between them is run by
    itself. Others, and inputs and outputs that could be paired in ways that leave one of them over, are compared.
    """
    names = list(outputs)
    weights = np.zeros((len(inputs), len(names)))
    bits = [known.bits[listing.inputs[name]] for name in inputs]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, name in enumerate(inputs):
        by_shape.setdefault(np.shape(point[listing.inputs[name]]), []).append(i)
    pairs = set()
    for j, name in enumerate(names):
        affine, base = known.affine(listing.outputs[name]), outputs[name]
        if affine and base.dtype.kind == "f" and not np.isin(base, (0.0, 1.0)).all():
            pairs |= {(i, j) for i in by_shape.get(base.shape, ()) if bits[i] & affine}
    found = blocks(sorted(pairs))
    moving = [sum(bits[i] for i in members) for members, _ in found]
    wanted = [[listing.outputs[names[j]] for j in members] for _, members in found]
    around = [surroundings(listing, known, *block) for block in zip(wanted, moving, strict=True)]
    values = evaluate(listing, point, set[Value]().union(*around))
    for (rows, columns), values_of, beside in zip(found, wanted, around, strict=True):
        local = {**point, **{v: values[v] for v in beside}}
        for i in rows:
            moves = _Moves(listing, local, outputs, inputs[i], frozenset(values_of))
            alike = [j for j in columns if (i, j) in pairs]
            weights[i, alike] = _affine_weights([names[j] for j in alike], moves, spikes)
        chosen = np.ix_(rows, columns)
        mixed = [i for i in rows if weights[i].max() <= AFFINE]  # what a layer hands to the next may be affine, too
        if not _all_affine(weights[chosen]) or any(_has_parts(listing, point, outputs, inputs[i]) for i in mixed):
            weights[chosen] = 0.0
    return weights


def _has_parts(listing: Listing, point: Mapping[Value, Array], outputs: Mapping[str, Array], source: str) -> bool:
    """Can an input be the states of several layers?"""
    x = listing.inputs[source]
    alike = (listing.outputs[name] for name, array in outputs.items() if array.shape == np.shape(point[x]))
    return any(find_parts(listing, x, value, point) is not None for value in alike)


def _all_affine(weights: Array) -> bool:
    """Can each input have an output that is affine in it?"""
    from scipy.optimize import linear_sum_assignment

    return bool((weights[linear_sum_assignment(-weights)] >= AFFINE).all())


class _Moves:
    """How the outputs move with one input: each step of the input is run once, for all of them."""

    def __init__(
        self,
        listing: Listing,
        point: Mapping[Value, Array],
        outputs: Mapping[str, Array],
        source: str,
        reached: Set[Value],
    ) -> None:
        """`point` may know values on the way that do not depend on the input; `reached` are those to be looked at."""
        self.listing, self.point, self.outputs = listing, point, outputs
        self.source, self.x = source, listing.inputs[source]
        self.reached = reached
        shape = np.shape(point[self.x])
        self.wanted = [v for n, v in listing.outputs.items() if v in self.reached and outputs[n].shape == shape]
        self.found: dict[bytes, dict[Value, Array]] = {}

    @cached_property
    def _run(self) -> Callable[[Mapping[Value, Array]], dict[Value, Array]]:
        return evaluator(self.listing, self.point.keys(), self.wanted)

    @cached_property
    def compared(self) -> bool:
        """Does the input meet a maximum, at once or after one node?"""
        users = self.listing.users[self.x]
        after = (call for user in users for v in user.results for call in self.listing.users.get(v, []))
        return any(call.kind in MAXIMA for call in (*users, *after))

    def of(self, target: str) -> Callable[[Array], Array]:
        """The function from steps of the input to those of an output."""
        value, base = self.listing.outputs[target], self.outputs[target]

        def moved(step: Array) -> Array:
            key = np.asarray(step, np.float64).tobytes()
            if key not in self.found:
                self.found[key] = self._run({**self.point, self.x: self.point[self.x] + step})
            return np.asarray(self.found[key][value]) - base

        return moved


def _affine_weights(targets: Sequence[str], moves: _Moves, spikes: Spikes) -> list[float]:
    """`_weight` of pairs of an input and outputs that their ops alone tell to be affine in it, all in one go."""
    weight = {
        target: _weight(moves.listing, moves.point, moves.outputs, target, moves, spikes)
        for target in targets
        if moves.listing.outputs[target] not in moves.reached or spikes.are_pair(moves.source, target)
    }
    plain = [target for target in targets if target not in weight]
    if plain and not moves.listing.users.get(moves.x):
        return [_weight(moves.listing, moves.point, moves.outputs, target, moves, spikes) for target in targets]
    if plain:
        shape, rng = np.shape(moves.point[moves.x]), np.random.default_rng(1)
        first, second = rng.standard_normal(shape), rng.standard_normal(shape)
        a, b = (np.stack([moves.of(target)(step) for target in plain]) for step in (first, second))
        with np.errstate(all="ignore"):
            off = np.abs(b - a / first * second)
        size, inner = np.abs(a + b), tuple(range(1, a.ndim))
        scale = np.maximum(np.maximum(size, np.abs(a)).max(axis=inner, initial=0.0), 1.0)
        alone = off.max(axis=inner, initial=0.0) <= AFFINE_TOLERANCE * scale
        single = np.size(first) == 1 or shape[1:] == (1,)  # of one element nothing tells a decay from a matrix
        found = np.where(alone & (not single), 3.0, AFFINE)
        found = np.where(a.any(axis=inner), found, 0.5)
        finite = np.isfinite(size).all(axis=inner)
        weight |= {target: float(w) for target, w in zip(plain, np.where(finite, found, 0.0), strict=True)}
    return [weight[target] for target in targets]


def _weight(
    listing: Listing,
    point: Mapping[Value, Array],
    outputs: Mapping[str, Array],
    target: str,
    moves: _Moves,
    spikes: Spikes,
) -> float:
    """0 if the input that moves and an output cannot be a pair; more the likelier they are one."""
    x, base = moves.x, outputs[target]
    shape = np.shape(point[x])
    if base.shape != shape or base.dtype.kind != "f":
        return 0.0
    value = listing.outputs[target]
    if spikes.are_pair(moves.source, target):
        return SPIKES
    if value == x or not listing.users.get(x):
        return 1.0  # handed through, or not read at all: a state that nothing depends on
    if value not in moves.reached:
        return 0.0
    rng, moved = np.random.default_rng(1), moves.of(target)
    first, second = rng.standard_normal(shape), rng.standard_normal(shape)
    a, b, both = moved(first), moved(second), moved(first + second)
    scale = max(float(np.abs(both).max(initial=0.0)), float(np.abs(a).max(initial=0.0)), 1e-12)
    curved = np.abs(both - a - b).max(initial=0.0) > AFFINE_TOLERANCE * max(scale, 1.0)
    if np.isin(a, (-1.0, 0.0, 1.0)).all():  # spikes may add up by chance
        curved |= bool(np.abs(moved(first / 2) - a / 2).max(initial=0.0) > AFFINE_TOLERANCE)
    if not np.isfinite(both).all() or curved:
        if (parts := find_parts(listing, x, value, point)) is not None:
            # several layers in one, and what is between them is not linear
            affine, elementwise = parts_move(listing, parts, point)
            return 3.0 if elementwise else PARTS if affine else AFFINE
        if moves.compared and is_running_maximum(lambda m: moved(m - point[x]) + base, shape):
            return 1.5
        return 1.5 if _bends(moved, shape) else 0.0
    if not np.any(a):
        return 0.5
    ratio = a / first
    if np.size(first) == 1 or np.shape(first)[1:] == (1,):  # of one element nothing tells a decay from a matrix
        return AFFINE
    elementwise = bool(np.abs(b - ratio * second).max(initial=0.0) <= AFFINE_TOLERANCE * max(scale, 1.0))
    return 3.0 if elementwise else AFFINE


def _handed_through(
    listing: Listing, point: Mapping[Value, Array], outputs: Mapping[str, Array], source: str, targets: Sequence[str]
) -> bool:
    """Does one of some outputs move just as an input does?"""
    x, values = listing.inputs[source], [listing.outputs[target] for target in targets]
    step = np.random.default_rng(3).uniform(0.5, 1.5, np.shape(point[x]))
    found = evaluate(listing, {**point, x: point[x] + step}, values)
    moved = (np.asarray(found[value]) - outputs[target] for target, value in zip(targets, values, strict=True))
    return any(m.shape == step.shape and np.abs(m - step).max(initial=0.0) <= AFFINE_TOLERANCE for m in moved)


def _bends(moved: Callable[[Array], Array], shape: tuple[int, ...]) -> bool:
    """Is every element linear in its own one near by, if not far away, as a potential with a threshold is?"""
    small = NEAR * np.random.default_rng(2).uniform(1.0, 2.0, shape)
    with np.errstate(all="ignore"):
        near, double, lone = (
            moved(small),
            moved(2 * small),
            moved(np.where(np.indices(shape).sum(axis=0) % 2, small, 0)),
        )
        slope = near / small
    straight = np.abs(double - 2 * near) <= AFFINE_TOLERANCE * NEAR
    apart = np.abs(lone) <= AFFINE_TOLERANCE * NEAR + np.abs(np.where(np.indices(shape).sum(axis=0) % 2, near, 0))
    return bool(straight.mean() > 0.5 and apart.mean() > 0.5 and np.any(slope))


def _order_bonus(weights: Array) -> Array:
    """A little for pairs that keep the order: the k-th possible state input with the k-th possible state output."""
    possible_in = np.flatnonzero((weights > 0).any(axis=1))
    possible_out = np.flatnonzero((weights > 0).any(axis=0))
    # counted from the end: states stand last, data first
    rows, columns = (np.arange(len(possible), 0, -1) for possible in (possible_in, possible_out))
    bonus = np.zeros(weights.shape)
    bonus[np.ix_(possible_in, possible_out)] = 1e-3 / (1 + np.abs(np.subtract.outer(rows, columns)))
    return bonus


def unread(listing: Listing, pairs: Mapping[str, str]) -> list[str]:
    """Notes about pairs of which the next value does not read the present one."""
    known = dependence(listing, [listing.inputs[name] for name in pairs])
    return [
        f"'{target}' is taken for the next value of '{name}', which it does not read; where that is data, --state tells"
        for name, target in pairs.items()
        if not known.reads.get(listing.outputs[target], 0) & known.bits[listing.inputs[name]]
    ]


def ambiguous(pairs: Mapping[str, str], shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Notes about pairs that only the order of the file tells apart."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name in pairs:
        by_shape.setdefault(tuple(shapes[name]), []).append(name)
    return [
        f"states of one shape were paired by dependence and order: {', '.join(n)}"
        for n in by_shape.values()
        if len(n) > 1
    ]
