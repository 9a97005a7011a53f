"""What a group of products needs: which run together, and their weights and converters side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from backends.cim.arch import Crossbar
from backends.cim.program.access import on_lines, overlap, vector_ranges
from backends.cim.program.decode import Item
from backends.cim.simulate.converters import largest_word, output_range
from backends.cim.simulate.core import Core, Trap
from backends.cim.simulate.noise import device_normals, key_of
from backends.cim.simulate.programming import CrossbarArray, Meaning, meaning
from isa.cim_fields import LINES
from ssmc.ir.op import Array

_EXACT = 2**24  # whole numbers up to here are exact in float32
SAME = 1e-6  # relative; ranges are float32
_FINE_BITS = 12  # of a converter; from here on float32 would show


def together(items: tuple[Item, ...]) -> Iterator[tuple[Item, ...]]:
    """Items in order; products of one layer that follow each other come as one group."""
    group: list[Item] = []
    for item in items:
        if group and (item.code.mnemonic != "mvm" or not _joins(group, item)):
            yield tuple(group)
            group = []
        if item.code.mnemonic == "mvm":
            group.append(item)
        else:
            yield (item,)
    if group:
        yield tuple(group)


def _joins(group: list[Item], item: Item) -> bool:
    """Whether a product may run with those before it: none of them writes what it reads, or what it overwrites."""
    first = group[0]
    if item.loc != first.loc or any(item.integer(name) != first.integer(name) for name in ("vectors", "dst_step")):
        return False
    if any(on_lines(item.integer(name)) != on_lines(first.integer(name)) for name in ("src", "dst")):
        return False
    reads, writes = vector_ranges(item)
    for other in group:
        theirs_read, theirs = vector_ranges(other)
        if overlap(reads, theirs) or overlap(writes, theirs_read):
            return False
        if overlap(writes, theirs) and not (item.flag("accumulate") and writes == theirs):
            return False
    return True


# -- what a group of products needs ------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """Columns of a group's product from `start` on, and where they go: words from `at` on. Slice s of the columns lies
    s * cols further."""

    start: int
    cols: int
    at: int


@dataclass(frozen=True)
class Drive:
    """One input and all columns that read it, in words of the DAC and steps of the ADCs.

    A sum of input words times `weights` (rows, columns), times `to_word` and plus `offset` (columns,), is what an ADC
    rounds; times `gain` and the input's range it is the result; `middle` (columns of weights,) times the sum of the
    input words is subtracted. `variance` is that of a read of `weights`. `from_lines`: state nodes drive the rows, no
    DAC does; `to_lines`: the sums stay as they are, for no ADC reads them.
    """

    source: tuple[int, int, int, int]  # first word, rows, vectors, words between vectors
    input_range: float
    index: int
    weights: Array
    exact: bool
    variance: Array | None
    to_word: Array
    offset: Array | None
    gain: Array
    middle: Array | None
    targets: tuple[Target, ...]
    joined: tuple[Target, ...]  # of the columns of weights, neighbours together
    slices: int = 1
    from_lines: bool = False
    to_lines: bool = False

    @cached_property
    def places(self) -> Array:
        """(joined, 3) first column of weights, columns, first word."""
        return np.array([(place.start, place.cols, place.at) for place in self.joined])

    @cached_property
    def products(self) -> Array:
        """(targets, 2) first column and the one behind the last."""
        return np.array([(place.start, place.start + place.cols * self.slices) for place in self.targets])


def _joined(targets: tuple[Target, ...], slices: int) -> tuple[Target, ...]:
    found: list[Target] = []
    for target in targets:
        start, last = target.start // slices, found[-1] if found else None
        if last is not None and (last.start + last.cols, last.at + last.cols) == (start, target.at):
            found[-1] = Target(last.start, last.cols + target.cols, last.at)
        else:
            found.append(Target(start, target.cols, target.at))
    return tuple(found)


@dataclass
class Plan:
    """A group of products, ready to run while its arrays are as `versions` say."""

    versions: tuple[int, ...]
    first: int  # first word written
    words: int  # of one vector
    drives: tuple[Drive, ...]
    kept: tuple[tuple[int, int], ...]  # words that are added to: first word of a vector, words
    written: tuple[tuple[int, int], ...]  # words that are written, likewise
    dtype: Any  # of the digital sums behind the ADCs
    units: dict[int, float] = field(default_factory=dict)  # of the lines written, as `Core.units`
    scratch: dict[str, Array] = field(default_factory=dict)

    def room(self, name: str, rows: int, cols: int, dtype: Any) -> Array:
        """A buffer that is used again by every panel."""
        held = self.scratch.get(name)
        if held is None or held.size < rows * cols or held.dtype != dtype:
            held = self.scratch[name] = np.empty(rows * cols, dtype)
        return held[: rows * cols].reshape(rows, cols)


@dataclass(frozen=True)
class Block:
    """A part of an array that one product reads: what it `means`, or with perfect devices the `weight` itself; `full`
    is the ADC's range for inputs in -1..1."""

    scale: Array
    weight: Array | None = None
    means: Meaning | None = None
    full: float = 0.0


