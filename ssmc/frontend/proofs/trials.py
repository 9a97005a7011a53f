"""What is to be proved, the inputs that it is tried on, and what graph and file make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Lift
from ssmc.frontend.proofs.proof import run_file, run_graph
from ssmc.frontend.source.interface import concrete_shapes, sample_inputs
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.source.proto import ModelFile
from ssmc.interface import Port
from ssmc.ir.clocks import timestamps
from ssmc.ir.graph import Graph
from ssmc.ir.layout import to_graph
from ssmc.ir.types import TensorType
from ssmc.threads import one_blas_thread

Arrays = dict[str, Any]  # by name

STEPS = 6  # of a one-step model


@dataclass(frozen=True, eq=False)
class Case:
    """What is to be proved: `graph` is the model of `file`, whose inputs are of `types`."""

    path: Path
    model: ModelFile
    file: Listing
    types: Mapping[str, TensorType]
    tolerance: float
    graph: Graph
    form: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: Mapping[str, str]
    lifts: tuple[Lift, ...]
    aside: Executor  # where onnxruntime runs meanwhile
    dropped: int  # nodes of the path's file that round, and that `file` does without
    as_stored: Listing | None = None  # where tables of `file` are more exact than those of the path's file


def inputs_at(case: Case, batch: int, length: int, seed: int) -> Arrays:
    """Random inputs of a size, times of events growing from one to the next."""
    return _in_order(case, _proof_inputs(case, batch, length, seed))


def fewer(case: Case, arrays: Arrays, found: Arrays, size: tuple[int, int]) -> tuple[Arrays, Arrays] | None:
    """The last samples alone of inputs, and of what the graph made of them, which is the same whatever the batch; None
    where the file takes other shapes at that batch and length."""

    def last(ports: Sequence[Port], of: Arrays) -> Arrays:
        axes = {port.name: port.axes for port in ports}
        parts = {name: tuple(slice(-size[0] if a == "b" else None, None) for a in axes[name]) for name in of}
        return {name: np.asarray(array)[parts[name]] for name, array in of.items()}

    some, shapes = last(case.inputs, arrays), concrete_shapes(case.types, *size)
    if any(np.shape(array) != tuple(shapes[name]) for name, array in some.items()):
        return None
    return some, last(case.outputs, found)


def side_by_side(
    case: Case, arrays: Arrays, size: tuple[int, int], found: Arrays | None, both: bool
) -> tuple[Arrays, Arrays]:
    """What the graph makes of the inputs, unless that is `found`, and the file in float64; at once if `both`.

    Raises UserError where the file gives no finite numbers, or one of them cannot run.
    """
    if found is not None or not both:
        known = run_graph(case.graph, case.inputs, case.outputs, arrays) if found is None else found
        return known, _exact(case, arrays, size)
    with one_blas_thread(), ThreadPoolExecutor(1) as pool:
        other = pool.submit(_exact, case, arrays, size)
        return run_graph(case.graph, case.inputs, case.outputs, arrays), other.result()


def gives_numbers(case: Case, size: tuple[int, int]) -> bool:
    """Does the file run at a batch and length, and give finite numbers?"""
    try:
        _exact(case, inputs_at(case, *size, 7), size)
    except UserError:
        return False
    return True


def _exact(case: Case, arrays: Arrays, size: tuple[int, int]) -> Arrays:
    """What the file's own nodes give in float64. Raises UserError where they cannot, or give no finite numbers."""
    try:
        exact = run_file(case.file, case.inputs, case.states, case.form, arrays)
    except UserError as failed:
        told = failed.where and f"{failed.where}:", failed.what, failed.why and f"({failed.why})"
        raise UserError(
            f"the file does not run at batch {size[0]}, length {size[1]}",
            where=str(case.path),
            why=" ".join(filter(None, told)),
            hint="export it at fixed sizes, or so that its shapes follow those of its inputs",
        ) from failed
    exact = {port.name: exact[port.name] for port in case.outputs}
    _require_finite(case, exact)
    return exact


def _require_finite(case: Case, exact: Mapping[str, np.ndarray]) -> None:
    """Raise UserError where the file itself gives no numbers that anything could be compared with."""
    broken = [name for name, array in exact.items() if not np.isfinite(array).all()]
    if broken:
        raise UserError(
            f"the model gives NaN or infinity for {', '.join(map(repr, broken))}",
            where=str(case.path),
            why="its own nodes do so in float64, on random inputs, so that nothing can be proved",
            hint="look for divisions by zero and for roots and logarithms of negative numbers; keep their operands in "
            "range inside the model (Abs, Clip)",
        )


def feed(case: Case, arrays: Mapping[str, Any]) -> dict[str, Any]:
    ports = {port.name: port for port in case.inputs}
    return {name: to_graph(np.asarray(a), ports[name].axes, ports[name].type) for name, a in arrays.items()}


def _proof_inputs(case: Case, batch: int, length: int, seed: int) -> dict[str, Any]:
    shapes = concrete_shapes(case.types, batch, length)
    point = sample_inputs(case.file, shapes, case.types, seed)
    arrays = {name: np.asarray(point[value]) for name, value in case.file.inputs.items()}
    if case.form == "sequence":
        return arrays
    rows = [sample_inputs(case.file, shapes, case.types, seed + 31 * k) for k in range(STEPS)]
    for port in case.inputs:
        if port.name in case.states:
            if len(port.axes) > len(port.shape):
                arrays[port.name] = arrays[port.name][None]
            continue
        steps = np.stack([np.asarray(row[case.file.inputs[port.name]]) for row in rows])
        arrays[port.name] = steps[None] if len(port.shape) < len(port.axes) - 1 else np.moveaxis(steps, 0, 1)
    return arrays


def _in_order(case: Case, arrays: dict[str, Any]) -> dict[str, Any]:
    """With times of events that grow from one to the next."""
    clocks = timestamps(case.graph)
    for port in case.inputs:
        if port.name in clocks:
            total = np.cumsum(np.abs(arrays[port.name]), axis=port.axes.index("t"))
            arrays[port.name] = np.float32(total).astype(np.float64)
    return arrays


def sizes(ports: tuple[Port, ...], arrays: Mapping[str, Any]) -> tuple[int, int]:
    found = {"b": 1, "t": 1}
    for port in ports:
        for letter, size in zip(port.axes, np.shape(arrays[port.name]), strict=True):
            if letter in found:
                found[letter] = max(found[letter], size)
    return found["b"], found["t"]
