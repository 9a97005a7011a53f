"""Many inputs, many outputs, one set of modes: the eigensystem realisation of a matrix-valued kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssmc.statespace.channel import SLOWEST
from ssmc.statespace.realization import COUPLED, observed
from ssmc.statespace.residues import FASTEST, count_states
from ssmc.statespace.response import log_magnitude, powers
from ssmc.statespace.system import Array, Real, StateSpace

_ROWS = 400  # rows, and columns, taken of the block Hankel matrix
_STATES = 64  # of a system of several kernels (ours)
_TRIED = 6  # orders that are tried (ours)
_ROUNDS = 4  # of least squares for B and C in turn


@dataclass(frozen=True, eq=False)
class JointFit:
    """`h_k = 2 Re(C diag(a^k) B)`, k >= 1, poles with imaginary part >= 0."""

    poles: Array  # (P,)
    b: Array  # (P, I)
    c: Array  # (O, P)
    worst: float

    @property
    def order(self) -> int:
        return count_states(self.poles)

    def system(self, first: Real, scale: float) -> StateSpace:
        """The system, its output `scale` times larger, its first tap brought to `first` (O, I) by D."""
        c = self.c * scale
        direct = first - 2 * (c @ self.b).real
        return StateSpace(self.poles[None], self.b[None], c[None], direct[None], halved=True)


class JointFits:
    """Fits of a kernel (O, I, L) by order: Juang and Pappa, Journal of Guidance 8, 1985, then least squares."""

    def __init__(self, kernel: Real, tolerance: float) -> None:
        self.taps = kernel[:, :, 1:]
        high, wide, count = self.taps.shape
        # Rows at steps t and t + 1; both t and the columns spread over the kernel where it is too long to take all.
        half = count // 2
        down = np.unique(np.linspace(0, half - 1, min(half, max(2, _ROWS // high))).astype(int))
        across = np.unique(np.linspace(0, count - half - 1, min(count - half, max(2, _ROWS // wide))).astype(int))
        steps = np.concatenate([down, down + 1])
        blocks = self.taps[:, :, np.add.outer(steps, across)]  # o i p q
        hankel = blocks.transpose(2, 0, 3, 1).reshape(len(steps) * high, len(across) * wide)
        self.vectors, values, _ = np.linalg.svd(hankel, full_matrices=False)
        self.values = values[: len(down) * high]
        # A matrix whose entries are all within the tolerance is within tolerance * size in its singular values too.
        self.needed = int((self.values > tolerance * np.sqrt(hankel.size)).sum())
        self.tolerance = tolerance

    def attempt(self, order: int, reach: float) -> JointFit:
        """The fit with this many states; `reach` plays no part."""
        high, wide, count = self.taps.shape
        u = self.vectors[:, :order]
        now, later = u[: len(u) // 2], u[len(u) // 2 :]
        values, modes = np.linalg.eig(np.linalg.lstsq(now, later, rcond=None)[0])
        kept = values.imag >= 0
        values, c = values[kept].astype(complex), (u[:high] @ modes)[:, kept]
        decay = np.clip(np.abs(log_magnitude(values)), SLOWEST / (count + 1), FASTEST)
        angle = np.angle(values)
        real = np.isin(angle, (0.0, np.pi))
        poles = np.where(real, np.cos(angle) * np.exp(-decay), np.exp(-decay + 1j * angle))
        c = np.where(real, c.real, c)
        c = c / np.maximum(np.linalg.norm(c, axis=0), 1e-300)
        decays = powers(poles, np.arange(1, count + 1)).T  # k p
        # 2 Re(c_o a^k b_i) is linear in B for given C, and in C for given B.
        missed, b = self.taps, np.zeros((len(poles), wide), complex)
        for _ in range(_ROUNDS):
            b = self._solve(decays, c, poles, self.taps)  # p i
            size = np.maximum(np.linalg.norm(b, axis=1), 1e-300)
            c = self._solve(decays, (b / size[:, None]).T, poles, self.taps.swapaxes(0, 1)).T  # o p
            b = b / size[:, None]
            missed = self.taps - 2 * np.einsum("op,kp,pi->oik", c, decays, b, optimize=True).real
            if np.abs(missed).max() <= 0.5 * self.tolerance:
                break
        return JointFit(poles, b, c, float(np.abs(missed).max()))

    def coupled(self, order: int, first: Real) -> StateSpace | None:
        """The system with this many states that feed each other, in the basis of the singular vectors (Kung, 1978), its
        first taps `first` (O, I); None where it is not stable, or misses the tolerance."""
        high, _, count = self.taps.shape
        u = self.vectors[:, :order]
        a = np.linalg.lstsq(u[: len(u) // 2], u[len(u) // 2 :], rcond=None)[0]
        if np.abs(np.linalg.eigvals(a)).max() >= 1:
            return None
        c = u[:high] / max(float(np.abs(u[:high]).max()), 1e-300)
        seen = observed(a, c, count)  # k o n
        wanted = self.taps.transpose(2, 0, 1).reshape(count * high, -1)
        b = np.linalg.lstsq(seen.reshape(count * high, order), wanted, rcond=1e-14)[0]
        if np.abs(seen.reshape(count * high, order) @ b - wanted).max() > self.tolerance:
            return None
        return StateSpace(a[None], b[None], c[None], first[None], read_before=True)

    def _solve(self, decays: Array, known: Array, poles: Array, taps: Real) -> Array:
        """X (P, M) that brings `2 Re sum_p known_np a_p^k X_pm` closest to `taps` (N, M, K)."""
        rows = 2 * (known[:, None, :] * decays).reshape(-1, len(poles))  # n k, p
        turning = poles.imag != 0
        design = np.concatenate([rows.real, -rows.imag[:, turning]], axis=1)
        size = np.maximum(np.linalg.norm(rows, axis=0), 1e-300)
        size = np.concatenate([size, size[turning]])
        wanted = taps.transpose(0, 2, 1).reshape(-1, taps.shape[1])  # n k, m
        held = 0.3 * self.tolerance * np.eye(len(size))
        padded = np.concatenate([wanted, np.zeros((len(size), wanted.shape[1]))])
        found, *_ = np.linalg.lstsq(np.concatenate([design / size, held]), padded, rcond=None)
        found = found / size[:, None]
        x: Array = found[: len(poles)].astype(complex)
        x[turning] += 1j * found[len(poles) :]
        return x


def identify_together(kernels: Real, tolerance: float, most: int = _STATES) -> StateSpace | None:
    """One stable system, as one group, whose kernels are the given ones (O, I, L), each output's within `tolerance` of
    its largest tap; of the lowest order found, as modes or, of few states, as states that feed each other. None where
    there is none of at most `most` states, 64 of them, and half as many as the kernels have taps."""
    size = np.abs(kernels).max(axis=(1, 2))
    size = np.where(size > 0, size, 1.0)[:, None, None]
    family = JointFits(kernels / size, tolerance)
    most = min(most, _STATES, (kernels.shape[2] - 1) // 2 * min(kernels.shape[:2]), len(family.values))
    least = max(1, family.needed)
    for order in range(least, min(most, least + _TRIED - 1) + 1):
        first = kernels[:, :, 0] / size[:, :, 0]
        fit = family.attempt(order, 0)
        if fit.worst <= tolerance and fit.order <= most:
            found: StateSpace | None = fit.system(first, 1.0)
        else:
            found = family.coupled(order, first) if order <= COUPLED else None
        if found is not None:
            return replace(found, C=found.C * size[None, :, :, 0], D=found.D * size[None, :, :, 0])
    return None