def _block(core: Core, code: Item) -> Block:
    number, row, rows, col, cols = (code.integer(name) for name in ("array", "row", "rows", "col", "cols"))
    array: CrossbarArray | None = core.arrays.get(number)
    part = slice(row, row + rows), slice(col, col + cols)
    inside = array is not None and row + rows <= array.cells.shape[0] and col + cols <= array.cells.shape[1]
    scales = array.cells.scales(part) if array is not None and inside else np.full((1, 1), np.nan)
    if array is None or np.isnan(scales).any():
        raise Trap(
            f"array {number} is read where it has not been programmed",
            f"rows {row}..{row + rows - 1}, columns {col}..{col + cols - 1}",
            f"let 'core{core.number}.setup' program it first",
        )
    if (scales != scales[0]).any():
        raise Trap(
            f"one product of array {number} reads weights of different scales",
            f"rows {row}..{row + rows - 1}, columns {col}..{col + cols - 1} were programmed in several blocks",
            "let one 'mvm' read each block, and add their results",
        )
    if core.ideal:
        return Block(scales[0].copy(), array.cells.weights(part))
    box, means = core.arch.crossbar, meaning(array, core.arch, core.devices, part)
    columns = means.relative.transpose(1, 0, 2).reshape(rows, -1)
    granule = 1.0 / (box.levels - 1) / (1 if box.input == "bit-serial" else largest_word(box.dac_bits))
    full = output_range(box.adc_range, columns, box.adc_norms, box.adc_bits, granule)
    return Block(scales[0].copy(), None, means, full)


def _full(block: Block, code: Item, box: Crossbar) -> float:
    """The ADC's range: calibrated where the policy lets it and the program carries one."""
    calibrated = code.real("output_range")
    if calibrated and box.single and box.adc_range in ("calibrated", "norm"):
        return calibrated
    return block.full


def input_of(item: Item) -> tuple[int, int, int, int]:
    """Where a product's input vectors lie: first register, words, vectors, words from one to the next."""
    rows = item.integer("rows")
    return item.integer("src"), rows, item.integer("vectors"), item.integer("src_step") or rows


def plan_of(core: Core, items: tuple[Item, ...]) -> Plan:
    """Products one after the other as few matrix products. Raises Trap where one does not fit its array."""
    by_input: dict[tuple[tuple[int, int, int, int], float], list[tuple[Item, Block]]] = {}
    kept, written = [], set()
    for item in items:
        try:
            block = _block(core, item)
        except Trap as trap:
            trap.item = item
            raise
        by_input.setdefault((input_of(item), item.real("input_range")), []).append((item, block))
        region = (item.integer("dst"), item.integer("cols"))
        if item.flag("accumulate") and region not in written:
            kept.append(region)
        written.add(region)
    first = min(at for at, _ in written)
    words = max(at + cols for at, cols in written) - first
    drives = tuple(_drive(core, source, reach, found, first) for (source, reach), found in by_input.items())
    dtype = np.result_type(*(drive.weights.dtype for drive in drives))
    units = {line: core.units[line] for at, cols in written for line in range(at, at + cols) if line in core.units}
    return Plan(versions_of(core, items), first, words, drives, tuple(kept), _touching(written), dtype, units)


