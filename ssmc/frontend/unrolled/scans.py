"""A component of families as one `onnx.Scan`: its body is one step, what a step reads of earlier ones its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import networkx as nx
import numpy as np
from onnx import helper

from ssmc.frontend.unrolled.families import Family, Fixed, ForeignFamily, NodeFamily, Reading, Reference, StreamFamily
from ssmc.frontend.unrolled.rebuilding import Rebuilder
from ssmc.frontend.unrolled.survey import Survey
from ssmc.frontend.unrolled.unrolling import Unrolling
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array
from ssmc.ir.types import TensorType

UNTYPED = TensorType(None, "?")


@dataclass(eq=False, repr=False)
class History:
    """Earlier values of a family's result: `initial[k - 1]` is the one k steps before the first, None if not known."""

    family: Family
    index: int
    initial: list[Value | None]

    def accept(self, reading: Reading) -> bool:
        """Take a reading in if it agrees on the initial values."""
        wanted = list(reversed(reading.initial))
        known = self.initial[: len(wanted)]
        if any(a is not None and b is not None and a != b for a, b in zip(known, wanted, strict=False)):
            return False
        self.initial += [None] * (len(wanted) - len(self.initial))
        self.initial = [
            b if a is None and k < len(wanted) else a
            for k, (a, b) in enumerate(zip(self.initial, wanted + [None] * len(self.initial), strict=False))
        ]
        return True


@dataclass(frozen=True)
class Output:
    """A reading stacked along `axis`; `keep`: it has that axis already. `flipped`: the last step comes first."""

    reading: Reading
    axis: int
    keep: bool
    flipped: bool


