"""The best output matrix for given states: what is lost by changing A is won back in C, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ssmc.statespace.conjugates import unhalve
from ssmc.statespace.discretization import at_step
from ssmc.statespace.gramians import cross_gramian, geometric_sum
from ssmc.statespace.norms import l1_distance
from ssmc.statespace.response import state_response
from ssmc.statespace.system import Array, Real, StateSpace, StateSpaceError, rates, require_discrete


@dataclass(frozen=True, eq=False)
class Refit:
    """A system with a new C, and its distance from the original."""

    system: StateSpace
    h2_error: Real  # (G,) ||h - h'||_2 / ||h||_2, in the weighting asked for
    l1_bound: Real | None  # (G, O) max |y - y'| <= l1_bound max |u|; events at the mean gap


def refit_output(
    original: StateSpace,
    shared: StateSpace,
    *,
    length: int | None = None,
    spectrum: ArrayLike | None = None,
    gaps: ArrayLike = 1.0,
    ridge: float = 0.0,
    refit_direct: bool = False,
    bound: bool = True,
) -> Refit:
    """The C' of `shared` (its A', B' kept) whose response comes closest to that of `original`.

    `sum_k ||C A^k B - C' A'^k B'||^2` is least at `C' = C X W^-1`, with `X = sum A^k B B'* A'*^k` and W the same for
    `shared` alone (Wilson's condition for H2-optimal models, Proc. IEE 117, 1970, with A', B' held fixed). The sum
    is infinite, or over `length` taps; `spectrum` (F,), the input's power at F angles from 0 to pi, replaces the
    sum by one over frequencies. Asynchronous systems take `gaps`, one elapsed time or samples of it, and the mean
    over independent gaps: `X_nm = (B B'*)_nm / (1 - mean(exp((z_n + conj(z'_m)) dt)))`.

    `ridge` adds that share of each state's own energy, which keeps C' small where states nearly repeat each
    other; `refit_direct` lets D' absorb the first tap; without `bound` the l1 bound, which takes longer than all
    the rest, is not computed. Raises StateSpaceError if the two do not fit together, or
    are not stable where the sum is infinite.
    """
    _check(original, shared, length, spectrum, refit_direct)
    elapsed = np.atleast_1d(np.asarray(gaps, dtype=np.float64)).ravel()
    power = None if spectrum is None else np.asarray(spectrum, dtype=np.float64)
    old, new = unhalve(original), unhalve(shared)
    seen = length if length is None or not original.read_before else length - 1  # its first tap is D alone
    weighting = _Weighting(seen, power, elapsed, refit_direct and not original.read_before)
    gram = _inner(new, new, weighting)
    target = old.C @ _inner(old, new, weighting)
    c = _solve(target, gram, ridge)
    if not (new.is_complex or np.iscomplexobj(new.C)):
        c = c.real
    direct = old.D
    if weighting.later:
        direct = direct + (old.C @ old.B - c @ new.B).real
    fitted = replace(shared, C=_as_stored(c, shared), D=direct)

    known = _squares(old.C, _inner(old, old, weighting))
    whole = _squares(old.C, _inner(old, old, replace(weighting, later=False)))
    missed = known - 2 * np.einsum("gon,gon->g", target, c.conj()).real + _squares(c, gram)
    mean = float(elapsed.mean())
    return Refit(
        fitted,
        np.sqrt(np.maximum(missed, 0) / np.where(whole > 0, whole, 1)),
        l1_distance(at_step(original, mean), at_step(fitted, mean), length=length) if bound else None,
    )


def refit_input(
    original: StateSpace,
    shared: StateSpace,
    *,
    length: int | None = None,
    gaps: ArrayLike = 1.0,
    ridge: float = 0.0,
) -> Refit:
    """The B' of `shared` (its A', C' kept) whose response comes closest: `refit_output` of the transposed systems,
    whose kernel is the transposed kernel. A learned initial state stays. Raises StateSpaceError as that does."""
    fitted = refit_output(
        _transposed(original), _transposed(shared), length=length, gaps=gaps, ridge=ridge, bound=False
    )
    return replace(fitted, system=replace(shared, B=fitted.system.C.swapaxes(1, 2)))


def _transposed(system: StateSpace) -> StateSpace:
    """`h_k^T = B^T A^T^k C^T`; of a real output from complex states too, `2 Re` being the same from both sides."""
    a = system.A if system.diagonal else system.A.swapaxes(1, 2)
    b, c, d = (m.swapaxes(1, 2) for m in (system.C, system.B, system.D))
    return replace(system, A=a, B=b, C=c, D=d, x0=None)


def _check(
    original: StateSpace, shared: StateSpace, length: int | None, spectrum: ArrayLike | None, refit_direct: bool
) -> None:
    if original.D.shape != shared.D.shape:
        raise StateSpaceError(f"refit_output: (G, O, I) {original.D.shape} and {shared.D.shape} must agree")
    for name in ("read_before", "asynchronous", "real_output"):
        if getattr(original, name) != getattr(shared, name):
            raise StateSpaceError(f"refit_output: the systems must agree in {name}")
    if original.asynchronous and (spectrum is not None or not (original.diagonal and shared.diagonal)):
        raise StateSpaceError("refit_output: an asynchronous system must be diagonal, and has no spectrum")
    if not original.asynchronous:
        require_discrete(original, "refit_output")
        require_discrete(shared, "refit_output")
    if length is not None and length < 2:
        raise StateSpaceError(f"length: expected at least 2 taps, got {length}")
    if length is not None and spectrum is not None:
        raise StateSpaceError("refit_output: give length or spectrum, not both")
    if spectrum is not None and refit_direct:
        raise StateSpaceError("refit_direct: with a spectrum the first tap is not independent of the others")


@dataclass(frozen=True, eq=False)
class _Weighting:
    length: int | None
    spectrum: Real | None
    gaps: Real
    later: bool  # the first tap is left out


def _inner(left: StateSpace, right: StateSpace, weighting: _Weighting) -> Array:
    """`sum_k A^k B B'* A'*^k` (G, N, N'), weighted; both systems as `unhalve` gives them."""
    if weighting.spectrum is not None:
        return _over_spectrum(left, right, weighting.spectrum)
    length = weighting.length
    if weighting.later and length is not None:
        length -= 1
    if left.asynchronous:
        ratio = _mean_ratio(left, right, weighting.gaps)
        total = left.B @ right.B.conj().swapaxes(1, 2) * geometric_sum(ratio, length)
        return np.asarray(total * ratio if weighting.later else total)
    if weighting.later:
        left, right = (replace(s, B=s.A[:, :, None] * s.B if s.diagonal else s.A @ s.B) for s in (left, right))
    return cross_gramian(left, right, length)


def _mean_ratio(left: StateSpace, right: StateSpace, gaps: Real) -> Array:
    """`mean(exp((z_n + conj(z'_m)) dt))` over the gaps (G, N, N')."""
    exponent = rates(left)[:, :, None] + rates(right)[:, None, :].conj()
    ratio: Array = np.zeros_like(exponent)
    times, counts = np.unique(gaps, return_counts=True)
    for dt, share in zip(times, counts / len(gaps), strict=True):
        ratio = ratio + share * np.exp(exponent * dt)
    return ratio


def _over_spectrum(left: StateSpace, right: StateSpace, spectrum: Real) -> Array:
    """The mean over the circle of `S(w) X(w) X'(w)*`, X the states' response; S given on [0, pi] and even."""
    count = len(spectrum)
    w = np.linspace(0, np.pi, count)
    weight = np.concatenate([spectrum, spectrum[1:-1]]) / (2 * count - 2)
    delay = np.exp(-1j * np.concatenate([w, -w[1:-1]]))
    one, other = (state_response(s, delay) for s in (left, right))  # g w n i
    return np.asarray(np.einsum("w,gwni,gwmi->gnm", weight, one, other.conj(), optimize=True))


def _squares(c: Array, gram: Array) -> Real:
    """Energy (G,) of `C x` when the states have this Gramian."""
    return np.asarray(np.einsum("gon,gnm,gom->g", c, gram, c.conj(), optimize=True).real)


def _solve(target: Array, gram: Array, ridge: float) -> Array:
    """`target (gram + ridge diag(gram))^-1`; directions lost in rounding get nothing."""
    size = np.sqrt(np.maximum(np.einsum("gnn->gn", gram).real, 0))
    size = np.where(size > 0, size, 1)
    values, vectors = np.linalg.eigh(gram / (size[:, :, None] * size[:, None, :]))
    sound = values > values.max(axis=1, keepdims=True, initial=0) * gram.shape[1] * 1e-15
    inverse = np.where(sound, 1 / np.where(sound, values + ridge, 1), 0)
    scaled = (target / size[:, None, :]) @ vectors * inverse[:, None, :]
    return np.asarray(scaled @ vectors.conj().swapaxes(1, 2) / size[:, None, :])


def _as_stored(c: Array, shared: StateSpace) -> Array:
    """C of the pairs that `unhalve` made, back as the system reads it."""
    if c.shape[2] == shared.states:
        return c
    first, mirror = c[:, :, : shared.states], c[:, :, shared.states :]
    return (first + mirror.conj()) / shared.gain
