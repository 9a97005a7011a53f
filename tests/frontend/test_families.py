"""Every family in every form that exporters write: lifted as the system that it is, and right on both targets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from ssmc.frontend import Model, load_model
from ssmc.statespace import StateSpace
from ssmc.verification import verify
from tests.frontend import disguise, disguise_parallel, disguise_scans, family_steps, family_systems
from tests.frontend.family_systems import H, N, P
from tests.frontend.net import Net, save
from tests.frontend.test_disguises import dense_kernel

STEPS, FEW, TAPS = 14, 8, 44  # most forms, scans in parallel, kernels
Disguise = Callable[[StateSpace], onnx.ModelProto]


def runs(model: Model, *lengths: int) -> None:
    """Both targets give what onnxruntime gives."""
    rng = np.random.default_rng(1)
    for batch, length in enumerate(lengths, 2):
        arrays = {}
        for port in model.interface.inputs:
            if port.role == "state":
                continue
            named = {"b": batch, "t": length}
            shape = [named.get(axis, size) for axis, size in zip(port.axes, port.expected(), strict=True)]
            arrays[port.name] = rng.uniform(0.2, 1.3, [int(size) for size in shape]).astype(np.float32)
        for target in ("cim", "epochcore"):
            found = verify(model, target, arrays, ideal=True)
            assert found.passed, (target, {name: error.relative for name, error in found.outputs.items()})


FORMS: dict[str, Disguise] = {
    "scan": partial(disguise.as_scan, time_axis=1),
    "scan backward": partial(disguise.as_scan, layout="pair", backward=True),
    "loop with a sequence": partial(disguise.as_loop, layout="pair", collect="sequence"),
    "loop with scattered writes": partial(disguise.as_loop, layout="halves", collect="buffer", counted=True),
    "loop with scan outputs": partial(disguise.as_loop, collect="scan"),
    "step": disguise.as_step,
    "unrolled": partial(disguise.as_unrolled, steps=STEPS, layout="pair"),
    "doubling": partial(disguise_parallel.as_associative_scan, steps=FEW),
    "tree": partial(disguise_parallel.as_tree_scan, steps=FEW, empty=True),
    "log domain": partial(disguise_parallel.as_cumulative_sum, steps=STEPS),
    "FFT, computed kernel": partial(disguise_parallel.as_fft, steps=TAPS),
    "FFT, constant kernel": partial(disguise_parallel.as_constant_fft, steps=TAPS),
    "long causal Conv": partial(disguise_parallel.as_conv, steps=TAPS),
    "Conv cut to its length": partial(disguise_parallel.as_sliced_conv, steps=TAPS),
    "Toeplitz matrix": partial(disguise_parallel.as_toeplitz, steps=TAPS),
}
RECURRENT = [form for form in FORMS if "scan" in form or "loop" in form or form in ("step", "unrolled")]
PARALLEL = ["doubling", "tree"]


CONVOLUTIONS = list(FORMS)[-5:]


def forms(name: str) -> list[str]:
    """Those in which the family is written."""
    system = family_systems.system(name)
    found = RECURRENT + (PARALLEL if system.diagonal else [])
    found += [] if system.is_complex or not system.diagonal else ["log domain"]
    return found + (CONVOLUTIONS[1 - system.diagonal :] if system.groups > 1 else [])


CELLS = [(name, form) for name in family_systems.FAMILIES for form in forms(name)]


@pytest.mark.parametrize(("name", "form"), CELLS)
def test_a_linear_family(tmp_path: Path, name: str, form: str) -> None:
    system = family_systems.system(name)
    model = load_model(save(FORMS[form](system), tmp_path))
    (lift,) = model.systems
    found = model.graph.op(lift.node)["system"]
    expected = dense_kernel(system, TAPS)
    assert np.abs(dense_kernel(found, TAPS) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert found.groups * found.states <= system.groups * system.states
    runs(model, TAPS if form in CONVOLUTIONS else FEW if form in PARALLEL else STEPS)


def varying(name: str, form: str, seed: int) -> onnx.ModelProto:
    """The family over (b, t) in a form, dt as an input where events have it."""
    net, rng, timed = Net(), np.random.default_rng(seed), name.startswith("events")
    steps = FEW if form in PARALLEL else STEPS
    dims: list[int | str] = ["b"] if form == "step" else ["b", "t" if form in ("scan", "loop") else steps]
    u = net.input([*dims, H])
    dt = net.op("Unsqueeze", net.input(dims), net.ints(len(dims))) if timed else ""
    a, v, read = family_steps.FAMILIES[name](net, u, dt, rng)
    wide = [N, H] if name in ("Mamba", "Mamba-2", "retention") else [H] if name == "RG-LRU" else [P]
    states: list[tuple[str, list[int | str]]] = []
    if form == "step":
        before = [net.input(["b", *wide]) for _ in v]
        h = disguise_scans.plus(net, disguise_scans.times(net, a, before), v)
        states = [(part, ["b", *wide]) for part in h]
    else:
        scans = disguise_scans.SCANS | {"loop": partial(disguise_scans.looped, features=len(wide))}
        h = scans[form](net, a, v, steps)
    return net.model([(net.op("Tanh", read(h)), [*dims, H]), *states])


VARYING = [(name, form) for name in family_steps.FAMILIES for form in ("step", "scan", "loop", "unrolled", *PARALLEL)]


@pytest.mark.parametrize(("name", "form"), VARYING)
def test_a_family_of_the_data(tmp_path: Path, name: str, form: str) -> None:
    model = load_model(save(varying(name, form, 3), tmp_path))
    (lift,) = model.systems
    kinds = {"events": "asynchronous", "retention": "linear time-invariant", "Liquid-S4": "liquid"}
    assert lift.kind == kinds.get(name.split(",")[0], "selective")
    runs(model, FEW if form in PARALLEL else STEPS, *([9] if form in ("scan", "loop", "step") else []))


def markov_parameters(count: int, step: float, length: int) -> np.ndarray:
    """HOPE (arXiv 2405.13975): sum of h_j z^-j at another step, so that all poles coincide; the kernels (H, length).

    One factor is the all-pass (1 - c + (1 + c) w) / (1 + c + (1 - c) w) with c = 2 / step, w a delay of one step.
    """
    rng, c = np.random.default_rng(1), 2 / step
    weights = rng.standard_normal((H, count)) * 0.8 ** np.arange(count)
    power, taps = np.eye(1, length)[0], np.zeros((H, length))
    for j in range(count):
        before, found = 0.0, np.zeros(length)
        for k in range(length):
            early = power[k - 1] if k else 0.0
            found[k] = before = ((1 - c) * power[k] + (1 + c) * early - (1 - c) * before) / (1 + c)
        power = found
        taps += weights[:, j : j + 1] * power
    return taps


@pytest.mark.parametrize("step", [0.3, 2.0])
def test_a_layer_given_by_its_markov_parameters(tmp_path: Path, step: float) -> None:
    """Eight poles that coincide are eight states; at the step of the parameters these are the taps of a filter."""
    length = 256 if step < 2 else 64
    taps, net = markov_parameters(8, step, length), Net()
    x = net.input(["b", length, H])
    signal = net.op("Transpose", x, perm=[0, 2, 1])
    y = disguise_parallel.fft_product(net, signal, net.const(taps[None]), length)
    y = net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1]))
    model = load_model(save(net.model([(y, ["b", length, H])]), tmp_path))
    kinds = {lift.kind for lift in model.systems}
    assert kinds == ({"linear time-invariant"} if step < 2 else {"fir"})
    states = [lift.groups * lift.states * (1 + lift.is_complex) for lift in model.systems if lift.kind != "fir"]
    assert sum(states) <= 8 * H
    runs(model, length)


def test_a_dense_recurrence_of_sixty_four_states(tmp_path: Path) -> None:
    """HiPPO-LegS, whose modes are a basis far too badly conditioned to be used, stays the dense matrix that it is."""
    eye, step, a = np.eye(64), 1 / 32, family_systems.hippo(64)
    back = np.linalg.inv(eye - step / 2 * a)
    b = step * back @ np.sqrt(2 * np.arange(64) + 1)[:, None]
    c = np.random.default_rng(4).standard_normal((1, 1, 64))
    system = StateSpace((back @ (eye + step / 2 * a))[None], b[None], c, np.ones((1, 1, 1)))
    model = load_model(save(disguise.as_scan(system, time_axis=1), tmp_path))
    (lift,) = model.systems
    found = model.graph.op(lift.node)["system"]
    assert (found.groups, found.states, found.diagonal) == (1, 64, False)
    expected = dense_kernel(system, TAPS)
    assert np.abs(dense_kernel(found, TAPS) - expected).max() <= 1e-5 * np.abs(expected).max()
