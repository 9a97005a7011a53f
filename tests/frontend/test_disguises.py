"""A system in any disguise comes back as the system that it was."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssmc.frontend import Model, load_model, reference
from ssmc.frontend.proofs.proof import run_graph
from ssmc.statespace import StateSpace, kernel, simulate
from tests.frontend import disguise, disguise_parallel
from tests.frontend.net import save

STEPS = 24


def random_system(seed: int, groups: int, states: int, inputs: int, outputs: int, complex_states: bool) -> StateSpace:
    """Stable, distinct poles, float32-exact enough to survive being stored."""
    rng = np.random.default_rng(seed)
    size = (groups, states)
    decay = rng.uniform(0.5, 0.98, size)
    angle = rng.uniform(0.2, 2.5, size) if complex_states else np.zeros(size)

    def draw(*shape: int) -> np.ndarray:
        real = rng.standard_normal(shape)
        return real + 1j * rng.standard_normal(shape) if complex_states else real

    a = decay * np.exp(1j * angle) if complex_states else decay
    return StateSpace(
        A=a,
        B=draw(groups, states, inputs),
        C=draw(groups, outputs, states),
        D=rng.standard_normal((groups, outputs, inputs)),
    )


systems = st.builds(
    random_system,
    seed=st.integers(0, 1 << 16),
    groups=st.integers(1, 3),
    states=st.integers(1, 3),
    inputs=st.integers(1, 2),
    outputs=st.integers(1, 2),
    complex_states=st.booleans(),
)
channels = st.builds(
    random_system,
    seed=st.integers(0, 1 << 16),
    groups=st.integers(1, 4),
    states=st.integers(1, 3),
    inputs=st.just(1),
    outputs=st.just(1),
    complex_states=st.booleans(),
)
layouts = st.sampled_from(disguise.LAYOUTS)
few = settings(max_examples=6, deadline=None)


def lifted(model: onnx.ModelProto, steps: int = STEPS) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        found = load_model(save(model, Path(folder)))
        check_against_runtime(found, steps)
    return found


def check_against_runtime(model: Model, steps: int) -> None:
    """The graph and onnxruntime agree on data of the user's shape."""
    rng = np.random.default_rng(1)
    port = model.inputs[0]
    shape = {"b": 2, "t": steps, "f": port.shape[-1]}
    x = rng.standard_normal([int(shape[a]) for a in port.axes]).astype(np.float32)
    expected = reference(model, {port.name: x})
    found = run_graph(model.graph, model.inputs, model.outputs, {port.name: x})
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert np.abs(found[name] - array).max() <= 1e-4 * max(1e-3, np.abs(array).max())


def dense_kernel(system: StateSpace, steps: int) -> np.ndarray:
    """Impulse response from every input to every output (outputs, inputs, steps), whatever the grouping."""
    impulses = np.zeros((system.inputs, steps, system.inputs))
    impulses[np.arange(system.inputs), 0, np.arange(system.inputs)] = 1.0
    return simulate(system, impulses)[0].transpose(2, 0, 1)


def check_system(model: Model, system: StateSpace, tolerance: float = 1e-4, states: bool = True) -> None:
    """One system was found, and its kernel is the original's."""
    assert len(model.systems) == 1
    found = model.graph.op(model.systems[0].node)["system"]
    if states:
        assert found.groups * found.states == system.groups * system.states
    expected = dense_kernel(system, STEPS)
    assert np.abs(dense_kernel(found, STEPS) - expected).max() <= tolerance * np.abs(expected).max()


@few
@given(systems, layouts, st.booleans(), st.sampled_from([0, 1]))
def test_scan(system: StateSpace, layout: str, backward: bool, time_axis: int) -> None:
    model = lifted(disguise.as_scan(system, layout, backward, time_axis))
    assert model.form == "sequence"
    assert model.systems[0].disguise == "Scan" and model.systems[0].reverse == backward
    check_system(model, system)


@few
@given(systems, layouts, st.sampled_from(disguise.COLLECTED), st.booleans(), st.booleans())
def test_loop(system: StateSpace, layout: str, collect: str, counted: bool, backward: bool) -> None:
    backward &= collect in disguise.WRITTEN
    model = lifted(disguise.as_loop(system, layout, collect, counted, backward))
    assert model.systems[0].disguise == "Loop" and model.systems[0].reverse == backward
    check_system(model, system)


