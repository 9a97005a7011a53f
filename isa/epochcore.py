"""The instruction set of EpochCore, a systolic array with states in place (reconstructed: the paper leaves it open).

An instruction covers a tile over a stretch of time. Lengths are in machine registers: the code is the same
for every sequence and batch. A value that changes with time lies in the scratchpad as `steps` rows of `pitch`
words; a value given once a sequence is one row. A complex vector is its real half, then its imaginary half.
"""

from __future__ import annotations

from dataclasses import replace

from isa.epochcore_array import ARRAY
from isa.epochcore_fields import DST, ENGINES, SRC, STEPS, flag, param, words
from isa.epochcore_time import TIME
from isa.epochcore_vector import VECTOR
from isa.fields import CONSTANT_BITS, Field, Kind
from isa.spec import InstructionSet, InstructionSpec, Term

REGISTERS = (
    Term("one", "Always 1: the steps of a value that is given once a sequence."),
    Term("rT", "Steps of the sequence at the model's input rate, set by the host."),
    Term("rB", "Samples in the batch, set by the host."),
    Term("n0", "Steps of the present chunk at the model's input rate, set by `chunks`."),
    *(Term(f"n{i}", "Steps of the present chunk at a lower rate, set by `rate`.") for i in range(1, 8)),
)

CONTROL = (
    InstructionSpec("halt", 0x00, (), "control", "The machine stops."),
    InstructionSpec(
        "samples",
        0x01,
        (
            Field("end", Kind.LABEL, 24, "First place after the code that is run."),
            Field("together", Kind.IMM, 8, "Samples of a round, the last one those that are left.", default=1, low=1),
            Field("base", Kind.IMM, 22, "First word of the scratchpad that is a sample's own.", default=0),
            Field("window", Kind.IMM, 22, "Words from those of a sample to those of the next one.", default=0),
        ),
        "control",
        "Run the code up to `end` once for every round of `together` samples of the batch, rB samples in all.",
        "Samples do not see each other's values; a simulator may run them side by side. In a round every instruction "
        "does what it says for each sample, each step for all of them before the next step: sample s has its own "
        "words of the scratchpad, s `window` words further than the addresses from `base` on, and its own streams. "
        "Weights that are in place meet the rows of all samples. Every sample has its own states in the array, and "
        "elements their parameters as often: a preload for n columns of states is one for n columns of the first "
        "sample (of all its segments), then n of the second, and so on.",
    ),
    InstructionSpec(
        "chunks",
        0x02,
        (
            Field("limit", Kind.IMM, 24, "Most steps in a chunk: what the scratchpad has room for.", low=1),
            Field("end", Kind.LABEL, 24, "First place after the code that is run."),
            flag("backward", "Chunks come from the end of the sequence to its beginning."),
            Field(
                "multiple", Kind.IMM, 16, "Every chunk but the last one in time has a multiple of it.", default=1, low=1
            ),
        ),
        "control",
        "Run the code up to `end` once for every chunk of the rT steps: as few as `limit` allows, of about equal n0.",
        "As RISC-V's vsetvl does for vectors; rT = 0 runs nothing. Loops over chunks do not nest.",
    ),
    InstructionSpec(
        "rate",
        0x03,
        (
            Field("dst", Kind.REG, 4, "Register n1..n7 that counts the steps at the lower rate."),
            Field("src", Kind.REG, 4, "Register that counts the steps at the higher rate."),
            Field("stride", Kind.IMM, 16, "Steps that become one.", low=1),
            Field("offset", Kind.IMM, 16, "Which of them, where one is taken.", default=0),
            flag("windows", "A step is complete with the last of its `stride`, not with the step that is taken."),
        ),
        "control",
        "Set `dst` to the steps of the present chunk at a lower rate.",
        "After t steps of `src` there are max(0, ceil((t - offset) / stride)) steps of `dst`, with `windows` "
        "floor(t / stride); a chunk holds the difference between its end and its start.",
    ),
)

