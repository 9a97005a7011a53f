"""The packaged samples are what their ``sample.yaml`` says: judged by onnx and onnxruntime, without torch."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

import samples

NAMES = ("events-watch", "realdecay-vowels", "s4d-digits")
NULL_EVENT = 12


def session(sample: samples.Sample) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(sample.model_path), options, providers=["CPUExecutionProvider"])


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def zero_states(sample: samples.Sample, batch: int) -> dict[str, np.ndarray]:
    states = sample.metadata.get("states", {})
    return {name: np.zeros((batch, *s["shape"][1:]), np.float32) for name, s in states.items()}


def run(sample: samples.Sample, arrays: samples.Arrays) -> dict[str, np.ndarray]:
    """All outputs; a one-step model is stepped and its logits stacked to ``(batch, time, classes)``."""
    model, names = session(sample), [o.name for o in onnx.load(sample.model_path).graph.output]
    if sample.metadata["readout"] == "sequence":
        return dict(zip(names, model.run(names, arrays), strict=True))
    batch, steps = next(iter(arrays.values())).shape[:2]
    held, logits, found = zero_states(sample, batch), [], {}
    for k in range(steps):
        feed = {name: values[:, k] for name, values in arrays.items()} | held
        found = dict(zip(names, model.run(names, feed), strict=True))
        held = {name: found[state["next"]] for name, state in sample.metadata["states"].items()}
        logits.append(found["logits"])
    return found | {"logits": np.stack(logits, axis=1)}


def bodies(graph: onnx.GraphProto, op: str) -> list[onnx.GraphProto]:
    return [a.g for n in graph.node if n.op_type == op for a in n.attribute if a.HasField("g")]


def test_the_three_samples_are_found() -> None:
    assert samples.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_files_are_valid_and_small(name: str) -> None:
    sample = samples.load(name)
    onnx.checker.check_model(onnx.load(sample.model_path), full_check=True)
    assert sample.model_path.stat().st_size < 2_000_000
    assert sample.test_path.stat().st_size < 1_000_000
    assert b"/tmp" not in (raw := sample.model_path.read_bytes()) and b"site-packages" not in raw


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_named_and_shaped_as_the_models_inputs(name: str) -> None:
    sample = samples.load(name)
    declared = {v.name: dims(v) for v in onnx.load(sample.model_path).graph.input}
    states = sample.metadata.get("states", {})
    assert declared == sample.metadata["inputs"] | {k: s["shape"] for k, s in states.items()}
    for arrays, count in (
        (sample.test, len(sample.labels)),
        (sample.calibration, sample.metadata["calibration_sequences"]),
    ):
        assert set(arrays) == set(declared) - set(states)
        for key, values in arrays.items():
            inner = values.shape[1:] if sample.metadata["readout"] == "sequence" else values.shape[2:]
            assert len(values) == count
            assert all(isinstance(d, str) or d == s for d, s in zip(declared[key][1:], inner, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_reaches_the_recorded_accuracy(name: str) -> None:
    sample = samples.load(name)
    reached = sample.accuracy(run(sample, sample.test))
    assert round(reached, 4) == sample.metadata["onnxruntime_accuracy"] == sample.metadata["test_accuracy"]
    majority = np.bincount(sample.labels).max() / len(sample.labels)
    assert reached > 0.85 and reached > majority + 0.5
    assert sample.metadata["trivial_baseline"] <= round(majority, 4)


@pytest.mark.parametrize("name", NAMES)
def test_calibration_sequences_are_not_in_the_test_set(name: str) -> None:
    sample = samples.load(name)

    def rows(arrays: samples.Arrays) -> set[bytes]:
        return {
            b"".join(values[i].tobytes() for values in arrays.values()) for i in range(len(next(iter(arrays.values()))))
        }

    assert len(rows(sample.calibration)) == sample.metadata["calibration_sequences"]
    assert not rows(sample.calibration) & rows(sample.test)


@pytest.mark.parametrize("name", NAMES)
def test_labels_cover_the_named_classes(name: str) -> None:
    sample = samples.load(name)
    assert set(sample.labels.tolist()) == set(range(len(sample.metadata["classes"])))


def test_realdecay_is_a_scan_with_one_scalar_decay_a_block() -> None:
    """The body's transition is ``x -> a x`` with one ``a``: it is affine, so unit states show all of it."""
    sample = samples.load("realdecay-vowels")
    graph = onnx.load(sample.model_path).graph
    found = bodies(graph, "Scan")
    assert len(found) == sample.metadata["model"]["blocks"]
    scalars = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    for body, decay in zip(found, sample.metadata["model"]["Abar"], strict=True):
        state = body.input[0].name
        (scaled,) = [n for n in body.node if state in n.input]
        assert scaled.op_type == "Mul"
        (factor,) = [scalars[i] for i in scaled.input if i != state]
        assert factor.size == 1 and factor.item() == pytest.approx(decay, abs=1e-6)


