"""The target `cim` as the driver sees it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum

import numpy as np

from backends.cim import arch_file
from backends.cim.arch import Architecture, Devices
from backends.cim.clock.statistics import statistics, trace
from backends.cim.lower.compile import lower
from backends.cim.program.declared import Tap, binding_of, meetings_of, taps_of
from backends.cim.program.encoding import encoding_of
from backends.cim.simulate.converters import largest_word
from backends.cim.simulate.core import join_samples
from backends.cim.simulate.devices import PRESETS, preset, product_sigma, read_sigma, with_window, written_sigma
from backends.cim.simulate.memory import Steps
from backends.cim.simulate.run import execute, output_arrays
from backends.cim.simulate.running import Run
from isa import InstructionSet, Port, Program
from isa.cim import CIM
from ssmc.architecture import Key, keys
from ssmc.diagnostics import UserError
from ssmc.ir import Graph
from ssmc.ir.op import Array
from ssmc.passes.machine import ArrayErrors, Converters, Coupling, Machine, ProductCost, StateBank, StateCost
from ssmc.target import RunResult, RunSettings

_EXACT = "fold-constants,fold-norms,discretize,diagonalize,halve-conjugates,fold-readout,choose-banks"
_PLACED = "tile,balance-columns,map-weights,{couple}calibrate,schedule"
ROTATIONS, ROTATION_PASSES = 2, 2  # into the frame and out of it; passes of `rot` (see `costs`)
SAMPLES_AT_ONCE = 4096  # the chip is run anew for further ones, so that memory does not grow with them
SEARCHED = 2  # so few decays that it pays to look for the best


@dataclass(frozen=True)
class CimBackend:
    """Crossbars with volatile states; see `ssmc.target.Backend`."""

    name: str = "cim"
    summary: str = "crossbar compute-in-memory: volatile devices whose own decay is the state"
    default_arch: str = arch_file.DEFAULT

    @property
    def instruction_set(self) -> InstructionSet:
        return CIM

    def architectures(self) -> tuple[str, ...]:
        return arch_file.architectures()

    def noise_presets(self) -> tuple[str, ...]:
        return (*PRESETS, "arch")

    def load_arch(self, source: str | None) -> Architecture:
        return arch_file.load_arch(source)

    def arch_text(self, arch: Architecture) -> str:
        return arch_file.arch_text(arch)

    def arch_keys(self) -> tuple[Key, ...]:
        return keys(Architecture)

    def machine(self, arch: Architecture, *, ideal: bool) -> Machine:
        """Volatile states come first; without rounding where ideal."""
        return Machine(
            target=self.name,
            array_rows=arch.crossbar.rows,
            array_cols=arch.crossbar.cols,
            arrays=arch.arrays,
            cells_per_weight=arch.crossbar.cells_per_weight,
            banks=(
                volatile_bank(arch, ideal=ideal),
                digital_bank(arch),
                *((feedback_bank(arch, ideal=ideal),) if arch.crossbar.feedback and not arch.crossbar.reloads else ()),
            ),
            weight_bits=None if ideal else weight_bits(arch),
            decay_levels=None if ideal or not arch.volatile.per_core else arch.volatile.time_constants,
            converters=None if ideal else converters(arch),
            errors=None if ideal else array_errors(arch),
            product_cost=product_cost(arch),
            coupling=coupling(arch),
            arrays_per_core=arch.crossbar.per_core,
            mesh_width=arch.mesh_width,
            sweeps=True,
            reloads=arch.crossbar.reloads,
        )

    def pipeline(self, arch: Architecture, *, ideal: bool) -> str:
        placed = _PLACED.format(couple="couple," if coupling(arch) is not None else "")
        if ideal:
            return f"{_EXACT},{placed}"
        levels = arch.volatile.time_constants
        shared = f"share-decays{{levels={levels}{',search=true' if levels <= SEARCHED else ''}}},"
        if not arch.volatile.per_core:
            shared = ""
        scaled = "scale-states," if arch.crossbar.couples("in") else ""
        return f"{_EXACT},{shared}{scaled}quantize{{weights={weight_bits(arch)}}},{placed}"

    def lower(self, graph: Graph, arch: Architecture, *, ideal: bool) -> Program:
        return lower(graph, arch, ideal=ideal)

    def simulate(self, program: Program, inputs: Mapping[str, Array], settings: RunSettings) -> RunResult:
        if settings.occupancy:
            raise UserError(f"target '{self.name}' has no array of processing elements to show")
        arch = arch_file.load_arch(program.arch)
        ideal, devices = self._devices(program, arch, settings)
        arch = with_window(arch, devices)
        steps, batch = _extent(program, inputs)
        counts: Counter[tuple[int | None, str]] = Counter()
        passed: dict[tuple[int, int], list[float]] = defaultdict(list)
        parts: list[Mapping[int, Array]] = []
        tapped: dict[str, list[Array]] = defaultdict(list)
        words = {binding_of(port).channel: _words(port, inputs, batch) for port in program.inputs}
        for first in range(0, batch, SAMPLES_AT_ONCE):
            samples = slice(first, min(first + SAMPLES_AT_ONCE, batch))
            run = Run(program, arch, devices, ideal, settings, steps, samples.stop - first, first)
            run.inputs = {channel: array[samples] for channel, array in words.items()}
            execute(run)
            for core in run.cores.values():
                counts.update(core.counts)
                for index, times in core.passed.items():
                    passed[core.number, index] += np.broadcast_to(times, run.batch).tolist()
            parts.append(output_arrays(run))
            for name, pieces in run.tapped.items():
                tapped[name].append(np.concatenate(pieces, axis=1))
        mean = {place: fsum(times) / batch for place, times in passed.items()}
        stats, timing = statistics(program, arch, batch, steps, counts, mean)
        found = {channel: join_samples([part[channel] for part in parts]) for channel in parts[0]}
        outputs = {port.name: _shaped(port, found.get(binding_of(port).channel), batch) for port in program.outputs}
        taps = {name: join_samples(pieces) for name, pieces in tapped.items()}
        shapes = {tap.layer: tap for tap in taps_of(program)} if settings.taps else {}
        return RunResult(
            outputs,
            stats,
            {name: _tapped(array, shapes[name]) for name, array in taps.items()},
            trace(program, arch, timing) if settings.trace else (),
        )

    def _devices(self, program: Program, arch: Architecture, settings: RunSettings) -> tuple[bool, Devices]:
        """Whether devices are perfect, and what they are like."""
        if settings.noise is None:
            return bool(program.meta.get("ideal")), arch.devices
        return settings.noise == "ideal", preset(settings.noise, arch.devices)


def volatile_bank(arch: Architecture, *, ideal: bool) -> StateBank:
    """The bank of devices that decay by themselves: what it holds, how fast, at what energy (joules)."""
    count, unit = arch.mesh.cores * arch.volatile.per_core, arch.time.step_seconds
    pico, turn = 1e-12, ROTATIONS * ROTATION_PASSES * arch.energy.vector_word
    cost = StateCost(pico * (arch.energy.state_charge + arch.energy.state_read), pico * turn)
    if ideal:
        return StateBank("volatile", count, decay_only=True, cost=cost)
    return StateBank(
        "volatile",
        count,
        decay_only=True,
        fastest=unit / arch.volatile.tau_min,
        slowest=unit / arch.volatile.tau_max,
        spread=arch.devices.decay_sigma,
        unit=arch.time.unit(timed=True) / unit,
        cost=cost,
    )


def digital_bank(arch: Architecture) -> StateBank:
    """The bank of registers and multipliers: any decay, at what energy (joules)."""
    one = 1e-12 * arch.energy.digital_state
    count = arch.mesh.cores * arch.digital.per_core
    keep = arch.energy.digital_keep_watts * arch.time.step_seconds
    unit = arch.time.unit(timed=True) / arch.time.step_seconds
    cost = StateCost(one, timed=one, keep=keep)
    return StateBank("digital", count, computed_decay=True, timed_decay=True, unit=unit, cost=cost)


def feedback_bank(arch: Architecture, *, ideal: bool) -> StateBank:
    """A in arrays, states in registers. A product errs by the rounding of its converters over their whole range, and by
    the devices' lumped figure, independently; each as `product_sigma` has it, of its largest output."""
    box, one, bits = arch.crossbar, arch.energy, [arch.devices.product_bits]
    bits += [box.dac_bits, box.adc_bits] if arch.devices.converters else []
    conversion = one.dac + box.slices * (one.adc + one.vector_word)
    devices = box.slices * (2 if box.encoding == "pair" else 1)
    cost = StateCost(
        1e-12 * (box.planes * conversion + 2 * one.vector_word), pair=1e-12 * box.planes * devices * one.device_read
    )
    error = 0.0 if ideal else float(np.sqrt(sum(product_sigma(np.array(1.0), b) ** 2 for b in bits if b)))
    return StateBank("feedback", dense=True, product_error=error, cost=cost)


