"""Is each node what its op may be in the ONNX standard? Its operands, results and attributes, before anything is run.

Of a node that is not, onnxruntime says little at best, and at worst ends the process. What an op was allowed in another
opset is taken for what it was there, as rules and reference take it: axes are attributes here and operands there. Ops
of other domains, and files of opsets newer than those known here, are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import onnx
from onnx import AttributeProto, defs

from ssmc.diagnostics import UserError, near

HINT = "the file is damaged, or was exported wrongly; export it again, and check it there"
OPTION = defs.OpSchema.FormalParameterOption
KINDS = {
    "FLOAT": "a number",
    "INT": "a whole number",
    "STRING": "a word",
    "TENSOR": "a tensor",
    "GRAPH": "a graph",
    "FLOATS": "a row of numbers",
    "INTS": "a row of whole numbers",
    "STRINGS": "a row of words",
}


@dataclass(frozen=True)
class Form:
    """What nodes of an op have: the operands that are `needed` by name ("" for those that may be left out), the name of
    those that follow in any number, the most operands and results, attributes with their types."""

    needed: tuple[str, ...]
    rest: str
    operands: int
    results: int
    attributes: Mapping[str, str]
    required: tuple[str, ...]


def check_forms(graphs: Iterable[onnx.GraphProto], opsets: Mapping[str, int]) -> None:
    """Raise UserError for the first node that the standard, at the file's opset, does not allow; or a fused one that is
    given a weight without numbers, on which onnxruntime ends the process."""
    version, graphs = opsets.get("", 1), list(graphs)
    for graph in graphs:
        none = {weight.name for weight in graph.initializer if 0 in weight.dims}
        for node in graph.node if none else ():
            if node.domain == "com.microsoft" and (given := none.intersection(node.input)):
                what = f"'{node.op_type}' is given '{min(given)}', a weight without any number"
                raise UserError(what, node=name_of(node), hint=HINT)
    if version > defs.onnx_opset_version():
        return
    for graph in graphs:
        for node in graph.node:
            form = _form(node.op_type, version) if node.domain in ("", "ai.onnx") else None
            told = None if form is None else next(_wrong(node, form), None)
            if told is not None:
                raise UserError(told, node=name_of(node), why=f"ONNX has no such node in opset {version}", hint=HINT)


def name_of(node: onnx.NodeProto) -> str:
    """What to call a node when speaking to the user: its name, or its op and first output."""
    return node.name or f"{node.op_type}({node.output[0] if node.output else ''})"


@lru_cache(maxsize=1024)
def _form(kind: str, version: int) -> Form | None:
    own = _schema(kind, version)
    if own is None:
        return None
    every = [s for v in range(1, defs.onnx_opset_version() + 1) if (s := _schema(kind, v)) is not None]
    rest = next((p.name for p in own.inputs if p.option == OPTION.Variadic and p.is_homogeneous), "")
    least = min(s.min_input for s in every)
    needed = [p.name if p.option == OPTION.Single else "" for p in own.inputs if p.option != OPTION.Variadic][:least]
    needed += [rest] * (least - len(needed))
    return Form(
        tuple(needed),
        rest,
        max(s.max_input for s in every),
        max(s.max_output for s in every),
        {name: str(a.type).rpartition(".")[2] for s in (*every, own) for name, a in s.attributes.items()},
        tuple(sorted(name for name, a in own.attributes.items() if a.required)),
    )


def _schema(kind: str, version: int) -> defs.OpSchema | None:
    try:
        return defs.get_schema(kind, version, "")
    except defs.SchemaError:
        return None


def _wrong(node: onnx.NodeProto, form: Form) -> Iterator[str]:
    kind, operands, results = node.op_type, node.input, node.output
    if len(operands) > form.operands:
        yield f"'{kind}' has {len(operands)} operands (at most {form.operands})"
    if len(results) > form.results:
        yield f"'{kind}' has {len(results)} results (at most {form.results})"
    for k, name in enumerate([*form.needed, *[form.rest] * (len(operands) - len(form.needed))]):
        if name and (k >= len(operands) or not operands[k]):
            yield f"'{kind}' lacks its operand {k + 1}, '{name}'"
    seen = set[str]()
    for attribute in node.attribute:
        name = attribute.name
        if name in seen:
            yield f"'{kind}' has the attribute '{name}' twice"
        seen.add(name)
        wanted = form.attributes.get(name)
        if wanted is None:
            if not name.startswith("__"):  # where tools keep notes
                yield f"'{kind}' has no attribute '{name}'" + (f"; {n}" if (n := near(name, form.attributes)) else "")
        elif attribute.type and not attribute.ref_attr_name:  # the first versions of the format have no types
            given = AttributeProto.AttributeType.Name(attribute.type)
            if given != wanted:
                told = KINDS.get(given, given), KINDS.get(wanted, wanted)
                yield f"the attribute '{name}' of '{kind}' is {told[0]}, not {told[1]}"
    for name in form.required:
        if name not in seen:
            yield f"'{kind}' lacks the attribute '{name}'"