def test_realdecay_runs_at_other_batches_and_lengths() -> None:
    sample = samples.load("realdecay-vowels")
    features = sample.test["features"]
    logits = run(sample, {"features": features})["logits"]
    alone = run(sample, {"features": features[:1]})["logits"]
    np.testing.assert_allclose(alone, logits[:1], rtol=1e-4, atol=1e-5)
    padded = {"features": np.pad(features, ((0, 0), (0, 6), (0, 0)))}
    assert sample.accuracy(run(sample, padded)) > sample.metadata["test_accuracy"] - 0.02


def test_s4d_convolves_by_fft_with_its_kernel_in_the_graph() -> None:
    graph = onnx.load(samples.load("s4d-digits").model_path).graph
    ops = Counter(node.op_type for node in graph.node)
    assert ops["DFT"] == 6 and ops["Exp"] == ops["Cos"] == ops["Sin"] == 2
    assert ops["Gelu"] == ops["LayerNormalization"] == ops["Sigmoid"] == 2
    assert "Scan" not in ops and "Loop" not in ops


def test_events_step_has_its_states_outside() -> None:
    sample = samples.load("events-watch")
    graph = onnx.load(sample.model_path).graph
    shapes = {v.name: dims(v) for v in [*graph.input, *graph.output]}
    for name, state in sample.metadata["states"].items():
        assert shapes[name] == shapes[state["next"]] == state["shape"]
    assert not {"Scan", "Loop", "If"} & {node.op_type for node in graph.node}


def test_padding_events_change_nothing() -> None:
    """``dt = 0`` and the null event leave states, mean and logits exactly as they were."""
    sample = samples.load("events-watch")
    short = {name: values[:20, :40] for name, values in sample.test.items()}
    longer = {
        "event": np.pad(short["event"], ((0, 0), (0, 5)), constant_values=NULL_EVENT),
        "dt": np.pad(short["dt"], ((0, 0), (0, 5), (0, 0))),
    }
    before, after = run(sample, short), run(sample, longer)
    for key in before.keys() - {"logits"}:
        np.testing.assert_array_equal(before[key], after[key])
    np.testing.assert_array_equal(before["logits"][:, -1], after["logits"][:, -1])


def test_elapsed_time_matters_to_the_event_model() -> None:
    sample = samples.load("events-watch")
    frozen = sample.test | {"dt": np.zeros_like(sample.test["dt"])}
    assert sample.accuracy(run(sample, frozen)) < sample.metadata["test_accuracy"] - 0.05


def test_padding_is_at_the_end_and_time_runs_forward() -> None:
    sample = samples.load("events-watch")
    for arrays in (sample.test, sample.calibration):
        null = arrays["event"] == NULL_EVENT
        assert (np.diff(null.astype(int), axis=1) >= 0).all()
        assert (arrays["dt"][null] == 0).all() and (arrays["dt"] >= 0).all()


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no sample called 's4d'.*events-watch, realdecay-vowels, s4d-digits"):
        samples.load("s4d")
    with pytest.raises(ValueError, match="no architecture file called 'nonesuch'"):
        samples.arch_path("nonesuch")


def test_importing_samples_needs_neither_torch_nor_onnx() -> None:
    code = "import sys, samples; samples.load('s4d-digits'); print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