@few
@given(systems, layouts)
def test_step(system: StateSpace, layout: str) -> None:
    model = lifted(disguise.as_step(system, layout))
    assert model.form == "step"
    assert len(model.states) == len(disguise.state_shapes(system, layout, 1))
    check_system(model, system)


@few
@given(systems, layouts)
def test_unrolled(system: StateSpace, layout: str) -> None:
    check_system(lifted(disguise.as_unrolled(system, STEPS, layout)), system)


@few
@given(systems)
def test_associative_scan(system: StateSpace) -> None:
    check_system(lifted(disguise_parallel.as_associative_scan(system, STEPS)), system)


@settings(max_examples=3, deadline=None)
@given(systems, st.sampled_from([STEPS // 2, STEPS - 1, STEPS]), st.booleans())
def test_tree_scan(system: StateSpace, steps: int, time_first: bool) -> None:
    check_system(lifted(disguise_parallel.as_tree_scan(system, steps, time_first), steps), system, states=False)


@few
@given(
    st.builds(
        random_system, st.integers(0, 99), st.just(1), st.integers(1, 3), *[st.integers(1, 2)] * 2, st.just(False)
    )
)
def test_cumulative_sum(system: StateSpace) -> None:
    model = lifted(disguise_parallel.as_cumulative_sum(system, STEPS))
    assert model.systems[0].disguise == "cumulative sum"
    check_system(model, system)


@few
@example(random_system(152, 1, 2, 1, 1, False))  # decays of 0.60 and 0.63: not one of 0.61
@given(channels)
def test_fft_with_its_kernel_in_the_graph(system: StateSpace) -> None:
    model = lifted(disguise_parallel.as_fft(system, STEPS))
    assert model.systems[0].disguise == "FFT convolution"
    found = model.graph.op(model.systems[0].node)["system"]
    assert found.groups * found.states == system.groups * system.states


def test_close_modes_keep_the_residues_that_the_file_tells() -> None:
    """Solved for all at once, 32 modes of 64 taps get residues a thousand times too large, of opposite signs."""
    rng = np.random.default_rng(0)
    delta = np.array([[0.005], [0.02]])
    a = np.exp(delta * (-0.5 + 1j * np.pi * np.arange(32)))
    c = rng.standard_normal((2, 1, 32)) + 1j * rng.standard_normal((2, 1, 32))
    system = StateSpace(a, np.ones((2, 32, 1)), c * delta[..., None], np.ones((2, 1, 1)), halved=True)
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(save(disguise_parallel.as_fft(system, 64), Path(folder)))
    found = model.graph.op(model.systems[0].node)["system"]
    assert found.diagonal
    size = np.abs(found.gain * found.C[:, 0] * found.B[:, :, 0]).max()
    assert size <= 3 * np.abs(system.gain * system.C[:, 0]).max()


@pytest.mark.parametrize("build", disguise_parallel.CONVOLUTIONS)
@pytest.mark.parametrize("complex_states", [False, True])
def test_convolutions(build: Callable[[StateSpace, int], onnx.ModelProto], complex_states: bool) -> None:
    system = random_system(5, 3, 2, 1, 1, complex_states)
    model = lifted(build(system, STEPS))
    node = model.graph.node(model.systems[0].node)
    taps = kernel(node.op["system"], STEPS)[:, 0, 0] if node.op.name == "ssm" else node.op["kernel"].array
    expected = kernel(system, STEPS)[:, 0, 0, : taps.shape[1]]
    if build is disguise_parallel.as_fft:  # what goes round the convolution was fused as well
        expected = expected.copy()
    assert np.abs(taps - expected).max() <= 1e-4 * np.abs(expected).max()


def test_reading_before_the_update_is_seen() -> None:
    system = random_system(3, 1, 3, 2, 2, True)
    early = StateSpace(system.A, system.B, system.C, np.zeros((1, 2, 2)), read_before=True)
    model = lifted(disguise.as_scan(early))
    assert model.graph.op(model.systems[0].node)["system"].read_before
    check_system(model, early)


def test_the_tolerance_decides_between_system_and_filter() -> None:
    """A kernel alone, stored in float32, is a system within 1e-4; asked for 1e-14 it stays the filter that it is."""
    system = random_system(5, 2, 2, 1, 1, True)
    with tempfile.TemporaryDirectory() as folder:
        path = save(disguise_parallel.as_conv(system, 48), Path(folder))
        assert [s.kind for s in load_model(path, tolerance=1e-4).systems] == ["linear time-invariant"]
        assert [s.kind for s in load_model(path, tolerance=1e-14).systems] == ["fir"]
