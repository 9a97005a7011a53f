"""ONNX nodes as ops, one to one: `onnx.Add` and so on, with the reference implementation as their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.ir.op import Array, Attribute, Op, OpSpec
from ssmc.ir.types import ValueType

PREFIX = "onnx."


def _given(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    raise ValueError("the types of an ONNX node are given by the importer")


def _evaluate(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    """One node by onnx.reference, in the precision of its operands. Raises ValueError where it has no rule."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.ops import load_op

    node = op["node"]
    try:
        rule = load_op(node.domain, node.op_type, op["version"])
    except Exception as error:
        raise ValueError(f"no reference implementation of {node.domain}::{node.op_type}") from error
    run_params = {
        "log": lambda *args, **kwargs: None,
        "opsets": {node.domain: op["version"], "": op["opset"]},
        "verbose": 0,
        "new_ops": None,
        "evaluator_cls": ReferenceEvaluator,
        "existing_functions": {},
    }
    with np.errstate(all="ignore"):
        results = rule(node, run_params).run(*arrays)
    return tuple(results)


SPEC = OpSpec(
    PREFIX + "*",
    "onnx",
    ("x*",),
    ("y*",),
    (
        Attribute("node", object, "the NodeProto, its floating-point attributes and subgraphs in float64"),
        Attribute("version", int, "the opset version of its domain"),
        Attribute("opset", int, "the opset version of the default domain", 20),
        Attribute(
            "regions",
            dict,
            "subgraphs by attribute name, as Graphs; captured values are trailing operands",
            {},
        ),
        Attribute("captured", int, "how many trailing operands the subgraphs capture", 0),
        Attribute("disguise", str, "how the file says it, where the node was made from others", ""),
    ),
    _given,
    _evaluate,
    "A node of the ONNX file.",
)


def is_onnx(op: Op, *kinds: str) -> bool:
    """Is this an ONNX node (of one of the given types)?"""
    return op.name.startswith(PREFIX) and (not kinds or op.name.removeprefix(PREFIX) in kinds)
