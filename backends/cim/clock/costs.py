"""What one execution of an instruction takes: digital clock cycles, picojoules, multiply-accumulates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from backends.cim.arch import Architecture
from backends.cim.program.access import on_lines
from backends.cim.program.decode import Item
from ssmc.ir.ops.rounded import places_of

Data = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Cost:
    """One execution, for one sample. `conversions` are those of the ADCs, `drives` those of the DACs; `spared` is what
    lines save of both: conversions, drives."""

    cycles: int
    picojoules: float
    macs: int = 0
    conversions: int = 0
    drives: int = 0
    spared: tuple[int, int] = (0, 0)


def _up(number: int, by: int) -> int:
    return -(-number // by)


def _vector(item: Item, arch: Architecture, words: int, passes: float, extra: int = 0, macs: int = 0) -> Cost:
    cycles = int(_up(words, arch.vector.lanes) * passes) + extra
    return Cost(max(cycles, 1), words * passes * arch.energy.vector_word, macs)


def _words(passes: float) -> Callable[[Item, Architecture, Data], Cost]:
    return lambda item, arch, data: _vector(item, arch, item.integer("words"), passes)


def _control(item: Item, arch: Architecture, data: Data) -> Cost:
    return Cost(1, 0.0)


def _message(item: Item, arch: Architecture, data: Data) -> Cost:
    words = item.integer("words")
    return Cost(_up(words, arch.mesh.words_per_flit), words * arch.energy.mesh_word_hop)


def _table(item: Item, arch: Architecture, data: Data) -> Cost:
    words = item.integer("words")
    return Cost(_up(words, arch.vector.lanes), words * (arch.energy.vector_word + arch.energy.table_word))


def _load(item: Item, arch: Architecture, data: Data) -> Cost:
    return _vector(item, arch, int(data[item.text("data")].size), 1)


def _gather(item: Item, arch: Architecture, data: Data) -> Cost:
    return _vector(item, arch, int(data[item.text("index")].size), 1)


def _embed(item: Item, arch: Architecture, data: Data) -> Cost:
    words = item.integer("count") * int(data[item.text("table")][0].size)
    return Cost(_up(words, arch.vector.lanes), words * (arch.energy.vector_word + arch.energy.table_word))


def _norm(item: Item, arch: Architecture, data: Data) -> Cost:
    """Mean, variance, scale: three passes, and a root and a division for each group."""
    vectors = item.integer("vectors")
    return _vector(
        item, arch, item.integer("features") * vectors, 3, vectors * item.integer("groups") * arch.vector.norm_cycles
    )


def _softmax(item: Item, arch: Architecture, data: Data) -> Cost:
    vectors = item.integer("vectors")
    return _vector(item, arch, item.integer("features") * vectors, 3, vectors * arch.vector.norm_cycles)


def _reduce(item: Item, arch: Architecture, data: Data) -> Cost:
    return _vector(item, arch, item.integer("outer") * item.integer("words") * item.integer("inner"), 1)


def _contract(item: Item, arch: Architecture, data: Data) -> Cost:
    macs = item.integer("groups") * item.integer("rows") * item.integer("inner") * item.integer("cols")
    return _vector(item, arch, macs, 1, macs=macs)


def _fir(item: Item, arch: Architecture, data: Data) -> Cost:
    macs = int(data[item.text("kernel")].size)
    return _vector(item, arch, macs, 1, macs=macs)


def _line(item: Item, arch: Architecture, data: Data) -> Cost:
    return _vector(item, arch, item.integer("words") * item.integer("steps"), 1)


def _program(item: Item, arch: Architecture, data: Data) -> Cost:
    """Row after row: the devices of a row are written and verified together."""
    weights = data[item.text("weights")]
    energy = _devices(arch) * int(weights.size) * arch.energy.program_device
    return Cost(int(weights.shape[0]) * arch.timing.program_cycles, energy)


def _devices(arch: Architecture) -> int:
    """Devices of a weight."""
    return arch.crossbar.slices * (2 if arch.crossbar.encoding == "pair" else 1)


def _mvm(item: Item, arch: Architecture, data: Data) -> Cost:
    """DACs settle, the array is read, each ADC takes its columns in turn; the sums are scaled digitally.

    A pair's two columns meet before the ADC, so that a slice of a weight column takes one conversion (ours). Bits of
    an input that come one after the other take a read each. An offset's reference column is read with the others, and
    its inputs are summed digitally meanwhile, which takes energy and no time (ours). Columns on analog lines are all
    read at once, without ADCs and a digital scale; rows on lines are driven by state nodes, at once, without DACs.
    """
    rows, cols, vectors, box = item.integer("rows"), item.integer("cols"), item.integer("vectors"), arch.crossbar
    from_lines, to_lines = (on_lines(item.integer(name)) for name in ("src", "dst"))
    if from_lines or to_lines:
        return _coupled(arch, rows, cols, from_lines, to_lines)
    words = cols * box.slices
    shared = box.devices_per_weight if box.encoding == "pair" else 1
    turns = min(words, max(1, box.cols_per_adc // shared))
    read = arch.timing.dac_cycles + arch.timing.read_cycles + turns * arch.timing.adc_cycles
    cycles = box.planes * (read + _up(words, arch.vector.lanes))
    energy = rows * arch.energy.dac + _devices(arch) * rows * cols * arch.energy.device_read
    energy += words * (arch.energy.adc + arch.energy.vector_word)
    summed = 0.0
    if box.encoding == "offset":
        energy += rows * arch.energy.device_read
        summed = rows * arch.energy.vector_word
    return Cost(
        vectors * cycles,
        vectors * (box.planes * energy + summed),
        vectors * rows * cols,
        vectors * box.planes * words,
        vectors * box.planes * rows,
    )


def _coupled(arch: Architecture, rows: int, cols: int, from_lines: bool, to_lines: bool) -> Cost:
    """A product of single pairs and analog inputs, one vector, with lines on one side."""
    box, energy, timing = arch.crossbar, arch.energy, arch.timing
    cycles, picojoules = timing.read_cycles, 2 * rows * cols * energy.device_read
    drives, words = (0 if from_lines else rows), (0 if to_lines else cols)
    cycles += timing.dac_cycles if drives else 0
    if words:
        turns = min(cols, max(1, box.cols_per_adc // box.devices_per_weight))
        cycles += turns * timing.adc_cycles + _up(cols, arch.vector.lanes)
    picojoules += drives * energy.dac + words * (energy.adc + energy.vector_word)
    return Cost(cycles, picojoules, rows * cols, words, drives, (cols - words, rows - drives))


def _charge(item: Item, arch: Architecture, data: Data) -> Cost:
    """Words that come from registers and go there take their turns on the way; lines do not."""
    words, digital = item.integer("words"), not on_lines(item.integer("dst"))
    cycles = arch.volatile.charge_cycles + arch.volatile.read_cycles
    cycles += _up(words, arch.vector.lanes) if digital or not on_lines(item.integer("src")) else 0
    return Cost(cycles, words * (arch.energy.state_charge + arch.energy.state_read), words)


def _dstate(item: Item, arch: Architecture, data: Data) -> Cost:
    """A multiply-add a real state, two where complex; an elapsed time's decay is looked up."""
    words, factor = item.integer("words"), 2 if item.flag("complex") else 1
    passes = factor + (1 if item.timed else 0)
    return Cost(_up(words, arch.vector.lanes) * passes, words * passes * arch.energy.digital_state, words * factor)