@dataclass(eq=False, repr=False)
class Plan:
    """A Scan to be: families of one unrolling that are linked, and what is wanted of them.

    `outputs` are stacked along time; of the families in `lasts` the value at the last step is wanted.
    """

    unrolling: Unrolling
    linked: list[NodeFamily]
    outputs: list[Output] = field(default_factory=list)
    lasts: list[Family] = field(default_factory=list)
    families: list[NodeFamily] = field(default_factory=list)
    histories: list[History] = field(default_factory=list)
    streams: list[StreamFamily | ForeignFamily] = field(default_factory=list)
    captured: list[Value] = field(default_factory=list)
    start: dict[tuple[int, int], Array] = field(default_factory=dict)  # solved initial values by (history, k)
    body: Graph | None = None

    @property
    def survey(self) -> Survey:
        return self.unrolling.survey

    @property
    def states(self) -> list[tuple[int, int]]:
        """(history, k) of the states in order."""
        return [(h, k) for h, history in enumerate(self.histories) for k in range(1, len(history.initial) + 1)]

    def last_state(self, family: Family, index: int) -> int | None:
        """Which state holds, in the end, the family's value at the last step."""
        for number, (h, k) in enumerate(self.states):
            history = self.histories[h]
            if k == 1 and history.family is family and history.index == index:
                return number
        return None

    def want(self, output: Output) -> int:
        """The number of an output, which is added if it is new."""
        for number, known in enumerate(self.outputs):
            if known == output:
                return number
        self.outputs.append(output)
        return len(self.outputs) - 1

    def history(self, reading: Reading) -> History:
        """The history that a delayed reading is of; what the steps themselves compute is no initial value."""
        inside = set(self.linked)
        claims = {value for family in self.linked for value in family.claims.values()}
        known = tuple(
            None if v in claims or (v and any(f in inside for f, _, _ in self.unrolling.members(v))) else v
            for v in reading.initial
        )
        reading = replace(reading, initial=known)
        for history in self.histories:
            same = history.family is reading.family and history.index == reading.index
            if same and history.accept(reading):
                return history
        found = History(reading.family, reading.index, [])
        found.accept(reading)
        self.histories.append(found)
        return found

    def prepare(self) -> None:
        """Find out families, states, streams and captured values, from all that is wanted. Before `build`."""
        self.families = self._needed()
        self.histories, self.streams, self.captured = [], [], []
        for reference in self._references():
            if isinstance(reference, Fixed):
                if not self._is_constant(reference.value) and reference.value not in self.captured:
                    self.captured.append(reference.value)
                continue
            if reference.delay:
                self.history(reference)
            family = reference.family
            if isinstance(family, StreamFamily | ForeignFamily) and family not in self.streams:
                self.streams.append(family)

    def _needed(self) -> list[NodeFamily]:
        """The families that something wanted needs, all where nothing is wanted yet."""
        if not self.outputs and not self.lasts:
            return self.linked
        found: set[Family] = set()
        waiting = [*self.lasts, *(output.reading.family for output in self.outputs)]
        while waiting:
            family = waiting.pop()
            if family not in found and isinstance(family, NodeFamily):
                waiting += [operand.family for operand in family.operands if isinstance(operand, Reading)]
            found.add(family)
        return [family for family in self.linked if family in found]

    def _references(self) -> list[Reference]:
        inner = [operand for family in self.families for operand in family.operands if operand is not None]
        return [*inner, *(output.reading for output in self.outputs)]

    def _is_constant(self, value: Value) -> bool:
        arrays: list[Any] = [static.get(value) for static in self.survey.static]
        first = arrays[0]
        return first is not None and all(
            np.shape(a) == np.shape(first) and np.array_equal(a, first, equal_nan=True) for a in arrays
        )

    # -- the body ------------------------------------------------------------------------------------------

    def build(self) -> Graph:
        """The body. Raises ValueError where the families depend on each other in a circle at the same step."""
        graph = Graph("step")
        made: dict[tuple[Family, int], Value] = {}
        fixed: dict[Value, Value] = {}
        states = {}
        for h, k in self.states:
            states[h, k] = _input(graph, f"state{h}_{k}")
        inputs = [_input(graph, f"step{number}") for number in range(len(self.streams))]
        fixed.update((value, _input(graph, f"outer{number}")) for number, value in enumerate(self.captured))
        make = Rebuilder(graph, self.survey)
        for stream, value in zip(self.streams, inputs, strict=True):
            keep = isinstance(stream, StreamFamily) and stream.keep
            made[stream, 0] = make.unsqueeze(value, stream.axis) if keep else value  # type: ignore[union-attr]

        def resolve(reference: Reference | None) -> Value | None:
            if reference is None:
                return None
            if isinstance(reference, Fixed):
                if reference.value not in fixed:
                    fixed[reference.value] = make.constant(self.survey.array(reference.value))
                return fixed[reference.value]
            if reference.delay:
                return states[self.histories.index(self.history(reference)), reference.delay]
            return made[reference.family, reference.index]

        for family in self._ordered():
            sample = family.sample
            nodes = [node for node in family.nodes if node is not None]
            first = graph.add(
                sample.op,
                [resolve(operand) for operand in family.operands],
                name=sample.results[0].node,
                types=self.survey.graph.node(sample.results[0].node).types,
                provenance=dict.fromkeys((*nodes[0].provenance, *nodes[-1].provenance)),  # type: ignore[arg-type]
            )
            for index in range(len(sample.results)):
                made[family, index] = Value(first.node, index)
        results = []
        for h, k in self.states:
            history = self.histories[h]
            results.append(made[history.family, history.index] if k == 1 else states[h, k - 1])
        for output in self.outputs:
            found = resolve(output.reading)
            assert found is not None
            results.append(make.squeeze(found, output.axis) if output.keep else found)
        for number, value in enumerate(results):
            graph.add("output", [value], {"name": f"result{number}"})
        self.body = graph
        return graph

    def _ordered(self) -> list[NodeFamily]:
        links: nx.DiGraph[NodeFamily] = nx.DiGraph()
        links.add_nodes_from(self.families)
        for family in self.families:
            for operand in family.operands:
                if isinstance(operand, Reading) and operand.delay == 0 and isinstance(operand.family, NodeFamily):
                    links.add_edge(operand.family, family)
        try:
            return list(nx.lexicographical_topological_sort(links, key=lambda f: f.sample.position))
        except nx.NetworkXUnfeasible as error:
            raise ValueError("steps depend on each other in a circle") from error

    # -- the node ------------------------------------------------------------------------------------------

    def emit(self, make: Rebuilder, foreign: Sequence[Value]) -> tuple[Value, dict[tuple[int, int], Value]]:
        """Add the Scan to the graph; `foreign` are the streams that other Scans give, in order.

        Returns its first result and the initial values that were made up (zeros, or the solved ones), by state.
        """
        assert self.body is not None
        initial, made_up = self._initial(make)
        sequences, axes, directions = self._sequences(make, foreign)
        outer = [make.outer(value) for value in self.captured]
        results = len(self.states) + len(self.outputs)
        stacked: dict[str, Any] = {
            "scan_output_axes": [output.axis for output in self.outputs],
            "scan_output_directions": [int(output.flipped) for output in self.outputs],
        }
        node = helper.make_node(
            "Scan",
            [str(v) for v in (*initial, *sequences)],
            [f"result{i}" for i in range(results)],
            num_scan_inputs=len(sequences),
            scan_input_axes=axes,
            scan_input_directions=directions,
            **(stacked if self.outputs else {}),
        )
        attrs = {
            "node": node,
            "version": max(make.opset, 9),
            "opset": max(make.opset, 9),
            "regions": {"body": self.body},
            "captured": len(outer),
            "disguise": "unrolled steps",
        }
        provenance: dict[str, None] = {}
        for family in self.families:
            provenance.update(dict.fromkeys(family.sample.provenance))
        first = make.graph.add(
            "onnx.Scan",
            [*initial, *sequences, *outer],
            attrs,
            types=(UNTYPED,) * results,
            provenance=tuple(provenance),
        )
        return first, made_up

    def _initial(self, make: Rebuilder) -> tuple[list[Value], dict[tuple[int, int], Value]]:
        """What the states start from, and what of it was made up."""
        initial: list[Value] = []
        made_up: dict[tuple[int, int], Value] = {}
        for h, k in self.states:
            history = self.histories[h]
            given = history.initial[k - 1]
            if given is None:
                made_up[h, k] = make.filled(self.state_shapes(history), self.start.get((h, k)), self._kind(history))
            initial.append(made_up[h, k] if given is None else make.outer(given))
        return initial, made_up

    def _sequences(self, make: Rebuilder, foreign: Sequence[Value]) -> tuple[list[Value], list[int], list[int]]:
        """What is read step by step: the whole of it, its time axis, and whether it is read backwards."""
        found: list[tuple[Value, int, int]] = []
        others = iter(foreign)
        for stream in self.streams:
            if isinstance(stream, ForeignFamily):
                found.append((next(others), 0, int(self.unrolling.backward)))
                continue
            size = self.survey.shape(stream.stream)[stream.axis]
            whole = make.taken(stream.stream, stream.axis, stream.start, stream.stride, stream.steps, size)
            found.append((whole, stream.axis, int(stream.stride < 0)))
        return [f[0] for f in found], [f[1] for f in found], [f[2] for f in found]

    def state_shapes(self, history: History) -> list[tuple[int, ...]]:
        """Shape of a state at every sample point."""
        family = history.family
        if isinstance(family, NodeFamily):
            value = family.sample.results[history.index]
            return [shapes[value] for shapes in self.survey.shapes]
        if isinstance(family, ForeignFamily):
            assert family.source is not None
            return self.state_shapes(History(family.source.family, family.source.index, []))
        assert isinstance(family, StreamFamily)
        found = []
        for shapes in self.survey.shapes:
            whole = shapes[family.stream]
            found.append((*whole[: family.axis], *((1,) if family.keep else ()), *whole[family.axis + 1 :]))
        return found

    def _kind(self, history: History) -> Any:
        family = history.family
        if isinstance(family, NodeFamily) and family.sample.results[history.index] in self.survey.boolean:
            return np.bool_
        return np.float64


def _input(graph: Graph, name: str) -> Value:
    return graph.add("input", [], {"name": name, "type": UNTYPED}, name=name)
