"""Each name of a graph is given once, as ONNX demands (static single assignment), and each opset has a version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from ssmc.diagnostics import UserError


def check_assignment(graphs: Iterable[onnx.GraphProto], where: str) -> None:
    """Raise UserError where two values of one graph have one name.

    A weight that is an input, too, has a default value, which is legal; so is a name of another graph in a body.
    """
    for graph in graphs:
        inputs = [info.name for info in graph.input]
        weights = [t.name for t in graph.initializer] + [s.values.name for s in graph.sparse_initializer]
        _once("an input", inputs, set(), graph, where)
        _once("a weight", weights, set(), graph, where)
        _once("a result of a node", _results(graph), {*inputs, *weights}, graph, where)


def _results(graph: onnx.GraphProto) -> Iterator[str]:
    return (name for node in graph.node for name in node.output if name)


def _once(what: str, names: Iterable[str], known: set[str], graph: onnx.GraphProto, where: str) -> None:
    for name in names:
        if name in known:
            raise UserError(
                f"graph '{graph.name}' gives the name '{name}' to two values, one of them {what}",
                where=where,
                why="each name is given once in ONNX, so that it tells which value is read",
                hint="rename one of the two, or export the model again",
            )
        known.add(name)


def check_opsets(model: onnx.ModelProto, where: str) -> None:
    """Raise UserError where the version of an opset is no version."""
    for entry in model.opset_import:
        if entry.version < (0 if entry.domain not in ("", "ai.onnx") else 1):
            raise UserError(
                f"opset '{entry.domain or 'ai.onnx'}' of version {entry.version}",
                where=where,
                why="versions of the standard start at 1, of other domains at 0",
                hint="export the model again",
            )