def product_cost(arch: Architecture) -> ProductCost:
    """As `costs` has it."""
    box, one = arch.crossbar, arch.energy
    pair, pico = box.encoding == "pair", 1e-12
    row = box.planes * (one.dac + (0.0 if pair else one.device_read)) + (0.0 if pair else one.vector_word)
    col = box.planes * box.slices * (one.adc + one.vector_word)
    return ProductCost(pico * row, pico * col, pico * box.planes * box.slices * (2 if pair else 1) * one.device_read)


def converters(arch: Architecture) -> Converters:
    """Bits of the converters around a crossbar, and whether its inputs are scaled vector by vector."""
    box = arch.crossbar
    return Converters(box.dac_bits, box.adc_bits, each_vector=box.input_scale == "vector")


def coupling(arch: Architecture) -> Coupling | None:
    """What lines spare: of a column the ADC and the digital scale behind it, of a row the DAC."""
    into, out, energy = arch.crossbar.couples("in"), arch.crossbar.couples("out"), arch.energy
    if not (into or out) or not arch.volatile.per_core:
        return None
    joules = 1e-12 * (energy.adc + energy.vector_word), 1e-12 * energy.dac, 1e-12 * energy.mesh_word_hop
    return Coupling(into, out, arch.volatile.per_core, *joules, gain=arch.devices.line_gain)