def _touching(regions: set[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Regions (first word, words), those that touch as one."""
    found: list[tuple[int, int]] = []
    for at, words in sorted(regions):
        if found and found[-1][0] + found[-1][1] == at:
            found[-1] = (found[-1][0], found[-1][1] + words)
        else:
            found.append((at, words))
    return tuple(found)


def versions_of(core: Core, items: tuple[Item, ...]) -> tuple[int, ...]:
    """How often each product's array has been written; -1 where it never was."""
    return tuple(core.arrays[n].version if (n := item.integer("array")) in core.arrays else -1 for item in items)


def _drive(
    core: Core, source: tuple[int, int, int, int], reach: float, found: list[tuple[Item, Block]], first: int
) -> Drive:
    """One drive of the rows for all products that were found to share it; results count from register `first`."""
    slices = 1 if core.ideal else core.arch.crossbar.slices
    starts = accumulate([0, *(item.integer("cols") * slices for item, _ in found[:-1])])
    targets = tuple(
        Target(start, item.integer("cols"), item.integer("dst") - first)
        for start, (item, _) in zip(starts, found, strict=True)
    )
    if not core.ideal:
        return _converted(core, source, reach, found, targets)
    nothing = np.zeros(0)
    weights = np.concatenate([block.weight for _, block in found if block.weight is not None], axis=1)
    return Drive(source, reach, 0, weights, False, None, nothing, None, nothing, None, targets, _joined(targets, 1))


def _converted(
    core: Core,
    source: tuple[int, int, int, int],
    reach: float,
    found: list[tuple[Item, Block]],
    targets: tuple[Target, ...],
) -> Drive:
    """The same with converters and devices that err."""
    box, devices = core.arch.crossbar, core.devices
    if on_lines(found[0][0].integer("dst")):
        for item, block in found:
            _charges(core, item, block.scale * (reach or 1.0))
    parts = []
    for item, block in found:
        try:
            parts.append(_columns(core, item, block))
        except Trap as trap:
            trap.item = item
            raise
    relative, variance, to_word, offset, gain, middle = (
        np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)
    )
    units = np.rint(relative * (box.levels - 1))
    from_lines, to_lines = on_lines(source[0]), on_lines(found[0][0].integer("dst"))
    coupled = from_lines or to_lines
    whole = bool(np.abs(relative * (box.levels - 1) - units).max(initial=0.0) < 1e-9)
    exact = devices.converters and not from_lines and whole
    narrow = False
    if exact:
        relative, to_word = units, to_word / (box.levels - 1)
        variance = variance * (box.levels - 1) ** 2
        narrow = not coupled and max(box.dac_bits, box.adc_bits) < _FINE_BITS
        narrow = narrow and np.abs(units).sum(0).max(initial=0.0) * largest_word(box.dac_bits) < _EXACT
    dtype: Any = np.float32 if narrow else np.float64
    return Drive(
        source=source,
        input_range=reach,
        index=found[0][0].index,
        weights=np.ascontiguousarray(relative, dtype),
        exact=exact,
        variance=np.ascontiguousarray(variance, np.float64) if devices.read_noise != "none" else None,
        to_word=np.asarray(to_word, dtype),
        offset=np.asarray(offset, dtype) if offset.any() else None,
        gain=np.asarray(gain, dtype),
        middle=np.asarray(middle, dtype) if box.encoding == "offset" else None,
        targets=targets,
        joined=_joined(targets, box.slices),
        slices=box.slices,
        from_lines=from_lines,
        to_lines=to_lines,
    )


def _charges(core: Core, item: Item, units: Array) -> None:
    """Note what a full conductance, driven fully, stands for on each line; currents that join must agree."""
    for line, unit in enumerate(units.tolist(), item.integer("dst")):
        held = core.units.get(line, unit) if item.flag("accumulate") else unit
        if abs(held - unit) > SAME * abs(unit):
            trap = Trap(
                f"currents that join on line a[{line - LINES}] stand for different sums",
                f"full ones for {held:.6g} and {unit:.6g}",
                "program the arrays with one scale, and give their products one input_range",
            )
            trap.item = item
            raise trap
        core.units[line] = unit


def _columns(core: Core, item: Item, block: Block) -> tuple[Array, ...]:
    """One product's part of a drive: weights, variance, to_word, offset, gain by column, middle by weight column."""
    means, box, devices = block.means, core.arch.crossbar, core.devices
    assert means is not None
    _, rows, cols = means.relative.shape
    words = cols * box.slices
    relative = means.relative.transpose(1, 0, 2).reshape(rows, words)
    variance = means.variance.transpose(1, 0, 2).reshape(rows, words)
    gain = (means.gain[:, None] * block.scale[None, :]).reshape(words)
    if not devices.converters:
        return relative, variance, np.ones(words), np.zeros(words), gain, means.middle * block.scale
    inputs, largest = largest_word(box.dac_bits), largest_word(box.adc_bits)
    if on_lines(item.integer("dst")):
        offset = np.zeros(words)
        if devices.dac_offset:
            offset += _dac_offsets(core, item, rows) @ relative
        return relative, variance, np.ones(words), offset, gain / inputs, means.middle * block.scale
    if on_lines(item.integer("src")):
        inputs = 1
    full = _full(block, item, box)
    # Inputs that come bit by bit are -1, 0 or 1; a range for them is the range of a bit.
    unit = 1 if box.input == "bit-serial" else inputs
    to_word = largest / (full * unit) if full else 0.0
    offset = np.zeros(words)
    if devices.adc_offset:
        first = item.integer("col") * box.slices
        offset += _offsets(core, "adc", item, devices.adc_offset)[first : first + words]
    if devices.dac_offset and not on_lines(item.integer("src")):
        offset += to_word * (_dac_offsets(core, item, rows) @ relative)
    return (
        relative,
        variance,
        np.full(words, to_word),
        offset,
        gain * (full * unit / largest / inputs),
        means.middle * block.scale / inputs,
    )


def _dac_offsets(core: Core, item: Item, rows: int) -> Array:
    """(rows,) A constant at the inputs is one at the outputs; its part in the read noise is left out."""
    first = item.integer("row")
    return _offsets(core, "dac", item, core.devices.dac_offset)[first : first + rows]


def _offsets(core: Core, what: str, item: Item, sigma: float) -> Array:
    """Constant offsets of an array's converters, in their steps: of each row's DAC, or of each column's ADC."""
    box = core.arch.crossbar
    drawn = sigma * device_normals(key_of(core.seed, what, core.number, item.integer("array")), max(box.rows, box.cols))
    if what == "dac":
        return np.asarray(drawn[: box.rows])
    shared = max(1, box.cols_per_adc // (box.devices_per_weight if box.encoding == "pair" else 1))
    return np.asarray(drawn[np.arange(core.arch.weight_cols * box.slices) // shared])
