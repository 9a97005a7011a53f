"""The meaning of a graph: run it in float64, node by node, whole sequences at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.ir.graph import Graph, Node, Value
from ssmc.ir.op import Array
from ssmc.ir.table import spec_of
from ssmc.ir.types import SequenceType, StreamType

Watch = Callable[[Node, Sequence[Any], Sequence[Array]], None]


def interpret(
    graph: Graph,
    inputs: Mapping[str, Array],
    *,
    keep: bool | Collection[str] = False,
    watch: Watch | None = None,
) -> dict[str, Array]:
    """Outputs of `graph` by name, for inputs by name in the graph's own layout (see `ssmc.ir.layout`).

    A state input that is left out is zero. With `keep`, also every intermediate value, or those named there, under
    `str(value)` (`%node` or `%node:1`). `watch` is given each node with its operands and its results.
    Raises UserError for a missing input or where an op cannot run on its operands.
    """
    uses = {value: len(graph.users(value)) for name in graph.order() for value in graph.results(name)}
    batch = _batch(graph, inputs)
    every, named = keep is True, frozenset[str]() if isinstance(keep, bool) else frozenset(keep)
    values: dict[Value, Array] = {}
    outputs: dict[str, Array] = {}
    for node in graph.nodes():
        if node.op.name == "input":
            results: tuple[Array, ...] = (_input(node, inputs, batch),)
        else:
            operands = graph.operands(node.name)
            arrays = [None if value is None else values[value] for value in operands]
            kinds = [None if value is None else graph.type(value) for value in operands]
            results = run_node(node, arrays, kinds)
            if watch is not None:
                watch(node, arrays, results)
            del arrays
            for value in operands if not every else ():
                if value is not None:
                    uses[value] -= 1
                    if uses[value] == 0 and str(value) not in named:
                        del values[value]
        values.update(zip(graph.results(node.name), results, strict=False))
        if node.op.name == "output":
            outputs[node.op["name"]] = results[0]
    if every or named:
        outputs.update({str(value): array for value, array in values.items() if every or str(value) in named})
    return outputs


def run_node(node: Node, arrays: list[Any], kinds: list[Any]) -> tuple[Array, ...]:
    """Results of one node. Raises UserError that names the node and its ONNX origin where the op cannot run."""
    spec = spec_of(node.op.name)
    missing = len(spec.operands) - len(arrays) - spec.variadic
    if not node.op.name.startswith("onnx."):
        arrays, kinds = arrays + [None] * missing, kinds + [None] * missing
    try:
        return spec.evaluate(node.op, arrays, kinds)
    except UserError:
        raise
    except Exception as error:
        shapes = ", ".join("-" if a is None else str(np.shape(a)) for a in arrays)
        raise UserError(
            f"'{node.op.name}' cannot run on operands {shapes}",
            where=node.where,
            why=str(error),
        ) from error


def _batch(graph: Graph, inputs: Mapping[str, Array]) -> int:
    for node in graph.inputs():
        if node.op["name"] in inputs and isinstance(node.types[0], StreamType | SequenceType):
            return len(inputs[node.op["name"]])
    return 1


def _input(node: Node, inputs: Mapping[str, Array], batch: int) -> Array:
    name, kind = node.op["name"], node.types[0]
    if name in inputs:
        array = np.asarray(inputs[name])
        return array.astype(np.float64) if array.dtype.kind == "f" else array
    if node.op["role"] == "state" and isinstance(kind, SequenceType):
        return np.zeros((batch, *kind.shape), np.complex128 if kind.element == "complex" else np.float64)
    raise UserError(f"the input '{name}' is missing", hint=f"give an array named '{name}' of type {kind}")
