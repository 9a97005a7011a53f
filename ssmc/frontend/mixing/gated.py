"""What a region whose decay depends on the data may be: a recurrence between products, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from ssmc.frontend.mixing.roles import Roles
from ssmc.ir.op import Array

BLOCK = 1 << 16  # numbers of h that are kept at once while the recurrence is run


@dataclass(frozen=True, eq=False)
class Form:
    """Letters of every entry and of the result, `state` those of h; `log` says the decay is given as its logarithm."""

    terms: tuple[str, ...]
    result: str
    state: str
    log: bool


@dataclass(frozen=True, eq=False)
class Own:
    """What is read where a step counts otherwise for itself than for later ones: of_state h_k + of_written v_k.

    v_k is what is written, both factors are in the shape of `Constants.decay`; `late` reads h_(k-1) in place of h_k.
    """

    of_state: Array
    of_written: Array
    late: bool = False


@dataclass(frozen=True, eq=False)
class Constants:
    """`decay` in the shape of h without batch and time; `gain` in that of the result, sizes of one allowed.

    `start` is h before the first step, in the shape of h without batch and time; None for zeros. h is read as it is
    where `own` is None.
    """

    decay: Array
    gain: Array
    start: Array | None = None
    own: Own | None = None


def sizes_of(form: Form, arrays: Sequence[Array]) -> dict[str, int]:
    """The size of each letter of a form."""
    named = ((c, d) for term, a in zip(form.terms, arrays, strict=True) for c, d in zip(term, a.shape, strict=True))
    return {"b": 1, "t": 1, **dict(named)}  # one, of what no entry has


def answer_of(roles: Roles, form: Form, constants: Constants, arrays: Sequence[Array]) -> Array:
    """The recurrence, step by step; h is kept for as many steps only as are read together."""
    sizes = sizes_of(form, arrays)
    written = [_spread(arrays[i], form.terms[i], form.state) for i in roles.written]
    decays = (_spread(np.exp(arrays[i]) if form.log else arrays[i], form.terms[i], form.state) for i in roles.decay)
    a = reduce(np.multiply, decays, constants.decay[None, None])
    terms, out = [form.state, *(form.terms[i] for i in roles.read)], form.result.index("t")
    state = np.zeros([sizes[c] for c in form.state if c != "t"])
    if constants.start is not None:
        state += constants.start
    found = []
    together = max(1, BLOCK // max(state.size, 1))
    for first in range(0, sizes["t"], together):
        steps = range(first, min(first + together, sizes["t"]))
        h = np.ones((state.shape[0], len(steps), *state.shape[1:]))
        for array in written:
            h *= _during(array, 1, steps)
        own = constants.own
        read = h if own is None else own.of_written * h
        for k, step in enumerate(steps):
            before = state
            if step or constants.start is not None:
                h[:, k] += a[:, step % a.shape[1]] * state
            state = h[:, k]
            if own is not None:
                read[:, k] += own.of_state * (before if own.late else state)
        seen = (_during(arrays[i], form.terms[i].find("t"), steps) for i in roles.read)
        found.append(np.einsum(f"{','.join(terms)}->{form.result}", read, *seen))
    return np.asarray(np.concatenate(found, axis=out) * constants.gain)


def _during(array: Array, axis: int, steps: range) -> Array:
    """Some steps of an array, of which `axis` is time; all of one that holds for every step."""
    if axis < 0 or array.shape[axis] == 1:
        return array
    return array[(slice(None),) * axis + (slice(steps.start, steps.stop),)]


def _spread(array: Array, term: str, state: str) -> Array:
    """An array with its axes in the order of the state's letters, size one for those that it has not."""
    inside = [c for c in state if c in term]
    moved = array.transpose([term.index(c) for c in inside])
    return moved.reshape([moved.shape[inside.index(c)] if c in inside else 1 for c in state])
