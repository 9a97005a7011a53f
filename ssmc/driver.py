"""From a model to a program, and from a program to results: what `ssmc` does, without the command line.

executable = compile_model("model.onnx", "cim")
result = executable.run({"features": array})
executable.save("model.ssmx")
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import isa
from ssmc import arrays, files
from ssmc.diagnostics import UserError, near
from ssmc.garbage import seldom_searched
from ssmc.interface import Interface, Port, from_json, to_json
from ssmc.ir.op import Array
from ssmc.target import Backend, RunResult, RunSettings, backend, target_names

if TYPE_CHECKING:
    from ssmc.frontend import Model
    from ssmc.ir import Graph
    from ssmc.passes import Context, Note, Observer, Pass, Step

SUFFIX = ".ssmx"


@dataclass(frozen=True)
class Compilation:
    """How a program came to be. `graph` is the scheduled tile graph that was lowered, `arch` the target's own
    description of the machine, `context` what the passes were given and what they reported: losses, banks, units."""

    model: Model
    graph: Graph
    arch: Any
    steps: tuple[Step, ...]
    context: Context

    @property
    def notes(self) -> tuple[Note, ...]:
        """What lifting and the passes tell the user."""
        from ssmc.passes import Note

        return (*(Note("lift", "", text) for text in self.model.notes), *self.context.notes)


@dataclass(frozen=True)
class Executable:
    """A program with the target that runs it; `compilation` is None for one that was loaded from a file."""

    program: isa.Program
    backend: Backend
    compilation: Compilation | None = field(default=None, compare=False)

    @cached_property
    def interface(self) -> Interface:
        """The model's inputs and outputs; of a program that the compiler did not make, those that it declares.

        Raises UserError where it declares none, or what is none."""
        data: Any = self.program.meta.get("interface")
        if data is not None:
            return from_json(data)
        if self.program.inputs or self.program.outputs:
            return from_json(_declared(self.program))
        raise UserError(
            "the program does not say what its inputs and outputs are",
            why="it holds no '.input' and no '.output'",
            hint="declare them in the assembly, or keep the .meta lines that the compiler wrote",
        )

    @property
    def ideal(self) -> bool:
        """Was it compiled for float arithmetic and perfect devices?"""
        return self.program.meta.get("ideal") is True

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        seed: int = 0,
        noise: str | None = None,
        block: int | None = None,
        taps: bool = False,
        trace: bool = False,
        strict: bool = False,
        occupancy: bool = False,
    ) -> RunResult:
        """Simulate the program on arrays named as the model's inputs, batch first.

        Outputs come back in the model's axes and element types; `taps`, where asked for, in the graph's layout. A
        one-step model takes `(batch, time, ...)` and may leave out its states. The settings are those of
        `ssmc.target.RunSettings`. Raises UserError where inputs do not fit, or the machine traps.
        """
        settings = RunSettings(
            seed=seed, noise=noise, block=block, taps=taps, trace=trace, strict=strict, occupancy=occupancy
        )
        result = self.simulate(arrays.fit(inputs, self.interface), settings)
        return replace(result, outputs=arrays.unfit(result.outputs, self.interface))

    def simulate(self, inputs: Mapping[str, Array], settings: RunSettings) -> RunResult:
        """Simulate on arrays in the graph's layout; outputs stay in it. Raises UserError."""
        presets = self.backend.noise_presets()
        if settings.noise is not None and settings.noise.partition("{")[0] not in presets:
            there = f"it has: {', '.join(presets)}" if presets else "its arithmetic is digital: leave --noise out"
            raise UserError(
                f"target '{self.backend.name}' has no noise preset '{settings.noise}'",
                hint=near(settings.noise, presets) or there,
            )
        return self.backend.simulate(self.program, inputs, settings)

    def save(self, path: str | Path) -> None:
        """Write the program file, whole or not at all; the same program gives the same bytes. Raises UserError."""
        files.writable(path)
        try:
            isa.save(self.program, path, INSTRUCTION_SETS)
        except OSError as error:
            raise UserError("the file cannot be written", where=str(path), why=error.strerror or str(error)) from None

    def assembly(self) -> str:
        """The program as canonical assembly text."""
        return isa.disassemble(self.program, INSTRUCTION_SETS)


def load(path: str | Path) -> Model | Executable:
    """A model (.onnx) lifted to its state-space systems, or a program (.ssmx) ready to run.

    Raises UserError or isa.IsaError where the file is missing, damaged or not supported.
    """
    return load_program(path) if Path(path).suffix == SUFFIX else load_model(path)


def load_model(
    path: str | Path,
    *,
    states: Mapping[str, str] | None = None,
    tolerance: float = 1e-6,
    strict: bool = True,
    drop_rounding: bool = False,
) -> Model:
    """A model from an ONNX file. `states` overrides which state input is fed by which output; `tolerance` is what a
    system may miss a kernel by that it stands for, relative to its largest tap; without `strict` what cannot be
    compiled is listed in the model instead of raised; `drop_rounding` leaves out the rounding of all but weights, and
    notes what that changes. Raises UserError."""
    from ssmc import frontend

    if not 0 < tolerance < 1:
        raise UserError(f"a tolerance is between 0 and 1, not {tolerance:g}", hint="the default is 1e-6")
    with seldom_searched():
        return frontend.load_model(path, tolerance=tolerance, states=states, strict=strict, drop_rounding=drop_rounding)


