"""The signal subspace of a kernel: leading singular vectors of its Hankel matrix, and the poles they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssmc.statespace.system import Array, Real

_DENSE = 400  # Hankel matrices up to this many rows are decomposed whole


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

    The square Hankel matrix is symmetric, so a projection on both sides is an eigenvalue problem (Halko, Martinsson
    and Tropp, SIAM Review 53, 2011, algorithm 5.3 with one power step); products with it are convolutions.
    """
    half = (len(sequence) + 1) // 2
    rank = min(rank, half)
    if half <= _DENSE:
        matrix = sequence[np.add.outer(np.arange(half), np.arange(half))]
        values, vectors = np.linalg.eigh(matrix)
    else:
        apply = _hankel_product(sequence, half)
        start = np.random.default_rng(0).standard_normal((half, min(half, rank + 10)))
        basis, _ = np.linalg.qr(apply(start))
        basis, _ = np.linalg.qr(apply(basis))
        values, small = np.linalg.eigh(basis.T @ apply(basis))
        vectors = basis @ small
    order = np.argsort(-np.abs(values))[:rank]
    return Subspace(vectors[:, order], np.abs(values[order]))


def _hankel_product(sequence: Real, half: int) -> Callable[[Real], Real]:
    """`x -> H x` for x (half, R): row i is `sum_j s_(i+j) x_j`, a correlation."""
    size = 1 << (2 * len(sequence) - 1).bit_length()
    spectrum = np.fft.rfft(sequence, size)[:, None]

    def product(x: Real) -> Real:
        turned = np.fft.irfft(spectrum * np.fft.rfft(x[::-1], size, axis=0), size, axis=0)
        return np.asarray(turned[half - 1 : 2 * half - 1])

    return product
