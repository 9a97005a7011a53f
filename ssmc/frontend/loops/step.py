"""One-step models: which output is the next value of which input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.loops.likelihood import AFFINE, FIRES, Candidates, weigh
from ssmc.frontend.loops.responses import Step, handed_through, shifted
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.source.rings import counters
from ssmc.frontend.states.dependence import dependence
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.types import TensorType

HANDED_ON = 0.25  # the weight of a pair of an input and an output that does not read it

Pairs = dict[tuple[int, int], float]  # rows and columns of a table of weights, and what each is worth in its place


def pair_states(
    listing: Listing, types: Mapping[str, TensorType], point: Mapping[Value, Array], given: Mapping[str, str] | None
) -> dict[str, str]:
    """State inputs and the outputs that are their next values; empty where the model is no single step.

    `point` are sample arrays of all inputs. An output can be the next value of an input if it has the same shape and
    is affine in it, if it is so near by and elementwise (neurons), or if both can be spikes; of all ways to pair them
    the one with the most elementwise dependence is taken, then the one that keeps the order of the file. `given`
    overrides. Raises UserError where a given name does not exist, or a given pair cannot be a state and its next value.
    """
    step = Step.at(listing, point)
    if given is not None:
        return _checked(step, given)
    candidates = Candidates.of(step, [name for name, kind in types.items() if _is_real(kind)])
    weights = weigh(candidates)
    found = _assigned(weights)
    found |= _handed_on(candidates, weights, found)
    if len(found) >= len(types.keys() - counters(listing, point)):  # a step needs an input that is not a state
        found = _without_data(candidates, weights)
    paired = {candidates.inputs[i]: candidates.outputs[j] for i, j in found}
    return {name: paired[name] for name in types if name in paired}


def _is_real(kind: TensorType) -> bool:
    return kind.dtype.startswith(("float", "double", "bfloat"))


def _assigned(weights: Array, but: int | None = None) -> Pairs:
    """The pairs of the largest sum of weights, without one input."""
    from scipy.optimize import linear_sum_assignment

    worth = weights + _order_bonus(weights)
    if but is not None:
        worth[but] = 0.0
    pairs = zip(*linear_sum_assignment(-worth), strict=True)
    return {(i, j): float(worth[i, j]) for i, j in pairs if worth[i, j] > 0 and weights[i, j] > 0}


def _handed_on(candidates: Candidates, weights: Array, found: Pairs) -> Pairs:
    """Pairs beside those found: inputs that may hold what an output, which does not read them, was one step before.

    Such are the caches of a token shift, or of a filter of two taps. Where no other input is a state for certain, that
    an output does not read an input tells nothing.
    """
    if not any(weights[pair] >= AFFINE and weights[pair] != FIRES for pair in found):
        return {}
    step, reads, bits = candidates.step, candidates.reads, candidates.bits

    def possible(i: int, j: int) -> bool:
        output = step.outputs[candidates.outputs[j]]
        fits = output.dtype.kind == "f" and output.shape == step.shape(candidates.inputs[i])
        return fits and bool(reads[j]) and not reads[j] & bits[i]

    rows, columns = (
        np.setdiff1d(np.arange(size), [pair[side] for pair in found]) for side, size in enumerate(weights.shape)
    )
    left = np.asarray([[possible(i, j) for j in columns] for i in rows], float).reshape(len(rows), len(columns))
    pairs = _assigned(HANDED_ON * left)
    return {(int(rows[i]), int(columns[j])): worth for (i, j), worth in pairs.items()}


def _without_data(candidates: Candidates, weights: Array) -> Pairs:
    """The best pairs of all inputs but one, which is the data: it drives a state, may come after a forecast, which
    reads all states and not it, may go into a cache of the last steps, and may be handed through to an output, as to a
    residual or an innovation; an output that is computed from next values is what they are read by."""
    step, reads, bits = candidates.step, candidates.reads, candidates.bits
    others = [_assigned(weights, but=i) for i in range(len(candidates.inputs))]

    def likely(i: int) -> tuple[bool, bool, bool, bool, bool, float]:
        drives = any(reads[j] & bits[i] for _, j in others[i])
        states = sum(bits[k] for k, _ in others[i])
        left = set(range(len(candidates.outputs))) - {j for _, j in others[i]}
        foreseen = any(reads[j] & (states | bits[i]) == states for j in left)
        targets = [candidates.outputs[j] for j in np.flatnonzero(weights[i])]
        handed = drives and bool(targets) and handed_through(step, candidates.inputs[i], targets)
        caches = any(shifted(step, candidates.inputs[k], candidates.outputs[j]) for k, j in others[i])
        following = step.listing.influenced(set(candidates.values(j for _, j in others[i])))
        read = any(value in following for value in candidates.values(left))
        return drives, foreseen, caches, handed, read, sum(others[i].values())

    return others[max(range(len(others)), key=likely)]


def unpaired(
    listing: Listing, types: Mapping[str, TensorType], point: Mapping[Value, Array], pairs: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Inputs and outputs that look like states which are not linear in themselves: data is given, and comes out, too.

    States stand last, in the same order.
    """
    inputs = [name for name, kind in types.items() if name not in pairs and _is_real(kind)]
    outputs = Step.at(listing, point).outputs
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


def not_linear(listing: Listing, name: str, target: str) -> str:
    """Why an input that looks like a state is none, whose next value is not linear in it."""
    calls = listing.needed([listing.outputs[target]], set(listing.inputs.values()))
    read = {v for call in calls for v in call.operands}
    if read.intersection(listing.inputs.values()) == {listing.inputs[name]}:
        return (
            f"its next value '{target}' follows from it alone, and not linearly, as the covariance of a Kalman filter "
            "does (a Riccati equation): what it weighs changes with the number of the step, whatever the data; where "
            "it settles, export the step with the gain that this settles at"
        )
    return (
        f"its next value '{target}' is not a linear function of it, as in LSTM and GRU; where it is data, "
        "--state IN=OUT names the states"
    )


def _checked(step: Step, given: Mapping[str, str]) -> dict[str, str]:
    """The pairs that the user names. Raises UserError where they are none."""
    listing = step.listing
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
    for name, target in given.items():
        now, then = step.shape(name), step.outputs[target].shape
        if now != then:
            raise UserError(
                f"the output '{target}' cannot be the next value of '{name}'",
                why=f"their shapes differ: {'x'.join(map(str, then))} and {'x'.join(map(str, now))}",
                hint="--state IN=OUT names a state input and the output that is its next value",
            )
    return dict(given)


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
    """Notes about pairs that only the order of the file may tell apart, with the options that say the same."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name in pairs:
        by_shape.setdefault(tuple(shapes[name]), []).append(name)
    alike = [names for names in by_shape.values() if len(names) > 1]
    notes = [f"states of one shape were paired by dependence and order: {', '.join(names)}" for names in alike]
    if not alike:
        return []
    return [*notes, f"where that is not what the model was exported as, give every pair, as here: {_as_options(pairs)}"]


def _as_options(pairs: Mapping[str, str]) -> str:
    """Pairs as options of the command, as a shell takes them."""
    return " ".join(f"--state {quote(f'{name}={target}')}" for name, target in pairs.items())
