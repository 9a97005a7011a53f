"""The signal subspace of a kernel: leading singular vectors of its Hankel matrix, and the poles they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssmc.statespace.system import Array, Real

_DENSE = 400  # Hankel matrices up to this many rows are decomposed whole
_SPARE = 12  # vectors of a random projection beyond those wanted
_SAMPLED = 320  # rows and columns of a sample of a large Hankel matrix


@dataclass(frozen=True, eq=False)
class Subspace:
    """Leading left singular vectors of the square Hankel matrix `H_ij = s_(i+j)` of a sequence s."""

    vectors: Real  # (m, R)
    values: Real  # (R,) singular values, falling

    def poles(self, order: int) -> Array:
        """The `order` poles of the best rotation `U[:-1] Phi = U[1:]`, U the first `order` vectors.

        ESPRIT (Roy and Kailath 1989), which is Kung's realisation (1978) for one channel. Orthonormal columns make
        `U[:-1]^T U[:-1] = 1 - v v^T`, v the last row, so the solution is a rank-one correction.
        """
        u = self.vectors[:, :order]
        shifted, last = u[:-1].T @ u[1:], u[-1]
        phi = shifted + np.outer(last, last @ shifted) / max(1 - last @ last, 1e-12)
        values = np.linalg.eigvals(phi).astype(complex)
        return values[values.imag >= 0]


def subspace(sequence: Real, rank: int) -> Subspace:
    """The Hankel matrix's leading `rank` singular vectors: all by SVD if it is small, else by a random projection.

    A Gaussian sketch and one power step (Halko, Martinsson and Tropp, SIAM Review 53, 2011, algorithms 4.4 and 5.1);
    products with the matrix are convolutions.
    """
    half = (len(sequence) + 1) // 2
    rank = min(rank, half)
    if half <= _DENSE:
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


def least_order(sequence: Real, tolerance: float) -> int:
    """No system of fewer states has a kernel within `tolerance` of the sequence everywhere.

    A matrix whose entries are all within the tolerance is within tolerance * size in its singular values too, and a
    submatrix has no larger ones than the whole (Horn and Johnson, Topics in Matrix Analysis, 3.1.3 and 3.3.16).
    """
    part = _sample(sequence)
    values = np.linalg.svd(part, compute_uv=False)
    return int((values > tolerance * np.sqrt(part.size)).sum())


def sampled_rank(sequence: Real, tolerance: float) -> int:
    """How many singular values of a sample of the Hankel matrix are larger than `tolerance` times the largest."""
    values = np.linalg.svd(_sample(sequence), compute_uv=False)
    return int((values > tolerance * values[0]).sum())


def _sample(sequence: Real) -> Real:
    """The Hankel matrix, or some of its rows and columns where it is large."""
    half = (len(sequence) + 1) // 2
    rows = np.unique(np.linspace(0, half - 1, min(half, _SAMPLED)).astype(int))
    columns = np.unique(np.random.default_rng(1).integers(0, half, _SAMPLED)) if half > _SAMPLED else rows
    return np.asarray(sequence[np.add.outer(rows, columns)])


def _hankel_product(sequence: Real, half: int) -> Callable[[Real], Real]:
    """`x -> x H` for x (R, half), H symmetric: entry i of a row is `sum_j s_(i+j) x_j`, a correlation."""
    from scipy.fft import irfft, next_fast_len, rfft

    size = next_fast_len(2 * half - 1, real=True)  # what wraps around meets only entries that are not looked at
    spectrum = rfft(sequence[: 2 * half - 1], size)

    def product(x: Real) -> Real:
        turned = irfft(spectrum * rfft(x[:, ::-1], size), size, overwrite_x=True)
        return np.asarray(turned[:, half - 1 : 2 * half - 1])

    return product
