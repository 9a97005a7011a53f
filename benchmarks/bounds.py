"""Lower bounds on cycles of a model of Long Range Arena, and the forms in which a plain array would run its systems.

What no schedule on the array can go below, all resources kept busy at once:

* elements: a multiply-accumulate of a matrix, or a step of one (complex) state, an element and cycle;
* ports: a word that enters (or leaves) serves at most one row or column of the array, C products of a matrix, and R
  states of a channel; so a matrix needs L K ceil(N / C) words in and L N ceil(K / R) out, whole words both, a system
  L H max(1, P / R) of each, no more in a cycle than the columns hand on. Where results stay in place a fold takes
  K + R + C - 2 cycles: the less of the two counts;
* DRAM: parameters once, input once, output, and of the streams between loops over time what has no room on the chip;
* dependence: a layer that runs in both directions ends after it has begun, so layers follow each other: L cycles each;
* ends: the array has nothing to do before the first word has come from DRAM, and the last word still has to cross R
  rows and to be stored. Where the first pass is one of states, a column has nothing to do before its own parameters
  have come: with C columns one after the other, half of that time is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.epochcore.arch import Arch
from backends.epochcore.clock.gemm import ceil_div, output_fold
from benchmarks.models.lra import CLASSES, Model

PARAMETERS = 6  # words of an element: a, b and c, complex


@dataclass(frozen=True)
class Bound:
    """Cycles by resource."""

    elements: float
    ports: float
    dram: float
    dependence: float
    ends: float

    @property
    def cycles(self) -> float:
        return max(max(self.elements, self.ports, self.dependence) + self.ends, self.dram)

    @property
    def what(self) -> str:
        return max(("elements", "ports", "dram", "dependence"), key=lambda name: float(getattr(self, name)))


def bound(m: Model, arch: Arch, *, dense: bool, weight_bytes: int = 4) -> Bound:
    """The bound of the whole model, or (not `dense`) of its state-space layers alone."""
    rows, cols, length = arch.array.rows, arch.array.cols, m.length
    passes, h = m.layers * m.directions, m.channels
    steps = passes * length * h * m.states
    enter = leave = passes * length * h * max(1.0, m.states / rows)
    sizes = [(h, 2 * h)] * m.layers + ([] if m.tokens else [(1, h)]) if dense else []
    macs = sum(length * k * n for k, n in sizes)
    array = arch.array
    most = arch.array.cols * arch.array.column_words
    ports = max(enter / min(array.port_words_in, most), leave / min(array.port_words_out, most))
    ports += sum(_matrix(length, k, n, arch) for k, n in sizes)
    each = PARAMETERS * (4 if weight_bytes == 4 else arch.numbers.parameter_bits / 8)
    held = passes * h * m.states * each + sum(k * n for k, n in sizes) * weight_bytes
    ends = 2.0 * arch.dram.latency_cycles + rows
    if not dense:
        ends += min(h, cols) * min(m.states, rows) * each / arch.dram_bytes_per_cycle / 2
    word = arch.memory.word_bits // 8
    input_words = length
    spilled = _spilled(m, arch, dense)
    moved = held + (input_words + spilled + CLASSES) * word
    return Bound(
        (steps + macs) / (rows * cols),
        ports,
        moved / arch.dram_bytes_per_cycle,
        length * (m.layers if m.bidirectional and dense else 1),
        ends,
    )


def _matrix(steps: int, k: int, n: int, arch: Arch) -> float:
    """Cycles of a K x N matrix: its words at the ports with the weights in place, or its folds with the results."""
    array = arch.array
    entering, leaving = steps * k * ceil_div(n, array.cols), steps * n * ceil_div(k, array.rows)
    folds = steps * n / (array.rows * array.cols)
    weights = max(entering / array.port_words_in, leaving / array.port_words_out)
    return min(weights, folds * output_fold(k, array.rows, array.cols))


def _spilled(m: Model, arch: Arch, dense: bool) -> int:
    """Words that go to DRAM and come back: two streams of H words a step between loops, as many times as loops turn."""
    if not m.bidirectional:
        return 0
    alive = 2 if dense else 1
    beyond = max(0, m.length - arch.memory.stream_words // (alive * m.channels))
    return 2 * beyond * alive * m.channels * (m.layers if dense else 1)


@dataclass(frozen=True)
class Form:
    """A form in which a plain array runs the state-space layers: cycles and multiply-accumulates."""

    name: str
    cycles: int
    macs: int


def recurrent(m: Model, arch: Arch) -> Form:
    """One mat-vec a step: as many channels as fit side by side, [x; y] = M [x; u] with real states, R + C - 1 each.

    A fold keeps its weights over the whole sequence; a step waits for the states of the one before.
    """
    rows, cols = arch.array.rows, arch.array.cols
    size = 2 * m.states + 1
    folds = (
        ceil_div(m.channels, rows // size) if size <= rows else m.channels * ceil_div(size, rows) * ceil_div(size, cols)
    )
    passes = m.layers * m.directions * m.length
    return Form("mat-vec a step", passes * folds * (rows + cols - 1), passes * m.channels * size * size)


def headline(m: Model, arch: Arch) -> Form:
    """The reading of the paper's comparison: the baseline folds as we do, and pays fill and drain at every step."""
    channels = ceil_div(m.channels, arch.array.cols) * ceil_div(m.states, arch.array.rows)
    passes = m.layers * m.directions * m.length
    cycles = passes * channels * (arch.array.rows + arch.array.cols - 1)
    return Form("same folds, filled and drained every step", cycles, passes * m.channels * m.states * 8)


def toeplitz(m: Model, arch: Arch) -> Form:
    """Convolution: a block of R x C of the Toeplitz matrix for every distance of blocks, L/R - d rows each."""
    rows = arch.array.rows
    blocks = ceil_div(m.length, rows)
    each = sum(max(rows, blocks - distance) for distance in range(blocks))
    passes = m.layers * m.directions * m.channels
    return Form("Toeplitz products", passes * each, passes * m.length * (m.length + 1) // 2)


def forms(m: Model, arch: Arch) -> list[Form]:
    """Forms of the plain array that the compiler does not make; the others are compiled and timed."""
    return [recurrent(m, arch), toeplitz(m, arch)]
