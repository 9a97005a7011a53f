"""The smallest target: a machine with one instruction, which interprets the graph that its program carries as text.

A third party's target is such an object behind an entry point of the group `ssmc.backends`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isa import Field, InstructionSet, InstructionSpec, Kind, Loc, Program, SectionBuilder, Term
from ssmc.architecture import Key
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Quantization, StreamType, Tensor, Value, interpret
from ssmc.ir.parse import parse
from ssmc.ir.text import constants, print_graph
from ssmc.passes import Machine, StateBank
from ssmc.target import LayerStats, RunResult, RunSettings, Stats

ISA = InstructionSet(
    name="toy",
    version="1.0",
    instructions=(
        InstructionSpec("stop", 0, (), "one", "Stop."),
        InstructionSpec("run", 1, (Field("steps", Kind.REG, 4, "How many steps."),), "one", "Run the graph."),
    ),
    registers=(Term("rT", "steps of the sequence"),),
    timings=(Term("one", "One cycle a step."),),
)


@dataclass(frozen=True)
class Toy:
    name: str = "toy"
    summary: str = "Interprets the graph"
    instruction_set: InstructionSet = ISA
    default_arch: str = "plain"

    def architectures(self) -> tuple[str, ...]:
        return ("plain",)

    def noise_presets(self) -> tuple[str, ...]:
        return ("quiet", "loud")

    def load_arch(self, source: str | None) -> Any:
        if source not in (None, "plain"):
            raise UserError(f"no architecture '{source}'")
        return Machine("toy", 8, 8, None, 1, (StateBank("digital"),))

    def arch_text(self, arch: Any) -> str:
        return json.dumps(asdict(arch))

    def arch_keys(self) -> tuple[Key, ...]:
        return ()  # it has no files

    def machine(self, arch: Any, *, ideal: bool) -> Machine:
        assert isinstance(arch, Machine)
        return arch

    def pipeline(self, arch: Any, *, ideal: bool) -> str:
        return "tile,map-weights,schedule"

    def lower(self, graph: Graph, arch: Any, *, ideal: bool) -> Program:
        code = SectionBuilder(ISA, "main")
        locs = []
        for node in graph.nodes():
            code.loc = len(locs)
            locs.append(Loc(node.name, node.op.name, node.provenance))
        code.emit("run", steps="rT")
        code.emit("stop")
        held = constants(graph)
        scales = {key: [t.quantization.bits, *t.quantization.scale] for key, t in held.items() if t.quantization}
        return Program(
            target="toy",
            isa_version=ISA.version,
            arch=self.arch_text(arch),
            sections=(code.build(),),
            data={key: tensor.array for key, tensor in held.items()},
            locs=tuple(locs),
            meta={"graph": print_graph(graph), "scales": scales},
        )

    def simulate(self, program: Program, inputs: Mapping[str, Any], settings: RunSettings) -> RunResult:
        scales: Any = program.meta["scales"]
        held = {
            key: Tensor(array, Quantization(scales[key][0], tuple(scales[key][1:])) if key in scales else None)
            for key, array in program.data.items()
        }
        graph = parse(str(program.meta["graph"]), held)
        values = interpret(graph, inputs, keep=True)
        rng = np.random.default_rng(settings.seed)
        loud = 0.01 if settings.noise == "loud" else 0.0
        outputs = {node.op["name"]: values[node.op["name"]] for node in graph.outputs()}
        outputs = {name: a + loud * rng.standard_normal(a.shape) for name, a in outputs.items()}
        first = next(node for node in graph.inputs() if isinstance(node.types[0], StreamType))
        batch, steps = inputs[first.op["name"]].shape[:2]
        layers = tuple(LayerStats(n.name, n.provenance, n.op.name, steps, None, None, None) for n in graph.nodes())
        stats = Stats("toy", "plain", steps * len(layers), None, None, 2, 0, batch, steps, layers)
        taps = {n.name: values[str(Value(n.name))] for n in graph.nodes()} if settings.taps else {}
        return RunResult(outputs, stats, taps, ({"name": "run", "ph": "X", "ts": 0, "dur": steps, "pid": 0, "tid": 0},))


TOY = Toy()
