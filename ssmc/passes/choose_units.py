"""What one count of each fixed-point state is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssmc.ir import Graph, Node, StreamType, Tensor
from ssmc.ir.op import Array
from ssmc.passes.base import Context, Pass
from ssmc.passes.choices import UnitChoice
from ssmc.passes.machine import FixedPoint
from ssmc.passes.probe import excerpt, probe
from ssmc.passes.state_reach import STATES, bounded, fill, growth, seen

DATA, RANDOM, BOUND = "calibration data", "random inputs", "bound"
USUAL_STEPS = 1024  # ours: of a sequence whose length nobody says
NUMBERS = 1 << 25  # of the widest stream of states that is looked at
LEAST_STEPS = 64
SMALLEST, LARGEST = 2.0**-100, 2.0**100  # units that a float32 holds with room
INEXACT = 1 + 2.0**-6  # of a bound: decays and drives are rounded, too


@dataclass(frozen=True)
class ChooseUnits(Pass):
    """Choose what one count of each fixed-point state is worth, where the target's states are fixed point.

    before  tile.state(%v) {decay}
    after   tile.state(%v) {decay, unit = 2^k}

    A state counted in units of its own is a change of basis by powers of two, exact: in front of the states b takes the
    unit over, or what turns a drive into counts; behind them c, or what turns counts into a word; so that states that
    are put in or taken out, and weights, keep their values. With calibration data (the first `steps` of it) a state is
    expected to go as far as it does there, else as far as drives of the size that random inputs give make it: steady
    ones and random ones (in 1024 steps or those of the file; one of the state's own frequency takes the room). It gets
    the finest unit in which the target's bits before the point remain as room for more; or, where it is finer, in which
    no input overflows: `|b| max|u| / (1 - |a|)`, where norms, tables and bounded functions tell max|u|. `by=bound`
    takes such bounds alone, `by=off` leaves all units to the target. Overflows are counted by runs. What a program
    computes before it is rounded is not changed.
    """

    name = "choose-units"
    by: Literal["data", "bound", "off"] = "data"
    steps: int = 8192

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def run(self, graph: Graph, context: Context) -> Graph:
        machine = context.machine
        nodes = list(graph.nodes(*STATES))
        if context.ideal or machine is None or machine.states is None or not nodes:
            return graph
        context.units.clear()
        units = {} if self.by == "off" else self._chosen(graph, context, machine.states, nodes)
        out = graph.copy()
        for node in nodes:
            unit = units.get(node.name)
            out.set_op(node.name, node.op.with_attrs(unit=None if unit is None else Tensor(unit)))
        return out

    def _chosen(self, graph: Graph, context: Context, form: FixedPoint, nodes: list[Node]) -> dict[str, Array]:
        source, expected, lasting = ("", {}, {}) if self.by == "bound" else self._expected(graph, context)
        bounds, units = bounded(graph), {}
        for node in nodes:
            bound, peaks = bounds.get(node.name), expected.get(node.name)
            never = np.asarray(np.inf) if bound is None else _unit(INEXACT * bound.most, form, 2 * bound.growth)
            unit, told = never, BOUND
            if peaks is not None:
                unit = np.minimum(_unit(form.room * peaks, form), never)
                told = BOUND if (unit == never).all() else source
            elif bound is not None:
                peaks = bound.most
            if peaks is None or not np.isfinite(unit).all():
                continue
            units[node.name] = unit = np.clip(unit, SMALLEST, LARGEST)
            fits = unit * 2.0 ** (form.bits - 1) / np.where(peaks > 0, peaks, np.inf)
            room = float(fits[peaks > 0].min(initial=np.inf))
            context.units.append(UnitChoice(node.name, told, *_span(peaks), room, *_span(unit)))
            if told == source and (steps := lasting.get(node.name)):
                text = f"states that never decay: room for {room:.3g} times what {steps} steps make of them"
                context.note(self, node.name, text)
        return units

    def _expected(self, graph: Graph, context: Context) -> tuple[str, dict[str, Array], dict[str, int]]:
        """What tells how far the states of each layer are expected to go, how far, and in how many steps for layers
        with states that never decay."""
        usual = context.usual_steps(graph) or USUAL_STEPS
        if context.calibration:
            used = excerpt(graph, context.calibration, self._budget(graph))
            reach, cut = seen(graph, used), context.calibration_steps(graph)
            taken = max((array.shape[1] for name, array in used.items() if name in _streams(graph)), default=cut)
            # what was cut off would have gone on as a steady drive does
            peaks = {
                name: fill(peaks) * growth(reach.sizes[name], cut) / growth(reach.sizes[name], taken)
                for name, peaks in reach.peaks.items()
            }
            return DATA, peaks, reach.lasting(cut)
        drawn = probe(graph, context.seed)
        if drawn is None:
            return RANDOM, {}, {}
        reach = seen(graph, drawn, peaks=False)
        return RANDOM, reach.expected(usual), reach.lasting(usual)

    def _budget(self, graph: Graph) -> int:
        """Steps that are looked at: fewer of many states."""
        kinds: list[Any] = [kind for node in graph.nodes(*STATES) for kind in node.types]
        return max(LEAST_STEPS, min(self.steps, NUMBERS // max(int(np.prod(kind.shape)) for kind in kinds)))


def _unit(reach: Array, form: FixedPoint, noise: Array | float = 0.0) -> Array:
    """The smallest power of two that counts up to `reach`, and so many counts more (a quarter of all at most)."""
    top = 2.0 ** (form.bits - 1) - 1
    with np.errstate(divide="ignore"):
        return np.asarray(2.0 ** np.ceil(np.log2(reach / (top - np.minimum(noise, top / 4)))))


def _span(values: Array) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _streams(graph: Graph) -> set[str]:
    return {node.op["name"] for node in graph.inputs() if isinstance(node.types[0], StreamType)}
