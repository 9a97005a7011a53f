"""How likely an input of a one-step model is a state, and an output its next value: a weight for every pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations
from math import prod
from operator import or_

import numpy as np

from ssmc.frontend.loops.parts import find_parts, parts_move
from ssmc.frontend.loops.responses import PLACES, TOLERANCE, Moves, Step, bends, is_still, jumps
from ssmc.frontend.loops.spike_pairs import Spikes
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.states.dependence import Dependence, blocks, dependence, surroundings
from ssmc.frontend.states.stabilised import is_running_maximum
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

SPIKES = 4.0  # a pair of spikes
FIRES = 3.5  # an output that jumps where its own element of the input reaches a threshold, and is linear near by
ELEMENTWISE = 3.0  # an output of which every element is affine in its own one of the input
PARTS = 2.5  # a pair of which each part of several is affine in itself
AFFINE = 2.0  # an output that is affine in the input
NEARLY = 1.5  # one that is so near by, or the larger of the input and another
FIRED = 1.25  # one that is affine for some moves, and jumps with larger ones: it is fired by several of the input
UNREAD = 1.0  # an input handed through, or not read at all: a state that nothing depends on
STILL = 0.5  # an output that reads the input and does not move with it
SHADOWS = 4  # numbers that tell two moves of an output apart (ours)
TURNED = 0.1  # more for two pairs that are the parts of a complex state, which a complex number multiplies


@dataclass(frozen=True, eq=False)
class Candidates:
    """Inputs and outputs of a step that may be states and their next values: rows and columns of a table of weights.

    `known` tells of each value which of the inputs it reads, and in which of them its ops alone make it affine.
    """

    step: Step
    inputs: Sequence[str]
    known: Dependence
    spikes: Spikes

    @classmethod
    def of(cls, step: Step, inputs: Sequence[str]) -> Candidates:
        """All outputs beside some inputs."""
        listing = step.listing
        return cls(
            step, inputs, dependence(listing, listing.inputs.values()), Spikes(listing, step.point, step.outputs)
        )

    @cached_property
    def outputs(self) -> list[str]:
        """The names of the outputs, by column."""
        return list(self.step.outputs)

    @cached_property
    def bits(self) -> list[int]:
        """The bit of each input in `reads`."""
        return [self.known.bits[self.step.listing.inputs[name]] for name in self.inputs]

    @cached_property
    def reads(self) -> list[int]:
        """The inputs that each output reads, as bits of a number."""
        return [self.known.reads.get(self.step.listing.outputs[name], 0) for name in self.outputs]

    def values(self, columns: Iterable[int]) -> list[Value]:
        """The values of some outputs."""
        return [self.step.listing.outputs[self.outputs[j]] for j in columns]

    def moves(self, row: int, wanted: Sequence[Value], beside: Mapping[Value, Array]) -> Moves:
        """How some outputs move with an input, where values `beside` them stay as they are."""
        return Moves(self.step, {**self.step.point, **beside}, self.inputs[row], frozenset(wanted))


def weigh(candidates: Candidates) -> Array:
    """A weight for each pair (inputs, outputs): 0 where it cannot be one, more the likelier it is one."""
    weights = _sure_weights(candidates)
    _weigh_firing(candidates, weights)
    _weigh_others(candidates, weights)
    return weights


def _sure_weights(candidates: Candidates) -> Array:
    """Weights of the pairs that need not be compared with others, zero elsewhere.

    Most outputs are affine in one input of their shape for their ops alone: what such pairs have between them is run by
    itself. Others, and inputs and outputs that could be paired in ways that leave one of them over, are compared.
    """
    step, known, bits = candidates.step, candidates.known, candidates.bits
    weights = np.zeros((len(candidates.inputs), len(candidates.outputs)))
    pairs = _affine_pairs(candidates)
    found = blocks(sorted(pairs))
    wanted = [candidates.values(columns) for _, columns in found]
    moving = [sum(bits[i] for i in rows) for rows, _ in found]
    around = [surroundings(step.listing, known, *block) for block in zip(wanted, moving, strict=True)]
    values = evaluate(step.listing, step.point, set[Value]().union(*around))
    for (rows, columns), ends, beside in zip(found, wanted, around, strict=True):
        moving_one = {i: candidates.moves(i, ends, {v: values[v] for v in beside}) for i in rows}
        for i, moves in moving_one.items():
            alike = [j for j in columns if (i, j) in pairs]
            weights[i, alike] = _affine_weights([candidates.outputs[j] for j in alike], moves, candidates.spikes)
        chosen = np.ix_(rows, columns)
        mixed = [i for i in rows if weights[i].max() <= AFFINE]  # what a layer hands to the next may be affine, too
        if not _all_affine(weights[chosen]) or any(_has_parts(step, candidates.inputs[i]) for i in mixed):
            weights[chosen] = 0.0
        _prefer_complex(candidates, weights, moving_one, columns)
    return weights


def _prefer_complex(candidates: Candidates, weights: Array, moves: Mapping[int, Moves], columns: Sequence[int]) -> None:
    """Add to the weights of pairs that are the real and the imaginary part of `x' = a x + ...`.

    Of two inputs and two outputs that could be paired in both ways these are those of which both parts move alike with
    their own input, and oppositely with each other's. The order of a file says less: exporters sort names.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, one in moves.items():
        alike.setdefault(one.shape, []).append(i)
    found = set()
    for rows in alike.values():
        could = weights[np.ix_(rows, columns)] >= AFFINE
        chosen = [j for j, both in zip(columns, could.sum(axis=0) > 1, strict=True) if both]
        if len(chosen) < 2:
            continue
        moved = np.stack([_shadows(candidates, moves[i], weights[i], chosen) for i in rows])
        tried = weights[np.ix_(rows, chosen)]
        for a, b in combinations(range(len(rows)), 2):
            size = np.abs(moved[[a, b]]).max(axis=-1)
            least, most = (of(size[0][:, None], size[0]) for of in (np.minimum, np.maximum))
            same = np.abs(moved[a][:, None] - moved[b]).max(axis=-1)
            opposite = np.abs(moved[a] + moved[b][:, None]).max(axis=-1)
            scale = TOLERANCE * np.maximum(most, 1.0)
            fits = (np.maximum(same, opposite) <= scale) & (least > scale)
            even = tried[a] == tried[b]
            for j, m in zip(*np.nonzero(fits & even & even[:, None]), strict=True):
                found |= {(rows[a], chosen[j]), (rows[b], chosen[m])}
    for pair in found:
        weights[pair] += TURNED


