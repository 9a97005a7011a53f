"""The text form of a graph: like MLIR, one line a node, in stable order. `ssmc.ir.parse` reads it back.

    graph @model {form = "sequence"} {
      %u = input() {name = "u", type = stream<4>, axes = "btf"} : stream<4>
      %ssm, %ssm:1 = ssm(%u) {system = statespace<A = ...>} : stream<4>, sequence<2> loc("Scan_3")
      %y = output(%ssm) {name = "y", axes = "btf"} : stream<4>
    }

Attributes that hold their default are left out. A large or quantised tensor stands as its content hash,
`tensor<64x64 f64 #0123456789abcdef>`; `constants` gathers what the hashes stand for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ssmc.ir.graph import Graph, Node, Place
from ssmc.ir.op import Attribute
from ssmc.ir.ops.tile import Piece
from ssmc.ir.table import spec_of
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import ConstantType, SequenceType, StreamType, TensorType, show_type
from ssmc.statespace import StateSpace

INLINE_ELEMENTS = 8
INLINE_PROTO = 160  # characters
DTYPES = {"f": "f64", "c": "c128", "i": "i64", "b": "bool"}
UNPLACED = Piece(0, 0, 0, 0)


def print_graph(graph: Graph, indent: str = "") -> str:
    """The canonical text of `graph`. Also prints graphs that are not well formed, to show what is wrong."""
    inner = indent + "  "
    head = f"{indent}graph @{json.dumps(graph.name)}" if not _plain(graph.name) else f"{indent}graph @{graph.name}"
    head += f" {show(graph.attributes)}" if graph.attributes else ""
    lines = [inner + _node_line(graph, graph.node(name), inner) for name in _order(graph)]
    return "\n".join([head + " {", *lines, indent + "}"])


def constants(graph: Graph) -> dict[str, Any]:
    """What the hashes in the text of `graph` stand for: tensors and ONNX node prototypes by digest."""
    found: dict[str, Any] = {}
    for name in graph.net:
        for value in graph.op(name).attrs.values():
            for part in _parts(value):
                if isinstance(part, Tensor) and not _is_inline(part):
                    found[part.digest] = part
                elif _is_proto(part) and _inline_proto(part) is None:
                    found[proto_digest(part)] = part
    return found


def show(value: Any, indent: str = "") -> str:
    """The text form of one attribute value. Raises TypeError for a kind of value that has none."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value)
        case int():
            return str(int(value))
        case float():
            return repr(float(value))
        case complex():
            return f"{value.real!r}{value.imag:+}j"
        case Tensor():
            return _show_tensor(value)
        case np.ndarray():
            return _show_tensor(Tensor(value))
        case Piece():
            return _show_piece(value)
        case StateSpace():
            return _show_system(value)
        case StreamType() | SequenceType() | ConstantType() | TensorType():
            return show_type(value)
        case Graph():
            return "\n" + print_graph(value, indent + "    ")
        case tuple():
            return "(" + ", ".join(show(item, indent) for item in value) + (",)" if len(value) == 1 else ")")
        case list():
            return "[" + ", ".join(show(item, indent) for item in value) + "]"
        case Mapping():
            pairs = (f"{key if _plain(key) else json.dumps(key)} = {show(v, indent)}" for key, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        case np.generic():
            return show(value.item(), indent)
    if _is_proto(value):
        return _show_proto(value)
    raise TypeError(f"a {type(value).__name__} has no text form")


def proto_digest(proto: Any) -> str:
    """Content hash of an ONNX node prototype."""
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()[:16]


def _order(graph: Graph) -> list[str]:
    try:
        return graph.order()
    except ValueError:  # a cycle: show the nodes as they were added
        return graph.oldest_first(graph.net)


def _node_line(graph: Graph, node: Node, indent: str) -> str:
    results = ", ".join(str(value) for value in graph.results(node.name))
    operands = ", ".join("_" if value is None else str(value) for value in graph.operands(node.name))
    attrs = show({name: node.op.attrs[name] for name in _told(node)}, indent)
    parts = [
        f"{results} = {node.op.name}({operands})",
        attrs if attrs != "{}" else "",
        ": " + ", ".join(map(show_type, node.types)),
        "" if node.place is None else _show_place(node.place),
        "" if not node.provenance else f"loc({', '.join(map(json.dumps, node.provenance))})",
    ]
    return " ".join(part for part in parts if part)


def _told(node: Node) -> list[str]:
    """The attributes that the text tells: those that do not hold their default."""
    try:
        declared = {attribute.name: attribute for attribute in spec_of(node.op.name).attributes}
    except KeyError:
        declared = {}
    return [name for name, value in node.op.attrs.items() if not _is_default(declared.get(name), value)]


def _is_default(attribute: Attribute | None, value: Any) -> bool:
    if attribute is None or type(value) is not type(attribute.default):
        return False
    return bool(value == attribute.default)


def _show_place(place: Place) -> str:
    return f"place({place.unit}, {place.order}, {place.phase})"


def _show_piece(piece: Piece) -> str:
    text = f"{piece.k0}:{piece.k1}, {piece.n0}:{piece.n1}"
    if (piece.unit, piece.row, piece.col) != (UNPLACED.unit, UNPLACED.row, UNPLACED.col):
        text += f" @{piece.unit}[{piece.row}, {piece.col}]"
    return f"piece<{text}>"


def _show_system(system: StateSpace) -> str:
    told = []
    for field in fields(system):
        value = getattr(system, field.name)
        if isinstance(value, np.ndarray) or value is not field.default:
            told.append(f"{field.name} = {show(value)}")
    return f"statespace<{', '.join(told)}>"


def _show_tensor(tensor: Tensor) -> str:
    head = f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {DTYPES[tensor.array.dtype.kind]}"
    if tensor.quantization is not None:
        head += f" q{tensor.quantization.bits}"
    if not _is_inline(tensor):
        return f"tensor<{head} #{tensor.digest}>"
    return f"tensor<{head} [{', '.join(show(number) for number in tensor.array.ravel().tolist())}]>"


def _is_inline(tensor: Tensor) -> bool:
    finite = tensor.array.dtype.kind in "ib" or bool(np.isfinite(tensor.array).all())
    return tensor.array.size <= INLINE_ELEMENTS and tensor.quantization is None and finite


def _show_proto(proto: Any) -> str:
    text = _inline_proto(proto)
    return f"node<{proto.op_type} #{proto_digest(proto)}>" if text is None else f"node<{json.dumps(text)}>"


def _inline_proto(proto: Any) -> str | None:
    """The prototype in protobuf's own text form where that is short, else None."""
    from google.protobuf.text_format import MessageToString

    if proto.ByteSize() > INLINE_PROTO:
        return None
    text = str(MessageToString(proto, as_one_line=True))
    return text if len(text) <= INLINE_PROTO else None


def _is_proto(value: Any) -> bool:
    return hasattr(value, "SerializeToString") and hasattr(value, "op_type")


def _parts(value: Any) -> Iterator[Any]:
    """The values that stand in an attribute value, nested ones included."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _parts(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _parts(item)
    elif isinstance(value, StateSpace):
        arrays = (getattr(value, field.name) for field in fields(value))
        yield from (Tensor(array) for array in arrays if isinstance(array, np.ndarray))
    elif isinstance(value, Graph):
        yield from constants(value).values()
    else:
        yield value


def _plain(name: str) -> bool:
    return bool(name) and (name[0].isalpha() or name[0] == "_") and all(c.isalnum() or c in "_." for c in name)