def _spike(item: Item, arch: Architecture, data: Data) -> Cost:
    """A comparison and a multiply-add a neuron."""
    words = item.integer("words")
    return Cost(_up(words, arch.vector.lanes) * 2, words * 2 * arch.energy.digital_state, words)


def _rounded(item: Item, arch: Architecture, data: Data) -> Cost:
    """A multiply-add a state, two where complex; a pass to a code and one from it a place that rounds (ours)."""
    words, factor = item.integer("words"), 2 if item.flag("complex") else 1
    passes = factor + 2 * len(places_of(item.flag))
    return Cost(_up(words, arch.vector.lanes) * passes, words * passes * arch.energy.digital_state, words * factor)


def _rounded_sums(item: Item, arch: Architecture, data: Data) -> Cost:
    """A multiply-add a term; a pass to a code and one from it a number (ours). What stands later waits in the lanes."""
    words, terms = item.integer("words"), data[item.text("terms")].shape[1]
    work = terms + 2 * words
    return Cost(_up(work, arch.vector.lanes), work * arch.energy.digital_state, terms)


def _state_move(item: Item, arch: Architecture, data: Data) -> Cost:
    words = item.integer("words")
    one = arch.energy.state_charge if item.code.mnemonic == "preset" else arch.energy.state_read
    volatile = item.text("bank") == "volatile"
    return Cost(_up(words, arch.vector.lanes), words * (one if volatile else arch.energy.digital_state))


COSTS: dict[str, Callable[[Item, Architecture, Data], Cost]] = {
    **dict.fromkeys(("halt", "loop", "every", "recv", "collect", "tick"), _control),
    **dict.fromkeys(("send", "emit", "keep", "fetch"), _message),
    **dict.fromkeys(("fill", "copy", "binary", "delay", "pool", "pooled", "window", "windowed"), _words(1)),
    **dict.fromkeys(("prime", "tail"), _line),
    **dict.fromkeys(("dstate", "sel"), _dstate),
    **dict.fromkeys(("preset", "read"), _state_move),
    "spike": _spike,
    "rounded": _rounded,
    "rounded.sums": _rounded_sums,
    "select": _words(1),
    "gate": _words(2),
    "rot": _words(2),
    "unary": _table,
    "load": _load,
    "gather": _gather,
    "embed": _embed,
    "norm": _norm,
    "softmax": _softmax,
    "reduce": _reduce,
    "contract": _contract,
    "fir": _fir,
    "program": _program,
    "mvm": _mvm,
    "charge": _charge,
}


def cost(item: Item, arch: Architecture, data: Data) -> Cost:
    """One execution of an instruction, its fetch included. A message's hops are the mesh's, not its sender's."""
    found = COSTS[item.code.mnemonic](item, arch, data)
    energy = found.picojoules + arch.energy.control
    return Cost(found.cycles, energy, found.macs, found.conversions, found.drives, found.spared)