def _shadows(candidates: Candidates, moves: Moves, weights: Array, columns: Sequence[int]) -> Array:
    """How outputs move with an input, seen from a few directions: (outputs, SHADOWS); NaN of those that are no pair."""
    move, _ = _two_moves(moves.shape)
    seen = np.random.default_rng(2).standard_normal((SHADOWS, move.size))
    found = np.full((len(columns), SHADOWS), np.nan)
    for row, j in enumerate(columns):
        if weights[j] >= AFFINE:
            found[row] = seen @ moves.of(candidates.outputs[j])(move).reshape(-1)
    return found


def _affine_pairs(candidates: Candidates) -> set[tuple[int, int]]:
    """Inputs and outputs of one shape of which the ops between them tell that they are affine."""
    step, bits = candidates.step, candidates.bits
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, name in enumerate(candidates.inputs):
        by_shape.setdefault(step.shape(name), []).append(i)
    pairs = set()
    for j, (name, base) in enumerate(step.outputs.items()):
        affine = candidates.known.affine(step.listing.outputs[name])
        if affine and base.dtype.kind == "f" and not np.isin(base, (0.0, 1.0)).all():
            pairs |= {(i, j) for i in by_shape.get(base.shape, ()) if bits[i] & affine}
    return pairs


def _weigh_others(candidates: Candidates, weights: Array) -> None:
    """Fill in the weights of the inputs and outputs that none is known of yet.

    Outputs that depend on an input through other states are those of later layers, unless there are no others.
    """
    step, known, bits, reads = candidates.step, candidates.known, candidates.bits, candidates.reads
    left, free = (np.flatnonzero(~weights.any(axis=axis)).tolist() for axis in (1, 0))
    sure = [(bits[i], reads[j]) for i, j in np.argwhere(weights)]
    through = {i: reduce(or_, (state for state, read in sure if read & bits[i]), 0) for i in left}
    near = {i: [j for j in free if not reads[j] & through[i]] for i in left}
    close = {i: candidates.values(j for j in near[i] if reads[j] & bits[i]) for i in left}
    around = {i: surroundings(step.listing, known, close[i], bits[i]) for i in left}
    values = evaluate(step.listing, step.point, set[Value]().union(*around.values()))
    moving = {}
    for i in left:
        moves = candidates.moves(i, close[i], {v: values[v] for v in around[i]})
        for j in near[i]:
            weights[i, j] = _weight(candidates.outputs[j], moves, candidates.spikes)
        if not weights[i].any():
            moves = Moves(step, step.point, moves.source, step.listing.influenced({moves.x}))
            for j in set(free) - set(near[i]):
                weights[i, j] = _weight(candidates.outputs[j], moves, candidates.spikes)
        if (weights[i] == SPIKES).any():  # they are nothing else
            weights[i, weights[i] != SPIKES] = 0.0
        moving[i] = moves
    _prefer_complex(candidates, weights, moving, free)


def _weigh_firing(candidates: Candidates, weights: Array) -> None:
    """Fill in the weights of inputs which outputs that are affine in others fire by.

    The current of a neuron, too, may be of the shape of its potential, which is linear in it.
    """
    step, known, bits, reads = candidates.step, candidates.known, candidates.bits, candidates.reads
    for i in np.flatnonzero(~weights.any(axis=1)).tolist():
        shape = step.shape(candidates.inputs[i])
        taken = [j for j in np.flatnonzero(weights.any(axis=0)).tolist() if reads[j] & bits[i]]
        alike = [j for j in taken if step.outputs[candidates.outputs[j]].shape == shape]
        if not alike or not any(candidates.moves(i, (), {}).fires(candidates.outputs[j]) for j in alike):
            continue
        wanted = candidates.values(alike)
        around = surroundings(step.listing, known, wanted, bits[i])
        moves = candidates.moves(i, wanted, evaluate(step.listing, step.point, around))
        for j in alike:
            moved = moves.of(candidates.outputs[j])
            if bends(moved, shape, PLACES) and jumps(moved, shape):
                weights[i, j] = FIRES


