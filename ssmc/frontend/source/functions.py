"""Model-local functions: checked, then inlined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from ssmc.diagnostics import UserError

MAX_FUNCTION_DEPTH = 64
MAX_NODES = 1 << 20  # after inlining

STANDARD = ("", "ai.onnx")

_Key = tuple[str, str]


def inlined(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model without functions of its own, the nodes of which stand where they were called.

    Raises UserError where a function calls itself, called or not, is given more than it takes, is asked for more than
    it gives, or stands for too many nodes, and where onnx cannot inline it.
    """
    check_functions(model, where)
    from onnx.inliner import inline_local_functions

    try:
        return inline_local_functions(_of_one_opset(model, where))
    except UserError:
        raise
    except Exception as error:  # onnx has several kinds of its own
        raise UserError(
            "the model-local functions cannot be inlined", where=where, why=str(error)[:400], hint="export it again"
        ) from None


def _of_one_opset(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model with its functions declared of its own opset where their ops have one form in both: onnx leaves others
    as they are. Raises UserError where an op of them has another form."""
    opset = next((o.version for o in model.opset_import if o.domain in STANDARD), 1)
    apart = {(f.domain, f.name): o.version for f in model.functions for o in f.opset_import if o.domain in STANDARD}
    called = {_key(n) for nodes in (model.graph.node, *(f.node for f in model.functions)) for n in _nodes(nodes)}
    apart = {key: version for key, version in apart.items() if version != opset and key in called}
    if not apart:
        return model
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for function in found.functions:
        version = apart.get((function.domain, function.name))
        if version is None:
            continue
        kinds = sorted({n.op_type for n in _nodes(function.node) if n.domain in STANDARD})
        changed = [kind for kind in kinds if _form(kind, version) != _form(kind, opset)]
        if changed:
            raise UserError(
                f"the model-local function '{function.name}' is of opset {version}, and the file of {opset}",
                where=where,
                why=f"between these {', '.join(changed)} changed, and a file has one form of an op",
                hint="export the file and its functions at one opset",
            )
        for entry in function.opset_import:
            entry.version = opset if entry.domain in STANDARD else entry.version
    return found


def _form(kind: str, opset: int) -> object:
    """What an op takes and gives at an opset, with its attributes and what these are by default."""
    try:
        schema = onnx.defs.get_schema(kind, opset)
    except onnx.defs.SchemaError:
        return opset
    ends = [[(end.name, end.option) for end in side] for side in (schema.inputs, schema.outputs)]
    attributes = {n: (a.type, a.required, a.default_value.SerializeToString()) for n, a in schema.attributes.items()}
    return ends, attributes


def check_functions(model: onnx.ModelProto, where: str) -> None:
    """Refuse functions that call themselves, that do not fit their calls, or that grow beyond measure."""
    functions = {(f.domain, f.name): f for f in model.functions}
    called = {key: [_key(n) for n in _nodes(f.node)] for key, f in functions.items()}
    sizes: dict[_Key, int] = {}

    def size(key: _Key, above: frozenset[_Key]) -> int:
        if key in above or len(above) > MAX_FUNCTION_DEPTH:
            raise UserError(
                f"the model-local function '{key[1]}' calls itself" if key in above else "functions call too deeply",
                where=where,
                why="a function stands for a fixed number of nodes",
                hint="export the model without functions, or write its nodes out",
            )
        if key not in sizes:
            sizes[key] = sum(size(c, above | {key}) if c in functions else 1 for c in called[key])
        return sizes[key]

    for key in functions:
        size(key, frozenset())
    total = sum(sizes[key] for n in _nodes(model.graph.node) if (key := _key(n)) in functions)
    if total > MAX_NODES:
        raise UserError(f"its functions stand for {total} nodes", where=where, hint=f"at most {MAX_NODES}")
    for nodes in (model.graph.node, *(f.node for f in model.functions)):
        for node in _nodes(nodes):
            _check_call(node, functions.get(_key(node)), where)


def _check_call(node: onnx.NodeProto, function: onnx.FunctionProto | None, where: str) -> None:
    if function is None:
        return
    for what, given, taken in (
        ("arguments", len(node.input), len(function.input)),
        ("results", len(node.output), len(function.output)),
    ):
        if given > taken:
            raise UserError(
                f"a call of the model-local function '{function.name}' has {given} {what}",
                where=f"{where}: node '{node.name or ', '.join(node.output)}'",
                why=f"the function has {taken}",
                hint="export the model again",
            )


def _key(node: onnx.NodeProto) -> _Key:
    return node.domain, node.op_type


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of all subgraphs."""
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    waiting.append(attribute.g.node)
                waiting.extend(g.node for g in attribute.graphs)
