"""Regions whose decay depends on the data: parallel scans, cumulative sums, chunked products of Mamba-2.

They are all one recurrence with a product on either side (SSD, arXiv 2405.21060, section 3; linear attention with
gates; retention, arXiv 2307.08621, equation 5, whose decay is a constant)::

    h_k = a_k h_{k-1} + product of what is written        y_k = gain * sum over inner axes of h_k times what is read

What enters the region is told apart by perturbing it: what changes only its own step is read, what changes later
steps in proportion is written, the rest is the decay (itself, or its logarithm). Which axis of an entry is which
axis of the result is found in the same way. Where no entry is the decay, it is the ratio of the first two answers to
what is written at the first step. A step may count otherwise for itself than for later ones: not at all, as where a
mask leaves out its diagonal, or by a bonus of its own (RWKV-5, arXiv 2404.05892, equation 19).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from ssmc.frontend.findings import Lift
from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, Unsupported
from ssmc.frontend.mixing.filters import disguise_of
from ssmc.frontend.mixing.gated import Constants, Form, Own, answer_of, sizes_of
from ssmc.frontend.mixing.given_start import without_start
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.roles import Parts, Roles, geometric, is_no_recurrence, parts_of, roles_of
from ssmc.frontend.mixing.target_axes import target_axes
from ssmc.frontend.mixing.times import out_of_times
from ssmc.frontend.mixing.viewpoints import (
    TOLERANCE,
    feature_sizes,
    mirrored,
    narrowed,
    out_of_logs,
    out_of_quotients,
    shapes_of,
    with_entry,
)
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.source.precision import stored_rounding
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

GATHERED = 4.0  # ours: roundings of the entries of a table, beside the largest sum over them
FEWEST = 3  # steps that tell a decay and what a step counts for itself
MAX_INNER = 256  # indices of inner axes that are probed one by one for a constant decay
LETTERS = "cdefghijklmnopqrsuvwxyz"  # b and t are batch and time


def explain_varying(translator: Translator, region: Region) -> Flow | None:
    """The target of a region as a recurrence with computed decays, or None where it is none."""
    lengths = {f.shape[f.axes.index("t")] for f in region.flows}
    fits = any(lengths & set(shaped.shape) for shaped in shapes_of(translator, region))
    if len(lengths) != 1 or len(region.samples) < 2 or not fits:
        return None  # a spectrum, say: told without running anything
    with np.errstate(all="ignore"):
        if is_no_recurrence(region):
            return None
        found = _in_some_shape(translator, out_of_logs(translator.builder, region), None)
        if found is None and (pair := without_start(translator.builder, region)) is not None:
            found = _in_some_shape(translator, *pair)
        for view in (out_of_quotients, out_of_times):
            if found is None and (seen := view(translator.builder, region)) is not None:
                found = _in_some_shape(translator, out_of_logs(translator.builder, seen), None)
        return found


def _in_some_shape(translator: Translator, region: Region, start: Region | None) -> Flow | None:
    """The target with its axes as they are or split; `start` is what is added to it where nothing is written."""
    parts = parts_of(region)
    if parts is None:
        return None
    starts = iter(()) if start is None else shapes_of(translator, start)
    for shaped in shapes_of(translator, region):
        begun = next(starts, None)
        for axes in target_axes(shaped):
            narrow, kept = narrowed(translator.builder, shaped, axes)
            first = None if begun is None else narrowed(translator.builder, begun, axes)[0]
            found = _explained(translator, narrow, kept, parts, first)
            if found is None:
                first = None if first is None else mirrored(first, kept)
                found = _explained(translator, mirrored(narrow, kept), kept, parts, first, backward=True)
            if found is not None:
                axes = axes[: len(region.shape)]
                value = translator.builder.reshape(found.value, feature_sizes(region.shape, axes))
                assert not isinstance(value, np.ndarray)
                return Flow(value, axes, region.shape)
    return None


def _explained(
    translator: Translator, region: Region, axes: str, parts: Parts, start: Region | None, backward: bool = False
) -> Flow | None:
    """The target with its axes read in one way; `backward`: the region was mirrored in time, but for its flows."""
    roles = roles_of(region, axes, parts)
    if roles is None:
        return None
    allowed = max(TOLERANCE, GATHERED * stored_rounding(translator.listing, region.known))
    if not roles.decay:
        allowed = max(allowed, translator.findings.tolerance)
    for log in (True, False) if roles.decay else (False,):
        form = _letters(region, roles, axes, log)
        for constants in _constants(region, roles, form):
            error = _error(region, roles, form, constants)
            if error > allowed:
                continue
            if start is not None:
                begun = _started(region, start, roles, form, constants)
                if begun is None:
                    continue
                constants, error = begun
            if not backward:
                return _emit(translator, region, roles, form, axes, constants, error)
            turn = translator.builder.reverse
            region = replace(region, flows=tuple(replace(f, value=turn(f.value)) for f in region.flows))
            found = _emit(translator, region, roles, form, axes, constants, error)
            return replace(found, value=turn(found.value))
    return None


def _letters(region: Region, roles: Roles, axes: str, log: bool) -> Form:
    """Names for all axes: an entry's axis has the letter of the axis of the result that it goes with."""
    names = iter(LETTERS)
    result = "".join(a if a in "bt" else next(names) for a in axes)
    base = [np.zeros_like(a) if i in roles.added else a for i, a in enumerate(region.samples[0])]
    core = region.run(base)
    inner: dict[tuple[int, int], str] = {}
    terms = []
    for i, flow in enumerate(region.flows):
        term, loose = "", 0
        for j, label in enumerate(flow.axes):
            if label in "bt":
                term += label
                continue
            letter = _tied(region, base, core, i, j, axes, result)
            if letter is None:
                key = (loose, flow.shape[j])
                inner[key] = inner.get(key) or next(names)
                letter, loose = inner[key], loose + 1
            term += letter
        terms.append(term)
    used = "".join(dict.fromkeys("".join(terms[i] for i in (*roles.written, *roles.decay))))
    order = [c for c in result if c in used and c not in "bt"] + [c for c in used if c not in result]
    return Form(tuple(terms), result, "bt" + "".join(order), log)


