"""The signal subspace of a kernel: leading singular vectors of its Hankel matrix, and the poles they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssmc.statespace.response import log_magnitude
from ssmc.statespace.system import Array, Real

_DENSE = 400  # Hankel matrices up to this many rows are decomposed whole
_SPARE = 12  # vectors of a random projection beyond those wanted
_SAMPLES = (128, 400)  # rows and columns of a sample of a large Hankel matrix: the second where the first is filled
_FILLED = 0.6
_SCALE = 16  # ours: steps at a sequence's start among which rows and columns of a sample lie evenly
_EVENED = 6  # rounds that even out how a sample is spread


@dataclass(frozen=True, eq=False)
class Subspace:
    """Leading left singular vectors of the square Hankel matrix `H_ij = s_(i+j)` of a sequence s.

    s may be every n-th tap of a kernel (`every`), whose poles are then n-th powers.
    """

    vectors: Real  # (m, R)
    values: Real  # (R,) singular values, falling
    every: int = 1

    def shift(self, order: int) -> Real:
        """Phi of the best rotation `U[:-1] Phi = U[1:]`, U the first `order` vectors.

        ESPRIT (Roy and Kailath 1989), which is Kung's realisation (1978) for one channel. Orthonormal columns make
        `U[:-1]^T U[:-1] = 1 - v v^T`, v the last row, so the solution is a rank-one correction.
        """
        u = self.vectors[:, :order]
        shifted, last = u[:-1].T @ u[1:], u[-1]
        return np.asarray(shifted + np.outer(last, last @ shifted) / max(1 - last @ last, 1e-12))

    def poles(self, order: int) -> Array:
        """The eigenvalues of `shift`, of a conjugate pair the one above the real axis."""
        values = np.linalg.eigvals(self.shift(order)).astype(complex)
        values = values[values.imag >= 0]
        if self.every == 1:
            return values
        return np.asarray(np.exp((log_magnitude(values) + 1j * np.angle(values)) / self.every))


def subspace(sequence: Real, rank: int) -> Subspace:
    """The Hankel matrix's leading `rank` singular vectors: all by SVD if it is small, else by a random projection.

    A Gaussian sketch and one power step (Halko, Martinsson and Tropp, SIAM Review 53, 2011, algorithms 4.4 and 5.1);
    products with the matrix are convolutions.
    """
    half = (len(sequence) + 1) // 2
    rank = min(rank, half)
    if half <= min(_DENSE, 4 * rank):
        matrix = sequence[np.add.outer(np.arange(half), np.arange(half))]
        values, vectors = np.linalg.eigh(matrix)
        order = np.argsort(-np.abs(values))[:rank]
        return Subspace(vectors[:, order], np.abs(values[order]))
    from scipy.linalg import qr

    def orthogonal(rows: Real) -> tuple[Real, Real]:
        q, r = qr(rows.T, mode="economic", overwrite_a=True, check_finite=False)
        return q, r

    apply = _hankel_product(sequence, half)
    basis, _ = orthogonal(apply(np.random.default_rng(0).standard_normal((min(half, rank + _SPARE), half))))
    basis, triangle = orthogonal(apply(basis.T))
    turn, values, _ = np.linalg.svd(triangle)
    return Subspace(basis @ turn[:, :rank], values[:rank])


@dataclass(frozen=True, eq=False)
class Sample:
    """Some rows and columns of the Hankel matrix of a sequence, `H_ij = u diag(values) v`, and of that one step on."""

    u: Real  # (m, R)
    values: Real  # (R,) singular values, falling
    v: Real  # (R, n)
    later: Real  # (m, n)

    def rank(self, tolerance: float) -> int:
        """How many singular values are larger than `tolerance` times the largest."""
        return int((self.values > tolerance * self.values[0]).sum())

    def least_order(self, tolerance: float) -> int:
        """No system of fewer states has a kernel within `tolerance` of the sequence everywhere.

        A matrix of rank n is at least `sqrt(sum_(i > n) sigma_i^2)` away in the Frobenius norm (Eckart and Young,
        Psychometrika 1, 1936), one within the tolerance everywhere at most `tolerance * sqrt(entries)`; and a part of
        a Hankel matrix has no higher rank than the whole.
        """
        left = np.sqrt(np.cumsum(self.values[::-1] ** 2)[::-1])  # of all from the n-th on
        return int((left > tolerance * np.sqrt(self.later.size)).sum())

    def poles(self, order: int) -> Array:
        """`order` poles: rough, but soon found.

        With `H = V D W` and `H' = V D Lambda W` they are the eigenvalues of `pinv(H) H'` in the leading singular
        vectors, whatever the rows and columns (matrix pencil; Hua and Sarkar, IEEE Transactions ASSP 38, 1990).
        """
        order = min(order, len(self.values))
        turned = self.u[:, :order].T @ self.later @ self.v[:order].T
        found = np.linalg.eigvals(turned / self.values[:order]).astype(complex)
        return found[found.imag >= 0]


def sample(sequence: Real, tolerance: float, limit: int, sizes: tuple[int, ...] = _SAMPLES) -> Sample:
    """A part of the Hankel matrix that is large enough for its rank to within 0.1 `tolerance`, as far as one can be.

    A part that shows that more than `limit` states are needed is large enough, too. The rows and columns are where the
    sequence is: half of them as the energy that is left from there on tells, half at all scales from the first on.
    """
    half = len(sequence) // 2
    left = np.sqrt(np.cumsum(sequence[::-1] ** 2)[::-1][:half])
    scales = 1 / (_SCALE + np.arange(half))
    density = left / max(left.sum(), 1e-300) + scales / scales.sum()
    for most in sizes:
        rows = _spread(density, most, np.full(most, 0.5))
        columns = _spread(density, most, np.random.default_rng(1).random(most))
        places = np.add.outer(rows, columns)
        found = Sample(*np.linalg.svd(sequence[places], full_matrices=False), sequence[places + 1])
        if half <= most or found.rank(0.1 * tolerance) <= _FILLED * most or found.least_order(tolerance) > limit:
            break
    return found


def _spread(density: Real, most: int, where: Real) -> Array:
    """At most so many places, as the density says; `where` (most,) in [0, 1) is where in its share each lies."""
    if len(density) <= most:
        return np.arange(len(density))
    share = density
    for _ in range(_EVENED):  # no place twice: what is above 1 goes to the others
        share = np.minimum(share * (most / share.sum()), 1.0)
    reached = np.cumsum(share)
    return np.unique(np.searchsorted(reached, (np.arange(most) + where) * (reached[-1] / most)))


def _hankel_product(sequence: Real, half: int) -> Callable[[Real], Real]:
    """`x -> x H` for x (R, half), H symmetric: entry i of a row is `sum_j s_(i+j) x_j`, a correlation."""
    from scipy.fft import irfft, next_fast_len, rfft

    size = next_fast_len(2 * half - 1, real=True)  # what wraps around meets only entries that are not looked at
    spectrum = rfft(sequence[: 2 * half - 1], size)

    def product(x: Real) -> Real:
        turned = irfft(spectrum * rfft(x[:, ::-1], size), size, overwrite_x=True)
        return np.asarray(turned[:, half - 1 : 2 * half - 1])

    return product
