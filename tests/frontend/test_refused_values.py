"""A value that was refused is nothing that a rule could read: whoever is given one says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend.findings import Findings
from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Known, Raw, Refused, Tracked, Unsupported
from ssmc.frontend.reasons import Reason
from ssmc.frontend.rules.lengths import as_length
from ssmc.frontend.rules.spans import spelled_out
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.source.proto import ModelFile
from ssmc.frontend.source.samples import Samples
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Graph
from tests.frontend.net import Net

NOTHING: Any = None


def translator(net: Net, y: str, *items: Tracked) -> Translator:
    """Of a model whose inputs are these."""
    listing = list_calls(import_model(ModelFile(net.model([(y, [None])]), {}), "a test"))
    given = dict(zip(listing.inputs.values(), items, strict=True))
    point = {value: np.ones((2, 3, 4)) for value in listing.inputs.values()}
    samples, builder = Samples(listing, [point]), Builder(Graph())
    return Translator(listing, builder, samples, Findings(), NOTHING, env=dict(given))


@pytest.mark.parametrize("kind", ["Add", "MatMul", "Concat", "GatherElements", "Where", "Reshape", "Slice", "Einsum"])
def test_a_rule_is_not_given_what_was_refused(kind: str) -> None:
    net = Net()
    attrs: dict[str, Any] = {"Concat": {"axis": 1}, "Einsum": {"equation": "abc,abc->ac"}}.get(kind, {})
    y = net.op(kind, *(net.input([2, 3, 4]) for _ in range(3 if kind in ("Where", "Slice") else 2)), **attrs)
    count = len(net.inputs)
    for refused in range(count):
        items: list[Tracked] = [Refused() if k == refused else Raw(Reason("it mixes time")) for k in range(count)]
        walk = translator(net, y, *items)
        (call,) = walk.listing.calls
        with pytest.raises(Unsupported):
            walk.apply(call, items)
        with pytest.raises(Unsupported):
            spelled_out(walk, call)
        with pytest.raises(Unsupported):  # nor what is not known yet, as an operand that is absent
            walk.apply(call, [None if isinstance(item, Refused) else item for item in items])


def test_a_length_looked_up_by_what_was_refused_is_none() -> None:
    net = Net()
    x, place = net.input([2, 3, 4]), net.input([1], TensorProto.INT64)
    y = net.op("Gather", net.op("Shape", x), place, axis=0)
    walk = translator(net, y, Raw(Reason("it mixes time")), Refused())
    walk.env[walk.listing.outputs[y]] = Known(np.asarray([3]))
    assert as_length(walk, walk.listing.outputs[y]) is None
