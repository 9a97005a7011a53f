"""Nodes added to a listing, in the order of its calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import helper

from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value
from ssmc.ir.op import Op


@dataclass(frozen=True, eq=False)
class Maker:
    """Adds nodes behind those that a listing has; `like` says where a new one comes from."""

    listing: Listing

    def add(self, call: Call) -> None:
        placed = replace(call, position=len(self.listing.calls))
        self.listing.calls.append(placed)
        self.listing.producer.update(dict.fromkeys(placed.results, placed))

    def node(
        self, like: Call, kind: str, operands: Sequence[Value], result: Value | None = None, **attrs: Any
    ) -> Value:
        node = helper.make_node(kind, [str(k) for k in range(len(operands))], ["result"], **attrs)
        op = Op(f"onnx.{kind}", {"node": node, "version": 13, "opset": 20, "regions": {}, "captured": 0})
        made = result or Value(f"{like.results[0].node}.part{len(self.listing.calls)}")
        self.add(Call(kind, op, tuple(operands), (made,), like.provenance, 0, like.dtypes))
        return made

    def numbers(self, like: Call, *numbers: int) -> Value:
        """A constant list of numbers."""
        return self.constant(like, np.asarray(numbers, np.int64))

    def constant(self, like: Call, array: Any) -> Value:
        name = Value(f"{like.results[0].node}.places{len(self.listing.constants)}")
        self.listing.constants[name] = array
        return name
