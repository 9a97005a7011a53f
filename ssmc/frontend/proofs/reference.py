"""What the unmodified file computes: onnxruntime on user-shaped arrays, whole batches and sequences."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.model import Model
from ssmc.frontend.source.proto import ModelFile
from ssmc.interface import Port
from ssmc.ir.op import Array
from ssmc.ir.types import StreamType

Run = Callable[[dict[str, Array]], dict[str, Array]]
MISTYPED = (
    "onnx.checker.check_model(path, full_check=True) tells more; a converter to float16 may have left operands of two "
    "types"
)


def reference(model: Model, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """Outputs of the file by name, for arrays named and shaped as in `model.inputs`.

    A one-step file is stepped over time, its states carried (zero at first unless given); its outputs come back as
    (batch, time, ...), the last states under their output names. A file of fixed batch is run in parts. Raises
    UserError for names or shapes that do not fit.
    """
    arrays = check_inputs(model, inputs)
    run = runner(str(model.path))
    batch = batch_of(model.inputs, arrays)
    size = _file_batch(model)
    if batch is None or size is None or batch == size:
        return _run_whole(model, run, arrays)
    parts = [_run_whole(model, run, _part(model.inputs, arrays, start, size)) for start in range(0, batch, size)]
    return {port.name: _join(port, [part[port.name] for part in parts], batch) for port in model.outputs}


def _run_whole(model: Model, run: Run, arrays: Mapping[str, Array]) -> dict[str, Array]:
    try:
        if model.form == "step":
            return step_through(run, model.inputs, model.states, arrays)
        return run(dict(arrays))
    except UserError:
        raise
    except Exception as error:  # onnxruntime's errors have no other base
        what = "onnxruntime cannot run the file on these inputs"
        hint = "give sequences of other sizes; `ssmc inspect` tells those at which the file was run"
        raise UserError(what, where=str(model.path), why=str(error), hint=hint) from error


def _file_batch(model: Model) -> int | None:
    """The batch that the file insists on, None where it is free; a file without a batch axis takes one at a time."""
    for port in model.inputs:
        if port.role == "state" and model.form == "step":
            continue
        axes = port.axes if model.form == "sequence" else port.axes.replace("t", "")
        if len(axes) > len(port.shape):
            return 1
        if "b" in axes:
            size = port.shape[axes.index("b")]
            return size if isinstance(size, int) and size > 0 else None
    return None


def batch_of(ports: tuple[Port, ...], arrays: Mapping[str, Array]) -> int | None:
    """The number of sequences in arrays by port; None where no port has a batch."""
    for port in ports:
        if port.name in arrays and "b" in port.axes:
            return int(arrays[port.name].shape[port.axes.index("b")])
    return None


def _part(ports: tuple[Port, ...], arrays: Mapping[str, Array], start: int, size: int) -> dict[str, Array]:
    """Samples start to start + size; the last one repeated where there are too few."""
    found = {}
    for port in ports:
        if port.name not in arrays:
            continue
        array = arrays[port.name]
        if "b" in port.axes:
            axis = port.axes.index("b")
            index = np.minimum(np.arange(start, start + size), array.shape[axis] - 1)
            array = np.take(array, index, axis=axis)
        found[port.name] = array
    return found


def _join(port: Port, parts: list[Array], batch: int) -> Array:
    if "b" not in port.axes:
        return parts[0]
    axis = port.axes.index("b")
    return np.take(np.concatenate(parts, axis=axis), np.arange(batch), axis=axis)


def step_through(
    run: Run, inputs: tuple[Port, ...], states: Mapping[str, str], arrays: Mapping[str, Array]
) -> dict[str, Array]:
    """A one-step function run over time. Streaming arrays are (batch, time, ...)."""
    streams = [port for port in inputs if port.name not in states and isinstance(port.type, StreamType)]
    steps = next(arrays[port.name].shape[1] for port in streams)
    batch = max(arrays[port.name].shape[port.axes.index("b")] for port in streams)
    carried = {}
    for port in inputs:
        if port.name in states:
            dtype = np.dtype(np.float64) if run.__module__ == "ssmc.frontend.proofs.proof" else fed_dtype(port)
            shape = _state_shape(port, batch)
            carried[port.name] = np.asarray(arrays.get(port.name, np.zeros(shape)), dtype).reshape(shape)
    collected: dict[str, list[Array]] = {}
    for k in range(steps):
        feed = dict(carried)
        for port in streams:
            seen = arrays[port.name][:, k]
            feed[port.name] = seen if len(port.shape) == seen.ndim else np.asarray(seen[0])
        found = run(feed)
        carried = {name: found[target] for name, target in states.items()}
        for name, array in found.items():
            collected.setdefault(name, []).append(array)
    last = {states[port.name]: len(port.shape) < len(port.axes) for port in inputs if port.name in states}
    squeezed = all(len(port.shape) < len(port.axes) - 1 for port in streams)  # beside others it is for all samples
    alone = max((len(arrays[port.name]) for port in streams if not port.shape), default=batch)
    return {
        name: (rows[-1][None] if last[name] else rows[-1])
        if name in last
        else np.stack([_of_all(r[None] if squeezed else r, alone) for r in rows], axis=1)
        for name, rows in collected.items()
    }


def _of_all(row: Array, samples: int) -> Array:
    """A row of an output, with samples: what follows from a counter alone is one number for all that it was given."""
    return row if row.ndim else np.broadcast_to(row, samples)


def _state_shape(port: Port, batch: int) -> tuple[int, ...]:
    axes = port.axes if len(port.axes) == len(port.shape) else port.axes[1:]
    return tuple(
        d if isinstance(d, int) and d > 0 else batch if a == "b" else 1 for d, a in zip(port.shape, axes, strict=True)
    )


def check_inputs(model: Model, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """The user's arrays, checked against the model's inputs and in its element types."""
    known = {port.name: port for port in model.inputs}
    unknown = sorted(set(inputs) - set(known))
    if unknown:
        raise UserError(
            f"the model has no input '{unknown[0]}'", where=str(model.path), hint=f"its inputs are: {', '.join(known)}"
        )
    missing = [
        n for n, port in known.items() if n not in inputs and not (port.role == "state" and model.form == "step")
    ]
    if missing:
        raise UserError(
            f"the input '{missing[0]}' is missing",
            where=str(model.path),
            hint=f"give an array '{missing[0]}' with axes {describe(known[missing[0]])}",
        )
    found = {}
    sizes: dict[str, tuple[str, int]] = {}
    for name, raw in inputs.items():
        port, array = known[name], np.asarray(raw)
        expected = user_shape(port)
        fits = array.ndim == len(expected) and all(
            not isinstance(d, int) or letter == "b" or d == size
            for d, size, letter in zip(expected, array.shape, port.axes, strict=True)
        )
        if not fits or array.dtype.kind not in "biuf":
            raise UserError(
                f"the input '{name}' has the shape {tuple(array.shape)} ({array.dtype})",
                where=str(model.path),
                hint=f"it takes axes {describe(port)}, {port.dtype}",
            )
        for letter, size in zip(port.axes, array.shape, strict=True):
            if letter == "b" and size == 1 and port.is_shared:
                continue
            if letter in "bt" and sizes.setdefault(letter, (name, size))[1] != size:
                other, there = sizes[letter]
                what = {"b": "batch", "t": "length"}[letter]
                raise UserError(f"'{name}' has the {what} {size}, '{other}' {there}", where=str(model.path))
        found[name] = array.astype(fed_dtype(port))
    batch = sizes.get("b", ("", 1))[1]
    for name in found:
        if known[name].is_shared and len(found[name]) == 1:
            found[name] = np.broadcast_to(found[name], (batch, *found[name].shape[1:]))
    return found


def fed_dtype(port: Port) -> np.dtype[Any]:
    """The format in which a file is given an input: bfloat16 as float32, for so it runs."""
    return np.dtype(np.float32 if port.dtype in ("?", "bfloat16") else port.dtype)


def user_shape(port: Port) -> tuple[int | str | None, ...]:
    """The dimensions of the user's array: a one-step model's stream has the time axis that the file has not."""
    if len(port.axes) == len(port.shape):
        return port.shape
    rest = iter(port.shape)
    known: list[int | str | None] = []
    for letter in port.axes:
        if letter == "t" or (letter == "b" and len(port.axes) - port.axes.count("t") > len(port.shape)):
            known.append({"t": "time", "b": "batch"}[letter])
        else:
            known.append(next(rest))
    return tuple(known)


def describe(port: Port) -> str:
    """The axes of an input for an error message, as in (batch, time, 12)."""
    names = {"b": "batch", "t": "time"}
    return (
        "("
        + ", ".join(names[a] if a in names else str(d) for a, d in zip(port.axes, user_shape(port), strict=True))
        + ")"
    )


def runner(path: str) -> Run:
    """The file as a function: by onnxruntime, or where that stops short of its opset, by onnx.reference.

    bfloat16 is taken for float32.
    """
    stat = os.stat(path)
    return _runner(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _runner(path: str, written: int, size: int) -> Run:
    """As `runner`; when the file was `written` and its `size` tell one that is exported anew to the same place."""
    try:
        return _session(path)
    except Exception as error:
        return _other_runner(path, error)


def runner_on(file: ModelFile, path: str) -> Run:
    """As `runner`, of a model that was read from there, on its weights where they stand in memory."""
    try:
        run = _session(file.with_weights_as_inputs().SerializeToString(), arena=False)
    except Exception as error:
        return _other_runner(path, error)
    return lambda feed: run({**feed, **file.weights})


def mistyped(file: ModelFile) -> str | None:
    """What onnxruntime says of a file whose operands are not of one type, as converters to float16 leave it."""
    try:
        _session(file.with_weights_as_inputs().SerializeToString(), arena=False)
    except Exception as error:
        told = next(iter(str(error).splitlines()), "")
        return told if "Type Error" in told and ("float16" in told or "different types" in told) else None
    return None


def _session(model: str | bytes, arena: bool = True) -> Run:
    """A file or a serialised model, run by onnxruntime; without its `arena` it gives memory back at once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # The file as it is, soon ready: its optimizer folds kernels of gigabytes, its search for buffers to use again
    # is quadratic in the nodes, as is its plan of the memory where nothing is packed; packing holds each weight twice.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = arena
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other work is done meanwhile
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if any("bfloat16" in entry.type for entry in (*session.get_inputs(), *session.get_outputs())):
        raise TypeError("numpy arrays are never bfloat16")
    names = [output.name for output in session.get_outputs()]
    wanted = {entry.name for entry in session.get_inputs()}

    def run(feed: dict[str, Array]) -> dict[str, Array]:
        found = session.run(names, {name: array for name, array in feed.items() if name in wanted})
        return dict(zip(names, found, strict=True))

    return run


