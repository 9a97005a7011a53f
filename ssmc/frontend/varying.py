"""Regions whose decay depends on the data: parallel scans, cumulative sums, chunked products of Mamba-2.

They are all one recurrence with a product on either side (SSD, arXiv 2405.21060, section 3; linear attention with
gates)::

    h_k = a_k h_{k-1} + product of what is written        y_k = sum over inner axes of h_k times what is read

What enters the region is told apart by perturbing it: what changes only its own step is read, what changes later
steps in proportion is written, the rest is the decay (itself, or its logarithm). Which axis of an entry is which
axis of the result is found in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssmc.frontend.builder import Builder
from ssmc.frontend.contraction import einsum
from ssmc.frontend.filters import disguise_of
from ssmc.frontend.findings import Lift
from ssmc.frontend.flow import Flow, Known, Unsupported
from ssmc.frontend.lti import target_axes
from ssmc.frontend.regions import Region
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.translator import Translator
from ssmc.ir.op import Array

TOLERANCE = 1e-8
LETTERS = "cdefghijklmnopqrsuvwxyz"  # b and t are batch and time


@dataclass(frozen=True)
class _Roles:
    """Entries by what they do; positions in the region's list."""

    read: tuple[int, ...]
    written: tuple[int, ...]
    decay: tuple[int, ...]
    added: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Form:
    """Letters of every entry and of the result, `state` those of h; `log` says the decay is given as its logarithm."""

    terms: tuple[str, ...]
    result: str
    state: str
    log: bool


def explain_varying(translator: Translator, region: Region) -> Flow | None:
    """The target of a region as a recurrence with computed decays, or None where it is none."""
    lengths = {f.shape[f.axes.index("t")] for f in region.flows}
    if len(lengths) != 1 or len(region.samples) < 2:
        return None
    for axes in target_axes(region):
        with np.errstate(all="ignore"):
            roles = _roles(region, axes)
            if roles is None or not roles.written or len(roles.decay) > 1:
                continue
            for log in (True, False) if roles.decay else (False,):
                form = _letters(region, roles, axes, log)
                error = _error(region, roles, form)
                if error <= TOLERANCE:
                    return _emit(translator, region, roles, form, axes, error)
    return None


def _with(arrays: Sequence[Array], index: int, array: Array) -> list[Array]:
    return [array if i == index else a for i, a in enumerate(arrays)]


def _same(a: Array, b: Array, scale: float) -> bool:
    return bool(np.isfinite(a).all() and np.abs(a - b).max(initial=0.0) <= TOLERANCE * scale)


def _roles(region: Region, axes: str) -> _Roles | None:
    first, second = region.samples[0], region.samples[1]
    whole = region.run(first)
    scale = max(float(np.abs(whole).max(initial=0.0)), 1e-300)
    added = [i for i in range(len(first)) if _is_added(region, first, i, whole, scale)]
    base = [np.zeros_like(a) if i in added else a for i, a in enumerate(first)]
    core = region.run(base)
    if not np.isfinite(core).all() or not np.any(core):
        return None
    read: list[int] = []
    written: list[int] = []
    decay: list[int] = []
    for i, array in enumerate(base):
        if i in added:
            continue
        doubled = region.run(_with(base, i, 2 * array))
        if not _same(doubled, 2 * core, scale):
            decay.append(i)
            continue
        flow = region.flows[i]
        step = flow.shape[flow.axes.index("t")] // 2
        moved = array.copy()
        chosen = tuple(slice(step, step + 1) if a == "t" else slice(None) for a in flow.axes)
        moved[chosen] = second[i][chosen]
        change = np.abs(region.run(_with(base, i, moved)) - core)
        later = np.delete(change, step, axis=axes.index("t")).max(initial=0.0)
        (written if later > 1e-12 * scale else read).append(i)
    return _Roles(tuple(read), tuple(written), tuple(decay), tuple(added))


def _is_added(region: Region, arrays: Sequence[Array], i: int, whole: Array, scale: float) -> bool:
    """Does this entry stand alone in the result, as a term of its own?"""
    without = region.run(_with(arrays, i, np.zeros_like(arrays[i])))
    alone = region.run([a if j == i else np.zeros_like(a) for j, a in enumerate(arrays)])
    return bool(np.any(alone)) and _same(without + alone, whole, scale)


def _letters(region: Region, roles: _Roles, axes: str, log: bool) -> _Form:
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
    return _Form(tuple(terms), result, "bt" + "".join(order), log)


