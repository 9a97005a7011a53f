"""A system in any disguise and in any kind of file: functions, number formats, external weights, states on top."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from ssmc.frontend import Model, load_model, reference
from ssmc.frontend.proofs.proof import run_graph
from ssmc.statespace import StateSpace, kernel
from tests.frontend import disguise, disguise_file, disguise_parallel
from tests.frontend.net import save
from tests.frontend.test_disguises import channels, dense_kernel, layouts, systems

RECURRENT = ("scan", "loop", "step", "unrolled")
OF_POWERS = ("doubling", "convolution")  # the file holds powers of A, or all of a kernel
Case = tuple[StateSpace, onnx.ModelProto, int]
few = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ROUNDING = {TensorProto.FLOAT16: 2.0**-11, TensorProto.BFLOAT16: 2.0**-8, TensorProto.DOUBLE: 2.0**-24}


@st.composite
def disguised(draw: st.DrawFn, forms: Sequence[str] = (*RECURRENT, *OF_POWERS, "tree")) -> Case:
    """A system, one of its disguises, and the number of steps to run it for."""
    system = draw(systems)
    steps, layout, backward = draw(st.integers(5, 40)), draw(layouts), draw(st.booleans())
    collect = draw(st.sampled_from(disguise.COLLECTED))
    match draw(st.sampled_from(forms)):
        case "scan":
            model = disguise.as_scan(system, layout, backward, draw(st.sampled_from([0, 1])))
        case "loop":
            backward &= collect in disguise.WRITTEN
            model = disguise.as_loop(system, layout, collect, draw(st.booleans()), backward)
        case "step":
            model = disguise.as_step(system, layout)
        case "unrolled":
            model = disguise.as_unrolled(system, steps, layout)
        case "doubling":
            model = disguise_parallel.as_associative_scan(system, steps)
        case "tree":
            model = disguise_parallel.as_tree_scan(system, steps, draw(st.booleans()))
        case _:
            system = draw(channels)
            model = draw(st.sampled_from(disguise_parallel.CONVOLUTIONS))(system, steps)
    return system, model, steps


def check_against_file(model: Model, steps: int, tolerance: float) -> None:
    """What the graph computes is what onnxruntime makes of the file."""
    rng = np.random.default_rng(1)
    sizes = {"b": 2, "t": steps}
    given_arrays = {}
    for port in model.inputs:
        if port.name not in model.states:
            shape = [sizes.get(a) or int(port.shape[-1]) for a in port.axes]
            given_arrays[port.name] = rng.standard_normal(shape).astype(np.float32)
    expected = reference(model, given_arrays)
    found = run_graph(model.graph, model.inputs, model.outputs, given_arrays)
    for name, array in expected.items():
        wide = np.asarray(array, np.float64)
        assert found[name].shape == wide.shape
        assert np.abs(found[name] - wide).max() <= tolerance * max(1e-3, np.abs(wide).max())


def kernel_error(model: Model, system: StateSpace, steps: int) -> float:
    """How far the one system or filter that was found is from the one that was disguised, relative.

    What passes a filter by (D) is not in its first tap where the file adds it afterwards.
    """
    (found,) = model.systems
    op = model.graph.op(found.node)
    taps = op["kernel"].array if op.name == "fir" else None
    if taps is not None:
        expected = kernel(system, steps)[:, 0, 0, : taps.shape[1]]
        return float(np.abs(taps - expected)[:, 1:].max() / np.abs(expected).max())
    expected = dense_kernel(system, steps)
    return float(np.abs(dense_kernel(op["system"], steps) - expected).max() / np.abs(expected).max())


@few
@given(disguised(), st.data())
def test_functions(case: Case, data: st.DataObject) -> None:
    """Some nodes as a function, and perhaps some that call it as another."""
    system, model, steps = case
    for name in ("inner", "outer")[: data.draw(st.integers(1, 2))]:
        count = len(model.graph.node)
        start = data.draw(st.integers(0, count - 1))
        model = disguise_file.as_function(model, start, data.draw(st.integers(start + 1, count)), name)
    with tempfile.TemporaryDirectory() as folder:
        found = load_model(save(model, Path(folder)))
        check_against_file(found, steps, 1e-4)
    assert kernel_error(found, system, steps) < 1e-4


@few
@given(disguised(), st.sampled_from(["weights.bin", "deep/down/weights.bin", None]))
def test_weights_kept_elsewhere(case: Case, location: str | None) -> None:
    system, model, steps = case
    with tempfile.TemporaryDirectory() as folder:
        found = load_model(disguise_file.saved_outside(model, Path(folder), location))
        check_against_file(found, steps, 1e-4)
    assert kernel_error(found, system, steps) < 1e-4


@few
@given(disguised(RECURRENT), st.sampled_from(sorted(disguise_file.FORMATS)), st.booleans())
def test_number_formats(case: Case, dtype: int, whole: bool) -> None:
    """Weights of another format, cast where they are used or not at all (`whole`): off by their rounding, no more."""
    assert kernel_error(in_format(case, dtype, whole), case[0], case[2]) < 1e-4 + 60 * ROUNDING[dtype]


@few
@given(disguised(OF_POWERS), st.sampled_from(sorted(disguise_file.FORMATS)), st.booleans())
def test_number_formats_of_powers(case: Case, dtype: int, whole: bool) -> None:
    """Powers with few digits are those of no system, or of a larger one: what is found is what the file does."""
    assert in_format(case, dtype, whole).systems


def in_format(case: Case, dtype: int, whole: bool) -> Model:
    _, model, steps = case
    model = (disguise_file.computed_in if whole else disguise_file.stored_in)(model, dtype)
    with tempfile.TemporaryDirectory() as folder:
        found = load_model(save(model, Path(folder)))
        check_against_file(found, steps, 200 * ROUNDING[dtype] if whole else 1e-4)
    return found


@few
@given(systems, layouts, st.lists(st.sampled_from(disguise.EXTRAS), unique=True, max_size=4), st.booleans())
def test_states_beside_those_of_the_system(system: StateSpace, layout: str, extras: list[str], named: bool) -> None:
    """Found out by how they go on, or told (`named`); in whatever order they stand."""
    model = disguise.as_step(system, layout, extras)
    inputs, outputs = ([port.name for port in ports] for ports in (model.graph.input, model.graph.output))
    pairs = dict(zip(inputs[1:], outputs[1:], strict=True))
    with tempfile.TemporaryDirectory() as folder:
        found = load_model(save(model, Path(folder)), states=pairs if named else None)
        check_against_file(found, 9, 1e-4)
    assert found.form == "step"
    if "unread" not in extras:
        assert dict(found.states) == pairs


@settings(max_examples=4, deadline=None)
@given(
    channels,
    st.sampled_from(disguise_parallel.CONVOLUTIONS),
    st.integers(25, 300),
)
def test_long_kernels(system: StateSpace, build: Callable[[StateSpace, int], onnx.ModelProto], steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = load_model(save(build(system, steps), Path(folder)))
        check_against_file(found, steps, 1e-3)  # float32 has lost that much in a transform of 2 x 250
    assert kernel_error(found, system, steps) < 1e-4
