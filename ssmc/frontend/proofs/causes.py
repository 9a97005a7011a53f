"""What in a file is behind a proof that failed: numbers too far apart, operands of types that an op does not take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import defs

from ssmc.diagnostics import UserError
from ssmc.frontend.model import Proof
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Graph, Node, Value
from ssmc.ir.interpreter import interpret
from ssmc.ir.op import Array
from ssmc.ir.types import TensorType

ROOM = 1e3  # ours: how much more than the tolerance of the largest number an output is at most, if that is to blame
EXACT = 1e-9  # of the largest number: what systems are exact to at best, as far as probing can tell


def require_finite(
    bad: Sequence[Proof], graph: Graph, feed: Mapping[str, Any], file: Listing, given: Mapping[Value, Any], path: Path
) -> None:
    """Raise UserError where a node of the file gives numbers that are not finite, on inputs that are: what comes
    behind it, as a code for NaN, each runtime makes up."""
    if all(np.isfinite(proof.error) for proof in bad):
        return
    found: list[str] = []

    def watch(node: Node, given: Sequence[Any], results: Sequence[Array]) -> None:
        if not found and all(_finite(a) for a in given) and not all(_finite(a) for a in results):
            found.extend(node.provenance)

    with np.errstate(all="ignore"):
        interpret(graph, feed, watch=watch)
        for call in (call for call in file.calls if call.name in found):
            if all(_finite(a) for a in evaluate(file, given, call.results).values()):
                continue
            size = f"batch {bad[0].batch}, length {bad[0].length}"
            raise UserError(
                f"{call.kind} '{call.name}' gives numbers that are not finite (inf or NaN), on random inputs at {size}",
                where=str(path),
                why="what comes behind them has no value that could be proved: runtimes differ in what they make of "
                "them",
                hint="keep what it is given in its domain: a quotient, a root or a logarithm may need an epsilon, or "
                "one that quantisation has not rounded to 0 (leave that layer unquantised)",
            )


def filters_of_all_steps(graph: Graph, length: int) -> list[str]:
    """The nodes that make filters of as many taps as there are steps, the last of them not 0."""
    filters = [node for node in graph.nodes("fir") if node.op["kernel"].shape[-1] == length]
    return [n.provenance[0] for n in filters if np.any(np.asarray(n.op["kernel"].array)[..., -1])]


def _finite(array: Any) -> bool:
    return array is None or np.asarray(array).dtype.kind not in "fc" or bool(np.isfinite(array).all())


def require_near(
    bad: Sequence[Proof],
    graph: Graph,
    feed: Mapping[str, Any],
    outputs: Mapping[str, Array],
    tolerance: float,
    path: Path,
) -> None:
    """Raise UserError where numbers on the way to the outputs are so large that what a system may be off by, relative
    to its largest number, is larger than the outputs."""
    top, at = 0.0, ""

    def watch(node: Node, _: Sequence[Any], results: Sequence[Array]) -> None:
        nonlocal top, at
        if node.op.name != "constant":
            size = max((float(np.abs(a).max(initial=0.0)) for a in results if a.dtype.kind == "f"), default=0.0)
            if size > top:
                top, at = size, next(iter(node.provenance), node.name)

    worst = max(bad, key=lambda proof: proof.error)
    interpret(graph, feed, watch=watch)
    largest = float(np.abs(outputs[worst.output]).max(initial=0.0))
    if not top * max(tolerance, EXACT) > ROOM * largest:
        return
    raise UserError(
        f"its numbers are too far apart to be told: '{at}' reaches {top:.0e}, output '{worst.output}' {largest:.0e}",
        where=str(path),
        why=f"systems are as exact as {tolerance:.0e} of their largest number; what the output needs is less, and it "
        f"is off by {worst.error:.1e} (batch {worst.batch}, length {worst.length})",
        hint="look for a weight that is far too large, or a state that grows, in front of what limits it",
    )


def require_types(bad: Sequence[Proof], file: Listing, types: Mapping[str, TensorType], path: Path) -> None:
    """Raise UserError where a node is given whole numbers and its op is defined for others alone: what onnxruntime
    makes of them is not what the op's definition says."""
    for call, dtype in _mistyped(file, types):
        worst = max(bad, key=lambda proof: proof.error)
        raise UserError(
            f"{call.kind} '{call.name}' is given {dtype}, which the op does not take",
            where=str(path),
            why=f"what {worst.against} makes of it is not what the op is defined as: output '{worst.output}' is off by "
            f"{worst.error:.1e}",
            hint="cast its operands to float in front of it; onnx.checker.check_model tells more",
        )


def require_order(bad: Sequence[Proof], file: Listing, path: Path) -> None:
    """Raise UserError where a node finds the largest in no order: each runtime has its own order."""
    for call in file.calls:
        if call.kind == "TopK" and not call.attrs.get("sorted", 1):
            worst = max(bad, key=lambda proof: proof.error)
            raise UserError(
                f"TopK '{call.name}' leaves open in what order it gives what it finds (sorted=0)",
                where=str(path),
                why=f"output '{worst.output}' follows the order, and is off by {worst.error:.1e} from what "
                f"{worst.against} makes of it",
                hint="export it with sorted=1 (in torch: topk(..., sorted=True))",
            )


def _mistyped(file: Listing, types: Mapping[str, TensorType]) -> Iterator[tuple[Call, str]]:
    given = {value: types[name].dtype for name, value in file.inputs.items() if name in types}
    for call in file.calls:
        if call.op["node"].domain not in ("", "ai.onnx") or not defs.has(call.kind):
            continue
        formal = defs.get_schema(call.kind).inputs
        for i, value in enumerate(call.operands):
            dtype = "" if value is None else _dtype(file, value, given)
            if dtype.startswith(("int", "uint")) and not any("int" in t for t in formal[min(i, len(formal) - 1)].types):
                yield call, dtype


def _dtype(file: Listing, value: Value, given: Mapping[Value, str]) -> str:
    call = file.producer.get(value)
    if call is None:
        return file.formats.get(value, given.get(value, "?"))
    return call.dtypes[call.results.index(value)]