def _tied(
    region: Region, base: Sequence[Array], core: Array, entry: int, axis: int, axes: str, result: str
) -> str | None:
    """The letter of the result's axis along which a change of one index of the entry's axis stays at that index."""
    flow = region.flows[entry]
    moved = base[entry].copy()
    chosen = tuple(slice(0, 1) if k == axis else slice(None) for k in range(moved.ndim))
    moved[chosen] = region.samples[1][entry][chosen] if np.any(base[entry]) else 0.0
    change = np.abs(region.run(with_entry(base, entry, moved)) - core)
    limit = 1e-12 * max(float(np.abs(core).max(initial=0.0)), 1e-300)
    for place, letter in enumerate(result):
        fits = axes[place] == "f" and region.shape[place] == flow.shape[axis] > 1
        if fits and np.delete(change, 0, axis=place).max(initial=0.0) <= limit:
            return letter
    return None


def _constants(region: Region, roles: Roles, form: Form) -> Iterator[Constants]:
    """What the region multiplies by, the simplest first: a constant decay, and a gain."""
    base = [np.zeros_like(a) if i in roles.added else a for i, a in enumerate(region.samples[0])]
    if any(c not in form.state + "".join(form.terms[i] for i in roles.read) for c in form.result):
        return
    core = region.run(base)
    start = [a if "t" not in c else np.take(a, [0], axis=c.index("t")) for a, c in zip(base, form.terms, strict=True)]
    wanted = np.take(core, [0], axis=form.result.index("t"))
    kept = tuple(i for i, c in enumerate(form.result) if c in "bt")
    for constants in _guesses(region, roles, form, base):
        if constants.own is not None:
            yield constants
            continue
        first = answer_of(roles, form, constants, start)
        top, bottom = ((y * first).sum(axis=kept, keepdims=True) for y in (wanted, first))
        gain = np.divide(top, bottom, out=np.ones_like(top), where=bottom != 0)
        if np.abs(gain - 1).max() <= TOLERANCE:
            gain = np.ones(())
        yield replace(constants, gain=gain)


def _guesses(region: Region, roles: Roles, form: Form, base: Sequence[Array]) -> Iterator[Constants]:
    """Constants, but for their gain."""
    sizes = sizes_of(form, base)
    inner = [c for c in form.state if c not in form.result]
    alone = Constants(np.ones([1] * len(form.state[2:])), np.ones(()))
    if roles.decay or sizes["t"] == 1:
        yield alone
    if sizes["t"] == 1:
        return
    told = [_responses(region, roles, form, base, chosen) for chosen in ([], inner) if _small(sizes, chosen)]
    if not roles.decay:
        yield from (replace(alone, decay=geometric(relative)) for relative, _ in told)
    for _, (own, *later) in told if sizes["t"] >= FEWEST else ():
        yield from (replace(alone, decay=x, own=o) for x, o in _own(own, np.array(later), bool(roles.decay)))


