"""Linear time-invariant families: the discrete system that each makes of its usual initial values, by its own formula.

Channels have H systems of N states each, one input and one output; layers one system of P states between H and H.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial

import numpy as np

from ssmc.statespace import StateSpace

H, N, P = 3, 4, 6


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def steps(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(1e-2), np.log(2e-1), shape))


def hippo(count: int) -> np.ndarray:
    """HiPPO-LegS (arXiv 2008.07669)."""
    root = np.sqrt(2 * np.arange(count) + 1)
    return -np.tril(root[:, None] * root, -1) - np.diag(np.arange(count) + 1.0)


def normal_poles(count: int) -> np.ndarray:
    """Those of the normal part of HiPPO-LegS, one of each pair, by frequency (arXiv 2206.11893)."""
    root = np.sqrt(np.arange(2 * count) + 0.5)
    found = np.linalg.eigvals(hippo(2 * count) + root[:, None] * root)
    return np.sort_complex(found[found.imag > 0])


def poles(kind: str, count: int) -> np.ndarray:
    n = np.arange(count)
    return {
        "lin": -0.5 + 1j * np.pi * n,
        "inv": -0.5 + 1j * count / np.pi * (count / (2 * n + 1) - 1),
        "legs": normal_poles(count),
        "real": -(n + 1.0),
    }[kind]


def channels(a: np.ndarray, weight: np.ndarray, rng: np.random.Generator, halved: bool) -> StateSpace:
    """y = Re(sum of weight x) + D u, twice that where halved; x' = a x + u."""
    return StateSpace(a, np.ones((H, N, 1)), weight[:, None], rng.standard_normal((H, 1, 1)), halved=halved)


def s4d(kind: str, rule: str, rng: np.random.Generator) -> StateSpace:
    pole, step, real = poles(kind, N), steps(rng, H, 1), kind == "real"
    weight = rng.standard_normal((H, N)) if real else normal(rng, H, N)
    if rule == "bilinear":
        return channels(
            (1 + step * pole / 2) / (1 - step * pole / 2), weight * step / (1 - step * pole / 2), rng, not real
        )
    a = np.exp(step * pole)
    return channels(a, weight * (a - 1) / pole, rng, not real)


def dss(rng: np.random.Generator) -> StateSpace:
    """Rows of powers over their own sums (arXiv 2203.14343), here of an endless sequence."""
    a = np.exp(steps(rng, H, 1) * (-0.5 + 1j * np.pi * np.arange(N)))
    return channels(a, normal(rng, H, N) * (1 - a), rng, True)


def s4(rng: np.random.Generator) -> StateSpace:
    """The recurrent mode of S4: HiPPO-LegS, bilinear, a dense matrix for each channel (arXiv 2111.00396)."""
    whole, eye, step = hippo(N), np.eye(N), 4 * steps(rng, H)
    back = np.linalg.inv(eye - step[:, None, None] / 2 * whole)
    b = step[:, None, None] * back @ np.sqrt(2 * np.arange(N) + 1)[:, None]
    forward = eye + step[:, None, None] / 2 * whole
    return StateSpace(back @ forward, b, rng.standard_normal((H, 1, N)), rng.standard_normal((H, 1, 1)))


def average(rng: np.random.Generator) -> StateSpace:
    """Mega's damped moving average (arXiv 2209.10655)."""
    p, damping = (1 / (1 + np.exp(-rng.standard_normal((H, N)))) for _ in range(2))
    weight = p * rng.standard_normal((H, N)) * rng.standard_normal((H, N)) / np.sqrt(N)
    return channels(1 - p * damping, weight, rng, False)


def layer(a: np.ndarray, b: np.ndarray, c: np.ndarray, rng: np.random.Generator, halved: bool = False) -> StateSpace:
    return StateSpace(a[None], b[None], c[None], np.diag(rng.standard_normal(H))[None], halved=halved)


def s5(halved: bool, scalar: bool, rng: np.random.Generator) -> StateSpace:
    """arXiv 2208.04933, by ZOH; whole: both of each pair are kept, and their matrices are trained apart."""
    pole = normal_poles(P if halved else P // 2)
    pole = pole if halved else np.concatenate([pole, pole.conj()])
    a = np.exp(pole * steps(rng, 1 if scalar else P))
    b = ((a - 1) / pole)[:, None] * normal(rng, P, H)
    return layer(a, b, normal(rng, H, P), rng, halved)


def lru(rng: np.random.Generator) -> StateSpace:
    """arXiv 2303.06349: poles on a ring, what goes in scaled by sqrt(1 - |a|^2); y = Re(C x) + D u."""
    size = rng.uniform(0.8, 0.99, P)
    a = size * np.exp(1j * rng.uniform(0, np.pi / 4, P))
    return layer(a, np.sqrt(1 - size**2)[:, None] * normal(rng, P, H), normal(rng, H, P), rng)


def shared_decay(rng: np.random.Generator) -> StateSpace:
    """Real decays from a library of two, as volatile memristors have them."""
    a = np.repeat(np.exp(-1 / np.array([4.0, 11.0])), P // 2)
    return layer(a, rng.standard_normal((P, H)), rng.standard_normal((H, P)), rng)


FAMILIES: dict[str, Callable[[np.random.Generator], StateSpace]] = {
    "S4": s4,
    "S4D-Lin": partial(s4d, "lin", "zoh"),
    "S4D-Inv": partial(s4d, "inv", "zoh"),
    "S4D-Legs": partial(s4d, "legs", "bilinear"),
    "S4D-Real": partial(s4d, "real", "zoh"),
    "DSS": dss,
    "Mega": average,
    "S5": partial(s5, True, False),
    "S5 of both halves": partial(s5, False, True),
    "LRU": lru,
    "shared decay": shared_decay,
}


def system(name: str) -> StateSpace:
    return FAMILIES[name](np.random.default_rng(zlib.crc32(name.encode())))
