"""The instruction set of the crossbar compute-in-memory chip (reconstructed; the published chip's own is not known)."""

from __future__ import annotations

from isa.spec import Field, InstructionSet, InstructionSpec, Kind, Term

_DST = Field("dst", Kind.ADDR, 16, "First word of the result.", space="v")
_SRC = Field("src", Kind.ADDR, 16, "First word of the operand.", space="v")

CIM = InstructionSet(
    name="cim",
    version="1.0",
    doc="Programs are event-driven: a core sleeps in `recv` until a message comes, and states decay meanwhile.",
    registers=(Term("rT", "Steps of the sequence."), Term("rB", "Samples in the batch.")),
    spaces=(Term("v", "Vector registers of a core, in words."),),
    timings=(
        Term("control", "The sequencer alone."),
        Term("analog", "One pass through a crossbar and its converters."),
        Term("vector", "The vector unit, by words."),
    ),
    instructions=(
        InstructionSpec("halt", 0x00, (), "control", "The core stops."),
        InstructionSpec(
            "loop",
            0x01,
            (
                Field("count", Kind.REG, 5, "Register with the number of rounds."),
                Field("end", Kind.LABEL, 24, "First place after."),
            ),
            "control",
            "Run the code up to `end` as often as `count` says.",
        ),
        InstructionSpec(
            "mvm",
            0x02,
            (
                _DST,
                _SRC,
                Field("weights", Kind.DATA, 16, "Conductances."),
                Field("rows", Kind.IMM, 10, "Rows driven.", low=1),
                Field("scale", Kind.FLOAT, 32, "Factor after conversion.", default=1.0),
                Field("accumulate", Kind.FLAG, 1, "Add to the result instead of replacing it."),
            ),
            "analog",
            "Multiply a vector by a crossbar's conductances.",
        ),
        InstructionSpec(
            "lut",
            0x03,
            (_DST, _SRC, Field("function", Kind.ENUM, 4, "The table.", choices=("gelu", "sigmoid"))),
            "vector",
            "Look every word up in a table.",
        ),
    ),
)
