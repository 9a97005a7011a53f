"""Few time constants for many states, as a device offers them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, StreamType, Value
from ssmc.passes.base import Array, Context, Pass
from ssmc.passes.rewrite import recast
from ssmc.statespace import StateSpace, StateSpaceError, cluster_decays, refit_output, time_constants

GAPS = 256  # elapsed times that the refit averages over


@dataclass(frozen=True)
class ShareDecays(Pass):
    """Give the states of each layer at most `levels` decays, and refit C so that the layer's response stays close.

    before  ssm {system = A with 64 time constants}
    after   ssm {system = A' with 6 of them, C'}

    `levels` is the machine's where it is not given. Decays are clustered by log time constant, weighted by what each
    state contributes; oscillations stay, and so do layers that are dense or have states that do not decay. The `refit`
    is in closed form, over the first `length` taps: as many as the calibration data has steps where it is not given,
    all where there is no such data; of an event-driven layer over the elapsed times of that data. `ridge` keeps C
    small where states nearly repeat each other; `tolerance` is how much the outputs may change on the data, relative,
    before it is an error.
    """

    name = "share-decays"
    lossy = True
    levels: int | None = None
    refit: bool = True
    ridge: float = 1e-6
    length: int | None = None
    tolerance: float = math.inf

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"levels must be at least 1, not {self.levels}")
        if self.length is not None and self.length < 2:
            raise ValueError(f"length must be at least 2 taps, not {self.length}")
        if self.ridge < 0:
            raise ValueError(f"ridge must not be negative, not {self.ridge}")

    def run(self, graph: Graph, context: Context) -> Graph:
        """Raises UserError where a system is continuous."""
        levels = self._levels(context)
        if levels is None:
            return graph
        out = graph.copy()
        changed = False
        for node in graph.nodes("ssm"):
            system: StateSpace = node.op["system"]
            before = distinct(system)
            if before <= levels:
                continue
            obstacle = _obstacle(system)
            if obstacle:
                context.note(self, node.name, f"keeps its decays: {obstacle}")
                continue
            length = self.length or _steps(graph, node, context)
            shared, told = self._share(node, system, levels, length, _gaps(graph, node, context))
            recast(out, node.name, node.op.with_attrs(system=shared), out.operands(node.name))
            context.note(self, node.name, f"{before} decays became {distinct(shared)}{told}")
            changed = True
        return out if changed else graph

    def _levels(self, context: Context) -> int | None:
        if self.levels is not None or context.ideal or context.machine is None:
            return self.levels
        return context.machine.decay_levels

    def _share(
        self, node: Node, system: StateSpace, levels: int, length: int | None, gaps: Array
    ) -> tuple[StateSpace, str]:
        origin = f" (from {', '.join(node.provenance[:3])})" if node.provenance else ""
        try:
            shared, _ = cluster_decays(system, levels)
            if not self.refit:
                return shared, ""
            # Gaps matter to an event-driven system only.
            elapsed = gaps if system.asynchronous else np.ones(1)
            fitted = refit_output(system, shared, length=length, gaps=elapsed, ridge=self.ridge)
        except StateSpaceError as error:
            raise UserError(
                "the decays of the layer cannot be shared",
                where=f"pass '{self.name}', node '{node.name}'{origin}",
                why=str(error),
                hint="run discretize before it",
            ) from error
        return fitted.system, f"; the response differs by {float(fitted.h2_error.max()):.2g} (H2, relative)"


def distinct(system: StateSpace) -> int:
    """How many different time constants a system has."""
    if not (system.discrete or system.asynchronous) or not system.diagonal:
        return int(system.groups * system.states)
    with np.errstate(divide="ignore"):
        log_times = np.log(time_constants(system))
    return int(np.unique(np.round(log_times, 9)).size)


def _obstacle(system: StateSpace) -> str:
    """Why a discrete system has no decays to share; empty where it has."""
    if not (system.discrete or system.asynchronous):
        return ""
    if not system.diagonal:
        return "its A is dense"
    return "" if np.isfinite(time_constants(system)).all() else "it has states that do not decay"


def _steps(graph: Graph, node: Node, context: Context) -> int | None:
    """How many steps the node sees in a sequence of the calibration data, None where that says nothing."""
    rate = next(kind.rate for kind in node.types if isinstance(kind, StreamType))
    names = [n.op["name"] for n in graph.inputs() if isinstance(n.types[0], StreamType) and n.types[0].rate == 1]
    given = [
        context.calibration[name].shape[1] for name in names if context.calibration and name in context.calibration
    ]
    steps = int(given[0] * rate) if given else 0
    return steps if steps > 1 else None


def _gaps(graph: Graph, node: Node, context: Context) -> Array:
    """Elapsed times that the node's events have in the calibration data; the unit step where they are not known."""
    operands = graph.operands(node.name)
    value: Value | None = operands[1] if len(operands) > 1 else None
    source = None if value is None else graph.op(value.node)
    if source is None or source.name != "input" or not context.calibration or source["name"] not in context.calibration:
        return np.ones(1)
    every = np.asarray(context.calibration[source["name"]], np.float64).ravel()
    return np.asarray(every[np.linspace(0, every.size - 1, min(GAPS, every.size)).astype(int)])
