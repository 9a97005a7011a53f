"""The contract between the driver and a target; targets are found by the entry-point group `ssmc.backends`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from ssmc.diagnostics import UserError

if TYPE_CHECKING:
    from isa.program import Program
    from isa.spec import InstructionSet
    from ssmc.architecture import Key
    from ssmc.ir.graph import Graph
    from ssmc.ir.op import Array
    from ssmc.passes.machine import Machine


@dataclass(frozen=True)
class LayerStats:
    """Costs of one layer; None is what the target cannot know."""

    name: str
    onnx_nodes: tuple[str, ...]
    op: str
    cycles: int | None
    seconds: float | None
    energy_joules: float | None
    utilization: float | None


@dataclass(frozen=True)
class Stats:
    """Costs of a run as given: whole batch, all steps. `seconds` is simulated time; None is not known."""

    target: str
    arch: str
    cycles: int | None
    seconds: float | None
    energy_joules: float | None
    instructions: int
    macs: int
    batch: int
    steps: int
    layers: tuple[LayerStats, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSettings:
    """How to run a program. Equal settings, program and inputs give equal results, whatever the blocking.

    `noise` names a device preset (None: what the program was compiled with), with changes as in `pcm{read_scale=0}`.
    `strict` makes an error of what is otherwise counted: states outside of their devices' window. `block` is how many
    time steps are executed at once (None: the simulator's choice, 1: step by step). `taps` keeps every layer's value,
    `occupancy` counts the cycles of every processing element; a target that has none may refuse it before it runs.
    """

    seed: int = 0
    noise: str | None = None
    block: int | None = None
    taps: bool = False
    trace: bool = False
    strict: bool = False
    occupancy: bool = False


@dataclass(frozen=True)
class RunResult:
    """Outputs by name, in the graph's layout (batch, time, features) or (batch, features).

    `taps`: layer name -> its value in the same layout. `trace`: Chrome trace events. `occupancy`: cycles (rows, cols)
    in which each processing element computed; None where the target has none, or it was not asked for.
    """

    outputs: Mapping[str, Array]
    stats: Stats
    taps: Mapping[str, Array] = field(default_factory=dict)
    trace: tuple[Mapping[str, Any], ...] = ()
    occupancy: Array | None = None


class Backend(Protocol):
    """A target. `arch` is whatever `load_arch` returns: the backend's own validated description."""

    @property
    def name(self) -> str:
        """The name of the entry point, as `--target` takes it."""

    @property
    def summary(self) -> str:
        """One line for `ssmc targets`."""

    @property
    def instruction_set(self) -> InstructionSet:
        """The table of instructions that its programs are made of."""

    @property
    def default_arch(self) -> str:
        """Name of a packaged architecture."""

    def architectures(self) -> tuple[str, ...]:
        """Names of the packaged architectures."""

    def noise_presets(self) -> tuple[str, ...]:
        """Names of the device presets that `--noise` takes; none where arithmetic is digital."""

    def load_arch(self, source: str | None) -> Any:
        """A packaged name or a path of a YAML file, validated. Raises UserError with file:line."""

    def arch_text(self, arch: Any) -> str:
        """The canonical text that a program carries."""

    def arch_keys(self) -> tuple[Key, ...]:
        """What an architecture file may say."""

    def machine(self, arch: Any, *, ideal: bool) -> Machine:
        """What the machine-independent passes must know."""

    def pipeline(self, arch: Any, *, ideal: bool) -> str:
        """The default pass pipeline, from a lifted graph to a scheduled tile graph."""

    def lower(self, graph: Graph, arch: Any, *, ideal: bool) -> Program:
        """Instructions for a scheduled tile graph. Raises Misfit, UserError."""

    def simulate(self, program: Program, inputs: Mapping[str, Array], settings: RunSettings) -> RunResult:
        """Run a program; inputs by name in the graph's layout. Raises UserError on a trap."""


GROUP = "ssmc.backends"


def target_names() -> tuple[str, ...]:
    """The installed targets; none is loaded."""
    return tuple(sorted(point.name for point in entry_points(group=GROUP)))


@cache
def backend(name: str) -> Backend:
    """A target by name. Raises UserError where there is none, listing the installed ones, or it cannot be loaded."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise UserError(f"no target is called '{name}'", hint=f"installed targets: {', '.join(sorted(points))}")
    try:
        found: Backend = points[name].load()
    except Exception as error:  # someone else's package may fail in any way
        where = f"entry point '{name}' of group '{GROUP}'"
        raise UserError(
            "the target cannot be loaded", where=where, why=str(error), hint="repair or uninstall its package"
        ) from error
    return found


def backends() -> dict[str, Backend]:
    """Every installed target by name. Raises UserError where one cannot be loaded."""
    return {name: backend(name) for name in target_names()}
