"""Is it right? A compiled model on the simulator against onnxruntime, output by output and layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmc import arrays
from ssmc.diagnostics import UserError
from ssmc.driver import Compilation, Executable, compile_model, load_model
from ssmc.ir import Graph, Value, interpret
from ssmc.ir.op import Array
from ssmc.ir.ties import find_ties
from ssmc.target import RunSettings

if TYPE_CHECKING:
    from pathlib import Path

    from ssmc.frontend import Model
    from ssmc.passes import Observer, Pass


IDEAL_TOLERANCE = 1e-5
"""Relative to the largest reference element; where the float32 reference itself is further than that from float64,
as in FFTs, its own error counts beside ours, up to `REFERENCE_LIMIT`; beyond, the file's own nodes in float64 judge."""
REFERENCE_LIMIT = 1e-4
COARSE_LIMIT = {"float16": 3e-2}
"""Where a file computes in fewer digits than float32, and onnxruntime does so too (ours: some tens of its epsilon).
bfloat16 it computes in float32."""
LAST_DIGIT = {"float16": 2.0**-10}
"""Of a number in the format, relative: what lies on an edge between two may become either."""
REALISTIC_TOLERANCE = 0.25
"""With devices and converters as the architecture has them. Ours: rounding and noise move every output a little, a
defect moves it by its own size."""
LAYER_SEQUENCES = 16
"""Layers are compared on this many sequences: every value of every layer is held at once."""


@dataclass(frozen=True)
class Error:
    """How far an array is from its reference: `relative` is `max|y - ref| / max|ref|` (absolute where ref is 0)."""

    relative: float
    absolute: float
    worst_index: tuple[int, ...]


@dataclass(frozen=True)
class LayerError:
    """A layer of the program against the same value in float64."""

    name: str
    op: str
    onnx_nodes: tuple[str, ...]
    error: Error


@dataclass(frozen=True)
class Verification:
    """What `verify` found: by output and by layer, and whether it is within the tolerance."""

    passed: bool
    tolerance: float
    outputs: Mapping[str, Error]
    layers: tuple[LayerError, ...]
    note: str = ""  # why the tolerance is larger than asked for, where it is: roundings on an edge


def compare(reference: Array, array: Array) -> Error:
    """The largest difference and where it is; infinite where shapes differ or a value is not finite."""
    reference, array = np.asarray(reference), np.asarray(array)
    if reference.shape != array.shape:
        return Error(float("inf"), float("inf"), ())
    if not reference.size:
        return Error(0.0, 0.0, ())
    difference = np.abs(array.astype(np.complex128) - reference)
    difference = np.where(np.isfinite(difference), difference, np.inf)
    place = np.unravel_index(int(np.argmax(difference)), difference.shape)
    worst, scale = float(difference[place]), float(np.abs(reference).max())
    return Error(worst / scale if scale > 0 else worst, worst, tuple(int(i) for i in place))


def verify(
    model: Model | str | Path,
    target: str,
    inputs: Mapping[str, Any],
    *,
    arch: str | None = None,
    passes: str | Sequence[Pass] | None = None,
    calibration: Mapping[str, Any] | None = None,
    ideal: bool = False,
    noise: str | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    observers: Sequence[Observer] = (),
) -> Verification:
    """Compile, simulate and compare with onnxruntime running the unmodified file.

    `tolerance` is the largest relative error that passes (default: `IDEAL_TOLERANCE` or `REALISTIC_TOLERANCE`). The
    other arguments are those of `compile_model` and `Executable.run`. Raises UserError.
    """
    from ssmc import frontend

    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise UserError(f"a tolerance is a number from 0 on, not {tolerance:g}")
    model = load_model(model) if not isinstance(model, frontend.Model) else model
    fitted = arrays.fit(inputs, model.interface)
    executable = compile_model(
        model,
        target,
        arch=arch,
        passes=passes,
        calibration=calibration,
        ideal=ideal,
        seed=seed,
        observers=observers,
    )
    assert executable.compilation is not None, "compile_model says how it compiled"
    settings = RunSettings(seed=seed, noise=noise)
    outputs = arrays.unfit(executable.simulate(fitted, settings).outputs, model.interface)
    references = frontend.reference(model, inputs)
    _require_finite(references)
    missing = sorted(set(references) - set(outputs))
    if missing:
        raise UserError(f"the program does not give the outputs {', '.join(missing)}")
    errors = {name: compare(reference, outputs[name]) for name, reference in references.items()}
    note, by_default = "", tolerance is None and ideal and noise is None
    if by_default:
        tolerance, note = _ideal_tolerance(model, fitted, references, outputs)
    elif tolerance is None:
        tolerance = REALISTIC_TOLERANCE
    assert tolerance is not None
    passed = all(error.relative <= tolerance for error in errors.values())
    if by_default and not passed and (nearer := _nearer(model, inputs, references, outputs)):
        passed, note = True, nearer
    if ideal and not passed:
        note = "; ".join(filter(None, (note, _lift_error(model, tolerance), _of_processor(model))))
    few = {name: array[:LAYER_SEQUENCES] for name, array in fitted.items()}
    return Verification(passed, tolerance, errors, _layers(executable, executable.compilation, few, settings), note)


