"""Few time constants for many states, as a device offers them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, StreamType, Value, interpret
from ssmc.passes.base import Array, Context, DecayLoss, Pass
from ssmc.passes.decay_fit import FitOptions, Fitted, LayerData, fit
from ssmc.passes.probe import excerpt
from ssmc.passes.read_noise import read_noise
from ssmc.passes.rewrite import recast
from ssmc.passes.validation import has_meaning
from ssmc.statespace import StateSpace, StateSpaceError, time_constants

DATA_STEPS = 4096  # of the calibration data that C is fitted to


@dataclass(frozen=True)
class ShareDecays(Pass):
    """Give the states of each layer at most `levels` decays, and refit C so that the layer's response stays close.

    before  ssm {system = A with 64 time constants}
    after   ssm {system = A' with 6 of them, C'}

    `levels` is the machine's where it is not given. Decays are clustered by log time constant, weighted by what each
    state contributes; oscillations stay, and so do layers that are dense or have states that do not decay. The
    `refit` of B and C to the layer's own kernel is in closed form, over the first `length` taps: as many as the
    calibration data has steps where it is not given, all where there is no such data; of an event-driven layer over
    the elapsed times of that data. With calibration data, C is then fitted to what the layer gave there. `search`
    moves the decays while that helps, and exchanges oscillations of single-input channels for others. `ridge` keeps C
    small where states nearly repeat each other; `tolerance` is how much the outputs may change on the data, relative,
    before it is an error.
    """

    name = "share-decays"
    lossy = True
    levels: int | None = None
    refit: bool = True
    search: bool = False
    ridge: float = 1e-4
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
        original: Mapping[str, Array] | None = None
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
            data = None
            if self.refit and context.calibration and has_meaning(graph):
                inputs = excerpt(graph, context.calibration, DATA_STEPS)
                original = interpret(graph, inputs, keep=True) if original is None else original
                # The layers before have changed already: what they miss, this one may make good.
                data = _data(out, node, interpret(out, inputs, keep=True) if changed else original, original)
            noise = None if context.ideal else read_noise(context.machine)
            free = len(graph.operands(node.name)) < 3 and not graph.users(Value(node.name, 1))
            options = FitOptions(levels, self.refit, self.search, length, self.ridge, noise, free)
            fitted = self._fitted(node, system, options, data)
            recast(out, node.name, node.op.with_attrs(system=fitted.system), out.operands(node.name))
            loss = DecayLoss(
                node.name, before, distinct(fitted.system), fitted.h2, fitted.measured, fitted.bound, fitted.noise
            )
            context.decays.append(loss)
            context.note(self, node.name, f"{before} decays became {loss.after}{_told(loss)}")
            changed = True
        return out if changed else graph

    def _levels(self, context: Context) -> int | None:
        if self.levels is not None or context.ideal or context.machine is None:
            return self.levels
        return context.machine.decay_levels

    def _fitted(self, node: Node, system: StateSpace, options: FitOptions, data: LayerData | None) -> Fitted:
        origin = f" (from {', '.join(node.provenance[:3])})" if node.provenance else ""
        try:
            return fit(system, options, data)
        except StateSpaceError as error:
            raise UserError(
                "the decays of the layer cannot be shared",
                where=f"pass '{self.name}', node '{node.name}'{origin}",
                why=str(error),
                hint="run discretize before it",
            ) from error


def _told(fitted: DecayLoss) -> str:
    text = f"; the response differs by {fitted.h2:.2g} (H2, relative)"
    if fitted.measured is not None:
        text += f", the output by {fitted.measured:.2g} on the data"
    if fitted.bound is not None:
        text += f", at most {fitted.bound:.3g} max|u|"
    return text + ("" if fitted.noise is None else f"; arrays and devices add {fitted.noise:.2g}")


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


def _data(out: Graph, node: Node, now: Mapping[str, Array], original: Mapping[str, Array]) -> LayerData | None:
    """What the layer sees now, and what it gave in the original model; in the order of its own time."""
    operands = [*out.operands(node.name), None, None]
    u, dt, x0 = (None if value is None else now[str(value)] for value in operands[:3])
    target = original[str(Value(node.name))]
    if u is None or np.iscomplexobj(u) or u.shape[0] != target.shape[0]:
        return None
    system: StateSpace = node.op["system"]
    if node.op["reverse"]:
        u, target = u[:, ::-1], target[:, ::-1]
        if dt is not None:
            return None
    u = u.reshape(*u.shape[:2], -1)
    elapsed = None if dt is None else dt.reshape(dt.shape[:2])
    start = None if x0 is None else x0.reshape(len(x0), system.groups, system.states)
    return LayerData(u, target.reshape(*target.shape[:2], -1), elapsed, start)
