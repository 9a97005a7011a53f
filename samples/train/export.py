"""Export with the stock PyTorch exporter, check in onnxruntime, write a sample's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
import yaml
from torch import Tensor, nn

Arrays = Mapping[str, npt.NDArray[Any]]
SAMPLES = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Interface:
    """How a model is called: example inputs, the names of inputs and outputs, the dynamic axes of each input."""

    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, dict[int, str]]


def export(model: nn.Module, interface: Interface, name: str, opset: int) -> Path:
    """``torch.onnx.export`` (dynamo) of ``model`` to ``samples/NAME/model.onnx``, weights inside the file."""
    path = SAMPLES / name / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    sizes = {axis: torch.export.Dim(axis) for axes in interface.dynamic.values() for axis in axes.values()}
    program = torch.onnx.export(
        model.eval(),
        kwargs=dict(interface.inputs),
        input_names=list(interface.inputs),
        output_names=list(interface.outputs),
        dynamic_shapes={
            name: {axis: sizes[size] for axis, size in interface.dynamic[name].items()} for name in interface.inputs
        },
        opset_version=opset,
        dynamo=True,
    )
    assert program is not None
    program.save(path, external_data=False)
    model_file = onnx.load(path)
    _strip_traces(model_file.graph)
    onnx.checker.check_model(model_file, full_check=True)
    onnx.save(model_file, path)
    return path


def _strip_traces(graph: onnx.GraphProto) -> None:
    """Drop the exporter's debugging notes (stack traces with paths of the exporting machine)."""
    for value in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        del value.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip_traces(attribute.g)


def session(path: Path) -> onnxruntime.InferenceSession:
    """A single-threaded onnxruntime session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_against_torch(path: Path, model: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """Largest error of the exported file against torch, relative to the largest output; raises above 1e-4."""
    found = session(path).run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        expected = model(**inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    error = max(
        float(np.abs(got - want.numpy()).max() / max(np.abs(want.numpy()).max(), 1e-12))
        for got, want in zip(found, expected, strict=True)
    )
    if not error < 1e-4:
        raise RuntimeError(f"{path}: the exported file is off by {error:.2e} from torch")
    return error


def run_steps(
    path: Path, streams: Arrays, states: Arrays, next_states: Mapping[str, str], output: str
) -> npt.NDArray[Any]:
    """Step a one-step model in onnxruntime over ``streams`` ``(batch, time, ...)``; ``output`` at the last step.

    ``next_states`` maps every state input to the output that feeds it at the next step.
    """
    model = session(path)
    held = dict(states)
    result = np.empty(0)
    for step in range(next(iter(streams.values())).shape[1]):
        feed = {name: values[:, step] for name, values in streams.items()} | held
        result, *following = model.run([output, *next_states.values()], feed)
        held = dict(zip(next_states, following, strict=True))
    return result


def baseline(train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> float:
    """Test accuracy of always answering the training set's most frequent class; ties go to the luckiest."""
    counts = np.bincount(train)
    return float(max(np.mean(test == label) for label in np.flatnonzero(counts == counts.max())))


def write_sample(
    name: str, test: Arrays, labels: npt.NDArray[np.int64], calibration: Arrays, metadata: dict[str, Any]
) -> None:
    """Write the arrays and ``sample.yaml`` beside the exported model; what can be measured is added here."""
    folder = SAMPLES / name
    np.savez_compressed(folder / "test.npz", **test)
    np.savez_compressed(folder / "labels.npz", labels=labels)
    np.savez_compressed(folder / "calibration.npz", **calibration)
    model = onnx.load(folder / "model.onnx")
    record = {
        "name": name,
        **metadata,
        "exporter": f"torch.onnx.export (dynamo) of torch {version('torch').split('+')[0]}",
        "opset": next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
        "operators": dict(sorted(_operators(model.graph).items())),
        "model_bytes": (folder / "model.onnx").stat().st_size,
        "test_sequences": len(labels),
        "calibration_sequences": len(next(iter(calibration.values()))),
        "made_by": f"python -m samples.train.{name.replace('-', '_')}",
    }
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    (folder / "sample.yaml").write_text(text, encoding="utf-8")
    print(text)


def _operators(graph: onnx.GraphProto) -> Counter[str]:
    """How often each operator occurs, bodies included."""
    found = Counter(node.op_type for node in graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _operators(attribute.g)
    return found
