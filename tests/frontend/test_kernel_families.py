"""Families whose kernel the file computes from other parameters than poles and residues, each in its own formula, with
complex numbers as pairs of real tensors: what is found has the kernel and the states of the family."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ssmc.statespace import kernel
from tests.frontend.disguise_parallel import fft_product
from tests.frontend.net import Net
from tests.frontend.test_disguises import lifted

CHANNELS, STATES, STEPS = 3, 4, 47
Pair = tuple[str, str]
Built = tuple[str, np.ndarray, int]  # taps (1, channels, steps), what they are (channels, steps), real states a channel


def pair(net: Net, values: np.ndarray) -> Pair:
    return net.const(values.real.astype(float)), net.const(values.imag.astype(float))


def times(net: Net, a: Pair, b: Pair) -> Pair:
    re = net.op("Sub", net.op("Mul", a[0], b[0]), net.op("Mul", a[1], b[1]))
    return re, net.op("Add", net.op("Mul", a[0], b[1]), net.op("Mul", a[1], b[0]))


def over(net: Net, a: Pair, b: Pair) -> Pair:
    size = net.op("Add", net.op("Mul", b[0], b[0]), net.op("Mul", b[1], b[1]))
    re, im = times(net, a, (b[0], net.op("Neg", b[1])))
    return net.op("Div", re, size), net.op("Div", im, size)


def each(net: Net, kind: str, a: Pair, b: Pair) -> Pair:
    return net.op(kind, a[0], b[0]), net.op(kind, a[1], b[1])


def total(net: Net, a: Pair, axis: int) -> Pair:
    return tuple(net.op("ReduceSum", half, net.ints(axis), keepdims=0) for half in a)  # type: ignore[return-value]


def from_spectrum(net: Net, spectrum: Pair) -> str:
    """(channels, frequencies) to (1, channels, steps)."""
    both = net.op("Concat", *(net.op("Unsqueeze", half, net.ints(0, 3)) for half in spectrum), axis=-1)
    taps = net.op("DFT", both, net.const(np.int64(STEPS)), net.const(np.int64(2)), inverse=1, onesided=1)
    return net.op("Squeeze", net.op("Slice", taps, net.ints(0), net.ints(1), net.ints(3)), net.ints(3))


def roots(count: int = STEPS) -> np.ndarray:
    return np.exp(-2j * np.pi * np.arange(count // 2 + 1) / count)


def complex_normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def dss(net: Net, rng: np.random.Generator) -> Built:
    """Gupta, Gu and Berant, "Diagonal state spaces are as effective as structured state spaces" (NeurIPS 2022), with
    their softmax over time: Re(w softmax(lambda delta k))."""
    log = -rng.uniform(0.02, 0.2, (CHANNELS, STATES)) + 1j * rng.uniform(0.3, 2.5, (CHANNELS, STATES))
    weight, powers = complex_normal(rng, CHANNELS, STATES), log[..., None] * np.arange(STEPS)
    size, phase = net.op("Exp", net.const(powers.real)), net.const(powers.imag)
    rows = net.op("Mul", size, net.op("Cos", phase)), net.op("Mul", size, net.op("Sin", phase))
    sums = tuple(net.op("ReduceSum", half, net.ints(2), keepdims=1) for half in rows)
    re, _ = total(net, times(net, pair(net, weight[..., None]), over(net, rows, sums)), 1)
    expected = np.exp(powers)
    expected /= expected.sum(-1, keepdims=True)
    return net.op("Unsqueeze", re, net.ints(0)), (weight[..., None] * expected).sum(1).real, 2 * STATES


def s4(net: Net, rng: np.random.Generator) -> Built:
    """Gu, Goel and Re, "Efficiently modeling long sequences with structured state spaces" (ICLR 2022), algorithm 1:
    diagonal plus low rank, by Cauchy kernels at the roots of unity and the matrix inversion lemma."""
    step, size = 0.2, (CHANNELS, STATES)
    poles = -rng.uniform(0.3, 0.8, size) + 1j * rng.uniform(0.5, 6.0, size)
    p, b, c = 0.4 * complex_normal(rng, *size), complex_normal(rng, *size), complex_normal(rng, *size)
    full = np.stack([np.diag(own) - np.outer(q, q.conj()) for own, q in zip(poles, p, strict=True)])
    eye = np.eye(STATES)
    back = np.linalg.inv(eye - step / 2 * full)
    bar, gain = back @ (eye + step / 2 * full), (back @ (step * b)[..., None])[..., 0]
    powers = [np.linalg.matrix_power(bar, k) for k in range(STEPS)]
    taps = np.stack([np.einsum("hn,hnm,hm->h", c, power, gain) for power in powers], -1)
    # the generating function of as many taps as there are steps; a real part is half of it and of its mirror image
    ends, z = np.einsum("hn,hnm->hm", c, eye - np.linalg.matrix_power(bar, STEPS)), roots()
    g = pair(net, (2 / step * (1 - z) / (1 + z))[None, :, None])
    both = [
        generated(net, g, *every) for every in ((poles, p, b, ends), (poles.conj(), p.conj(), b.conj(), ends.conj()))
    ]
    spectrum = times(net, pair(net, (1 / (1 + z))[None]), each(net, "Add", *both))
    return from_spectrum(net, spectrum), taps.real, 2 * STATES


def generated(net: Net, g: Pair, poles: np.ndarray, p: np.ndarray, b: np.ndarray, ends: np.ndarray) -> Pair:
    below = each(net, "Sub", g, pair(net, poles[:, None]))

    def cauchy(v: np.ndarray) -> Pair:
        return total(net, over(net, pair(net, v[:, None]), below), 2)

    k00, k01, k10, k11 = (cauchy(v) for v in (ends * b, ends * p, p.conj() * b, p.conj() * p))
    one = each(net, "Add", pair(net, np.ones(1, complex)), k11)
    return each(net, "Sub", k00, over(net, times(net, k01, k10), one))


def transfer_function(net: Net, rng: np.random.Generator) -> Built:
    """Parnichkun et al., "State-free inference of state-space models: the transfer function approach" (ICML 2024):
    numerator and denominator, transformed and divided, which is the kernel wrapped round after its last step."""
    poles = rng.uniform(0.2, 0.6, (CHANNELS, STATES // 2)) * np.exp(1j * rng.uniform(0.5, 2.5, (CHANNELS, STATES // 2)))
    below = np.stack([np.poly([*own, *own.conj()]).real for own in poles])
    above = rng.standard_normal((CHANNELS, STATES))

    def transformed(values: np.ndarray) -> Pair:
        signal = net.const(np.pad(values, ((0, 0), (0, STEPS - values.shape[-1])))[None, :, :, None])
        spectrum = net.op("DFT", signal, "", net.const(np.int64(2)), onesided=1)
        halves = (net.op("Slice", spectrum, net.ints(k), net.ints(k + 1), net.ints(3)) for k in range(2))
        return tuple(net.op("Squeeze", half, net.ints(0, 3)) for half in halves)  # type: ignore[return-value]

    taps = np.zeros((CHANNELS, STEPS))
    for k in range(STEPS):
        taps[:, k] = above[:, k] if k < STATES else 0.0
        for lag in range(1, min(k, STATES) + 1):
            taps[:, k] -= below[:, lag] * taps[:, k - lag]
    return from_spectrum(net, over(net, transformed(above), transformed(below))), taps, STATES


def moving_average(net: Net, rng: np.random.Generator) -> Built:
    """Ma et al., "Mega: moving average equipped gated attention" (ICLR 2023), the damped average of several dimensions:
    p beta eta q^k with p and q made of sigmoids."""
    alpha, delta, beta, eta = (rng.standard_normal((CHANNELS, STATES, 1)) for _ in range(4))
    p = net.op("Sigmoid", net.const(alpha))
    q = net.op("Sub", net.const(np.ones(1)), net.op("Mul", p, net.op("Sigmoid", net.const(delta))))
    powers = net.op("Exp", net.op("Mul", net.op("Log", q), net.const(np.arange(STEPS)[None, None].astype(float))))
    weights = net.op("Mul", net.op("Mul", p, net.const(beta)), net.const(eta * 0.5))
    taps = net.op("ReduceSum", net.op("Mul", weights, powers), net.ints(1), keepdims=0)
    own, damped = (1 / (1 + np.exp(-value)) for value in (alpha, delta))
    expected = (own * beta * eta * 0.5 * (1 - own * damped) ** np.arange(STEPS)).sum(1)
    return net.op("Unsqueeze", taps, net.ints(0)), expected, STATES


@pytest.mark.parametrize("family", [dss, s4, transfer_function, moving_average], ids=lambda family: family.__name__)
def test_a_family_with_its_own_formula(family: Callable[[Net, np.random.Generator], Built]) -> None:
    net = Net()
    x = net.input(["b", STEPS, CHANNELS])
    taps, expected, states = family(net, np.random.default_rng(3))
    y = fft_product(net, net.op("Transpose", x, perm=[0, 2, 1]), taps, STEPS)
    y = net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1]))
    model = lifted(net.model([(y, ["b", STEPS, CHANNELS])]), STEPS)
    assert [lift.disguise for lift in model.systems] == ["FFT convolution"]
    system = model.graph.op(model.systems[0].node)["system"]
    assert system.groups == CHANNELS and system.states * (1 + system.halved) <= states
    found = kernel(system, STEPS)[:, 0, 0]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