def array_errors(arch: Architecture) -> ArrayErrors:
    """What the architecture's own devices do to a product, as far as it depends on how weights are chosen.

    Converters round by 1/sqrt(12) of a step. A device is taken at the middle of its window; the errors of a pair's two
    devices add up in squares. Digits of sliced weights are taken for the highest one, which counts most.
    """
    box, devices = with_window(arch, arch.devices).crossbar, arch.devices
    product = float(product_sigma(np.ones(1), devices.product_bits)[0]) if devices.product_bits else 0.0
    weight, drive = 0.0, 0.0
    if devices.converters:
        product = float(np.hypot(product, _rounding(largest_word(box.adc_bits))))
        drive = _rounding(largest_word(box.dac_bits))
    middle = np.array([(box.g_min + box.g_max) / 2])
    written = written_sigma(devices, middle, box.g_max)
    fresh = read_sigma(devices, middle, box.g_max)
    both = np.sqrt(2.0) if box.encoding == "pair" else 1.0
    weight = both * float(np.hypot(written, fresh)[0]) / (box.g_max - box.g_min)
    if devices.levels:
        weight = float(np.hypot(weight, _rounding(encoding_of(box).end)))
    return ArrayErrors(product, weight, drive)


def _rounding(largest: int) -> float:
    """Of the largest of `2 largest + 1` levels."""
    return float(1.0 / (largest * np.sqrt(12.0)))


