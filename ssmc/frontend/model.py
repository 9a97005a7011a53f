"""A lifted model: its graph of ssm ops, and what was learned on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssmc.frontend.findings import Lift, Refusal, Replacement
from ssmc.frontend.graph.builder import features_of, kind_of
from ssmc.frontend.simplify.afterwards import late_values
from ssmc.frontend.states.liquid import is_liquid
from ssmc.interface import Interface, Port
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array, Op
from ssmc.ir.ops.rounded import grids_of
from ssmc.ir.ops.rounded_sums import FREE, islands
from ssmc.ir.table import spec_of
from ssmc.ir.types import StreamType
from ssmc.statespace import StateSpace, frequencies, time_constants

STRUCTURE = frozenset(
    [
        "input",
        "output",
        "constant",
        "reshape",
        "slice",
        "take",
        "transpose",
        "broadcast",
        "concat",
        "spread",
        "complex",
        "real",
        "imag",
    ]
)
SYSTEMS = ("ssm", "recurrence", "fir", "spike", "rounded", "rounded_sums")
STARTS = frozenset(["x0?", "history?"])  # operands that a system starts from


@dataclass(frozen=True)
class StateGrid:
    """Where a step rounds (`place`: the state as it is read, its product with the decay, or the sum), and to what.

    A value is `scale * (code - zero)`; smallest and largest scale, zero point and code of all states.
    """

    place: str
    scales: tuple[float, float]
    zeros: tuple[float, float]
    codes: tuple[float, float]
    rounding: str


@dataclass(frozen=True, eq=False)
class LiftedSystem:
    """One linear system of the model.

    `kind` says what it became: 'linear time-invariant', 'asynchronous', 'selective' (its decay is computed from the
    data), 'liquid' (that decay is a constant plus what is linear in the data), 'fir', 'integrate and fire' or 'rounded'
    (its states are, at every step; `grids` tell how). `states` counts those of one group as they are stored. Time
    constants and frequencies are those of the poles, in steps and cycles per step (or per unit of dt), and None where
    there are no fixed poles. `replacement` tells what became of a kernel that the file has.
    """

    name: str
    node: str
    disguise: str
    kind: str
    groups: int
    states: int
    inputs: int
    outputs: int
    is_complex: bool
    reverse: bool
    time_constants: np.ndarray | None
    frequencies: np.ndarray | None
    where: tuple[str, ...]
    proof_error: float
    replacement: Replacement | None = None
    grids: tuple[StateGrid, ...] = ()


@dataclass(frozen=True)
class Proof:
    """A comparison of the whole model, after lifting, with the file: `error` is max|y - ref| / max|ref|."""

    against: str
    batch: int
    length: int
    output: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return bool(self.error <= self.tolerance)


@dataclass(frozen=True, eq=False)
class Model:
    """What `load_model` gives. `graph` is at the ssm level; see `LiftedSystem` and `Port` for the rest."""

    graph: Graph
    path: Path
    form: str  # "sequence" or "step"
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: dict[str, str]  # of a one-step model: input -> output
    systems: tuple[LiftedSystem, ...]
    other_ops: dict[str, int]
    unsupported: tuple[Refusal, ...]
    proofs: tuple[Proof, ...]
    notes: tuple[str, ...] = ()
    precision: str = "float32"  # the coarsest format in which the file computes: float32, float16, bfloat16

    @property
    def interface(self) -> Interface:
        return Interface(self.form, self.inputs, self.outputs, self.states)


def _at_one_rate(graph: Graph) -> bool:
    kinds = [graph.type(Value(node.name, k)) for node in graph.nodes() for k in range(len(node.types))]
    return all(kind.rate == 1 for kind in kinds if isinstance(kind, StreamType))


def feeds_forward(graph: Graph) -> bool:
    """Is it a network over steps for certain, and no step of one? That is, of sequences (batch, time, features)."""
    return any("t" in node.op["axes"] for node in graph.inputs()) and _in_plain_order(graph)


def _in_plain_order(graph: Graph) -> bool:
    return all(node.op["axes"][:3] == "btf" for node in graph.inputs() if "t" in node.op["axes"])


def mixes_time(graph: Graph) -> bool:
    """Is there a system, or a stream of what was delayed or meets what all steps tell (linear attention, no mask)?

    The latter only of inputs (batch, time, features): read along other axes any network looks like that. Delays beside
    streams of lower rates may be no more than a dense layer, read along its few inputs.
    """
    if any(True for _ in graph.nodes(*SYSTEMS)):
        return True
    plain = _in_plain_order(graph)
    types = [graph.type(graph.operand(node.name, 0)) for node in graph.outputs()]
    rates = [kind.rate for kind in types if isinstance(kind, StreamType)]
    delayed = any(True for _ in graph.nodes("delay"))
    if delayed and (1 in rates or (plain and not rates and _at_one_rate(graph))):  # the latter of what is pooled then
        return True
    return plain and bool(rates) and bool(late_values(graph).first)


def delays_told(graph: Graph) -> tuple[str, ...]:
    """A note, where steps are delayed and no system is found: filters that became registers."""
    reach: dict[Value, int] = {}
    for node in graph.nodes("delay"):
        before = graph.operand(node.name, 0)
        reach[Value(node.name)] = int(node.op["steps"]) + reach.get(before, 0)
    if not reach or any(True for _ in graph.nodes(*SYSTEMS)):
        return ()
    names = list(dict.fromkeys(name for node in graph.nodes("delay") for name in node.provenance[:1]))
    who = f"'{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else "its filters"
    return (f"no system: {who} became registers that hold earlier steps (up to {max(reach.values())}), and matrices",)


def describe_systems(graph: Graph, lifts: list[Lift]) -> tuple[LiftedSystem, ...]:
    """The systems of a graph, with where they were found."""
    origin = {lift.node: lift for lift in lifts}
    found: list[LiftedSystem] = []
    for node in graph.nodes(*SYSTEMS):
        lift = origin.get(node.name)
        if lift is None and node.op.name == "fir":
            lift = Lift(node.name, "convolution", node.provenance, 0.0)
        if lift is None:
            continue
        found.append(_describe(graph, node.name, lift, len(found)))
    return tuple(found)


def _describe(graph: Graph, name: str, lift: Lift, number: int) -> LiftedSystem:
    node = graph.node(name)
    shape = features_of(graph, Value(node.name))
    size = int(np.prod(shape, dtype=np.int64))
    plain = LiftedSystem(
        name=f"system{number}",
        node=name,
        disguise=lift.disguise,
        kind="selective",
        groups=size,
        states=1,
        inputs=size,
        outputs=size,
        is_complex=kind_of(graph, Value(node.name)).element == "complex",
        reverse=bool(node.op["reverse"]),
        time_constants=None,
        frequencies=None,
        where=lift.where,
        proof_error=lift.proof_error,
        replacement=lift.replacement,
    )
    match node.op.name:
        case "recurrence":
            return replace(plain, kind="liquid") if is_liquid(graph, node) else plain
        case "fir":
            taps = node.op["kernel"].shape[1]
            return replace(plain, kind="fir", states=taps - 1)
        case "rounded_sums":
            sets, held = _sets(node.op), _held(node.op)
            sets = 1 if held % sets else sets  # sets that are not alike count as one
            found = replace(plain, kind="rounded", groups=sets, states=held // sets)
            if all((grid.codes, grid.rounding) == ((0.0, 1.0), "ceil") for grid in _all_grids(node.op)):
                return replace(found, kind="integrate and fire")
            return replace(found, grids=_all_grids(node.op))
        case "spike" | "rounded" as name:
            leak = _alone(node.op["decay"].array.reshape(-1), name == "rounded" and node.op["is_complex"])
            found = replace(plain, groups=leak.groups, is_complex=leak.is_complex)
            found = replace(found, time_constants=time_constants(leak), frequencies=frequencies(leak))
            if name == "spike":
                return replace(found, kind="integrate and fire")
            return replace(found, kind="rounded", grids=_grids(node.op))
    system: StateSpace = node.op["system"]
    return replace(
        plain,
        kind="asynchronous" if system.asynchronous else "linear time-invariant",
        groups=system.groups,
        states=system.states,
        inputs=system.inputs,
        outputs=system.outputs,
        is_complex=system.is_complex,
        time_constants=time_constants(system),
        frequencies=frequencies(system),
    )


def _grids(op: Op) -> tuple[StateGrid, ...]:
    """The grids of states that are rounded, by place."""

    def ends(*rows: Array) -> tuple[float, float]:
        return min(float(row.min()) for row in rows), max(float(row.max()) for row in rows)

    return tuple(
        StateGrid(place, ends(scale), ends(zero), ends(low, high), str(op["rounding"]))
        for place, (scale, _, zero, low, high) in grids_of(op).items()
    )


def _sets(op: Op) -> int:
    """Numbers that depend on each other, in so many sets."""
    return len(islands(op["grid"].shape[1], op["terms"].array))


def _held(op: Op) -> int:
    """How many of the numbers of a step the next one reads."""
    sources = op["terms"].array[1]
    return len(np.unique(sources[sources < op["grid"].shape[1]]))


def _all_grids(op: Op) -> tuple[StateGrid, ...]:
    """The grids of the sums of a step, those of the same scale and codes once."""
    scale, _, zero, low, high = op["grid"].array
    kept = scale != FREE
    ends = [(float(row[kept].min()), float(row[kept].max())) for row in (scale, zero)]
    codes = float(low[kept].min()), float(high[kept].max())
    return (StateGrid("sum", ends[0], ends[1], codes, str(op["rounding"])),)


def _alone(decay: Array, is_complex: bool) -> StateSpace:
    """The leak of states that nothing mixes, a group each."""
    half = len(decay) // 2
    poles = decay[:half] + 1j * decay[half:] if is_complex else decay
    one = np.ones((len(poles), 1, 1))
    return StateSpace(A=poles[:, None], B=one, C=one, D=0 * one)


def count_other_ops(graph: Graph) -> dict[str, int]:
    """How often each op occurs that is neither a system nor mere arrangement."""
    names = Counter(
        f"{node.op.name} {node.op['fn']}" if node.op.name in ("unary", "binary", "gate", "reduce") else node.op.name
        for node in graph.nodes()
        if node.op.name not in STRUCTURE and node.op.name not in SYSTEMS
    )
    return dict(sorted(names.items()))


def with_roles(graph: Graph, ports: Sequence[Port]) -> tuple[Port, ...]:
    """A sequence model's inputs; those from which no system starts are data, in `graph` too, and cannot be left out."""
    found = []
    for port in ports:
        if port.role == "state" and not _starts(graph, port.name):
            (node,) = (node for node in graph.nodes("input") if node.op["name"] == port.name)
            graph.set_op(node.name, node.op.with_attrs(role="data"))
            port = replace(port, role="data")
        found.append(port)
    return tuple(found)


def _starts(graph: Graph, name: str) -> bool:
    """Does a system start from this input, or from what is computed of it alone, before there are any steps?"""
    waiting = [Value(node.name) for node in graph.nodes("input") if node.op["name"] == name]
    seen = set(waiting)
    while waiting:
        for user, slot in graph.users(waiting.pop()):
            names = spec_of(graph.op(user).name).operands
            if names[min(slot, len(names) - 1)] in STARTS:
                return True
            results = [Value(user, k) for k, kind in enumerate(graph.node(user).types)]
            further = [v for v in results if v not in seen and not isinstance(graph.type(v), StreamType)]
            seen.update(further)
            waiting += further
    return False
