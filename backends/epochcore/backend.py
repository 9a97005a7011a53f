"""EpochCore as a target of the compiler (the contract is `ssmc.target.Backend`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.epochcore.arch import DEFAULT, Arch, arch_text, architectures, load_arch
from isa import InstructionSet, Program
from isa.epochcore import EPOCHCORE
from ssmc.architecture import Key, keys
from ssmc.garbage import seldom_searched
from ssmc.ir import Graph
from ssmc.ir.op import Array
from ssmc.passes.machine import FixedPoint, Machine, StateBank
from ssmc.target import RunResult, RunSettings


@dataclass(frozen=True)
class EpochCore:
    """A systolic array whose elements hold the states; reconstructed from arXiv 2507.21394."""

    name: str = "epochcore"
    summary: str = "systolic array with states in place (EpochCore, reconstructed); plain systolic arrays too"
    default_arch: str = DEFAULT

    @property
    def instruction_set(self) -> InstructionSet:
        return EPOCHCORE

    def architectures(self) -> tuple[str, ...]:
        return architectures()

    def noise_presets(self) -> tuple[str, ...]:
        """None: the machine is digital. What it rounds is the difference between ideal and realistic programs."""
        return ()

    def load_arch(self, source: str | None) -> Arch:
        return load_arch(source)

    def arch_text(self, arch: Arch) -> str:
        return arch_text(arch)

    def arch_keys(self) -> tuple[Key, ...]:
        return keys(Arch)

    def machine(self, arch: Arch, *, ideal: bool) -> Machine:
        """States have room without limit: they are moved out of the array between its passes."""
        modes, native = arch.array.modes, arch.array.complex == "native"
        integer = not ideal and arch.numbers.fixed
        banks = []
        if "fri" in modes:
            banks.append(StateBank("fri", fused=True, native_complex=native))
        if "tri" in modes:
            banks.append(StateBank("tri", fused=True, liquid=True, native_complex=native))
        if "fri.x" in modes:
            banks.append(StateBank("fri.x", native_complex=native))
        if "sel" in modes:
            banks.append(StateBank("sel", computed_decay=True, native_complex=native))
        # with no state modes the forms of a whole system are chosen between by cost
        banks.append(StateBank("vector", computed_decay=True, fused="fri" not in modes))
        if "tri" not in modes:
            banks.append(StateBank("vector", fused=True, liquid=True))
        return Machine(
            target=self.name,
            array_rows=arch.array.rows,
            array_cols=arch.array.cols,
            arrays=None,
            cells_per_weight=1,
            banks=tuple(banks),
            weight_bits=arch.numbers.weight_bits if integer else None,
            state_parameter_bits=arch.numbers.parameter_bits if integer else None,
            states=FixedPoint(arch.numbers.state_bits, arch.numbers.state_fraction_bits) if integer else None,
            sweeps=True,
            rounds=True,
        )

    def pipeline(self, arch: Arch, *, ideal: bool) -> str:
        exact = "fold-constants,fold-norms,discretize,diagonalize,halve-conjugates,fold-liquid,fold-readout"
        if ideal:
            return f"{exact},tile{{fold_output=true}},map-weights,schedule"
        if not arch.numbers.fixed:
            return f"{exact},tile,map-weights,schedule"
        # integer weights are those of the matrices as trained
        return f"{exact},quantize{{weights={arch.numbers.weight_bits}}},tile,map-weights,choose-units,schedule"

    def lower(self, graph: Graph, arch: Arch, *, ideal: bool) -> Program:
        from backends.epochcore.lower.compile import lower

        with seldom_searched():
            return lower(graph, arch, ideal=ideal)

    def simulate(self, program: Program, inputs: Mapping[str, Array], settings: RunSettings) -> RunResult:
        from backends.epochcore.simulate.run import simulate

        return simulate(program, inputs, settings)