def load_program(path: str | Path) -> Executable:
    """A program from its file. Raises isa.IsaError or UserError where it is missing, damaged or for no target here."""
    program = isa.load(path, INSTRUCTION_SETS)
    return Executable(program, backend(program.target))


def assemble(text: str, file: str = "<text>", data: Mapping[str, Array] | None = None) -> Executable:
    """A program from assembly text; `data` holds the constants that the text names. Raises isa.AsmError."""
    program = isa.assemble(text, file, INSTRUCTION_SETS, data)
    return Executable(program, backend(program.target))


def compile_model(
    model: Model | str | Path,
    target: str,
    *,
    arch: str | None = None,
    passes: str | Sequence[Pass] | None = None,
    calibration: Mapping[str, Any] | None = None,
    ideal: bool = False,
    seed: int = 0,
    observers: Sequence[Observer] = (),
    validate: bool = True,
) -> Executable:
    """Compile `model` for `target`.

    `arch` is a packaged architecture or a path (default: the target's own choice). `passes` is a pipeline, as text or
    as passes; in text, `default` stands for the target's own pipeline. `calibration` holds arrays as for `run`.
    `ideal` asks for float arithmetic and perfect devices, `seed` is that of random probes. `observers` are called after
    every pass, with what it did (`ssmc.passes.Step`); without `validate` no result is compared before and after it.
    Raises UserError, ssmc.diagnostics.Misfit.
    """
    from ssmc.passes import Context, PassManager, parse_pipeline
    from ssmc.threads import one_blas_thread

    model = load_model(model) if isinstance(model, str | Path) else model
    machine_of = backend(target)
    described = machine_of.load_arch(arch)
    context = Context(
        machine=machine_of.machine(described, ideal=ideal),
        calibration=None if calibration is None else arrays.fit(calibration, model.interface, where="calibration data"),
        seed=seed,
        ideal=ideal,
        steps=_own_size(model, "t"),
        batch=_own_size(model, "b"),
    )
    steps: list[Step] = []
    own = machine_of.pipeline(described, ideal=ideal)
    chosen = own if passes is None else parse_pipeline(passes, own) if isinstance(passes, str) else passes
    manager = PassManager(chosen, observers=(steps.append, *observers), validate=validate)
    with one_blas_thread(), seldom_searched():
        graph = manager.run(model.graph, context)
        program = machine_of.lower(graph, described, ideal=ideal)
    program = replace(program, meta={**program.meta, **_meta(model, str(manager), ideal)})
    return Executable(program, machine_of, Compilation(model, graph, described, tuple(steps), context))


def _own_size(model: Model, letter: str) -> int:
    """Steps ("t") of a sequence, or sequences ("b"), as the model's file gives them, 0 where they are dynamic."""
    sizes = [
        size
        for port in model.interface.inputs
        for axis, size in zip(_own_axes(port, model.form), port.shape, strict=False)
        if axis == letter and isinstance(size, int)
    ]
    return max(sizes, default=0)


def _own_axes(port: Port, form: str) -> str:
    """The axes of an input in the model's file: a one-step file has no time, and some have no batch."""
    axes = port.axes
    for letter in "tb" if form == "step" else "b":
        axes = axes.replace(letter, "") if len(axes) > len(port.shape) else axes
    return axes


def default_pipeline(target: str, *, arch: str | None = None, ideal: bool = False) -> tuple[Pass, ...]:
    """The passes that `compile_model` runs for a target when none are given. Raises UserError."""
    from ssmc.passes import parse_pipeline

    machine_of = backend(target)
    return parse_pipeline(machine_of.pipeline(machine_of.load_arch(arch), ideal=ideal))


def _declared(program: isa.Program) -> dict[str, Any]:
    """What the program's own ports say, as metadata has it: batch first, of streams then time, then the features; axes
    and roles that the compiler left in the bindings count."""

    def port(found: isa.Port) -> dict[str, Any]:
        binding = found.binding if isinstance(found.binding, Mapping) else {}
        streams, state = found.kind == "stream", found.kind == "state"
        kind = {"kind": "stream" if streams else "sequence", "shape": list(found.shape), "element": "real"}
        axes = binding.get("axes", ("bt" if streams else "b") + "f" * len(found.shape))
        role = binding.get("role", "state" if state else "data")
        return {"name": found.name, "axes": axes, "shape": [], "dtype": found.dtype, "role": role, "type": kind}

    inputs, outputs = (list(map(port, ports)) for ports in (program.inputs, program.outputs))
    return {"form": "sequence", "states": {}, "inputs": inputs, "outputs": outputs}


def _meta(model: Model, pipeline: str, ideal: bool) -> dict[str, Any]:
    """What the compiler has to say; nothing that changes from one run to the next."""
    from importlib.metadata import version

    path = Path(model.path)
    return {
        "compiler": {"name": "ssmc", "version": version("ssmc")},
        "model": {"file": path.name, "sha256": _digest(path)},
        "interface": to_json(model.interface),
        "pipeline": pipeline,
        "ideal": ideal,
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _InstructionSets(Mapping[str, isa.InstructionSet]):
    """The instruction sets of the installed targets, third parties' included; a target is loaded when asked for."""

    def __getitem__(self, name: str) -> isa.InstructionSet:
        if name not in target_names():
            raise KeyError(name)
        return backend(name).instruction_set

    def __contains__(self, name: object) -> bool:
        return name in target_names()

    def __iter__(self) -> Iterator[str]:
        return iter(target_names())

    def __len__(self) -> int:
        return len(target_names())


INSTRUCTION_SETS = _InstructionSets()