def _small(sizes: dict[str, int], letters: Sequence[str]) -> bool:
    return prod(sizes[c] for c in letters) <= MAX_INNER


def _responses(
    region: Region, roles: Roles, form: Form, base: Sequence[Array], inner: Sequence[str]
) -> tuple[Array, Array]:
    """What is read at every step of what is written at the first, for each element of h: (steps, *features of h).

    Relative to what is read at the first step, and to what the products by themselves give. It may differ along the
    axes of the result and those in `inner`: it is read the same at every step, by one index of these at a time.
    """
    arrays = list(base)
    for i in roles.written:
        rest = (slice(None),) * form.terms[i].index("t") + (slice(1, None),)
        arrays[i] = base[i].copy()
        arrays[i][rest] = 0.0
    for i in roles.read:
        arrays[i] = np.broadcast_to(np.take(base[i], [0], axis=form.terms[i].index("t")), base[i].shape)
    sizes = sizes_of(form, base)
    outer = [c for c in form.state if c in form.result and c not in "bt"]
    alone = Constants(np.ones([1] * len(form.state[2:])), np.ones(()))
    shape = [sizes["t"], *(sizes[c] if c in (*outer, *inner) else 1 for c in form.state[2:])]
    relative, whole = np.ones(shape), np.ones(shape)
    kept = [c for c in form.result if c in outer or c == "t"]
    summed = tuple(i for i, c in enumerate(form.result) if c not in kept)
    for index in np.ndindex(*(sizes[c] for c in inner)):
        seen = list(arrays)
        for i in roles.read if inner else ():
            mask = [np.arange(sizes[c]) == k for c, k in zip(inner, index, strict=True) if c in form.terms[i]]
            letters = "".join(c for c in inner if c in form.terms[i])
            for c, chosen in zip(letters, mask, strict=True):
                seen[i] = seen[i] * chosen.reshape([-1 if d == c else 1 for d in form.terms[i]])
        answer = region.run(seen)
        place = dict(zip(inner, index, strict=True))
        where = (slice(None), *(place[c] if c in place else slice(None) for c in form.state[2:]))
        first = [
            a if "t" not in c else np.take(a, [0], axis=c.index("t")) for a, c in zip(seen, form.terms, strict=True)
        ]
        product = answer_of(roles, form, alone, first)
        for found, against in ((relative, np.take(answer, [0], axis=form.result.index("t"))), (whole, product)):
            top, bottom = (answer * against).sum(axis=summed), (against * against).sum(axis=summed)
            response = np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0)
            response = response.transpose([kept.index(c) for c in ("t", *outer)])
            found[where] = response.reshape(
                [sizes["t"], *(sizes[c] if c in outer else 1 for c in form.state[2:] if c not in place)]
            )
    return relative, whole


def _own(own: Array, later: Array, computed: bool) -> Iterator[tuple[Array, Own]]:
    """Decays that hold behind a step's own, and what is read of a step itself; computed ones may begin a step later."""
    if computed:
        none = np.ones_like(own)
        yield none, Own(none, own - 1)
        yield none, Own(later[0], own, late=True)
        return
    decay = geometric(np.divide(later, later[0], out=np.zeros_like(later), where=later[0] != 0))
    of_state = np.divide(later[0], decay, out=np.zeros_like(decay), where=decay != 0)
    yield decay, Own(of_state, own - of_state)


def _error(region: Region, roles: Roles, form: Form, constants: Constants) -> float:
    """Largest error of the recurrence against the region, over the sample inputs, relative."""
    worst = 0.0
    for arrays in region.samples:
        base = [np.zeros_like(a) if i in roles.added else a for i, a in enumerate(arrays)]
        expected = region.run(base)
        found = answer_of(roles, form, constants, base)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        scale = max(float(np.abs(expected).max(initial=0.0)), 1e-300)
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)) / scale)
    return worst