def _tied(
    region: Region, base: Sequence[Array], core: Array, entry: int, axis: int, axes: str, result: str
) -> str | None:
    """The letter of the result's axis along which a change of one index of the entry's axis stays at that index."""
    flow = region.flows[entry]
    moved = base[entry].copy()
    chosen = tuple(slice(0, 1) if k == axis else slice(None) for k in range(moved.ndim))
    moved[chosen] = region.samples[1][entry][chosen] if np.any(base[entry]) else 0.0
    change = np.abs(region.run(_with(base, entry, moved)) - core)
    limit = 1e-12 * max(float(np.abs(core).max(initial=0.0)), 1e-300)
    for place, letter in enumerate(result):
        fits = axes[place] == "f" and region.shape[place] == flow.shape[axis] > 1
        if fits and np.delete(change, 0, axis=place).max(initial=0.0) <= limit:
            return letter
    return None


def _error(region: Region, roles: _Roles, form: _Form) -> float:
    """Largest error of the recurrence against the region, over the sample inputs, relative."""
    worst = 0.0
    for arrays in region.samples:
        base = [np.zeros_like(a) if i in roles.added else a for i, a in enumerate(arrays)]
        expected = region.run(base)
        found = _reference(roles, form, base)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        scale = max(float(np.abs(expected).max(initial=0.0)), 1e-300)
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)) / scale)
    return worst


def _reference(roles: _Roles, form: _Form, arrays: Sequence[Array]) -> Array:
    """The recurrence, step by step."""
    sizes = {c: d for i, term in enumerate(form.terms) for c, d in zip(term, arrays[i].shape, strict=True)}
    shape = tuple(sizes[c] for c in form.state)
    h = np.ones(shape)
    for i in roles.written:
        h = h * _spread(arrays[i], form.terms[i], form.state)
    a = np.ones(shape)
    for i in roles.decay:
        a = a * _spread(np.exp(arrays[i]) if form.log else arrays[i], form.terms[i], form.state)
    for k in range(1, shape[1]):
        h[:, k] += a[:, k] * h[:, k - 1]
    terms = [form.state, *(form.terms[i] for i in roles.read)]
    if any(c not in "".join(terms) for c in form.result):
        return np.zeros(())
    return np.asarray(np.einsum(f"{','.join(terms)}->{form.result}", h, *(arrays[i] for i in roles.read)))


def _spread(array: Array, term: str, state: str) -> Array:
    """An array with its axes in the order of the state's letters, size one for those that it has not."""
    inside = [c for c in state if c in term]
    moved = array.transpose([term.index(c) for c in inside])
    return moved.reshape([moved.shape[inside.index(c)] if c in inside else 1 for c in state])


def _emit(translator: Translator, region: Region, roles: _Roles, form: _Form, axes: str, error: float) -> Flow:
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
        a = np.ones(features)
    y, last = builder.recurrent("recurrence", [a, v])
    translator.findings.lifts.append(Lift(last.node, disguise_of(region), region.provenance, error))
    found: Flow | Known = Flow(y, state.axes, state.shape)
    term = form.state
    for k, i in enumerate(roles.read):
        rest = "".join(form.terms[j] for j in roles.read[k + 1 :]) + form.result
        wanted = "".join(dict.fromkeys(c for c in term + form.terms[i] if c in rest))
        found = einsum(builder, [term, form.terms[i]], wanted, [found, region.flows[i]])
        term = wanted
    found = einsum(builder, [term], form.result, [found])
    assert isinstance(found, Flow)
    if roles.added:
        found = _plus(translator, region, roles, found)
    return Flow(found.value, axes, region.shape)


def _product_written(builder: Builder, region: Region, written: Sequence[int], form: _Form) -> Flow:
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


def _plus(translator: Translator, region: Region, roles: _Roles, found: Flow) -> Flow:
    """Terms that stand alone: each a region of its own."""
    from ssmc.frontend.mixing import explain_region

    total: Flow | Known = found
    for i in roles.added:

        def run(arrays: Sequence[Array], i: int = i) -> Array:
            return region.run([arrays[0] if j == i else np.zeros(f.shape) for j, f in enumerate(region.flows)])

        single = replace(
            region,
            entries=(region.entries[i],),
            flows=(region.flows[i],),
            run=run,
            samples=tuple((s[i],) for s in region.samples),
        )
        total = binary(translator.builder, "add", total, explain_region(translator, single))
    assert isinstance(total, Flow)
    return total