def weight_bits(arch: Architecture) -> int:
    """Bits of a signed weight that the devices' levels hold (in powers of two, without a second rounding)."""
    return (encoding_of(arch.crossbar).end + 1).bit_length()


def _extent(program: Program, inputs: Mapping[str, Array]) -> tuple[int, int]:
    """Steps and samples, as the inputs say. Raises UserError where they disagree, or an input is missing or empty."""
    steps: dict[str, int] = {}
    batches: dict[str, int] = {}
    for port in program.inputs:
        if port.name not in inputs:
            if port.kind != "state":
                raise UserError(
                    f"the input '{port.name}' is missing",
                    hint=f"give an array of (batch{', time' if port.kind == 'stream' else ''}, *{port.shape})",
                )
            continue
        shape, outer = np.shape(inputs[port.name]), 2 if port.kind == "stream" else 1
        if len(shape) < outer or shape[outer:] != port.shape:
            raise UserError(
                f"the input '{port.name}' has the shape {shape}",
                hint=f"the program takes (batch{', time' if outer == 2 else ''}, *{port.shape})",
            )
        batches[port.name] = shape[0]
        if outer == 2:
            bound = binding_of(port)
            steps[port.name] = shape[1] if bound.stride == 1 else (shape[1] - 1) * bound.stride + bound.offset + 1
    if len(set(steps.values())) > 1 or len(set(batches.values())) > 1:
        told = ", ".join(f"'{name}' {np.shape(inputs[name])}" for name in batches)
        raise UserError("the inputs differ in batch or time", why=told, hint="give all of them the same two first axes")
    if 0 in batches.values():
        raise UserError("the inputs hold no sample", hint="give a batch of one at least")
    if unknown := sorted(set(inputs) - {port.name for port in program.inputs}):
        known = ", ".join(port.name for port in program.inputs)
        raise UserError(f"the program has no input '{unknown[0]}'", hint=f"its inputs are: {known}")
    length = max(steps.values(), default=0)
    _check_meetings(program, length)
    return length, max(batches.values(), default=1)


def _check_meetings(program: Program, length: int) -> None:
    """Raises UserError where streams that meet have different numbers of steps at this length."""
    for layer, stride, begins in meetings_of(program):
        counts = [Steps(stride, begin, 0, length).count for begin in begins]
        if len(set(counts)) > 1:
            told = ", ".join(f"{n} from step {k} on" for n, k in zip(counts, begins, strict=True))
            raise UserError(
                f"layer '{layer}' reads streams that differ in time where the input has {length} steps",
                why=f"of every {stride} steps one is in each of them: {told}",
                hint="give a sequence at whose length they have the same number of steps",
            )


def _words(port: Port, inputs: Mapping[str, Array], batch: int) -> Array:
    """(batch, steps or 1, words) of an input; a state that is left out is zero."""
    size = int(np.prod(port.shape, dtype=int))
    if port.name not in inputs:
        return np.zeros((batch, 1, size * (2 if port.dtype == "complex128" else 1)))
    array = np.asarray(inputs[port.name])
    flat = array.reshape(batch, -1 if port.kind == "stream" else 1, size)
    if port.dtype == "complex128":
        return np.concatenate([flat.real, flat.imag], axis=2)
    return np.ascontiguousarray(flat, dtype=np.float64)


def _shaped(port: Port, array: Array | None, batch: int) -> Array:
    """What the host got, in the graph's layout."""
    size = int(np.prod(port.shape, dtype=int))
    if array is None:
        array = np.zeros((batch, 0, size * (2 if port.dtype == "complex128" else 1)))
    if port.dtype == "complex128":
        array = array[..., :size] + 1j * array[..., size:]
    outer = array.shape[:2] if port.kind == "stream" else array.shape[:1]
    return np.ascontiguousarray(array).reshape(*outer, *port.shape)


def _tapped(array: Array, tap: Tap) -> Array:
    outer = array.shape[:2] if tap.stream else array.shape[:1]
    return array.reshape(*outer, *tap.shape)


BACKEND = CimBackend()
