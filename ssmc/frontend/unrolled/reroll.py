"""Loops that an exporter unrolled step by step become `onnx.Scan` nodes again, by structure alone.

Values that are joined along time, or are left at the last step, are followed backwards over all steps at once
(`families`). What is the same at every step becomes the body of a Scan, what a step reads of earlier ones its states.
The rewritten graph is run beside the original, in float64; a loop that does not give the same numbers stays unrolled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.collection import without_collection
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Listing, list_calls
from ssmc.frontend.unrolled.attempt import Attempt
from ssmc.frontend.unrolled.failures import close_failures
from ssmc.frontend.unrolled.families import Family, ForeignFamily, NodeFamily, Reading, StreamFamily
from ssmc.frontend.unrolled.initial import solve_initial
from ssmc.frontend.unrolled.rebuilding import Rebuilder, renewable
from ssmc.frontend.unrolled.retiming import retime
from ssmc.frontend.unrolled.scans import Output, Plan
from ssmc.frontend.unrolled.seeds import Search, Seed
from ssmc.frontend.unrolled.survey import Survey
from ssmc.frontend.unrolled.surveying import survey
from ssmc.frontend.unrolled.unrolling import Unrolling
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array

LINEAR = frozenset(
    ["Cast", "Concat", "Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"]
) | frozenset(
    [
        "Add",
        "Sub",
        "Sum",
        "Mul",
        "Div",
        "Neg",
        "MatMul",
        "Gemm",
        "Einsum",
        "Slice",
        "Gather",
        "Split",
        "Pad",
        "ReduceSum",
    ]
)  # what is made of these alone is found by probing
TOLERANCE = 1e-6  # what exporters fold of the first steps is rounded to float32


@without_collection()
def reroll(graph: Graph, listing: Listing) -> Graph:
    """A graph of `onnx.*` ops with its unrolled loops as Scan nodes; the graph itself where there are none.

    `listing` is the flat view of `graph`.
    """
    try:
        found = survey(graph, listing)
    except UserError:
        return graph  # it does not run at the sizes it declares: what comes next says so
    if found is None:
        return graph
    search = Search(found)
    search.run()
    rolling = _Rolling(found, search)
    rolling.find_plans()
    return rolling.rewrite()


@dataclass(eq=False, repr=False)
class _Rolling:
    survey: Survey
    search: Search
    plans: list[Plan] = field(default_factory=list)
    plan_of: dict[Family, Plan] = field(default_factory=dict)
    seeds: dict[Value, Seed] = field(default_factory=dict)

    # -- which families make a loop ------------------------------------------------------------------------

    def find_plans(self) -> None:
        """Linked families without failures that read an earlier step, each group a plan."""
        unrollings = list(self.search.unrollings.values())
        failed = close_failures(unrollings)
        for unrolling in unrollings:
            links: nx.Graph[NodeFamily] = nx.Graph()
            for family in unrolling.families:
                if isinstance(family, NodeFamily) and family not in failed:
                    links.add_node(family)
                    links.add_edges_from(
                        (family, operand.family)
                        for operand in family.operands
                        if isinstance(operand, Reading) and isinstance(operand.family, NodeFamily)
                    )
            for group in nx.connected_components(links):
                self._add_plan(unrolling, [family for family in unrolling.families if family in group])
        for seed in self.search.seeds:
            if seed.reading.family in self.plan_of:
                self.seeds[seed.join.value] = seed

    def _add_plan(self, unrolling: Unrolling, families: Sequence[Any]) -> None:
        own = set(families)
        wanted = [seed.reading for seed in self.search.seeds if seed.unrolling is unrolling]
        for other in self.search.unrollings.values():
            wanted += [f.source for f in other.families if isinstance(f, ForeignFamily) and f.source is not None]
        wanted = [reading for reading in wanted if reading.family in own]
        inner = [operand for family in families for operand in family.operands]
        looks_back = any(isinstance(reading, Reading) and reading.delay for reading in (*inner, *wanted))
        if not looks_back and not (wanted and _works(self.survey, families)):
            return  # not a loop
        linked = list(families)
        retime(linked, wanted, self.survey)
        plan = Plan(unrolling, linked)
        self.plans.append(plan)
        self.plan_of.update((family, plan) for family in linked)

    def _discard(self, plan: Plan) -> None:
        """Give a plan up, and those that read what it gives."""
        if plan not in self.plans:
            return
        self.plans.remove(plan)
        self.plan_of = {family: other for family, other in self.plan_of.items() if other is not plan}
        self.seeds = {value: seed for value, seed in self.seeds.items() if seed.reading.family in self.plan_of}
        for other in list(self.plans):
            if any(f.source is not None and f.source.family not in self.plan_of for f in _foreign(other)):
                self._discard(other)

    # -- what is wanted of them ----------------------------------------------------------------------------

    def _demand(self) -> tuple[list[tuple[Value, Plan, int | None]], set[Value]]:
        """Values of the surveyed graph that a plan is to replace: (value, plan, output), or its last state for None.

        Walks backwards from the outputs of the model, through the loops. Also returns the values met on the way, all
        that the new graph needs of the old one.
        """
        survey, replaced = self.survey, []
        for plan in self.plans:
            plan.outputs, plan.lasts = [], []
            plan.prepare()
        entered: set[Plan] = set()
        seen: set[Value] = set()
        waiting = list(survey.listing.outputs.values())
        while waiting:
            value = waiting.pop()
            if value in seen:
                continue
            seen.add(value)
            found = self._replacement(survey.canon[value])
            if found is None:
                call = survey.listing.producer.get(value)
                waiting += [v for v in (() if call is None else call.operands) if v is not None]
                continue
            replaced.append((value, *found))
            waiting += self._enter(found[0], entered)
        self.plans = [plan for plan in self.plans if plan in entered]
        return replaced, seen

    def _enter(self, plan: Plan, entered: set[Plan]) -> list[Value]:
        """What a plan, and those that it depends on, read of the surveyed graph."""
        entered.add(plan)
        plan.prepare()
        reads = [v for v in self._reads(plan) if not renewable(self.survey, v)]
        for family in _foreign(plan):
            assert family.source is not None
            source = self.plan_of[family.source.family]
            known = len(source.outputs)
            source.want(Output(family.source, 0, False, source.unrolling.backward))
            if source not in entered or len(source.outputs) > known:
                reads += self._enter(source, entered)
        return reads

    def _reads(self, plan: Plan) -> list[Value]:
        initial = [v for history in plan.histories for v in history.initial if v is not None]
        return [*initial, *plan.captured, *(f.stream for f in plan.streams if not isinstance(f, ForeignFamily))]

    def _replacement(self, value: Value) -> tuple[Plan, int | None] | None:
        """The plan that gives a value, and which of its outputs does."""
        seed = self.seeds.get(value)
        if seed is not None:
            plan = self.plan_of[seed.reading.family]
            flipped = seed.flipped
            return plan, plan.want(Output(seed.reading, seed.join.axis, seed.join.keep, flipped))
        for unrolling in self.search.unrollings.values():
            for family, index, step in unrolling.members(value):
                plan_here = self.plan_of.get(family)
                if plan_here is None:
                    continue
                if step == unrolling.length - 1 and plan_here.last_state(family, index) is not None:
                    plan_here.lasts.append(family)
                    return plan_here, None
                return plan_here, plan_here.want(Output(Reading(family, index), 0, False, unrolling.backward))
        return None

    # -- the new graph -------------------------------------------------------------------------------------

    def rewrite(self) -> Graph:
        """The graph with the loops that prove right."""
        while self.plans:
            attempt = self._assemble()
            if attempt is None:
                continue
            wrong = self._wrong(attempt)
            if not wrong:
                return attempt.graph
            for plan in wrong:
                solved = None if plan.start else solve_initial(plan, attempt)
                if solved is None:
                    self._discard(plan)
                else:
                    plan.start = solved
        return self.survey.graph

    def _assemble(self) -> Attempt | None:
        """The graph with all plans as Scans; None where a plan had to be given up on the way."""
        replaced, alive = self._demand()
        order: nx.DiGraph[Plan] = nx.DiGraph()
        order.add_nodes_from(self.plans)
        for plan in self.plans:
            order.add_edges_from((self.plan_of[f.source.family], plan) for f in _foreign(plan) if f.source is not None)
        if not nx.is_directed_acyclic_graph(order):
            self._discard(next(iter(nx.find_cycle(order)))[0])
            return None
        graph = self._part(alive)
        make = Rebuilder(graph, self.survey)
        attempt = Attempt(graph)
        for plan in nx.topological_sort(order):
            try:
                plan.build()
                streams = [self._foreign_stream(attempt, family) for family in _foreign(plan)]
                attempt.scans[plan], attempt.made_up[plan] = plan.emit(make, streams)
            except ValueError:
                self._discard(plan)
                return None
        for value, plan, number in replaced:
            seed = self.seeds.get(self.survey.canon[value])
            attempt.replace(make, self.survey, value, plan, number, seed is not None and seed.join.added)
        try:
            graph.prune()
            attempt.listing = list_calls(graph)
        except ValueError:  # a loop that needs its own result
            self._discard(self.plans[-1])
            return None
        return attempt

    def _part(self, alive: set[Value]) -> Graph:
        """A graph of the nodes that are still needed."""
        whole = self.survey.graph
        names = {value.node for value in alive}
        names |= {name for name in whole.net if whole.op(name).name in ("input", "output")}
        return whole.part(names)

    def _foreign_stream(self, attempt: Attempt, family: ForeignFamily) -> Value:
        assert family.source is not None
        source = self.plan_of[family.source.family]
        number = source.want(Output(family.source, 0, False, source.unrolling.backward))
        return attempt.output(source, number)

    def _wrong(self, attempt: Attempt) -> list[Plan]:
        """Plans whose values differ from those of the unrolled nodes."""
        wrong: dict[Plan, None] = {}
        for point, seen in zip(self.survey.points, self.survey.seen, strict=True):
            old = evaluate(self.survey.listing, {**point, **seen}, [value for value, _, _ in attempt.replaced])
            try:
                new = evaluate(attempt.listing, point, [value for _, value, _ in attempt.replaced])
            except UserError:
                return self._broken(attempt, point)
            for before, after, plan in attempt.replaced:
                if not _close(new[after], old[before]):
                    wrong[plan] = None
        # a loop that reads what a wrong one gives may be right: only the first one is certain
        return sorted(wrong, key=_place)[:1]

    def _broken(self, attempt: Attempt, point: Any) -> list[Plan]:
        """The first plan whose Scan does not run."""
        ordered = sorted(attempt.scans, key=_place)
        for plan in ordered:
            try:
                evaluate(attempt.listing, point, [attempt.scans[plan]])
            except UserError:
                return [plan]
        return ordered[:1]


def _works(survey: Survey, families: Sequence[Any]) -> bool:
    """Does a step without memory compute more than sums, of streams whose steps are those of an input?"""
    if not any(isinstance(f, NodeFamily) and f.sample.kind not in LINEAR for f in families):
        return False
    read = [o.family for f in families for o in f.operands if isinstance(o, Reading)]
    streams = {(f.stream, f.axis) for f in read if isinstance(f, StreamFamily) and not survey.is_static(f.stream)}
    return bool(streams) and all(_over_time(survey, stream, axis) for stream, axis in streams)


def _over_time(survey: Survey, stream: Value, axis: int) -> bool:
    """Does one step of an input change a part of the axis only, as no axis of features does behind a matrix?"""
    point, length = survey.points[0], survey.shape(stream)[axis]
    before = evaluate(survey.listing, point, [stream])[stream]
    for value, array in point.items():
        for place in (
            k for k, size in enumerate(np.shape(array)) if size == length and np.asarray(array).dtype.kind == "f"
        ):
            moved = np.array(array)
            moved[(slice(None),) * place + (length // 2,)] += 1.0
            after = evaluate(survey.listing, {**point, value: moved}, [stream])[stream]
            others = tuple(k for k in range(np.ndim(before)) if k != axis)
            if 0 < np.count_nonzero((before != after).any(axis=others)) < length:
                return True
    return False


def _foreign(plan: Plan) -> list[ForeignFamily]:
    return [family for family in plan.streams if isinstance(family, ForeignFamily)]


def _place(plan: Plan) -> int:
    """Where in the file a loop begins."""
    return min(family.sample.position for family in plan.families)


def _close(new: Array, old: Array) -> bool:
    new, old = np.asarray(new, np.float64), np.asarray(old, np.float64)
    if new.shape != old.shape:
        return False
    scale = max(float(np.abs(old).max(initial=0.0)), 1e-12)
    return bool(np.abs(new - old).max(initial=0.0) <= TOLERANCE * scale)
