"""What a pass is, what it may ask of its surroundings, and what it reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, StreamType
from ssmc.ir.op import Array
from ssmc.passes.choices import Alternative, BankChoice, CouplingChoice, UnitChoice
from ssmc.passes.machine import Machine

if TYPE_CHECKING:  # it needs scipy, which takes a second
    from ssmc.passes.decay_fit import Fit


class Pass(ABC):
    """A rewrite of a graph; a subclass is a frozen dataclass whose fields are its options.

    `ShareDecays(levels=6)` in Python and `share-decays{levels=6}` in a pipeline are the same thing. The
    subclass's docstring shows a before and an after. `tolerance` is what the pass promises: outputs stay within
    it, relative to their largest element, on every input; a `lossy` pass promises nothing unless it says so, and
    what it loses is measured and bounded instead. A pass may make `tolerance` a field, to let the user set it.

    A pass never changes the graph that it is given. A node whose value it changes gets a new name, so that a
    name means the same value before and after (in lossy passes, within the loss).
    """

    name: ClassVar[str]
    lossy: ClassVar[bool] = False
    tolerance: float = 1e-9

    @abstractmethod
    def run(self, graph: Graph, context: Context) -> Graph:
        """The rewritten graph; `graph` itself where there is nothing to do. Raises UserError, Misfit."""


@dataclass(frozen=True)
class LayerLoss:
    """What a lossy pass did to one node.

    `measured` is `max|y - y'| / max|y|` at the node, with all that came before it changed too. `bound` holds for
    every input, for this node alone: `max|y - y'| <= bound * max|u|`, from a zero state; None where there is none,
    and `note` says why.
    """

    node: str
    onnx_nodes: tuple[str, ...]
    measured: float | None
    bound: float | None
    note: str = ""


@dataclass(frozen=True)
class LossReport:
    """What a lossy pass lost: `outputs` by name, `max|y - y'| / max|y|` on `data` ("calibration" or "probe")."""

    pass_text: str
    data: str
    outputs: Mapping[str, float]
    layers: tuple[LayerLoss, ...]


@dataclass(frozen=True)
class DecayLoss:
    """What sharing decays did to one layer: `h2` is `||h - h'||_2 / ||h||_2` over the steps that count; `measured`
    that of the outputs on the calibration data; `bound` as in `LayerLoss`, over those steps, of event-driven layers
    for events that come no denser than the data's; `noise` is what the target's arrays and devices are expected to
    add, rms, relative, where C was fitted against it. None is what is not known."""

    node: str
    before: int
    after: int
    h2: float
    measured: float | None
    bound: float | None
    noise: float | None = None


@dataclass(frozen=True)
class Note:
    """Something a pass found worth telling, about one node or (empty) about the graph."""

    pass_name: str
    node: str
    text: str


@dataclass
class Context:
    """What passes may ask for, and where they report.

    `calibration` holds arrays by input name in the graph's layout. `ideal` asks for exact arithmetic: passes that
    take their widths from the machine then change nothing. `steps` is the length of the model's own sequences, `batch`
    how many of them its file takes at once, 0 where these are free. `later` are the passes of the pipeline that are
    still to run; `fits` what was fitted to look ahead, by node.
    """

    machine: Machine | None = None
    calibration: Mapping[str, Array] | None = None
    seed: int = 0
    ideal: bool = False
    losses: list[LossReport] = field(default_factory=list)
    decays: list[DecayLoss] = field(default_factory=list)
    alternatives: list[Alternative] = field(default_factory=list)
    banks: list[BankChoice] = field(default_factory=list)
    couplings: list[CouplingChoice] = field(default_factory=list)
    units: list[UnitChoice] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    steps: int = 0
    batch: int = 0
    later: tuple[Pass, ...] = ()
    fits: dict[str, Fit] = field(default_factory=dict)

    def calibration_steps(self, graph: Graph) -> int:
        """Steps of the calibration data's sequences; 0: there are none."""
        streams = {node.op["name"] for node in graph.inputs() if isinstance(node.types[0], StreamType)}
        given = [len(array[0]) for name, array in (self.calibration or {}).items() if name in streams and len(array)]
        return max(given, default=0)

    def usual_steps(self, graph: Graph) -> int:
        """Steps of a usual sequence: as many as the calibration data has, else as the model's file says; 0: unknown."""
        return self.calibration_steps(graph) or self.steps

    def note(self, pass_: Pass, node: str, text: str) -> None:
        """Tell the user something about a node, or (`node` empty) about the graph."""
        self.notes.append(Note(pass_.name, node, text))

    def require_machine(self, pass_: Pass) -> Machine:
        """The target's machine. Raises UserError where the pipeline runs without a target."""
        if self.machine is None:
            raise UserError(
                "the pass needs a target machine",
                where=f"pass '{pass_.name}'",
                hint="give Context(machine=...), as a backend's `machine(arch, ideal=...)` makes it",
            )
        return self.machine
