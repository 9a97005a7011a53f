"""The graph of a model and its meaning."""

from ssmc.ir.graph import Graph, Node, Place, Value
from ssmc.ir.interpreter import interpret
from ssmc.ir.op import Attribute, Op, OpSpec
from ssmc.ir.ops.tile import Piece
from ssmc.ir.table import spec_of, table
from ssmc.ir.tensor import Quantization, Tensor
from ssmc.ir.types import ConstantType, SequenceType, StreamType, TensorType, ValueType, show_type

__all__ = [
    "Attribute",
    "ConstantType",
    "Graph",
    "Node",
    "Op",
    "OpSpec",
    "Piece",
    "Place",
    "Quantization",
    "SequenceType",
    "StreamType",
    "Tensor",
    "TensorType",
    "Value",
    "ValueType",
    "interpret",
    "show_type",
    "spec_of",
    "table",
]
