"""The instruction set of EpochCore, the systolic array with states in place (reconstructed; the paper leaves its ISA open)."""

from __future__ import annotations

from isa.spec import Field, InstructionSet, InstructionSpec, Kind, Term

EPOCHCORE = InstructionSet(
    name="epochcore",
    version="1.0",
    doc="Load, compute, vector and store engines run decoupled; one instruction covers a tile over a stretch of time.",
    registers=(Term("rT", "Steps of the sequence."), Term("rB", "Samples in the batch.")),
    spaces=(Term("spad", "Scratchpad, in words."),),
    timings=(
        Term("control", "The sequencer alone."),
        Term("array", "A pass over the array."),
        Term("dma", "A transfer to DRAM."),
    ),
    instructions=(
        InstructionSpec("halt", 0x00, (), "control", "The machine stops."),
        InstructionSpec(
            "load",
            0x01,
            (
                Field("dst", Kind.ADDR, 24, "First word in the scratchpad.", space="spad"),
                Field("src", Kind.DATA, 16, "The constant."),
                Field(
                    "offset",
                    Kind.IMM,
                    20,
                    "First word of the constant.",
                    low=-(2**19),
                    default=0,
                    unit="words",
                ),
            ),
            "dma",
            "Copy a constant into the scratchpad.",
        ),
        InstructionSpec(
            "array",
            0x02,
            (
                Field("dst", Kind.ADDR, 24, "First word of the output.", space="spad"),
                Field("src", Kind.ADDR, 24, "First word of the input.", space="spad"),
                Field("steps", Kind.REG, 5, "Register with the number of steps."),
                Field("mode", Kind.ENUM, 3, "What a PE does.", choices=("mac", "fri", "tri")),
                Field("columns", Kind.IMM, 12, "Columns in use.", low=1),
                Field("reverse", Kind.FLAG, 1, "Walk the time backwards."),
            ),
            "array",
            "Run a tile over a stretch of time.",
        ),
    ),
)