TRANSFER = (
    InstructionSpec(
        "fetch",
        0x10,
        (param("dst", "First word in the parameter memory."), Field("src", Kind.DATA, CONSTANT_BITS, "The constant.")),
        "load",
        "Copy a constant from DRAM into the parameter memory, where it does not lie there already.",
    ),
    InstructionSpec(
        "const",
        0x11,
        (DST, Field("src", Kind.DATA, CONSTANT_BITS, "The constant."), words("Words of the constant.")),
        "load",
        "Copy a constant from DRAM into the scratchpad, as one row for all samples.",
    ),
    InstructionSpec(
        "load",
        0x12,
        (
            DST,
            Field("src", Kind.ADDR, 12, "Number of the stream in the host's table.", space="stream"),
            words("Words a step."),
            STEPS,
            flag("mirror", "The stream is read from its last step to its first."),
        ),
        "load",
        "Copy the present chunk of a stream, or with `one` a value of the sequence, from DRAM into the scratchpad.",
    ),
    InstructionSpec(
        "store",
        0x20,
        (
            Field("dst", Kind.ADDR, 12, "Number of the stream in the host's table.", space="stream"),
            SRC,
            words("Words a step."),
            STEPS,
        ),
        "store",
        "Copy the present chunk of a stream, or with `one` a value of the sequence, from the scratchpad to DRAM.",
    ),
)

QUEUE = (
    *(
        flag(f"pop.{engine}", f"Start when a token from the {engine} engine is there, and take it.")
        for engine in ENGINES
    ),
    *(flag(f"push.{engine}", f"Give the {engine} engine a token at the end.") for engine in ENGINES),
)
SYNC = InstructionSpec(
    "sync",
    0x04,
    (Field("engine", Kind.ENUM, 3, "The engine that runs it.", choices=ENGINES),),
    "sync",
    "Wait until the engine has finished all that is before; then take and give tokens.",
)


def _queued(spec: InstructionSpec) -> InstructionSpec:
    """An instruction of an engine, with its tokens."""
    return replace(spec, fields=(*spec.fields, *QUEUE))


EPOCHCORE = InstructionSet(
    name="epochcore",
    version="10.0",
    doc="Load, preload, compute, vector and store engines, each with a queue in program order. They run apart from "
    "each other and wait for each other by tokens, first in, first out from each engine to each other one (as in VTA, "
    "arXiv 1807.04188). One instruction covers a tile over a stretch of time. "
    "The paper (arXiv 2507.21394) does not publish an instruction set: this one is ours. In an ideal program words are "
    "float32 where the model's are, and float64 around states; in a realistic one words are float32, and the array "
    "computes in the integers of its architecture file.",
    word_bytes=24,
    registers=REGISTERS,
    spaces=(
        Term("spad", "Scratchpad: streams, sequence values and constants, in words."),
        Term("param", "Parameter memory that feeds the array's shadow registers, in words."),
        Term("stream", "The host's table of streams in DRAM, by number."),
    ),
    timings=(
        Term("control", "The sequencer alone: free."),
        Term("sync", "A cycle of the engine that it names."),
        Term("load", "A transfer from DRAM, by latency and bandwidth."),
        Term(
            "preload",
            "The way into the array's shadow registers, by rows, columns and ports. A row comes in word by word while "
            "those before it wait; no word comes to an element before the first step of the pass before has taken over "
            "what was there.",
        ),
        Term(
            "compute",
            "A pass over the array, by rows, columns, ports and steps. It begins when its first step comes nowhere "
            "before one more step of the pass before would have: to no element with its operands, to none with its "
            "sums, and with its words to no port before the last ones have left. Rows and columns that gangs leave "
            "over are passed as all others; `state.store` goes through as a step does, with sums that nothing is "
            "added to; results in place are all out at the end.",
        ),
        Term(
            "vector",
            "The vector unit, by words, width and the function's passes; `copy` and `gather` also by the banks of the "
            "scratchpad. All others take the rows of an operand as they lie, and order them in front of the lanes.",
        ),
        Term("store", "A transfer to DRAM, by latency and bandwidth."),
    ),
    instructions=CONTROL + tuple(_queued(spec) for spec in (SYNC, *TRANSFER, *ARRAY, *VECTOR, *TIME)),
)
