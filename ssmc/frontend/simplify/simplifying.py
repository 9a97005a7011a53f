"""All simplifications of a translated graph, in their order, and what they tell the user."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ssmc.frontend.findings import Findings
from ssmc.frontend.simplify.activations import recognise_activations
from ssmc.frontend.simplify.afterwards import late_values, postpone
from ssmc.frontend.simplify.asynchronous import recognise_asynchronous, recognise_invariant
from ssmc.frontend.simplify.duplicates import merge_duplicates, merge_last_states
from ssmc.frontend.simplify.fading import recognise_fading
from ssmc.frontend.simplify.fusion import fuse_systems
from ssmc.frontend.simplify.growing import recognise_growing_weights
from ssmc.frontend.simplify.norms import recognise_norms
from ssmc.frontend.simplify.registers import recognise_registers
from ssmc.ir.graph import Graph

# Each changes a graph in place, and gives the names of the nodes that got other ones.
SIMPLIFICATIONS = (
    merge_duplicates,
    merge_last_states,
    recognise_norms,
    postpone,
    recognise_invariant,
    recognise_asynchronous,
    fuse_systems,
    merge_duplicates,  # fusing makes equal what was not
    fuse_systems,
    recognise_growing_weights,
    recognise_registers,
)


def simplify(graph: Graph, findings: Findings, whole: Collection[str] = ()) -> None:
    """Simplify a graph in place; the lifts and filters among the findings follow their nodes, and lifts of nodes that
    are gone go. `whole` are tables that have a row for each step there is."""
    graph.prune()
    findings.lifts += recognise_fading(graph, whole)
    recognise_activations(graph)
    for step in SIMPLIFICATIONS:
        renamed = step(graph)
        if step is postpone:  # what the weights are divided by
            findings.lifts += recognise_fading(graph, ())
        for lifts in (findings.lifts, findings.filters):
            lifts[:] = [replace(lift, node=renamed.get(lift.node, lift.node)) for lift in lifts]
    graph.prune()
    findings.lifts = list({lift.node: lift for lift in findings.lifts if lift.node in graph}.values())


def runs_again(graph: Graph, findings: Findings) -> tuple[str, ...]:
    """A note where a step needs what is known only after the last one, which takes another run through the sequence."""
    late = late_values(graph)
    if not late.first:
        return ()
    findings.spans += 1
    runs = 1 + max(late.run.values())
    names = list(dict.fromkeys(next(iter(graph.node(n).provenance), n) for n in late.first))
    who = f"'{names[0]}' needs" if len(names) == 1 else f"'{names[0]}' and {len(names) - 1} more need"
    return (f"the sequence is run through {runs} times: {who} what its last step tells",)
