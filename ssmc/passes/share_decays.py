"""Few time constants for many states, as a device offers them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, StreamType, Value, interpret
from ssmc.ir.op import Array
from ssmc.passes.base import Context, DecayLoss, Pass
from ssmc.passes.decay_fit import Fit, FitOptions, Fitted, LayerData, fit
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
    state contributes; oscillations stay, and so do layers that are dense, have states that do not decay, or go to a
    bank that holds any (`choose-banks`). The `refit` of B and C to the layer's own kernel is in closed form, over the
    first `length` taps: as many as the calibration data has steps where it is not given, all where there is no such
    data; of an event-driven layer over the elapsed times of that data. With calibration data, C is then fitted to what
    the layer gave there. `search` moves the decays while that helps, and exchanges oscillations of single-input
    channels for others. `ridge` keeps C small where states nearly repeat each other; `tolerance` is how much the
    outputs may change on the data, relative, before it is an error.
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
        work = Sharing(self, graph, context)
        for node in graph.nodes("ssm"):
            if not work.asks(node) or elsewhere(node, context):
                continue
            before = distinct(node.op["system"])
            if reason := obstacle(node):
                context.note(self, node.name, f"keeps its decays: {reason}")
                continue
            fitted = work.share(node)
            loss = DecayLoss(
                node.name, before, distinct(fitted.system), fitted.h2, fitted.measured, fitted.bound, fitted.noise
            )
            context.decays.append(loss)
            context.note(self, node.name, f"{before} decays became {loss.after}{_told(loss)}")
        return work.out if work.changed else graph


class Sharing:
    """Layers of `graph` get shared decays one after the other, in the copy `out`."""

    def __init__(self, pass_: ShareDecays, graph: Graph, context: Context) -> None:
        self.pass_, self.graph, self.context = pass_, graph, context
        self.levels = pass_.levels
        if self.levels is None and not context.ideal and context.machine is not None:
            self.levels = context.machine.decay_levels
        self.out, self.changed = graph.copy(), False
        self.original: Mapping[str, Array] | None = None

    def asks(self, node: Node) -> bool:
        """Whether the node has more decays than it may."""
        return self.levels is not None and distinct(node.op["system"]) > self.levels

    def share(self, node: Node) -> Fitted:
        """Give one layer its shared decays; raises UserError where the system is continuous."""
        system: StateSpace = node.op["system"]
        options, data = self._options(node), self._data(node)
        known = self.context.fits.get(node.name)
        if known is None or not known.answers(system, options, data):
            known = Fit(system, options, data, self._fitted(node, system, options, data))
            self.context.fits[node.name] = known
        fitted, operands = known.fitted, self.out.operands(node.name)
        recast(self.out, node.name, node.op.with_attrs(system=fitted.system), operands)
        self.changed = True
        return fitted

    def _options(self, node: Node) -> FitOptions:
        pass_, context = self.pass_, self.context
        length = pass_.length or _steps(self.graph, node, context)
        noise = None if context.ideal else read_noise(context.machine)
        free = len(self.graph.operands(node.name)) < 3 and not self.graph.users(Value(node.name, 1))
        return FitOptions(self.levels or 1, pass_.refit, pass_.search, length, pass_.ridge, noise, free)

    def _data(self, node: Node) -> LayerData | None:
        graph, calibration = self.graph, self.context.calibration
        if not (self.pass_.refit and calibration and has_meaning(graph)):
            return None
        inputs = excerpt(graph, calibration, DATA_STEPS)
        if self.original is None:
            self.original = interpret(graph, inputs, keep=True)
        # The layers before have changed already: what they miss, this one may make good.
        now = interpret(self.out, inputs, keep=True) if self.changed else self.original
        return _data(self.out, node, now, self.original)

    def _fitted(self, node: Node, system: StateSpace, options: FitOptions, data: LayerData | None) -> Fitted:
        try:
            return fit(system, options, data)
        except StateSpaceError as error:
            raise UserError(
                "the decays of the layer cannot be shared",
                where=f"pass '{self.pass_.name}', {node.where}",
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


def elsewhere(node: Node, context: Context) -> bool:
    """Whether the layer's states go to a bank that holds any decay."""
    banks = () if context.machine is None else context.machine.banks
    return any(bank.kind == node.op["bank"] and not bank.decay_only for bank in banks)


def obstacle(node: Node) -> str:
    """Why a layer keeps its decays; empty where they can be shared, and continuous systems are `fit`'s to refuse."""
    system: StateSpace = node.op["system"]
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