def _other_runner(path: str, reason: Exception) -> Run:
    """What onnxruntime does not run as it is: bfloat16 in float32, for it has no kernels of that on a CPU; new ops."""
    from onnx import TensorProto
    from onnx.reference import ReferenceEvaluator

    from ssmc.frontend.source.proto import holds, read_model, widened

    model = read_model(path).whole()
    told = next(iter(str(reason).splitlines()), "")
    if any(f"of output arg ({output.name}) " in told and "Type Error" in told for output in model.graph.output):
        raise UserError("onnxruntime does not take the file", where=path, why=told, hint=MISTYPED)
    try:
        with suppress(Exception):  # it wants some weights, as axes, in the file itself
            return _session(model.SerializeToString())
        if holds(model, TensorProto.BFLOAT16):
            model = widened(model, TensorProto.BFLOAT16)
            try:
                return _session(model.SerializeToString())
            except Exception as error:
                reason = error
        evaluator = ReferenceEvaluator(model)
    except Exception:
        raise UserError("onnxruntime cannot run the file", where=path, why=str(reason)) from reason
    names = list(evaluator.output_names)

    def run(feed: dict[str, Array]) -> dict[str, Array]:
        try:
            found = evaluator.run(names, feed)
        except Exception as error:
            raise UserError(
                "neither onnxruntime nor onnx.reference runs the file",
                where=path,
                why="; ".join(dict.fromkeys(str(e).splitlines()[0] for e in (reason, error) if str(e))),
                hint=MISTYPED,
            ) from error
        return dict(zip(names, map(np.asarray, found), strict=True))

    return run