def _started(
    region: Region, start: Region, roles: Roles, form: Form, constants: Constants
) -> tuple[Constants, float] | None:
    """The constants with the state before the first step, and the largest error of what it adds; None if it is none."""
    if any(c not in form.result for c in form.state) or (constants.own is not None and constants.own.late):
        return None
    ones = replace(constants, start=np.ones([sizes_of(form, region.samples[0])[c] for c in form.state[2:]]))
    others = "".join(c for c in form.result if c not in form.state)  # of what is read: one index of theirs will do
    order = [form.result.index(c) for c in others + form.state]
    worst, found = 0.0, constants
    for arrays in start.samples:
        base = [np.zeros_like(a) if i in (*roles.written, *roles.added) else a for i, a in enumerate(arrays)]
        wanted, faded = start.run(base), answer_of(roles, form, ones, base)
        if found.start is None:
            first, gain = (x.transpose(order)[(0,) * len(others + "bt")] for x in (wanted, faded))
            found = replace(found, start=np.divide(first, gain, out=np.zeros_like(first), where=gain != 0))
        error = np.abs(answer_of(roles, form, found, base) - wanted).max(initial=0.0)
        worst = max(worst, float(error) / max(float(np.abs(wanted).max(initial=0.0)), 1e-300))
    return (found, worst) if worst <= TOLERANCE else None


def _emit(
    translator: Translator,
    region: Region,
    roles: Roles,
    form: Form,
    axes: str,
    constants: Constants,
    error: float,
) -> Flow:
    builder = translator.builder
    state = _product_written(builder, region, roles.written, form)
    v = state.value
    features = state.features
    if roles.decay:
        decay = region.flows[roles.decay[0]]
        if form.log:
            decay = replace(decay, value=builder.unary("exp", decay.value))  # type: ignore[arg-type]
        term = form.terms[roles.decay[0]]
        inside = [c for c in form.state if c in term]
        turned = einsum(builder, [term], "".join(inside), [decay])
        assert isinstance(turned, Flow)
        sizes = dict(zip(inside, turned.shape, strict=True))
        a = builder.reshape(turned.value, tuple(sizes.get(c, 1) for c in form.state[2:]))
    else:
        a = np.array(np.broadcast_to(constants.decay, features))
    y, last = builder.recurrent("recurrence", [a, v, constants.start])
    translator.findings.lifts.append(Lift(last.node, disguise_of(region), region.provenance, error))
    if constants.own is not None:
        own = constants.own
        y = builder.add("delay", [y], steps=1) if own.late else y
        parts = [builder.binary("mul", x, k) for x, k in ((y, own.of_state), (v, own.of_written))]
        read = builder.binary("add", *parts)
        assert isinstance(read, Value)
        y = read
    found: Flow | Known = Flow(y, state.axes, state.shape)
    term = form.state
    for k, i in enumerate(roles.read):
        rest = "".join(form.terms[j] for j in roles.read[k + 1 :]) + form.result
        wanted = "".join(dict.fromkeys(c for c in term + form.terms[i] if c in rest))
        found = einsum(builder, [term, form.terms[i]], wanted, [found, region.flows[i]])
        term = wanted
    found = einsum(builder, [term], form.result, [found])
    if constants.gain.ndim:
        found = binary(builder, "mul", found, Known(constants.gain))
    assert isinstance(found, Flow)
    if roles.added:
        found = _plus(translator, region, roles, found)
    return Flow(found.value, axes, region.shape)


def _product_written(builder: Builder, region: Region, written: Sequence[int], form: Form) -> Flow:
    """The product of what is written, its axes those of the state."""
    found: Flow | Known = region.flows[written[0]]
    term = form.terms[written[0]]
    for i in written[1:]:
        joined = "".join(dict.fromkeys(term + form.terms[i]))
        found = einsum(builder, [term, form.terms[i]], joined, [found, region.flows[i]])
        term = joined
    missing = [c for c in form.state if c not in term]
    found = einsum(builder, [term], "".join(c for c in form.state if c in term), [found])
    assert isinstance(found, Flow)
    if missing:
        raise Unsupported("its decay has axes that nothing written has")
    return found


def _plus(translator: Translator, region: Region, roles: Roles, found: Flow) -> Flow:
    """Terms that stand alone: each a region of its own."""
    total: Flow | Known = found
    for i in roles.added:

        def run(arrays: Sequence[Array], i: int = i) -> Array:
            return region.run([arrays[0] if j == i else np.zeros(f.shape) for j, f in enumerate(region.flows)])

        samples = tuple((s[i],) for s in region.samples)
        single = replace(region, entries=(region.entries[i],), flows=(region.flows[i],), run=run, samples=samples)
        total = binary(translator.builder, "add", total, translator.meanings.region(translator, single))
    assert isinstance(total, Flow)
    return total
