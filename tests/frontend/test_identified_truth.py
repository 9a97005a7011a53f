"""Systems that were identified from taps: what is told of them is what the lifted graph does, at any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from ssmc.frontend import Model, load_model
from ssmc.frontend.mixing.shared import real_states
from ssmc.frontend.mixing.tails import behind
from ssmc.frontend.proofs.proof import run_graph
from ssmc.statespace import kernel
from tests.frontend.checks import LINEAR, kinds, on_targets
from tests.frontend.net import Net, save
from tests.statespace.strategies import random_system, seeds

K = np.arange(64)


def legendre(order: int, window: float, length: int) -> np.ndarray:
    """Kernels (order, L) of a Legendre memory (LegT; Voelker, Kajic and Eliasmith, NeurIPS 2019), held inputs."""
    n = np.arange(order)
    scale = (2 * n + 1)[:, None] / window
    a = np.where(n[:, None] < n, -1.0, (-1.0) ** (n[:, None] - n + 1)) * scale
    b = (-1.0) ** n[:, None] * scale
    step = expm(a)
    state, found = np.linalg.solve(a, (step - np.eye(order)) @ b), []
    for _ in range(length):
        found.append(state[:, 0])
        state = step @ state
    return np.stack(found, axis=1)


def convolved(taps: np.ndarray, groups: int, length: int | str) -> tuple[Net, str]:
    """A causal Conv with kernels (outputs, inputs of a group, L)."""
    net, (_, wide, count) = Net(), taps.shape
    x = net.op("Transpose", net.input(["b", length, wide * groups]), perm=[0, 2, 1])
    y = net.op("Conv", x, net.const(taps[:, :, ::-1]), group=groups, pads=[count - 1, 0])
    return net, str(net.op("Transpose", y, perm=[0, 2, 1]))


def answers(model: Model, length: int) -> np.ndarray:
    """What the lifted graph makes of a one in each of its inputs: (outputs, inputs, L)."""
    (port,) = model.inputs
    count = port.type.shape[0]
    u = np.zeros((count, length, count))
    u[range(count), 0, range(count)] = 1.0
    return next(iter(run_graph(model.graph, model.inputs, model.outputs, {port.name: u}).values())).transpose(2, 0, 1)


def told_truly(taps: np.ndarray, groups: int, dynamic: bool, tolerance: float, folder: Path) -> Model:
    """Lift the kernels (outputs, inputs of a group, L), and hold what is told of them against what the graph does."""
    high, wide, length = taps.shape
    net, y = convolved(taps, groups, "t" if dynamic else length)
    model = load_model(save(net.model([(y, ["b", "t" if dynamic else length, high])]), folder), tolerance=tolerance)
    steps = 4 * length if dynamic else length
    wanted = np.zeros((high, wide * groups, steps))
    for o in range(high):
        first = o // (high // groups) * wide
        wanted[o, first : first + wide, :length] = taps[o].astype(np.float32)
    missed = np.abs(answers(model, steps) - wanted)
    replaced = [system.replacement for system in model.systems if system.replacement is not None]
    size = np.abs(wanted).max(axis=(1, 2))
    error = float((missed.max(axis=(1, 2)) / size).max())
    told = max((r.residual for r in replaced), default=0.0)
    assert error <= told * (1 + 1e-6) + 1e-12 and told <= tolerance
    bound = max((r.l1 for r in replaced), default=0.0)
    assert missed.sum(axis=(1, 2)).max() <= bound * (1 + 1e-6) + 1e-12 * steps * size.max()
    assert all(proof.passed for proof in model.proofs)
    return model


def decays(*rates: float) -> np.ndarray:
    return np.stack([np.exp(-rate * K) for rate in rates])


CASES = {
    "decays": (decays(1e-4, 1e-3, 1e-2, 1e-1)[:, None], 4),
    "two alike": ((decays(0.01) + decays(0.0100004))[:, None] * np.cos(0.2 * K), 1),
    "waves of one input": (np.stack([0.9**K * np.cos(0.3 * K + p) for p in (0, 1, 2)])[:, None], 1),
    "coincide": ((K * 0.8**K * np.cos(0.4 * K))[None, None], 1),
    "delayed": (np.concatenate([np.zeros((2, 9)), decays(0.1, 0.2)[:, :55]], axis=1)[:, None], 2),
    "LegT": (legendre(6, 24.0, 48)[:, None], 1),
    "LegT longer": (legendre(4, 24.0, 96)[:, None], 1),
    "many in": (np.stack([decays(0.1) - decays(0.3), decays(0.3)], axis=1), 1),
    "half floats": (decays(0.05, 0.1).astype(np.float16).astype(float)[:, None], 2),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_what_is_told_of_a_kernel_is_so(case: str, dynamic: bool, tmp_path: Path) -> None:
    taps, groups = CASES[case]
    told_truly(taps, groups, dynamic, 1e-4 if case == "LegT" and dynamic else 1e-6, tmp_path)


@given(seeds, st.booleans(), st.sampled_from([1e-3, 1e-5, 1e-7]))
@settings(max_examples=8, deadline=None)
def test_what_is_told_of_random_kernels_is_so(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dynamic: bool, tolerance: float
) -> None:
    """A few modes, some of them nearly alike, and some noise."""
    rng = np.random.default_rng(seed)
    poles = rng.uniform(0.6, 0.98, (2, 3)) * np.exp(1j * rng.choice([0, 1], (2, 3)) * rng.uniform(0, 3, (2, 3)))
    poles[:, 2] = poles[:, 1] + rng.choice([1e-7, 1e-5, 1e-3])
    taps = (rng.standard_normal((2, 3, 1)) * poles[..., None] ** np.arange(40)).real.sum(axis=1)
    taps = taps + rng.choice([0, 1e-6, 1e-2]) * rng.standard_normal(taps.shape)
    groups = int(rng.integers(1, 3)) if dynamic else 1
    told_truly(taps[:, None], groups, dynamic, tolerance, tmp_path_factory.mktemp("k"))


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_what_comes_behind_is_bounded(seed: int) -> None:
    system = random_system(seed, radius=0.9)
    taps = np.abs(kernel(system, 400))[..., 20:]
    peak, total = behind(system, 20)
    assert (taps.max(axis=(1, 2, 3)) <= peak * (1 + 1e-9) + 1e-12).all()
    assert (taps.sum(axis=(2, 3)).max(axis=1) <= total * (1 + 1e-9) + 1e-12).all()


LEGS = np.array([[0.97, 0.0, 0.0], [0.05, 0.9, 0.0], [0.02, 0.1, 0.9]])  # two poles that coincide
TOGETHER = {
    "Legendre memory": (legendre(6, 24.0, 48)[:, None], 6),
    "Legendre memory of poles hardly apart": (legendre(12, 50.0, 100)[:, None], 12),
    "poles that coincide": (
        np.stack([np.linalg.matrix_power(LEGS, k) @ [1.0, -0.5, 0.3] for k in range(60)], 1)[:, None],
        3,
    ),
    "one output": (np.stack([0.9**K * np.cos(0.3 * K + p) + p * 0.7**K for p in (0, 1, 2)])[None], 3),
    "three by two": (np.einsum("op,pi,pk->oik", [[1, 2], [1, -1], [0.5, 3]], [[1, 2], [-1, 1]], decays(0.1, 0.2)), 2),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_kernels_that_share_inputs_or_outputs_share_their_states(case: str, tmp_path: Path) -> None:
    taps, states = TOGETHER[case]
    model = told_truly(taps, 1, False, 1e-6, tmp_path)
    (system,) = model.systems
    (node,) = model.graph.nodes("ssm")
    assert kinds(model) == [LINEAR] and real_states(node.op["system"]) == states
    assert system.replacement is not None and "together" in system.replacement.how
    on_targets(model, 2, taps.shape[2])


def test_channels_that_share_inputs_stay_in_order(tmp_path: Path) -> None:
    """Two memories of an input each, and noise beside each of them."""
    memory, rng = legendre(3, 20.0, 60), np.random.default_rng(0)
    taps = np.concatenate([memory[:2], rng.standard_normal((1, 60)), memory[2:], rng.standard_normal((1, 60))])
    told_truly(np.concatenate([taps, taps[::-1]])[:, None], 2, False, 1e-6, tmp_path)


def sliced(net: Net, stored: np.ndarray) -> str:
    """An FFT convolution with kernels (channels, most) of which a sequence takes as many taps as it has steps."""
    x = net.op("Transpose", net.input(["b", "t", len(stored)]), perm=[0, 2, 1])
    steps = net.op("Shape", x, start=2, end=3)
    taps = net.op("Slice", net.const(stored), net.ints(0), steps, net.ints(1))
    twice = net.op("Squeeze", net.op("Mul", steps, net.ints(2)), net.ints(0))

    def spectrum(value: str, axis: int) -> list[str]:
        wave = net.op("DFT", net.op("Unsqueeze", value, net.ints(-1)), twice, net.const(np.asarray(axis)))
        return [net.op("Gather", wave, net.const(np.asarray(k)), axis=-1) for k in (0, 1)]

    (ur, ui), (kr, ki) = spectrum(x, 2), spectrum(taps, 1)
    real = net.op("Sub", net.op("Mul", ur, kr), net.op("Mul", ui, ki))
    imaginary = net.op("Add", net.op("Mul", ur, ki), net.op("Mul", ui, kr))
    parts = [net.op("Unsqueeze", part, net.ints(-1)) for part in (real, imaginary)]
    back = net.op("DFT", net.op("Concat", *parts, axis=-1), twice, net.const(np.asarray(2)), inverse=1)
    y = net.op("Gather", back, net.const(np.asarray(0)), axis=-1)
    return str(net.op("Transpose", net.op("Slice", y, net.ints(0), steps, net.ints(2)), perm=[0, 2, 1]))


@pytest.mark.parametrize("ends", [False, True])
def test_a_stored_kernel_is_right_to_its_end(ends: bool, tmp_path: Path) -> None:
    """What 256 of its taps tell is not what the others are: a second, slow mode, or an end."""
    k, net = np.arange(700), Net()
    stored = (np.where(k < 600, 0.99**k, 0) if ends else 0.5 * 0.99**k + 1e-3 * np.cos(0.01 * k))[None]
    model = load_model(save(net.model([(sliced(net, stored), ["b", "t", 1])]), tmp_path))
    missed = np.abs(answers(model, 700)[0, 0] - stored[0].astype(np.float32))
    assert missed.max() <= 1e-6 * np.abs(stored).max()
    assert kinds(model) == ["fir" if ends else LINEAR]


def test_kernels_are_finer_where_the_model_needs_it(tmp_path: Path) -> None:
    """A small difference of what two kernels give, which are near to systems, made large again."""
    net, rng = Net(), np.random.default_rng(0)
    x = net.op("Transpose", net.input(["b", 64, 1]), perm=[0, 2, 1])
    first = 0.9**K + 0.5 * 0.7**K * np.cos(K) + 4e-7 * np.sin(0.5 * K)
    second = first + 1e-3 * rng.standard_normal(64)
    filtered = [net.op("Conv", x, net.const(taps[None, None, ::-1]), pads=[63, 0]) for taps in (first, second)]
    bent = [net.op("Relu", y) for y in filtered]
    y = net.op("Mul", net.op("Sub", *bent), net.const(np.asarray(1e3)))
    model = load_model(save(net.model([(net.op("Transpose", y, perm=[0, 2, 1]), ["b", 64, 1])]), tmp_path))
    assert any("not within 1e-06 of their largest taps" in note for note in model.notes)
    told = [system.replacement for system in model.systems if system.replacement is not None]
    assert all(r.residual <= 1e-7 for r in told)
    assert all(proof.passed and proof.tolerance < 1e-4 for proof in model.proofs if "float64" in proof.against)