def _ideal_tolerance(
    model: Model, inputs: Mapping[str, Array], references: Mapping[str, Array], outputs: Mapping[str, Array]
) -> tuple[float, str]:
    """What these outputs of an ideal program may be off, and why that is more than `IDEAL_TOLERANCE` where it is."""
    tolerance, note = ideal_tolerance(model.precision, _reference_error(model, inputs, references))
    if all(compare(reference, outputs[name]).relative <= tolerance for name, reference in references.items()):
        return tolerance, note
    ties = find_ties(model.graph, inputs)
    if not ties.near:
        return tolerance, note
    off = _off_where_clear(model, references, outputs, ties.clear, tolerance)
    told = (note, str(ties), off or ties.limits())
    return tolerance if off else max(tolerance, ties.allowed), "; ".join(filter(None, told))


def _nearer(
    model: Model, inputs: Mapping[str, Any], references: Mapping[str, Array], outputs: Mapping[str, Array]
) -> str:
    """A line where onnxruntime's float32 is further from the file in float64 than `IDEAL_TOLERANCE`, and than the
    program's outputs: two float32 results of what amplifies roundings need not agree."""
    from ssmc import frontend

    exact = frontend.exact_reference(model, inputs)
    if exact is None or any(exact[name].shape != outputs[name].shape for name in references):
        return ""
    pairs = [(compare(exact[n], y).relative, compare(exact[n], outputs[n]).relative) for n, y in references.items()]
    if any(ours > max(theirs, IDEAL_TOLERANCE) for theirs, ours in pairs):
        return ""
    theirs, ours = (max(errors) for errors in zip(*pairs, strict=True))
    return (
        f"judged against the file's own nodes in float64: onnxruntime's float32 is {theirs:.1e} off from these, the "
        f"program {ours:.1e}"
    )


def _off_where_clear(
    model: Model, references: Mapping[str, Array], outputs: Mapping[str, Array], clear: Sequence[int], tolerance: float
) -> str:
    """A line where sequences are off in which no rounding lies on an edge."""
    axes = {port.name: port.axes for port in model.outputs}
    for name, reference in references.items():
        if not clear or "b" not in axes[name] or reference.shape != outputs[name].shape:
            continue
        largest = float(np.abs(reference).max()) or 1.0
        chosen = [np.take(array, clear, axis=axes[name].index("b")) for array in (reference, outputs[name])]
        error = compare(*chosen).absolute / largest
        if error > tolerance:
            return f"but sequences with none on an edge are off, too: {error:.1e} in '{name}'"
    return ""


def _lift_error(model: Model, tolerance: float) -> str:
    """A line where the lifted model is further from the file than the tolerance, as it was told when it was lifted."""
    worst = max((proof.error for proof in model.proofs), default=0.0)
    if worst <= tolerance:
        return ""
    return f"the lifted model itself is up to {worst:.1e} off from the file (`ssmc inspect` shows what was lifted)"


def _of_processor(model: Model) -> str:
    """A line where onnxruntime itself cannot be trusted with the file on this processor."""
    import onnx

    from ssmc.frontend.proofs.saturation import told_of

    return told_of(onnx.load(str(model.path), load_external_data=False))


def _require_finite(references: Mapping[str, Array]) -> None:
    """Raise UserError where onnxruntime's own result is no number: nothing can be compared with that."""
    for name, array in references.items():
        if not (finite := np.isfinite(array)).all():
            place = [int(i) for i in np.argwhere(~finite)[0]]
            what = f"onnxruntime's own output '{name}' is {array[tuple(place)]} at {place}"
            raise UserError(what, why="numbers grow beyond what the model can hold", hint="give smaller inputs")


def ideal_tolerance(precision: str, theirs: float) -> tuple[float, str]:
    """What an ideal program may be off from onnxruntime, which is off by `theirs` itself; and a note where it computes
    in a coarse format."""
    limit = COARSE_LIMIT.get(precision, 0.0)
    if theirs > REFERENCE_LIMIT and limit:
        what = f"the file computes in {precision}: onnxruntime itself is {theirs:.1e} off from float64"
        return min(theirs, limit) + LAST_DIGIT[precision], what
    # Ours may be off by its own part as well, on the other side: a program as exact as float64 is off by all of theirs.
    return (min(theirs + IDEAL_TOLERANCE, REFERENCE_LIMIT) if theirs > IDEAL_TOLERANCE else IDEAL_TOLERANCE), ""


def _reference_error(model: Model, inputs: Mapping[str, Array], references: Mapping[str, Array]) -> float:
    """How far onnxruntime's float32 is from the model in float64: the lifted graph, each lift of which is proved."""
    exact = arrays.unfit(interpret(model.graph, inputs), model.interface)
    return max((compare(exact[name], reference).relative for name, reference in references.items()), default=0.0)


def _layers(
    executable: Executable, compilation: Compilation, inputs: Mapping[str, Array], settings: RunSettings
) -> tuple[LayerError, ...]:
    """Every layer that the simulator shows, in program order.

    A name means the same value before and after a pass, so a layer stands against the lifted model's value of its
    name; what only the tile graph has, against that.
    """
    taps = executable.simulate(inputs, replace(settings, taps=True)).taps
    tiled, lifted = compilation.graph, compilation.model.graph
    values, origin = interpret(tiled, inputs, keep=True), interpret(lifted, inputs, keep=True)
    found = []
    for name in tiled.order():
        if name in taps:
            node = tiled.node(name)
            known = origin if _same_value(lifted, tiled, name) else values
            error = compare(known[str(Value(name))], taps[name])
            found.append(LayerError(name, node.op.name, node.provenance, error))
    return tuple(found)


def _same_value(lifted: Graph, tiled: Graph, name: str) -> bool:
    return name in lifted and lifted.node(name).types[:1] == tiled.node(name).types[:1]
