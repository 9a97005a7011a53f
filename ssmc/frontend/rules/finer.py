"""Steps made of features: streams of a lower rate brought back to the rate that they were pooled from.

Up-sampling (SaShiMi's up-pooling, arXiv 2202.09729, section 4.3; U-Nets) takes a stream of every n-th step to every
step again. What lies between is said once more at the higher rate, where every n-th step of it holds what the slow
stream held, and what stands at the others is read by none: delays are n times as long, filters have zeros between
their taps, the poles of a system are n-th roots and hear zeros between its inputs, a computed decay waits. A recurrence
that keeps its state until the next such step holds a value for the steps in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import lcm, prod
from typing import Any

import networkx as nx
import numpy as np

from ssmc.frontend.graph.builder import PER_STEP, Builder, Operand
from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.reasons import Kind, Reason
from ssmc.frontend.rules.context import Surroundings
from ssmc.frontend.rules.merged import is_plain
from ssmc.ir.graph import Node, Value
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import StreamType
from ssmc.statespace import StateSpace

RISING = (
    "the rate of a stream cannot rise above that of the model's input; give the model its input at that rate, or "
    "compile the part before it"
)
LAYOUT = frozenset(["reshape", "transpose", "slice", "take", "broadcast"])
SYSTEMS = frozenset(["ssm", "recurrence", "fir"])
LONGEST = 256  # steps that one step becomes (ours)


def interleaved(context: Surroundings, flow: Flow) -> Flow:
    """The stream whose steps are the entries of the feature axis behind time, of each step one after the other.

    `context` has a `builder`, and `findings`, where systems that are said anew are noted. Raises Unsupported where no
    stream of that rate is known.
    """
    builder: Builder = context.builder
    axis = flow.axes.index("t")
    times, place = flow.shape[axis + 1], flow.from_right(axis + 1)
    if times > LONGEST:
        raise Unsupported(Reason(f"it gives {times} steps for each one (up-sampling; at most {LONGEST})", Kind.RISING))
    inner, late = _without_delay(builder, flow.value)
    finer = _Finer(builder, inner, times)
    slow = builder.kind(inner)
    assert isinstance(slow, StreamType)
    context.findings.multiple = lcm(context.findings.multiple, slow.rate.denominator)
    lifts = context.findings.lifts
    lifts += [replace(lift, node=finer.systems[lift.node]) for lift in lifts if lift.node in finer.systems]
    phase = finer.phase(inner)
    waits = builder.binary("sub", np.ones(()), builder.binary("equal", phase, np.asarray(times - 1.0)))
    held, _ = builder.recurrent("recurrence", [waits, finer.stuffed(inner)], reverse=not late)
    if late:  # what the step before gave: nothing is read ahead
        held = builder.add("delay", [held], steps=1)
    numbers = np.arange(float(times)).reshape(-1, *[1] * (-1 - place))
    chosen = builder.binary("mul", builder.binary("equal", phase, numbers), held)
    value = builder.emit("reduce", [chosen], fn="sum", axes=(place,), keepdims=False)
    assert isinstance(value, Value)
    shape = (*flow.shape[:axis], flow.shape[axis] * times, *flow.shape[axis + 2 :])
    return Flow(value, flow.axes[: axis + 1] + flow.axes[axis + 2 :], shape)


def steps_of_features(context: Surroundings, flow: Flow, target: tuple[int, ...]) -> Flow | None:
    """A stream reshaped so that features which stand behind its time become steps; None where that is not what the
    reshape does."""
    if not is_plain(flow) or "t" not in flow.axes:
        return None
    axis = flow.axes.index("t")
    if len(target) <= axis or target[:axis] != flow.shape[:axis] or target[axis] <= flow.shape[axis]:
        return None
    kept = target[axis + 1 :]
    if "b" not in flow.axes[axis:]:  # numbers of one step each, in whatever axes: the first of them become steps
        times, rest = divmod(target[axis], flow.shape[axis])
        if rest or times * prod(kept) != prod(flow.shape[axis + 1 :]):
            return None
        behind = "f" * len(kept)
    else:
        times, at = 1, axis + 1
        while at < len(flow.shape) and flow.shape[axis] * times < target[axis]:
            times, at = times * flow.shape[at], at + 1
        if flow.shape[axis] * times != target[axis] or kept != flow.shape[at:] or "b" not in flow.axes[at:]:
            return None
        behind = flow.axes[at:]
    shape = (*flow.shape[: axis + 1], times, *kept)
    axes = flow.axes[: axis + 1] + "f" + behind
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    value = context.builder.reshape(flow.value, features)
    assert isinstance(value, Value)
    return interleaved(context, Flow(value, axes, shape))


def repeated(context: Surroundings, flow: Flow, times: int) -> Flow:
    """A stream, each step of it so many times."""
    axis = flow.axes.index("t")
    axes = flow.axes[: axis + 1] + "f" + flow.axes[axis + 1 :]
    shape = (*flow.shape[: axis + 1], times, *flow.shape[axis + 1 :])
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    behind = axes[axis + 2 :].count("f")
    at = len(features) - behind - 1
    one = context.builder.reshape(flow.value, (*features[:at], 1, *features[at + 1 :]))
    value = context.builder.broadcast(one, features)
    assert isinstance(value, Value)
    return interleaved(context, Flow(value, axes, shape))


def _without_delay(builder: Builder, value: Value) -> tuple[Value, bool]:
    """A stream before the delay by a step that it ends with, but for ops that move numbers; whether there is one."""
    chain: list[Node] = []
    here = value
    while (node := builder.graph.node(here.node)).op.name in LAYOUT:
        chain.append(node)
        here = builder.graph.operand(node.name, 0)
    if node.op.name != "delay":
        return value, False
    steps, source = int(node.op["steps"]), builder.graph.operand(node.name, 0)
    found: Operand = builder.add("delay", [source], steps=steps - 1) if steps > 1 else source
    for node in reversed(chain):
        found = builder.add(node.op.name, [found], **dict(node.op.attrs))
    assert isinstance(found, Value)
    return found, True


@dataclass(eq=False)
class _Finer:
    """Streams at `times` the rate of `slow`, whose steps stand at the last one of each `times`."""

    builder: Builder
    slow: Value
    times: int
    made: dict[Value, Value] = field(default_factory=dict)
    clocks: list[Operand] = field(default_factory=list)
    systems: dict[str, str] = field(default_factory=dict)  # slow node -> the one that does the same

    def __post_init__(self) -> None:
        graph = self.builder.graph
        rate = self._rate(self.slow)
        names = {*nx.ancestors(graph.net, self.slow.node), self.slow.node}
        for name in [n for n in graph.order() if n in names]:
            if self._rate(Value(name)) == rate and rate is not None and rate * self.times <= 1:
                with self.builder.origin(graph.node(name).provenance):
                    made = self.made[Value(name)] = self._made(graph.node(name))
                if graph.op(name).name in SYSTEMS:
                    turned = graph.op(made.node).name == "reverse"
                    self.systems[name] = graph.operand(made.node, 0).node if turned else made.node
        if self.slow not in self.made:
            raise Unsupported(Reason(f"it gives {self.times} steps for each one (up-sampling): {RISING}", Kind.RISING))

    def _rate(self, value: Value) -> Any:
        kind = self.builder.graph.type(value)
        return kind.rate if isinstance(kind, StreamType) else None

    def phase(self, like: Value) -> Operand:
        """Which of the steps that one becomes it is, 0 first."""
        if not self.clocks:
            builder, steps = self.builder, self.builder.steps(self.made[like])
            turns = builder.binary("div", builder.binary("add", steps, np.asarray(0.5)), np.asarray(float(self.times)))
            before = builder.binary("mul", builder.unary("floor", turns), np.asarray(float(self.times)))
            self.clocks.append(builder.binary("sub", steps, before))
        return self.clocks[0]

    def stuffed(self, value: Value) -> Operand:
        """A slow stream, with zeros between its steps."""
        there = self.builder.binary("equal", self.phase(value), np.asarray(self.times - 1.0))
        fine = self.made[value]
        if self.builder.kind(fine).element == "complex":
            return self.builder.binary("mul", there, fine)
        return self.builder.emit("select", [there, fine, np.zeros(self.builder.features(fine))])

    def _made(self, node: Node) -> Value:
        builder, op, graph = self.builder, node.op, self.builder.graph
        operands = [v for v in graph.operands(node.name) if v is not None]
        if any(v.index and self._rate(v) is not None for v in operands):
            raise Unsupported(self._unknown(op.name))
        fine = [self.made.get(v, v) for v in operands]
        match op.name:
            case "downsample":
                return self._before(node)
            case "delay":
                return builder.add("delay", fine, steps=int(op["steps"]) * self.times)
            case "reverse":
                return builder.add("delay", [builder.reverse(fine[0])], steps=self.times - 1)
            case "fir" if len(operands) == 1:
                kernel = np.asarray(op["kernel"].array)
                wide = np.zeros((len(kernel), (kernel.shape[1] - 1) * self.times + 1))
                wide[:, :: self.times] = kernel
                return builder.recurrent("fir", fine, kernel=Tensor(wide), reverse=op["reverse"])[0]
            case "ssm":
                return self._system(node, operands)
            case "recurrence":
                return self._recurrence(node, operands, fine)
            case "spread":
                return builder.add("spread", fine)
            case name if name in PER_STEP:
                return builder.add(name, fine, **dict(op.attrs))
        raise Unsupported(self._unknown(op.name))

    def _unknown(self, what: str) -> Reason:
        where = f"of a stream of lower rate in which '{what}' stands"
        return Reason(f"it gives {self.times} steps for each one (up-sampling) {where}", Kind.RISING)

    def _before(self, node: Node) -> Value:
        """What was pooled: at the rate before, or at one between."""
        builder, stride, kind = self.builder, int(node.op["stride"]), str(node.op["kind"])
        offset = int(node.op["offset"]) if kind == "take" else stride - 1
        x = builder.graph.operand(node.name, 0)
        if kind == "max" or stride % self.times:
            raise Unsupported(self._unknown("downsample"))
        if kind in ("mean", "sum"):
            parts: Operand = x
            for lag in range(1, stride):
                parts = builder.binary("add", parts, builder.add("delay", [x], steps=lag))
            x = parts if kind == "sum" else builder.binary("div", parts, np.asarray(float(stride)))  # type: ignore[assignment]
        between = stride // self.times
        late = between * (self.times - 1) + between - 1 - offset  # steps that it comes later than the pooling took it
        if late < 0:
            raise Unsupported(self._unknown("downsample"))
        x = builder.add("delay", [x], steps=late) if late else x
        if between > 1:
            x = builder.add("downsample", [x], stride=between, kind="take", offset=between - 1)
        return x

    def _system(self, node: Node, operands: list[Value]) -> Value:
        system: StateSpace = node.op["system"]
        started = system.x0 is not None or len(operands) > 1
        plain = system.diagonal and system.delta is None and not system.read_before and not system.asynchronous
        if not plain or (started and node.op["reverse"]):
            raise Unsupported(self._unknown("ssm"))
        poles = system.A if np.iscomplexobj(system.A) or np.all(system.A >= 0) else system.A.astype(np.complex128)
        fine = StateSpace(
            A=poles ** (1.0 / self.times),
            B=system.B,
            C=system.C,
            D=system.D,
            halved=system.halved,
            real_output=system.real_output,
            x0=system.x0,
        )
        given = [self.stuffed(operands[0]), *([None, operands[1]] if len(operands) > 1 else [])]
        return self.builder.recurrent("ssm", given, system=fine, reverse=node.op["reverse"])[0]

    def _recurrence(self, node: Node, operands: list[Value], fine: list[Value]) -> Value:
        builder = self.builder
        there = builder.binary("equal", self.phase(operands[1]), np.asarray(self.times - 1.0))
        one = np.ones(builder.features(fine[0]))
        if builder.kind(fine[0]).element == "complex" or node.op["read_before"]:
            raise Unsupported(self._unknown("recurrence"))
        decay = builder.emit("select", [there, fine[0], one])
        given = [decay, self.stuffed(operands[1]), *fine[2:]]
        return builder.recurrent("recurrence", given, reverse=node.op["reverse"])[0]
