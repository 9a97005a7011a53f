"""One reading of a file, translated: what every reading has, from its inputs to its outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ssmc.diagnostics import UserError
from ssmc.frontend.attempts.source import Source
from ssmc.frontend.findings import Findings
from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow
from ssmc.frontend.loops.chunks import over_chunks
from ssmc.frontend.loops.control import CONTROL_RULES
from ssmc.frontend.loops.positions import Tables
from ssmc.frontend.loops.ticks import apply_tick
from ssmc.frontend.mixing.explain import explain
from ssmc.frontend.mixing.mixing import explain_region
from ssmc.frontend.mixing.polynomial import is_made_of_scores, is_of_scores
from ssmc.frontend.model import Proof
from ssmc.frontend.source.effort import Probing
from ssmc.frontend.source.interface import sample_points, with_time
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.source.samples import Samples
from ssmc.frontend.translator import Meanings, Translator
from ssmc.interface import Port
from ssmc.ir.graph import Graph, Value
from ssmc.ir.types import FlowType, SequenceType, StreamType

MEANINGS = Meanings(CONTROL_RULES, explain, explain_region, apply_tick, over_chunks, is_of_scores, is_made_of_scores)


@dataclass(eq=False)
class Attempt:
    """One reading of the file, translated: what it has found, or why it does not hold."""

    form: str
    graph: Graph
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    states: dict[str, str] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    notes: tuple[str, ...] = ()
    proofs: list[Proof] = field(default_factory=list)
    failure: UserError | None = None
    tables: Tables = field(default_factory=Tables)


def begin_translation(source: Source, listing: Listing, in_step: bool) -> Translator:
    """What translates the calls of a listing into a new graph, at the sizes that are studied."""
    samples = Samples(listing, sample_points(listing, source.shapes, source.types))
    findings, dynamic = Findings(source.tolerance), source.is_dynamic()[1]
    given = listing, Builder(Graph("model")), samples, findings, MEANINGS, in_step
    return Translator(*given, dynamic=dynamic, probing=Probing(len(listing.calls)))


def add_input(source: Source, translator: Translator, name: str, axes: str, user_axes: str, role: str) -> Port:
    """The input `name` of the graph, and the flow that stands for it: `axes` (letters b, t, f) are those that it has in
    the file, `user_axes` those that a user gives."""
    kind, shape = source.types[name], source.shapes[name]
    element = "real" if kind.dtype.startswith(("float", "double", "bfloat")) else "index"
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    flow: FlowType = (StreamType if "t" in user_axes else SequenceType)(features, element)  # type: ignore[arg-type]
    attrs = {"name": name, "type": flow, "axes": user_axes, "role": role}
    value = translator.builder.graph.add("input", [], attrs, name=name)
    translator.env[source.listing.inputs[name]] = Flow(value, axes, shape)
    return Port(name, user_axes, tuple(kind.shape or ()), kind.dtype, role, flow)


def add_output(
    source: Source, attempt: Attempt, builder: Builder, name: str, flow: Flow, state: bool, like: Value | None
) -> Port:
    """The output `name` of the graph, in the axes a user gets; of one step, what is no stream becomes one as `like`."""
    value, axes, role = flow.value, flow.axes, "state" if state else "data"
    if attempt.form == "step":
        if not state and like is not None:
            value = builder.stream(value, like)
        axes = axes if "b" in axes else "b" + axes if state else axes
        axes = axes if state else with_time(axes)
    kind: Any = attempt.graph.type(value)
    attempt.graph.add("output", [value], {"name": name, "axes": axes, "role": role}, name=name)
    declared: Any = next(node.types[0] for node in source.graph.outputs() if node.op["name"] == name)
    return Port(name, axes, declared.shape or flow.shape, declared.dtype, role, kind)