def _has_parts(step: Step, source: str) -> bool:
    """Can an input be the states of several layers?"""
    x, listing = step.listing.inputs[source], step.listing
    alike = (listing.outputs[name] for name, array in step.outputs.items() if array.shape == step.shape(source))
    return any(find_parts(listing, x, value, step.point) is not None for value in alike)


def _all_affine(weights: Array) -> bool:
    """Can each input have an output that is affine in it?"""
    from scipy.optimize import linear_sum_assignment

    return bool((weights[linear_sum_assignment(-weights)] >= AFFINE).all())


def _affine_weights(targets: Sequence[str], moves: Moves, spikes: Spikes) -> list[float]:
    """`_weight` of pairs of an input and outputs that their ops alone tell to be affine in it, all in one go."""
    outputs = moves.step.listing.outputs
    if not moves.step.listing.users.get(moves.x):
        return [_weight(target, moves, spikes) for target in targets]
    weight = {
        target: _weight(target, moves, spikes)
        for target in targets
        if outputs[target] not in moves.reached or spikes.are_pair(moves.source, target)
    }
    plain = [target for target in targets if target not in weight]
    if plain:
        first, second = _two_moves(moves.shape)
        a, b = (np.stack([moves.of(target)(move) for target in plain]) for move in (first, second))
        with np.errstate(all="ignore"):
            off = np.abs(b - a / first * second)
        size, inner = np.abs(a + b), tuple(range(1, a.ndim))
        scale = np.maximum(np.maximum(size, np.abs(a)).max(axis=inner, initial=0.0), 1.0)
        alone = off.max(axis=inner, initial=0.0) <= TOLERANCE * scale
        found = np.where(alone & (not _is_single(moves.shape)), ELEMENTWISE, AFFINE)
        found = np.where(a.any(axis=inner), found, STILL)
        finite = np.isfinite(size).all(axis=inner)
        weight |= {target: float(w) for target, w in zip(plain, np.where(finite, found, 0.0), strict=True)}
    return [weight[target] for target in targets]


def _weight(target: str, moves: Moves, spikes: Spikes) -> float:
    """0 if the input that moves and an output cannot be a pair; more the likelier they are one."""
    step, x, shape = moves.step, moves.x, moves.shape
    base, value = step.outputs[target], step.listing.outputs[target]
    if base.shape != shape or base.dtype.kind != "f":
        return 0.0
    if spikes.are_pair(moves.source, target):
        return SPIKES
    if value == x or not step.listing.users.get(x):
        return UNREAD
    if value not in moves.reached:
        return 0.0
    moved = moves.of(target)
    first, second = _two_moves(shape)
    a, b, both = moved(first), moved(second), moved(first + second)
    scale = max(float(np.abs(both).max(initial=0.0)), float(np.abs(a).max(initial=0.0)), 1.0)
    curved = np.abs(both - a - b).max(initial=0.0) > TOLERANCE * scale
    if np.isin(a, (-1.0, 0.0, 1.0)).all():  # spikes may add up by chance
        curved |= bool(np.abs(moved(first / 2) - a / 2).max(initial=0.0) > TOLERANCE)
    if not np.isfinite(both).all() or curved:
        return _curved_weight(target, moves)
    if not np.any(a):
        return STILL
    if moves.fires(target) and jumps(moved, shape):
        return STILL if is_still(moved, shape) else max(_curved_weight(target, moves), FIRED)
    if _is_single(shape):
        return AFFINE
    elementwise = bool(np.abs(b - a / first * second).max(initial=0.0) <= TOLERANCE * scale)
    return ELEMENTWISE if elementwise else AFFINE


def _curved_weight(target: str, moves: Moves) -> float:
    """The weight of a pair that is not affine."""
    step, moved, here = moves.step, moves.of(target), moves.step.point[moves.x]
    if (parts := find_parts(step.listing, moves.x, step.listing.outputs[target], step.point)) is not None:
        # several layers in one, and what is between them is not linear
        affine, elementwise = parts_move(step.listing, parts, step.point)
        return ELEMENTWISE if elementwise else PARTS if affine else AFFINE
    if moves.compared and is_running_maximum(lambda m: moved(m - here) + step.outputs[target], moves.shape):
        return NEARLY
    if not moves.fires(target):
        return NEARLY if bends(moved, moves.shape) else 0.0
    if not bends(moved, moves.shape, PLACES):
        return 0.0
    return FIRES if jumps(moved, moves.shape) else NEARLY


def _two_moves(shape: tuple[int, ...]) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return rng.standard_normal(shape), rng.standard_normal(shape)


def _is_single(shape: tuple[int, ...]) -> bool:
    """Has it one element a sample, of which nothing tells a decay from a matrix?"""
    return prod(shape) == 1 or shape[1:] == (1,)
